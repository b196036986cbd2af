package graph

import (
	"context"
	"encoding/binary"
	"slices"

	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/vertex"
)

// A Sketch is a small sample of a set of blocks from which the likeness of two
// sets can be told: the least of the values that a hash function gives to its
// members. This is the MinHash of Broder, On the Resemblance and Containment of
// Documents (1997), with one function and the SketchSize least values. IDs are
// hashes already, so their first 8 bytes serve as the function. The zero value is the empty set.
type Sketch struct {
	low []uint64 // ascending
}

// SketchSize is how many values a sketch keeps: the standard error of an
// estimate is at most 1/(2*sqrt(SketchSize)), 3 %. For two sets that together
// have no more members it is exact.
const SketchSize = 256

// Add puts a block into the set.
func (s *Sketch) Add(id ID) {
	v := binary.BigEndian.Uint64(id[:8])
	if len(s.low) == SketchSize && v >= s.low[SketchSize-1] {
		return
	}
	i, found := slices.BinarySearch(s.low, v)
	if found {
		return
	}
	if len(s.low) == SketchSize {
		s.low = s.low[:SketchSize-1]
	}
	s.low = slices.Insert(s.low, i, v)
}

// Merge puts all members of another set into the set.
func (s *Sketch) Merge(o *Sketch) {
	if len(o.low) == 0 {
		return
	}
	union := make([]uint64, 0, min(SketchSize, len(s.low)+len(o.low)))
	eachLeast(s.low, o.low, func(v uint64, _ bool) { union = append(union, v) })
	s.low = union
}

// Jaccard estimates how many of the members of either set are in both, as a share; 0
// for two empty sets.
func (s *Sketch) Jaccard(o *Sketch) float64 {
	all, both := 0, 0
	eachLeast(s.low, o.low, func(_ uint64, common bool) {
		all++
		if common {
			both++
		}
	})
	return ratio(both, all)
}

// Empty reports whether the set has no members.
func (s *Sketch) Empty() bool { return len(s.low) == 0 }

// eachLeast calls fn for the SketchSize least values of two lists, ascending,
// and whether both have it.
func eachLeast(a, b []uint64, fn func(v uint64, common bool)) {
	for n := 0; n < SketchSize && len(a)+len(b) > 0; n++ {
		switch {
		// Both lists ascend: the lesser head is in no later place of the other one.
		case len(b) == 0 || len(a) > 0 && a[0] < b[0]:
			fn(a[0], false)
			a = a[1:]
		case len(a) == 0 || b[0] < a[0]:
			fn(b[0], false)
			b = b[1:]
		default:
			fn(a[0], true)
			a, b = a[1:], b[1:]
		}
	}
}

func ratio(a, b int) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}

// A Sketcher makes sketches of what is below vertices. It remembers those of
// vertices that several refer to, such as the directories that snapshots share,
// and so goes through each of them once.
type Sketcher struct {
	blocks Blocks
	known  map[ID]*Sketch
}

// maxKnown bounds what a Sketcher remembers: 32 MiB.
const maxKnown = 16 << 10

// NewSketcher returns a Sketcher of what blocks has.
func NewSketcher(blocks Blocks) *Sketcher {
	return &Sketcher{blocks: blocks, known: make(map[ID]*Sketch)}
}

// Of returns the sketch of the data blocks that can be reached from a vertex, or
// of a block, which the caller must not change. Errors: store.ErrNotFound,
// store.ErrCorrupt.
func (s *Sketcher) Of(ctx context.Context, id ID) (*Sketch, error) {
	if k, ok := s.known[id]; ok {
		return k, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	row, err := s.blocks.Lookup(id)
	if err != nil {
		return nil, err
	}
	sketch := new(Sketch)
	if row.Kind == store.KindData {
		sketch.Add(id)
		return sketch, nil
	}
	plain, err := s.blocks.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	if err := s.below(ctx, id, row.Kind, plain, sketch); err != nil {
		return nil, err
	}
	// With one reference nobody comes here again, so it would take memory for nothing.
	if row.Refs > 1 && len(s.known) < maxKnown {
		s.known[id] = sketch
	}
	return sketch, nil
}

func (s *Sketcher) below(ctx context.Context, id ID, kind store.Kind, plain []byte, sketch *Sketch) error {
	edges, err := Edges(id, kind, plain)
	if err != nil {
		return err
	}
	if v, err := vertex.DecodeFile(plain); kind == store.KindFile && err == nil && v.Height == 0 {
		for _, e := range edges { // blocks all, no need to look each up
			sketch.Add(e.To)
		}
		return nil
	}
	for _, e := range edges {
		below, err := s.Of(ctx, e.To)
		if err != nil {
			return err
		}
		sketch.Merge(below)
	}
	return nil
}

// A BlockSet is the data blocks of something with their plain bytes.
type BlockSet map[ID]uint32

// Bytes adds them up.
func (s BlockSet) Bytes() (n int64) {
	for _, raw := range s {
		n += int64(raw)
	}
	return n
}

// AddBelow puts in the data blocks that can be reached from a block or vertex,
// or the block itself. Errors: store.ErrNotFound, store.ErrCorrupt.
func (s BlockSet) AddBelow(ctx context.Context, blocks Blocks, id ID) error {
	return Walk{}.From(ctx, blocks, []ID{id}, func(v Vertex) error {
		if v.Kind == store.KindData {
			s[v.ID] = uint32(v.Raw)
		}
		return nil
	})
}

// A Likeness compares two sets of blocks exactly.
type Likeness struct {
	Jaccard     float64 `json:"jaccard"`       // blocks in both / blocks in either
	Shared      int64   `json:"shared_blocks"` // in both
	SharedBytes int64   `json:"shared_bytes"`
	Blocks      int64   `json:"blocks"` // of the other
	Bytes       int64   `json:"bytes"`
}

// Compare compares a set with another.
func (s BlockSet) Compare(o BlockSet) Likeness {
	l := Likeness{Blocks: int64(len(o)), Bytes: o.Bytes()}
	for id, raw := range o {
		if _, ok := s[id]; ok {
			l.Shared++
			l.SharedBytes += int64(raw)
		}
	}
	l.Jaccard = ratio(int(l.Shared), len(s)+len(o)-int(l.Shared))
	return l
}
