package volume

import (
	"fmt"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/quarxtor/quarxfs/fs/fsck"
	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/store"
)

// The volume's counters have all that is below clones, whoever has looked into them, and
// stay so when materializing breaks off, when clones go, and for a store of an earlier program.
func TestCountersOfClones(t *testing.T) {
	t.Parallel()
	r := testRig(t, fixed4K(), Options{})
	const files = materializeStep + 50 // so that materializing takes two steps
	dir := mustCreate(t, r.v, meta.Root, "dir", syscall.S_IFDIR|0o755)
	sub := mustCreate(t, r.v, dir, "a", syscall.S_IFDIR|0o755)
	mustWrite(t, r.v, mustCreate(t, r.v, sub, "below", syscall.S_IFREG|0o644), 0, make([]byte, 7))
	for i := range files {
		mustWrite(t, r.v, mustCreate(t, r.v, dir, fmt.Sprintf("f%04d", i), syscall.S_IFREG|0o644), 0, []byte("0123456789"))
	}
	mustCreate(t, r.v, dir, "pipe", syscall.S_IFIFO|0o600)
	mustSnapshot(t, r.v, "s")
	const inodes, bytes = files + 4, 10*files + 7 // of dir
	same := func(when string, v *Volume, clones int64) {
		t.Helper()
		if got := v.Stats(); got.Inodes != 1+inodes*clones || got.LogicalBytes != bytes*clones || got.DataBytes != (bytes-7)*clones {
			t.Errorf("%s: %d inodes with %d bytes, %d of them in blocks, want %d with %d and %d", when,
				got.Inodes, got.LogicalBytes, got.DataBytes, 1+inodes*clones, bytes*clones, (bytes-7)*clones)
		}
	}
	same("made", r.v, 1)
	mustClone(t, r.v, SnapshotPath{"s", "dir"}, "one")
	mustClone(t, r.v, SnapshotPath{"s", "dir"}, "two")
	same("cloned", r.v, 3)

	// One step of materializing, and a crash; then the rest, or a removal.
	d := mustGet(t, r.v, "one")
	if err := r.st.Update(func() error { return r.v.materializer.names(d) }); err != nil || !d.attr.IsLazy() {
		t.Fatalf("one step of materializing: %v, all of it: %t", err, !d.attr.IsLazy())
	}
	d.release()
	mustSync(t, r.v)
	same("one step", r.v, 3)
	for _, after := range []string{"look", "remove"} {
		crashed := &rig{dir: filepath.Join(t.TempDir(), "store"), clock: r.clock, options: r.options}
		if err := copyStore(r.dir, crashed.dir); err != nil {
			t.Fatal(err)
		}
		crashed.open(t)
		same("after a crash", crashed.v, 3)
		crashed.check(t)
		if after == "look" {
			if err := crashed.v.Walk(meta.Root, "", func(string, Attr) error { return nil }); err != nil {
				t.Error(err)
			}
			same("all looked at", crashed.v, 3)
		} else {
			for _, name := range []string{"one", "two"} {
				// A file takes the place of each, and is removed.
				if err := crashed.v.Restore(t.Context(), SnapshotPath{"s", "dir/f0000"}, name); err != nil {
					t.Fatal(err)
				}
				if err := crashed.v.Unlink(meta.Root, name); err != nil {
					t.Fatal(err)
				}
			}
			crashed.awaitReaper(t)
			same("removed", crashed.v, 1)
		}
		crashed.check(t)
		crashed.close(t)
	}

	// Earlier programs counted what had rows, or with clones and without Data.
	rows, data := int64(0), int64(0)
	err := r.st.DB().ScanPrefix(meta.InodePrefix(), func(_, value []byte) error {
		attr, err := meta.DecodeInode(value)
		rows++
		if attr.Mode&syscall.S_IFMT == syscall.S_IFREG {
			data += attr.Size
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []meta.Counters{
		{Inodes: rows, Logical: data},
		{Inodes: 1 + 3*inodes, Logical: 3 * bytes, Form: meta.CountsClones},
		{Inodes: 1 + 3*inodes, Logical: 3 * bytes, Form: meta.CountsClones, Generation: 7},
	} {
		if err := r.v.Close(); err != nil {
			t.Fatal(err)
		}
		r.st.Join(nil)
		row.Next = r.v.numbers.next.Load()
		err = r.st.Update(func() error { r.st.DB().Set(meta.CounterKey(), row.Encode()); return nil })
		if err == nil {
			err = r.st.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		r.open(t)
		same("after an earlier program", r.v, 3)
		if got := r.v.GenerationOf(meta.Root); got != max(1, row.Generation) {
			t.Errorf("generation %d, and the row says %d", got, row.Generation)
		}
		r.check(t)
	}
	if rows == 1+3*inodes {
		t.Error("nothing was lazy")
	}
	if err := r.v.Rollback(t.Context(), "s"); err != nil {
		t.Fatal(err)
	}
	r.awaitReaper(t)
	same("rolled back", r.v, 1)
	if done, err := repairOf(t, r); err != nil || len(done) > 0 {
		t.Errorf("a repair: %q, %v", done, err)
	}
	same("repaired", r.v, 1)
}

// mustGet returns the node at a path, which the caller releases.
func mustGet(t tb, v *Volume, name string) *node {
	t.Helper()
	a, err := v.Lookup(meta.Root, name)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	n, err := v.get(a.Ino)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// repairOf repairs the store of a rig, which is closed meanwhile.
func repairOf(t *testing.T, r *rig) ([]string, error) {
	t.Helper()
	r.close(t)
	st, err := store.Open(r.dir, store.Options{SweepInterval: -1, MinFree: 1, MemTable: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	done, err := fsck.Repair(t.Context(), st)
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	r.open(t)
	return texts(done), err
}
