package volume

import "github.com/quarxtor/quarxfs/fs/meta"

// Stale is something that the kernel may remember and that is not so any more:
// a name in a directory or, without a name, a directory's attributes and listing.
type Stale struct {
	Ino  meta.Ino
	Name string
}

// OnStale has fn called for what changed by other means than requests. The kernel may wait for
// an answer while it is: fn must not wait for what needs a lock of the kernel's.
func (v *Volume) OnStale(fn func([]Stale)) { v.notify.Store(&fn) }

// tell passes on what is stale.
func (v *Volume) tell(list []Stale) {
	if fn := v.notify.Load(); fn != nil && len(list) > 0 {
		(*fn)(list)
	}
}

// snapshotsChanged says that names of snapshots were made or removed.
func (v *Volume) snapshotsChanged(names ...string) {
	list := []Stale{{SnapshotsDir, ""}}
	for _, name := range names {
		list = append(list, Stale{SnapshotsDir, name})
	}
	v.tell(list)
}
