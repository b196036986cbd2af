package db

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"testing"
)

// treeHash stands for all names, modes, times and contents below dir.
func treeHash(t *testing.T, dir string) string {
	t.Helper()
	h := sha256.New()
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		fmt.Fprintln(h, name, info.Mode(), info.Size(), info.ModTime().UnixNano())
		if info.Mode().IsRegular() {
			b, err := os.ReadFile(name)
			h.Write(b)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func allRows(t *testing.T, d *DB) map[string]string {
	t.Helper()
	rows := make(map[string]string)
	err := d.Scan(nil, nil, func(key, value []byte) error {
		rows[string(key)] = string(value)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for key, value := range rows {
		if got, err := d.Get([]byte(key)); err != nil || string(got) != value {
			t.Fatalf("Get %q: %q, %v; Scan has %q", key, got, err, value)
		}
	}
	return rows
}

// A database that is open for reading only has all commits, wherever a crash left them, and
// changes no file.
func TestReadOnly(t *testing.T) {
	write := func(t *testing.T, d *DB, from, to int, value string) {
		for n := from; n < to; n++ {
			d.Set(fmt.Appendf(nil, "k%03d", n), fmt.Appendf(nil, "%s%d", value, n))
		}
		d.Delete(fmt.Appendf(nil, "k%03d", from))
		d.Freeze()
		if err := d.Write(nil); err != nil {
			t.Fatal(err)
		}
	}
	for name, prepare := range map[string]func(t *testing.T, d *DB, copyTo func(*DB)){
		"closed": func(t *testing.T, d *DB, copyTo func(*DB)) {
			write(t, d, 0, 100, "a")
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			copyTo(d)
		},
		"rows in the log only": func(t *testing.T, d *DB, copyTo func(*DB)) {
			write(t, d, 0, 100, "a")
			copyTo(d)
		},
		"rows in a memtable's log": func(t *testing.T, d *DB, copyTo func(*DB)) {
			write(t, d, 0, 100, "a")
			write(t, d, 50, 150, "b")
			if err := d.drainLog(); err != nil {
				t.Fatal(err)
			}
			write(t, d, 120, 130, "c")
			copyTo(d)
		},
		"rows everywhere": func(t *testing.T, d *DB, copyTo func(*DB)) {
			write(t, d, 0, 100, "a")
			if _, err := d.Compact(); err != nil {
				t.Fatal(err)
			}
			write(t, d, 50, 150, "b")
			if err := d.drainLog(); err != nil {
				t.Fatal(err)
			}
			write(t, d, 140, 160, "c")
			copyTo(d)
		},
	} {
		t.Run(name, func(t *testing.T) {
			work, dir := t.TempDir(), t.TempDir()
			d := openTest(t, testOptions(work))
			var want map[string]string
			prepare(t, d, func(d *DB) {
				if err := os.CopyFS(filepath.Join(dir, "db"), os.DirFS(work)); err != nil {
					t.Fatal(err)
				}
			})
			dir = filepath.Join(dir, "db")
			opt := testOptions(dir)
			before := treeHash(t, dir)
			opt.ReadOnly = true
			// Two at once; each has changes of its own, in memory.
			var both [2]*DB
			for i := range both {
				var err error
				if both[i], err = Open(opt); err != nil {
					t.Fatal(err)
				}
				defer both[i].Close()
			}
			if _, err := Open(testOptions(dir)); err == nil {
				t.Error("open for writing as well")
			}
			want = allRows(t, both[0])
			both[0].Set([]byte("k001"), []byte("mine"))
			both[0].Freeze()
			if err := both[0].Write(nil); !errors.Is(err, ErrReadOnly) {
				t.Errorf("Write: %v", err)
			}
			if _, err := both[0].Compact(); !errors.Is(err, ErrReadOnly) {
				t.Errorf("Compact: %v", err)
			}
			if got := allRows(t, both[1]); !maps.Equal(got, want) {
				t.Error("the second one sees other rows")
			}
			if err := both[1].Verify(); err != nil {
				t.Error(err)
			}
			both[0].Stats()
			for _, d := range both {
				if err := d.Close(); err != nil {
					t.Error(err)
				}
			}
			if after := treeHash(t, dir); after != before {
				t.Error("the directory has changed")
			}
			rw := openTest(t, testOptions(dir))
			if got := allRows(t, rw); len(got) < 99 || !maps.Equal(got, want) {
				t.Errorf("%d rows for reading only, %d rows else", len(want), len(got))
			}
			if rw.ID() != both[0].ID() || rw.Commits() != both[0].Commits() {
				t.Errorf("%s with %d commits for reading only, else %s with %d", both[0].ID(), both[0].Commits(), rw.ID(), rw.Commits())
			}
		})
	}
}
