package volume

import (
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/fs/meta"
)

// Rename moves a name, over another one if that is there. flags is 0 or, of
// RENAME_NOREPLACE, RENAME_EXCHANGE and RENAME_WHITEOUT, one or the first and
// the last.
func (v *Volume) Rename(oldDir meta.Ino, oldName string, newDir meta.Ino, newName string, flags uint32) error {
	const known = unix.RENAME_NOREPLACE | unix.RENAME_EXCHANGE | unix.RENAME_WHITEOUT
	if flags&^known != 0 || flags&unix.RENAME_EXCHANGE != 0 && flags != unix.RENAME_EXCHANGE {
		return syscall.EINVAL
	}
	if err := checkName(newName); err != nil {
		return err
	}
	// Before the Update, since materializing makes Updates of its own.
	for _, dir := range []meta.Ino{oldDir, newDir} {
		d, err := v.get(dir)
		if err != nil {
			return err
		}
		err = v.tree.changeable(d)
		d.release()
		if err != nil {
			return err
		}
	}
	err := v.store.Change(func() error {
		v.tree.Lock()
		defer v.tree.Unlock()
		r := &renaming{v: v, oldName: oldName, newName: newName, flags: flags}
		defer r.close()
		if err := r.open(oldDir, newDir); err != nil {
			return err
		}
		return r.apply()
	})
	v.flusher.maybeCommit()
	return err
}

// A renaming is one rename under way; the nameTree is locked throughout.
type renaming struct {
	v                *Volume
	oldName, newName string
	flags            uint32
	from, to         *node // directories
	moved, over      *node // over: what newName led to, or nil
	src, dst         dentry
	held             []*node
	unlock           func()
}

func (r *renaming) node(ino meta.Ino) (*node, error) {
	n, err := r.v.get(ino)
	if err == nil {
		r.held = append(r.held, n)
	}
	return n, err
}

func (r *renaming) open(oldDir, newDir meta.Ino) (err error) {
	if r.from, err = r.node(oldDir); err != nil {
		return err
	}
	if r.to, err = r.node(newDir); err != nil {
		return err
	}
	if r.to.ino == meta.Root && r.newName == SnapshotsName {
		return syscall.EBUSY
	}
	// Names stand still while the tree is locked; each directory is locked only for the look.
	if r.src, err = r.find(r.from, r.oldName); err != nil {
		return err
	}
	if r.moved, err = r.node(r.src.ino); err != nil {
		return err
	}
	r.dst, err = r.find(r.to, r.newName)
	if err == syscall.ENOENT {
		return nil
	}
	if err != nil {
		return err
	}
	r.over, err = r.node(r.dst.ino)
	return err
}

func (r *renaming) find(d *node, name string) (dentry, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return r.v.tree.find(d, name)
}

func (r *renaming) close() {
	if r.unlock != nil {
		r.unlock()
	}
	for _, n := range r.held {
		n.release()
	}
}

func (r *renaming) apply() error {
	if r.over == nil && r.flags&unix.RENAME_EXCHANGE != 0 {
		return syscall.ENOENT
	}
	if r.over != nil && r.flags&unix.RENAME_NOREPLACE != 0 {
		return syscall.EEXIST
	}
	// Before the locks: it goes up to the root, locking each directory on the way.
	if err := r.checkLoop(); err != nil {
		return err
	}
	r.unlock = lockAll(r.from, r.to, r.moved, r.over)
	// One that was removed is still known by its number; a name in it would never be found.
	if r.from.attr.Nlink == 0 || r.to.attr.Nlink == 0 {
		return syscall.ENOENT
	}
	if r.over == r.moved {
		return nil // two names of one inode: POSIX wants nothing done
	}
	if r.flags&unix.RENAME_EXCHANGE != 0 {
		r.exchange()
		return nil
	}
	if r.over != nil {
		if err := r.replaceable(); err != nil {
			return err
		}
	}
	r.move()
	return nil
}

