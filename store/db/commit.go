package db

import (
	"fmt"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/tidwall/btree"
)

// rowMap is a copy of an overlay's rows that nobody changes any more.
type rowMap = btree.Map[string, []byte]

// Freeze makes the active overlay the frozen one, which the next Write commits.
// If a frozen one is left from a Write that failed, the active changes are
// merged over it. Freeze waits for a Write under way.
func (d *DB) Freeze() {
	d.writing.Lock()
	defer d.writing.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mu.frozen.rows.Len() == 0 {
		d.mu.frozen = d.mu.active
	} else {
		d.mu.frozen.merge(d.mu.active)
	}
	d.mu.active = new(overlay)
}

// Write commits the frozen overlay and extra, which wins over it, in one atomic
// and durable step. One of three things happens:
//  1. All of it is durable, and nil is returned. With nothing to write this
//     costs nothing.
//  2. There is no room: ErrFull. Nothing is written; the rows, extra's too,
//     stay readable and belong to the next Freeze and Write.
//  3. The disk failed: its error, and ErrFailed from every later Write. The rows
//     stay readable. After reopening either all of them are there or none.
//
// Write owns the slices in extra, as Apply does; extra may be nil.
func (d *DB) Write(extra *Batch) error {
	d.writing.Lock()
	defer d.writing.Unlock()
	rows, bytes, err := d.take(extra)
	if err != nil || rows.Len() == 0 {
		return err
	}
	begun := time.Now()
	if err := d.commit(rows, bytes); err != nil {
		d.meter.failed()
		return fmt.Errorf("commit %d rows (%d bytes): %w", rows.Len(), bytes, err)
	}
	d.meter.committed(rows.Len(), bytes, time.Since(begun))
	d.wal.prepare(bytes)
	d.restoreBallast()
	return nil
}

// take merges extra into the frozen overlay and returns a copy of that.
func (d *DB) take(extra *Batch) (*rowMap, int64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if extra != nil {
		for _, r := range extra.rows {
			d.mu.frozen.set(asString(r.key), r.value)
		}
	}
	if d.mu.closed {
		return nil, 0, ErrClosed
	}
	if d.failed != nil {
		return nil, 0, fmt.Errorf("%w: %w", ErrFailed, d.failed)
	}
	return d.mu.frozen.snapshot(), d.mu.frozen.bytes, nil
}

func (d *DB) commit(rows *rowMap, bytes int64) error {
	oversize := rows.Len() > d.maxRows || bytes > d.maxBytes
	if err := d.roomToCommit(bytes, oversize); err != nil {
		return err
	}
	if err := d.wal.reserve(bytes); err != nil {
		return err
	}
	w := d.newWriter()
	var err error
	if oversize {
		err = w.journaled(rows)
	} else {
		err = w.apply(rows)
	}
	if err != nil {
		// Which pages of the log reached the disk is unknown, and the kernel
		// reports a failed write-back once: a retry would seem to succeed.
		d.failed = err
		return err
	}
	d.mu.Lock()
	d.mu.frozen = new(overlay)
	d.mu.ts = w.ts
	d.mu.Unlock()
	d.kv.SetDiscardTs(d.readers.oldest(w.ts))
	return nil
}

// writer splits a sequence of rows into Badger transactions. Nothing is durable
// before sync.
type writer struct {
	d     *DB
	txn   *badger.Txn
	rows  int
	bytes int64
	ts    uint64 // of the last transaction

	entries []badger.Entry // unused ones, made many at a time
}

const entrySlab = 64

func (d *DB) newWriter() *writer { return &writer{d: d, ts: d.mu.ts} }

// put adds a change, committing what is gathered if it would become too large;
// a nil value deletes.
func (w *writer) put(key, value []byte) error {
	size := rowSize(len(key), len(value))
	if w.rows+1 > w.d.maxRows || w.bytes+size > w.d.maxBytes {
		if err := w.commit(); err != nil {
			return err
		}
	}
	if w.txn == nil {
		w.txn = w.d.kv.NewTransactionAt(w.ts, true)
	}
	w.rows++
	w.bytes += size
	if value == nil {
		return w.txn.Delete(key)
	}
	if len(w.entries) == 0 {
		w.entries = make([]badger.Entry, entrySlab)
	}
	e := &w.entries[0]
	w.entries = w.entries[1:]
	e.Key, e.Value = key, value
	return w.txn.SetEntry(e)
}

func (w *writer) commit() error {
	if w.txn == nil {
		return nil
	}
	txn, bytes := w.txn, w.bytes
	w.txn, w.rows, w.bytes = nil, 0, 0
	w.ts++
	if err := txn.CommitAt(w.ts, nil); err != nil {
		return err
	}
	defer w.d.step()
	return w.d.wal.follow(bytes)
}

// sync commits what is gathered and makes everything durable.
func (w *writer) sync() error {
	if err := w.commit(); err != nil {
		return err
	}
	defer w.d.step()
	return w.d.wal.sync()
}

func (d *DB) step() {
	if d.committed != nil {
		d.committed()
	}
}

// apply writes all rows and syncs; it is atomic if they fit in one transaction.
func (w *writer) apply(rows *rowMap) error {
	var err error
	rows.Scan(func(key string, value []byte) bool {
		err = w.put(asBytes(key), value)
		return err == nil
	})
	if err != nil {
		w.discard()
		return err
	}
	return w.sync()
}

func (w *writer) discard() {
	if w.txn != nil {
		w.txn.Discard()
		w.txn = nil
	}
}
