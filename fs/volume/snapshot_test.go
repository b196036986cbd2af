package volume

import (
	"bytes"
	"context"
	"fmt"
	"syscall"
	"testing"

	"github.com/quarxtor/quarxfs/fs/meta"
)

func mustSnapshot(t tb, v *Volume, name string) Snapshot {
	t.Helper()
	s, err := v.CreateSnapshot(context.Background(), SnapshotOptions{Name: name})
	if err != nil {
		t.Fatalf("snapshot %q: %v", name, err)
	}
	return s
}

func TestSnapshotSecondIsLikeAnew(t *testing.T) {
	r := testRig(t, smallCDC(), tiny())
	v := r.v
	d := mustCreate(t, v, meta.Root, "d", syscall.S_IFDIR|0o755)
	f := mustCreate(t, v, d, "f", syscall.S_IFREG|0o644)
	mustWrite(t, v, f, 0, noise(1, 100_000))
	one := mustSnapshot(t, v, "one")
	if one.Totals.Files != 1 || one.Totals.Dirs != 2 || one.Totals.Logical != 100_000 || one.Totals.Written != 100_000 {
		t.Errorf("%+v", one.Totals)
	}
	two := mustSnapshot(t, v, "two")
	if two.Root.Link != one.Root.Link || two.Parents[0] != one.ID {
		t.Errorf("nothing changed, and the tree is another: %+v", two)
	}
	mustWrite(t, v, f, 50_000, []byte("changed"))
	three := mustSnapshot(t, v, "three")
	if three.Root.Link == two.Root.Link || three.Totals.Written != 100_000 {
		t.Errorf("%+v", three)
	}
}

func mustClone(t tb, v *Volume, from SnapshotPath, to string) meta.Ino {
	t.Helper()
	if err := v.Clone(context.Background(), from, to); err != nil {
		t.Fatalf("clone %s: %v", from, err)
	}
	a, err := v.Lookup(meta.Root, to)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return a.Ino
}

func namesIn(t tb, v *Volume, dir meta.Ino) map[string]bool {
	t.Helper()
	names := make(map[string]bool)
	err := v.ReadDir(dir, posDotDot, func(e Entry) bool { names[e.Name] = true; return true })
	if err != nil {
		t.Fatalf("%v", err)
	}
	return names
}

// TestMaterializingGoesOn leaves a large directory half materialized, takes a snapshot of
// that, and opens the volume again.
func TestMaterializingGoesOn(t *testing.T) {
	r := testRig(t, smallCDC(), tiny())
	d := mustCreate(t, r.v, meta.Root, "d", syscall.S_IFDIR|0o755)
	const files = 3*materializeStep - 7
	for i := range files {
		mustCreate(t, r.v, d, fmt.Sprint("file", i), syscall.S_IFREG|0o644)
	}
	mustSnapshot(t, r.v, "s")
	c := mustClone(t, r.v, SnapshotPath{"s", "d"}, "c")
	step := func() {
		t.Helper()
		n, err := r.v.get(c)
		if err != nil {
			t.Fatal(err)
		}
		defer n.release()
		if err := r.st.Update(func() error { return r.v.materializer.names(n) }); err != nil {
			t.Fatal(err)
		}
		if n.mu.Lock(); !n.attr.IsLazy() {
			t.Fatal("one step unfolded all")
		}
		n.mu.Unlock()
	}
	step()
	half := mustSnapshot(t, r.v, "half")
	if half.Totals.Files != 2*files {
		t.Errorf("%d files in the snapshot of a half unfolded clone, want %d", half.Totals.Files, 2*files)
	}
	r.check(t)
	r.close(t)
	r.open(t)
	step()
	if n := len(namesIn(t, r.v, c)); n != files {
		t.Errorf("%d names in the clone, want %d", n, files)
	}
	whole := mustSnapshot(t, r.v, "whole")
	if whole.Totals.Files != 2*files {
		t.Errorf("%d files, want %d", whole.Totals.Files, 2*files)
	}
	if err := r.v.Rollback(context.Background(), "half"); err != nil {
		t.Fatal(err)
	}
	a, err := r.v.Lookup(meta.Root, "c")
	if err != nil {
		t.Fatal(err)
	}
	if n := len(namesIn(t, r.v, a.Ino)); n != files {
		t.Errorf("%d names after the rollback, want %d", n, files)
	}
}

