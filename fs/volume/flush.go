package volume

import (
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/quarxtor/quarxfs/fs/meta"
)

const (
	writeStep = 8 << 20          // dirty bytes that one step of writing blocks takes
	quietTime = 10 * time.Second // staged bytes this old are made into blocks
)

// A flushMode says how much a flush takes.
type flushMode int

const (
	flushFull    flushMode = iota // dirty ranges that are full, and of these not what could still grow
	flushPartial                  // all dirty ranges, but of long ones not what could still grow
	flushWhole                    // all dirty ranges and rows: a commit follows
)

// A flusher brings written bytes down, from dirty ranges in memory to staged rows or to blocks with
// extents, and inodes to their rows. What it works on belongs to a node: n.mu guards it, and is
// released while blocks are stored, with n.busy set. The states of the bytes:
//
//	dirty range       -> taken, in flushing  [take]: busy, nobody else changes the extents
//	taken             -> block and extent    [writeBlocks], by a chunkWriter
//	taken             -> overlay extent      [writeBlocks], a small write amid old blocks
//	taken             -> dirty range again   [writeBlocks], storing failed, or it may still grow
//	dirty range       -> staged and dirty    [stage], too little for a block yet
//	staged and dirty  -> block and extent    [enqueueQuiet, writeBlocks, restage]
//	overlay extents   -> blocks              [coalesce], when the file is left alone
type flusher struct {
	v      *Volume
	now    chan struct{} // wakes run
	dirty  dirtySet
	budget dirtyBudget
	held   heldBack
	staged atomic.Int64 // bytes in staged slots
}

// run stores full ranges, and nearly everything when the dirty buffers fill
// up, while writers go on.
func (fl *flusher) run() {
	defer fl.v.life.stopped.Done()
	for {
		select {
		case <-fl.v.life.stop:
			return
		case <-fl.now:
		}
		if fl.budget.short() {
			fl.enqueueQuiet()
		}
		if err := fl.flushAll(fl.mode()); err != nil {
			fl.v.log.Error("storing written data failed; it stays in memory and will be tried again", "err", err)
			// Not at once: a disk that fails would be asked in a loop.
			time.Sleep(100 * time.Millisecond)
		}
		fl.v.store.MaybeCommit()
	}
}

func (fl *flusher) mode() flushMode {
	if fl.budget.quarterFull() {
		return flushPartial
	}
	return flushFull
}

// Flush implements store.Participant.
func (v *Volume) Flush() error {
	if c := v.snapshots.checkpoint.Load(); c != nil {
		c.flushed = true
		// A snapshot has blocks only: what was staged becomes blocks before its cut.
		v.flusher.enqueueStaged()
	}
	v.flusher.enqueueQuiet()
	v.flusher.held.begin()
	for range flushRounds {
		if err := v.flusher.flushAll(flushWhole); err != nil {
			return err
		}
		if v.flusher.dirty.count() < fewNodes || v.flusher.held.first() != nil {
			break
		}
	}
	return nil
}

// What became dirty while a flush ran is left to the cut, which everybody waits
// for. So a flush that left much is followed by another one, which has less time
// to leave something.
const (
	flushRounds = 8
	fewNodes    = 32
)

// maybeCommit does what Store.MaybeCommit does, and counts the inodes in memory that wait
// for a commit: as many as may be kept there cannot be dropped. It is called outside
// of Update, with no lock held.
func (fl *flusher) maybeCommit() {
	fl.v.coverNumbers()
	if fl.dirty.count() >= max(fl.v.opts.Nodes, leastDirty) {
		_ = fl.v.store.Commit() // as there; even one that fails has made rows of them
		return
	}
	fl.v.store.MaybeCommit()
}

// leastDirty is how many inodes may wait however few are kept.
const leastDirty = 4096

// flushAll flushes every dirty node, on as many cores as there are.
func (fl *flusher) flushAll(mode flushMode) error {
	list := fl.dirty.all(fl.dirty.nodes)
	if len(list) == 1 {
		return fl.flushOrHold(list[0], mode) // an fsync's usual case needs no other goroutine
	}
	var g errgroup.Group
	g.SetLimit(runtime.NumCPU())
	for _, n := range list {
		// One that fails does not keep the others back: their bytes are safe then.
		g.Go(func() error { return fl.flushOrHold(n, mode) })
	}
	return g.Wait()
}

// flushOrHold flushes one node, which a commit goes on without if the disk has no room for it.
func (fl *flusher) flushOrHold(n *node, mode flushMode) error {
	err := fl.flushNode(n, mode)
	if mode == flushWhole && noRoom(err) {
		fl.held.add(n.ino, err)
		return nil
	}
	return err
}

