package disk_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"testing"

	"github.com/quarxtor/quarxfs/tiering/disk"
	"github.com/quarxtor/quarxfs/tiering/disk/faultdisk"
)

// Both disks behave alike where nothing fails.
func TestConformance(t *testing.T) {
	t.Run("os", func(t *testing.T) { conform(t, disk.OS(), filepath.Join(t.TempDir(), "a", "b")) })
	t.Run("fault", func(t *testing.T) { conform(t, faultdisk.New(), "/a/b") })
}

func conform(t *testing.T, d disk.FS, dir string) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(d.MkdirAll(dir))
	must(d.MkdirAll(dir))
	one, two := filepath.Join(dir, "one"), filepath.Join(dir, "two")
	if _, err := d.Open(one); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("open what is not there: %v", err)
	}
	if err := d.Remove(one); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("remove what is not there: %v", err)
	}
	if err := d.Rename(one, two); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("rename what is not there: %v", err)
	}
	f, err := d.Create(one)
	must(err)
	if _, err := d.Create(one); !errors.Is(err, fs.ErrExist) {
		t.Errorf("create twice: %v", err)
	}
	if err := f.Preallocate(1 << 20); err != nil {
		t.Logf("preallocate: %v", err)
	}
	_, err = f.WriteAt([]byte("0123456789"), 0)
	must(err)
	must(f.WritePairAt([]byte("head"), []byte("body"), 6))
	must(f.WritePairAt([]byte("only"), nil, 20))
	must(f.WriteBack(0, 10))
	must(f.Datasync())
	must(d.SyncDir(dir))
	if size, err := f.Size(); err != nil || size != 24 {
		t.Errorf("size %d, %v", size, err)
	}
	want := []byte("012345headbody\x00\x00\x00\x00\x00\x00only")
	got := make([]byte, 30)
	if n, err := f.ReadAt(got, 0); err != io.EOF || !bytes.Equal(got[:n], want) {
		t.Errorf("read %q, %v", got[:n], err)
	}
	must(d.Rename(one, two))
	must(f.Truncate(5))
	must(f.Truncate(8))
	if n, err := f.ReadAt(got[:8], 0); err != nil || string(got[:n]) != "01234\x00\x00\x00" {
		t.Errorf("read %q, %v", got[:n], err)
	}
	if n, err := f.ReadAt(got, 100); n != 0 || err != io.EOF {
		t.Errorf("read behind the end: %d, %v", n, err)
	}
	infos, err := d.List(dir)
	if err != nil || len(infos) != 1 || infos[0].Name != "two" || infos[0].Size != 8 {
		t.Errorf("list: %+v, %v", infos, err)
	}
	must(d.Remove(two))
	if n, err := f.ReadAt(got[:5], 0); err != nil || string(got[:n]) != "01234" {
		t.Errorf("read what is removed: %q, %v", got[:n], err)
	}
	must(f.Close())
	if _, err := f.ReadAt(got, 0); err == nil {
		t.Error("read from a closed file")
	}
}
