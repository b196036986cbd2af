package tiering

import (
	"cmp"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/quarxtor/quarxfs/tiering/disk"
	"github.com/quarxtor/quarxfs/tiering/segment"
)

// openTier lists a directory, recovers what is open, and starts the workers.
func openTier(o Options, id uint8, files disk.FS, dir string) (*tier, error) {
	t := &tier{fs: files, id: id, dir: dir, size: o.SegmentSize, lazy: id != Hot, readOnly: o.ReadOnly, log: o.Logger, table: newTable(files, id, dir, o.OpenFiles)}
	t.stamps, t.refuse = o.Stamp, o.refuse
	t.readOnly = t.readOnly || t.refuse != nil
	// The guard hides what kind of disk it is about.
	if g, ok := files.(*guard); ok {
		_, t.remote = g.base.(disk.Remote)
	}
	if id != Hot {
		t.ahead.budget = o.windows
		t.ahead.mu.streams = map[uint64]stream{}
	}
	// Numbers go on from the highest that is known, or the highest file, which recover finds; the
	// tier is in the upper bits.
	t.mu.number = max(uint64(id)<<tierShift, o.Numbers[id])
	t.mu.room.L, t.mu.work.L = &t.mu.Mutex, &t.mu.Mutex
	t.mu.live, t.mu.lost, t.mu.harmed = map[uint64]*writer{}, map[uint64]error{}, map[uint64]*Fault{}
	// From the beginning: appends are refused by what refuses them after Close.
	t.mu.closing = t.readOnly
	if err := t.recover(); err != nil {
		// Nothing was appended yet, so closing the files is all.
		for _, w := range t.mu.live {
			w.handle.release()
		}
		t.table.closeAll()
		return nil, err
	}
	if !t.readOnly {
		t.startWorkers()
	}
	return t, nil
}

func (t *tier) recover() error {
	if !t.readOnly {
		if err := t.fs.MkdirAll(t.dir); err != nil {
			return err
		}
	}
	files, err := t.fs.List(t.dir)
	if err != nil && !(t.readOnly && errors.Is(err, fs.ErrNotExist)) {
		return err
	}
	var open []disk.Info
	for _, f := range files {
		number, state, ok := segment.ParseName(f.Name)
		if !ok || tierOf(number) != t.id {
			continue
		}
		// Removed ones count too: a number that was given is not given again.
		t.mu.number = max(t.mu.number, number)
		switch state {
		case segment.Trash:
			if t.readOnly {
				continue
			}
			if err := t.fs.Remove(filepath.Join(t.dir, f.Name)); err != nil {
				return err
			}
		case segment.Sealed:
			t.table.add(number, f.Size, true, nil)
		case segment.Open:
			// Later, when all numbers are known.
			open = append(open, f)
		}
	}
	for _, f := range open {
		number, _, _ := segment.ParseName(f.Name)
		if err := t.recoverOpen(number, f.Size); err != nil {
			return err
		}
	}
	if t.readOnly {
		return nil
	}
	return t.resume()
}

