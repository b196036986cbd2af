package db

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
)

// found is a record that a scan has read and checked.
type found struct {
	record
	file *logFile
	off  int64
}

// chain is what a scan finds in one file.
type chain struct {
	file    *logFile
	records []found // one generation, sequences without a gap
	freed   uint64  // generations up to this are dead
	end     int64   // where the next record would be
	highest uint64  // generation of any live header seen
}

func (c chain) empty() bool   { return len(c.records) == 0 }
func (c chain) first() record { return c.records[0].record }
func (c chain) last() record  { return c.records[len(c.records)-1].record }

// recover returns the records that Badger may lack, in the order of commits.
// It must be followed by their replay and reset. A record that was never
// acknowledged because writing it was cut short is left out; any other that is
// missing or damaged gives ErrCorrupt, except the very last one, which cannot
// be told from one cut short.
func (l *commitLog) recover() ([]found, error) {
	var chains [2]chain
	for i, f := range l.files {
		c, err := l.scan(f)
		if err != nil {
			return nil, err
		}
		// What the instance has by its own list need not be here, nor be whole.
		c.records = slices.DeleteFunc(c.records, func(r found) bool { return r.seq < l.least })
		chains[i] = c
		l.gen = max(l.gen, f.freed, c.highest)
	}
	for i, f := range l.files {
		// Whatever is there is needed until reset.
		f.state, f.gen = stateSealed, max(f.freed, chains[i].highest)
	}
	older, newer := chains[0], chains[1]
	if older.file.gen > newer.file.gen {
		older, newer = newer, older
	}
	return l.join(older, newer)
}

// join puts the records of both files together.
func (l *commitLog) join(older, newer chain) ([]found, error) {
	if newer.empty() {
		older, newer = newer, older
	}
	l.seq = max(l.seq, l.least)
	if newer.empty() {
		return nil, nil
	}
	last := newer.last()
	need, next := max(last.base, l.least), newer.first().seq
	if older.file.freed+1 >= last.gen {
		// Every generation before was released, if only after last was written.
		need = next
	}
	l.seq = last.seq + 1
	records := older.records
	// From the end: only the last record of a file can have failed and be there all the same.
	for len(records) > 0 && records[len(records)-1].seq >= next {
		// Its writing failed, and it was written again to the newer file.
		records = records[:len(records)-1]
	}
	if need < next {
		if len(records) == 0 || records[0].seq > need || records[len(records)-1].seq+1 != next {
			return nil, damaged(older.file.name, "at offset %d lacks commits up to %d (needed from %d)", older.end, next-1, need)
		}
	} else {
		records = nil
	}
	return append(records[:len(records):len(records)], newer.records...), nil
}

// scan reads the records of a file up to the first that is not there as a whole.
func (l *commitLog) scan(f *logFile) (chain, error) {
	c := chain{file: f, end: logStart, freed: l.freed()}
	for {
		r, ok, err := l.header(f, c.end)
		if err != nil {
			return c, err
		}
		if !ok || !c.continues(r) || c.end+r.blocks() > f.size {
			return c, l.damage(&c)
		}
		// Counted although the payload may not be whole: the generation was begun.
		c.highest = max(c.highest, r.gen)
		if ok, err = f.intact(c.end, r); err != nil {
			return c, err
		}
		if !ok {
			return c, l.damage(&c)
		}
		c.records = append(c.records, found{r, f, c.end})
		c.end += r.blocks()
	}
}

// continues tells whether r can follow what the chain has.
func (c chain) continues(r record) bool {
	if c.empty() {
		return r.gen > c.freed
	}
	return r.gen == c.last().gen && r.seq == c.last().seq+1
}

func (l *commitLog) header(f *logFile, off int64) (record, bool, error) {
	if off+blockSize > f.size {
		return record{}, false, nil
	}
	var b [recordHead]byte
	if err := readAt(f.dev, b[:], off); err != nil {
		return record{}, false, fmt.Errorf("%s at offset %d: %w", f.name, off, err)
	}
	r, ok := parseRecord(b[:], recordPos{l.id, f.index, off})
	return r, ok, nil
}

