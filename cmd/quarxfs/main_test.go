package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/daemon"
	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/mounts"
	"github.com/quarxtor/quarxfs/fs"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"quarxfs": main, mountHelper: main, umountHelper: main, "list-tree": listTree})
}

// TestScripts runs testdata/script: the program as its users see it. Mounts are
// touched by child processes only, and cleaned away whatever happens.
func TestScripts(t *testing.T) {
	p := scriptParams(t)
	p.Dir = "testdata/script"
	testscript.Run(t, p)
}

// TestNamespaceScripts runs testdata/namespaces, one script after the other: a new mount
// namespace has a copy of each mount that is there, and umount refuses while one has.
func TestNamespaceScripts(t *testing.T) {
	scripts, err := filepath.Glob("testdata/namespaces/*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatal("no scripts: ", err)
	}
	for _, script := range scripts {
		// The subtest that Run makes is parallel, so each script gets a test to end in.
		t.Run("alone", func(t *testing.T) {
			p := scriptParams(t)
			p.Files = []string{script}
			testscript.Run(t, p)
		})
	}
}

func scriptParams(t *testing.T) testscript.Params {
	return testscript.Params{
		Setup: func(env *testscript.Env) error {
			env.Setenv("TZ", "UTC")
			env.Setenv("GORACE", "atexit_sleep_ms=0") // a second for each command otherwise
			env.Defer(func() {
				if err := cleanUp(env.WorkDir); err != nil {
					t.Error(err)
				}
			})
			return nil
		},
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "fuse":
				return openFUSE() == nil, nil
			case "root":
				return os.Geteuid() == 0, nil
			}
			return false, errors.New("no such condition")
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":   cmdExits,
			"killed":  cmdKilled,
			"signal":  cmdSignal,
			"tmpfs":   cmdTmpfs,
			"ext4":    cmdExt4,
			"lose":    cmdLose,
			"mounted": cmdMounted,
			"agree":   cmdAgree,

			"same-holes": cmdSameHoles,
			"systemd":    cmdSystemd,
			"relay":      cmdRelay,
			"said":       cmdSaid,
			"golden":     cmdGolden,
		},
	}
}

// cleanUp ends the daemons of all mounts below dir and takes the mounts away.
func cleanUp(dir string) error {
	table, err := mounts.Table()
	if err != nil {
		return err
	}
	slices.Reverse(table)
	var errs []error
	for _, m := range table {
		if !mounts.Within(m.Dir, dir) {
			continue
		}
		if m.IsQuarXFS() {
			if _, pidfd, err := daemonProcess(context.Background(), m.Source); err == nil {
				_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
				unix.Close(pidfd)
			}
		}
		errs = append(errs, mounts.Unmount(m.Dir, unix.MNT_DETACH))
	}
	return errors.Join(errs...)
}

// exits CODE ARGS... runs quarxfs, which must end with that code. What it
// prints can be looked at as after exec.
func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE ARGS...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec("quarxfs", args[1:]...)
	got := 0
	var exit interface{ ExitCode() int }
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("quarxfs %v: exit code %d, want %d", args[1:], got, want)
	}
}

// killed STORE kills the store's daemon with SIGKILL and waits for its end.
func cmdKilled(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: killed STORE")
	}
	_, pidfd, err := daemonProcess(context.Background(), ts.MkAbs(args[0]))
	ts.Check(err)
	defer unix.Close(pidfd)
	ts.Check(unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0))
	ts.Check(daemon.WaitForEnd(context.Background(), pidfd, 10*time.Second))
}

// signal NAME STORE sends a signal to the store's daemon.
func cmdSignal(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: signal NAME STORE")
	}
	_, pidfd, err := daemonProcess(context.Background(), ts.MkAbs(args[1]))
	ts.Check(err)
	defer unix.Close(pidfd)
	ts.Check(unix.PidfdSendSignal(pidfd, unix.SignalNum("SIG"+args[0]), nil, 0))
}

// systemd FILE writes what programs that are started from now on tell systemd to
// a file, a line for each message.
func cmdSystemd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: systemd FILE")
	}
	f, err := os.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	dir, err := os.MkdirTemp("", "q") // a socket's name is short
	ts.Check(err)
	addr := &net.UnixAddr{Name: filepath.Join(dir, "s"), Net: "unixgram"}
	c, err := net.ListenUnixgram("unixgram", addr)
	ts.Check(err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 4096)
		for {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			fmt.Fprintf(f, "%s\n", b[:n])
		}
	}()
	ts.Defer(func() {
		c.Close()
		<-done
		f.Close()
		os.RemoveAll(dir)
	})
	ts.Setenv("NOTIFY_SOCKET", addr.Name)
}

