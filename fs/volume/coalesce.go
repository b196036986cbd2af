package volume

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/store"
)

// Small writes all over a big file would have every block around them read, cut
// again and stored. An overlay extent is such a range as a block of its own; what is left of the
// old block around it keeps its place. When the file has been left alone for a while it is
// coalesced: overlay extents and what they left are cut again, as if the dirty ranges were written
// then. Coalescing that is missed, because the store was closed before, costs sharing, not bytes.
const (
	// overlayShare is how much smaller than a block the dirty ranges in its length are, at least.
	// From half a block on, reading and splitting it anew costs no more than all the small blocks.
	overlayShare = 2
	// minShare is how much smaller than a block an overlay extent is, at most, so that the extents
	// of a page stay few.
	minShare = 32
	// maxOverlaid is how many files wait to be coalesced; more are not.
	maxOverlaid = 4096
	// coalescePause is how often files are looked for that are to be coalesced.
	coalescePause = quietTime / 4
)

// overlaysAt returns how many dirty ranges from range i on are to be overlay extents: those that
// start within the length of a block, if they are much less than it and within the file's data.
func (f *chunkWriter) overlaysAt(i int) (int, error) {
	if f.coalescing {
		return 0, nil
	}
	f.n.mu.Lock()
	defer f.n.mu.Unlock()
	avg := int64(f.v.files.chunker.Avg())
	// All that start within one block's length are judged together: many small ones are worth a new
	// block.
	end := f.ranges[i].off + avg
	count, sum := 0, int64(0)
	for _, r := range f.ranges[i:] {
		if r.off >= end {
			break
		}
		if sum += int64(len(r.data)); int64(len(r.data))*minShare < avg || sum*overlayShare > avg {
			return 0, nil
		}
		// Both ends within data: an overlay cuts an old block, it never makes a file longer.
		for _, off := range []int64{r.off, r.end() - 1} {
			if _, ok, err := f.v.files.extentAt(f.n, off); err != nil || !ok {
				return 0, err
			}
		}
		count++
	}
	return count, nil
}

// overlay makes blocks of dirty ranges.
func (f *chunkWriter) overlay(ranges dirtyRanges) {
	for _, r := range ranges {
		c := cut{off: r.off, len: len(r.data), block: -1}
		if !store.IsZero(r.data) {
			c.block = len(f.blocks)
			f.blocks = append(f.blocks, r.data)
		}
		f.regions = append(f.regions, region{lo: r.off, hi: r.end(), cuts: []cut{c}})
		f.done = r.end()
	}
	f.overlaid = true
}

// noteOverlays remembers which pages of the file have overlay extents. n.mu is held.
func (fl *flusher) noteOverlays(n *node, ranges dirtyRanges) {
	if n.overlaid == nil {
		// Its overlay extents stay as they are: they cost sharing, and nothing else.
		if !fl.dirty.addUpTo(maxOverlaid, fl.dirty.overlaid, n) {
			return
		}
		n.overlaid = make(map[uint64]struct{})
	}
	for _, r := range ranges {
		n.overlaid[uint64(r.off/fl.v.files.span)] = struct{}{}
	}
}

// forgetOverlays: there is nothing to coalesce, or not any more. n.mu is held.
func (fl *flusher) forgetOverlays(n *node) {
	n.overlaid = nil
	fl.dirty.remove(fl.dirty.overlaid, n)
}

// runCoalescer coalesces files that are left alone.
func (fl *flusher) runCoalescer() {
	defer fl.v.life.stopped.Done()
	wait := time.NewTimer(coalescePause)
	defer wait.Stop()
	for {
		select {
		case <-fl.v.life.stop:
			return
		case <-wait.C:
		}
		start := time.Now()
		more, err := fl.coalesceSome()
		if err != nil {
			fl.v.log.Error("coalescing a file of small blocks failed; it will be tried again", "err", err)
		}
		pause := coalescePause
		if more && err == nil {
			pause = time.Since(start) // half of one core's time
		}
		wait.Reset(pause)
	}
}

// coalesceSome coalesces a page of some quiet file. It reports whether there was one.
func (fl *flusher) coalesceSome() (more bool, err error) {
	// Writers wait for memory, and this would use more of it.
	if fl.budget.quarterFull() {
		return false, nil
	}
	for _, n := range fl.dirty.all(fl.dirty.overlaid) {
		var quiet bool
		// One page a step, so that a commit waits no longer than for that.
		err := fl.v.store.Update(func() (err error) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.quiesce()
			if n.gone || n.reaping {
				fl.forgetOverlays(n)
				return nil
			}
			// Whoever still writes would only have the same blocks cut again.
			if quiet = fl.v.opts.Now().Sub(n.written) >= quietTime; quiet {
				err = fl.coalescePage(n)
			}
			return err
		})
		if quiet || err != nil {
			return true, err
		}
	}
	return false, nil
}

// coalescePage coalesces one page of extents. n.mu is held, and released while blocks are
// stored, inside Update.
func (fl *flusher) coalescePage(n *node) error {
	for i := range n.overlaid {
		// Off the list first: a page that cannot be read would be tried for ever.
		delete(n.overlaid, i)
		small, err := fl.smallExtents(n, i)
		if err != nil {
			return err
		}
		if len(small) > 0 {
			err = fl.coalesce(n, small)
		}
		if len(n.overlaid) == 0 {
			fl.forgetOverlays(n)
		}
		return err
	}
	fl.forgetOverlays(n)
	return nil
}

// smallExtents returns the extents of a page that are shorter than blocks are, but for
// their place, and that touch another one.
func (fl *flusher) smallExtents(n *node, i uint64) (small []meta.Extent, err error) {
	p, err := fl.v.files.page(n, i)
	if err != nil {
		return nil, err
	}
	for k, e := range p.exts {
		// A short extent with holes on both sides is as it was written: no cut could make it
		// longer.
		touches := k > 0 && p.exts[k-1].End() == e.Off || k+1 < len(p.exts) && p.exts[k+1].Off == e.End()
		if touches && int(e.Len) < fl.v.files.chunker.Min() {
			small = append(small, e)
		}
	}
	return small, nil
}

// coalesce cuts the file again around some of its extents.
func (fl *flusher) coalesce(n *node, small []meta.Extent) error {
	f := &chunkWriter{v: fl.v, n: n, tail: -1, coalescing: true}
	// Busy while the bytes are read without n.mu; writeBlocks takes over from there.
	n.busy = true
	n.mu.Unlock()
	var errs []error
	for _, e := range small {
		b, err := fl.v.files.extentBytes(context.Background(), e)
		if err != nil {
			// Its neighbours can be coalesced without it.
			errs = append(errs, err)
			continue
		}
		f.ranges = append(f.ranges, &dirtyRange{off: e.Off, data: slices.Clip(b)})
	}
	n.mu.Lock()
	err := f.writeBlocks()
	fl.markChanged(n)
	return errors.Join(append(errs, err)...)
}
