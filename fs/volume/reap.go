package volume

import (
	"errors"
	"syscall"

	"github.com/quarxtor/quarxfs/fs/meta"
)

// reapPages is how many pages of extents one step of a removal releases.
const reapPages = 64

// reaper removes inodes that have neither a name nor a user.
func (v *Volume) reaper() {
	defer v.stopped.Done()
	for {
		select {
		case <-v.stop:
			return
		case <-v.reapNow:
		}
		for {
			ino, ok := v.nextReap()
			if !ok {
				break
			}
			if err := v.reap(ino); err != nil {
				v.log.Error("an unlinked file cannot be removed; the next mount tries again", "inode", uint64(ino), "err", err)
			}
			v.store.Relieve()
			select {
			case <-v.stop:
				return
			default:
			}
		}
	}
}

func (v *Volume) nextReap() (meta.Ino, bool) {
	v.known.Lock()
	defer v.known.Unlock()
	for len(v.known.reap) > 0 {
		ino := v.known.reap[0]
		v.known.reap = v.known.reap[1:]
		_, orphan := v.known.orphans[ino]
		if orphan && v.known.lookups[ino] == 0 {
			return ino, true
		}
	}
	v.known.reap = nil
	return 0, false
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
	for done := false; !done; {
		err := v.store.Update(func() (err error) {
			done, err = v.reapStep(n)
			return err
		})
		if err != nil {
			return err
		}
	}
	v.forgetNode(n)
	return nil
}

func (v *Volume) dropOrphan(ino meta.Ino) {
	v.db.Delete(meta.OrphanKey(ino))
	v.known.Lock()
	delete(v.known.orphans, ino)
	v.known.Unlock()
}

func (v *Volume) reapStep(n *node) (done bool, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.quiesce()
	if n.attr.Nlink != 0 {
		return true, nil // linked again
	}
	n.reaping = true
	v.dropRuns(n)
	if n.isReg() {
		if done, err := v.dropPages(n, reapPages); err != nil || !done {
			v.changed(n)
			return false, err
		}
		v.logical.Add(-n.attr.Size)
	}
	if n.attr.Xattrs > 0 {
		if err := v.dropXattrs(n); err != nil {
			return false, err
		}
	}
	v.db.Delete(meta.InodeKey(n.ino))
	v.inodes.Add(-1)
	v.dropOrphan(n.ino)
	n.gone = true
	v.save(n) // off the list
	return true, nil
}

// dropRuns forgets a file's dirty and staged bytes. n.mu is held and no
// flusher owns the node.
func (v *Volume) dropRuns(n *node) {
	v.account(-n.runs.capacity())
	for _, r := range n.runs {
		freeRun(r)
	}
	n.runs = nil
	for slot := range n.staged {
		v.unstage(n, slot)
	}
}
