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
