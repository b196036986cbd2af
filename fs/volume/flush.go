package volume

import (
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quarxtor/quarxfs/fs/meta"
)

const (
	foldStep  = 8 << 20          // run bytes that one step of a fold takes
	foldQuiet = 10 * time.Second // staged bytes this old are folded into blocks
)

// flusher stores full runs, and everything when the dirty buffers fill up,
// while writers go on.
func (v *Volume) flusher() {
	defer v.stopped.Done()
	for {
		select {
		case <-v.stop:
			return
		case <-v.flushNow:
		}
		if v.short() {
			v.foldStaged()
		}
		if err := v.flushAll(v.DirtyBytes() <= v.opts.DirtyBytes/4); err != nil {
			v.log.Error("storing written data failed; it stays in memory and will be tried again", "err", err)
			time.Sleep(100 * time.Millisecond)
		}
		v.store.Relieve()
	}
}

// Flush implements store.Participant.
func (v *Volume) Flush() error {
	v.foldStaged()
	return v.flushAll(false)
}

// flushAll saves every dirty node, on as many cores as there are. With
// fullOnly it stores just the runs that are full.
func (v *Volume) flushAll(fullOnly bool) error {
	v.dirty.Lock()
	list := make([]*node, 0, len(v.dirty.nodes))
	for _, n := range v.dirty.nodes {
		list = append(list, n)
	}
	v.dirty.Unlock()
	workers := min(runtime.GOMAXPROCS(0), len(list))
	errs := make([]error, workers)
	var next atomic.Int64
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(list) {
					return
				}
				if err := v.flushNode(list[i], fullOnly); err != nil {
					errs[w] = err
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// flushNode brings one node down in steps, letting commits cut in between.
func (v *Volume) flushNode(n *node, fullOnly bool) error {
	limit := n.pending()
	for {
		var more bool
		err := v.store.Update(func() (err error) {
			more, err = v.flushStep(n, fullOnly)
			return err
		})
		limit -= foldStep
		if err != nil || !more || limit <= 0 {
			return err
		}
	}
}

func (n *node) pending() int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.runs.length()
}

// Cut implements store.Participant: it saves what Flush left.
func (v *Volume) Cut() error {
	v.dirty.Lock()
	list := make([]*node, 0, len(v.dirty.nodes))
	for _, n := range v.dirty.nodes {
		list = append(list, n)
	}
	v.dirty.Unlock()
	for _, n := range list {
		for more := true; more; {
			var err error
			if more, err = v.flushStep(n, false); err != nil {
				return err
			}
		}
	}
	c := meta.Counters{Next: v.next.Load(), Inodes: v.inodes.Load(), Logical: v.logical.Load()}
	if c != v.saved {
		v.db.Set(meta.CounterKey(), c.Encode())
		v.saved = c
	}
	return nil
}

// flushStep stages or stores some of the node's runs and, when none is left,
// saves its rows. The caller is inside Update or Cut.
func (v *Volume) flushStep(n *node, fullOnly bool) (more bool, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.quiesce()
	if n.gone {
		return false, nil
	}
	if fullOnly {
		if !n.hasFullRun() {
			return false, nil
		}
		err := v.fold(n, true)
		return n.hasFullRun(), err
	}
	if len(n.runs) > 0 && v.stageable(n) {
		v.stage(n)
	} else if len(n.runs) > 0 {
		if err := v.fold(n, false); err != nil {
			return false, err
		}
		if len(n.runs) > 0 {
			return true, nil
		}
	}
	if n.listed {
		v.save(n)
	}
	return false, nil
}

func (n *node) hasFullRun() bool {
	for _, r := range n.runs {
		if len(r.data) == maxRun {
			return true
		}
	}
	return false
}

// fold cuts runs into blocks, stores these and points extents at them. With
// fullOnly it takes full runs and leaves a tail that could still grow. n.mu is
// held, and released while blocks are stored; the caller is inside Update or
// Cut, so no commit sees half a fold.
func (v *Volume) fold(n *node, fullOnly bool) error {
	n.busy = true
	n.flushing = n.take(fullOnly)
	f := &folder{v: v, n: n, runs: n.flushing, growing: fullOnly}
	n.mu.Unlock()

	release := v.store.Hold()
	err := f.cutAll()
	var ids []meta.BlockID
	if err == nil {
		ids, err = f.put()
	}
	n.mu.Lock()
	if err == nil {
		err = f.install(ids)
	}
	release()

	taken := n.flushing
	n.flushing = nil
	n.busy = false
	n.idle.Broadcast()
	before := n.runs.capacity()
	for _, r := range taken {
		if err != nil {
			n.runs.under(r.off, r.data)
		} else if f.tail < r.end() && f.tail >= r.off {
			n.runs.under(f.tail, r.data[f.tail-r.off:])
		}
	}
	v.account(n.runs.capacity() - before - taken.capacity())
	for _, r := range taken {
		freeRun(r)
	}
	f.free()
	if err == nil {
		v.settleStaged(n, taken[0].off, taken[len(taken)-1].end())
	}
	v.list(n)
	return err
}

// take removes some runs from the node, in order.
func (n *node) take(fullOnly bool) runs {
	var taken, left runs
	var size int64
	for _, r := range n.runs {
		if size >= foldStep || fullOnly && len(r.data) < maxRun {
			// A short run right before a full one belongs to the same blocks.
			left = append(left, r)
			continue
		}
		if fullOnly && len(left) > 0 && left[len(left)-1].end() == r.off {
			taken = append(taken, left[len(left)-1])
			left = left[:len(left)-1]
		}
		taken = append(taken, r)
		size += int64(len(r.data))
	}
	n.runs = left
	return taken
}

// foldStaged puts nodes with staged bytes on the list when the bytes have been
// left alone for a while, or when memory is short, so that the flush that
// follows turns them into blocks.
func (v *Volume) foldStaged() {
	v.dirty.Lock()
	var staged []*node
	for _, n := range v.dirty.staged {
		staged = append(staged, n)
	}
	v.dirty.Unlock()
	for _, n := range staged {
		n.mu.Lock()
		if len(n.staged) > 0 && v.overdue(n) {
			v.list(n)
		}
		n.mu.Unlock()
	}
}

// overdue reports whether the node's small runs shall not be staged any more.
func (v *Volume) overdue(n *node) bool {
	return v.short() || len(n.staged) > 0 && v.opts.Now().Sub(n.written) > foldQuiet
}

// short reports whether the dirty buffers are filling up.
func (v *Volume) short() bool { return v.DirtyBytes() > v.opts.DirtyBytes/2 }
