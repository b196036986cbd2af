package volume

import (
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/fs/meta"
)

// maxLinks is how many names a file, or subdirectories a directory, may have.
const maxLinks = 1<<31 - 1

// Lookup finds a name in a directory. ENOENT: it is not there.
func (v *Volume) Lookup(dir meta.Ino, name string) (Attr, error) {
	d, err := v.get(dir)
	if err != nil {
		return Attr{}, err
	}
	defer d.release()
	if d.frozen {
		ino, err := v.lookupVirtual(d, name)
		if err != nil {
			return Attr{}, err
		}
		return v.Attr(ino)
	}
	if err := v.unfold(d); err != nil {
		return Attr{}, err
	}
	d.mu.Lock()
	p, err := v.find(d, name)
	if err == syscall.ENOENT && d.ino == meta.Root && name == SnapshotsName {
		p, err = place{ino: SnapshotsDir}, nil
	}
	if name == ".." && d.isDir() {
		p, err = place{ino: d.attr.Parent}, nil
	}
	d.mu.Unlock()
	if err != nil {
		return Attr{}, err
	}
	return v.Attr(p.ino)
}

// A New describes an inode to be made.
type New struct {
	Mode     uint32 // type and permission bits
	Umask    uint32
	UID, GID uint32
	Rdev     uint32
	Target   string // of a symbolic link
}

// Create makes an inode under a name in a directory. EEXIST: the name is
// taken.
func (v *Volume) Create(dir meta.Ino, name string, c New) (Attr, error) {
	if err := checkName(name); err != nil {
		return Attr{}, err
	}
	if len(c.Target) > meta.MaxTarget {
		return Attr{}, syscall.ENAMETOOLONG
	}
	return v.make(dir, name, c)
}

// CreateNameless makes an inode without a name (O_TMPFILE) that belongs to a
// directory's filesystem and inherits from it. It counts as Known once.
func (v *Volume) CreateNameless(dir meta.Ino, c New) (Attr, error) {
	return v.make(dir, "", c)
}

// changeable makes a directory ready for changes of its names. EROFS: it is in a
// snapshot.
func (v *Volume) changeable(d *node) error {
	if d.frozen {
		return syscall.EROFS
	}
	return v.unfold(d)
}

func checkName(name string) error {
	if len(name) > meta.MaxName {
		return syscall.ENAMETOOLONG
	}
	if name == "." || name == ".." {
		return syscall.EEXIST
	}
	if meta.ValidName(name) != nil {
		return syscall.EINVAL
	}
	return nil
}

// metadataCost is the bytes that one change of names is taken to need.
const metadataCost = 4096

// make makes an inode under a name, or without one where name is empty.
func (v *Volume) make(dir meta.Ino, name string, c New) (Attr, error) {
	if err := v.admit(metadataCost); err != nil {
		return Attr{}, err
	}
	d, err := v.get(dir)
	if err != nil {
		return Attr{}, err
	}
	defer d.release()
	if err := v.changeable(d); err != nil {
		return Attr{}, err
	}
	var a Attr
	err = v.store.Update(func() error {
		v.tree.Lock()
		defer v.tree.Unlock()
		d.mu.Lock()
		defer d.mu.Unlock()
		if err := v.vacant(d, name); err != nil {
			return err
		}
		n := v.newNode(d, c)
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.isDir() && d.attr.Nlink >= maxLinks {
			return syscall.EMLINK
		}
		if err := v.inherit(d, n, c.Umask); err != nil {
			return err
		}
		v.publish(d, name, n)
		a = n.stat()
		return nil
	})
	v.store.Relieve()
	return a, err
}

// vacant reports why name cannot be added to d; an empty name can.
func (v *Volume) vacant(d *node, name string) error {
	if !d.isDir() {
		return syscall.ENOTDIR
	}
	if d.attr.Nlink == 0 {
		return syscall.ENOENT
	}
	if name == "" {
		return nil
	}
	if d.ino == meta.Root && name == SnapshotsName {
		return syscall.EEXIST
	}
	_, err := v.find(d, name)
	switch err {
	case syscall.ENOENT:
		return nil
	case nil:
		return syscall.EEXIST
	}
	return err
}

