// Package disktest checks that a disk.FS does what tiers rely on, whether it is a
// directory, a simulated one or a bucket.
package disktest

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"testing"

	"github.com/quarxtor/quarxfs/tiering/disk"
)

// Conform leads files through what segments go through: they are made and written
// under one name, read meanwhile, synced, get their final name, are listed, opened
// anew and removed. dir is missing or empty, and its parents may be missing. Where a
// disk.Remote is not like others, the comment of that says so.
func Conform(t *testing.T, d disk.FS, dir string) {
	_, remote := d.(disk.Remote)
	c := &conform{T: t, d: d, dir: dir, remote: remote}
	c.must(d.MkdirAll(dir))
	c.must(d.MkdirAll(dir))
	c.expectFiles()
	c.absent()
	c.life("one", []byte("012345headbody\x00\x00\x00\x00\x00\x00only"))
	c.expectFiles()
	c.together()
}

type conform struct {
	*testing.T
	d      disk.FS
	dir    string
	remote bool
}

func (c *conform) must(err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
}

func (c *conform) path(name string) string { return filepath.Join(c.dir, name) }

// expectFiles checks what is listed: these files, in order of name.
func (c *conform) expectFiles(want ...disk.Info) {
	c.Helper()
	got, err := c.d.List(c.dir)
	if err != nil || len(got) != len(want) {
		c.Fatalf("list: %+v, %v, want %+v", got, err, want)
	}
	for i := range got {
		if got[i].Name != want[i].Name || got[i].Size != want[i].Size {
			c.Errorf("list: %+v, want %+v", got, want)
		}
	}
}

// named checks which of the names leads to a file that is being written.
func (c *conform) named(f disk.File, name, other string) {
	c.Helper()
	is, err := f.Named(c.path(name))
	not, otherErr := f.Named(c.path(other))
	if err := errors.Join(err, otherErr); err != nil || !is || not {
		c.Errorf("named %s: %v, %s: %v, %v", name, is, other, not, err)
	}
}

// bytes checks what a file has, from its ends and in between.
func (c *conform) bytes(f disk.File, want []byte) {
	c.Helper()
	if size, err := f.Size(); err != nil || size != int64(len(want)) {
		c.Errorf("size %d, %v, want %d", size, err, len(want))
	}
	for _, r := range [][2]int{{0, len(want)}, {0, len(want) + 10}, {0, 1}, {len(want) - 1, 1}, {len(want) / 2, len(want)}, {len(want), 1}, {len(want) + 100, 10}, {3, 0}} {
		got, end := make([]byte, r[1]), min(r[0]+r[1], len(want))
		n, err := f.ReadAt(got, int64(r[0]))
		has := want[min(r[0], len(want)):max(end, min(r[0], len(want)))]
		if !bytes.Equal(got[:n], has) {
			c.Errorf("%d bytes at %d: read %d, not the %d there are", r[1], r[0], n, len(has))
		}
		if short := len(has) < r[1]; short && !errors.Is(err, io.EOF) || !short && err != nil && !errors.Is(err, io.EOF) {
			c.Errorf("%d bytes at %d: %d, %v", r[1], r[0], n, err)
		}
	}
}

// absent: what is not there is not there. Some servers do not say whether there was
// what they removed.
func (c *conform) absent() {
	c.Helper()
	if _, err := c.d.Open(c.path("none")); !errors.Is(err, fs.ErrNotExist) {
		c.Errorf("open what is not there: %v", err)
	}
	if err := c.d.Rename(c.path("none"), c.path("two")); !errors.Is(err, fs.ErrNotExist) {
		c.Errorf("rename what is not there: %v", err)
	}
	if err := c.d.Remove(c.path("none")); !errors.Is(err, fs.ErrNotExist) && !(c.remote && err == nil) {
		c.Errorf("remove what is not there: %v", err)
	}
}

