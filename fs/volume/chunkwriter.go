package volume

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"sync"

	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/store"
)

const (
	// windowSize is the buffer in which bytes from several dirty ranges and old blocks are
	// brought together to be cut; it holds four of the longest default blocks.
	windowSize = 1 << 20
	// maxWindows is how many of them one chunkWriter fills before it stores what it has.
	// Ranges that lie far apart take one each.
	maxWindows = 8
)

// A chunkWriter turns dirty ranges into blocks. Around each range it
// cuts again from the start of the block before the edit until its cuts fall
// together with old ones, so that an insertion costs a few blocks.
type chunkWriter struct {
	v          *Volume
	n          *node
	ranges     dirtyRanges
	growing    bool  // leave the last cut open where data merely ended
	tail       int64 // with growing: from here on the last range was not cut; -1: nothing is left
	coalescing bool  // the dirty ranges are overlay extents of before
	overlaid   bool  // some dirty ranges became overlay extents

	done    int64 // the end of the region before, stored or not
	ahead   int64 // up to here old blocks were asked for that will be split again
	regions []region
	blocks  [][]byte
	windows []*[]byte
	window  []byte // the newest of windows, and
	winOff  int64  // the offset of its first byte in the file
}

// A region is a part of the file that gets new extents.
type region struct {
	lo, hi int64
	cuts   []cut
}

// A cut is one block of a region: block is its index in chunkWriter.blocks, or -1
// for zeroes, which become a hole.
type cut struct {
	off   int64
	len   int
	block int
}

// writeBlocks does all of it, a bounded part of the file at a time. n.mu is held, and
// released while blocks are stored; n is busy meanwhile, and its flushing ranges are
// what readers see.
func (f *chunkWriter) writeBlocks() error {
	f.n.busy, f.n.flushing = true, f.ranges
	// From here to the lock below readers look at flushing, and who would change extents waits for
	// busy.
	f.n.mu.Unlock()
	// Held from the first block on: until extents refer to them, a sweep would take them.
	release := f.v.store.Hold()
	var err error
	for i := 0; i < len(f.ranges) && err == nil; {
		if i, err = f.cutSome(i); err == nil {
			err = f.store()
		}
		f.free()
	}
	f.n.mu.Lock()
	release()
	f.n.busy, f.n.flushing = false, nil
	f.n.idle.Broadcast()
	return err
}

// cutSome cuts dirty ranges from range i on, until the windows are full, and returns the
// first that is left.
func (f *chunkWriter) cutSome(i int) (int, error) {
	for i < len(f.ranges) && len(f.windows) < maxWindows {
		// Asked before the range is blended with its neighbours, which would have their blocks
		// read.
		if n, err := f.overlaysAt(i); err != nil {
			return i, err
		} else if n > 0 {
			f.overlay(f.ranges[i : i+n])
			i += n
			continue
		}
		next, err := f.cutRegion(i, true)
		if errors.Is(err, store.ErrCorrupt) || errors.Is(err, store.ErrNotFound) {
			// An old block that cannot be read must not hold up new data: cut
			// the range by itself and leave the old extents around it.
			f.v.log.Error("an old block beside new data is unreadable", "inode", uint64(f.n.ino), "err", err)
			next, err = f.cutRegion(i, false)
		}
		if err != nil {
			return i, fmt.Errorf("store data of inode %d: %w", f.n.ino, err)
		}
		i = next
	}
	return i, nil
}

// store puts the blocks that were cut and points the file's extents at them.
func (f *chunkWriter) store() error {
	ids, err := f.v.store.PutAll(f.blocks)
	if err != nil {
		return err
	}
	f.n.mu.Lock()
	defer f.n.mu.Unlock()
	// Readers see the old extents with flushing over them, and from here on the new ones.
	return f.install(ids)
}

// cutRegion cuts the region around range i and returns the first range after it.
// Without blend it takes no old bytes.
func (f *chunkWriter) cutRegion(i int, blend bool) (next int, err error) {
	start := f.ranges[i].off
	if blend {
		if start, err = f.regionStart(start); err != nil {
			return i, err
		}
	}
	// Blocks of a region that fails are given back: what was cut before it is still stored.
	rg := region{lo: start}
	first := len(f.blocks)
	pos, end := start, f.ranges[i].end()
	for next = i + 1; ; {
		// Ranges that touch the region, or that its blocks have reached, are part of it.
		for next < len(f.ranges) && f.ranges[next].off <= pos {
			end = f.ranges[next].end()
			next++
		}
		done, n, err := f.cutOne(&rg, pos, end, next == len(f.ranges), blend)
		if err != nil {
			f.blocks = f.blocks[:first]
			return i, err
		}
		if done {
			break
		}
		pos += int64(n)
	}
	rg.hi = pos
	f.regions = append(f.regions, rg)
	f.done = pos
	return next, nil
}