func (v *Volume) newNode(d *node, c New) *node {
	now := v.now()
	n := &node{ino: meta.Ino(v.alloc()), attr: meta.Inode{
		Mode: c.Mode, UID: c.UID, GID: c.GID, Nlink: 1, Rdev: c.Rdev, Target: c.Target,
		Atime: now, Mtime: now, Ctime: now, Btime: now,
	}}
	n.init()
	n.ext.absent = true
	if n.isDir() {
		n.attr.Nlink = 2
		n.attr.Parent = d.ino
		n.dir = newDirectory()
	}
	if d.attr.Mode&syscall.S_ISGID != 0 {
		n.attr.GID = d.attr.GID
		if n.isDir() {
			n.attr.Mode |= syscall.S_ISGID
		}
	}
	return n
}

// publish puts a new node into its directory, the table and the next commit.
// Both nodes are locked, inside Update.
func (v *Volume) publish(d *node, name string, n *node) {
	if name == "" {
		n.attr.Nlink = 0
		v.Known(n.ino)
		v.orphan(n)
	} else {
		n.moveTo(d, v.link(d, name, n.ino, n.attr.Mode&syscall.S_IFMT))
		if n.isDir() {
			d.attr.Nlink++
		}
	}
	if n.dir != nil {
		v.keepNames(n, n.dir)
	}
	v.changed(n)
	v.inodes.Add(1)
	v.cache.Lock()
	defer v.cache.Unlock()
	v.cache.nodes[n.ino] = n
	v.bound()
}

// Link gives an inode another name.
func (v *Volume) Link(ino, dir meta.Ino, name string) (Attr, error) {
	if err := checkName(name); err != nil {
		return Attr{}, err
	}
	if err := v.admit(metadataCost); err != nil {
		return Attr{}, err
	}
	n, err := v.get(ino)
	if err != nil {
		return Attr{}, err
	}
	defer n.release()
	d, err := v.get(dir)
	if err != nil {
		return Attr{}, err
	}
	defer d.release()
	if err := v.changeable(d); err != nil {
		return Attr{}, err
	}
	if n.frozen {
		return Attr{}, syscall.EXDEV
	}
	var a Attr
	err = v.store.Update(func() error {
		v.tree.Lock()
		defer v.tree.Unlock()
		if n == d {
			return syscall.EPERM
		}
		unlock := lockBoth(n, d)
		defer unlock()
		if err := v.addName(n, d, name); err != nil {
			return err
		}
		a = n.stat()
		return nil
	})
	return a, err
}

func (v *Volume) addName(n, d *node, name string) error {
	switch {
	case n.isDir():
		return syscall.EPERM
	case n.reaping:
		return syscall.ENOENT
	case n.attr.Nlink >= maxLinks:
		return syscall.EMLINK
	}
	if err := v.vacant(d, name); err != nil {
		return err
	}
	if n.attr.Nlink > 0 {
		if err := v.share(n); err != nil {
			return err
		}
	}
	n.moveTo(d, v.link(d, name, n.ino, n.attr.Mode&syscall.S_IFMT))
	if n.attr.Nlink == 0 {
		v.adopt(n)
	}
	n.attr.Nlink++
	n.attr.Ctime = v.now()
	v.changed(n)
	return nil
}

// Unlink removes a name of anything but a directory.
func (v *Volume) Unlink(dir meta.Ino, name string) error {
	return v.remove(dir, name, false)
}

// Rmdir removes an empty directory. ENOTEMPTY: it is not.
func (v *Volume) Rmdir(dir meta.Ino, name string) error {
	return v.remove(dir, name, true)
}

func (v *Volume) remove(dir meta.Ino, name string, wantDir bool) error {
	d, err := v.get(dir)
	if err != nil {
		return err
	}
	defer d.release()
	if err := v.changeable(d); err != nil {
		return err
	}
	err = v.store.Update(func() error {
		v.tree.Lock()
		defer v.tree.Unlock()
		d.mu.Lock()
		p, err := v.find(d, name)
		d.mu.Unlock()
		if err != nil {
			return err
		}
		n, err := v.get(p.ino)
		if err != nil {
			return err
		}
		defer n.release()
		unlock := lockBoth(n, d)
		defer unlock()
		if d.attr.Nlink == 0 {
			return syscall.ENOENT // it was removed as a whole
		}
		if err := removable(n, wantDir); err != nil {
			return err
		}
		v.unlink(d, name, p)
		v.dropName(d, n)
		return nil
	})
	v.store.Relieve()
	return err
}

func removable(n *node, wantDir bool) error {
	switch {
	case wantDir && !n.isDir():
		return syscall.ENOTDIR
	case !wantDir && n.isDir():
		return syscall.EISDIR
	case wantDir && n.attr.Entries > 0:
		return syscall.ENOTEMPTY
	}
	return nil
}

