package db

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestErrorsNameTheFile: a file has another name until it is whole, which no error says.
func TestErrorsNameTheFile(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "F")
	mkdir := func(name string) {
		if err := os.MkdirAll(filepath.Join(name, "x"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	created := func() logDevice {
		f, err := osDir(dir).create("F")
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	closed := func(do func(f logDevice) error) func() error {
		return func() error {
			f := created()
			return errors.Join(f.Close(), do(f))
		}
	}
	for what, test := range map[string]struct {
		there string // a directory in the way
		do    func() error
	}{
		"a small file that cannot be made":    {name + tmpExt, func() error { return disk{}.replace(name, nil) }},
		"a small file that cannot be renamed": {name, func() error { return disk{}.replace(name, nil) }},
		"a log that cannot be made":           {name + tmpExt, func() error { _, err := osDir(dir).create("F"); return err }},
		"a log that cannot be renamed":        {name, func() error { created(); return osDir(dir).finish("F") }},
		"a log that cannot be written":        {"", closed(func(f logDevice) error { _, err := f.WriteAt([]byte("x"), 0); return err })},
		"a log that cannot be allocated":      {"", closed(func(f logDevice) error { return f.allocate(1) })},
		"a log that cannot be cut":            {"", closed(func(f logDevice) error { return f.truncate(0) })},
		"a log that cannot be synced":         {"", closed(func(f logDevice) error { return f.sync() })},
		"tables that are read by links": {"", func() error {
			return badgerError(name, "/tmp/links", &os.PathError{Op: "open", Path: "/tmp/links/1.sst", Err: unix.EIO}, nil)
		}},
		"tables that Badger does not like": {"", func() error {
			return badgerError(name, "/tmp/links", errors.New("in /tmp/links/1.sst: bad"), func() error { return nil })
		}},
	} {
		if err := errors.Join(os.RemoveAll(name), os.RemoveAll(name+tmpExt)); err != nil {
			t.Fatal(err)
		}
		if test.there != "" {
			mkdir(test.there)
		}
		err := test.do()
		if err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), tmpExt) || strings.Contains(err.Error(), "/tmp/links") {
			t.Errorf("%s: %v", what, err)
		}
	}
}
