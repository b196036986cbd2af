package db

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dgraph-io/badger/v4"
)

// unlisted makes a database one of before there were lists of its files: the slots of its log
// say nothing of one.
func unlisted(t *testing.T, dir string) {
	t.Helper()
	for _, at := range []string{dir, filepath.Join(dir, instanceDirs[0]), filepath.Join(dir, instanceDirs[1])} {
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

// TestDatabaseWithoutList opens one of before there were lists, also when each operation of that
// fails in turn.
func TestDatabaseWithoutList(t *testing.T) {
	for _, crashed := range []bool{false, true} {
		opt := smallOptions(fastDir(t))
		w := openWorked(t, opt)
		w.must(9000)
		drain(t, w.d)
		if _, err := w.d.Compact(); err != nil {
			t.Fatal(err)
		}
		w.must(500)
		end := w.d.Close
		if crashed {
			end = func() error { return crash(w.d) }
		}
		if err := end(); err != nil {
			t.Fatal(err)
		}
		unlisted(t, opt.Dir)
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
		if faults < 4 {
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

// TestOlderLayout: Badger's list where ours must be is one line that says what to do, at each try,
// and changes nothing.
func TestOlderLayout(t *testing.T) {
	dir := t.TempDir()
	kv, err := badger.OpenManaged(testOptions(dir).badger(dir))
	if err == nil {
		err = kv.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	before := treeHash(t, dir)
	for _, readOnly := range []bool{false, true, false} {
		opt := testOptions(dir)
		opt.ReadOnly = readOnly
		if _, err := Open(opt); !errors.Is(err, ErrOlder) || strings.Contains(err.Error(), "\n") {
			t.Error(err)
		}
	}
	if treeHash(t, dir) != before {
		t.Error("the database has changed")
	}
}

// TestLogIsGone: rows that no list is about, and no log, are what is left of a database.
func TestLogIsGone(t *testing.T) {
	dir := t.TempDir()
	if err := filled(t, dir).Close(); err != nil {
		t.Fatal(err)
	}
	unlisted(t, dir)
	for i := range uint32(2) {
		if err := os.Remove(filepath.Join(dir, logName(i))); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if _, err := Open(testOptions(dir)); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), logName(0)) {
			t.Error(err)
		}
	}
}

// TestOldProgramRefuses: who expects Badger's list of tables where the name of the instance is does
// not make an empty database.
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
	// What repaired the list then left files alone that are shorter than its header.
	if b, err := os.ReadFile(filepath.Join(dir, currentName)); err != nil || len(b) >= manifestHeader {
		t.Errorf("%q, %v", b, err)
	}
}

// TestCurrentIsGone: without the name of the instance there is no database, not an empty one.
func TestCurrentIsGone(t *testing.T) {
	for _, what := range []string{"", "rows.2", "rows.1\n"} {
		dir := t.TempDir()
		if err := filled(t, dir).Close(); err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(dir, currentName)
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
