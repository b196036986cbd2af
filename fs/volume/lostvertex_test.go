package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/store"
)

// verticesBelow are the vertices of a snapshot in the order in which they were met, by kind.
func verticesBelow(t tb, st *store.Store, id store.ID) map[store.Kind][]store.ID {
	t.Helper()
	found := make(map[store.Kind][]store.ID)
	w := graph.Walk{Kinds: []store.Kind{store.KindSnapshot, store.KindTree, store.KindFile}}
	err := w.From(context.Background(), st, []graph.ID{id}, func(v graph.Vertex) error {
		found[v.Kind] = append(found[v.Kind], v.ID)
		return nil
	})
	if err != nil {
		t.Fatalf("%v", err)
	}
	return found
}

// scribble damages the record of a block where it is.
func scribble(t tb, dir string, e store.Entry) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "hot", fmt.Sprintf("%016x.*", e.Loc.Segment)))
	if err != nil || len(names) != 1 {
		t.Fatalf("%v: %v", names, err)
	}
	f, err := os.OpenFile(names[0], os.O_WRONLY, 0)
	if err != nil {
		t.Fatalf("%v", err)
	}
	_, err = f.WriteAt([]byte("damage"), int64(e.Loc.Offset)+int64(e.Loc.Length)-6)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatalf("%v", err)
	}
}

// TestSnapshotAfterLostVertices: whatever vertices of the last snapshot cannot be read, or a repair
// has let go of, the next one is made anew of the live rows and is whole, and says that only what
// changed was written; the one after it builds upon it.
func TestSnapshotAfterLostVertices(t *testing.T) {
	ctx := context.Background()
	made := filepath.Join(t.TempDir(), "made")
	r := newRig(t, made, fixed4K(), Options{NoAtime: true})
	// A segment is full of data before the first vertex comes.
	mustWrite(t, r.v, mustCreate(t, r.v, meta.Root, "big", syscall.S_IFREG|0o644), 0, noise(9, 1_200_000))
	mustSync(t, r.v)
	d := mustCreate(t, r.v, meta.Root, "d", syscall.S_IFDIR|0o755)
	for i := range 300 {
		mustCreate(t, r.v, d, fmt.Sprint("file ", i), syscall.S_IFREG|0o644)
	}
	f := mustCreate(t, r.v, meta.Root, "f", syscall.S_IFREG|0o644)
	mustWrite(t, r.v, f, 0, noise(1, 50_000))
	if err := r.v.SetXattr(f, "user.long", noise(2, 5000), 0, false); err != nil {
		t.Fatal(err)
	}
	if _, err := r.v.Link(f, d, "g"); err != nil {
		t.Fatal(err)
	}
	mustClone(t, r.v, SnapshotPath{Snapshot: mustSnapshot(t, r.v, "zero").Name, Path: "d"}, "clone")
	one := mustSnapshot(t, r.v, "one")
	var err error
	vertices, places := verticesBelow(t, r.st, one.ID), make(map[store.ID]store.Entry)
	for _, ids := range vertices {
		for _, id := range ids {
			if places[id], err = r.st.Lookup(id); err != nil {
				t.Fatal(err)
			}
		}
	}
	r.close(t)
	if len(vertices[store.KindTree]) < 6 || len(vertices[store.KindFile]) < 2 {
		t.Fatal("too few vertices:", vertices)
	}
	lastSegment := func(t *testing.T, dir string) {
		names, err := filepath.Glob(filepath.Join(dir, "hot", "*"))
		if err != nil || len(names) < 2 {
			t.Fatal(names, err)
		}
		if err := os.Remove(slices.Max(names)); err != nil {
			t.Fatal(err)
		}
		st, err := store.Open(dir, store.Options{SweepInterval: -1, MinFree: 1, MemTable: 8 << 20, Salvage: true})
		if err != nil {
			t.Fatal(err)
		}
		repair(t, st)
		if err := st.Close(); err != nil {
			t.Fatal(err)
		}
	}
	damage := func(ids ...store.ID) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			for _, id := range ids {
				scribble(t, dir, places[id])
			}
		}
	}
	trees := vertices[store.KindTree]
	for _, c := range []struct {
		name   string
		harm   func(*testing.T, string)
		change bool // something, before the next snapshot
	}{
		{"its own", damage(one.ID), true},
		{"the link table", damage(one.Table), false},
		{"the root's tree", damage(one.Root.Link.ID), true},
		{"a part of a tree", damage(trees[len(trees)/2]), false},
		{"all trees", damage(trees...), true},
		{"all files", damage(vertices[store.KindFile]...), false},
		{"a lost segment", lastSegment, true},
		{"a lost segment, and nothing changed", lastSegment, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &rig{dir: filepath.Join(t.TempDir(), "store"), clock: newClock(), options: Options{NoAtime: true}}
			r.options.Now = r.clock.Now
			if err := copyStore(made, r.dir); err != nil {
				t.Fatal(err)
			}
			c.harm(t, r.dir)
			r.open(t)
			defer r.close(t)
			// What nobody has tried to read is not known to be bad.
			if _, err := r.st.Scrub(ctx, store.ScrubOptions{}); err != nil {
				t.Fatal(err)
			}
			written := int64(0)
			if c.change {
				a, err := r.v.Lookup(meta.Root, "d")
				if err != nil {
					t.Fatal(err)
				}
				mustWrite(t, r.v, mustCreate(t, r.v, a.Ino, "new", syscall.S_IFREG|0o644), 0, []byte("new"))
				written = 3
			}
			requireWholeSnapshot(t, r, "two", written)
			if r.v.snapshots.marks != r.st.BadMarks() {
				t.Error("the next snapshot would be made anew again")
			}
			requireWholeSnapshot(t, r, "three", 0)
			if err := r.v.LiveTree(ctx, func(s *graph.Snapshot) error { return nil }); err != nil {
				t.Error(err)
			}
			requireListed(t, r.v, "zero", "one", "two", "three")
		})
	}
}

