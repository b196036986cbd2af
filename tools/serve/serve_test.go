package serve

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseMountinfo(t *testing.T) {
	got := parseMountinfo("22 1 8:1 / / rw,relatime - ext4 /dev/vda rw\n" +
		`45 22 0:39 / /tmp/a\040b\134c rw,nosuid - fuse.x x rw` + "\n" +
		"short line\n")
	if want := []string{"/", `/tmp/a b\c`}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestStatFields(t *testing.T) {
	got := StatFields("12 (a) (b c) S 1 2 3\n")
	if want := []string{"S", "1", "2", "3"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestKillProcess(t *testing.T) {
	cmd := exec.Command("sleep", "100")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	if !alive(cmd.Process.Pid) {
		t.Fatal("a process just started counts as gone")
	}
	if err := KillProcess(cmd.Process.Pid); err != nil {
		t.Error(err)
	}
}

// A command that leaves a child with its output open must not keep us waiting.
func TestRunReturnsBeforeTheDaemon(t *testing.T) {
	start := time.Now()
	out, err := run(t.Context(), nil, "sh", "-c", "echo said; sleep 20 & echo $!")
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("waited %v for the daemon", took)
	}
	var pid int
	if n, _ := fmt.Sscanf(out, "said\n%d", &pid); n != 1 {
		t.Fatalf("output %q", out)
	}
	if err := KillProcess(pid); err != nil {
		t.Error(err)
	}
}

func TestRunReportsTheReason(t *testing.T) {
	_, err := run(t.Context(), nil, "sh", "-c", "echo the reason >&2; exit 3")
	if want := "sh -c echo the reason >&2; exit 3: exit status 3: the reason"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestPlainPlace(t *testing.T) {
	dir := t.TempDir()
	p, err := NewPlain("plain", dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Mount(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(p.Dir, "f"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := p.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(p.Dir); err != nil || len(left) > 0 {
		t.Errorf("after Reset: %v, %v", left, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("after Close: %v, %v", left, err)
	}
}

// loopbackBin builds the pinned example, or skips where FUSE cannot mount.
func loopbackBin(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("builds and mounts; not with -short")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("no /dev/fuse here")
	}
	bin := filepath.Join(t.TempDir(), "loopback")
	out, err := exec.Command("go", "build", "-o", bin, "github.com/hanwen/go-fuse/v2/example/loopback").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return bin
}

func TestLoopbackPlace(t *testing.T) {
	p, err := NewLoopback("loopback", t.TempDir(), loopbackBin(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if on, err := Mounted(p.Dir); on || err != nil {
			t.Errorf("still mounted after Close (%v)", err)
		}
	}()
	if err := p.Mount(t.Context()); err != nil {
		t.Skip("cannot mount here:", err)
	}
	file := filepath.Join(p.Dir, "f")
	if err := os.WriteFile(file, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	killed, err := p.PID(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if alive(killed) {
		t.Error("the daemon outlived Kill")
	}
	if err := p.Mount(t.Context()); err != nil {
		t.Fatal("after a kill:", err)
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != "x" {
		t.Errorf("after a kill: %q, %v", got, err)
	}
	if err := p.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("after Reset: %v", err)
	}
}

func TestCommandsPlace(t *testing.T) {
	bin := loopbackBin(t)
	p, err := NewCommands(t.Context(), "custom", t.TempDir(), Commands{
		Init:  "mkdir $DIR/back && touch $DIR/back/made",
		Mount: bin + " -q -directmount $MNT $DIR/back & echo $! >$DIR/pid; for i in 1 2 3 4 5 6 7 8 9 10; do test -e $MNT/made && exit 0; sleep 0.1; done; exit 1",
		PID:   "cat $DIR/pid",
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	if err := p.Mount(t.Context()); err != nil {
		t.Skip("cannot mount here:", err)
	}
	if pid, err := p.PID(t.Context()); err != nil || !alive(pid) {
		t.Errorf("daemon %d is not alive (%v)", pid, err)
	}
	if err := p.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(p.Dir, "made")); err != nil {
		t.Error(err)
	}
}

// quarxScript answers as the quarxfs commands that the tools rely on.
const quarxScript = `#!/bin/sh
set -e
case $1 in
init) mkdir -p $2/back ;;
mount)
	LOOPBACK -q -directmount $3 $2/back </dev/null & echo $! >$2/pid
	while kill -0 $!; do grep -q " $3 " /proc/self/mountinfo && exit 0; sleep 0.1; done; exit 1 ;;
umount) for i in 1 2 3 4 5 6 7 8 9; do umount $2 && exit 0; sleep 0.1; done; umount $2 ;; # busy for a moment
stats) test "$3" = --json; echo "{\"daemon\":{\"pid\":$(cat $2/pid)},\"fuse\":{\"requests\":{\"READ\":7}},\"more\":1}" ;;
*) exit 2 ;;
esac
`

func TestQuarXFSPlace(t *testing.T) {
	script := filepath.Join(t.TempDir(), "quarxfs")
	if err := os.WriteFile(script, []byte(strings.ReplaceAll(quarxScript, "LOOPBACK", loopbackBin(t))), 0o755); err != nil {
		t.Fatal(err)
	}
	p, err := NewQuarXFS(t.Context(), "quarxfs", t.TempDir(), QuarXFS{Bin: script})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	if err := p.Mount(t.Context()); err != nil {
		t.Skip("cannot mount here:", err)
	}
	messages, err := p.Server.(Counter).Messages(t.Context())
	if err != nil || messages["READ"] != 7 {
		t.Errorf("%v, %v", messages, err)
	}
	if pid, err := p.PID(t.Context()); err != nil || !alive(pid) {
		t.Errorf("daemon %d is not alive (%v)", pid, err)
	}
	file := filepath.Join(p.Dir, "f")
	if err := os.WriteFile(file, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := p.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := p.Mount(t.Context()); err != nil {
		t.Fatal("after a kill:", err)
	}
	if _, err := os.Stat(file); err != nil {
		t.Error("after a kill:", err)
	}
	if err := p.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("after Reset: %v", err)
	}
}