func readAt(dev logDevice, b []byte, off int64) error {
	n, err := dev.ReadAt(b, off)
	if n == len(b) || errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// intact tells whether the payload matches its checksum.
func (f *logFile) intact(off int64, r record) (bool, error) {
	var crc uint32
	// In parts, as a commit may have been hundreds of megabytes.
	buf := make([]byte, min(int64(r.size), chunkSize))
	for at, left := off+recordHead, int64(r.size); left > 0; {
		part := buf[:min(left, int64(len(buf)))]
		if err := readAt(f.dev, part, at); err != nil {
			return false, fmt.Errorf("%s at offset %d: %w", f.name, at, err)
		}
		crc = crc32.Update(crc, castagnoli(), part)
		at += int64(len(part))
		left -= int64(len(part))
	}
	return crc == r.crc, nil
}

// damage looks behind the end of a chain. A record was begun only after the one
// before it had been acknowledged, or had failed, which ends the file. So a
// later one of the same generation proves that the record at the end, which is
// not whole, had been.
func (l *commitLog) damage(c *chain) error {
	// Without a record before, any generation that is not dead counts.
	gen, seq := uint64(0), uint64(0)
	if !c.empty() {
		gen, seq = c.last().gen, c.last().seq+1
	}
	buf := make([]byte, chunkSize)
	for off := c.end; off < c.file.size; off += chunkSize {
		part := buf[:min(chunkSize, c.file.size-off)]
		if err := readAt(c.file.dev, part, off); err != nil {
			return fmt.Errorf("%s at offset %d: %w", c.file.name, off, err)
		}
		for at := 0; at+recordHead <= len(part); at += blockSize {
			r, ok := parseRecord(part[at:], recordPos{l.id, c.file.index, off + int64(at)})
			if !ok || r.gen <= c.freed || (gen != 0 && r.gen != gen) || r.seq < seq {
				continue
			}
			c.highest = max(c.highest, r.gen)
			// The header at the end is whole, its payload is not: only what follows it proves that
			// it was.
			if off+int64(at) == c.end {
				gen, seq = r.gen, r.seq
				continue
			}
			return damaged(c.file.name, "at offset %d is damaged, and a record follows at %d", c.end, off+int64(at))
		}
	}
	return nil
}

// payload reads the changes of a record.
func (r found) payload() ([]byte, error) {
	b := make([]byte, r.size)
	if err := readAt(r.file.dev, b, r.off+recordHead); err != nil {
		return nil, fmt.Errorf("%s at offset %d: %w", r.file.name, r.off, err)
	}
	if crc32.Checksum(b, castagnoli()) != r.crc {
		return nil, fmt.Errorf("%w: %s at offset %d: changed while it was read", ErrCorrupt, r.file.name, r.off)
	}
	return b, nil
}

// freed is the generation up to which all were released, of both files: the oldest was
// first. So a file that says less of itself is an older copy.
func (l *commitLog) freed() (freed uint64) {
	for _, f := range l.files {
		if f != nil {
			freed = max(freed, f.freed)
		}
	}
	return freed
}

// reset releases all files, the oldest first.
func (l *commitLog) reset(based uint64) error {
	l.least = l.seq // all commits are in the instance
	for f := l.sealed(); f != nil; f = l.sealed() {
		// Nothing was written since its release: a header would say the same again.
		if f.gen == f.freed && f.size <= l.nominal && !(f.old && based > 0) {
			l.mu.Lock()
			f.state = stateFree
			l.mu.Unlock()
			continue
		}
		if err := l.release(f, based); err != nil {
			return fmt.Errorf("release %s: %w", f.name, asFull(err))
		}
	}
	return nil
}
