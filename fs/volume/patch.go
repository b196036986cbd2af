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
// again and stored. A patch is such a run as a block of its own; what is left of the old
// block around it keeps its place. When the file has been left alone for a while it is
// mended: patches and what they left are cut again, as if the runs were written then.
// A mend that is missed, because the store was closed before, costs sharing, not bytes.
const (
	// patchShare is how much smaller than a block the runs in its length are, at least.
	patchShare = 4
	// minShare is how much smaller than a block a patch is, at most, so that the extents of
	// a page stay few.
	minShare = 32
	// maxPatched is how many files wait to be mended; more are not.
	maxPatched = 4096
	// mendPause is how often files are looked for that are to be mended.
	mendPause = foldQuiet / 4
)

// patches returns how many runs from run i on are to be patches: those that start within
// the length of a block, if they are much less than it and within the file's data.
func (f *folder) patches(i int) (int, error) {
	if f.mending {
		return 0, nil
	}
	f.n.mu.Lock()
	defer f.n.mu.Unlock()
	avg := int64(f.v.chunker.Avg())
	end := f.runs[i].off + avg
	count, sum := 0, int64(0)
	for _, r := range f.runs[i:] {
		if r.off >= end {
			break
		}
		if sum += int64(len(r.data)); int64(len(r.data))*minShare < avg || sum*patchShare > avg {
			return 0, nil
		}
		for _, off := range []int64{r.off, r.end() - 1} {
			if _, ok, err := f.v.extentAt(f.n, off); err != nil || !ok {
				return 0, err
			}
		}
		count++
	}
	return count, nil
}

// patch makes blocks of runs.
func (f *folder) patch(runs runs) {
	for _, r := range runs {
		c := cut{off: r.off, len: len(r.data), block: -1}
		if !store.IsZero(r.data) {
			c.block = len(f.blocks)
			f.blocks = append(f.blocks, r.data)
		}
		f.regions = append(f.regions, region{lo: r.off, hi: r.end(), cuts: []cut{c}})
		f.done = r.end()
	}
	f.patched = true
}

// notePatches remembers which pages of the file have patches. n.mu is held.
func (v *Volume) notePatches(n *node, runs runs) {
	v.dirty.Lock()
	defer v.dirty.Unlock()
	if n.patched == nil {
		if len(v.dirty.patched) >= maxPatched {
			return
		}
		n.patched = make(map[uint64]struct{})
		v.dirty.patched[n.ino] = n
	}
	for _, r := range runs {
		n.patched[uint64(r.off/v.span)] = struct{}{}
	}
}

// forgetPatches: there is nothing to mend, or not any more. n.mu is held.
func (v *Volume) forgetPatches(n *node) {
	n.patched = nil
	v.dirty.Lock()
	delete(v.dirty.patched, n.ino)
	v.dirty.Unlock()
}

// mender mends files that are left alone.
func (v *Volume) mender() {
	defer v.stopped.Done()
	wait := time.NewTimer(mendPause)
	defer wait.Stop()
	for {
		select {
		case <-v.stop:
			return
		case <-wait.C:
		}
		start := time.Now()
		more, err := v.mendSome()
		if err != nil {
			v.log.Error("mending a file of small blocks failed; it will be tried again", "err", err)
		}
		pause := mendPause
		if more && err == nil {
			pause = time.Since(start) // half of one core's time
		}
		wait.Reset(pause)
	}
}

// mendSome mends a page of some quiet file. It reports whether there was one.
func (v *Volume) mendSome() (more bool, err error) {
	if v.DirtyBytes() > v.room.limit.Load()/4 {
		return false, nil
	}
	for _, n := range v.listOf(v.dirty.patched) {
		var quiet bool
		err := v.store.Update(func() (err error) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.quiesce()
			if n.gone || n.reaping {
				v.forgetPatches(n)
				return nil
			}
			if quiet = v.opts.Now().Sub(n.written) >= foldQuiet; quiet {
				err = v.mendPage(n)
			}
			return err
		})
		if quiet || err != nil {
			return true, err
		}
	}
	return false, nil
}

// mendPage mends one page of extents. n.mu is held, and released while blocks are
// stored, inside Update.
func (v *Volume) mendPage(n *node) error {
	for i := range n.patched {
		delete(n.patched, i)
		small, err := v.smallExtents(n, i)
		if err != nil {
			return err
		}
		if len(small) > 0 {
			err = v.mend(n, small)
		}
		if len(n.patched) == 0 {
			v.forgetPatches(n)
		}
		return err
	}
	v.forgetPatches(n)
	return nil
}

// smallExtents returns the extents of a page that are shorter than blocks are, but for
// their place, and that touch another one.
func (v *Volume) smallExtents(n *node, i uint64) (small []meta.Extent, err error) {
	p, err := v.page(n, i)
	if err != nil {
		return nil, err
	}
	for k, e := range p.exts {
		touches := k > 0 && p.exts[k-1].End() == e.Off || k+1 < len(p.exts) && p.exts[k+1].Off == e.End()
		if touches && int(e.Len) < v.chunker.Min() {
			small = append(small, e)
		}
	}
	return small, nil
}

// mend cuts the file again around some of its extents.
func (v *Volume) mend(n *node, small []meta.Extent) error {
	f := &folder{v: v, n: n, tail: -1, mending: true}
	n.busy = true
	n.mu.Unlock()
	var errs []error
	for _, e := range small {
		b, err := v.extentBytes(context.Background(), e)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		f.runs = append(f.runs, &run{off: e.Off, data: slices.Clip(b)})
	}
	n.mu.Lock()
	err := f.fold()
	v.changed(n)
	return errors.Join(append(errs, err)...)
}
