package db

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dgraph-io/badger/v4/options"
)

// TestRottenTable: whichever byte of a table has rotted, the database does not open, the file is
// named, and nothing is changed. Badger itself takes the rows of a rotten block for ones that there
// are not.
func TestRottenTable(t *testing.T) {
	opt := Options{Dir: t.TempDir()}
	fillAndClose(t, opt)
	tables, err := filepath.Glob(filepath.Join(opt.Dir, "rows.*", "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatalf("tables: %v, %v", tables, err)
	}
	name := tables[0]
	sound, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 40 {
		at := i * (len(sound) - 1) / 39
		rotten := append([]byte(nil), sound...)
		rotten[at] ^= 0x55
		if err := os.WriteFile(name, rotten, 0o600); err != nil {
			t.Fatal(err)
		}
		d, err := Open(opt)
		if err == nil {
			d.Close()
			t.Fatalf("byte %d of %d is rotten, and the database opens", at, len(sound))
		}
		if f, ok := errors.AsType[*FileError](err); !ok || f.File != name {
			t.Errorf("byte %d: %v", at, err)
		}
		if _, err := opt.withDefaults().openTable(name, options.OnTableRead); err == nil || strings.Contains(err.Error(), "munmap") ||
			strings.Contains(err.Error(), "while sync") {
			t.Errorf("byte %d: a table that is closed is closed again: %v", at, err)
		}
		if after, err := os.ReadFile(name); err != nil || string(after) != string(rotten) {
			t.Fatalf("byte %d: the table was changed: %v", at, err)
		}
	}
	if err := os.WriteFile(name, sound, 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}
