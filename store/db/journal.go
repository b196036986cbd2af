package db

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/dgraph-io/badger/v4"
)

// A journal makes a commit atomic that is too large for one transaction. Its
// rows are under keys that sort above all others:
//
//	FF FF 'j' + number (4B, big-endian)   a chunk: changes, one after another
//	FF FF 'm'                             the marker: all chunks are durable
//
//	change: +--------+--------------+-----+ and for a set  +----------------+-------+
//	        | op 0/1 | key (varint) | key |                | value (varint) | value |
//	        +--------+--------------+-----+                +----------------+-------+
//	marker: +--------------+-------------+-----------+--------------------------+
//	        | version (1B) | chunks (4B) | rows (8B) | CRC32C of all chunks (4B)|
//	        +--------------+-------------+-----------+--------------------------+
var (
	reservedPrefix = []byte{0xff, 0xff}
	badgerPrefix   = []byte("!badger!")
	chunkPrefix    = []byte{0xff, 0xff, 'j'}
	markerKey      = []byte{0xff, 0xff, 'm'}
)

const (
	journalVersion = 1
	markerSize     = 1 + 4 + 8 + 4
	// chunkSize is when a chunk is written, and with one more row of the
	// largest size it is still a value that Badger keeps in its tree.
	chunkSize = 256 << 10

	opDelete = 0
	opSet    = 1
)

func chunkKey(n uint32) []byte {
	return binary.BigEndian.AppendUint32(append([]byte(nil), chunkPrefix...), n)
}

func appendChange(buf, key, value []byte) []byte {
	op := byte(opSet)
	if value == nil {
		op = opDelete
	}
	buf = append(buf, op)
	buf = binary.AppendUvarint(buf, uint64(len(key)))
	buf = append(buf, key...)
	if op == opSet {
		buf = binary.AppendUvarint(buf, uint64(len(value)))
		buf = append(buf, value...)
	}
	return buf
}

// nextChange returns the first change in chunk, as parts of it, and the rest.
func nextChange(chunk []byte) (key, value, rest []byte, err error) {
	op := chunk[0]
	if op > opSet {
		return nil, nil, nil, fmt.Errorf("%w: journal operation %d", ErrCorrupt, op)
	}
	key, rest, err = nextBytes(chunk[1:])
	if err != nil || op == opDelete {
		return key, nil, rest, err
	}
	value, rest, err = nextBytes(rest)
	return key, value, rest, err
}

func nextBytes(b []byte) (data, rest []byte, err error) {
	n, size := binary.Uvarint(b)
	if size <= 0 || n > uint64(len(b)-size) {
		return nil, nil, fmt.Errorf("%w: journal chunk ends early", ErrCorrupt)
	}
	end := size + int(n)
	return b[size:end:end], b[end:], nil
}

type marker struct {
	chunks uint32
	rows   uint64
	crc    uint32
}

func (m marker) encode() []byte {
	b := append(make([]byte, 0, markerSize), journalVersion)
	b = binary.BigEndian.AppendUint32(b, m.chunks)
	b = binary.BigEndian.AppendUint64(b, m.rows)
	return binary.BigEndian.AppendUint32(b, m.crc)
}

func parseMarker(b []byte) (marker, error) {
	if len(b) != markerSize || b[0] != journalVersion {
		return marker{}, fmt.Errorf("%w: journal marker %x", ErrCorrupt, b)
	}
	return marker{
		chunks: binary.BigEndian.Uint32(b[1:]),
		rows:   binary.BigEndian.Uint64(b[5:]),
		crc:    binary.BigEndian.Uint32(b[13:]),
	}, nil
}

func (m *marker) add(chunk []byte) {
	m.chunks++
	m.crc = crc32.Update(m.crc, crc32.MakeTable(crc32.Castagnoli), chunk)
}

// journaled writes rows atomically in four synced steps: chunks, marker, the
// rows themselves, and the removal of marker and chunks together.
func (w *writer) journaled(rows *rowMap) error {
	defer w.discard()
	m, err := w.writeChunks(rows)
	if err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	if err := w.put(markerKey, m.encode()); err != nil {
		return fmt.Errorf("write journal marker: %w", err)
	}
	if err := w.sync(); err != nil {
		return fmt.Errorf("write journal marker: %w", err)
	}
	if err := w.apply(rows); err != nil {
		return fmt.Errorf("apply journal: %w", err)
	}
	if err := w.removeJournal(m.chunks); err != nil {
		return fmt.Errorf("remove journal: %w", err)
	}
	return nil
}

