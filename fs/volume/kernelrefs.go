package volume

import (
	"sync"
	"sync/atomic"

	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/store/routine"
)

// kernelRefs knows which inodes the kernel knows, and which have no name any more. One that is in
// neither state is removed by the reaper. Nothing is taken under its mutex.
//
//	named                     -> without a name [orphan]      -> named [unorphan]
//	without a name and known  -> to be reaped [forget]
//	without a name, not known -> to be reaped [orphan]        -> gone [unorphan]
type kernelRefs struct {
	sync.Mutex
	db      *meta.DB
	lookups lookups
	orphans map[meta.Ino]struct{}
	queue   []meta.Ino      // orphans that nobody knew when they came here
	reap    chan<- struct{} // wakes the reaper

	notify atomic.Pointer[func([]Invalidation)] // see OnInvalidate
}

func (k *kernelRefs) init(db *meta.DB, reap chan<- struct{}) {
	k.db = db
	k.lookups = newLookups()
	k.orphans = make(map[meta.Ino]struct{})
	k.reap = reap
}

// learn counts that the kernel learned of an inode.
func (k *kernelRefs) learn(ino meta.Ino) {
	k.Lock()
	defer k.Unlock()
	k.lookups.set(ino, k.lookups.get(ino)+1)
}

// forget takes back count calls of learn.
func (k *kernelRefs) forget(ino meta.Ino, count uint64) {
	k.Lock()
	defer k.Unlock()
	left := k.lookups.get(ino)
	left -= min(left, count)
	k.lookups.set(ino, left)
	if left > 0 {
		return
	}
	if _, ok := k.orphans[ino]; ok {
		k.enqueue(ino)
	}
}

// orphan is called when an inode lost its last name. n.mu is held, inside Update. (I7)
func (k *kernelRefs) orphan(ino meta.Ino) {
	k.db.Set(meta.OrphanKey(ino), []byte{})
	k.addOrphan(ino)
}

// unorphan is called when an inode got a name, or is not there any more; inside Update.
func (k *kernelRefs) unorphan(ino meta.Ino) {
	k.db.Delete(meta.OrphanKey(ino))
	k.removeOrphan(ino)
}

func (k *kernelRefs) removeOrphan(ino meta.Ino) {
	k.Lock()
	defer k.Unlock()
	delete(k.orphans, ino)
}

// addOrphan notes that an inode has no name.
func (k *kernelRefs) addOrphan(ino meta.Ino) {
	k.Lock()
	defer k.Unlock()
	k.orphans[ino] = struct{}{}
	if k.lookups.get(ino) == 0 {
		k.enqueue(ino)
	}
}

// enqueue is called locked.
func (k *kernelRefs) enqueue(ino meta.Ino) {
	k.queue = append(k.queue, ino)
	routine.Kick(k.reap)
}

// next takes an inode off the queue that is still to be removed.
func (k *kernelRefs) next() (meta.Ino, bool) {
	k.Lock()
	defer k.Unlock()
	for len(k.queue) > 0 {
		ino := k.queue[0]
		k.queue = k.queue[1:]
		// It may have got a name, or a file handle may have led to it, since it was queued.
		_, orphan := k.orphans[ino]
		if orphan && k.lookups.get(ino) == 0 {
			return ino, true
		}
	}
	k.queue = nil // else the array would grow for ever
	return 0, false
}

// reapable counts the inodes without a name, and those of them that nobody uses.
func (k *kernelRefs) reapable() (left, orphans int) {
	k.Lock()
	defer k.Unlock()
	for ino := range k.orphans {
		if k.lookups.get(ino) == 0 {
			left++
		}
	}
	return left, len(k.orphans)
}

// counts returns how many inodes the kernel knows, and how many have no name.
func (k *kernelRefs) counts() (known, orphans int) {
	k.Lock()
	defer k.Unlock()
	return k.lookups.known, len(k.orphans)
}
