package volume

import (
	"syscall"

	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/graph"
)

// An Attr is what stat(2) tells of a file.
type Attr struct {
	Ino    meta.Ino
	Blocks int64 // 512-byte units that hold data
	meta.Inode
}

// Attr returns an inode's attributes.
func (v *Volume) Attr(ino meta.Ino) (Attr, error) {
	n, err := v.get(ino)
	if err != nil {
		return Attr{}, err
	}
	defer n.release()
	n.mu.Lock()
	defer n.mu.Unlock()
	return v.stat(n), nil
}

// SnapshotAttr returns the attributes of an entry in a snapshot, given the inode number
// that it is seen under.
func SnapshotAttr(ino meta.Ino, e *graph.Entry) Attr {
	return nodeOf(ino, inodeOf(e, 0)).stat()
}

// stat returns the node's attributes, with the blocks of what is not stored yet. n.mu is held.
func (v *Volume) stat(n *node) Attr {
	a := n.stat()
	if n.isReg() && len(n.dirty)+len(n.flushing) > 0 {
		a.Blocks = blocksOf(n.attr.Alloc + n.attr.Unwritten + v.files.unstored(n))
	}
	return a
}

// stat returns the attributes of a node that has no dirty bytes. n.mu is held.
func (n *node) stat() Attr {
	a := Attr{Ino: n.ino, Inode: n.attr}
	switch {
	case n.isDir():
		a.Size = 4096
		a.Blocks = 8
	case n.isReg():
		a.Blocks = blocksOf(n.attr.Alloc + n.attr.Unwritten)
	case n.attr.Target != "":
		a.Size = int64(len(n.attr.Target))
	}
	return a
}

// A Change is what SetAttr shall change; nil fields stay.
type Change struct {
	Mode         *uint32 // permission bits
	UID, GID     *uint32
	Size         *int64
	Atime, Mtime *meta.Time
	Ctime        *meta.Time // nil: now
	KillPriv     bool       // the caller may not keep suid and sgid bits and capabilities
	DropSGID     bool       // the caller may not set the sgid bit for the file's group
}

// SetAttr changes attributes and returns them all.
func (v *Volume) SetAttr(ino meta.Ino, c Change) (Attr, error) {
	if c.Size != nil && *c.Size < 0 {
		return Attr{}, syscall.EINVAL
	}
	// Cutting a file off makes room, and is what people do on a full disk; and making it longer
	// costs no more than its record.
	change := v.store.Change
	if c.Size != nil {
		change = v.store.Removal
	}
	edit := v.editIn
	if c.Size != nil && *c.Size != 0 {
		edit = v.editDataIn
	}
	var a Attr
	err := edit(change, ino, func(n *node) error {
		if err := v.setAttr(n, c); err != nil {
			return err
		}
		a = v.stat(n)
		return nil
	})
	return a, err
}

func (v *Volume) setAttr(n *node, c Change) error {
	now := v.Now()
	if c.Size != nil {
		switch {
		case n.isDir():
			return syscall.EISDIR
		case !n.isReg():
			return syscall.EINVAL
		}
		if *c.Size != n.attr.Size {
			n.attr.Mtime = now
		}
		if err := v.files.resize(n, *c.Size); err != nil {
			return err
		}
	}
	// Before the mode below is set: a caller that sets suid bits with the size keeps them.
	if (c.Size != nil || c.KillPriv) && !n.isDir() {
		if err := v.xattrs.killPriv(n, c.KillPriv); err != nil {
			return err
		}
	}
	if c.UID != nil || c.GID != nil {
		if err := v.chown(n, c); err != nil {
			return err
		}
	}
	if c.Mode != nil {
		n.attr.Mode = n.attr.Mode&syscall.S_IFMT | *c.Mode&0o7777
		if c.DropSGID {
			n.attr.Mode &^= syscall.S_ISGID
		}
		if err := v.xattrs.chmodACL(n); err != nil {
			return err
		}
	}
	if c.Atime != nil {
		n.attr.Atime = *c.Atime
	}
	if c.Mtime != nil {
		n.attr.Mtime = *c.Mtime
	}
	// Last: each of the steps above may have set it.
	n.attr.Ctime = now
	if c.Ctime != nil {
		n.attr.Ctime = *c.Ctime
	}
	v.flusher.markChanged(n)
	return nil
}

// chown changes owner and group; of anything but a directory it clears suid,
// sgid where the group may execute, and capabilities.
func (v *Volume) chown(n *node, c Change) error {
	if c.UID != nil {
		n.attr.UID = *c.UID
	}
	if c.GID != nil {
		n.attr.GID = *c.GID
	}
	if n.isDir() {
		return nil
	}
	return v.xattrs.killPriv(n, true)
}

const (
	capabilityXattr = "security.capability"
	groupExec       = 0o010
)

// Readlink returns a symbolic link's target.
func (v *Volume) Readlink(ino meta.Ino) (string, error) {
	n, err := v.get(ino)
	if err != nil {
		return "", err
	}
	defer n.release()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.attr.Mode&syscall.S_IFMT != syscall.S_IFLNK {
		return "", syscall.EINVAL
	}
	return n.attr.Target, nil
}
