package tiering

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io/fs"
	"log/slog"
	"slices"

	"github.com/quarxtor/quarxfs/tiering/also"
	"github.com/quarxtor/quarxfs/tiering/disk"
	"github.com/quarxtor/quarxfs/tiering/segment"
)

// work runs jobs as pick finds them, until the tier stops and there are none.
// pick is called with mu held.
func (t *tier) work(pick func() func()) {
	defer t.done.Done()
	for {
		t.mu.Lock()
		job := pick()
		for job == nil && !t.mu.stopping {
			t.mu.work.Wait()
			job = pick()
		}
		t.mu.Unlock()
		if job == nil {
			return
		}
		// Without the lock: jobs are I/O.
		job()
	}
}

// startWorkers starts one worker that keeps ahead of the appenders and one that
// seals what they leave behind, so that neither waits for the other's syncs.
func (t *tier) startWorkers() {
	t.done.Add(2)
	go t.work(t.pickAhead)
	go t.work(t.pickSeal)
}

func (t *tier) pickAhead() func() {
	if t.mu.closing {
		return nil
	}
	// After a failure there is no use in trying until somebody asks.
	if t.mu.next == nil && !t.behind() && (t.mu.failure == nil && !t.lazy || t.mu.waiting > 0) {
		return t.makeNext
	}
	w := t.mu.active
	if w == nil || w.end-w.flushed < writeBackStep {
		return nil
	}
	// Noted before it is done, so that no second job is made of it.
	from, to := w.flushed, w.end
	w.flushed = to
	w.handle.refs.Add(1)
	return func() {
		if err := w.handle.file.WriteBack(from, to-from); err != nil {
			t.log.Debug("early write-back failed", "segment", w.number, "err", err)
		}
		t.reserveSpace(w.handle.file, w.number, to)
		w.handle.release() // the writer's own reference closes it
	}
}

// makeNext makes an empty segment. It is durable, name and header, before
// anything is appended, so Sync has only the segment's bytes to sync, and a
// file header that does not read is damage and not a crash.
func (t *tier) makeNext() {
	t.mu.Lock()
	number := t.mu.number + 1
	t.mu.Unlock()
	// Without mu, as it syncs twice.
	h, stamp, err := t.create(number)
	t.mu.Lock()
	defer t.mu.Unlock()
	// A disk that takes no file is asked for the same one again, or each try would use up a number.
	// Where the file is there all the same the next try finds it. In a cold tier what was given up
	// may still be done later, and so nothing is done twice to one name.
	if !errors.Is(err, errNoFile) || errors.Is(err, fs.ErrExist) || t.id == Cold {
		t.mu.number = number
	}
	if err != nil && (t.mu.failure == nil || t.mu.failure.Error() != err.Error()) {
		// One that is made ahead is missed by nobody yet.
		level := slog.LevelInfo
		if t.mu.waiting > 0 {
			level = slog.LevelError
		}
		t.log.Log(context.Background(), level, "cannot make a segment", "segment", segment.Name(number, segment.Open), "err", err)
	}
	t.mu.attempts++
	t.mu.failure = err
	if err == nil {
		// Under mu: an open segment that is listed must be found among the live.
		t.mu.next = t.newWriter(h, segment.FileHeaderSize)
		t.mu.next.stampedAt(stamp, t.mu.next.start)
		t.mu.live[number] = t.mu.next
	}
	t.mu.room.Broadcast()
}

// errNoFile is of a segment's file that could not even be made.
var errNoFile = errors.New("no file was made")