// checkLoop refuses to move a directory below itself. Parents change only
// under the nameTree's lock, so each can be locked by itself.
func (r *renaming) checkLoop() error {
	below := func(d, top *node) (bool, error) {
		for ino := d.ino; ; {
			if ino == top.ino {
				return true, nil
			}
			if ino == meta.Root {
				return false, nil
			}
			n, err := r.v.get(ino)
			if err == syscall.ENOENT {
				return false, nil // removed with all that was below it
			}
			if err != nil {
				return false, err
			}
			n.mu.Lock()
			ino = n.attr.Parent
			n.mu.Unlock()
			n.release()
		}
	}
	if r.src.typ == syscall.S_IFDIR {
		if in, err := below(r.to, r.moved); err != nil || in {
			return orErr(err, syscall.EINVAL)
		}
	}
	if r.over == nil || r.dst.typ != syscall.S_IFDIR {
		return nil
	}
	// An exchange moves the other one, too; and what is replaced must not contain what moves.
	in, err := below(r.from, r.over)
	switch {
	case err != nil:
		return err
	case in && r.flags&unix.RENAME_EXCHANGE != 0:
		return syscall.EINVAL
	case in:
		return syscall.ENOTEMPTY
	}
	return nil
}

func (r *renaming) replaceable() error {
	switch {
	case r.moved.isDir() && !r.over.isDir():
		return syscall.ENOTDIR
	case !r.moved.isDir() && r.over.isDir():
		return syscall.EISDIR
	case r.over.isDir() && r.over.attr.Entries > 0:
		return syscall.ENOTEMPTY
	}
	return nil
}

func (r *renaming) move() {
	v := r.v
	typ := r.moved.attr.Mode & syscall.S_IFMT
	v.tree.unlink(r.from, r.oldName, r.src)
	// Repointed and not removed and added: a look-up in between finds one or the other.
	if r.over != nil {
		v.tree.repoint(r.to, r.newName, r.dst, r.moved.ino, typ)
		v.tree.dropName(r.to, r.over)
		// The name that is replaced stays in its position, which is the moved file's from now on.
		r.moved.moveTo(r.to, r.dst.pos)
	} else {
		r.moved.moveTo(r.to, v.tree.link(r.to, r.newName, r.moved.ino, typ))
	}
	if r.moved.isDir() {
		r.from.attr.Nlink--
		r.to.attr.Nlink++
	}
	r.moved.attr.Ctime = v.Now()
	v.flusher.markChanged(r.moved)
	if r.flags&unix.RENAME_WHITEOUT != 0 {
		r.whiteout()
	}
}

// whiteout leaves under the old name the device 0, 0, by which an overlay
// knows that a lower layer's file is gone.
func (r *renaming) whiteout() {
	n := r.v.tree.newNode(r.from, CreateOptions{Mode: syscall.S_IFCHR, UID: r.from.attr.UID, GID: r.from.attr.GID})
	n.mu.Lock() // the newest inode: last in the order of locks
	defer n.mu.Unlock()
	r.v.tree.publish(r.from, r.oldName, n)
}

func (r *renaming) exchange() {
	v := r.v
	// Both names stay where they are; what they lead to changes places, and with it the parents'
	// counts.
	v.tree.repoint(r.from, r.oldName, r.src, r.over.ino, r.over.attr.Mode&syscall.S_IFMT)
	v.tree.repoint(r.to, r.newName, r.dst, r.moved.ino, r.moved.attr.Mode&syscall.S_IFMT)
	for _, s := range []struct {
		n, from, to *node
		pos         uint64
	}{{r.moved, r.from, r.to, r.dst.pos}, {r.over, r.to, r.from, r.src.pos}} {
		s.n.moveTo(s.to, s.pos)
		if s.n.isDir() {
			s.from.attr.Nlink--
			s.to.attr.Nlink++
		}
		s.n.attr.Ctime = v.Now()
		v.flusher.markChanged(s.n)
	}
}
