package volume

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync/atomic"
	"syscall"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/routine"
)

// A WriteMode says what a write means besides its bytes.
type WriteMode struct {
	Cached   bool // the kernel's page cache writes back: it keeps the times itself
	KillPriv bool // the writer may not keep suid and sgid bits
}

// Write copies data into the file at off. It refuses with store.ErrFull while
// bytes can still be refused, so that storing them later succeeds.
func (v *Volume) Write(ino meta.Ino, off int64, data []byte, mode WriteMode) error {
	err := v.files.write(ino, off, data, mode)
	if mode.Cached {
		v.unkept.written(ino, off, len(data), err)
	}
	return err
}

func (m *fileMap) write(ino meta.Ino, off int64, data []byte, mode WriteMode) error {
	if off < 0 || off > math.MaxInt64-int64(len(data)) {
		return syscall.EFBIG
	}
	// What is in the dirty buffers is still to be stored.
	if err := m.v.reaper.admit(int64(len(data)) + m.v.DirtyBytes()); err != nil {
		return err
	}
	// Outside of the store's lock: room comes from commits, and these need it.
	m.v.flusher.budget.wait()
	return m.v.editDataIn(m.v.store.Change, ino, func(n *node) error {
		if !n.isReg() {
			return syscall.EINVAL
		}
		// For a cached write the kernel has removed the capability when the
		// bytes were written to its cache; this one may be newer.
		if !mode.Cached || mode.KillPriv {
			if err := m.v.xattrs.killPriv(n, mode.KillPriv); err != nil {
				return err
			}
		}
		m.v.flusher.budget.add(n.dirty.write(off, data))
		n.written = m.v.opts.Now()
		if end := off + int64(len(data)); end > n.attr.Size {
			m.v.counters.logical.Add(end - n.attr.Size)
			n.attr.Size = end
		}
		if !mode.Cached {
			n.attr.Mtime = m.v.Now()
			n.attr.Ctime = n.attr.Mtime
		}
		m.v.flusher.markChanged(n)
		if i := n.dirty.after(off); i < len(n.dirty) && len(n.dirty[i].data) == maxRange {
			// Only when a range is full: before that a flush would leave it anyway.
			routine.Kick(m.v.flusher.now)
		}
		return nil
	})
}

// zeroes is what holes read as.
var zeroes [1 << 20]byte

// An Answer is what a read gives: slices to be sent in order. They are shared and must not be
// changed.
type Answer struct {
	Slices [][]byte
	loans  []store.Loan
}

// Done gives the slices' memory back: they must not be used any more.
func (a *Answer) Done() {
	for i := range a.loans {
		a.loans[i].Return()
	}
	*a = Answer{}
}

// Read returns up to size bytes of the file from off on. No bytes: off is at or
// past the end.
func (v *Volume) Read(ctx context.Context, ino meta.Ino, off int64, size int) (Answer, error) {
	return v.files.read(ctx, ino, off, size, !v.opts.NoAtime)
}

// ReadNoAtime is Read for a file opened with O_NOATIME.
func (v *Volume) ReadNoAtime(ctx context.Context, ino meta.Ino, off int64, size int) (Answer, error) {
	return v.files.read(ctx, ino, off, size, false)
}

func (m *fileMap) read(ctx context.Context, ino meta.Ino, off int64, size int, touch bool) (Answer, error) {
	n, err := m.v.get(ino)
	if err != nil {
		return Answer{}, err
	}
	defer n.release()
	if touch {
		n.mu.Lock()
		// Outside of Update: an access time may be in this commit or in the next.
		m.v.touchAtime(n)
		n.mu.Unlock()
	}
	for try := 0; ; try++ {
		a, err := m.readOnce(ctx, n, off, size)
		// A block may be swept or moved between our look at the extents and
		// our read; then the extents have changed.
		if errors.Is(err, store.ErrNotFound) && try < 3 {
			continue
		}
		if err != nil {
			return Answer{}, fmt.Errorf("read inode %d at %d: %w", n.ino, off, err)
		}
		return a, nil
	}
}