func (t *tier) create(number uint64) (*handle, *segment.Stamp, error) {
	var salt [8]byte
	rand.Read(salt[:]) // crypto/rand.Read never fails
	header := segment.FileHeader{Number: number, Salt: binary.LittleEndian.Uint64(salt[:])}
	head := header.Append(nil)
	stamp := t.stampNow()
	if stamp != nil {
		head = stamp.Append(head, header, segment.FileHeaderSize)
	}
	path := t.table.path(number, segment.Open)
	f, err := t.fs.Create(path)
	if err != nil {
		return nil, nil, also.Is(err, errNoFile)
	}
	// Before the first byte, so that a full disk shows now and not at an append.
	t.reserveSpace(f, number, 0)
	if _, err = f.WriteAt(head, 0); err == nil {
		err = f.Datasync()
	}
	if err == nil {
		err = t.fs.SyncDir(t.dir)
	}
	if err != nil {
		f.Close()
		if removeErr := t.fs.Remove(path); removeErr != nil {
			t.log.Warn("cannot remove segment that was not made", "path", path, "err", removeErr)
		}
		return nil, nil, err
	}
	return newHandle(f, header), stamp, nil
}

// reserveSpace reserves the space that a segment is about to need. Without it
// appends still work.
func (t *tier) reserveSpace(f disk.File, number uint64, end int64) {
	if err := f.Preallocate(min(end+reserveAhead, t.size)); err != nil {
		t.log.Debug("no space reserved for segment", "segment", number, "err", err)
	}
}

// newWriter enters an open segment without records of which end bytes are whole. It takes the
// handle's reference over.
func (t *tier) newWriter(h *handle, end int64) *writer {
	h.refs.Add(1)
	row := t.table.add(h.header.Number, end, false, h)
	return &writer{number: h.header.Number, handle: h, row: row, start: end, end: end, whole: end, flushed: end}
}

func (t *tier) pickSeal() func() {
	for _, w := range t.mu.live {
		if w.retired && !w.stuck && w.inflight == 0 {
			// Set at once, so that the segment is picked once.
			w.stuck = true
			entries := sorted(w.entries)
			return func() { t.seal(w, entries) }
		}
	}
	return nil
}

// seal writes a retired segment's footer and gives it its final name. If that
// fails the segment stays .open, readable and covered by Sync; the next Open
// seals it.
func (t *tier) seal(w *writer, entries []segment.Entry) {
	if err := t.trySeal(w, entries); err != nil {
		t.log.Error("cannot seal segment", "segment", segment.Name(w.number, segment.Open), "err", err)
		t.mu.Lock()
		// Noted and not tried again here: of a remote tier watch does, of the hot one the next
		// opening.
		w.failed = err
		t.harm(w, err)
		t.mu.room.Broadcast() // see choked
		t.mu.Unlock()
		return
	}
	t.mu.Lock()
	// Behind the renaming: until then sync answers for it.
	delete(t.mu.live, w.number)
	t.mu.work.Broadcast() // see behind
	t.mu.Unlock()
	w.handle.release() // everything was synced
}

func (t *tier) trySeal(w *writer, entries []segment.Entry) error {
	path := t.table.path(w.number, segment.Open)
	// A footer without entries would be a segment that holds nothing for ever.
	if len(entries) == 0 { // its first writes failed
		// Not while it is synced: that would find it gone, and take it for removed by somebody
		// else.
		w.syncing.Lock()
		defer w.syncing.Unlock()
		t.table.drop(w.number)
		err := t.fs.Remove(path)
		if err == nil {
			t.mu.Lock()
			w.synced = w.written
			t.mu.Unlock()
		}
		return err
	}
	t.mu.Lock()
	whole := w.whole
	t.mu.Unlock()
	// Behind a cut the footer would list records that are not there.
	if err := t.intact(w, whole); err != nil {
		return err
	}
	end := entries[len(entries)-1].End()
	tail := t.sealStamp(w, uint32(end))
	tail = segment.AppendFooter(tail, w.handle.header, entries, uint32(end)+uint32(len(tail)))
	size := end + int64(len(tail))
	if _, err := w.handle.file.WriteAt(tail, end); err != nil {
		return err
	}
	// What failed appends left behind the footer goes: a footer is found from the file's end.
	if err := w.handle.file.Truncate(size); err != nil {
		return err
	}
	// One more than was written, so that the footer is synced in any case.
	if err := t.datasync(w, w.written+1); err != nil {
		return err
	}
	if err := t.fs.Rename(path, t.table.path(w.number, segment.Sealed)); err != nil {
		return err
	}
	t.table.seal(w.number, size)
	// The segment is found under either name, so a failure costs nothing.
	if err := t.fs.SyncDir(t.dir); err != nil {
		t.log.Warn("cannot sync directory after sealing", "segment", w.number, "err", err)
	}
	return nil
}

