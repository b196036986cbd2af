package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/daemon"
	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/mounts"
)

// A way to end a mount. Of one that is a command, the exit code is wanted where all was kept, and
// where the last commit has failed.
type wayToLeave struct {
	name       string
	foreground bool
	before     string   // what somebody has done to the store's directory
	command    []string // MNT stands for the mountpoint
	dir        string   // where it runs, from the top
	signal     unix.Signal
	failed     int
}

var waysToLeave = []wayToLeave{
	{name: "umount", command: []string{"quarxfs", "umount", "MNT"}, failed: 11},
	{name: "umount from elsewhere", command: []string{"quarxfs", "umount", "../m"}, dir: "disk", failed: 11},
	{name: "umount --force", command: []string{"quarxfs", "umount", "--force", "MNT"}, failed: 11},
	{name: "umount without a socket", before: "rm control.sock", command: []string{"quarxfs", "umount", "MNT"}, failed: 11},
	{name: "umount without a lock", before: "rm lock control.sock", command: []string{"quarxfs", "umount", "MNT"}, failed: 11},
	{name: "umount --force without a socket", before: "rm control.sock", command: []string{"quarxfs", "umount", "--force", "MNT"}, failed: 11},
	{name: "umount with a copy of the socket", before: "cp -a control.sock copy; mv copy control.sock", command: []string{"quarxfs", "umount", "MNT"}, failed: 11},
	{name: "umount with another file as the socket", before: "rm control.sock; echo >control.sock", command: []string{"quarxfs", "umount", "--force", "MNT"}, failed: 11},
	{name: "umount of a foreground daemon", foreground: true, command: []string{"quarxfs", "umount", "MNT"}, failed: 11},
	{name: "helper of umount(8)", command: []string{umountHelper, "MNT"}, failed: mountFailure},
	{name: "umount(8)", command: []string{"umount", "-i", "MNT"}},
	{name: "umount(8), lazy", command: []string{"umount", "-i", "-l", "MNT"}},
	{name: "fusermount3", command: []string{"fusermount3", "-u", "MNT"}},
	{name: "SIGTERM", signal: unix.SIGTERM},
	{name: "SIGINT", signal: unix.SIGINT},
	{name: "SIGHUP", signal: unix.SIGHUP},
	{name: "SIGTERM of a foreground daemon", foreground: true, signal: unix.SIGTERM},
	{name: "mount --move, SIGTERM", command: []string{"mount", "--move", "MNT", "moved"}, signal: unix.SIGTERM},
}

// TestWaysToLeave: however a mount ends, all is committed, or the store is as of the commit before
// and that is said by the daemon's exit code, by its log, and by a command that waits for it.
func TestWaysToLeave(t *testing.T) {
	if testing.Short() || os.Geteuid() != 0 || openFUSE() != nil {
		t.Skip("needs FUSE and small disks")
	}
	for _, way := range waysToLeave {
		if len(way.command) > 0 {
			if _, err := exec.LookPath(way.command[0]); err != nil {
				t.Logf("%s: %v", way.name, err)
				continue
			}
		}
		for _, full := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, full %v", way.name, full), func(t *testing.T) {
				t.Parallel()
				newLeaving(t, way, full).run()
			})
		}
	}
}

// A leaving is a mount that is to end.
type leaving struct {
	*testing.T
	way            wayToLeave
	full           bool
	top, disk, mnt string
	daemon         *exec.Cmd // one in the foreground
	said           bytes.Buffer
}

func newLeaving(t *testing.T, way wayToLeave, full bool) *leaving {
	top, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cleanUp(top); err != nil {
			t.Error(err)
		}
	})
	l := &leaving{T: t, way: way, full: full, top: top, disk: filepath.Join(top, "disk"), mnt: filepath.Join(top, "m")}
	for _, dir := range []string{l.disk, l.mnt, filepath.Join(top, "moved")} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// A mount can be moved out of one that does not propagate.
	if err := errors.Join(unix.Mount(top, top, "", unix.MS_BIND, ""), unix.Mount("", top, "", unix.MS_PRIVATE, "")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", l.disk, "tmpfs", 0, "size=256m"); err != nil {
		t.Fatal(err)
	}
	return l
}

// sh runs a shell command, which must succeed.
func (l *leaving) sh(script string) string {
	l.Helper()
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir = l.top
	out, err := cmd.CombinedOutput()
	if err != nil {
		l.Fatalf("%s: %v: %s", script, err, out)
	}
	return string(out)
}