// requireWholeSnapshot makes a snapshot and reads all vertices of what was not a clone in it, and
// those files that can be read in the live tree as well.
func requireWholeSnapshot(t *testing.T, r *rig, name string, written int64) {
	t.Helper()
	ctx := context.Background()
	s, err := r.v.CreateSnapshot(ctx, SnapshotOptions{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	if s.Totals.Written != written {
		t.Errorf("%s: %d bytes were written, and it says %d", name, written, s.Totals.Written)
	}
	d, err := r.v.Lookup(meta.Root, "d")
	if err != nil {
		t.Fatal(err)
	}
	view, err := r.v.Lookup(SnapshotsDir, name)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := r.v.Lookup(view.Ino, "d")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := namesIn(t, r.v, dir.Ino), namesIn(t, r.v, d.Ino); len(got) != len(want) {
		t.Errorf("%s: %d names, and the live tree has %d", name, len(got), len(want))
	}
	for _, path := range []string{"big", "f"} {
		was, err := r.v.Lookup(view.Ino, path)
		if err != nil {
			t.Fatal(err)
		}
		is, err := r.v.Lookup(meta.Root, path)
		if err != nil {
			t.Fatal(err)
		}
		want, wantErr := r.v.Read(ctx, is.Ino, 0, int(is.Size))
		got, err := r.v.Read(ctx, was.Ino, 0, int(was.Size))
		if (err == nil) != (wantErr == nil) || err == nil && !bytes.Equal(bytes.Join(got.Slices, nil), bytes.Join(want.Slices, nil)) {
			t.Errorf("%s: %s reads otherwise: %v, %v", name, path, err, wantErr)
		}
	}
	if x, err := r.v.GetXattr(dir.Ino, "user.none"); err == nil {
		t.Error(x)
	}
	f, err := r.v.Lookup(view.Ino, "f")
	if err != nil {
		t.Fatal(err)
	}
	if x, err := r.v.GetXattr(f.Ino, "user.long"); err != nil || !bytes.Equal(x, noise(2, 5000)) {
		t.Errorf("%s: extended attribute: %v", name, err)
	}
}

// requireListed: a snapshot that cannot be read hides no other one.
func requireListed(t *testing.T, v *Volume, want ...string) {
	t.Helper()
	names := namesIn(t, v, SnapshotsDir)
	for _, name := range want {
		if !names[name] {
			t.Errorf("%s is not listed: %v", name, names)
		}
	}
	_, err := v.Lookup(SnapshotsDir, "one")
	if _, rerr := v.Snapshot(context.Background(), "one"); (err == nil) != (rerr == nil) {
		t.Errorf("look-up: %v, reading: %v", err, rerr)
	}
}
