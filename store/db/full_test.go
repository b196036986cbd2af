package db

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const fullDisk = 320 << 20

func fullOptions(dir string) Options {
	opt := testOptions(filepath.Join(dir, "db"))
	opt.MinFree = 24 << 20
	opt.Ballast = 20 << 20
	return opt
}

// fillDisk works as a filesystem would on a disk that fills up. It runs in a
// child process because what must not happen is a SIGBUS.
func fillDisk(dir string) error {
	d, err := Open(fullOptions(dir))
	if err != nil {
		return err
	}
	// Another file takes half of the disk at first.
	if err := appendOthers(dir, 160); err != nil {
		return err
	}
	steps := []func(*DB, string) error{untilRefused, deleteAll, othersFill}
	for i, step := range steps {
		if err := step(d, dir); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
	}
	if err := d.Close(); err != nil {
		return err
	}
	return reopenFull(dir)
}

func fullKey(n int) []byte { return fmt.Appendf(nil, "row%08d", n) }

// untilRefused writes rows, each commit asking first, until Admit says no.
func untilRefused(d *DB, _ string) error {
	for n := 0; ; n++ {
		err := d.Admit(128 << 10)
		if errors.Is(err, ErrFull) {
			if n < 50 {
				return fmt.Errorf("refused after %d commits: %w", n, err)
			}
			return nil
		}
		if err != nil {
			return err
		}
		for i := range 16 {
			d.Set(fullKey(16*n+i), bytes.Repeat([]byte{byte(n)}, 8<<10))
		}
		d.Freeze()
		if err := d.Write(nil); err != nil {
			return err
		}
	}
}

// deleteAll must succeed although Admit refuses; compacting may find no room.
func deleteAll(d *DB, _ string) error {
	var keys [][]byte
	err := d.Scan(nil, nil, func(k, _ []byte) error {
		keys = append(keys, bytes.Clone(k))
		return nil
	})
	if err != nil {
		return err
	}
	for _, k := range keys {
		d.Delete(k)
	}
	d.Freeze()
	if err := d.Write(nil); err != nil {
		return err
	}
	if _, err := d.Compact(); err != nil && !errors.Is(err, ErrFull) {
		return err
	}
	return nil
}

// othersFill lets another file take all that is left, bit by bit, while commits
// go on: they end with ErrFull and the process lives.
func othersFill(d *DB, dir string) error {
	for n := 0; ; n++ {
		full := appendOthers(dir, 2)
		d.Set(fullKey(n), bytes.Repeat([]byte{1}, 1000))
		d.Freeze()
		err := d.Write(nil)
		if err != nil && !errors.Is(err, ErrFull) {
			return err
		}
		// Small ones go on as long as what is set aside has room for them.
		if err != nil && errors.Is(full, unix.ENOSPC) {
			break
		}
		if n > 100_000 {
			return errors.New("no commit was refused")
		}
	}
	if err := os.Truncate(others(dir), 0); err != nil {
		return err
	}
	d.Freeze()
	return d.Write(nil)
}

func others(dir string) string { return filepath.Join(dir, "others") }

// appendOthers lets a file that is not the database's grow by so many MiB.
func appendOthers(dir string, mib int) error {
	f, err := os.OpenFile(others(dir), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	for i := 0; i < mib && err == nil; i++ {
		_, err = f.Write(make([]byte, 1<<20))
	}
	return errors.Join(err, f.Close())
}

// reopenFull opens the database on a disk without a free block, which only the
// ballast makes possible.
func reopenFull(dir string) error {
	d, err := Open(fullOptions(dir))
	if err != nil {
		return err
	}
	d.Set([]byte("x"), []byte("y"))
	d.Freeze()
	if err := d.Write(nil); err != nil {
		return err
	}
	if d.Stats().Ballast == 0 {
		return fmt.Errorf("no ballast: %+v", d.Stats())
	}
	d.compactor.end() // it would give room back, later
	if err := appendOthers(dir, fullDisk>>20); !errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("filling the disk: %w", err)
	}
	// As after a kill: the log stays, and must be made a table at the next Open.
	if err := crash(d); err != nil {
		return err
	}
	opt := fullOptions(dir)
	d, err = Open(opt)
	if err != nil {
		return fmt.Errorf("open when full: %w", err)
	}
	if d.Stats().Ballast >= opt.Ballast {
		return errors.New("no ballast was given up")
	}
	if v, err := d.Get([]byte("x")); err != nil || string(v) != "y" {
		return fmt.Errorf("get: %q %w", v, err)
	}
	if err := d.Admit(1); !errors.Is(err, ErrFull) {
		return fmt.Errorf("admitted on a full disk: %w", err)
	}
	if err := d.Close(); err != nil {
		return err
	}
	return reopenSpare(dir)
}

