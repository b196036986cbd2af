package tiering

import (
	"cmp"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/quarxtor/quarxfs/tiering/disk"
	"github.com/quarxtor/quarxfs/tiering/segment"
)

// A handle is an open segment file. Whoever holds a reference may read from it;
// the last one to let go closes it.
type handle struct {
	file   disk.File
	header segment.FileHeader
	refs   atomic.Int32
	used   atomic.Bool // since the clock hand last passed
}

func newHandle(f disk.File, h segment.FileHeader) *handle {
	hd := &handle{file: f, header: h}
	hd.refs.Store(1)
	return hd
}

func (h *handle) release() error {
	if h.refs.Add(-1) > 0 {
		return nil
	}
	return h.file.Close()
}

// A row is a segment that the tier has.
type row struct {
	number uint64
	bytes  atomic.Int64
	sealed bool    // guarded by table.mu
	open   *handle // guarded by table.mu; nil: to be opened when read
	// opening keeps readers of one segment from opening its file twice.
	opening sync.Mutex
}

// A table has a row for every segment. Files of sealed segments are opened when
// first read and, beyond limit, closed again by a clock: a store may have more
// segments than a process may have files.
type table struct {
	fs    disk.FS
	id    uint8 // of the tier
	dir   string
	limit int
	mu    struct {
		sync.RWMutex
		rows  map[uint64]*row
		clock []*row // the sealed rows that are open
		hand  int
	}
}

func newTable(fs disk.FS, id uint8, dir string, limit int) *table {
	t := &table{fs: fs, id: id, dir: dir, limit: limit}
	t.mu.rows = map[uint64]*row{}
	return t
}

func (t *table) path(number uint64, state segment.State) string {
	return filepath.Join(t.dir, segment.Name(number, state))
}

// add enters a segment; h is its handle, whose reference the table takes over,
// or nil.
func (t *table) add(number uint64, bytes int64, sealed bool, h *handle) *row {
	r := &row{number: number, sealed: sealed, open: h}
	r.bytes.Store(bytes)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.rows[number] = r
	if sealed && h != nil {
		t.mu.clock = append(t.mu.clock, r)
	}
	return r
}

// seal notes that a segment is sealed and has so many bytes.
func (t *table) seal(number uint64, bytes int64) {
	t.mu.Lock()
	r := t.mu.rows[number]
	r.sealed = true
	r.bytes.Store(bytes)
	t.mu.clock = append(t.mu.clock, r)
	victim := t.evict(r)
	t.mu.Unlock()
	victim.close()
}

// drop removes a segment's row. It says whether there was one.
func (t *table) drop(number uint64) bool {
	t.mu.Lock()
	r, ok := t.mu.rows[number]
	var h *handle
	if ok {
		delete(t.mu.rows, number)
		// Readers that hold it go on: a removed file stays until it is closed.
		h, r.open = r.open, nil
		if i := slices.Index(t.mu.clock, r); i >= 0 {
			t.mu.clock = slices.Delete(t.mu.clock, i, i+1)
		}
	}
	t.mu.Unlock()
	evicted{h}.close()
	return ok
}

// acquire returns a handle of a segment, which the caller releases. Errors:
// ErrNotFound, ErrCorrupt for an unreadable file header, those of the disk.
func (t *table) acquire(number uint64) (*handle, error) {
	t.mu.RLock()
	r, ok := t.mu.rows[number]
	var h *handle
	if ok && r.open != nil {
		h = r.open
		// Under the lock, so that evict cannot close it in between.
		h.refs.Add(1)
	}
	t.mu.RUnlock()
	if !ok {
		return nil, ErrNotFound
	}
	if h == nil {
		return t.openRow(r)
	}
	// Read before it is written: most readers find it set, and a write would move the line between
	// processors.
	if !h.used.Load() {
		h.used.Store(true)
	}
	return h, nil
}

func (t *table) openRow(r *row) (*handle, error) {
	// Held over the opening, which is I/O, so not the table's lock: reads of other segments go on.
	r.opening.Lock()
	defer r.opening.Unlock()
	t.mu.RLock()
	h := r.open
	if h != nil {
		h.refs.Add(1)
	}
	t.mu.RUnlock()
	if h != nil {
		return h, nil
	}
	h, err := t.openFile(r.number)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	if t.mu.rows[r.number] != r { // removed meanwhile: this reader is the only one
		t.mu.Unlock()
		return h, nil
	}
	// One reference is the table's, one the caller's.
	h.refs.Add(1)
	r.open = h
	t.mu.clock = append(t.mu.clock, r)
	// Closed without the lock: it may be I/O on a disk that is slow.
	victim := t.evict(r)
	t.mu.Unlock()
	victim.close()
	return h, nil
}

