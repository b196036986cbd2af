package volume

import (
	"fmt"
	"syscall"

	"github.com/quarxtor/quarxfs/fs/meta"
)

// Changes since the last snapshot are rows, written in the Update that makes
// the change (docs/design.md). What is newer than the epoch needs none: its
// number says so, and its directory is touched.

// A tracker notes what changes since the last snapshot. Its state is guarded by the store's lock:
// it is read inside Update and changes at a commit's cut and, with snapshotter.mu held, when a
// snapshot is done.
type tracker struct {
	v     *Volume
	state meta.Tracking // what the next snapshot builds on
}

// change marks that an inode changed. n.mu is held, inside Update.
func (tr *tracker) change(n *node) {
	epoch := tr.state.Epoch
	// One row an inode and epoch is enough; and what is newer than the epoch is looked at in any
	// case.
	if epoch == 0 || n.tracked == epoch || uint64(n.ino) >= epoch {
		return
	}
	flags := byte(0)
	if n.attr.Shared {
		flags |= meta.TouchedShared
	}
	if n.isDir() {
		flags |= meta.TouchedDir
	}
	if n.attr.Nlink == 0 && flags == 0 {
		return // its name is marked as gone
	}
	n.tracked = epoch
	tr.v.db.Set(meta.TouchedKey(epoch, n.ino), []byte{flags})
}

// name marks that a name at a position of d leads elsewhere from now on, or
// nowhere. d.mu is held, inside Update.
func (tr *tracker) name(d *node, name string, pos uint64) {
	if epoch := tr.state.Epoch; epoch != 0 && pos < epoch && d.attr.Nlink != 0 {
		tr.v.db.Set(meta.GoneKey(epoch, d.ino, name), []byte{})
	}
}

// moveTo notes where the only name of n is. n.mu is held, inside Update; the
// caller calls markChanged.
func (n *node) moveTo(d *node, pos uint64) {
	if n.isDir() {
		n.attr.Parent = d.ino
	}
	if !n.attr.Shared {
		n.attr.Parent, n.attr.Pos = d.ino, pos
	}
}

// share makes n, which has a name, ready for another one. The snapshots' entry
// of its only name changes with that: it leads to the link table from now on.
// n.mu is held, inside Update.
func (tr *tracker) share(n *node) error {
	if n.attr.Shared || n.isDir() {
		return nil
	}
	if epoch := tr.state.Epoch; epoch != 0 && n.attr.Pos < epoch {
		if err := tr.onlyName(n); err != nil {
			return err
		}
	}
	n.attr.Shared, n.attr.Parent, n.attr.Pos = true, 0, 0
	return nil
}

func (tr *tracker) onlyName(n *node) error {
	dir, pos := n.attr.Parent, n.attr.Pos
	if pos == 0 {
		var err error
		if dir, pos, err = tr.locate(n.ino); err != nil {
			return err
		}
	}
	b, err := tr.v.db.Get(meta.EntryKey(dir, pos))
	if err != nil {
		return fmt.Errorf("the name of inode %d: %w", n.ino, err)
	}
	e, err := meta.DecodeDirent(b)
	if err != nil {
		return err
	}
	tr.v.db.Set(meta.GoneKey(tr.state.Epoch, dir, e.Name), []byte{})
	return nil
}

// locate finds a name of an inode among all, for records of version 1, which do
// not say where theirs is.
func (tr *tracker) locate(ino meta.Ino) (dir meta.Ino, pos uint64, err error) {
	err = tr.v.db.ScanPrefix(meta.Prefix(meta.KindEntry), func(key, value []byte) error {
		e, err := meta.DecodeDirent(value)
		if err != nil || e.Ino != ino {
			return nil
		}
		if dir, pos, err = meta.KeyNumbers(key); err != nil {
			return err
		}
		return meta.ErrStop
	})
	if err == nil && pos == 0 {
		err = fmt.Errorf("inode %d has no name: %w", ino, syscall.ENOENT)
	}
	return dir, pos, err
}

func (tr *tracker) load() error {
	b, err := tr.v.db.Get(meta.TrackKey())
	if meta.IsNotFound(err) {
		return nil
	}
	if err == nil {
		tr.state, err = meta.DecodeTracking(b)
	}
	return err
}
