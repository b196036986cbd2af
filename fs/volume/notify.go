package volume

import "github.com/quarxtor/quarxfs/fs/meta"

// An Invalidation is something that the kernel may remember and that is not so any more:
// a name in a directory or, without a name, a directory's attributes and listing.
type Invalidation struct {
	Ino  meta.Ino
	Name string
}

// OnInvalidate has fn called for what changed by other means than requests. The kernel may wait for
// an answer while it is: fn must not wait for what needs a lock of the kernel's.
func (v *Volume) OnInvalidate(fn func([]Invalidation)) { v.known.notify.Store(&fn) }

// invalidate passes on what is stale.
func (k *kernelRefs) invalidate(list []Invalidation) {
	if fn := k.notify.Load(); fn != nil && len(list) > 0 {
		(*fn)(list)
	}
}

// snapshotsChanged says that names of snapshots were made or removed.
func (k *kernelRefs) snapshotsChanged(names ...string) {
	list := []Invalidation{{SnapshotsDir, ""}}
	for _, name := range names {
		list = append(list, Invalidation{SnapshotsDir, name})
	}
	k.invalidate(list)
}
