package db

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// Files that are removed beneath the open database are noticed by the next Write, also by one with
// nothing to write, and closing does not wait for what cannot be done any more.
func TestRemoved(t *testing.T) {
	for name, remove := range map[string]func(dir string) error{
		"all":   os.RemoveAll,
		"a log": func(dir string) error { return os.Remove(filepath.Join(dir, logName(1))) },
	} {
		for _, rows := range []int{0, 1, 3000} {
			opt := testOptions(filepath.Join(t.TempDir(), "db"))
			d, err := Open(opt)
			if err != nil {
				t.Fatal(err)
			}
			fill := func() {
				for n := range rows {
					d.Set(fullKey(n), make([]byte, 1000))
				}
			}
			fill()
			commit(t, d)
			if err := remove(opt.Dir); err != nil {
				t.Fatal(err)
			}
			fill()
			d.Freeze()
			if err := d.Write(nil); !errors.Is(err, ErrRemoved) {
				t.Errorf("%s, %d rows: %v", name, rows, err)
			}
			if err := d.Close(); !errors.Is(err, ErrRemoved) {
				t.Errorf("%s, %d rows, closing: %v", name, rows, err)
			}
			if name == "all" { // Badger's goroutines end where it can make its table
				if err := os.MkdirAll(d.mu.instance.dir, 0o700); err != nil {
					t.Error(err)
				}
				_ = d.mu.instance.kv.Close() // it misses its own lock file
			}
		}
	}
}

// A database that was renamed is where it was, to itself.
func TestRenamed(t *testing.T) {
	dir := t.TempDir()
	opt := testOptions(filepath.Join(dir, "db"))
	d, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(opt.Dir, filepath.Join(dir, "moved")); err != nil {
		t.Fatal(err)
	}
	d.Set([]byte("a"), []byte("1"))
	commit(t, d)
	if err := os.Rename(filepath.Join(dir, "moved"), opt.Dir); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}
