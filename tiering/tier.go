package tiering

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"github.com/quarxtor/quarxfs/tiering/disk"
	"github.com/quarxtor/quarxfs/tiering/segment"
)

const (
	// maxSegmentSize leaves room for a largest record and for the footer
	// behind the last offset that a Location can name.
	maxSegmentSize = 2 << 30
	// writeBackStep is how much is appended before the kernel is told to start
	// writing it, so that little is left to do when Sync is called.
	writeBackStep = 4 << 20
	// reserveAhead is how much space is reserved behind the last such step, so
	// that appends find their blocks allocated, and a full disk shows before
	// bytes are accepted and not when they are synced.
	reserveAhead = 2 * writeBackStep
	// maxRecords is how many records fill a segment, whatever its size: each takes 52
	// bytes of memory until it is sealed, and three times that while it is, as in
	// whoever goes through a segment's records later.
	maxRecords = 1 << 16
)

// A tier is one directory of segments.
type tier struct {
	fs   disk.FS
	id   uint8 // Hot or Cold
	dir  string
	size int64 // at which a segment is full
	lazy bool  // no segment is made before somebody waits for one
	// readOnly: nothing is changed. There are no workers, and what is live stays so.
	readOnly bool
	// remote: sealing uploads a segment, see disk.Remote. It takes long, may fail for
	// a while, and what waits for it takes space on the local disk.
	remote bool
	refuse error                // what who would append or remove gets; or nil
	stamps func() segment.Stamp // or nil
	log    *slog.Logger
	table  *table
	ahead  windows
	done   sync.WaitGroup // the workers

	mu struct {
		sync.Mutex
		room   sync.Cond // next or attempts changed, or closing
		work   sync.Cond // there may be something for a worker
		active *writer   // or nil
		next   *writer   // empty, ready to become active; or nil
		// live are the writers that are not sealed, by number. active and
		// next are among them.
		live     map[uint64]*writer
		number   uint64 // of the last segment made
		waiting  int    // appenders that wait for next
		attempts uint64 // to make next, finished ones
		failure  error  // of the last attempt
		// lost are the segments that could not be synced, until the next Open; with
		// what Sync says of them, or nil once forsaken.
		lost map[uint64]error
		// harmed are those of them that somebody changed beneath the tier: what was durable in them
		// is gone, too.
		harmed   map[uint64]*Fault
		closing  bool // no more appends
		stopping bool // workers finish what is to be sealed and end
	}
}

// A writer is a segment that is not sealed. tier.mu guards the fields from end
// on.
type writer struct {
	number  uint64
	handle  *handle // one reference is the writer's
	row     *row
	syncing sync.Mutex // held over Datasync, see there; taken before tier.mu

	start    int64           // where the first record goes; it is there if end is elsewhere
	end      int64           // where the next record goes
	whole    int64           // the end of what was written well: the file is no shorter, unless somebody cut it
	entries  []segment.Entry // of whole records, in the order their writes ended
	inflight int             // reserved and not yet written
	written  uint64          // writes that ended
	synced   uint64          // of them, those known to be durable
	flushed  int64           // up to where WriteBack was asked for
	retired  bool            // takes no more records; to be sealed when inflight is 0
	stuck    bool            // being sealed, or that failed: left to the next Open
	lost     bool            // a Datasync failed
	failed   error           // why it could not be sealed
	stamped  uint64          // commits, as the last stamp says
	stampEnd int64           // the offset behind it; 0: there is none
}

