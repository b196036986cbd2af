package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/daemon"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/tiering/s3/s3test"
)

var tierKills = flag.Int("tier-kills", 4, "how often TestS3Tier kills the daemon")

// TestS3Tier moves files of a mounted store to a bucket and back, kills the daemon
// amid that, and takes the server away for a while: nothing is lost.
func TestS3Tier(t *testing.T) {
	if testing.Short() {
		t.Skip("mounts and kills; not with -short")
	}
	if err := openFUSE(); err != nil {
		t.Skip(err)
	}
	t.Parallel() // children alone touch the mount, so none that another test forks has it open
	server := s3test.Start(t)
	store, mnt := emptyMount(t)
	mount := func(args ...string) {
		t.Helper()
		must(t, "env", append([]string{"QUARXFS_S3_ACCESS_KEY_ID=" + s3test.AccessKey, "QUARXFS_S3_SECRET_ACCESS_KEY=" + s3test.SecretKey,
			"quarxfs", "mount", store, mnt}, args...)...)
	}
	mount("--init")
	rng := rand.New(rand.NewPCG(6, 6))
	want := make(map[string][]byte)
	for i := range 18 { // more than a segment has room for: one is full, and sent
		data := make([]byte, 4<<20)
		for j := 0; j < len(data); j += 4 {
			binary.LittleEndian.PutUint32(data[j:], rng.Uint32())
		}
		name := fmt.Sprintf("f%d", i)
		want[name] = data
		put(t, filepath.Join(mnt, name), data)
	}
	must(t, "quarxfs", "tier", "add", mnt, "cold", "s3://"+s3test.Bucket+"/store", "--endpoint", server.URL)
	must(t, "quarxfs", "tier", "demote", mnt, "/")
	again := func() {
		t.Helper()
		mount()
		for name, data := range want {
			if got := must(t, "cat", filepath.Join(mnt, name)); !bytes.Equal(got, data) {
				t.Errorf("%s: %d bytes, not those that were written", name, len(got))
			}
		}
	}
	must(t, "quarxfs", "umount", mnt)
	again()
	for round := range *tierKills {
		args := []string{"tier", "promote", mnt, "/"}
		if round%2 == 1 {
			args = []string{"tier", "demote", mnt, "/"}
		}
		killAmid(t, store, time.Duration(rng.IntN(120))*time.Millisecond, args...)
		must(t, "umount", "-l", mnt)
		again()
		must(t, "quarxfs", "fsck", mnt)
	}
	must(t, "quarxfs", "tier", "demote", mnt, "/")
	put(t, filepath.Join(mnt, "hot"), []byte("hot"))
	awaitUploads(t, mnt) // unmounting breaks them off, and what is not sent can be read
	must(t, "quarxfs", "umount", mnt)
	mount()

	// The server is away: what is hot works, what is cold fails and does not hang.
	server.Kill()
	must(t, "cat", filepath.Join(mnt, "hot"))
	put(t, filepath.Join(mnt, "new"), []byte("new"))
	away := ""
	for name, data := range want { // some are in a segment that is not full and was not sent yet
		got, err := program(t, "timeout", "60", "cat", filepath.Join(mnt, name))
		if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == 124 {
			t.Error("a read hangs while the server is away")
		}
		if err != nil {
			away = name
		} else if !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes, not those that were written", name, len(got))
		}
	}
	if away == "" {
		t.Fatal("all was read while the server is away")
	}
	server.Run(t)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(200 * time.Millisecond) {
		got, err := program(t, "cat", filepath.Join(mnt, away))
		if err == nil && bytes.Equal(got, want[away]) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the server is back, and a cold file cannot be read: %d bytes, %v", len(got), err)
		}
	}
	must(t, "quarxfs", "tier", "drain", mnt, "cold")
	must(t, "quarxfs", "umount", mnt)
	server.Kill()
	again()
	must(t, "quarxfs", "umount", mnt)
}

// awaitUploads waits until the cold tier has no full segment that is not uploaded.
func awaitUploads(t *testing.T, mnt string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		var stats struct{ Tiers []store.Tier }
		if err := json.Unmarshal(must(t, "quarxfs", "stats", mnt, "--json"), &stats); err != nil {
			t.Fatal(err)
		}
		waiting := slices.ContainsFunc(stats.Tiers, func(tier store.Tier) bool { return tier.Unsealed > 0 })
		if len(stats.Tiers) == 2 && !waiting {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("segments still wait to be uploaded: %+v", stats.Tiers)
		}
	}
}

// put writes a file by a child, and has it durable.
func put(t *testing.T, path string, data []byte) {
	t.Helper()
	cmd := exec.Command("dd", "of="+path, "bs=64k", "conv=fsync", "status=none")
	cmd.Stdin = bytes.NewReader(data)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("write %s: %v: %s", path, err, out)
	}
}

// killAmid kills the store's daemon some time after a command was started.
func killAmid(t *testing.T, store string, after time.Duration, args ...string) {
	t.Helper()
	_, pidfd, err := daemonProcess(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	cmd := exec.Command("quarxfs", args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(after)
	if err := unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // the daemon is gone
	if err := daemon.WaitForEnd(t.Context(), pidfd, 20*time.Second); err != nil {
		t.Fatal(err)
	}
}
