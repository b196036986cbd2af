package db

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/quarxtor/quarxfs/store/routine"
)

// The applier carries commits from the log into Badger, in the background and
// many at a time; until then readers find them in the logged overlays. When a
// log file is full it syncs Badger and releases the file.
//
// Only one goroutine runs it, in rounds. A commit starts a round when enough
// has gathered, or waits for one when it needs what only a round can give.
type applier struct {
	kick chan struct{} // capacity 1: a round is wanted
	asks chan func()   // to be called between layers
	stop chan struct{}
	done chan struct{}

	dual *dualWriter // or nil; the goroutine's

	mu      sync.Mutex
	changed sync.Cond
	begun   uint64 // rounds
	ended   uint64
	err     error // of the last round that ended
	failed  error // final: Badger's state is unknown
}

// A dualWriter writes to an instance what the one in use gets, and is synced when that is.
type dualWriter struct {
	b *instance
	// needed says that it may be found in use by the next opening. Then what goes wrong with it is
	// as bad as with the other; before, it only ends the dual writer.
	needed bool
	ended  error
}

// do calls f, which does the next thing to m, unless it has ended.
func (m *dualWriter) do(f func() error) error {
	// An ended one is left in place, so that who follows finds out why.
	if m == nil || m.ended != nil {
		return nil
	}
	err := f()
	if m.needed {
		return err
	}
	m.ended = err
	return nil
}

const (
	// A layer of so many bytes or rows is worth a Badger transaction.
	applyBytes = 1 << 20
	applyRows  = 8192
	// mergeRows is the most that a commit adds to the layer before it, which
	// keeps readers out meanwhile; a larger one is a layer of its own.
	mergeRows = 256
	// maxLayers bounds what readers have to search and what memory is taken.
	maxLayers = 3
)

func newApplier() *applier {
	a := &applier{kick: make(chan struct{}, 1), asks: make(chan func()), stop: make(chan struct{}), done: make(chan struct{})}
	a.changed.L = &a.mu
	return a
}

func (d *DB) runApplier() {
	a := d.applier
	defer close(a.done)
	for {
		select {
		case <-a.kick:
		// Between rounds, so that no layer is half in the instance when f looks.
		case f := <-a.asks:
			f()
			continue
		case <-a.stop:
			return
		}
		a.mu.Lock()
		// A round counts as begun before it looks at anything: who waits for it may rely on what
		// was there before the count.
		a.begun++
		// After a final failure rounds go on without work, or who waits for one would wait for
		// ever.
		err := a.failed
		a.mu.Unlock()
		if err == nil {
			err = d.applyDue()
		}
		a.mu.Lock()
		a.ended = a.begun
		a.err = err
		a.changed.Broadcast()
		a.mu.Unlock()
	}
}

// do calls f between two layers and returns its error. The applier must not be
// stopped meanwhile.
func (a *applier) do(f func() error) error {
	done := make(chan error)
	a.asks <- func() { done <- f() }
	return <-done
}

func (a *applier) wake() { routine.Kick(a.kick) }

// fail is for errors after which what Badger would keep is unknown. The log
// still has all of it.
func (a *applier) fail(err error) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.failed = err
	return err
}

func (a *applier) failure() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failed != nil {
		return fmt.Errorf("%w: %w", ErrFailed, a.failed)
	}
	return nil
}

// wait runs rounds until ready, or returns the error of one that began after
// the call and did not make it so.
func (a *applier) wait(ready func() bool) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for !ready() {
		if a.failed != nil {
			return fmt.Errorf("%w: %w", ErrFailed, a.failed)
		}
		target := a.begun + 1
		a.wake()
		// A round under way may have looked before the caller's change: only the next one counts.
		for a.ended < target && !ready() {
			a.changed.Wait()
		}
		if a.failed == nil && a.ended >= target && a.err != nil && !ready() {
			return a.err
		}
	}
	return nil
}

