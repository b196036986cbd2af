package volume

import (
	"sync"
	"syscall"

	"github.com/quarxtor/quarxfs/fs/meta"
)

// maxLinks is how many names a file, or subdirectories a directory, may have.
const maxLinks = 1<<31 - 1

// nameTree changes and reads the names of live directories. Its mutex is held while names change,
// so that a rename sees the way to the root stand still; a directory's own node.mu guards its
// names, and is enough to look one up.
type nameTree struct {
	sync.Mutex
	v *Volume
}

// Lookup finds a name in a directory. ENOENT: it is not there.
func (v *Volume) Lookup(dir meta.Ino, name string) (Attr, error) {
	d, err := v.get(dir)
	if err != nil {
		return Attr{}, err
	}
	defer d.release()
	if d.frozen {
		ino, err := v.views.lookupVirtual(d, name)
		if err != nil {
			return Attr{}, err
		}
		return v.Attr(ino)
	}
	// Before d.mu: making rows takes Updates, each of which takes it.
	if err := v.materializer.directory(d); err != nil {
		return Attr{}, err
	}
	d.mu.Lock()
	p, err := v.tree.find(d, name)
	// A file that has that name from before hides the snapshots.
	if err == syscall.ENOENT && d.ino == meta.Root && name == SnapshotsName {
		p, err = dentry{ino: SnapshotsDir}, nil
	}
	d.mu.Unlock()
	if err != nil {
		return Attr{}, err
	}
	return v.Attr(p.ino)
}

// CreateOptions describe an inode to be made.
type CreateOptions struct {
	Mode     uint32 // type and permission bits
	Umask    uint32
	UID, GID uint32
	Rdev     uint32
	Target   string // of a symbolic link
}

// Create makes an inode under a name in a directory. EEXIST: the name is
// taken.
func (v *Volume) Create(dir meta.Ino, name string, c CreateOptions) (Attr, error) {
	if err := checkName(name); err != nil {
		return Attr{}, err
	}
	if len(c.Target) > meta.MaxTarget {
		return Attr{}, syscall.ENAMETOOLONG
	}
	return v.tree.make(dir, name, c)
}

// CreateNameless makes an inode without a name (O_TMPFILE) that belongs to a
// directory's filesystem and inherits from it. It counts as Known once.
func (v *Volume) CreateNameless(dir meta.Ino, c CreateOptions) (Attr, error) {
	return v.tree.make(dir, "", c)
}

