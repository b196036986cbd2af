package tiering

import (
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"slices"

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
	// Counted up also when it fails: a file by that number may be there all the same.
	t.mu.number++
	number := t.mu.number
	t.mu.Unlock()
	h, err := t.create(number)
	if err != nil {
		t.log.Error("cannot make a segment", "segment", segment.Name(number, segment.Open), "err", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.attempts++
	t.mu.failure = err
	if err == nil {
		// Under mu: an open segment that is listed must be found among the live.
		t.mu.next = t.newWriter(h, segment.FileHeaderSize)
		t.mu.live[number] = t.mu.next
	}
	t.mu.room.Broadcast()
}

func (t *tier) create(number uint64) (*handle, error) {
	var salt [8]byte
	rand.Read(salt[:]) // crypto/rand.Read never fails
	header := segment.FileHeader{Number: number, Salt: binary.LittleEndian.Uint64(salt[:])}
	path := t.table.path(number, segment.Open)
	f, err := t.fs.Create(path)
	if err != nil {
		return nil, err
	}
	// Before the first byte, so that a full disk shows now and not at an append.
	t.reserveSpace(f, number, 0)
	if _, err = f.WriteAt(header.Append(nil), 0); err == nil {
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
		return nil, err
	}
	return newHandle(f, header), nil
}

// reserveSpace reserves the space that a segment is about to need. Without it
// appends still work.
func (t *tier) reserveSpace(f disk.File, number uint64, end int64) {
	if err := f.Preallocate(min(end+reserveAhead, t.size)); err != nil {
		t.log.Debug("no space reserved for segment", "segment", number, "err", err)
	}
}

// newWriter enters an open segment of which end bytes are whole. It takes the
// handle's reference over.
func (t *tier) newWriter(h *handle, end int64) *writer {
	h.refs.Add(1)
	row := t.table.add(h.header.Number, end, false, h)
	return &writer{number: h.header.Number, handle: h, row: row, end: end, flushed: end}
}

func (t *tier) pickSeal() func() {
	for _, w := range t.mu.live {
		if w.retired && !w.stuck && w.inflight == 0 {
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
		w.failed = err
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
		t.table.drop(w.number)
		return t.fs.Remove(path)
	}
	end := entries[len(entries)-1].End()
	footer := segment.AppendFooter(nil, w.handle.header, entries, uint32(end))
	size := end + int64(len(footer))
	if _, err := w.handle.file.WriteAt(footer, end); err != nil {
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

// sorted returns a copy in order of offset; writes may end in another.
func sorted(entries []segment.Entry) []segment.Entry {
	entries = slices.Clone(entries)
	slices.SortFunc(entries, func(a, b segment.Entry) int { return cmp.Compare(a.Offset, b.Offset) })
	return entries
}
