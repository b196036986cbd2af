package volume

import (
	"math/bits"
	"slices"
	"sort"
	"sync"
)

// maxRange is the longest dirty range, in bytes; one this long is handed to the
// flusher without waiting for a commit.
const maxRange = 2 << 20

// A dirtyRange is bytes written to a file and not yet cut into blocks.
type dirtyRange struct {
	off  int64
	data []byte // its capacity comes from runBuffers

	// changed bounds, relative to off, what was written since the range was last
	// staged; lo >= hi means nothing.
	lo, hi int
}

func (r *dirtyRange) end() int64 { return r.off + int64(len(r.data)) }

func (r *dirtyRange) touch(lo, hi int) {
	if r.lo >= r.hi {
		r.lo, r.hi = lo, hi
		return
	}
	r.lo, r.hi = min(r.lo, lo), max(r.hi, hi)
}

// dirtyRanges is a file's dirty bytes: sorted by offset and not overlapping.
type dirtyRanges []*dirtyRange

// after returns the index of the first range that ends after off.
func (rs dirtyRanges) after(off int64) int {
	return sort.Search(len(rs), func(i int) bool { return rs[i].end() > off })
}

// capacity is the memory that the dirty ranges hold, in bytes.
func (rs dirtyRanges) capacity() int64 {
	var n int64
	for _, r := range rs {
		n += int64(cap(r.data))
	}
	return n
}

func (rs dirtyRanges) length() int64 {
	var n int64
	for _, r := range rs {
		n += int64(len(r.data))
	}
	return n
}

// write copies p into the dirty ranges at off, over what was there, and returns how
// much more memory the dirty ranges hold.
func (rs *dirtyRanges) write(off int64, p []byte) (grown int64) {
	for len(p) > 0 {
		n, more := rs.writeSome(off, p)
		off += int64(n)
		p = p[n:]
		grown += more
	}
	return grown
}

func (rs *dirtyRanges) writeSome(off int64, p []byte) (n int, grown int64) {
	i := rs.after(off)
	// Over bytes that are there: they are changed in place, and nothing grows.
	if i < len(*rs) && (*rs)[i].off <= off {
		r := (*rs)[i]
		at := int(off - r.off)
		n := copy(r.data[at:], p)
		r.touch(at, at+n)
		return n, 0
	}
	room := len(p)
	if i < len(*rs) {
		room = int(min(int64(room), (*rs)[i].off-off))
	}
	// Right behind a range: it grows, as that of a stream does, until it is full.
	if i > 0 && (*rs)[i-1].end() == off && len((*rs)[i-1].data) < maxRange {
		r := (*rs)[i-1]
		at := len(r.data)
		n := min(room, maxRange-at)
		before := cap(r.data)
		r.data = append(growBuffer(r.data, at+n), p[:n]...)
		r.touch(at, at+n)
		return n, int64(cap(r.data) - before)
	}
	n = min(room, maxRange)
	r := &dirtyRange{off: off, data: append(growBuffer(nil, n), p[:n]...), hi: n}
	*rs = slices.Insert(*rs, i, r)
	return n, int64(cap(r.data))
}

// under puts p at off where the dirty ranges hold nothing; what they hold is newer.
func (rs *dirtyRanges) under(off int64, p []byte) {
	for len(p) > 0 {
		i := rs.after(off)
		n := len(p)
		if i < len(*rs) {
			if r := (*rs)[i]; r.off <= off {
				n = int(min(int64(n), r.end()-off))
				off += int64(n)
				p = p[n:]
				continue
			}
			n = int(min(int64(n), (*rs)[i].off-off))
		}
		rs.write(off, p[:n])
		off += int64(n)
		p = p[n:]
	}
}

// punch drops the bytes in [lo, hi).
func (rs *dirtyRanges) punch(lo, hi int64) {
	i := rs.after(lo)
	j := i
	var keep dirtyRanges
	// A range may be cut at either end, or fall into two.
	for ; j < len(*rs) && (*rs)[j].off < hi; j++ {
		r := (*rs)[j]
		if r.end() > hi {
			at := int(hi - r.off)
			tail := &dirtyRange{off: hi, data: append(growBuffer(nil, len(r.data)-at), r.data[at:]...)}
			tail.hi = len(tail.data)
			keep = append(keep, tail)
		}
		if r.off < lo {
			r.data = r.data[:lo-r.off]
			r.lo, r.hi = min(r.lo, len(r.data)), min(r.hi, len(r.data))
			keep = append(dirtyRanges{r}, keep...)
		} else {
			freeRange(r)
		}
	}
	*rs = slices.Replace(*rs, i, j, keep...)
}

// overlay copies what the dirty ranges hold of [off, off+len(dst)) into dst and calls
// covered for each part, as indexes into dst. covered may be nil.
func (rs dirtyRanges) overlay(off int64, dst []byte, covered func(lo, hi int)) {
	end := off + int64(len(dst))
	for _, r := range rs[rs.after(off):] {
		if r.off >= end {
			return
		}
		lo, hi := max(r.off, off), min(r.end(), end)
		copy(dst[lo-off:hi-off], r.data[lo-r.off:hi-r.off])
		if covered != nil {
			covered(int(lo-off), int(hi-off))
		}
	}
}

// intersects reports whether the dirty ranges hold any byte of [lo, hi).
func (rs dirtyRanges) intersects(lo, hi int64) bool {
	i := rs.after(lo)
	return i < len(rs) && rs[i].off < hi
}

// bytesIn returns how many bytes of [lo, hi) the dirty ranges hold.
func (rs dirtyRanges) bytesIn(lo, hi int64) (sum int64) {
	for _, r := range rs[rs.after(lo):] {
		if r.off >= hi {
			break
		}
		sum += min(r.end(), hi) - max(r.off, lo)
	}
	return sum
}

// Buffers of dirty ranges have a power-of-two capacity from 4 KiB to maxRange and are kept
// for reuse.
const (
	minClass = 12
	maxClass = 21
)

var rangeBuffers [maxClass + 1]sync.Pool

func classOf(n int) int {
	if n > 256<<10 {
		return maxClass // a stream: spare it the copies on the way up
	}
	return max(minClass, bits.Len(uint(n-1)))
}

// growBuffer returns data with room for n bytes in all.
func growBuffer(data []byte, n int) []byte {
	if n <= cap(data) {
		return data
	}
	class := classOf(n)
	var grown []byte
	if b, ok := rangeBuffers[class].Get().(*[]byte); ok {
		grown = (*b)[:0]
	} else {
		grown = make([]byte, 0, 1<<class)
	}
	grown = append(grown, data...)
	freeBuffer(data)
	return grown
}

func freeRange(r *dirtyRange) {
	freeBuffer(r.data)
	r.data = nil
}

func freeBuffer(b []byte) {
	if cap(b) == 0 {
		return
	}
	class := bits.Len(uint(cap(b) - 1))
	b = b[:0]
	rangeBuffers[class].Put(&b)
}
