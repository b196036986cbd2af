package volume

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/quarxtor/quarxfs/fs/fsck"
	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/store"
)

// TestNumbersAreNotUsedTwice ends the use of a volume in every way, with inodes that are
// saved, removed, and not saved yet, and goes on: a number with its generation must not be
// given out again. While the volume stays the same, the generation does.
func TestNumbersAreNotUsedTwice(t *testing.T) {
	t.Parallel()
	closed := func(r *rig) error { return errors.Join(r.v.Close(), r.st.Close()) }
	for _, c := range []struct {
		how     string
		synced  bool // before the last inodes are made
		another bool // the volume is another one afterwards
		end     func(t *testing.T, r *rig)
	}{
		{how: "closed", end: func(t *testing.T, r *rig) { r.close(t) }},
		{how: "crashed", end: crashed},
		{how: "crashed after a commit", synced: true, end: crashed},
		{how: "counters lost", another: true, end: func(t *testing.T, r *rig) {
			must(t, r.v.Close())
			must(t, r.st.Update(func() error { r.st.DB().Delete(meta.CounterKey()); return nil }))
			_, err := fsck.Repair(t.Context(), r.st)
			must(t, errors.Join(err, r.st.Close()))
		}},
		{how: "database lost", another: true, end: func(t *testing.T, r *rig) {
			must(t, closed(r))
			_, err := store.Rebuild(t.Context(), r.dir, store.RebuildOptions{})
			must(t, err)
		}},
	} {
		t.Run(c.how, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, filepath.Join(t.TempDir(), "store"), smallCDC(), Options{})
			seen := make(map[string]bool)
			use := func() {
				t.Helper()
				for i := range 20 {
					name := fmt.Sprint(len(seen), "-", i)
					ino := mustCreate(t, r.v, meta.Root, name, 0o100644)
					id := fmt.Sprint(r.v.GenerationOf(meta.Root), "/", ino)
					if seen[id] {
						t.Fatalf("inode %s was given out before", id)
					}
					seen[id] = true
					if i%3 == 0 {
						must(t, r.v.Unlink(meta.Root, name))
					}
				}
			}
			rounds := 2
			if c.another {
				rounds = 1
			}
			for range rounds {
				use()
				if c.synced {
					mustSync(t, r.v)
					use()
				}
				before := r.v.GenerationOf(meta.Root)
				c.end(t, r)
				r.open(t)
				if after := r.v.GenerationOf(meta.Root); (after != before) != c.another || after == 0 {
					t.Errorf("generation %d, before %d", after, before)
				}
			}
			use()
			r.check(t)
			if c.how == "closed" {
				// Numbers do not grow for nothing.
				if next := r.v.numbers.next.Load(); next > 1000 {
					t.Errorf("the next number is %d", next)
				}
			}
			r.close(t)
		})
	}
}

// crashed goes on with a copy of the store as it is now.
func crashed(t *testing.T, r *rig) {
	t.Helper()
	dir := r.dir + "-"
	must(t, copyStore(r.dir, dir))
	must(t, errors.Join(r.v.Close(), r.st.Close()))
	r.dir = dir
}

// TestLookingTakesNoNumbers: a volume that is opened and only looked at is left as it was.
func TestLookingTakesNoNumbers(t *testing.T) {
	r := testRig(t, smallCDC(), Options{})
	mustCreate(t, r.v, meta.Root, "f", 0o100644)
	r.close(t)
	var err error
	r.st, err = store.Open(r.dir, store.Options{MemTable: 8 << 20})
	must(t, err)
	before := r.st.Version()
	r.v, err = Open(r.st, r.options)
	must(t, err)
	if _, err := r.v.Lookup(meta.Root, "f"); err != nil {
		t.Error(err)
	}
	mustSync(t, r.v)
	if after := r.st.Version(); after != before {
		t.Errorf("%d commits of a volume that nobody changed", after-before)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
