package db

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// flushKey is a row that is written only to be dropped again.
var flushKey = []byte{0xff, 0xff, 'f'}

// Compact gives back what deleted and replaced rows take on the disk, and
// returns how many bytes that is. Commits wait; readers go on, but for the moment
// in which the memtable is written out. Errors: ErrFull, ErrCorrupt, ErrFailed, those
// of the disk. If rows would have been lost, no more commits are taken, and
// opening the database again goes back to before.
func (d *DB) Compact() (int64, error) { return d.compact(d.flushMemTable) }

// compact has Badger make new tables, after flush, of those that there are.
func (d *DB) compact(flush func() error) (int64, error) {
	// Damage would pass for the end of a table.
	if err := d.Verify(); err != nil {
		return 0, fmt.Errorf("compact database: %w", err)
	}
	d.writing.Lock()
	defer d.writing.Unlock()
	if err := d.use(); err != nil {
		return 0, err
	}
	defer d.users.Done()
	if err := d.drain(); err != nil {
		return 0, err
	}
	before, err := d.diskBytes()
	if err != nil {
		return 0, err
	}
	// Tables are written anew before the old ones go.
	if err := fits(before+2*d.opt.MemTable, d.gate.refresh()); err != nil {
		return 0, err
	}
	if err := d.guarded(flush); err != nil {
		return 0, fmt.Errorf("compact database: %w", err)
	}
	after, err := d.diskBytes()
	return max(0, before-after), err
}

// guarded compacts with a guard.
func (d *DB) guarded(flush func() error) error {
	g, err := d.begin()
	if err != nil {
		return err
	}
	err = flush()
	if err != nil && !errors.Is(err, ErrFull) {
		return err // and no more commits are taken
	}
	if err == nil {
		if ferr := d.kv.Flatten(1); ferr != nil {
			d.log.Debug("database not compacted to the end", "err", ferr)
		}
	}
	if rerr := g.release(); rerr != nil {
		d.log.Error("a compaction of the database failed; unmounting and mounting again goes back to before it", "err", rerr)
		return d.applier.fail(rerr)
	}
	return err
}

// Badger compacts when it is asked to, not by itself: nobody could tell
// then what it lost.
const (
	crowdedTables = 5  // of level 0, if they are worth it
	tooManyTables = 64 // of level 0
	// compactAgain is how long after an attempt the next one may be made.
	compactAgain = time.Minute
)

// crowded tells whether look-ups pass through too many tables. All of the
// database is written anew, so it shall have grown by a half, or be read slowly.
func (d *DB) crowded() bool {
	var n int
	var top, below int64
	for _, l := range d.kv.Levels() {
		if l.Level == 0 {
			n, top = l.NumTables, l.Size
		} else {
			below += l.Size
		}
	}
	return n >= tooManyTables || n >= crowdedTables && 2*top >= below
}

// A compactor compacts in the background. The applier wakes it.
type compactor struct {
	kick chan struct{} // capacity 1
	stop chan struct{}
	done chan struct{}
	once sync.Once
}

func newCompactor() *compactor {
	return &compactor{kick: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
}

// end waits for a compaction under way.
func (c *compactor) end() {
	c.once.Do(func() { close(c.stop) })
	<-c.done
}

func (d *DB) runCompactor() {
	c := d.compactor
	defer close(c.done)
	var tried time.Time
	for {
		select {
		case <-c.kick:
		case <-c.stop:
			return
		}
		if !tried.IsZero() && time.Since(tried) < compactAgain {
			continue
		}
		tried = time.Now()
		if _, err := d.compact(func() error { return nil }); err != nil {
			d.log.Warn("database not compacted; it will be tried again", "err", err)
			continue
		}
		d.log.Info("database compacted", "took", time.Since(tried))
		if !d.crowded() {
			tried = time.Time{}
		}
	}
}

// considerCompacting wakes the compactor if there is work for it.
func (d *DB) considerCompacting() {
	if d.crowded() {
		select {
		case d.compactor.kick <- struct{}{}:
		default:
		}
	}
}

// drain has all commits carried into Badger and all log files released. Until
// the caller, who holds writing, lets it go, the applier then has nothing to do
// and leaves its writer alone.
func (d *DB) drain() error {
	d.clog.seal()
	return d.applier.wait(func() bool { return d.clog.sealed() == nil })
}

// flushMemTable has Badger turn its memtable into a table. That is the first
// thing that DropPrefix does, and the only way to ask for it. The log must be
// drained.
func (d *DB) flushMemTable() error {
	w := &d.writer
	err := w.put(flushKey, []byte{})
	if err == nil {
		err = w.commit()
	}
	if err != nil {
		w.discard()
		if errors.Is(err, ErrFull) {
			return err
		}
		return d.applier.fail(err)
	}
	d.mu.Lock()
	d.mu.ts = w.ts
	d.mu.Unlock()
	d.kv.SetDiscardTs(d.readers.oldest(w.ts))
	err = d.kv.DropPrefix(flushKey)
	if err == nil {
		err = d.wal.follow(0) // the log has a successor now
	}
	if err == nil {
		err = d.wal.checkpoint()
	}
	if err != nil {
		return d.applier.fail(err)
	}
	return nil
}

// diskBytes returns what Badger's files take.
func (d *DB) diskBytes() (int64, error) {
	var sum int64
	names, err := filepath.Glob(filepath.Join(d.opt.Dir, "*"))
	for _, name := range names {
		var st unix.Stat_t
		switch serr := unix.Lstat(name, &st); {
		case filepath.Base(name) == ballastName, isLog(name), errors.Is(serr, fs.ErrNotExist):
		case serr != nil:
			return 0, &os.PathError{Op: "stat", Path: name, Err: serr}
		default:
			sum += st.Blocks * 512
		}
	}
	return sum, err
}

func isLog(name string) bool { return strings.HasPrefix(filepath.Base(name), logPrefix) }