// A readSpan is a part of a read: bytes [lo, hi) of it come from an extent, or
// are zeroes.
type readSpan struct {
	lo, hi int
	ext    meta.Extent
	hole   bool
	bytes  []byte
	loan   store.Loan
}

func (m *fileMap) readOnce(ctx context.Context, n *node, off int64, size int) (Answer, error) {
	n.mu.Lock()
	if n.isDir() {
		n.mu.Unlock()
		return Answer{}, syscall.EISDIR
	}
	if n.reaping { // holes now where data was
		n.mu.Unlock()
		return Answer{}, syscall.ENOENT
	}
	if off >= n.attr.Size || size <= 0 {
		n.mu.Unlock()
		return Answer{}, nil
	}
	size = int(min(int64(size), n.attr.Size-off))
	if off == 0 && n.isSmall() {
		// A small file that is read from its start: its neighbours are likely to be read next.
		m.v.prefetcher.reads(n.ino)
	}
	var dirty []byte
	var covered [][2]int
	// Copied under n.mu: a writer may change the ranges as soon as it is released.
	if end := off + int64(size); n.flushing.intersects(off, end) || n.dirty.intersects(off, end) {
		dirty = make([]byte, size)
		note := func(lo, hi int) { covered = append(covered, [2]int{lo, hi}) }
		n.flushing.overlay(off, dirty, note)
		n.dirty.overlay(off, dirty, note)
	}
	list, err := m.readSpans(n, off, size)
	n.mu.Unlock()
	if err != nil {
		return Answer{}, err
	}
	if dirty != nil {
		return m.readDirty(ctx, list, dirty, covered)
	}
	if err := m.fetch(ctx, list, nil); err != nil {
		return Answer{}, err
	}
	a := Answer{Slices: make([][]byte, 0, len(list)), loans: loansOf(list)}
	for _, s := range list {
		if !s.hole {
			a.Slices = append(a.Slices, s.bytes)
			continue
		}
		for left := s.hi - s.lo; left > 0; left -= len(zeroes) {
			a.Slices = append(a.Slices, zeroes[:min(left, len(zeroes))])
		}
	}
	return a, nil
}

// loansOf gathers what was borrowed for the spans.
func loansOf(list []readSpan) (loans []store.Loan) {
	for _, s := range list {
		if s.loan.Plain != nil {
			loans = append(loans, s.loan)
		}
	}
	return loans
}

// readSpans lists what [off, off+size) consists of, below the dirty ranges.
func (m *fileMap) readSpans(n *node, off int64, size int) ([]readSpan, error) {
	var list []readSpan
	at := 0
	err := m.eachExtent(n, off, off+int64(size), func(e meta.Extent) bool {
		lo, hi := int(max(e.Off-off, 0)), int(min(e.End()-off, int64(size)))
		if lo > at {
			list = append(list, readSpan{lo: at, hi: lo, hole: true})
		}
		// An extent may begin before the range: what is cut off its front is passed over in the
		// block as well.
		cut := uint32(off + int64(lo) - e.Off)
		e.Off, e.Skip, e.Len = off+int64(lo), e.Skip+cut, uint32(hi-lo)
		list = append(list, readSpan{lo: lo, hi: hi, ext: e})
		at = hi
		return true
	})
	if at < size {
		list = append(list, readSpan{lo: at, hi: size, hole: true})
	}
	return list, err
}

// readDirty fills in what the dirty ranges do not cover.
func (m *fileMap) readDirty(ctx context.Context, list []readSpan, dst []byte, covered [][2]int) (Answer, error) {
	hidden := func(s readSpan) bool {
		for _, c := range covered {
			// Covered as a whole by dirty bytes: its block need not be read, and may be on a slow
			// tier.
			if c[0] <= s.lo && s.hi <= c[1] {
				return true
			}
		}
		return s.hole
	}
	if err := m.fetch(ctx, list, hidden); err != nil {
		return Answer{}, err
	}
	// Blocks are shared with the cache: what lies over them goes into a copy.
	out := make([]byte, len(dst))
	for i := range list {
		s := &list[i]
		copy(out[s.lo:s.hi], s.bytes)
		s.loan.Return()
	}
	for _, c := range covered {
		copy(out[c[0]:c[1]], dst[c[0]:c[1]])
	}
	return Answer{Slices: [][]byte{out}}, nil
}

