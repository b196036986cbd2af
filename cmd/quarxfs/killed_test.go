package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestKilledWhileMounting: a daemon that is killed as soon as its mount is there
// leaves, and with it the lock of the store. One that waited for a request
// to its own mount could not.
func TestKilledWhileMounting(t *testing.T) {
	if testing.Short() || os.Geteuid() != 0 || openFUSE() != nil {
		t.Skip("needs FUSE and root")
	}
	dir := t.TempDir()
	t.Cleanup(func() {
		if err := cleanUp(dir); err != nil {
			t.Error(err)
		}
	})
	store, mnt := filepath.Join(dir, "store"), filepath.Join(dir, "mnt")
	if err := os.Mkdir(mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	must(t, "quarxfs", "init", store)
	for range 30 {
		killAtMount(t, store, mnt)
	}
	must(t, "quarxfs", "mount", store, mnt)
	must(t, "quarxfs", "umount", mnt)
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
		table, err := mountTable()
		if err != nil {
			t.Fatal(err)
		}
		m, ok := mountOf(table, mnt)
		there = ok && m.dir == mnt
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
