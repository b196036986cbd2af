package db

import (
	"crypto/rand"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"sync"
)

// commitLog makes commits durable: each is one record, written and synced into
// blocks that hold zeroes or records no longer needed, which costs a disk about
// half of what appending to a growing file does. Two files take turns:
//
//	free -> current [begin] -> sealed [seal] -> free [release]
//
// A sealed file is released once Badger holds its records durably, the oldest
// first, so that what is replayed after a crash is always an unbroken run up to
// the last commit.
//
// A record that could not be written or synced seals its file, since what the
// disk holds there is unknown; the next one goes to the other file, under the
// same sequence number, which makes the failed one void.
type commitLog struct {
	dir     logDir
	id      logID
	nominal int64 // size of a file that no oversize commit has grown

	// Of the one who appends.
	cur *logFile // nil: begin must find a free one first
	off int64    // where the next record goes
	gen uint64   // the latest begun
	seq uint64   // of the next record
	buf []byte

	// least is the sequence below which the instance has all commits, however old a copy a file
	// may be.
	least uint64

	mu    sync.Mutex // guards the states, not the files
	files [2]*logFile
}

type fileState uint8

const (
	stateFree fileState = iota
	stateCurrent
	stateSealed
)

type logFile struct {
	index uint32
	name  string
	dev   logDevice
	size  int64
	freed uint64 // as in the header
	based uint64 // likewise: the version that the instance had then
	slot  int    // that holds them
	old   bool   // the other slot is one of before versions

	state       fileState
	gen         uint64
	first, next uint64 // sequences of its records: first <= seq < next
	bytes       int64  // of the payloads of its records, at most
	cut         bool   // somebody cut it: it has to be made as long as it was
}

const (
	logPrefix  = "LOG."
	maxLogFile = 2 << 20 // some five hundred small commits; a larger one grows the file for a while
	// chunkSize is how much of a record is gathered for one write.
	chunkSize = 1 << 20
)

func logName(index uint32) string { return fmt.Sprintf("%s%d", logPrefix, index) }

// openLog opens the files, or makes them. recover must come next.
func openLog(dir logDir, nominal int64) (*commitLog, error) {
	l := &commitLog{dir: dir, nominal: nominal, seq: 1}
	if err := l.openFiles(); err != nil {
		return nil, errors.Join(err, l.close())
	}
	return l, nil
}

func (l *commitLog) openFiles() error {
	missing, err := l.findFiles()
	if err != nil {
		return err
	}
	if len(missing) == 0 && l.files[0].freed == 0 && l.files[1].freed == 0 {
		// The name of the second may not be durable yet.
		return l.dir.sync()
	}
	// A file that was released has had its name synced before its first commit.
	if len(missing) == 0 {
		return nil
	}
	return l.make(missing)
}

// findFiles opens the files that are there.
func (l *commitLog) findFiles() (missing []*logFile, err error) {
	for i := range l.files {
		f := &logFile{index: uint32(i), name: logName(uint32(i))}
		l.files[i] = f
		dev, err := l.dir.open(f.name)
		if errors.Is(err, fs.ErrNotExist) {
			missing = append(missing, f)
			continue
		}
		if err != nil {
			return nil, Unreadable(f.name, err)
		}
		f.dev = dev
		if err := l.readSlots(f); err != nil {
			return nil, err
		}
	}
	return missing, nil
}

// readSlots takes the header slot with the higher generation.
func (l *commitLog) readSlots(f *logFile) error {
	var err error
	if f.size, err = f.dev.size(); err != nil {
		return err
	}
	// Two slots, written in turns: a write that a power cut tears leaves the other one whole.
	found := false
	for i := range 2 {
		var b [basedSlot]byte
		if f.size < logStart {
			break
		}
		if _, err := f.dev.ReadAt(b[:], int64(i)*blockSize); err != nil {
			return err
		}
		s, ok := parseSlot(b[:])
		// The index and the ID keep a copy of the other file, or one of another store, from being
		// taken.
		if !ok || s.index != f.index || (l.id != logID{} && s.id != l.id) {
			continue
		}
		if !found || s.freed > f.freed {
			f.slot, f.freed = i, s.freed
		}
		// The higher of both: a slot says what was true once, and that does not become less.
		f.based = max(f.based, s.based)
		l.least = max(l.least, s.next)
		f.old = f.old || s.based == 0
		found, l.id = true, s.id
	}
	if !found {
		return damaged(f.name, "has no header at offset 0 or %d, or one of another store", blockSize)
	}
	return nil
}

// version is that which the instance had at the latest release.
func (l *commitLog) version() uint64 { return max(l.files[0].based, l.files[1].based) }

// neverUsed tells whether a file that is missing was still to be made. One that went
// missing later is damage: acknowledged commits may have gone with it.
func (l *commitLog) neverUsed(missing *logFile) error {
	f := l.files[1-missing.index]
	c, err := l.scan(f)
	if err != nil {
		return err
	}
	if f.freed > 0 || c.highest > 0 {
		return damaged(missing.name, "is missing")
	}
	return nil
}

