package db

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/dgraph-io/badger/v4"
)

// before makes a closed database one of before: Badger's files where the log is. With keep there is
// also what a compaction under way would have been taken back to, and only half of the tables
// besides.
func before(t *testing.T, dir string, keep bool) {
	t.Helper()
	used := usedDir(dir)
	entries, err := os.ReadDir(used)
	if err == nil && keep {
		err = os.Mkdir(filepath.Join(dir, keepName), 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		from := filepath.Join(used, e.Name())
		ext := filepath.Ext(from)
		if keep && (ext == sstExt || ext == memExt || e.Name() == badger.ManifestFilename) {
			c, err := readContent(from)
			if err == nil {
				err = c.write(filepath.Join(dir, keepName, e.Name()))
			}
			if err != nil {
				t.Fatal(err)
			}
			if ext == sstExt { // gone from where it was
				if err := os.Remove(from); err != nil {
					t.Fatal(err)
				}
				continue
			}
		}
		if err := os.Rename(from, filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(used); err != nil {
		t.Fatal(err)
	}
	unlisted(t, dir)
}

// unlisted makes a database one of before there were lists of its files: the slots of its log
// say nothing of one.
func unlisted(t *testing.T, dir string) {
	t.Helper()
	for _, at := range []string{dir, filepath.Join(dir, bases[0]), filepath.Join(dir, bases[1])} {
		if err := os.Remove(filepath.Join(at, listName)); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	for i := range uint32(2) {
		f, err := os.OpenFile(filepath.Join(dir, logName(i)), os.O_RDWR, 0)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for at := int64(0); at < logStart; at += blockSize {
			var b [basedSlot]byte
			if _, err := f.ReadAt(b[:], at); err != nil {
				t.Fatal(err)
			}
			s, ok := parseSlot(b[:])
			s.based = 0
			if _, err := f.WriteAt(s.encode(), at); err != nil || !ok {
				t.Fatal(err, ok)
			}
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDatabaseOfBefore opens one, also when each operation of that fails in turn.
func TestDatabaseOfBefore(t *testing.T) {
	for _, keep := range []bool{false, true} {
		opt := testOptions(fastDir(t))
		w := openWorked(t, opt)
		w.must(9000)
		drain(t, w.d)
		if _, err := w.d.Compact(); err != nil {
			t.Fatal(err)
		}
		w.must(500)
		if err := w.d.Close(); err != nil {
			t.Fatal(err)
		}
		before(t, opt.Dir, keep)
		faults := 0
		for nth := 0; ; nth++ {
			left := nth
			opt.disk.before = func(op, name string) error {
				if left--; left == -1 {
					faults++
					return errDisk
				}
				return nil
			}
			d, err := Open(opt)
			if err == nil {
				w.d = d
				break
			}
			if !errors.Is(err, errDisk) {
				t.Fatalf("operation %d: %v", nth, err)
			}
		}
		if faults < 8 {
			t.Errorf("%d faults", faults)
		}
		w.d.opt.disk.before = nil
		w.check("opened")
		if _, err := w.d.Compact(); err != nil {
			t.Fatal(err)
		}
		w.must(500)
		w.reopened("reopened")
	}
}

// TestOldProgramRefuses: who expects Badger's list of tables where the name of the base is does not
// make an empty database.
func TestOldProgramRefuses(t *testing.T) {
	dir := t.TempDir()
	if err := filled(t, dir).Close(); err != nil {
		t.Fatal(err)
	}
	kv, err := badger.OpenManaged(testOptions(dir).badger(dir))
	if err == nil {
		_ = kv.Close()
		t.Fatal("opened")
	}
	if n := countRows(t, dir); n != someRows {
		t.Errorf("%d rows of %d", n, someRows)
	}
	// What mended the list then left files alone that are shorter than its header.
	if b, err := os.ReadFile(filepath.Join(dir, placeName)); err != nil || len(b) >= manifestHeader {
		t.Errorf("%q, %v", b, err)
	}
}

// TestPlaceIsGone: without the name of the base there is no database, not an empty one.
func TestPlaceIsGone(t *testing.T) {
	for _, what := range []string{"", "rows.2", "rows.1\n"} {
		dir := t.TempDir()
		if err := filled(t, dir).Close(); err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(dir, placeName)
		err := os.WriteFile(name, []byte(what), 0o600)
		if what == "" {
			err = os.Remove(name)
		}
		if err != nil {
			t.Fatal(err)
		}
		d, err := Open(testOptions(dir))
		if err == nil {
			err = d.Close()
		}
		if !errors.Is(err, ErrCorrupt) {
			t.Errorf("%q: %v", what, err)
		}
	}
}
