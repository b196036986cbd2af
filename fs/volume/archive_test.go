package volume

import (
	"archive/tar"
	"bytes"
	"fmt"
	"testing"

	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/store/chunk"
)

// TestArchiveOfTinyFiles: an archive of many tiny files is stored, though its headers would be more
// blocks than a page of extents takes.
func TestArchiveOfTinyFiles(t *testing.T) {
	t.Parallel()
	ck := chunk.Default()
	ck.Min, ck.Avg, ck.Max = 64<<10, 256<<10, 1<<20 // a page of 16 MiB
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := range 10_000 {
		if err := w.WriteHeader(&tar.Header{Name: fmt.Sprint(i), Mode: 0o644, Size: 1}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r := testRig(t, ck, Options{})
	ino := mustCreate(t, r.v, meta.Root, "a.tar", 0o100644)
	mustWrite(t, r.v, ino, 0, b.Bytes())
	mustSync(t, r.v)
	if !bytes.Equal(read(t, r.v, ino, 0, b.Len()), b.Bytes()) {
		t.Error("the data differs")
	}
}
