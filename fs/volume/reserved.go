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
func (m *fileMap) allocated(n *node, e meta.Extent, sign int64) {
	n.attr.Alloc += sign * int64(e.Len)
	m.v.counters.data.Add(sign * int64(e.Len))
	// What gets data in a reserved block was counted as allocated before.
	n.attr.Unwritten -= sign * n.attr.Reserved.Covered(e.Off, e.End())
}

// floorBlock and ceilBlock are the bounds of blocks at or before, and at or after, an offset.
func floorBlock(off int64) int64 { return off - off%meta.ReservedBlock }

func ceilBlock(off int64) int64 {
	return floorBlock(min(off, math.MaxInt64-meta.ReservedBlock) + meta.ReservedBlock - 1)
}

// reserveBlocks reserves all blocks that [lo, hi) touches. n.mu is held, no flusher is busy,
// inside Update.
func (m *fileMap) reserveBlocks(n *node, lo, hi int64) error {
	add := func(lo, hi int64) error {
		for _, x := range n.attr.Reserved.Missing(lo, hi) {
			data, err := m.dataIn(n, x)
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
	// A record has room for so many: the narrowest gap costs least to count as reserved.
	for len(n.attr.Reserved) > meta.MaxReserved {
		gap := n.attr.Reserved.NarrowestGap()
		if err := add(gap.Lo, gap.Hi); err != nil {
			return err
		}
	}
	return nil
}

// dataIn returns how many bytes of a range are in extents.
func (m *fileMap) dataIn(n *node, x meta.Range) (sum int64, err error) {
	err = m.eachExtent(n, x.Lo, x.Hi, func(e meta.Extent) bool {
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
func (m *fileMap) punchBlocks(n *node, lo, hi int64) error {
	if lo >= hi {
		return nil
	}
	if hi >= n.attr.Size {
		hi = ceilBlock(hi) // nothing is left of the last block
	}
	for _, edge := range []int64{lo, hi} {
		block := meta.Range{Lo: floorBlock(edge), Hi: ceilBlock(edge)}
		data, err := m.dataIn(n, block)
		written := n.dirty.intersects(block.Lo, block.Hi)
		if err == nil && (data > 0 || written) {
			err = m.reserveBlocks(n, block.Lo, block.Hi)
		}
		if err != nil {
			return err
		}
	}
	if err := m.punch(n, lo, hi); err != nil {
		return err
	}
	if first, end := ceilBlock(lo), floorBlock(hi); first < end {
		n.releaseBlocks(first, end)
	}
	return nil
}

// blocksOf returns the 512-byte units that stat(2) counts of so many bytes.
func blocksOf(bytes int64) int64 { return (bytes + 511) / 512 }

// unstored returns how many dirty bytes of a regular file get space only when they are stored:
// those that neither an extent nor a reserved block has. n.mu is held.
func (m *fileMap) unstored(n *node) (sum int64) {
	for _, r := range n.flushing {
		sum += m.unallocated(n, r.off, r.end())
		// What has been written again since the flush began counts once, as the newer.
		for _, w := range n.dirty[n.dirty.after(r.off):] {
			if w.off >= r.end() {
				break
			}
			sum -= m.unallocated(n, max(r.off, w.off), min(r.end(), w.end()))
		}
	}
	for _, r := range n.dirty {
		sum += m.unallocated(n, r.off, r.end())
	}
	return sum
}

// unallocated returns how many bytes of [lo, hi) are in no extent and in no reserved block.
func (m *fileMap) unallocated(n *node, lo, hi int64) int64 {
	sum := hi - lo - n.attr.Reserved.Covered(lo, hi)
	// A page that cannot be read covers nothing here; who reads the file is told.
	_ = m.eachExtent(n, lo, hi, func(e meta.Extent) bool {
		from, to := max(lo, e.Off), min(hi, e.End())
		sum -= to - from - n.attr.Reserved.Covered(from, to)
		return true
	})
	return sum
}