// make creates both files, or the second if a crash came between.
func (l *commitLog) make(missing []*logFile) error {
	if len(missing) == 1 {
		if err := l.neverUsed(missing[0]); err != nil {
			return err
		}
	} else if _, err := rand.Read(l.id[:]); err != nil {
		return err
	}
	for _, f := range missing {
		if err := l.create(f); err != nil {
			// Its blocks are given back at once, as it is a full disk mostly that gets here.
			if f.dev != nil {
				_ = f.dev.truncate(0)
			}
			return fmt.Errorf("create %s: %w", f.name, asFull(err))
		}
	}
	return l.dir.sync()
}

// create writes the whole file before it has its name. Zeroes are written, not
// only allocated, so that no commit has to mark blocks as used.
func (l *commitLog) create(f *logFile) error {
	dev, err := l.dir.create(f.name)
	if err != nil {
		return err
	}
	f.dev, f.size = dev, l.nominal
	// All at once first, so that ErrFull comes before anything is written.
	if err := dev.allocate(f.size); err != nil {
		return err
	}
	// A megabyte at a time: opening a store must not take memory for a whole file.
	zeroes := make([]byte, min(chunkSize, l.nominal))
	for off := int64(0); off < f.size; off += int64(len(zeroes)) {
		if _, err := dev.WriteAt(zeroes[:min(int64(len(zeroes)), f.size-off)], off); err != nil {
			return err
		}
	}
	// Both slots, so that a torn first release still leaves a header.
	for range 2 {
		if err := l.mark(f, 0, 0, 0); err != nil {
			return err
		}
	}
	return l.dir.finish(f.name)
}

// mark writes to the slot not in use that generations up to freed are dead, and what
// version the instance has. From then on a program that does not know versions finds no slot
// that it could read: it would not keep the list of tables up.
func (l *commitLog) mark(f *logFile, freed, based, next uint64) error {
	if err := l.writeSlot(f, freed, based, next); err != nil {
		return err
	}
	if based > 0 && f.old {
		if err := l.writeSlot(f, freed, based, next); err != nil {
			return err
		}
		f.old = false
	}
	return nil
}

func (l *commitLog) writeSlot(f *logFile, freed, based, next uint64) error {
	to := 1 - f.slot
	s := slot{index: f.index, id: l.id, freed: freed, based: based, next: next}
	if _, err := f.dev.WriteAt(s.encode(), int64(to)*blockSize); err != nil {
		return err
	}
	if err := f.dev.sync(); err != nil {
		return err
	}
	f.slot, f.freed, f.based = to, freed, max(f.based, based)
	return nil
}

// fits tells whether a record of so many bytes can be appended as things are.
func (l *commitLog) fits(size int64) bool {
	return l.cur != nil && l.off+size <= l.cur.size
}

// oversize tells whether no file takes a record of so many bytes without growing.
func (l *commitLog) oversize(size int64) bool { return size > l.nominal-logStart }

// begin makes a free file the current one, if there is one.
func (l *commitLog) begin() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.files {
		if f.state == stateFree {
			l.gen++
			f.state, f.gen, f.first, f.next, f.bytes = stateCurrent, l.gen, l.seq, l.seq, 0
			l.cur, l.off = f, logStart
			return true
		}
	}
	return false
}

// seal ends the current file, if there is one.
func (l *commitLog) seal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cur != nil {
		l.cur.state = stateSealed
		l.cur = nil
	}
}

// sealed returns the sealed file that must be released next, or nil.
func (l *commitLog) sealed() *logFile {
	l.mu.Lock()
	defer l.mu.Unlock()
	// The oldest first, or a replay would find a gap before the newer one.
	var oldest *logFile
	for _, f := range l.files {
		if f.state == stateSealed && (oldest == nil || f.gen < oldest.gen) {
			oldest = f
		}
	}
	return oldest
}

// free tells whether begin would succeed.
func (l *commitLog) free() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.files[0].state == stateFree || l.files[1].state == stateFree
}

// held is the payload bytes that a replay would have to apply, at most.
func (l *commitLog) held() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	var sum int64
	for _, f := range l.files {
		if f.state != stateFree {
			sum += f.bytes
		}
	}
	return sum
}

// base is the least sequence that a replay needs.
func (l *commitLog) base() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	base := l.seq
	for _, f := range l.files {
		if f.state != stateFree {
			base = min(base, f.first)
		}
	}
	return base
}