func (l *leaving) run() {
	// The buffers are so large that even a daemon whose memory is short keeps in them what is
	// written.
	const options = "--memory=1GiB --commit-interval=1h"
	store := filepath.Join(l.disk, "s")
	if out, code := quarxfs(l.T, nil, "init", store, "--segment-size", "1MiB"); code != 0 {
		l.Fatal(out)
	}
	if l.way.foreground {
		l.daemon = exec.Command("sh", "-c", "exec quarxfs mount --foreground "+options+" disk/s m")
		l.daemon.Dir, l.daemon.Stderr = l.top, &l.said
		if err := l.daemon.Start(); err != nil {
			l.Fatal(err)
		}
		l.Cleanup(func() { _ = l.daemon.Process.Kill() })
		l.sh("for i in $(seq 600); do test -e disk/s/control.sock && exit; sleep .05; done; exit 1")
	} else {
		l.sh("quarxfs mount " + options + " disk/s m")
	}
	l.sh("echo kept >m/kept && sync m/kept && for i in 1 2 3; do head -c 1200000 /dev/urandom >m/last$i || exit; done")
	if l.full {
		l.fill()
	}
	l.leave()
	if err := unix.Mount("", l.disk, "", unix.MS_REMOUNT, "size=256m"); err != nil {
		l.Fatal(err)
	}
	// A full disk keeps the names, and of the bytes what there was room for.
	files, code := quarxfs(l.T, nil, "list-files", store)
	if code != 0 || !strings.Contains(files, " kept\n") || !strings.Contains(files, " last3\n") || strings.Count(files, " 1200000 ") == 3 == l.full {
		l.Errorf("the store has\n%s", files)
	}
}

// fill leaves no room on the disk: what can be thrown away for more goes first.
func (l *leaving) fill() {
	l.sh("rm -f disk/s/db/BALLAST*")
	for range 100 { // blocks that are on their way take more
		var st unix.Statfs_t
		if err := unix.Statfs(l.disk, &st); err != nil {
			l.Fatal(err)
		}
		used := int64(st.Blocks-st.Bfree) * st.Bsize
		if unix.Mount("", l.disk, "", unix.MS_REMOUNT, fmt.Sprintf("size=%d", used+64<<10)) == nil {
			return
		}
	}
	l.Fatal("the disk does not shrink")
}

// leave ends the mount and looks at what is said.
func (l *leaving) leave() {
	table, err := mounts.Table()
	if err != nil {
		l.Fatal(err)
	}
	m, _ := mounts.At(table, l.mnt)
	w, err := daemon.WatchMount(l.Context(), filepath.Join(l.disk, "s"), m)
	if err != nil {
		l.Fatal(err)
	}
	defer w.Close()
	l.sh("cd disk/s && " + cmp.Or(l.way.before, "true"))
	if len(l.way.command) > 0 {
		l.command()
	}
	if l.way.signal != 0 {
		if err := unix.PidfdSendSignal(w.PIDFD, l.way.signal, nil, 0); err != nil {
			l.Fatal(err)
		}
	}
	code, want := 0, 0
	if l.full {
		want = 11
	}
	if l.daemon != nil { // before its end can be seen, somebody has to ask for its code
		_ = l.daemon.Wait()
		code = l.daemon.ProcessState.ExitCode()
	}
	if err := daemon.WaitForEnd(l.Context(), w.PIDFD, time.Minute); err != nil {
		l.Fatal(err)
	}
	if err := w.Ended(); l.daemon == nil {
		code = exitCode(err)
		if err == nil {
			code = 0
		}
	}
	if code != want {
		l.Errorf("the daemon's exit code is %d, want %d", code, want)
	}
	log := l.said.String()
	if l.daemon == nil {
		log = l.sh("cat disk/s/quarxfs.log")
	}
	if strings.Contains(log, "not kept: what was written to ") != l.full || strings.Contains(log, "msg=left\n") == l.full {
		l.Errorf("it logs:\n%s", log)
	}
	if left := l.sh("cat /proc/self/mountinfo | grep -c 'fuse.quarxfs " + l.disk + "/s ' || true; ls disk/s/control.sock 2>/dev/null || true"); left != "0\n" {
		l.Errorf("what is left of the mount: %s", left)
	}
}

func (l *leaving) command() {
	args := strings.Split(strings.ReplaceAll(strings.Join(l.way.command, "\n"), "MNT", l.mnt), "\n")
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = filepath.Join(l.top, l.way.dir)
	out, _ := cmd.CombinedOutput()
	want := 0
	if l.full {
		want = l.way.failed
	}
	if code := cmd.ProcessState.ExitCode(); code != want {
		l.Errorf("%q: exit code %d, want %d: %s", args, code, want, out)
	}
	if said := strings.Contains(string(out), "not kept: what was written to "); said != (want != 0) || strings.Contains(string(out), "/proc/self/fd") {
		l.Errorf("%q: %s", args, out)
	}
}
