package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// script runs lines of a script that has sourced tools/lib.sh, in a directory of its own.
func script(t *testing.T, lines string, args ...string) (out string, status int, work string) {
	t.Helper()
	lib, err := filepath.Abs("../lib.sh")
	if err != nil {
		t.Fatal(err)
	}
	work = t.TempDir()
	file := filepath.Join(t.TempDir(), "some.sh")
	text := "usage='some.sh [--quarxfs FILE] [--work DIR] [--size-limit BYTES] [--fast] NAME...'\nsource " + lib + "\n" +
		"size_limit=1 fast= quarxfs=/bin/true work=" + work + "\noptions \"$@\"\n" + lines + "\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "bash", append([]string{file}, args...)...)
	said, _ := cmd.CombinedOutput() // its status is looked at
	return string(said), cmd.ProcessState.ExitCode(), work
}

func TestFlagsOfScripts(t *testing.T) {
	const tell = `echo "$size_limit,$fast,${arguments[*]}"`
	for _, tc := range []struct {
		args   string
		status int
		out    string
	}{
		{"", 0, "1,,\n"},
		{"--size-limit 2 a b", 0, "2,,a b\n"},
		{"a --size-limit=3 --fast b", 0, "3,1,a b\n"},
		{"-- --fast", 0, "1,,--fast\n"},
		{"--size-limit", 1, "some.sh: --size-limit needs a value"},
		{"--size 2", 1, "some.sh: unknown flag --size;"},
		{"-x", 1, "some.sh: unknown flag -x;"},
		{"--help", 0, "usage: some.sh"},
	} {
		if out, status, _ := script(t, tell, strings.Fields(tc.args)...); status != tc.status || !strings.HasPrefix(out, tc.out) {
			t.Errorf("%s: status %d, %q; want %d, %q", tc.args, status, out, tc.status, tc.out)
		}
	}
}

// However a script ends, its directory, mounts and children are gone, and its status is its own.
func TestCleanupOfScripts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounts a tmpfs, which takes root")
	}
	const set = "workspace; mkdir $mnt/in; mount -t tmpfs none $mnt; mkdir $mnt/in; mount -t tmpfs none $mnt/in; sleep 100 & later echo last $!;"
	for _, tc := range []struct {
		end    string
		status int
	}{
		{"exit 3", 3},
		{"set -e; false", 1},
		{"kill -TERM $$", 130},
		{"later false", 0},
	} {
		out, status, work := script(t, set+tc.end)
		if status != tc.status || !strings.Contains(out, "last ") {
			t.Errorf("%s: status %d, want %d: %s", tc.end, status, tc.status, out)
		}
		if left, err := os.ReadDir(work); err != nil || len(left) > 0 {
			t.Errorf("%s: left behind: %v, %v", tc.end, left, err)
		}
		if pid := strings.TrimSpace(out[strings.LastIndex(out, "last ")+5:]); exec.Command("kill", "-0", pid).Run() == nil {
			t.Errorf("%s: its child %s lives", tc.end, pid)
		}
	}
	if out, status, work := script(t, "keep=1; workspace"); status != 0 || !strings.HasPrefix(out, "left in place: "+work) {
		t.Errorf("keep: %d, %s", status, out)
	}
}