// release frees a sealed file; all its records must be durable elsewhere, as is all of the instance
// up to a version (0: no list says what of), and no older file may be sealed. It may be tried again
// after an error.
func (l *commitLog) release(f *logFile, based uint64) error {
	if err := l.mark(f, f.gen, based, max(f.next, l.least)); err != nil {
		return err
	}
	if f.cut {
		if err := f.dev.allocate(f.size); err != nil {
			return err
		}
		f.cut = false
	}
	// Behind the mark: an oversize record may be cut off once it is dead.
	if f.size > l.nominal {
		if err := f.dev.truncate(l.nominal); err != nil {
			return err
		}
		f.size = l.nominal
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	f.state = stateFree
	return nil
}

// append makes the rows durable as one record. There must be a current file;
// it grows if the record does not fit. bytes is at least the size of the
// payload. With ErrFull from growing, nothing has happened; after any other
// error the file is sealed.
func (l *commitLog) append(rows *rowMap, bytes int64) error {
	if err := l.grow(l.off + recordRoom(bytes)); err != nil {
		return err
	}
	// The buffer is the last record's, with room for the header in front.
	w := recordWriter{dev: l.cur.dev, off: l.off, buf: append(l.buf[:0], make([]byte, recordHead)...)}
	rows.Scan(func(key string, value []byte) bool {
		w.add(asBytes(key), value)
		return w.err == nil
	})
	r := record{gen: l.gen, seq: l.seq, base: l.base()}
	err := w.finish(&r, recordPos{l.id, l.cur.index, l.off})
	l.buf = w.buf
	// One sync for a commit. When it fails the kernel may have dropped the pages, so that no later
	// sync of this file proves anything.
	if err == nil {
		err = l.cur.dev.sync()
	}
	if err == nil {
		err = l.cur.uncut()
	}
	if err != nil {
		l.seal()
		return asFull(err)
	}
	// Not before the sync: a record that failed is void because its sequence is given again.
	l.off += r.blocks()
	l.seq++
	l.mu.Lock()
	l.cur.next = l.seq
	l.cur.bytes += bytes
	l.mu.Unlock()
	return nil
}

// uncut reports whether the file is as long as it was made: what is written behind a cut does not
// make it so again, but for the last record that fits.
func (f *logFile) uncut() error {
	size, err := f.dev.size()
	if f.cut = err == nil && size < f.size; f.cut {
		err = damaged(f.name, "was cut: it has %d bytes of %d", size, f.size)
	}
	return err
}

// recordRoom bounds what a record takes of a file.
func recordRoom(bytes int64) int64 { return record{size: uint64(bytes)}.blocks() }

func (l *commitLog) grow(end int64) error {
	if end <= l.cur.size {
		return nil
	}
	if err := l.cur.dev.allocate(end); err != nil {
		return errors.Join(asFull(err), l.cur.dev.truncate(l.cur.size))
	}
	l.cur.size = end
	return nil
}

// unnamed tells whether a file of the log has no name any more.
func (l *commitLog) unnamed() bool {
	for _, f := range l.files {
		if d, ok := f.dev.(interface{ names() uint64 }); ok && d.names() == 0 {
			return true
		}
	}
	return false
}

func (l *commitLog) close() error {
	if l == nil {
		return nil
	}
	var errs []error
	for _, f := range l.files {
		if f != nil && f.dev != nil {
			errs = append(errs, f.dev.Close())
		}
	}
	return errors.Join(errs...)
}

// recordWriter writes a record in pieces of chunkSize, the first block last
// because the header has the checksum of all. Most records are one piece.
type recordWriter struct {
	dev   logDevice
	off   int64 // where buf goes
	buf   []byte
	first []byte // the record's first block, once more than one piece is written
	size  uint64 // of the payload written out
	crc   uint32
	err   error
}

func (w *recordWriter) add(key, value []byte) {
	w.buf = appendChange(w.buf, key, value)
	if len(w.buf) >= chunkSize+blockSize && w.err == nil {
		w.err = w.flush()
	}
}

// flush writes the whole blocks and keeps the rest.
func (w *recordWriter) flush() error {
	n := len(w.buf) / blockSize * blockSize
	out := w.buf[:n]
	if w.first == nil {
		w.count(out[recordHead:])
		// Kept, as its header is not known yet.
		w.first = append([]byte(nil), out[:blockSize]...)
		out = out[blockSize:]
		w.off += blockSize
	} else {
		w.count(out)
	}
	if _, err := w.dev.WriteAt(out, w.off); err != nil {
		return err
	}
	w.off += int64(len(out))
	w.buf = w.buf[:copy(w.buf, w.buf[n:])]
	return nil
}

func (w *recordWriter) count(payload []byte) {
	w.size += uint64(len(payload))
	w.crc = crc32.Update(w.crc, castagnoli(), payload)
}

// finish completes r with the payload's size and checksum.
func (w *recordWriter) finish(r *record, at recordPos) error {
	if w.err != nil {
		return w.err
	}
	payload := w.buf
	if w.first == nil {
		payload = w.buf[recordHead:]
	}
	w.count(payload)
	r.size, r.crc = w.size, w.crc
	// Whole blocks: the rest of a block would have to be read, and could be torn with it.
	if rest := len(w.buf) % blockSize; rest != 0 {
		w.buf = append(w.buf, make([]byte, blockSize-rest)...)
	}
	if w.first == nil {
		r.encode(w.buf, at)
		_, err := w.dev.WriteAt(w.buf, w.off)
		return err
	}
	// The header last, though nothing is synced between: a scan that finds it checks all the rest.
	if _, err := w.dev.WriteAt(w.buf, w.off); err != nil {
		return err
	}
	r.encode(w.first, at)
	_, err := w.dev.WriteAt(w.first, at.off)
	return err
}
