package db

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// What the process may not do is told as that, and not as damage, whose advice would lose the live
// tree. Each limit is set in a process of its own.
func TestLimits(t *testing.T) {
	const env, dir = "QUARXFS_TEST_LIMIT", "QUARXFS_TEST_DIR"
	limits := map[string]struct {
		which int
		most  uint64
		want  error
	}{
		"file size":     {unix.RLIMIT_FSIZE, 4 << 20, syscall.EFBIG},
		"open files":    {unix.RLIMIT_NOFILE, 16, syscall.EMFILE},
		"address space": {unix.RLIMIT_AS, 0, syscall.ENOMEM},
	}
	if l, ok := limits[os.Getenv(env)]; ok {
		opt := Options{Dir: os.Getenv(dir), MemTable: 8 << 20}
		if err := unix.Setrlimit(l.which, &unix.Rlimit{Cur: l.most, Max: l.most}); err != nil {
			t.Fatal(err)
		}
		err := opt.limits(opt.Dir)
		if l.which != unix.RLIMIT_AS { // without which the program itself does little
			var d *DB
			if d, err = Open(opt); err == nil {
				d.Close()
			}
		}
		if !errors.Is(err, l.want) || errors.Is(err, ErrCorrupt) {
			t.Errorf("%v", err)
		}
		return
	}
	opt := Options{Dir: t.TempDir(), MemTable: 8 << 20}
	fillAndClose(t, opt)
	for name := range limits {
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestLimits$", "-test.v")
		cmd.Env = append(os.Environ(), env+"="+name, dir+"="+opt.Dir)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
	d, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}
