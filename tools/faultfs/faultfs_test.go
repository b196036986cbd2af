package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestDatabaseFaults fails operations on the database's files, Badger's among them,
// one in each run of dbfaults.sh: what was acknowledged is there when the
// disk works again, and the store mounts. Those that cost data once, tables that
// could not be made and a manifest that could not be synced, are among them.
func TestDatabaseFaults(t *testing.T) {
	if testing.Short() || os.Geteuid() != 0 {
		t.Skip("needs FUSE and root, and takes half a minute")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("needs FUSE: ", err)
	}
	dir := t.TempDir()
	args := []string{filepath.Join(dir, "quarxfs"), filepath.Join(dir, "faultfs"), dir, "1"}
	for i, pkg := range []string{"../../cmd/quarxfs", "."} {
		if out, err := exec.Command("go", "build", "-o", args[i], pkg).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	for n := 30; n < 84; n += 9 {
		args = append(args, fmt.Sprint(n))
	}
	for n := 84; n < 100; n++ {
		args = append(args, fmt.Sprint(n))
	}
	for n := 116; n < 124; n++ {
		args = append(args, fmt.Sprint(n))
	}
	out, err := exec.Command("./dbfaults.sh", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Logf("%s", out)
}