// flushNode brings one node down in steps, letting commits cut in between.
func (fl *flusher) flushNode(n *node, mode flushMode) error {
	// What was there at the start: a writer that goes on must not hold the flush up for ever.
	limit := n.pending()
	for {
		var more bool
		err := fl.v.store.Update(func() (err error) {
			more, err = fl.flushStep(n, mode)
			return err
		})
		limit -= writeStep
		if err != nil || !more || limit <= 0 {
			return err
		}
	}
}

func (n *node) pending() int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dirty.length()
}

// Cut implements store.Participant: it saves what Flush left.
func (v *Volume) Cut() error {
	c := v.snapshots.checkpoint.Load()
	if c != nil {
		if !c.flushed {
			c = nil // it came when the flush was over
		} else {
			v.flusher.enqueueStaged()
		}
	}
	if err := v.flusher.saveAll(); err != nil {
		return err
	}
	if c == nil {
		v.flusher.held.end()
		return nil
	}
	// A snapshot of half of what was written is none.
	if err := v.flusher.held.first(); err != nil {
		return err
	}
	v.flusher.held.end()
	if !v.snapshots.checkpoint.CompareAndSwap(c, nil) {
		return nil
	}
	return v.snapshots.takeCheckpoint(c)
}

// saveAll leaves nothing unsaved but what the disk has no room for.
func (fl *flusher) saveAll() error {
	var less int64
	for _, n := range fl.dirty.all(fl.dirty.nodes) {
		cut, err := fl.saveNode(n)
		if err != nil {
			return err
		}
		less += cut
	}
	counts := fl.v.counters.row()
	counts.Logical -= less
	counts.Next = fl.v.numbers.from(fl.v.counters.saved.Next, fl.v.life.closing.Err() != nil)
	// Unchanged counters make no row: a mount that only looks leaves nothing.
	if counts != fl.v.counters.saved {
		fl.v.db.Set(meta.CounterKey(), counts.Encode())
		fl.v.counters.saved = counts
	}
	return nil
}

// saveNode saves one node, and returns by how much its size is less in its row than in memory.
func (fl *flusher) saveNode(n *node) (less int64, err error) {
	// What Flush found no room for is not tried again while everybody waits; but it may have been
	// cut off or removed since.
	err = fl.held.now(n.ino)
	if err != nil && n.pending() == 0 {
		fl.held.drop(n.ino)
		err = nil
	}
	// No Update runs now, so the node comes to an end.
	for more := err == nil; more; {
		more, err = fl.flushStep(n, flushWhole)
	}
	if !noRoom(err) {
		return 0, err
	}
	fl.held.add(n.ino, err)
	return fl.saveHeld(n)
}

// flushStep stages or stores some of the node's dirty ranges and, when none is left,
// saves its rows. The caller is inside Update or Cut.
func (fl *flusher) flushStep(n *node, mode flushMode) (more bool, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	// Another flusher, or the coalescer, may be at it without n.mu.
	n.quiesce()
	switch {
	case n.gone:
		fl.save(n)
		return false, nil
	case len(n.dirty) == 0:
	case mode == flushFull:
		if !n.hasFullRange() {
			return false, nil
		}
		// A full range whose only block is still open comes back as it was: then it waits for more.
		before := n.dirty.length()
		err := fl.writeBlocks(n, mode)
		return n.hasFullRange() && n.dirty.length() < before, err
	case fl.stageable(n):
		fl.stage(n)
	case mode == flushPartial && n.dirty.length() > int64(fl.v.files.chunker.Max()):
		return false, fl.writeBlocks(n, mode)
	default:
		if err := fl.writeBlocks(n, flushWhole); err != nil {
			return false, err
		}
		if len(n.dirty) > 0 {
			return true, nil
		}
	}
	// The rows last: a record saved before its extents would say too much.
	if n.enqueued && mode != flushFull {
		fl.save(n)
	}
	return false, nil
}

func (n *node) hasFullRange() bool {
	for _, r := range n.dirty {
		if len(r.data) == maxRange {
			return true
		}
	}
	return false
}