func (t *table) openFile(number uint64) (*handle, error) {
	f, err := t.fs.Open(t.path(number, segment.Sealed))
	if errors.Is(err, fs.ErrNotExist) { // one that Open could not seal
		f, err = t.fs.Open(t.path(number, segment.Open))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	header, err := readFileHeader(f, number)
	if errors.Is(err, ErrCorrupt) {
		if again, ok := headerInFooter(f, number); ok {
			header, err = again, nil
		}
	}
	if err != nil {
		f.Close() // nothing was written
		return nil, err
	}
	return newHandle(f, header), nil
}

// headerInFooter finds what a sealed segment's damaged header said: one bad byte
// there should not cost all its records.
func headerInFooter(f disk.File, number uint64) (segment.FileHeader, bool) {
	size, err := f.Size()
	if err != nil {
		return segment.FileHeader{}, false
	}
	header, _, _ := segment.ReadFooter(f, size) // the trailer has it, whatever the list of records is like
	return header, header.Number == number
}

func readFileHeader(f disk.File, number uint64) (segment.FileHeader, error) {
	header, err := segment.ReadFileHeader(f)
	if errors.Is(err, segment.ErrFormat) {
		return header, &CorruptError{Segment: number, Reason: "file header", Err: err}
	}
	if err == nil && header.Number != number {
		err = &CorruptError{Segment: number, Reason: "file header is another segment's"}
	}
	return header, err
}

// evicted is a handle that the table let go, to be closed without its lock.
type evicted struct{ h *handle }

func (e evicted) close() {
	if e.h != nil {
		e.h.release() // a sealed segment's file: everything written was synced
	}
}

// evict closes the file that was not used for longest, roughly, if there are
// too many. The caller holds mu. keep has just been opened.
func (t *table) evict(keep *row) evicted {
	for len(t.mu.clock) > t.limit {
		t.mu.hand %= len(t.mu.clock)
		r := t.mu.clock[t.mu.hand]
		// A second chance for what was used since the hand came by.
		if r == keep || r.open.used.Swap(false) {
			if r == keep && len(t.mu.clock) == 1 {
				break
			}
			t.mu.hand++
			continue
		}
		last := len(t.mu.clock) - 1
		t.mu.clock[t.mu.hand] = t.mu.clock[last]
		t.mu.clock = t.mu.clock[:last]
		h := r.open
		r.open = nil
		return evicted{h}
	}
	return evicted{}
}

func (t *table) isSealed(number uint64) (sealed, ok bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	r, ok := t.mu.rows[number]
	return ok && r.sealed, ok
}

// sizeOfSealed returns the bytes of a sealed segment.
func (t *table) sizeOfSealed(number uint64) (size int64, ok bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if r := t.mu.rows[number]; r != nil && r.sealed {
		return r.bytes.Load(), true
	}
	return 0, false
}

func (t *table) segments() []SegmentInfo {
	t.mu.RLock()
	infos := make([]SegmentInfo, 0, len(t.mu.rows))
	for _, r := range t.mu.rows {
		infos = append(infos, SegmentInfo{Tier: t.id, Number: r.number, Bytes: r.bytes.Load(), Sealed: r.sealed})
	}
	t.mu.RUnlock()
	slices.SortFunc(infos, func(a, b SegmentInfo) int { return cmp.Compare(a.Number, b.Number) })
	return infos
}

// totals returns the bytes and the number of all segments.
func (t *table) totals() (bytes int64, segments int) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, r := range t.mu.rows {
		bytes += r.bytes.Load()
	}
	return bytes, len(t.mu.rows)
}

// closeAll lets every file go and returns the first error.
func (t *table) closeAll() error {
	t.mu.Lock()
	rows := t.mu.rows
	t.mu.rows, t.mu.clock = map[uint64]*row{}, nil
	t.mu.Unlock()
	var first error
	// Out of the table first, so that no reader finds a file that is being closed.
	for _, r := range rows {
		if r.open == nil {
			continue
		}
		if err := r.open.release(); err != nil && first == nil {
			first = err
		}
	}
	return first
}
