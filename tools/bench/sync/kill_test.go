package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestKillRounds kills either side amid a few syncs; syncbench kill does so for long.
func TestKillRounds(t *testing.T) {
	if testing.Short() {
		t.Skip("mounts and kills; not with -short")
	}
	if f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0); err != nil || os.Geteuid() != 0 {
		t.Skipf("needs root and /dev/fuse: %v", err)
	} else {
		f.Close()
	}
	dir := t.TempDir()
	b := &bench{quarxfs: filepath.Join(dir, "quarxfs"), work: filepath.Join(dir, "work"), source: dir, rounds: 4, seed: 5}
	if out, err := exec.Command("go", "build", "-o", b.quarxfs, "github.com/quarxtor/quarxfs/cmd/quarxfs").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := b.run(t.Context(), b.kill); err != nil {
		t.Error(err)
	}
}
