package volume

import (
	"math/bits"
	"slices"
	"sort"
	"sync"
)

// maxRun is the longest run, in bytes; a run this long is handed to the
// flusher without waiting for a commit.
const maxRun = 2 << 20

// A run is bytes written to a file and not yet cut into blocks.
type run struct {
	off  int64
	data []byte // its capacity comes from runBuffers

	// changed bounds, relative to off, what was written since the run was last
	// staged; lo >= hi means nothing.
	lo, hi int
}

func (r *run) end() int64 { return r.off + int64(len(r.data)) }

func (r *run) touch(lo, hi int) {
	if r.lo >= r.hi {
		r.lo, r.hi = lo, hi
		return
	}
	r.lo, r.hi = min(r.lo, lo), max(r.hi, hi)
}

// runs is a file's dirty bytes: sorted by offset and not overlapping.
type runs []*run

// after returns the index of the first run that ends after off.
func (rs runs) after(off int64) int {
	return sort.Search(len(rs), func(i int) bool { return rs[i].end() > off })
}

// capacity is the memory that the runs hold, in bytes.
func (rs runs) capacity() int64 {
	var n int64
	for _, r := range rs {
		n += int64(cap(r.data))
	}
	return n
}

func (rs runs) length() int64 {
	var n int64
	for _, r := range rs {
		n += int64(len(r.data))
	}
	return n
}

// write copies p into the runs at off, over what was there, and returns how
// much more memory the runs hold.
func (rs *runs) write(off int64, p []byte) (grown int64) {
	for len(p) > 0 {
		n, more := rs.writeSome(off, p)
		off += int64(n)
		p = p[n:]
		grown += more
	}
	return grown
}

func (rs *runs) writeSome(off int64, p []byte) (n int, grown int64) {
	i := rs.after(off)
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
	if i > 0 && (*rs)[i-1].end() == off && len((*rs)[i-1].data) < maxRun {
		r := (*rs)[i-1]
		at := len(r.data)
		n := min(room, maxRun-at)
		before := cap(r.data)
		r.data = append(growRun(r.data, at+n), p[:n]...)
		r.touch(at, at+n)
		return n, int64(cap(r.data) - before)
	}
	n = min(room, maxRun)
	r := &run{off: off, data: append(growRun(nil, n), p[:n]...), hi: n}
	*rs = slices.Insert(*rs, i, r)
	return n, int64(cap(r.data))
}

// under puts p at off where the runs hold nothing; what they hold is newer.
func (rs *runs) under(off int64, p []byte) {
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
func (rs *runs) punch(lo, hi int64) {
	i := rs.after(lo)
	j := i
	var keep runs
	for ; j < len(*rs) && (*rs)[j].off < hi; j++ {
		r := (*rs)[j]
		if r.end() > hi {
			at := int(hi - r.off)
			tail := &run{off: hi, data: append(growRun(nil, len(r.data)-at), r.data[at:]...)}
			tail.hi = len(tail.data)
			keep = append(keep, tail)
		}
		if r.off < lo {
			r.data = r.data[:lo-r.off]
			r.lo, r.hi = min(r.lo, len(r.data)), min(r.hi, len(r.data))
			keep = append(runs{r}, keep...)
		} else {
			freeRun(r)
		}
	}
	*rs = slices.Replace(*rs, i, j, keep...)
}

// overlay copies what the runs hold of [off, off+len(dst)) into dst and calls
// covered for each stretch, as indexes into dst. covered may be nil.
func (rs runs) overlay(off int64, dst []byte, covered func(lo, hi int)) {
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

// intersects reports whether the runs hold any byte of [lo, hi).
func (rs runs) intersects(lo, hi int64) bool {
	i := rs.after(lo)
	return i < len(rs) && rs[i].off < hi
}

// Run buffers have a power-of-two capacity from 4 KiB to maxRun and are kept
// for reuse.
const (
	minClass = 12
	maxClass = 21
)

var runBuffers [maxClass + 1]sync.Pool

func classOf(n int) int {
	if n > 256<<10 {
		return maxClass // a stream: spare it the copies on the way up
	}
	return max(minClass, bits.Len(uint(n-1)))
}

// growRun returns data with room for n bytes in all.
func growRun(data []byte, n int) []byte {
	if n <= cap(data) {
		return data
	}
	class := classOf(n)
	var grown []byte
	if b, ok := runBuffers[class].Get().(*[]byte); ok {
		grown = (*b)[:0]
	} else {
		grown = make([]byte, 0, 1<<class)
	}
	grown = append(grown, data...)
	freeBuffer(data)
	return grown
}

func freeRun(r *run) {
	freeBuffer(r.data)
	r.data = nil
}

func freeBuffer(b []byte) {
	if cap(b) == 0 {
		return
	}
	class := bits.Len(uint(cap(b) - 1))
	b = b[:0]
	runBuffers[class].Put(&b)
}
