package store

import (
	"context"
	"encoding/binary"

	"github.com/quarxtor/quarxfs/store/vertex"
)

// A blockFilter is a set of blocks in bounded memory (a Bloom filter of 8 MiB):
// it may take another block for one of its own, once in a hundred when it has
// seven million. What is pinned by mistake only stays hot.
type blockFilter struct{ bits []uint64 }

const filterWords = 1 << 20

// spots are the bits of a block: its ID is a hash already.
func (f *blockFilter) spots(id ID) (spots [4]uint32) {
	for i := range spots {
		spots[i] = binary.LittleEndian.Uint32(id[8+4*i:]) % (filterWords * 64)
	}
	return spots
}

func (f *blockFilter) add(id ID) {
	if f.bits == nil {
		f.bits = make([]uint64, filterWords)
	}
	for _, b := range f.spots(id) {
		f.bits[b/64] |= 1 << (b % 64)
	}
}

func (f *blockFilter) has(id ID) bool {
	if f == nil || f.bits == nil {
		return false
	}
	for _, b := range f.spots(id) {
		if f.bits[b/64]&(1<<(b%64)) == 0 {
			return false
		}
	}
	return true
}

// pinnedBlocks collects what is pinned.
func (bs *blocks) pinnedBlocks(ctx context.Context, pins Pins) (*blockFilter, error) {
	f := &blockFilter{}
	if pins == nil {
		return f, nil
	}
	return f, pins(ctx, func(id ID) error {
		return bs.EachBelow(ctx, id, func(id ID) bool {
			if f.has(id) {
				return false
			}
			f.add(id)
			return true
		})
	})
}

// EachBelow calls enter for a block and, if it is a vertex and enter says so,
// for all that it links to. Blocks that the store has lost have nothing below.
func (bs *blocks) EachBelow(ctx context.Context, id ID, enter func(ID) bool) error {
	if !enter(id) {
		return nil
	}
	e, err := bs.index.Lookup(id)
	if err != nil || e.Kind == KindData {
		return nil
	}
	// Only vertices are read, and few of them: data blocks are told by their rows.
	plain, err := bs.Get(ctx, id)
	if err != nil {
		return err
	}
	links, err := vertex.Links(plain)
	for _, child := range links {
		if err == nil {
			err = bs.EachBelow(ctx, child, enter)
		}
	}
	return err
}
