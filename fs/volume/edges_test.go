package volume

import (
	"bytes"
	"errors"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/fs/rows"
	"github.com/quarxtor/quarxfs/store/chunk"
)

// TestEdges makes a small tree and wants its edges.
func TestEdges(t *testing.T) {
	r := testRig(t, fixed4K(), Options{NoAtime: true})
	make := func(dir meta.Ino, name string, mode uint32) meta.Ino {
		a, err := r.v.Create(dir, name, CreateOptions{Mode: mode})
		if err != nil {
			t.Fatal(err)
		}
		return a.Ino
	}
	dir := make(meta.Root, "dir", syscall.S_IFDIR|0o755)
	file := make(dir, "file", syscall.S_IFREG|0o644)
	if _, err := r.v.Link(file, meta.Root, "link"); err != nil {
		t.Fatal(err)
	}
	one, two := bytes.Repeat([]byte{1}, 4096), bytes.Repeat([]byte{2}, 4096)
	for off, b := range map[int64][]byte{0: one, 4096: two, 1 << 50: one} {
		if err := r.v.Write(file, off, b, WriteMode{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(r.v.Flush(), r.v.Sync()); err != nil {
		t.Fatal(err)
	}
	entries := []rows.Edge{
		{From: meta.Root, Name: "dir", To: dir, Type: syscall.S_IFDIR},
		{From: meta.Root, Name: "link", To: file, Type: syscall.S_IFREG},
		{From: dir, Name: "file", To: file, Type: syscall.S_IFREG},
	}
	extents := []rows.Edge{
		{From: file, Block: chunk.Sum(one), Len: 4096},
		{From: file, Block: chunk.Sum(two), Off: 4096, Len: 4096},
		{From: file, Block: chunk.Sum(one), Off: 1 << 50, Len: 4096},
	}
	edges := func(ino meta.Ino) (got []rows.Edge) {
		keep := func(e rows.Edge) error { got = append(got, e); return nil }
		if err := r.v.Rows().Edges(t.Context(), ino, keep); err != nil {
			t.Fatal(err)
		}
		return got
	}
	for ino, want := range map[meta.Ino][]rows.Edge{meta.Root: entries[:2], dir: entries[2:], file: extents} {
		if diff := cmp.Diff(want, edges(ino)); diff != "" {
			t.Errorf("of inode %d:\n%s", ino, diff)
		}
	}
	stop := errors.New("enough")
	if err := r.v.Rows().Edges(t.Context(), dir, func(rows.Edge) error { return stop }); !errors.Is(err, stop) {
		t.Error(err)
	}
	if err := r.v.Rows().Edges(t.Context(), 999, nil); !errors.Is(err, syscall.ENOENT) {
		t.Error(err)
	}
}