// tmpfs DIR SIZE mounts a small disk.
func cmdTmpfs(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: tmpfs DIR SIZE")
	}
	ts.Check(os.MkdirAll(ts.MkAbs(args[0]), 0o755))
	ts.Check(unix.Mount("tmpfs", ts.MkAbs(args[0]), "tmpfs", 0, "size="+args[1]))
}

// ext4 DIR SIZE mounts a small disk whose filesystem is in a file.
func cmdExt4(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: ext4 DIR SIZE")
	}
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o755))
	ts.Check(ts.Exec("truncate", "-s", args[1], dir+".img"))
	ts.Check(ts.Exec("mkfs.ext4", "-q", "-m", "0", dir+".img"))
	// umount frees a loop device that mount has set up.
	ts.Check(ts.Exec("mount", "-o", "loop", dir+".img", dir))
}

// lose DIR has an ext4 answer everything with EIO from now on, as if its disk had been pulled out.
func cmdLose(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: lose DIR")
	}
	d, err := os.Open(ts.MkAbs(args[0]))
	ts.Check(err)
	defer d.Close()
	const shutdown, noLogFlush = 0x8004587d, 2 // EXT4_IOC_SHUTDOWN
	ts.Check(unix.IoctlSetPointerInt(int(d.Fd()), shutdown, noLogFlush))
}

// mounted DIR checks that a QuarXFS is mounted there.
func cmdMounted(ts *testscript.TestScript, neg bool, args []string) {
	table, err := mounts.Table()
	ts.Check(err)
	dir, err := filepath.EvalSymlinks(filepath.Dir(ts.MkAbs(args[0])))
	ts.Check(err)
	dir = filepath.Join(dir, filepath.Base(args[0]))
	m, ok := mounts.At(table, dir)
	if (ok && m.Dir == dir) == neg {
		ts.Fatalf("mounted %s: %v", dir, !neg)
	}
}

func TestExitCodesAreOnePerLine(t *testing.T) {
	seen := map[int]bool{exitOK: true, exitOther: true}
	for _, row := range exits {
		if seen[row.code] {
			t.Errorf("exit code %d has two rows", row.code)
		}
		seen[row.code] = true
	}
	if got := exitCode(errors.Join(errors.New("x"), fs.ErrNoFUSE)); got != 10 {
		t.Errorf("exit code %d for a missing /dev/fuse", got)
	}
}

// cmdSameHoles fails if a file has other bytes than one that is wanted, or more that are in no
// hole.
func cmdSameHoles(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: same-holes FILE WANT")
	}
	if ts.ReadFile(args[0]) != ts.ReadFile(args[1]) {
		ts.Fatalf("%s and %s differ", args[0], args[1])
	}
	got, err := dataBytes(ts.MkAbs(args[0]))
	ts.Check(err)
	want, err := dataBytes(ts.MkAbs(args[1]))
	ts.Check(err)
	if got > want {
		ts.Fatalf("%d bytes of %s are in no hole, want %d", got, args[0], want)
	}
}

// cmdRelay makes the control socket of a mounted store reachable over TCP, and sets
// a variable to its URL.
func cmdRelay(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: relay STORE VARIABLE")
	}
	dir := ts.MkAbs(args[0])
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { l.Close() })
	ts.Setenv(args[1], "http://"+l.Addr().String())
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go relay(c, dir)
		}
	}()
}

// said REGEXP VARIABLE sets a variable to what the group in a regular expression
// is in the output of the last program.
func cmdSaid(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: said REGEXP VARIABLE")
	}
	re, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	found := re.FindStringSubmatch(ts.ReadFile("stdout"))
	if len(found) != 2 {
		ts.Fatalf("the output has no %s with a group", args[0])
	}
	ts.Setenv(args[1], found[1])
}

func relay(c net.Conn, dir string) {
	defer c.Close()
	up, err := daemon.Dial(context.Background(), dir, "")
	if err != nil {
		return
	}
	defer up.Close()
	go func() { _, _ = io.Copy(up, c); up.Close() }()
	_, _ = io.Copy(c, up)
}