// append writes one record. The offset is reserved under the lock, the bytes
// are written outside of it, so appends run side by side.
func (t *tier) append(h segment.Header, payload []byte) (Location, error) {
	w, offset, whole, err := t.reserve(int64(h.Length()))
	if err != nil {
		return Location{}, err
	}
	// Behind a cut the record would make the file as long as it was, and nobody would see the hole.
	if err := t.uncut(w, whole); err != nil {
		t.finish(w, segment.Entry{Header: h, Offset: offset}, err)
		return Location{}, err
	}
	buf := headers.Get().(*[segment.HeaderSize]byte)
	head := h.Append(buf[:0], w.handle.header, offset)
	// Without a lock: the place is this record's alone.
	err = w.handle.file.WritePairAt(head, payload, int64(offset))
	headers.Put(buf)
	t.finish(w, segment.Entry{Header: h, Offset: offset}, err)
	if err != nil {
		return Location{}, err
	}
	return Location{Tier: t.id, Segment: w.number, Offset: offset, Length: h.Length()}, nil
}

// headers has room for record headers: one on the stack would escape through
// the disk's interface.
var headers = sync.Pool{New: func() any { return new([segment.HeaderSize]byte) }}

// reserve finds room for a record of n bytes in the active segment, or makes
// the next one active. It says as well up to where that is written.
func (t *tier) reserve(n int64) (w *writer, offset uint32, whole int64, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	// Only an attempt that began after this call says anything about the disk now.
	start := t.mu.attempts
	for {
		if t.refuse != nil {
			return nil, 0, 0, t.refuse
		}
		if t.mu.closing {
			return nil, 0, 0, ErrClosed
		}
		// A record larger than a segment gets one of its own: the first place in an empty one.
		if w := t.mu.active; w != nil {
			if w.end+n <= t.size && len(w.entries)+w.inflight < maxRecords || w.end == w.start {
				offset := uint32(w.end)
				w.end += n
				w.inflight++
				return w, offset, w.whole, nil
			}
			t.retire(w)
		}
		if t.mu.next != nil {
			t.mu.active, t.mu.next = t.mu.next, nil
			t.mu.work.Broadcast()
			continue
		}
		// The first that ends may have begun before, when the disk still failed.
		if t.mu.attempts > start+1 && t.mu.failure != nil {
			return nil, 0, 0, t.mu.failure
		}
		if err := t.choked(); err != nil {
			return nil, 0, 0, err
		}
		t.mu.waiting++
		t.mu.work.Broadcast()
		t.mu.room.Wait()
		t.mu.waiting--
	}
}

// backlog is how many segments may wait to be uploaded before appends wait.
const backlog = 2

// behind reports whether too many segments wait to be uploaded. The caller holds mu.
func (t *tier) behind() bool { return t.remote && t.retired() >= backlog }

// retired counts the segments that wait to be sealed. The caller holds mu.
func (t *tier) retired() (waiting int) {
	for _, w := range t.mu.live {
		if w.retired && !w.lost { // which nobody seals before the next Open
			waiting++
		}
	}
	return waiting
}

func (t *tier) toSeal() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.retired()
}

// choked says why no upload makes room for appends, or nil. The caller holds mu.
func (t *tier) choked() error {
	if !t.behind() {
		return nil
	}
	for _, w := range t.mu.live {
		if w.failed != nil {
			return fmt.Errorf("segment %x waits to be uploaded: %w", w.number, w.failed)
		}
	}
	return nil
}

// unsealed returns why a segment of a remote tier could not be sealed, if one
// could not; and with again set lets it be tried once more.
func (t *tier) unsealed(again bool) (err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, w := range t.mu.live {
		if t.remote && w.failed != nil && !w.lost {
			err = w.failed
			if again {
				w.failed, w.stuck = nil, false
				t.mu.work.Broadcast()
			}
		}
	}
	return err
}

// finish notes the end of a write that reserve made room for.
func (t *tier) finish(w *writer, e segment.Entry, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	w.inflight--
	// Even a failed write may have changed pages.
	w.written++
	// Its bytes may be anywhere in its place, so nothing goes behind it in this segment; others'
	// records stay.
	if err != nil {
		t.log.Error("append failed, segment retired", "segment", segment.Name(w.number, segment.Open), "offset", e.Offset, "err", err)
		t.retire(w)
		t.harm(w, err)
	} else {
		w.whole = max(w.whole, e.End())
		w.entries = append(w.entries, e)
		// Writes end in any order: the row says the end of the farthest.
		w.row.bytes.Store(max(w.row.bytes.Load(), e.End()))
	}
	if w.retired && w.inflight == 0 || w.end-w.flushed >= writeBackStep {
		t.mu.work.Broadcast()
	}
}

