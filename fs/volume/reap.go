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

// reaper removes inodes that have neither a name nor a user.
func (v *Volume) reaper() {
	defer v.stopped.Done()
	for {
		select {
		case <-v.stop:
			return
		case <-v.reapNow:
		}
		select {
		case <-v.stop:
			return
		case <-time.After(reapPause):
		}
		for {
			ino, ok := v.known.next()
			if !ok {
				break
			}
			if err := v.reap(ino); err != nil {
				v.log.Error("an unlinked file cannot be removed; the next mount tries again", "inode", uint64(ino), "err", err)
			}
			v.maybeCommit()
			select {
			case <-v.stop:
				return
			default:
			}
		}
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
func (v *Volume) admit(n int64) error {
	err := v.store.Admit(n)
	if errors.Is(err, store.ErrFull) && v.AwaitReaped() {
		err = v.store.Admit(n)
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
		time.Sleep(time.Millisecond)
	}
}

// reap removes an inode in steps, each of them indivisible; the orphan's row
// goes last, so that a crash between leaves the rest to the next mount.
func (v *Volume) reap(ino meta.Ino) error {
	n, err := v.get(ino)
	if errors.Is(err, syscall.ENOENT) {
		return v.store.Update(func() error { v.dropOrphan(ino); return nil })
	}
	if err != nil {
		return err
	}
	defer n.release()
	if err := v.removeNames(n); err != nil {
		if err == errStopped {
			err = nil // the next mount goes on
		}
		return err
	}
	for done := false; !done; {
		err := v.store.Update(func() (err error) {
			done, err = v.reapStep(n)
			return err
		})
		if err != nil {
			return err
		}
	}
	v.table.remove(n)
	return nil
}

func (v *Volume) dropOrphan(ino meta.Ino) {
	v.db.Delete(meta.OrphanKey(ino))
	v.known.removeOrphan(ino)
}

func (v *Volume) reapStep(n *node) (done bool, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.quiesce()
	if n.attr.Nlink != 0 {
		return true, nil // linked again
	}
	n.reaping = true
	v.dropDirty(n)
	if n.isReg() {
		if done, err := v.dropPages(n, reapPages); err != nil || !done {
			v.markChanged(n)
			return false, err
		}
		v.counters.logical.Add(-n.attr.Size)
		v.counters.data.Add(-n.attr.Alloc) // what a lazy file had in its vertex
	}
	if n.attr.IsLazy() {
		v.endLazy(n)
	}
	if n.isDir() && v.track.Epoch != 0 {
		v.db.Delete(meta.TreeKey(n.ino))
	}
	if n.attr.Xattrs > 0 {
		if err := v.dropXattrs(n); err != nil {
			return false, err
		}
	}
	v.db.Delete(meta.InodeKey(n.ino))
	v.counters.inodes.Add(-1)
	v.dropOrphan(n.ino)
	n.gone = true
	v.table.names.drop(n)
	v.save(n) // off the list
	return true, nil
}

// dropDirty forgets a file's dirty and staged bytes. n.mu is held and no
// flusher owns the node.
func (v *Volume) dropDirty(n *node) {
	v.budget.add(-n.dirty.capacity())
	for _, r := range n.dirty {
		freeRange(r)
	}
	n.dirty = nil
	for slot := range n.staged {
		v.unstage(n, slot)
	}
}