// fetch gets the blocks of the spans that skip does not exclude, on as
// many cores as there are.
func (m *fileMap) fetch(ctx context.Context, list []readSpan, skip func(readSpan) bool) error {
	var wanted []*readSpan
	for i := range list {
		if s := &list[i]; !s.hole && (skip == nil || !skip(*s)) {
			wanted = append(wanted, s)
		}
	}
	var next atomic.Int32
	some := func() error {
		for {
			i := int(next.Add(1)) - 1
			if i >= len(wanted) {
				return nil
			}
			if err := m.spanBytes(ctx, wanted[i]); err != nil {
				return err
			}
		}
	}
	// This goroutine has the stack for decompressing and checking already; the usual case of a
	// small file needs no other.
	var g errgroup.Group
	for range min(runtime.NumCPU(), len(wanted)) - 1 {
		g.Go(some)
	}
	err := some()
	if other := g.Wait(); err == nil {
		err = other
	}
	return err
}

// spanBytes gets the bytes of a span.
func (m *fileMap) spanBytes(ctx context.Context, s *readSpan) (err error) {
	if s.loan, err = m.v.store.Borrow(ctx, store.ID(s.ext.ID), int(s.ext.Len)); err != nil {
		return err
	}
	s.bytes, err = bytesOf(s.ext, s.loan.Plain)
	return err
}

// touchAtime does what the relatime mount option does. n.mu is held.
func (v *Volume) touchAtime(n *node) {
	if v.opts.NoAtime || n.frozen {
		return
	}
	now, a := v.Now(), n.attr.Atime
	// Not newer than the last change, or a day old: all else would make each read a write.
	if a.Before(n.attr.Mtime) || a.Before(n.attr.Ctime) || a == n.attr.Mtime || a == n.attr.Ctime || now.Sec-a.Sec >= 24*3600 {
		n.attr.Atime = now
		v.flusher.markDirty(n)
	}
}

// resize sets the file's size; what is cut off is gone, what is added is a
// hole. n.mu is held, inside Update.
func (m *fileMap) resize(n *node, size int64) error {
	// A flusher would put extents back behind the new end.
	n.quiesce()
	if size == 0 && n.attr.IsLazy() { // all others were materialized before
		m.v.materializer.endLazy(n)
		m.v.counters.data.Add(-n.attr.Alloc) // no extent counts it
		n.attr.Alloc = 0
	}
	if size < n.attr.Size {
		if err := m.punch(n, size, n.attr.Size); err != nil {
			return err
		}
	}
	if size <= n.attr.Size {
		n.releaseBlocks(ceilBlock(size), math.MaxInt64)
	}
	m.v.unkept.forgetCut(n.ino, size)
	m.v.counters.logical.Add(size - n.attr.Size)
	n.attr.Size = size
	m.v.flusher.markChanged(n)
	return nil
}

// punch makes [lo, hi) a hole. n.mu is held, no flusher is busy, inside Update.
func (m *fileMap) punch(n *node, lo, hi int64) error {
	if err := m.replaceExtents(n, lo, hi, nil); err != nil {
		return err
	}
	before := n.dirty.capacity()
	// Extents first: an error leaves the newer bytes, which lie over them, where they are.
	n.dirty.punch(lo, hi)
	m.v.flusher.budget.add(n.dirty.capacity() - before)
	m.v.flusher.restage(n, lo, hi)
	return nil
}

