package meta

import (
	"encoding/binary"
	"math"
	"slices"
)

// ReservedBlock is the unit of reserved ranges, in bytes: what stat(2) counts a file in.
const ReservedBlock = 4096

// MaxReserved is how many reserved ranges an inode has at most.
const MaxReserved = 64

// A Range is bytes of a file: those from Lo up to and without Hi.
type Range struct{ Lo, Hi int64 }

// Ranges are in order and do not touch each other. They are shared and not changed in place.
type Ranges []Range

// Covered returns how many bytes of [lo, hi) the ranges have.
func (r Ranges) Covered(lo, hi int64) (sum int64) {
	for _, x := range r {
		sum += max(0, min(hi, x.Hi)-max(lo, x.Lo))
	}
	return sum
}

// Bytes returns how many bytes the ranges have.
func (r Ranges) Bytes() int64 { return r.Covered(0, math.MaxInt64) }

// With returns the ranges and [lo, hi).
func (r Ranges) With(lo, hi int64) Ranges {
	if lo >= hi {
		return r
	}
	out := make(Ranges, 0, len(r)+1)
	for _, x := range r {
		if x.Hi < lo || x.Lo > hi {
			out = append(out, x)
			continue
		}
		// It touches or overlaps: taken in, so that ranges stay apart.
		lo, hi = min(lo, x.Lo), max(hi, x.Hi)
	}
	i, _ := slices.BinarySearchFunc(out, lo, func(x Range, lo int64) int { return int(min(1, max(-1, x.Lo-lo))) })
	return slices.Insert(out, i, Range{lo, hi})
}

// Without returns the ranges less [lo, hi).
func (r Ranges) Without(lo, hi int64) Ranges {
	if lo >= hi {
		return r
	}
	var out Ranges
	for _, x := range r {
		if x.Lo < min(x.Hi, lo) {
			out = append(out, Range{x.Lo, min(x.Hi, lo)})
		}
		if max(x.Lo, hi) < x.Hi {
			out = append(out, Range{max(x.Lo, hi), x.Hi})
		}
	}
	return out
}

// Missing returns what [lo, hi) has and the ranges do not.
func (r Ranges) Missing(lo, hi int64) Ranges {
	out := Ranges{}.With(lo, hi)
	for _, x := range r {
		out = out.Without(x.Lo, x.Hi)
	}
	return out
}

// NarrowestGap returns the shortest range between two; there are two or more.
func (r Ranges) NarrowestGap() Range {
	best := Range{r[0].Hi, r[1].Lo}
	for i := range r[2:] {
		if gap := (Range{r[i+1].Hi, r[i+2].Lo}); gap.Hi-gap.Lo < best.Hi-best.Lo {
			best = gap
		}
	}
	return best
}

// appendReserved appends what an inode has reserved, in blocks: of each range how far it
// begins behind the one before, and its length.
func appendReserved(b []byte, n *Inode) []byte {
	b = binary.AppendUvarint(b, uint64(n.Unwritten))
	b = binary.AppendUvarint(b, uint64(len(n.Reserved)))
	at := int64(0)
	for _, x := range n.Reserved {
		b = binary.AppendUvarint(b, uint64(x.Lo-at)/ReservedBlock)
		b = binary.AppendUvarint(b, uint64(x.Hi-x.Lo)/ReservedBlock)
		at = x.Hi
	}
	return b
}

// readReserved is the reverse. It takes what appendReserved makes.
func (n *Inode) readReserved(r *reader) {
	const most = max63 / ReservedBlock
	n.Unwritten = int64(r.uvarint(max63))
	count := r.uvarint(MaxReserved)
	at, sum := uint64(0), int64(0)
	// Bounds before sums: a damaged row must not overflow into a range that looks right.
	for i := range count {
		gap := r.uvarint(most - at)
		length := r.uvarint(most - at - min(gap, most-at))
		if length == 0 || gap == 0 && i > 0 {
			r.bad = true
		}
		if r.bad {
			return
		}
		at += gap
		n.Reserved = append(n.Reserved, Range{int64(at) * ReservedBlock, int64(at+length) * ReservedBlock})
		at += length
		sum += int64(length) * ReservedBlock
	}
	r.bad = r.bad || count == 0 || n.Unwritten > sum
}
