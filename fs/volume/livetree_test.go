package volume

import (
	"context"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/store"
)

// The live tree of a store that is open for reading only is that of the same store otherwise, with
// what the last mount has left in rows, and can be asked for again.
func TestLiveTreeReadOnly(t *testing.T) {
	r := newRig(t, filepath.Join(t.TempDir(), "store"), fixed4K(), Options{NoAtime: true})
	file := mustCreate(t, r.v, meta.Root, "f", syscall.S_IFREG|0o644)
	mustWrite(t, r.v, file, 0, bigPart(1)[:100_000])
	if _, err := r.v.CreateSnapshot(context.Background(), SnapshotOptions{Name: "s"}); err != nil {
		t.Fatal(err)
	}
	dir := mustCreate(t, r.v, meta.Root, "d", syscall.S_IFDIR|0o755)
	mustCreate(t, r.v, dir, "g", syscall.S_IFREG|0o644)
	mustWrite(t, r.v, file, 50_000, []byte("staged"))
	mustSync(t, r.v)
	if r.v.Stats().StagedBytes == 0 {
		t.Fatal("nothing is staged")
	}
	r.close(t)
	st, err := store.Open(r.dir, store.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	v, err := Open(st, r.options)
	if err != nil {
		t.Fatal(err)
	}
	read := liveRoot(t, v)
	if again := liveRoot(t, v); again != read {
		t.Errorf("%v, and then %v", read, again)
	}
	if err := v.Close(); err != nil {
		t.Error(err)
	}
	if err := st.Close(); err != nil {
		t.Error(err)
	}
	r.open(t)
	defer r.close(t)
	if want := liveRoot(t, r.v); read != want {
		t.Errorf("%v, for reading only %v", want, read)
	}
}

// liveRoot returns what the live tree's root links to, having looked for what it holds.
func liveRoot(t *testing.T, v *Volume) (id store.ID) {
	t.Helper()
	ctx := context.Background()
	err := v.LiveTree(ctx, func(s *graph.Snapshot) error {
		id = s.Root.Link.ID
		e, err := graph.OpenTree(v.store, id, graph.Directory).Lookup(ctx, "f")
		if err == nil {
			_, err = v.store.Get(ctx, e.Link.ID)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return id
}