// retire takes a segment out of use for appends. The caller holds mu.
func (t *tier) retire(w *writer) {
	w.retired = true
	if t.mu.active == w {
		t.mu.active = nil
	}
	t.mu.work.Broadcast()
}

// uncut reports whether an open segment's file has all that was written up to whole: a *Fault.
func (t *tier) uncut(w *writer, whole int64) error {
	size, err := w.handle.file.Size()
	if err == nil && size < whole {
		err = &Fault{w.number, segment.Name(w.number, segment.Open), fmt.Sprintf("was cut: it has %d bytes, and %d were written", size, whole), true}
	}
	return err
}

// intact is uncut, and looks whether the file still has its name. The segment is not being sealed,
// which changes the name.
func (t *tier) intact(w *writer, whole int64) error {
	if err := t.uncut(w, whole); err != nil {
		return err
	}
	same, err := w.handle.file.Named(t.table.path(w.number, segment.Open))
	if err == nil && !same {
		err = &Fault{w.number, segment.Name(w.number, segment.Open), "was removed, or another file was put in its place", true}
	}
	return err
}

// lose takes a segment out of use for which nobody can vouch. The caller holds mu.
func (t *tier) lose(w *writer, err error) {
	// stuck keeps the sealer away: a footer would vouch for what the disk may not have.
	w.lost, w.stuck = true, true
	t.retire(w)
	t.mu.lost[w.number] = fmt.Errorf("sync segment %x: %w", w.number, err)
	t.harm(w, err)
}

// harm notes what somebody did to a segment, if that is what the error says, and that it is lost.
// The caller holds mu.
func (t *tier) harm(w *writer, err error) {
	f, ok := errors.AsType[*Fault](err)
	if !ok || t.mu.harmed[w.number] != nil {
		return
	}
	t.mu.harmed[w.number] = f
	if !w.lost {
		t.lose(w, err)
	}
}

func (t *tier) harmed() (faults []Fault) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, number := range slices.Sorted(maps.Keys(t.mu.harmed)) {
		faults = append(faults, *t.mu.harmed[number])
	}
	return faults
}