// dropName counts one name less for n, which a name in d led to. Both are
// locked, inside Update.
func (v *Volume) dropName(d, n *node) {
	if n.isDir() {
		d.attr.Nlink -= min(1, d.attr.Nlink) // d may be removed itself
		n.attr.Nlink = 0
	} else {
		n.attr.Nlink--
	}
	n.attr.Ctime = v.now()
	v.changed(n)
	if n.attr.Nlink == 0 {
		v.orphan(n)
	}
}

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
	for _, dir := range []meta.Ino{oldDir, newDir} {
		d, err := v.get(dir)
		if err != nil {
			return err
		}
		err = v.changeable(d)
		d.release()
		if err != nil {
			return err
		}
	}
	err := v.store.Update(func() error {
		v.tree.Lock()
		defer v.tree.Unlock()
		r := &renaming{v: v, oldName: oldName, newName: newName, flags: flags}
		defer r.close()
		if err := r.open(oldDir, newDir); err != nil {
			return err
		}
		return r.run()
	})
	v.store.Relieve()
	return err
}

// A renaming is one rename under way; Volume.tree is held throughout.
type renaming struct {
	v                *Volume
	oldName, newName string
	flags            uint32
	from, to         *node // directories
	moved, over      *node // over: what newName led to, or nil
	src, dst         place
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

func (r *renaming) find(d *node, name string) (place, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return r.v.find(d, name)
}

func (r *renaming) close() {
	if r.unlock != nil {
		r.unlock()
	}
	for _, n := range r.held {
		n.release()
	}
}

func (r *renaming) run() error {
	if r.over == nil && r.flags&unix.RENAME_EXCHANGE != 0 {
		return syscall.ENOENT
	}
	if r.over != nil && r.flags&unix.RENAME_NOREPLACE != 0 {
		return syscall.EEXIST
	}
	if err := r.checkLoop(); err != nil {
		return err
	}
	r.unlock = lockAll(r.from, r.to, r.moved, r.over)
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
// under Volume.tree, so each can be locked by itself.
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

func orErr(err error, other error) error {
	if err != nil {
		return err
	}
	return other
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
	v.unlink(r.from, r.oldName, r.src)
	if r.over != nil {
		v.repoint(r.to, r.newName, r.dst, r.moved.ino, typ)
		v.dropName(r.to, r.over)
		r.moved.moveTo(r.to, r.dst.pos)
	} else {
		r.moved.moveTo(r.to, v.link(r.to, r.newName, r.moved.ino, typ))
	}
	if r.moved.isDir() {
		r.from.attr.Nlink--
		r.to.attr.Nlink++
	}
	r.moved.attr.Ctime = v.now()
	v.changed(r.moved)
	if r.flags&unix.RENAME_WHITEOUT != 0 {
		r.whiteout()
	}
}

// whiteout leaves under the old name the device 0, 0, by which an overlay
// knows that a lower layer's file is gone.
func (r *renaming) whiteout() {
	n := r.v.newNode(r.from, New{Mode: syscall.S_IFCHR, UID: r.from.attr.UID, GID: r.from.attr.GID})
	n.mu.Lock() // the newest inode: last in the order of locks
	defer n.mu.Unlock()
	r.v.publish(r.from, r.oldName, n)
}

func (r *renaming) exchange() {
	v := r.v
	v.repoint(r.from, r.oldName, r.src, r.over.ino, r.over.attr.Mode&syscall.S_IFMT)
	v.repoint(r.to, r.newName, r.dst, r.moved.ino, r.moved.attr.Mode&syscall.S_IFMT)
	for _, s := range []struct {
		n, from, to *node
		pos         uint64
	}{{r.moved, r.from, r.to, r.dst.pos}, {r.over, r.to, r.from, r.src.pos}} {
		s.n.moveTo(s.to, s.pos)
		if s.n.isDir() {
			s.from.attr.Nlink--
			s.to.attr.Nlink++
		}
		s.n.attr.Ctime = v.now()
		v.changed(s.n)
	}
}

// lockAll locks distinct nodes in ascending order of their numbers; nil ones
// are passed over.
func lockAll(nodes ...*node) (unlock func()) {
	var list []*node
	for _, n := range nodes {
		i := 0
		for i < len(list) && n != nil && list[i].ino < n.ino {
			i++
		}
		if n == nil || i < len(list) && list[i] == n {
			continue
		}
		list = append(list[:i], append([]*node{n}, list[i:]...)...)
	}
	for _, n := range list {
		n.mu.Lock()
	}
	return func() {
		for _, n := range list {
			n.mu.Unlock()
		}
	}
}