// cutOne cuts the block at pos. It is done when pos is past the ranges' end and
// old cuts go on from there, or when the rest is left to grow.
func (f *chunkWriter) cutOne(rg *region, pos, end int64, last, blend bool) (done bool, n int, err error) {
	// Past what was written: the region ends as soon as its cuts meet an old one.
	if pos >= end {
		if done, err := f.boundary(pos, blend); err != nil || done {
			return done, 0, err
		}
	}
	buf := f.inRange(pos)
	// First without copying: most blocks of a stream lie within one range.
	n, final := f.v.files.chunker.Cut(pos, buf)
	if !final { // the block may go on beyond the range
		if buf, err = f.bytesAt(pos, blend); err != nil {
			return false, 0, err
		}
		n, final = f.v.files.chunker.Cut(pos, buf)
	}
	// At the end of a stream more bytes will come, and a block cut here would be cut again; but the
	// first block of a region is, or nothing would get on.
	if !final && f.growing && last && pos+int64(len(buf)) == end && pos > rg.lo {
		f.tail = pos
		return true, 0, nil
	}
	c := cut{off: pos, len: n, block: -1}
	if !store.IsZero(buf[:n]) {
		c.block = len(f.blocks)
		// Its capacity ends with it, so that nobody appends into the window behind.
		f.blocks = append(f.blocks, buf[:n:n])
	}
	rg.cuts = append(rg.cuts, c)
	return false, n, nil
}

// regionStart returns where cutting starts for an edit at off: at the start of
// the block that holds off, or of the one before when that was cut short
// because its data ended there.
func (f *chunkWriter) regionStart(off int64) (int64, error) {
	f.n.mu.Lock()
	defer f.n.mu.Unlock()
	// n.mu is taken for the look only: nobody else changes extents, since n is busy.
	e, ok, err := f.v.files.extentAt(f.n, off)
	if err != nil {
		return 0, err
	}
	if ok && e.Off < off {
		return f.notBefore(e.Off, off), nil
	}
	if off == 0 {
		return 0, nil
	}
	prev, ok2, err := f.v.files.extentAt(f.n, off-1)
	if err != nil || !ok2 || prev.End() != off {
		return off, err
	}
	// A block that ended only with its data may go on into the new bytes: cut it again.
	if f.coalescing || int(prev.Len) < f.v.files.chunker.Min() || !ok && int(prev.Len) < f.v.files.chunker.Max() {
		return f.notBefore(prev.Off, off), nil
	}
	return off, nil
}

// notBefore keeps a region from starting inside the one before it.
func (f *chunkWriter) notBefore(start, off int64) int64 {
	return min(off, max(start, f.done))
}

// boundary reports whether a region may end at pos, which no range covers from
// here on: an old extent starts there, or none covers it.
func (f *chunkWriter) boundary(pos int64, blend bool) (bool, error) {
	if !blend {
		return true, nil
	}
	f.n.mu.Lock()
	defer f.n.mu.Unlock()
	e, ok, err := f.v.files.extentAt(f.n, pos)
	return !ok || e.Off == pos, err
}

// bytesAt returns the file's bytes from pos on: as many as the longest block
// has, or fewer where data ends, brought together in a window. They stay valid
// until free.
func (f *chunkWriter) bytesAt(pos int64, blend bool) ([]byte, error) {
	want := f.v.files.chunker.Window()
	// Bytes cut before stay where they are: blocks point into the windows until they are stored.
	have := f.winOff + int64(len(f.window)) - pos
	if f.window == nil || pos < f.winOff || have < 0 || pos-f.winOff+int64(want) > int64(cap(f.window)) {
		f.slide(pos, have, want)
	}
	for {
		at := f.winOff + int64(len(f.window))
		need := int64(want) - (at - pos)
		if need <= 0 {
			break
		}
		p, err := f.bytesFrom(at, blend)
		if err != nil {
			return nil, err
		}
		// Here data ends, or there is a hole, which ends a block as well.
		if len(p) == 0 {
			break
		}
		f.window = append(f.window, p[:min(int64(len(p)), need)]...)
	}
	p := f.window[pos-f.winOff:]
	return p[:min(len(p), want)], nil
}

// slide starts a new window at pos with what the old one holds from there on.
func (f *chunkWriter) slide(pos, have int64, want int) {
	b := windows.Get().(*[]byte)
	if cap(*b) < want {
		*b = make([]byte, 0, max(windowSize, want))
	}
	f.windows = append(f.windows, b)
	fresh := (*b)[:0]
	if f.window != nil && pos >= f.winOff && have > 0 {
		fresh = append(fresh, f.window[pos-f.winOff:]...)
	}
	f.window, f.winOff = fresh, pos
}

