package volume

import (
	"math"

	"github.com/quarxtor/quarxfs/fs/meta"
)

// fallocate(2) sets nothing aside here, since what a block costs depends on what will be
// written. But programs that reserve space look for it in st_blocks: so a file remembers the
// blocks that were reserved, and counts those without data in them. Copies, clones and
// snapshots of the file do not.

// allocated counts an extent that the file gets, or with sign -1 loses. n.mu is held.
func (n *node) allocated(e meta.Extent, sign int64) {
	n.attr.Alloc += sign * int64(e.Len)
	n.attr.Unwritten -= sign * n.attr.Reserved.Covered(e.Off, e.End())
}

// floorBlock and ceilBlock are the bounds of blocks at or before, and at or after, an offset.
func floorBlock(off int64) int64 { return off - off%meta.ReservedBlock }

func ceilBlock(off int64) int64 {
	return floorBlock(min(off, math.MaxInt64-meta.ReservedBlock) + meta.ReservedBlock - 1)
}

// reserveBlocks reserves all blocks that [lo, hi) touches. n.mu is held, no flusher is busy,
// inside Update.
func (v *Volume) reserveBlocks(n *node, lo, hi int64) error {
	add := func(lo, hi int64) error {
		for _, x := range n.attr.Reserved.Missing(lo, hi) {
			data, err := v.dataIn(n, x)
			if err != nil {
				return err
			}
			n.attr.Unwritten += x.Hi - x.Lo - data
			n.attr.Reserved = n.attr.Reserved.With(x.Lo, x.Hi)
		}
		return nil
	}
	if err := add(floorBlock(lo), ceilBlock(hi)); err != nil {
		return err
	}
	for len(n.attr.Reserved) > meta.MaxReserved {
		gap := n.attr.Reserved.NarrowestGap()
		if err := add(gap.Lo, gap.Hi); err != nil {
			return err
		}
	}
	return nil
}

// dataIn returns how many bytes of a range are in extents.
func (v *Volume) dataIn(n *node, x meta.Range) (sum int64, err error) {
	err = v.eachExtent(n, x.Lo, x.Hi, func(e meta.Extent) bool {
		sum += min(x.Hi, e.End()) - max(x.Lo, e.Off)
		return true
	})
	return sum, err
}

// releaseBlocks takes the reservation of [lo, hi), whole blocks without data, back.
func (n *node) releaseBlocks(lo, hi int64) {
	n.attr.Unwritten -= n.attr.Reserved.Covered(lo, hi)
	n.attr.Reserved = n.attr.Reserved.Without(lo, hi)
}

// punchBlocks makes a hole of [lo, hi) and of its blocks that are in it as a whole. Those at
// its ends stay what they are: data, of which some bytes are zeroes now.
func (v *Volume) punchBlocks(n *node, lo, hi int64) error {
	if lo >= hi {
		return nil
	}
	if hi >= n.attr.Size {
		hi = ceilBlock(hi) // nothing is left of the last block
	}
	for _, edge := range []int64{lo, hi} {
		block := meta.Range{Lo: floorBlock(edge), Hi: ceilBlock(edge)}
		data, err := v.dataIn(n, block)
		unsaved := n.runs.intersects(block.Lo, block.Hi)
		if err == nil && (data > 0 || unsaved) {
			err = v.reserveBlocks(n, block.Lo, block.Hi)
		}
		if err != nil {
			return err
		}
	}
	if err := v.punch(n, lo, hi); err != nil {
		return err
	}
	if first, end := ceilBlock(lo), floorBlock(hi); first < end {
		n.releaseBlocks(first, end)
	}
	return nil
}

// blocks returns the 512-byte units that stat(2) counts of a regular file. n.mu is held.
func (n *node) blocks() int64 {
	bytes := n.attr.Alloc + n.attr.Unwritten
	for _, rs := range []runs{n.runs, n.flushing} {
		for _, r := range rs {
			bytes += int64(len(r.data)) - n.attr.Reserved.Covered(r.off, r.end())
		}
	}
	// Runs over extents are counted twice until they are stored; in a file without holes
	// that makes no difference.
	bytes = min(bytes, n.attr.Size+n.attr.Reserved.Covered(n.attr.Size, math.MaxInt64))
	return (bytes + 511) / 512
}