// TestNameLeavesMaterializedDirectory removes names of a clone that the last snapshot
// has as one whole.
func TestNameLeavesMaterializedDirectory(t *testing.T) {
	r := testRig(t, smallCDC(), tiny())
	d := mustCreate(t, r.v, meta.Root, "d", syscall.S_IFDIR|0o755)
	for _, name := range []string{"removed", "renamed", "stays"} {
		mustCreate(t, r.v, d, name, syscall.S_IFREG|0o644)
	}
	mustSnapshot(t, r.v, "one")
	c := mustClone(t, r.v, SnapshotPath{"one", "d"}, "c")
	mustSnapshot(t, r.v, "two")
	if err := r.v.Unlink(c, "removed"); err != nil {
		t.Fatal(err)
	}
	if err := r.v.Rename(c, "renamed", c, "new", 0); err != nil {
		t.Fatal(err)
	}
	three := mustSnapshot(t, r.v, "three")
	if three.Totals.Files != 5 {
		t.Errorf("%d files in the snapshot, want 5", three.Totals.Files)
	}
	again := mustClone(t, r.v, SnapshotPath{"three", "c"}, "again")
	if names := namesIn(t, r.v, again); len(names) != 2 || !names["new"] || !names["stays"] {
		t.Errorf("the snapshot has %v", names)
	}
	r.check(t)
}

// TestHalfOwnedFile stops while a large cloned file gets extents of its own.
func TestHalfOwnedFile(t *testing.T) {
	r := testRig(t, fixed4K(), tiny())
	v := r.v
	f := mustCreate(t, v, meta.Root, "f", syscall.S_IFREG|0o644)
	pages := int64(2*materializeStep + 10)
	for i := int64(0); i < pages; i += 37 {
		mustWrite(t, v, f, i*v.files.span+i, noise(uint64(i), 10_000))
	}
	size := pages * v.files.span
	if err := truncate(v, f, size); err != nil {
		t.Fatal(err)
	}
	same := func(what string, ino meta.Ino, change int64) {
		t.Helper()
		for i := int64(0); i < pages; i += 37 {
			want := noise(uint64(i), 10_000)
			if i == change {
				copy(want, "changed")
			}
			if got := read(t, r.v, ino, i*r.v.files.span+i, 10_000); !bytes.Equal(got, want) {
				t.Fatalf("%s: the bytes at page %d differ", what, i)
			}
		}
		a, err := r.v.Attr(ino)
		if err != nil || a.Size != size {
			t.Errorf("%s: %d bytes (%v), want %d", what, a.Size, err, size)
		}
	}
	mustSnapshot(t, v, "s")
	c := mustClone(t, v, SnapshotPath{"s", "f"}, "c")
	n, err := v.get(c)
	if err != nil {
		t.Fatal(err)
	}
	var more bool
	err = r.st.Update(func() (err error) { more, err = v.materializer.pages(n); return err })
	n.release()
	if err != nil || !more {
		t.Fatalf("one step: %v, %v", more, err)
	}
	same("half", c, -1)
	half := mustSnapshot(t, v, "half")
	r.check(t)
	r.close(t)
	r.open(t)
	same("opened again", c, -1)
	mustWrite(t, r.v, c, 37*r.v.files.span+37, []byte("changed"))
	same("changed", c, 37)
	same("the original", f, -1)
	back := mustClone(t, r.v, SnapshotPath{"half", "c"}, "back")
	same("back", back, -1)
	if half.Root.Below.Bytes != 2*size {
		t.Errorf("%+v", half.Root.Below)
	}
	// Truncated to nothing, a lazy inode needs no extents.
	if err := truncate(r.v, back, 0); err != nil {
		t.Fatal(err)
	}
	if a, err := r.v.Attr(back); err != nil || a.Size != 0 || a.Blocks != 0 || a.IsLazy() {
		t.Errorf("truncated: %+v (%v)", a, err)
	}
}

