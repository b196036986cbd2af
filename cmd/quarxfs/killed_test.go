package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/daemon"
	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/mounts"
)

// TestKilledWhileMounting: a daemon that is killed as soon as its mount is there
// leaves, and with it the lock of the store. One that waited for a request
// to its own mount could not.
func TestKilledWhileMounting(t *testing.T) {
	if testing.Short() || os.Geteuid() != 0 || openFUSE() != nil {
		t.Skip("needs FUSE and root")
	}
	store, mnt := emptyMount(t)
	must(t, "quarxfs", "init", store)
	for range 30 {
		killAtMount(t, store, mnt)
	}
	must(t, "quarxfs", "mount", store, mnt)
	must(t, "quarxfs", "umount", mnt)
}

// TestKilledWhileWritingBack: so does one that waits for the kernel to write
// pages back, as it does before it answers a search for a hole.
func TestKilledWhileWritingBack(t *testing.T) {
	if testing.Short() || os.Geteuid() != 0 || openFUSE() != nil {
		t.Skip("needs FUSE and root")
	}
	store, mnt := emptyMount(t)
	must(t, "quarxfs", "init", store)
	for i := range 8 {
		must(t, "quarxfs", "mount", store, mnt)
		killAmidSeeks(t, store, mnt, time.Duration(5+3*i)*time.Millisecond)
	}
	must(t, "quarxfs", "mount", store, mnt)
	must(t, "quarxfs", "umount", mnt)
}

// killAmidSeeks kills the daemon while holes are looked for in files that are
// being written.
func killAmidSeeks(t *testing.T, store, mnt string, after time.Duration) {
	t.Helper()
	_, pidfd, err := daemonProcess(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	var users sync.WaitGroup
	for i := range 4 {
		f, err := os.Create(filepath.Join(mnt, strconv.Itoa(i)))
		if err != nil {
			t.Fatal(err)
		}
		users.Go(func() {
			defer f.Close()
			page := make([]byte, 64<<10)
			for n := int64(0); ; n++ {
				if _, err := f.WriteAt(page, n%64*(128<<10)); err != nil {
					return
				}
				if _, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_HOLE); err != nil && err != unix.ENXIO {
					return
				}
			}
		})
	}
	time.Sleep(after)
	if err := unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0); err != nil {
		t.Fatal(err)
	}
	if err := daemon.WaitForEnd(t.Context(), pidfd, 20*time.Second); err != nil {
		t.Error("the daemon is still there long after SIGKILL:", err)
		_ = unix.Unmount(mnt, unix.MNT_FORCE)
	}
	users.Wait()
	if err := unix.Unmount(mnt, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
}

func killAtMount(t *testing.T, store, mnt string) {
	t.Helper()
	cmd := exec.Command("quarxfs", "mount", "--foreground", store, mnt)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	left := make(chan error, 1)
	go func() { left <- cmd.Wait() }()
	for there := false; !there; time.Sleep(100 * time.Microsecond) {
		table, err := mounts.Table()
		if err != nil {
			t.Fatal(err)
		}
		m, ok := mounts.At(table, mnt)
		there = ok && m.Dir == mnt
		select {
		case err := <-left:
			t.Fatalf("mount ended: %v", err)
		default:
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-left:
	case <-time.After(10 * time.Second):
		t.Error("the daemon is still there 10 s after SIGKILL")
		_ = unix.Unmount(mnt, unix.MNT_FORCE) // ends its requests
		<-left
	}
	if err := unix.Unmount(mnt, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
}

// daemonProcess returns the store's daemon as daemon.Peer does.
func daemonProcess(ctx context.Context, dir string) (pid, pidfd int, err error) {
	c, err := daemon.Dial(ctx, dir, "")
	if err != nil {
		return 0, -1, err
	}
	defer c.Close()
	return daemon.Peer(c)
}
