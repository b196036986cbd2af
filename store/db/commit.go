package db

import (
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/tidwall/btree"
)

// rowMap is a copy of an overlay's rows that nobody changes any more.
type rowMap = btree.Map[string, []byte]

// A Follower has the commits of a database elsewhere. Its methods are called by Write, one at a
// time.
type Follower interface {
	// Row is one more row of the commit that is made next: by it a copy of the database tells up to
	// where it goes. After an error nothing is written, and it is asked for again.
	Row() (key, value []byte, err error)
	// Follow is called when the commit is durable here, with all its changes in order of keys; a
	// nil value deletes. The slices are valid while it runs. It may take long: Write waits for it.
	// After an error Write fails with it, and so does every later one: what is durable here is told
	// nobody.
	Follow(changes iter.Seq2[[]byte, []byte]) error
}

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
	// From here on changes belong to the next Freeze.
	d.mu.active = new(overlay)
}

// Write commits the frozen overlay and extra, which wins over it, in one atomic
// and durable step, whatever its size. One of five things happens:
//  1. All of it is durable, and nil is returned. With nothing to write this
//     costs nothing.
//  2. There is no room: ErrFull.
//  3. The disk failed: its error. The next Write begins afresh elsewhere.
//  4. An earlier commit, though durable, could not be carried into Badger:
//     ErrFailed, from every Write until the database is opened again; or it is open for
//     reading only: ErrReadOnly; or its files were removed: ErrRemoved, also with nothing to write,
//     since what was written before is as lost.
//  5. The Follower has failed: its error, from every Write as above. The commit is durable here.
//
// After all but the first and the last nothing counts as written, and the rows, extra's too,
// stay readable and belong to the next Freeze and Write. When the database is
// opened again without one, either all of them are there or none.
//
// Write owns the slices in extra, as Apply does; extra may be nil.
func (d *DB) Write(extra *Batch) (err error) {
	if d.opt.ReadOnly {
		return ErrReadOnly
	}
	d.writing.Lock()
	defer d.writing.Unlock()
	// Also with nothing to write: who asks now may have changed what is in the commit that failed.
	if d.unfollowed != nil {
		return d.unfollowed
	}
	// A copy is written, so that readers and Set go on while the disk works.
	rows, bytes, err := d.take(extra)
	if err == nil && rows.Len() > 0 && d.opt.Follower != nil {
		rows, bytes, err = d.takeRow()
	}
	if err != nil {
		return err
	}
	// Also when nothing was written, or nothing could be: other programs fill the disk meanwhile.
	defer d.restoreBallast()
	// Looked at last: a file that is removed a moment later was there when this commit was made.
	defer func() {
		if err == nil && d.removed() {
			err = ErrRemoved
		}
	}()
	if rows.Len() == 0 {
		return nil
	}
	begun := time.Now()
	if err := d.commit(rows, bytes); err != nil {
		d.meter.failed()
		return fmt.Errorf("commit %d rows (%d bytes): %w", rows.Len(), bytes, err)
	}
	d.meter.committed(rows.Len(), bytes, time.Since(begun))
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
	return d.mu.frozen.snapshot(), d.mu.frozen.bytes, nil
}

// takeRow adds the follower's row to what take has taken.
func (d *DB) takeRow() (*rowMap, int64, error) {
	key, value, err := d.opt.Follower.Row()
	if err != nil {
		return nil, 0, err
	}
	var b Batch
	b.Set(key, value)
	return d.take(&b)
}

func (d *DB) commit(rows *rowMap, bytes int64) error {
	if err := d.applier.failure(); err != nil {
		return err
	}
	// Room first: behind this point the commit is in the log and has to be applied.
	if err := d.roomToCommit(bytes); err != nil {
		return err
	}
	// Before the log's room: a round that takes a layer may release a file as well.
	if d.layers() >= maxLayers {
		err := d.applier.wait(func() bool { return d.layers() < maxLayers })
		if err != nil && !errors.Is(err, ErrFull) {
			return err // on a full disk it waits in the log, and joins the newest layer
		}
	}
	if err := d.roomInLog(recordRoom(bytes)); err != nil {
		return err
	}
	// append is what makes it durable. After an error the file is sealed, and the applier empties
	// it.
	if err := d.clog.append(rows, bytes); err != nil {
		d.applier.wake()
		return err
	}
	// Durable now. Only then does the frozen overlay stop being what a failed Write gives back.
	d.committed(d.clog.seq - 1)
	d.commits.Store(d.clog.seq - 1)
	return d.follow(rows)
}

// follow lets the follower have what is durable here. That it came into the layers before keeps the
// log whole: its file is released when they are in Badger, also if nobody is told of the commit.
func (d *DB) follow(rows *rowMap) error {
	if d.opt.Follower == nil {
		return nil
	}
	err := d.opt.Follower.Follow(func(yield func(key, value []byte) bool) {
		rows.Scan(func(key string, value []byte) bool { return yield(asBytes(key), value) })
	})
	if err != nil {
		d.unfollowed = err
	}
	return err
}

