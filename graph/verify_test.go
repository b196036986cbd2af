package graph

import (
	"fmt"
	"syscall"
	"testing"

	"github.com/quarxtor/quarxfs/store"
)

// vertices are those that a Sink gets, in that order, so that each comes after what it links to.
type vertices struct {
	*memory
	ids  []ID
	seen map[ID]bool
}

func (s *vertices) Put(kind store.Kind, plain []byte) (ID, error) {
	id, err := s.memory.Put(kind, plain)
	if !s.seen[id] {
		s.seen[id] = true
		s.ids = append(s.ids, id)
	}
	return id, err
}

// dirOf makes the entry of a directory that has these.
func dirOf(t *testing.T, to Sink, name string, entries []*Entry) *Entry {
	t.Helper()
	b := NewTreeBuilder(to, Directory)
	e := &Entry{Name: name, Mode: syscall.S_IFDIR | 0o755, Entries: int64(len(entries))}
	for _, x := range entries {
		if err := b.Add(x); err != nil {
			t.Fatal(err)
		}
		e.Below.Add(x.Sum(), 1)
		if x.IsDir() {
			e.Subdirs++
		}
	}
	root, err := b.Finish()
	if err != nil {
		t.Fatal(err)
	}
	e.Link = Link{ID: root.ID, Kind: store.KindTree}
	return e
}

// forest puts directories of directories of files, and gives the file with a number a block of its
// own.
func forest(t *testing.T, to Sink, outer, inner, files int, other map[int]bool) *Entry {
	t.Helper()
	n := 0
	var top []*Entry
	for i := range outer {
		var dirs []*Entry
		for k := range inner {
			var list []*Entry
			for f := range files {
				n++
				block := uint64(n)
				if other[n] {
					block += 1 << 32
				}
				e := fileEntry(fmt.Sprintf("%04d", f), block)
				e.Size, e.Data = 1, 1 // as long as the block
				list = append(list, e)
			}
			dirs = append(dirs, dirOf(t, to, fmt.Sprintf("%04d", k), list))
		}
		top = append(top, dirOf(t, to, fmt.Sprintf("%04d", i), dirs))
	}
	return dirOf(t, to, "", top)
}

// TestVerifierReads counts what is read of what was there before, with nothing remembered: of a
// tree of 20,000 files the changes of three cost what is beside them, and not what is below that.
func TestVerifierReads(t *testing.T) {
	all := &vertices{memory: newMemory(), seen: make(map[ID]bool)}
	verify := func() (reads int) {
		v := NewVerifier(all.memory)
		for _, id := range all.ids {
			before := all.reads
			if why, err := v.Vertex(t.Context(), id, all.kinds[id], all.blocks[id]); why != "" || err != nil {
				t.Fatal(why, err)
			}
			reads += all.reads - before
		}
		all.ids = nil
		return reads
	}
	forest(t, all, 20, 20, 50, nil)
	if reads := verify(); reads != 0 {
		t.Errorf("%d vertices were read that had just come", reads)
	}
	forest(t, all, 20, 20, 50, map[int]bool{1: true, 2: true, 10_000: true})
	n := len(all.ids)
	// Two directories of files, the two above these, and the root. Beside the changed ones there
	// are 19 in each of the two, and 18 in the root.
	if reads := verify(); n != 5 || reads != 2*19+18 {
		t.Errorf("for %d vertices %d were read", n, reads)
	}
}

// TestVerifierDepth looks at wide trees, and at deep ones of which nothing is remembered.
func TestVerifierDepth(t *testing.T) {
	all := &vertices{memory: newMemory(), seen: make(map[ID]bool)}
	var flat []*Entry
	for i := range MaxDepth + 100 {
		flat = append(flat, dirOf(t, all, fmt.Sprintf("%06d", i), nil))
	}
	wide := dirOf(t, all, "", flat)
	for _, c := range []struct {
		levels int
		sound  bool
	}{{0, true}, {MaxDepth - 2, true}, {MaxDepth + 2, false}} {
		chain, last := wide, []ID(nil)
		for range c.levels {
			below := *chain
			below.Name = "d"
			all.ids = nil
			chain = dirOf(t, all, "", []*Entry{&below})
			last = all.ids
		}
		if c.levels == 0 {
			last = []ID{wide.Link.ID}
		}
		v := NewVerifier(all.memory)
		for _, id := range last {
			why, err := v.Vertex(t.Context(), id, store.KindTree, all.blocks[id])
			if (why == "") != c.sound || err != nil {
				t.Errorf("%d levels: %q, %v", c.levels, why, err)
			}
		}
	}
}
