package volume

import "github.com/quarxtor/quarxfs/fs/meta"

// Stale is something that the kernel may remember and that is not so any more:
// a name in a directory or, without a name, an inode's attributes.
type Stale struct {
	Ino  meta.Ino
	Name string
}

// OnStale has fn called for what changed by other means than requests, in a
// goroutine of its own and with no lock held.
func (v *Volume) OnStale(fn func([]Stale)) { v.notify.Store(&fn) }

// tell passes on what is stale. The caller may be in a request that the kernel
// waits for, so it does not wait itself.
func (v *Volume) tell(list []Stale) {
	if fn := v.notify.Load(); fn != nil && len(list) > 0 {
		go (*fn)(list)
	}
}

func (v *Volume) tellGone(dir meta.Ino, name string) { v.tell([]Stale{{dir, name}}) }