var windows = sync.Pool{New: func() any { b := make([]byte, 0, windowSize); return &b }}

func (f *chunkWriter) inRange(pos int64) []byte {
	i := f.ranges.after(pos)
	if i < len(f.ranges) && f.ranges[i].off <= pos {
		return f.ranges[i].data[pos-f.ranges[i].off:]
	}
	return nil
}

// bytesFrom returns some of the file's bytes at pos, or none where data ends.
func (f *chunkWriter) bytesFrom(pos int64, blend bool) ([]byte, error) {
	if p := f.inRange(pos); p != nil {
		return p, nil
	}
	if !blend {
		return nil, nil
	}
	// Read without n.mu: a block may come from a slow tier, and readers must not wait for that.
	f.n.mu.Lock()
	e, ok, err := f.v.files.extentAt(f.n, pos)
	f.n.mu.Unlock()
	if err != nil || !ok {
		return nil, err
	}
	f.readAhead(e.End())
	p, err := f.v.files.extentBytes(context.Background(), e)
	if err != nil {
		return nil, err
	}
	// The old block counts only up to the next range, which is newer.
	end := e.End()
	if i := sort.Search(len(f.ranges), func(i int) bool { return f.ranges[i].off > pos }); i < len(f.ranges) {
		end = min(end, f.ranges[i].off)
	}
	return p[pos-e.Off : end-e.Off], nil
}

// aheadBlocks is how many blocks' length is looked at ahead of the one that is split.
const aheadBlocks = 8

// readAhead has old blocks from pos on read in the background, on other processors, while the one
// before them is split: those that have so much new in them that they will be split as well. Who
// needs one that could not be read is told why.
func (f *chunkWriter) readAhead(pos int64) {
	if f.coalescing { // which has half of one processor
		return
	}
	lo, hi := max(pos, f.ahead), pos+int64(aheadBlocks*f.v.files.chunker.Avg())
	// Half of it at a time: to look for each block again would cost more than it gains.
	if hi-lo < (hi-pos)/2 {
		return
	}
	f.ahead = hi
	var ids []store.ID
	f.n.mu.Lock()
	_ = f.v.files.eachExtent(f.n, lo, hi, func(e meta.Extent) bool {
		fresh := f.ranges.bytesIn(e.Off, e.End())
		if fresh < int64(e.Len) && fresh*overlayShare > int64(e.Len) {
			ids = append(ids, store.ID(e.ID))
		}
		return true
	})
	f.n.mu.Unlock()
	f.v.store.Prefetch(ids)
}

// extentBytes returns the bytes that an extent stands for.
func (m *fileMap) extentBytes(ctx context.Context, e meta.Extent) ([]byte, error) {
	p, err := m.v.store.Get(ctx, store.ID(e.ID))
	if err != nil {
		return nil, err
	}
	return bytesOf(e, p)
}

// bytesOf returns the part of a block that an extent stands for.
func bytesOf(e meta.Extent, block []byte) ([]byte, error) {
	if uint64(e.Skip)+uint64(e.Len) > uint64(len(block)) {
		return nil, fmt.Errorf("extent at %d wants bytes %d..%d of block %s of %d bytes: %w",
			e.Off, e.Skip, uint64(e.Skip)+uint64(e.Len), store.ID(e.ID).Short(), len(block), store.ErrCorrupt)
	}
	return block[e.Skip : e.Skip+e.Len], nil
}

// install points the file's extents at the new blocks. n.mu is held.
func (f *chunkWriter) install(ids []store.ID) error {
	for _, rg := range f.regions {
		fresh := make([]meta.Extent, 0, len(rg.cuts))
		for _, c := range rg.cuts {
			if c.block >= 0 {
				fresh = append(fresh, meta.Extent{Off: c.off, Len: uint32(c.len), ID: meta.BlockID(ids[c.block])})
			}
		}
		// A hole of zeroes gets no extent, so the whole region is replaced and not block by block.
		if err := f.v.files.replaceExtents(f.n, rg.lo, rg.hi, fresh); err != nil {
			return err
		}
	}
	return nil
}

// free forgets what was stored.
func (f *chunkWriter) free() {
	for _, b := range f.windows {
		*b = (*b)[:0]
		windows.Put(b)
	}
	f.windows, f.window, f.winOff = f.windows[:0], nil, 0
	f.regions, f.blocks = f.regions[:0], f.blocks[:0]
}
