package tiering

import (
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Sizes of windows, in bytes.
const (
	minWindow = 512 << 10
	maxWindow = 8 << 20
	// windowSlack is how far apart two reads may be that count as one behind the
	// other: readers that run side by side do not come in order.
	windowSlack = 1 << 20
	// slowWindow is how long one may take to be made twice as large next time.
	slowWindow = 250 * time.Millisecond
)

// windows read ahead in sealed segments of a cold tier, where it is the number
// of requests that costs. A read right behind the one before it fetches more than
// was asked for, twice as much each time while that comes quickly; readers of
// what is on its way wait for it. A window is let go once all of it was read, or
// when there are too many.
type windows struct {
	budget *atomic.Int64 // bytes in all; nil: none are made
	mu     struct {
		sync.Mutex
		list    []*window // the oldest first
		bytes   int64
		streams map[uint64]stream // by segment; a few
	}
}

// A stream is where reading of a segment is.
type stream struct{ next, size int64 }

// maxStreams bounds the map of streams.
const maxStreams = 256

type window struct {
	segment uint64
	off     int64
	buf     []byte
	unread  int64
	done    chan struct{}
	err     error // set before done is closed
}

func (w *window) covers(segment uint64, off, n int64) bool {
	return w.segment == segment && off >= w.off && off+n <= w.off+int64(len(w.buf))
}

// windowBudget returns what windows may take beside a cache of so many bytes.
func windowBudget(cache int64) int64 {
	return min(max(cache/4, 4*minWindow), 8*maxWindow)
}

// readAt reads from a segment of size bytes.
func (ws *windows) readAt(r io.ReaderAt, segment uint64, size int64, p []byte, off int64) (int, error) {
	n := int64(len(p))
	ws.mu.Lock()
	for _, w := range ws.mu.list {
		if w.covers(segment, off, n) {
			ws.mu.Unlock()
			return ws.from(w, r, p, off)
		}
	}
	// Planned under the lock, read outside: readers behind it find the window and wait for done.
	w := ws.plan(segment, size, off, n)
	ws.mu.Unlock()
	if w == nil {
		return r.ReadAt(p, off)
	}
	start := time.Now()
	got, err := r.ReadAt(w.buf, w.off)
	if got < len(w.buf) {
		w.err = err
	}
	close(w.done)
	ws.mu.Lock()
	// A slow disk or a failed read begins anew with little: a reader behind waits for all of it.
	if s, ok := ws.mu.streams[segment]; ok && (w.err != nil || time.Since(start) > slowWindow) {
		s.size = minWindow / 2
		ws.mu.streams[segment] = s
	}
	if w.err != nil {
		ws.drop(w)
	}
	ws.mu.Unlock()
	return ws.from(w, r, p, off)
}

// from reads from a window. What it failed to get may be had with a read of its own.
func (ws *windows) from(w *window, r io.ReaderAt, p []byte, off int64) (int, error) {
	<-w.done
	if w.err != nil {
		return r.ReadAt(p, off)
	}
	n := copy(p, w.buf[off-w.off:])
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if w.unread -= int64(n); w.unread <= 0 {
		ws.drop(w)
	}
	return n, nil
}

// plan notes a read, and returns the window to be filled for it, or nil. The caller
// holds mu.
func (ws *windows) plan(segment uint64, size, off, n int64) *window {
	s, ok := ws.mu.streams[segment]
	behind := ok && off >= s.next-windowSlack && off <= s.next+windowSlack
	if !behind {
		if len(ws.mu.streams) >= maxStreams {
			clear(ws.mu.streams)
		}
		ws.mu.streams[segment] = stream{next: off + n}
		return nil
	}
	want := min(max(2*s.size, minWindow), maxWindow, ws.budget.Load()/4)
	end := min(off+want, size)
	if want <= n || end < off+n { // the second: the caller's location is wrong
		ws.mu.streams[segment] = stream{next: off + n, size: s.size}
		return nil
	}
	ws.mu.streams[segment] = stream{next: end, size: want}
	w := &window{segment: segment, off: off, buf: make([]byte, end-off), unread: end - off, done: make(chan struct{})}
	ws.mu.list = append(ws.mu.list, w)
	ws.mu.bytes += int64(len(w.buf))
	for ws.mu.bytes > ws.budget.Load() {
		ws.drop(ws.mu.list[0]) // who reads from it goes on with it
	}
	return w
}

// drop takes a window out of the list. The caller holds mu.
func (ws *windows) drop(w *window) {
	if i := slices.Index(ws.mu.list, w); i >= 0 {
		ws.mu.list = slices.Delete(ws.mu.list, i, i+1)
		ws.mu.bytes -= int64(len(w.buf))
	}
}

// forget drops what was read ahead of a segment.
func (ws *windows) forget(segment uint64) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for _, w := range slices.Clone(ws.mu.list) {
		if w.segment == segment {
			ws.drop(w)
		}
	}
}

// readAt reads from a segment, ahead where that is worth it.
func (t *tier) readAt(hd *handle, number uint64, p []byte, off int64) (int, error) {
	if t.ahead.budget == nil {
		return hd.file.ReadAt(p, off)
	}
	size, sealed := t.table.sizeOfSealed(number)
	if !sealed {
		return hd.file.ReadAt(p, off)
	}
	return t.ahead.readAt(hd.file, number, size, p, off)
}