func (w *writer) writeChunks(rows *rowMap) (marker, error) {
	m := marker{rows: uint64(rows.Len())}
	var chunk []byte
	var err error
	flush := func() {
		err = w.put(chunkKey(m.chunks), chunk)
		m.add(chunk)
		chunk = nil
	}
	rows.Scan(func(key string, value []byte) bool {
		if chunk == nil {
			chunk = make([]byte, 0, chunkSize+4096)
		}
		chunk = appendChange(chunk, asBytes(key), value)
		if len(chunk) >= chunkSize {
			flush()
		}
		return err == nil
	})
	if err == nil && len(chunk) > 0 {
		flush()
	}
	if err != nil {
		return m, err
	}
	return m, w.sync()
}

// removeJournal deletes the marker with the chunks, in one transaction, so that
// no marker is ever found with only some of its chunks.
func (w *writer) removeJournal(chunks uint32) error {
	if err := w.put(markerKey, nil); err != nil {
		return err
	}
	for n := range chunks {
		if err := w.put(chunkKey(n), nil); err != nil {
			return err
		}
	}
	return w.sync()
}

// recoverJournal finishes a commit whose marker is there and removes the chunks
// of one whose marker is not.
func (d *DB) recoverJournal() error {
	value, err := d.stored(markerKey)
	switch {
	case errors.Is(err, ErrNotFound):
		return d.dropChunks()
	case err != nil:
		return err
	}
	want, err := parseMarker(value)
	if err != nil {
		return err
	}
	if err := d.checkJournal(want); err != nil {
		return err
	}
	d.log.Info("finishing a commit that was interrupted", "rows", want.rows)
	w := d.newWriter()
	defer w.discard()
	if err := d.eachChunk(w.replay); err != nil {
		return err
	}
	if err := w.sync(); err != nil {
		return err
	}
	if err := w.removeJournal(want.chunks); err != nil {
		return err
	}
	d.recovered(w)
	return nil
}

func (d *DB) dropChunks() error {
	w := d.newWriter()
	defer w.discard()
	err := d.eachChunk(func(key, _ []byte) error { return w.put(append([]byte(nil), key...), nil) })
	if err != nil {
		return err
	}
	if w.txn == nil {
		return nil
	}
	d.log.Info("undoing a commit that was interrupted")
	if err := w.sync(); err != nil {
		return err
	}
	d.recovered(w)
	return nil
}

func (d *DB) recovered(w *writer) {
	d.mu.ts = w.ts
	d.kv.SetDiscardTs(w.ts)
}

// checkJournal reads all chunks before any is applied.
func (d *DB) checkJournal(want marker) error {
	var got marker
	err := d.eachChunk(func(_, chunk []byte) error {
		got.add(chunk)
		for len(chunk) > 0 {
			_, _, rest, err := nextChange(chunk)
			if err != nil {
				return err
			}
			chunk = rest
			got.rows++
		}
		return nil
	})
	if err == nil && got != want {
		err = fmt.Errorf("%w: journal has %+v, its marker says %+v", ErrCorrupt, got, want)
	}
	return err
}

func (w *writer) replay(_, chunk []byte) error {
	// Badger reuses the slice it passes, and rows are kept until their commit.
	chunk = append([]byte(nil), chunk...)
	for len(chunk) > 0 {
		key, value, rest, err := nextChange(chunk)
		if err != nil {
			return err
		}
		if err := w.put(key, value); err != nil {
			return err
		}
		chunk = rest
	}
	return nil
}

func (d *DB) eachChunk(fn func(key, value []byte) error) error {
	txn := d.kv.NewTransactionAt(d.mu.ts, false)
	defer txn.Discard()
	it := txn.NewIterator(badger.IteratorOptions{Prefix: chunkPrefix})
	defer it.Close()
	for it.Seek(chunkPrefix); it.Valid(); it.Next() {
		if err := emit(it.Item(), fn); err != nil {
			return err
		}
	}
	return nil
}