// sync makes every write that has ended durable, but those to lost segments.
// Segments that are sealed meanwhile are synced by that as well: a writer leaves
// live only then.
func (t *tier) sync() error {
	type job struct {
		w      *writer
		target uint64
	}
	var jobs []job
	t.mu.Lock()
	for _, w := range t.mu.live {
		// Those without new writes are looked at all the same, but those whose name changes now.
		if !w.lost && (w.synced < w.written || !w.stuck) {
			// The sealer may let its own reference go meanwhile.
			w.handle.refs.Add(1)
			jobs = append(jobs, job{w, w.written})
		}
	}
	t.mu.Unlock()
	var errs []error
	for _, j := range jobs {
		// A failure is among the lost ones below.
		_ = t.datasync(j.w, j.target)
		errs = append(errs, j.w.handle.release())
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, number := range slices.Sorted(maps.Keys(t.mu.lost)) {
		errs = append(errs, t.mu.lost[number])
	}
	return errors.Join(errs...)
}

// datasync makes the first target writes of a segment durable, and looks whether it is still what
// was written. A failure is final for the segment: what the disk did not take may be gone, so a
// footer that lists it must not be written, and no later success would mean anything.
//
// One at a time for each segment, though it is I/O: the kernel tells only one
// of two callers that bytes were lost, and the other would vouch for them.
func (t *tier) datasync(w *writer, target uint64) error {
	w.syncing.Lock()
	defer w.syncing.Unlock()
	t.mu.Lock()
	// Another caller may have synced it, or lost it, while this one waited.
	lost, done, sealing, whole := w.lost, w.synced >= target, w.stuck, w.whole
	t.mu.Unlock()
	switch {
	case lost:
		return errLost
	case done && sealing:
		return nil
	}
	var err error
	if !done {
		// Without mu: appends go on meanwhile, and are above target.
		err = w.handle.file.Datasync()
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) { // which it may say of one that was removed
		if harm := t.intact(w, whole); harm != nil {
			err = harm
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil {
		w.synced = max(w.synced, target)
		return nil
	}
	t.log.Error("sync failed, segment lost", "segment", segment.Name(w.number, segment.Open), "err", err)
	t.lose(w, err)
	return t.mu.lost[w.number]
}

func (t *tier) lost() []uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Collect(maps.Keys(t.mu.lost))
}

func (t *tier) forsake(segments []uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, number := range segments {
		if _, ok := t.mu.lost[number]; ok {
			t.mu.lost[number] = nil
		}
	}
}

// remove renames a sealed segment, so that a crash cannot leave half of it
// under its name, and unlinks it.
func (t *tier) remove(number uint64) error {
	if t.refuse != nil {
		return t.refuse
	}
	sealed, ok := t.table.isSealed(number)
	if !ok {
		return ErrNotFound
	}
	if !sealed {
		return ErrOpen
	}
	if t.remote {
		// An object goes at once; there is no half of one.
		err := t.fs.Remove(t.table.path(number, segment.Sealed))
		if err == nil && !t.table.drop(number) {
			err = ErrNotFound
		}
		return err
	}
	// Trash is what a crash may leave; Open removes it.
	trash := t.table.path(number, segment.Trash)
	err := t.fs.Rename(t.table.path(number, segment.Sealed), trash)
	// A rename that was given up may have been done later all the same.
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// After the file: a reader that comes now finds neither.
	if !t.table.drop(number) {
		return ErrNotFound
	}
	if err := t.fs.Remove(trash); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// close ends the workers, syncs, and gives back the space that was reserved
// behind the active segment's end. Retired segments are sealed first.
func (t *tier) close() error {
	// After the workers: what they sealed last is synced by that, the rest here.
	t.endWorkers()
	t.mu.Lock()
	for _, w := range t.mu.live {
		if w.stampEnd > 0 && w.stampEnd == w.end {
			w.written++ // the last stamp is not one of the writes that sync knows of
		}
	}
	t.mu.Unlock()
	err := t.sync()
	for _, w := range t.mu.live { // no other goroutine is left that changes it
		if w.stuck {
			continue
		}
		if trimErr := t.trim(w); err == nil {
			err = trimErr
		}
	}
	if closeErr := t.table.closeAll(); err == nil {
		err = closeErr
	}
	for _, w := range t.mu.live {
		if closeErr := w.handle.release(); err == nil {
			err = closeErr
		}
	}
	return err
}

// endWorkers refuses appends from now on, and returns when no worker is left.
func (t *tier) endWorkers() {
	t.mu.Lock()
	t.mu.closing, t.mu.stopping = true, true
	t.mu.room.Broadcast()
	t.mu.work.Broadcast()
	t.mu.Unlock()
	t.done.Wait()
}

// abandon ends the workers and lets all files go, with no I/O on them but
// closing: what was appended and not synced may be lost.
func (t *tier) abandon() {
	// A worker may hang with the disk; the guard ends its operation in bounded time.
	t.endWorkers()
	t.table.closeAll()
	for _, w := range t.mu.live {
		w.handle.release()
	}
}

// trim leaves an open segment as large as its records, and no empty one.
func (t *tier) trim(w *writer) error {
	if len(w.entries) == 0 {
		t.table.drop(w.number)
		return t.fs.Remove(t.table.path(w.number, segment.Open))
	}
	return w.handle.file.Truncate(w.end)
}