func (a *applier) progress() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.changed.Broadcast()
}

// applyDue is a round.
func (d *DB) applyDue() error {
	for {
		select {
		case f := <-d.applier.asks:
			f()
		default:
		}
		// The file before the layers: what it has must be in the instance before it is released, so
		// due makes even a small layer due for its sake.
		file := d.clog.sealed()
		layer := d.due(file)
		switch {
		case layer != nil:
			if err := d.applyLayer(layer); err != nil {
				return err
			}
		case file != nil:
			if err := d.checkpoint(file); err != nil {
				return err
			}
		default:
			return nil
		}
		d.applier.progress()
	}
}

// due returns the oldest layer if it is to be applied now: because file waits
// for it, or because of its size or that of the ones after it.
func (d *DB) due(file *logFile) *overlay {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.mu.logged) == 0 {
		return nil
	}
	o := d.mu.logged[0]
	if !d.mu.closed && len(d.mu.logged) == 1 && o.bytes < applyBytes && o.rows.Len() < applyRows &&
		(file == nil || o.first >= file.next) {
		return nil
	}
	d.mu.applying = true
	return o
}

// applyLayer writes the layer to Badger, which need not be atomic because the
// log replays it. On error it stays, and with ErrFull may be tried again.
func (d *DB) applyLayer(o *overlay) error {
	d.mu.Lock()
	// A copy, since writing takes long. No commit merges into o meanwhile: due has set applying.
	rows, bytes := o.snapshot(), o.bytes
	d.mu.Unlock()
	err := d.room(d.roomToApply(bytes))
	if err == nil {
		err = d.writeBoth(rows, bytes)
	}
	if err != nil {
		if !errors.Is(err, ErrFull) {
			d.log.Error("cannot apply commits; the log keeps them", "err", err)
			return d.applier.fail(err)
		}
		return err
	}
	d.mu.Lock()
	// One step for readers: they find the rows in the layer, or else in the instance at ts.
	d.mu.logged[0] = nil
	d.mu.logged = d.mu.logged[1:]
	d.mu.applying = false
	d.mu.ts = d.mu.instance.writer.ts
	d.mu.Unlock()
	// Here, since only what is written makes level 0 grow.
	d.considerCompacting()
	return nil
}

// writeBoth writes rows to the instance in use, and to the dual writer in the same versions.
func (d *DB) writeBoth(rows *rowMap, bytes int64) error {
	w := &d.inUse().writer
	ts := w.ts
	if err := w.apply(rows); err != nil {
		return err
	}
	m := d.applier.dual
	return m.do(func() error {
		if err := fits(d.roomToApply(bytes), d.space.rest()); err != nil {
			return err
		}
		// The same version in both, whatever the other has had since.
		m.b.writer.ts = ts
		return m.b.writer.apply(rows)
	})
}

// checkpoint releases a file whose commits Badger has.
func (d *DB) checkpoint(file *logFile) error {
	err := d.inUse().wal.checkpoint()
	if m := d.applier.dual; err == nil {
		err = m.do(func() error { return m.b.wal.checkpoint() })
	}
	if err != nil {
		d.log.Error("cannot sync applied commits; the log keeps them", "err", err)
		return d.applier.fail(err)
	}
	d.step(stepSynced)
	b := d.inUse()
	based := b.writer.ts
	// A round ends with an error if the list fails, and the file stays sealed: nothing is lost.
	// The list first: what it says is there is not in the log any more then.
	if err := b.updateList(d, file.next, b.inTables(), based, false); err != nil {
		return fmt.Errorf("list the files of %s: %w", b.dir, err)
	}
	if err := d.clog.release(file, based); err != nil {
		return fmt.Errorf("release %s: %w", file.name, asFull(err))
	}
	d.step(stepReleased)
	if time.Since(d.advised) > adviseEvery {
		d.adviseTables()
	}
	return nil
}
