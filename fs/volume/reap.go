package volume

import (
	"errors"
	"syscall"
	"time"

	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/store"
)

// reapPages is how many pages of extents one step of a removal releases.
const reapPages = 64

// reapPause is how long the reaper lets removals gather. Waking it for each of
// many would cost more than the removal.
const reapPause = 20 * time.Millisecond

// A reaper takes apart the inodes that have neither a name nor a user, which kernelRefs queues.
type reaper struct {
	v   *Volume
	now chan struct{} // wakes run
}

// run removes inodes that have neither a name nor a user.
func (r *reaper) run() {
	defer r.v.life.stopped.Done()
	for {
		select {
		case <-r.v.life.stop:
			return
		case <-r.now:
		}
		select {
		case <-r.v.life.stop:
			return
		// Many removals come together, as rm -r makes them.
		case <-time.After(reapPause):
		}
		for {
			// While commits fail, what is removed would only fill memory.
			if r.v.store.AcceptsRemoval() != nil && !r.pause() {
				return
			}
			ino, ok := r.v.known.next()
			if !ok {
				break
			}
			// An error leaves the inode on the list of orphans: the next mount tries again.
			if err := r.reap(ino); err != nil {
				r.v.log.Error("an unlinked file cannot be removed; the next mount tries again", "inode", uint64(ino), "err", err)
			}
			r.v.flusher.maybeCommit()
			select {
			case <-r.v.life.stop:
				return
			default:
			}
		}
	}
}

// pause waits a little, and reports whether the reaper is to go on.
func (r *reaper) pause() bool {
	select {
	case <-r.v.life.stop:
		return false
	case <-time.After(time.Second):
		return true
	}
}

// Waiting for the reaper on a full disk: most for reapTime, and when it has
// nothing to do for forgetTime, since the kernel tells a little later than it
// unlinks that a file is not in use any more.
const (
	reapTime   = 20 * time.Second
	forgetTime = 30 * time.Millisecond
)

// admit asks the store whether there is room for n bytes. On a full disk it
// waits for the files that are being removed. It is called outside of
// Update, with no lock held.
func (r *reaper) admit(n int64) error {
	err := r.v.store.Admit(n)
	if errors.Is(err, store.ErrFull) && r.v.AwaitReaped() {
		err = r.v.store.Admit(n)
	}
	return err
}

// AwaitReaped waits until no inode is left to be removed and reports whether
// there was one. It gives up after 20 s, and waits 30 ms for files that may be in
// use.
func (v *Volume) AwaitReaped() (removed bool) {
	begun := time.Now()
	for {
		left, orphans := v.known.reapable()
		switch waited := time.Since(begun); {
		case left > 0 && waited < reapTime:
			removed = true
		case left > 0 || orphans == 0 || removed || waited > forgetTime:
			return removed
		}
		// Polled: nothing tells of the last of many removals, and only a full disk brings anybody
		// here.
		time.Sleep(time.Millisecond)
	}
}

// reap removes an inode in steps, each of them indivisible; the orphan's row
// goes last, so that a crash between leaves the rest to the next mount.
func (r *reaper) reap(ino meta.Ino) error {
	n, err := r.v.get(ino)
	if meta.IsErrno(err, syscall.ENOENT) {
		return r.v.store.Update(func() error { r.v.known.unorphan(ino); return nil })
	}
	if err != nil {
		return err
	}
	defer n.release()
	if err := r.removeNames(n); err != nil {
		if err == errStopped {
			err = nil // the next mount goes on
		}
		return err
	}
	for done := false; !done; {
		err := r.v.store.Update(func() (err error) {
			done, err = r.reapStep(n)
			return err
		})
		if err != nil {
			return err
		}
	}
	// After the last step: until then whoever asks finds this node, and in it that it is being
	// removed.
	r.v.table.remove(n)
	return nil
}

func (r *reaper) reapStep(n *node) (done bool, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.quiesce()
	if n.attr.Nlink != 0 {
		return true, nil // linked again
	}
	n.reaping = true
	// Bytes before extents: a flush must not make new ones.
	r.dropDirty(n)
	if n.isReg() {
		// Its length stays until all pages are gone: a crash between two steps leaves a record that
		// fits the rest.
		if done, err := r.v.files.dropPages(n, reapPages); err != nil || !done {
			r.v.flusher.markChanged(n)
			return false, err
		}
		r.v.counters.logical.Add(-n.attr.Size)
		r.v.counters.data.Add(-n.attr.Alloc) // what a lazy file had in its vertex
	}
	if n.attr.IsLazy() {
		r.v.materializer.endLazy(n)
	}
	if n.isDir() && r.v.tracker.state.Epoch != 0 {
		r.v.db.Delete(meta.TreeKey(n.ino))
	}
	if n.attr.Xattrs > 0 {
		if err := r.v.xattrs.dropAll(n); err != nil {
			return false, err
		}
	}
	r.v.db.Delete(meta.InodeKey(n.ino))
	r.v.counters.inodes.Add(-1)
	r.v.known.unorphan(n.ino)
	// The rows are gone in this very Update; who still holds the node sees it here.
	n.gone = true
	r.v.table.names.drop(n)
	r.v.flusher.save(n) // off the list
	return true, nil
}

// dropDirty forgets a file's dirty and staged bytes. n.mu is held and no
// flusher owns the node.
func (r *reaper) dropDirty(n *node) {
	r.v.flusher.budget.add(-n.dirty.capacity())
	for _, r := range n.dirty {
		freeRange(r)
	}
	n.dirty = nil
	for slot := range n.staged {
		r.v.flusher.unstage(n, slot)
	}
}