// stampNow is what a stamp that is written now says; nil: there are none.
func (t *tier) stampNow() *segment.Stamp {
	if t.stamps == nil {
		return nil
	}
	s := t.stamps()
	return &s
}

// stampedAt notes that a stamp was put at an offset where nothing comes before the first record.
func (w *writer) stampedAt(s *segment.Stamp, offset int64) {
	if s == nil {
		return
	}
	w.stamped, w.stampEnd = s.Commits, offset+segment.StampSize
	w.start, w.end, w.whole, w.flushed = w.stampEnd, w.stampEnd, w.stampEnd, w.stampEnd
}

// sealStamp is the stamp before a footer at offset. A segment without stamps, which was begun
// before there were any, gets none.
func (t *tier) sealStamp(w *writer, offset uint32) []byte {
	t.mu.Lock()
	commits, some := w.stamped, w.stampEnd > 0
	t.mu.Unlock()
	s := t.stampNow()
	if s == nil || !some {
		return nil
	}
	// Never less than the segment has said before: an older database may be open, to be repaired.
	s.Commits = max(s.Commits, commits)
	return s.Append(nil, w.handle.header, offset)
}

// stamp notes behind the last record of the active segment how many commits are durable. It is not
// synced: it is there to tell an older database, and not a crash. Where it is the last thing in the
// segment it is written over the one before, so that commits without blocks take no space.
func (t *tier) stamp() error {
	s := t.stampNow()
	if s == nil {
		return nil
	}
	t.mu.Lock()
	w := t.mu.active
	if w == nil || t.mu.closing || s.Commits <= w.stamped || w.end == w.start {
		t.mu.Unlock()
		return nil
	}
	if w.stampEnd != w.end {
		if w.end+segment.StampSize > t.size { // it is as good as sealed
			t.mu.Unlock()
			return nil
		}
		w.end += segment.StampSize
		w.stampEnd = w.end
	}
	at, whole := w.stampEnd-segment.StampSize, w.whole
	w.stamped = s.Commits
	w.inflight++ // keeps the sealer from writing a footer here
	t.mu.Unlock()
	// Without the lock: the place is the stamp's alone, and one commit runs at a time.
	err := t.uncut(w, whole)
	if err == nil {
		_, err = w.handle.file.WriteAt(s.Append(nil, w.handle.header, uint32(at)), at)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil {
		w.whole = max(w.whole, at+segment.StampSize)
	}
	t.harm(w, err)
	if w.inflight--; w.retired && w.inflight == 0 {
		t.mu.work.Broadcast()
	}
	return err
}

// lastStamp returns the last stamp of a segment; the zero one: it has none.
func (t *tier) lastStamp(number uint64) (segment.Stamp, error) {
	h, err := t.table.acquire(number)
	if err != nil {
		return segment.Stamp{}, err
	}
	defer h.release()
	size, err := h.file.Size()
	if err != nil {
		return segment.Stamp{}, err
	}
	return segment.LastStamp(h.file, h.header, size)
}

// sorted returns a copy in order of offset; writes may end in another.
func sorted(entries []segment.Entry) []segment.Entry {
	entries = slices.Clone(entries)
	slices.SortFunc(entries, func(a, b segment.Entry) int { return cmp.Compare(a.Offset, b.Offset) })
	return entries
}
