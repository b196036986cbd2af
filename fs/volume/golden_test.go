package volume

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quarxtor/quarxfs/fs/meta"
)

// TestGoldenStore opens a store that the first code of format version 1 made, and
// whose daemon was killed: testdata/golden.sh says how. Every later program reads
// it, and can go on with it.
func TestGoldenStore(t *testing.T) {
	t.Parallel()
	r := &rig{dir: filepath.Join(untar(t, "testdata/store-v1.tar.gz"), "store"), clock: newClock()}
	r.options = Options{Now: r.clock.Now}
	r.open(t)
	defer func() { r.close(t) }()
	goldenFiles(t, r)
	var object bytes.Buffer
	if err := r.st.Fetch(t.Context(), "object", 0, -1, &object); err != nil || object.String() != numbers(5, 9000) {
		t.Errorf("the object: %d bytes, %v", object.Len(), err)
	}
	r.check(t)

	// What is written now is there with the rest after the next opening.
	ino := mustCreate(t, r.v, meta.Root, "new", 0o100644)
	mustWrite(t, r.v, ino, 0, []byte("new"))
	mustSync(t, r.v)
	r.close(t)
	r.open(t)
	goldenFiles(t, r)
	if got := read(t, r.v, ino, 0, 10); string(got) != "new" {
		t.Errorf("new: %q", got)
	}
}

func numbers(from, to int) string {
	var b strings.Builder
	for i := from; i <= to; i++ {
		fmt.Fprintln(&b, i)
	}
	return b.String()
}

func goldenFiles(t *testing.T, r *rig) {
	t.Helper()
	all := numbers(1, 20000)
	changed := all[:5000] + "staged" + all[5006:]
	find := func(path string) Attr {
		a := Attr{}
		a.Ino = meta.Root
		for _, name := range strings.Split(path, "/") {
			var err error
			if a, err = r.v.Lookup(a.Ino, name); err != nil {
				t.Fatalf("%s: %v", path, err)
			}
		}
		return a
	}
	for path, want := range map[string]string{
		"numbers": changed, "dir/sub/hard": changed, "dir/again": all, "dir/shifted": "first\n" + all,
		"sparse": strings.Repeat("\x00", 1<<20) + "end\n",
	} {
		a := find(path)
		if got := read(t, r.v, a.Ino, 0, len(want)+1); string(got) != want || a.Size != int64(len(want)) {
			t.Errorf("%s: %d bytes of %d are not what was written", path, len(got), a.Size)
		}
	}
	if a, b := find("numbers"), find("dir/sub/hard"); a.Ino != b.Ino || a.Nlink != 2 {
		t.Errorf("hard link: inodes %d and %d, %d links", a.Ino, b.Ino, a.Nlink)
	}
	a := find("dir/again")
	mtime := meta.Time{Sec: time.Date(1961, 4, 12, 6, 7, 0, 0, time.UTC).Unix(), Nsec: 5e8}
	if a.Mode != 0o100750 || a.UID != 12 || a.GID != 34 || a.Mtime != mtime {
		t.Errorf("attributes: %+v", a)
	}
	if target, err := r.v.Readlink(find("dir/soft").Ino); err != nil || target != "../numbers" {
		t.Errorf("symbolic link to %q (%v)", target, err)
	}
	if v, err := r.v.GetXattr(find("numbers").Ino, "user.what"); err != nil || string(v) != "an attribute" {
		t.Errorf("attribute %q (%v)", v, err)
	}
	if _, err := r.v.Lookup(meta.Root, "removed"); err == nil {
		t.Error("a removed file is there")
	}
}

// untar unpacks an archive of files and directories into a new directory.
func untar(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for in := tar.NewReader(z); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return dir
		}
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(dir, filepath.FromSlash(h.Name))
		if h.Typeflag == tar.TypeDir {
			err = os.Mkdir(name, 0o700)
		} else {
			var out *os.File
			if out, err = os.Create(name); err == nil {
				_, err = io.Copy(out, in)
				err = errors.Join(err, out.Close())
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