// Fallocate does what fallocate(2) says for the modes 0, KEEP_SIZE, PUNCH_HOLE
// and ZERO_RANGE; EOPNOTSUPP for others. Nothing is set aside but in st_blocks: a block's
// cost depends on what will be written.
func (v *Volume) Fallocate(ino meta.Ino, off, length int64, mode uint32) error {
	const known = unix.FALLOC_FL_KEEP_SIZE | unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_ZERO_RANGE
	if mode&^known != 0 {
		return syscall.EOPNOTSUPP
	}
	if off < 0 || length <= 0 {
		return syscall.EINVAL
	}
	if off > math.MaxInt64-length {
		return syscall.EFBIG
	}
	// Asked before the lock is taken: waiting for space needs commits.
	hole := mode&(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_ZERO_RANGE) != 0
	change := v.store.Change
	if mode&unix.FALLOC_FL_PUNCH_HOLE != 0 {
		// Making holes gives space back and must go on working on a full disk.
		change = v.store.Removal
	}
	if !hole {
		if err := v.reaper.admit(length); err != nil {
			return err
		}
	}
	return v.editDataIn(change, ino, func(n *node) error {
		if !n.isReg() {
			return syscall.ENODEV
		}
		n.quiesce()
		if err := v.xattrs.killPriv(n, false); err != nil {
			return err
		}
		if hole {
			// Not behind the end of the file, where there is nothing to be punched.
			if err := v.files.punchBlocks(n, off, min(off+length, max(n.attr.Size, off))); err != nil {
				return err
			}
			// A page of many small extents must not outgrow its row.
			v.files.thin(n)
		}
		if mode&unix.FALLOC_FL_PUNCH_HOLE == 0 {
			if err := v.files.reserveBlocks(n, off, off+length); err != nil {
				return err
			}
		}
		if mode&unix.FALLOC_FL_KEEP_SIZE == 0 && off+length > n.attr.Size {
			v.counters.logical.Add(off + length - n.attr.Size)
			n.attr.Size = off + length
		}
		n.attr.Mtime = v.Now()
		n.attr.Ctime = n.attr.Mtime
		v.flusher.markChanged(n)
		return nil
	})
}

// Seek finds the next data or hole at or after off, as lseek(2) does with
// SEEK_DATA and SEEK_HOLE. ENXIO: off is past the end, or only a hole follows.
func (v *Volume) Seek(ino meta.Ino, off int64, whence uint32) (int64, error) {
	n, err := v.get(ino)
	if err != nil {
		return 0, err
	}
	defer n.release()
	n.mu.Lock()
	defer n.mu.Unlock()
	if off < 0 || off >= n.attr.Size {
		return 0, syscall.ENXIO
	}
	// Data in parts that touch is one range of data: go on from its end.
	for {
		end, next, err := v.files.dataAt(n, off)
		if err != nil {
			return 0, err
		}
		switch {
		case whence == unix.SEEK_DATA && end > off:
			return off, nil
		case whence == unix.SEEK_DATA && next >= n.attr.Size:
			return 0, syscall.ENXIO
		case whence == unix.SEEK_DATA:
			return next, nil
		case whence != unix.SEEK_HOLE:
			return 0, syscall.EINVAL
		case end == off:
			return off, nil
		case end >= n.attr.Size:
			return n.attr.Size, nil
		}
		off = end
	}
}

// dataAt returns the end of the data that covers off (off itself when there is
// none) and the start of the next data at or after off.
func (m *fileMap) dataAt(n *node, off int64) (end, next int64, err error) {
	end, next = off, math.MaxInt64
	// Both lie over the extents: bytes on their way into blocks are data, too.
	for _, rs := range []dirtyRanges{n.dirty, n.flushing} {
		if i := rs.after(off); i < len(rs) {
			next = min(next, rs[i].off)
			if rs[i].off <= off {
				end = max(end, rs[i].end())
			}
		}
	}
	err = m.eachExtent(n, off, n.attr.Size, func(e meta.Extent) bool {
		next = min(next, max(e.Off, off))
		if e.Off <= off {
			end = max(end, e.End())
		}
		return false
	})
	return end, next, err
}