// roomInLog sees to it that there is a current file, with room for a record of
// so many bytes unless no file has that.
func (d *DB) roomInLog(size int64) error {
	if d.clog.fits(size) || (d.clog.cur != nil && d.clog.oversize(size)) {
		return nil
	}
	// The other file is mostly free by now; otherwise this commit waits for the disk.
	d.clog.seal()
	d.applier.wake()
	if d.clog.begin() {
		return nil
	}
	if err := d.applier.wait(d.clog.free); err != nil {
		return err
	}
	d.clog.begin()
	return nil
}

func (d *DB) layers() int {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return len(d.mu.logged)
}

// committed moves the frozen overlay, which is durable now, to the logged ones.
func (d *DB) committed(seq uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	o := d.mu.frozen
	d.mu.frozen = new(overlay)
	n := len(d.mu.logged)
	// The newest layer takes more only while nobody is carrying it into Badger.
	if n > 1 || (n == 1 && !d.mu.applying) {
		if newest := d.mu.logged[n-1]; o.rows.Len() <= mergeRows || n >= maxLayers {
			newest.merge(o)
			o = newest
			n--
		}
	}
	if n == len(d.mu.logged) {
		o.first = seq
		d.mu.logged = append(d.mu.logged, o)
	}
	// A single small layer may wait for more; two mean that readers look twice.
	if n > 0 || o.bytes >= applyBytes || o.rows.Len() >= applyRows {
		d.applier.wake()
	}
}

// writer writes rows to an instance, in as many transactions as they need.
type writer struct {
	d     *DB
	b     *instance
	txn   *badger.Txn
	rows  int
	bytes int64
	ts    uint64 // of the last transaction
	still bool   // ts is also that of the next ones

	entries []badger.Entry // unused ones, made many at a time
}

const entrySlab = 64

// put adds a change, committing what is gathered if it would become too large;
// a nil value deletes.
func (w *writer) put(key, value []byte) error {
	size := rowSize(len(key), len(value))
	if w.rows+1 > w.d.maxRows || w.bytes+size > w.d.maxBytes {
		if err := w.commit(); err != nil {
			return err
		}
	}
	// At the version of the last one: in managed mode it is we who say what a transaction sees.
	if w.txn == nil {
		w.txn = w.b.kv.NewTransactionAt(w.ts, true)
	}
	w.rows++
	w.bytes += size
	if value == nil {
		return w.txn.Delete(key)
	}
	// Badger keeps the entry until the memtable goes, so it cannot be used again; making many at a
	// time saves an allocation a row.
	if len(w.entries) == 0 {
		w.entries = make([]badger.Entry, entrySlab)
	}
	e := &w.entries[0]
	w.entries = w.entries[1:]
	e.Key, e.Value = key, value
	return w.txn.SetEntry(e)
}

// commit ends the transaction. It is in memory then, and in Badger's log, but
// not durable. With ErrFull it is dropped.
func (w *writer) commit() error {
	if w.txn == nil {
		return nil
	}
	if err := w.b.wal.reserve(w.bytes); err != nil {
		return err
	}
	// Given up before it is tried: a transaction that failed in Badger cannot be tried again.
	txn, bytes := w.txn, w.bytes
	w.txn, w.rows, w.bytes = nil, 0, 0
	if !w.still {
		w.ts++
	}
	if err := txn.CommitAt(w.ts, nil); err != nil {
		return err
	}
	defer w.d.step(stepApplied)
	// Badger may have begun another log with this transaction.
	return w.b.wal.follow(bytes)
}

// apply writes all rows, or drops what is left of them.
func (w *writer) apply(rows *rowMap) error {
	defer w.discard()
	var err error
	rows.Scan(func(key string, value []byte) bool {
		err = w.put(asBytes(key), value)
		return err == nil
	})
	if err != nil {
		return err
	}
	return w.commit()
}

// flush ends the transaction and makes all of them durable.
func (w *writer) flush() error {
	if err := w.commit(); err != nil {
		return err
	}
	return w.b.wal.checkpoint()
}

func (w *writer) discard() {
	if w.txn != nil {
		w.txn.Discard()
		w.txn, w.rows, w.bytes = nil, 0, 0
	}
}

// What Options.step is told.
const (
	stepApplied  = "applied" // a Badger transaction
	stepSynced   = "synced"  // all of them
	stepReleased = "released"

	stepFollowed    = "followed"     // what the new instance has is synced
	stepChangedOver = "changed over" // to another instance
)

func (d *DB) step(what string) {
	if d.opt.step != nil {
		d.opt.step(what)
	}
}