// life is that of one file.
func (c *conform) life(name string, want []byte) {
	c.Helper()
	open := c.path(name + ".open")
	f, err := c.d.Create(open)
	c.must(err)
	if _, err := c.d.Create(open); !errors.Is(err, fs.ErrExist) {
		c.Errorf("create twice: %v", err)
	}
	if err := f.Preallocate(1 << 20); err != nil {
		c.Logf("preallocate: %v", err)
	}
	c.named(f, name+".open", name)
	_, err = f.WriteAt([]byte("0123456789"), 0)
	c.must(err)
	c.must(f.WritePairAt([]byte("head"), []byte("body"), 6))
	c.must(f.WritePairAt([]byte("only"), nil, 20))
	c.bytes(f, want)
	_, err = f.WriteAt([]byte("a footer that is cut off"), int64(len(want)))
	c.must(err)
	c.must(f.Truncate(5))
	c.must(f.Truncate(8))
	c.bytes(f, []byte("01234\x00\x00\x00"))
	_, err = f.WriteAt(want, 0)
	c.must(err)
	c.must(f.WriteBack(0, 10))
	c.must(f.Datasync())
	c.must(c.d.SyncDir(c.dir))
	c.expectFiles(disk.Info{Name: name + ".open", Size: int64(len(want))})
	again, err := c.d.Open(open)
	c.must(err)
	c.bytes(again, want)
	c.named(again, name+".open", name)

	c.must(c.d.Rename(open, c.path(name)))
	c.must(c.d.SyncDir(c.dir))
	c.expectFiles(disk.Info{Name: name, Size: int64(len(want))})
	if _, err := c.d.Open(open); !errors.Is(err, fs.ErrNotExist) {
		c.Errorf("open under the old name: %v", err)
	}
	sealed, err := c.d.Open(c.path(name))
	c.must(err)
	for _, f := range []disk.File{f, again, sealed} { // whoever has it open
		c.bytes(f, want)
		c.must(f.Datasync())
	}
	if c.remote {
		c.sealed(sealed, want)
	}
	c.must(sealed.Close())
	c.must(again.Close())

	c.must(c.d.Remove(c.path(name)))
	if _, err := c.d.Open(c.path(name)); !errors.Is(err, fs.ErrNotExist) {
		c.Errorf("open what is removed: %v", err)
	}
	p := make([]byte, len(want))
	n, err := f.ReadAt(p, 0)
	switch gone := errors.Is(err, fs.ErrNotExist); {
	case c.remote && gone:
	case err != nil || !bytes.Equal(p[:n], want):
		c.Errorf("read what is removed: %d bytes, %v", n, err)
	}
	c.must(f.Close())
	if c.remote {
		return
	}
	if _, err := f.ReadAt(p, 0); err == nil {
		c.Error("read from a closed file")
	}
}

// sealed: a file that was taken to its place does not change.
func (c *conform) sealed(f disk.File, want []byte) {
	c.Helper()
	_, err := f.WriteAt([]byte("x"), 0)
	for _, err := range []error{err, f.WritePairAt([]byte("x"), []byte("y"), 0), f.Truncate(1)} {
		if err == nil {
			c.Error("a file in its place was changed")
		}
	}
	c.bytes(f, want)
}

// together: several files at once, some in their place and some not.
func (c *conform) together() {
	c.Helper()
	var want []disk.Info
	for i, name := range []string{"b", "bb.open", "c"} {
		f, err := c.d.Create(c.path(name + ".new"))
		c.must(err)
		text := bytes.Repeat([]byte(name), 1000*(i+1))
		_, err = f.WriteAt(text, 0)
		c.must(err)
		c.must(f.Datasync())
		c.must(c.d.SyncDir(c.dir))
		if name != "bb.open" {
			c.must(c.d.Rename(c.path(name+".new"), c.path(name)))
		} else {
			name += ".new"
		}
		c.bytes(f, text)
		c.must(f.Close())
		want = append(want, disk.Info{Name: name, Size: int64(len(text))})
	}
	c.expectFiles(want...)
	for _, info := range want {
		c.must(c.d.Remove(c.path(info.Name)))
	}
	c.expectFiles()
}
