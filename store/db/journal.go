package db

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/dgraph-io/badger/v4"
)

// A journal is how commits larger than a Badger transaction were made atomic
// before there was a log. A database that such a commit was interrupted in has
// one. Its rows are under keys that sort above all others:
//
//	FF FF 'j' + number (4B, big-endian)   a chunk: changes, one after another
//	FF FF 'm'                             the marker: all chunks are durable
//
//	marker: +--------------+-------------+-----------+--------------------------+
//	        | version (1B) | chunks (4B) | rows (8B) | CRC32C of all chunks (4B)|
//	        +--------------+-------------+-----------+--------------------------+
var (
	reservedPrefix = []byte{0xff, 0xff}
	badgerPrefix   = []byte("!badger!")
	chunkPrefix    = []byte{0xff, 0xff, 'j'}
	markerKey      = []byte{0xff, 0xff, 'm'}
	rebasedKey     = []byte{0xff, 0xff, 'r'} // set when a base has caught up; of no meaning
)

const (
	journalVersion = 1
	markerSize     = 1 + 4 + 8 + 4
)

type marker struct {
	chunks uint32
	rows   uint64
	crc    uint32
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
	m.crc = crc32.Update(m.crc, castagnoli(), chunk)
}

// recoverJournal finishes a commit whose marker is there and removes the chunks
// of one whose marker is not.
func (d *DB) recoverJournal() error {
	w := &d.mu.base.writer
	marked, err := d.checkJournal()
	if err != nil {
		return err
	}
	var keys [][]byte
	err = d.eachChunk(func(key, chunk []byte) error {
		keys = append(keys, bytes.Clone(key))
		if !marked {
			return nil
		}
		// Badger reuses the slice it passes, and rows are kept until their commit.
		return eachChange(bytes.Clone(chunk), w.put)
	})
	defer w.discard()
	if err != nil || (!marked && len(keys) == 0) {
		return err
	}
	d.log.Info("ending a commit that was interrupted", "finished", marked)
	// The changes are durable before the journal goes, and its marker goes with
	// all chunks in one transaction.
	if err := w.settle(); err != nil {
		return err
	}
	for _, key := range append(keys, markerKey) {
		if err := w.put(key, nil); err != nil {
			return err
		}
	}
	return w.settle()
}

// checkJournal tells whether there is a marker, and if so that all chunks are
// as it says, before any is applied.
func (d *DB) checkJournal() (bool, error) {
	value, err := d.mu.base.get(markerKey)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	want, err := parseMarker(value)
	if err != nil {
		return false, err
	}
	var got marker
	err = d.eachChunk(func(_, chunk []byte) error {
		got.add(chunk)
		return eachChange(chunk, func(_, _ []byte) error { got.rows++; return nil })
	})
	if err == nil && got != want {
		err = fmt.Errorf("%w: journal has %+v, its marker says %+v", ErrCorrupt, got, want)
	}
	return true, err
}

func (d *DB) eachChunk(fn func(key, value []byte) error) error {
	txn := d.mu.base.kv.NewTransactionAt(latest, false)
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