// reopenSpare opens the database when commits have used up the ballast before
// the last block was taken, which only the spare makes possible.
func reopenSpare(dir string) error {
	if err := os.Remove(others(dir)); err != nil {
		return err
	}
	opt := fullOptions(dir)
	opt.Spare = 20 << 20
	d, err := Open(opt)
	if err != nil {
		return err
	}
	d.ballast.give(1 << 30)
	d.restoreAt = time.Now().Add(time.Hour)
	d.Set([]byte("x"), []byte("z"))
	d.Freeze()
	if err := d.Write(nil); err != nil {
		return err
	}
	d.compactor.end() // it would give room back, later
	if err := appendOthers(dir, fullDisk>>20); !errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("filling the disk: %w", err)
	}
	d.Set([]byte("y"), []byte("y"))
	d.Freeze()
	if err := d.Write(nil); err != nil || d.spare.missing() {
		return fmt.Errorf("a small commit did not wait in the log, or took the spare: %w", err)
	}
	// More than the spare could carry into Badger is refused, and keeps nothing from being
	// repeated.
	d.Set([]byte("big"), nil)
	for i := range 1000 {
		d.Set(fullKey(i), bytes.Repeat([]byte{1}, 16<<10))
	}
	d.Freeze()
	if err := d.Write(nil); !errors.Is(err, ErrFull) || d.spare.missing() {
		return fmt.Errorf("a large commit was taken, or took the spare: %w", err)
	}
	if err := crash(d); err != nil {
		return err
	}
	if d, err = Open(opt); err != nil {
		return fmt.Errorf("open when full and without a ballast: %w", err)
	}
	for key, want := range map[string]string{"x": "z", "y": "y"} {
		if v, err := d.Get([]byte(key)); err != nil || string(v) != want {
			return fmt.Errorf("get %s: %q %w", key, v, err)
		}
	}
	if _, err := d.Get([]byte("big")); !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("a commit that was refused is there: %w", err)
	}
	return d.Close()
}

func TestFullDisk(t *testing.T) { runOnLoop(t, "full") }

func TestCloseOnLostDisk(t *testing.T) { runOnLoop(t, "gone") }

// runOnLoop has a child process do a job on a small disk.
func runOnLoop(t *testing.T, job string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting a loop device needs root")
	}
	if testing.Short() {
		t.Skip("takes seconds")
	}
	dir := mountLoop(t)
	cmd, out := startChild(t, job, dir)
	said, _ := io.ReadAll(out)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
}

// loseDisk closes a database whose disk takes nothing any more: Badger, which would try for ever,
// is left open, and the error is the disk's.
func loseDisk(dir string) error {
	d, err := Open(testOptions(filepath.Join(dir, "db")))
	if err != nil {
		return err
	}
	d.Set(fullKey(0), []byte("kept"))
	d.Freeze()
	if err := d.Write(nil); err != nil {
		return err
	}
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	const shutdown, logFlush = 0x8004587d, 1 // EXT4_IOC_SHUTDOWN
	if err := unix.IoctlSetPointerInt(int(f.Fd()), shutdown, logFlush); err != nil {
		return err
	}
	if err := d.Close(); !errors.Is(err, unix.EIO) {
		return fmt.Errorf("close: %w", err)
	}
	return nil
}

// A disk that has plenty of room may be full when the database is opened the next time.
func TestLeastSpare(t *testing.T) {
	opt := testOptions(filepath.Join(t.TempDir(), "db"))
	opt.Ballast, opt.Spare, opt.BallastBelow = 20<<20, 20<<20, 1
	for _, spare := range []int64{20 << 20, 8 << 20, 0} {
		opt.Spare = spare
		for range 2 { // made, and found
			d, err := Open(opt)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := d.spare.bytes(), min(spare, leastSpare); got != want || d.ballast.bytes() != 0 {
				t.Errorf("of a spare of %d there are %d, and %d of a ballast", spare, got, d.ballast.bytes())
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// mountLoop mounts a small ext4 filesystem until the test ends.
func mountLoop(t *testing.T) string {
	t.Helper()
	img := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(img, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(img, fullDisk); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, args := range [][]string{
		{"mkfs.ext4", "-q", "-F", "-m", "0", img},
		{"mount", "-o", "loop", img, dir},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Skipf("%v: %v: %s", args, err, out)
		}
	}
	// umount frees a loop device that mount has set up.
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
			_ = exec.Command("umount", "-l", dir).Run()
		}
	})
	return dir
}
