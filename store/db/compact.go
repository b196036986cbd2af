package db

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/store/routine"
)

// Compact gives back what deleted and replaced rows take on the disk, and
// returns how many bytes that is. All rows are copied into a new instance, which takes
// the place of the one in use; commits and readers go on. When a view is open since before the last
// compaction, nothing is done. Errors: ErrFull, ErrCorrupt, ErrClosed, ErrFailed, ErrReadOnly,
// those of the disk. After an error all is as before.
func (d *DB) Compact() (int64, error) {
	if d.opt.ReadOnly {
		return 0, ErrReadOnly
	}
	freed, err := d.compact(d.drainLog)
	if errors.Is(err, errStillRead) {
		d.log.Info("database not compacted", "why", err)
		return 0, nil
	}
	return freed, err
}

var errStillRead = errors.New("the tables of before the last compaction are still read")

// drainLog has the commits so far carried into the instance.
func (d *DB) drainLog() error {
	d.writing.Lock()
	// Not without room to apply it: a sealed file takes no commits, and these may be able to wait
	// in the log.
	err := d.room(d.roomToApply(d.unapplied()) + roundSlack)
	if err == nil {
		d.clog.seal()
	}
	d.writing.Unlock()
	if err != nil {
		return err
	}
	return d.applier.wait(func() bool { return d.clog.sealed() == nil })
}

func (d *DB) compact(before func() error) (int64, error) {
	c := d.compactor
	c.running.Lock()
	defer c.running.Unlock()
	if c.stopped() {
		return 0, ErrClosed
	}
	// There are two directories: while readers hold the one of before, there is no third.
	if c.retiring.Load() {
		return 0, errStillRead
	}
	// Its files stay mapped until leave, though it is replaced meanwhile.
	from, err := d.use()
	if err != nil {
		return 0, err
	}
	var freed int64
	// Asked first: on a full disk, ballast given up for what does not fit after all would be
	// wasted.
	if err = d.roomToRewrite(from); err == nil {
		err = before()
	}
	if err == nil {
		freed, err = d.rewriteInstance(from)
	}
	from.leave()
	if err != nil {
		return 0, fmt.Errorf("compact database: %w", err)
	}
	d.retire(from)
	// Closing makes one more table, if only of a row, so that much is not given back for good.
	if freed <= leastTable {
		freed = 0
	}
	return freed, nil
}

// leastTable is what the smallest table takes on most disks, in bytes.
const leastTable = 4 << 10

// retire discards an instance that was in use, at once or when its last reader is done.
func (d *DB) retire(b *instance) {
	select {
	case <-b.idle:
		d.discard(b)
		return
	default:
	}
	c := d.compactor
	c.retiring.Store(true)
	c.retired.Go(func() {
		<-b.idle
		d.discard(b)
		c.retiring.Store(false)
	})
}

// Badger is compacted when it is asked for or worth it, not by itself: nobody
// could tell then what it lost (ADR 4).
const (
	crowdedTables = 5  // of level 0, if they are worth it
	tooManyTables = 64 // of level 0
	// compactAgain is how long after an attempt the next one may be made.
	compactAgain = time.Minute
)

// crowded tells whether look-ups pass through too many tables. All of the
// database is written anew, so it shall have grown by a half, or be read slowly.
func (d *DB) crowded() bool {
	b, err := d.use()
	if err != nil {
		return false
	}
	defer b.leave()
	var n int
	var top, below int64
	for _, l := range b.kv.Levels() {
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
	stop chan struct{} // closed to end compactions, also those that were asked for
	done chan struct{}
	once sync.Once

	running  sync.Mutex // one compaction at a time
	retired  sync.WaitGroup
	retiring atomic.Bool // an instance that was in use is still there
}

func newCompactor() *compactor {
	return &compactor{kick: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
}

// end has a compaction under way give up, and waits for that.
func (c *compactor) end() {
	c.once.Do(func() { close(c.stop) })
	<-c.done
	c.running.Lock()
	defer c.running.Unlock()
}

func (c *compactor) stopped() bool {
	select {
	case <-c.stop:
		return true
	default:
		return false
	}
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
		if !d.crowded() || !tried.IsZero() && time.Since(tried) < compactAgain {
			continue // the kick came while the last compaction ran
		}
		tried = time.Now()
		if _, err := d.compact(func() error { return nil }); err != nil {
			if !c.stopped() {
				d.log.Warn("database not compacted; it will be tried again", "err", err)
			}
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
		routine.Kick(d.compactor.kick)
	}
}

// diskBytes returns what the files take.
func diskBytes(names []string) (int64, error) {
	var sum int64
	for _, name := range names {
		var st unix.Stat_t
		switch err := unix.Lstat(name, &st); {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return 0, &os.PathError{Op: "stat", Path: name, Err: err}
		default:
			sum += st.Blocks * 512
		}
	}
	return sum, nil
}
