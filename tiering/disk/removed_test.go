package disk

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// What is durable in a file without a name is lost with it.
func TestDatasyncRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	f, err := OS().Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Datasync(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := f.Datasync(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

// TestNamed: a file whose directory was moved may come back, and is none that was removed or
// replaced.
func TestNamed(t *testing.T) {
	for what, c := range map[string]struct {
		do   func(path string) error
		want bool
	}{
		"nothing":             {func(string) error { return nil }, true},
		"moved":               {func(path string) error { return os.Rename(path, path+".away") }, false},
		"its directory moved": {func(path string) error { return os.Rename(filepath.Dir(path), filepath.Dir(path)+".away") }, true},
		"removed":             {os.Remove, false},
		"replaced": {func(path string) error {
			return errors.Join(os.Rename(path, path+".away"), os.WriteFile(path, []byte("another"), 0o600))
		}, false},
		"a link to it": {func(path string) error {
			return errors.Join(os.Rename(path, path+".away"), os.Symlink(path+".away", path))
		}, false},
	} {
		path := filepath.Join(t.TempDir(), "dir", "file")
		if err := OS().MkdirAll(filepath.Dir(path)); err != nil {
			t.Fatal(err)
		}
		f, err := OS().Create(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.do(path); err != nil {
			t.Fatal(err)
		}
		if got, err := f.Named(path); err != nil || got != c.want {
			t.Errorf("%s: %v, %v, want %v", what, got, err, c.want)
		}
		f.Close()
	}
}