// TestTrackingOfOldRecords: inodes whose records do not say where their names are,
// as in version 1, get into the next snapshot all the same.
func TestTrackingOfOldRecords(t *testing.T) {
	r := testRig(t, smallCDC(), tiny())
	d := mustCreate(t, r.v, meta.Root, "d", syscall.S_IFDIR|0o755)
	e := mustCreate(t, r.v, d, "e", syscall.S_IFDIR|0o755)
	var files []meta.Ino
	for i := range 3 {
		files = append(files, mustCreate(t, r.v, e, fmt.Sprint("f", i), syscall.S_IFREG|0o644))
	}
	mustSnapshot(t, r.v, "one")
	r.close(t)
	r.open(t)
	for _, ino := range append(files, d, e) {
		err := r.v.editIn(r.v.store.Change, ino, func(n *node) error {
			if n.attr.Pos = 0; !n.isDir() {
				n.attr.Parent = 0
			}
			r.v.flusher.markDirty(n)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	mustWrite(t, r.v, files[0], 0, []byte("written"))
	if _, err := r.v.Link(files[1], d, "second"); err != nil {
		t.Fatal(err)
	}
	s := mustSnapshot(t, r.v, "two")
	if b := s.Root.Below; b.Files != 2 || b.Linked != 2 || b.Bytes != 7 || b.Dirs != 2 {
		t.Errorf("%+v", b)
	}
	top, err := r.v.Lookup(SnapshotsDir, "two")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"d", "e", "f0"} {
		if top, err = r.v.Lookup(top.Ino, name); err != nil {
			t.Fatal(err)
		}
	}
	if got := read(t, r.v, top.Ino, 0, 100); string(got) != "written" {
		t.Errorf("the file has %q", got)
	}
}

// TestRemovedSnapshotIsReadable: who looks at a snapshot is not cut off when it is
// removed, and the space comes back when he has left.
func TestRemovedSnapshotIsReadable(t *testing.T) {
	r := testRig(t, smallCDC(), tiny())
	f := mustCreate(t, r.v, meta.Root, "f", syscall.S_IFREG|0o644)
	want := noise(1, 100_000)
	mustWrite(t, r.v, f, 0, want)
	mustSnapshot(t, r.v, "s")
	top, err := r.v.Lookup(SnapshotsDir, "s")
	if err != nil {
		t.Fatal(err)
	}
	a, err := r.v.Lookup(top.Ino, "f")
	if err != nil {
		t.Fatal(err)
	}
	r.v.Known(a.Ino)
	if err := r.v.RemoveSnapshot("s"); err != nil {
		t.Fatal(err)
	}
	if err := r.v.Unlink(meta.Root, "f"); err != nil {
		t.Fatal(err)
	}
	sweep := func() {
		t.Helper()
		r.awaitReaper(t)
		mustSync(t, r.v)
		if _, err := r.st.Sweep(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	sweep()
	if got := read(t, r.v, a.Ino, 0, len(want)); !bytes.Equal(got, want) {
		t.Error("the open file differs")
	}
	r.v.Forget(a.Ino, 1)
	sweep()
	if n := r.st.Stats().Totals.Blocks; n != [5]int64{} {
		t.Errorf("%v blocks are left", n)
	}
}

// TestLostTrees: directories whose trees went with the last snapshot are looked
// at as a whole.
func TestLostTrees(t *testing.T) {
	r := testRig(t, smallCDC(), tiny())
	d := mustCreate(t, r.v, meta.Root, "d", syscall.S_IFDIR|0o755)
	f := mustCreate(t, r.v, d, "f", syscall.S_IFREG|0o644)
	if _, err := r.v.Link(f, meta.Root, "g"); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, r.v, f, 0, noise(1, 10_000))
	one := mustSnapshot(t, r.v, "one")
	if err := r.v.RemoveSnapshot("one"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.st.Sweep(context.Background()); err != nil {
		t.Fatal(err)
	}
	two := mustSnapshot(t, r.v, "two")
	if two.Root.Link != one.Root.Link || two.Table != one.Table || two.Totals.Files != 1 {
		t.Errorf("%+v, before %+v", two.Root, one.Root)
	}
}