// writeBlocks cuts dirty ranges into blocks, stores these and points extents at them. In a mode
// other than flushWhole it leaves a tail that could still grow. n.mu is held, and released while
// blocks are stored; the caller is inside Update or Cut, so no commit sees half of that.
func (fl *flusher) writeBlocks(n *node, mode flushMode) error {
	taken, err := fl.take(n, mode)
	if err != nil || len(taken) == 0 {
		return err
	}
	f := &chunkWriter{v: fl.v, n: n, ranges: taken, growing: mode != flushWhole, tail: -1}
	err = f.writeBlocks()
	n.growing = err == nil && f.tail >= 0
	before := n.dirty.capacity()
	// Back under what was written meanwhile, which is newer.
	for _, r := range taken {
		if err != nil {
			n.dirty.under(r.off, r.data)
		} else if f.tail < r.end() && f.tail >= r.off {
			n.dirty.under(f.tail, r.data[f.tail-r.off:])
		}
	}
	fl.budget.add(n.dirty.capacity() - before - taken.capacity())
	// Only now: the bytes are in blocks, and their staged rows would bring old ones back after a
	// crash.
	if err == nil {
		fl.restage(n, taken[0].off, taken[len(taken)-1].end())
	}
	if f.overlaid {
		fl.noteOverlays(n, taken)
	}
	// At the very end: blocks that were stored point into these buffers.
	for _, r := range taken {
		freeRange(r)
	}
	fl.v.files.thin(n)
	fl.enqueueDirty(n)
	return err
}

// take removes up to writeStep bytes of dirty ranges from the node, in order. Outside of
// commits it leaves dirty ranges that are not full, when only full ones are wanted, and
// dirty ranges that start after a gap: requests overtake each other, and what fills the
// gap decides where blocks are cut.
func (fl *flusher) take(n *node, mode flushMode) (dirtyRanges, error) {
	var taken, left dirtyRanges
	var size int64
	for i, r := range n.dirty {
		want := size < writeStep && (mode != flushFull || len(r.data) == maxRange)
		if want && mode != flushWhole && !fl.budget.short() {
			follows, err := fl.follows(n, taken, r.off)
			if err != nil {
				return nil, err
			}
			want = follows
		}
		if !want && mode == flushFull && size < writeStep && i+1 < len(n.dirty) && r.end() == n.dirty[i+1].off {
			want = len(n.dirty[i+1].data) == maxRange // the tail that the last flush left
		}
		if !want {
			left = append(left, r)
			continue
		}
		taken = append(taken, r)
		size += int64(len(r.data))
	}
	n.dirty = left
	return taken, nil
}

// follows reports whether there is data right before off, or nothing can be.
func (fl *flusher) follows(n *node, taken dirtyRanges, off int64) (bool, error) {
	if off == 0 || len(taken) > 0 && taken[len(taken)-1].end() == off {
		return true, nil
	}
	_, ok, err := fl.v.files.extentAt(n, off-1)
	return ok, err
}

// enqueueQuiet puts nodes with staged bytes on the list when the bytes have been
// left alone for a while, or when memory is short, so that the flush that
// follows turns them into blocks.
func (fl *flusher) enqueueQuiet() {
	for _, n := range fl.dirty.all(fl.dirty.staged) {
		n.mu.Lock()
		if len(n.staged) > 0 && fl.overdue(n) {
			fl.enqueueDirty(n)
		}
		n.mu.Unlock()
	}
}

// overdue reports whether the node's small dirty ranges shall not be staged any more.
func (fl *flusher) overdue(n *node) bool {
	return fl.budget.short() || len(n.staged) > 0 && fl.v.opts.Now().Sub(n.written) > quietTime
}

// markChanged marks the node for the next commit and the next snapshot. n.mu is
// held, inside Update.
func (fl *flusher) markChanged(n *node) {
	fl.v.tracker.change(n)
	fl.markDirty(n)
}

// markDirty marks the node for the next commit only.
func (fl *flusher) markDirty(n *node) {
	n.attrChanged = true
	fl.enqueueDirty(n)
}

// enqueueDirty has the next flush look at the node.
func (fl *flusher) enqueueDirty(n *node) {
	if n.enqueued {
		return
	}
	n.enqueued = true
	fl.dirty.add(fl.dirty.nodes, n)
}

// save writes the node's rows into the pending commit and takes it off the
// list. n.mu is held, inside Update or Cut.
func (fl *flusher) save(n *node) {
	if n.attrChanged && !n.gone {
		// Pages with the record: a commit that had one without the other would lose bytes or show
		// others'.
		fl.v.db.Set(meta.InodeKey(n.ino), meta.AppendInode(make([]byte, 0, 80), &n.attr))
		fl.v.files.savePages(n)
	}
	n.attrChanged = false
	if n.enqueued {
		n.enqueued = false
		fl.dirty.remove(fl.dirty.nodes, n)
	}
}