// changeable makes a directory ready for changes of its names. EROFS: it is in a
// snapshot.
func (t *nameTree) changeable(d *node) error {
	if d.frozen {
		return syscall.EROFS
	}
	return t.v.materializer.directory(d)
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
func (t *nameTree) make(dir meta.Ino, name string, c CreateOptions) (Attr, error) {
	if err := t.v.reaper.admit(metadataCost); err != nil {
		return Attr{}, err
	}
	// Outside of the change: it may have to commit, so that no number can be given out twice after
	// a crash.
	t.v.coverNumbers()
	d, err := t.v.get(dir)
	if err != nil {
		return Attr{}, err
	}
	defer d.release()
	if err := t.changeable(d); err != nil {
		return Attr{}, err
	}
	var a Attr
	err = t.v.store.Change(func() error {
		t.Lock()
		defer t.Unlock()
		d.mu.Lock()
		defer d.mu.Unlock()
		if err := t.vacant(d, name); err != nil {
			return err
		}
		n := t.newNode(d, c)
		// The newest inode has the greatest number: so the order of locks holds.
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.isDir() && d.attr.Nlink >= maxLinks {
			return syscall.EMLINK
		}
		if err := t.v.xattrs.inherit(d, n, c.Umask); err != nil {
			return err
		}
		t.publish(d, name, n)
		a = t.v.stat(n)
		return nil
	})
	t.v.flusher.maybeCommit()
	return a, err
}

// vacant reports why name cannot be added to d; an empty name can.
func (t *nameTree) vacant(d *node, name string) error {
	if !d.isDir() {
		return syscall.ENOTDIR
	}
	// A removed directory gets no more names: nobody would find them, and nothing remove them.
	if d.attr.Nlink == 0 {
		return syscall.ENOENT
	}
	if name == "" {
		return nil
	}
	if d.ino == meta.Root && name == SnapshotsName {
		return syscall.EEXIST
	}
	_, err := t.find(d, name)
	switch err {
	case syscall.ENOENT:
		return nil
	case nil:
		return syscall.EEXIST
	}
	return err
}

func (t *nameTree) newNode(d *node, c CreateOptions) *node {
	now := t.v.Now()
	n := nodeOf(meta.Ino(t.v.numbers.take()), meta.Inode{
		Mode: c.Mode, UID: c.UID, GID: c.GID, Nlink: 1, Rdev: c.Rdev, Target: c.Target,
		Atime: now, Mtime: now, Ctime: now, Btime: now,
	})
	n.ext.absent = true
	if n.isDir() {
		n.attr.Nlink = 2
		n.attr.Parent = d.ino
		n.dir = newDirectory()
	}
	// A directory with sgid hands on its group, and to directories the bit.
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
func (t *nameTree) publish(d *node, name string, n *node) {
	if name == "" {
		n.attr.Nlink = 0
		// Counted as known before it is an orphan, or the reaper could take it at once.
		t.v.Known(n.ino)
		t.v.known.orphan(n.ino)
	} else {
		n.moveTo(d, t.link(d, name, n.ino, n.attr.Mode&syscall.S_IFMT))
		if n.isDir() {
			d.attr.Nlink++
		}
	}
	if n.dir != nil {
		t.v.table.names.keep(n, n.dir)
	}
	t.v.flusher.markChanged(n)
	t.v.counters.inodes.Add(1)
	// Last: from here on others find the node.
	t.v.table.insertNew(n)
}

// Link gives an inode another name.
func (v *Volume) Link(ino, dir meta.Ino, name string) (Attr, error) {
	if err := checkName(name); err != nil {
		return Attr{}, err
	}
	if err := v.reaper.admit(metadataCost); err != nil {
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
	if err := v.tree.changeable(d); err != nil {
		return Attr{}, err
	}
	// A snapshot is like another filesystem: no name of the live one can lead into it.
	if n.frozen {
		return Attr{}, syscall.EXDEV
	}
	var a Attr
	err = v.store.Change(func() error {
		v.tree.Lock()
		defer v.tree.Unlock()
		// lockBoth would lock it once and be wrong about two nodes.
		if n == d {
			return syscall.EPERM
		}
		unlock := lockBoth(n, d)
		defer unlock()
		if err := v.tree.addName(n, d, name); err != nil {
			return err
		}
		a = v.stat(n)
		return nil
	})
	return a, err
}

func (t *nameTree) addName(n, d *node, name string) error {
	switch {
	case n.isDir():
		return syscall.EPERM
	case n.reaping:
		return syscall.ENOENT
	case n.attr.Nlink >= maxLinks:
		return syscall.EMLINK
	}
	if err := t.vacant(d, name); err != nil {
		return err
	}
	// With the second name the place of the first one ends to say where the file is.
	if n.attr.Nlink > 0 {
		if err := t.v.tracker.share(n); err != nil {
			return err
		}
	}
	n.moveTo(d, t.link(d, name, n.ino, n.attr.Mode&syscall.S_IFMT))
	if n.attr.Nlink == 0 {
		// A nameless file (O_TMPFILE) gets its first name.
		t.v.known.unorphan(n.ino)
	}
	n.attr.Nlink++
	n.attr.Ctime = t.v.Now()
	t.v.flusher.markChanged(n)
	return nil
}

// Unlink removes a name of anything but a directory.
func (v *Volume) Unlink(dir meta.Ino, name string) error {
	return v.tree.remove(dir, name, false)
}

// Rmdir removes an empty directory. ENOTEMPTY: it is not.
func (v *Volume) Rmdir(dir meta.Ino, name string) error {
	return v.tree.remove(dir, name, true)
}

func (t *nameTree) remove(dir meta.Ino, name string, wantDir bool) error {
	d, err := t.v.get(dir)
	if err != nil {
		return err
	}
	defer d.release()
	if err := t.changeable(d); err != nil {
		return err
	}
	err = t.v.store.Removal(func() error {
		t.Lock()
		defer t.Unlock()
		d.mu.Lock()
		p, err := t.find(d, name)
		d.mu.Unlock()
		if err != nil {
			return err
		}
		// d is unlocked meanwhile, as the order of locks is by number; names stand still under the
		// tree's lock.
		n, err := t.v.get(p.ino)
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
		t.unlink(d, name, p)
		t.dropName(d, n)
		return nil
	})
	t.v.flusher.maybeCommit()
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
func (t *nameTree) dropName(d, n *node) {
	if n.isDir() {
		d.attr.Nlink -= min(1, d.attr.Nlink) // d may be removed itself
		n.attr.Nlink = 0
	} else {
		n.attr.Nlink--
	}
	n.attr.Ctime = t.v.Now()
	t.v.flusher.markChanged(n)
	if n.attr.Nlink == 0 {
		t.v.known.orphan(n.ino)
	}
}

func orErr(err error, other error) error {
	if err != nil {
		return err
	}
	return other
}

// lockAll locks distinct nodes in ascending order of their numbers; nil ones
// are passed over.
func lockAll(nodes ...*node) (unlock func()) {
	var list []*node
	// Inserted in order: two callers with the same nodes never wait for each other.
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