// recoverOpen brings one .open segment into a state to go on from: sealed if
// its footer is whole, otherwise live, and cut behind its last whole record.
func (t *tier) recoverOpen(number uint64, size int64) error {
	f, err := t.fs.Open(t.table.path(number, segment.Open))
	if err != nil {
		return err
	}
	header, err := readFileHeader(f, number)
	if errors.Is(err, ErrCorrupt) {
		return t.recoverHeaderless(number, size, f, err)
	}
	if err != nil {
		f.Close()
		return err
	}
	h := newHandle(f, header)
	retired := false
	var entries []segment.Entry
	// Every record is read and checked: of an open segment nothing says where it ends.
	res, err := segment.Scan(f, header, size, func(e segment.Entry, _ []byte) error {
		entries = append(entries, e)
		return nil
	})
	if err == nil && res.End < size {
		// A footer may have reached the disk without all that it lists.
		_, footer, footerErr := segment.ReadFooter(f, size)
		whole := footerErr == nil && slices.Equal(footer, entries)
		switch {
		case t.readOnly: // what is behind the last record does not count
		case whole && t.remote:
			retired = true // nobody who opens waits for an upload
		case whole:
			return t.finishSeal(h, entries, uint32(res.End))
		default:
			t.log.Info("torn tail cut off", "segment", segment.Name(number, segment.Open), "bytes", size-res.End)
			err = f.Truncate(res.End)
		}
	}
	if err != nil {
		h.release()
		return err
	}
	if res.Skipped > 0 {
		t.log.Warn("segment has gaps", "segment", segment.Name(number, segment.Open), "bytes", res.Skipped)
	}
	w := t.newWriter(h, res.End)
	w.entries = entries
	w.retired = retired
	w.stamped, w.stampEnd = res.Stamp.Commits, res.StampEnd
	if len(entries) > 0 {
		w.start = int64(entries[0].Offset)
	}
	if t.readOnly {
		w.stuck = true
	} else {
		w.written = 1 // what a killed process wrote may still be in the page cache only
	}
	t.mu.live[number] = w
	return nil
}

// recoverHeaderless handles an .open file whose own header does not read. One
// that is not longer than its header and a stamp was being made when the crash came. Else
// it is damage, since records are only appended once the header is durable: the
// file stays as it is, and reads of it say what is wrong.
func (t *tier) recoverHeaderless(number uint64, size int64, f disk.File, cause error) error {
	if err := f.Close(); err != nil {
		return err
	}
	if size <= segment.FileHeaderSize+segment.StampSize { // too little for a record
		if t.readOnly {
			return nil
		}
		return t.fs.Remove(t.table.path(number, segment.Open))
	}
	t.log.Error("segment is unreadable", "segment", segment.Name(number, segment.Open), "err", cause)
	t.table.add(number, size, false, nil)
	return nil
}

// finishSeal does what was left of sealing: the footer reads, but may not be
// durable. It is written once more, because after a sync that failed the kernel
// takes pages for clean that the disk does not have.
func (t *tier) finishSeal(h *handle, entries []segment.Entry, end uint32) error {
	number := h.header.Number
	footer := segment.AppendFooter(nil, h.header, entries, end)
	size := int64(end) + int64(len(footer))
	_, err := h.file.WriteAt(footer, int64(end))
	if err == nil {
		err = h.file.Truncate(size)
	}
	if err == nil {
		err = h.file.Datasync()
	}
	// The name says that the footer is durable, so not before the sync.
	if err == nil {
		err = t.fs.Rename(t.table.path(number, segment.Open), t.table.path(number, segment.Sealed))
	}
	if err == nil {
		err = t.fs.SyncDir(t.dir)
	}
	if err != nil {
		h.release()
		return err
	}
	// Entered under its last name only: readers open by what the table says.
	t.table.add(number, size, true, h)
	return nil
}

// resume picks the segment to append to: the newest open one with records and
// room. Others with records are sealed; one empty one is kept to be next.
func (t *tier) resume() error {
	open := make([]*writer, 0, len(t.mu.live))
	for _, w := range t.mu.live {
		open = append(open, w)
	}
	// Newest first: the one that was appended to last is gone on with.
	slices.SortFunc(open, func(a, b *writer) int { return cmp.Compare(b.number, a.number) })
	for _, w := range open {
		switch {
		case w.retired:
			continue
		case len(w.entries) == 0 && t.mu.next != nil:
			// A second empty one is of no use, and would be one more at each crash.
			delete(t.mu.live, w.number)
			t.table.drop(w.number)
			if err := w.handle.release(); err != nil {
				return err
			}
			if err := t.fs.Remove(t.table.path(w.number, segment.Open)); err != nil {
				return err
			}
			continue
		case len(w.entries) == 0:
			t.mu.next = w
		case t.mu.active == nil && w.end < t.size:
			t.mu.active = w
		default:
			w.retired = true
			continue
		}
		t.reserveSpace(w.handle.file, w.number, w.end)
	}
	return nil
}
