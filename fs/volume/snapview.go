package volume

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/store"
)

// Snapshots are seen as directories in .snapshots, which the root directory has
// and does not list. What is in them are nodes as any, read through vertices, but
// without rows and not to be changed.

// SnapshotsName is the name in the root directory of the snapshots.
const SnapshotsName = ".snapshots"

// SnapshotsShown says who sees the directory of snapshots.
type SnapshotsShown int

// Whoever knows its name can enter it, unless it is root's alone.
const (
	SnapshotsHidden  SnapshotsShown = iota // it is not listed
	SnapshotsVisible                       // it is listed, and so found by find(1) and rm -r
	SnapshotsOfRoot                        // nor may others than root enter it
)

// SnapshotsDir is the inode of that directory.
const SnapshotsDir meta.Ino = 2

// firstVirtual is the least inode number of what is in snapshots; snapnumber.go says how they are
// made. No inode with rows ever gets so far.
const firstVirtual meta.Ino = 1 << 62

func isVirtual(ino meta.Ino) bool { return ino >= firstVirtual || ino == SnapshotsDir }

// A virtual is where an inode number of a snapshot leads.
type virtual struct {
	view    *snapView
	parent  meta.Ino // 0: it is the snapshot's root
	name    string
	ident   uint64 // of a file with several names
	lookups uint64 // by the kernel
	uses    int    // others whose parent it is
	queued  uint64 // its latest place in views.idle
}

// A snapView is a snapshot that somebody looks at. It stays whole meanwhile,
// whether or not it is removed.
type snapView struct {
	id    store.ID
	graph graph.Snapshot
	pin   *store.Pin
	nodes int  // inode numbers that lead into it
	gone  bool // the snapshot was removed: what the kernel does not know is not kept
}

// views are the inode numbers of snapshots in use.
type views struct {
	sync.Mutex
	v       *Volume
	nodes   map[meta.Ino]*virtual
	snaps   map[store.ID]*snapView
	idle    []meta.Ino // told of, and perhaps not known to the kernel; the oldest first
	dropped uint64     // how many left idle at its front: idle[0] is at place dropped+1
}

// maxIdle is how many inodes that the kernel does not know stay: it may ask for them by
// a file handle.
const maxIdle = 8192

// number returns the inode number of an entry, the one with an index in its directory whose first
// one has a place, and notes where it leads.
func (w *views) number(view *snapView, parent meta.Ino, e *graph.Entry, place uint64) meta.Ino {
	w.Lock()
	defer w.Unlock()
	// A node that stayed in the table may be of an earlier view of the same snapshot, which
	// keeps it no more.
	if p := w.nodes[parent]; p != nil {
		view = p.view
	}
	return w.give(view, parent, e, place)
}

// give does so; w is locked.
func (w *views) give(view *snapView, parent meta.Ino, e *graph.Entry, place uint64) meta.Ino {
	want := virtual{view: view, parent: parent, name: e.Name, ident: e.Ident}
	for try := 0; ; try++ {
		ino := virtualIno(view.id, parent, e, place, try)
		old, ok := w.nodes[ino]
		if ok && (old.view.id != view.id || old.ident != want.ident || want.ident == 0 && (old.parent != parent || old.name != e.Name)) {
			continue // another one has it
		}
		if !ok {
			w.nodes[ino] = &want
			view.nodes++
			if p := w.nodes[parent]; p != nil {
				p.uses++
			}
			// Nobody may ever ask for it, as when a directory is only listed; then it is forgotten
			// in turn.
			w.retire(ino, &want)
		}
		return ino
	}
}

// retire queues an inode that the kernel does not know, to be forgotten when maxIdle
// others have come after it.
func (w *views) retire(ino meta.Ino, t *virtual) {
	w.idle = append(w.idle, ino)
	t.queued = w.dropped + uint64(len(w.idle))
	for len(w.idle) > maxIdle {
		w.next()
	}
}

// next takes the oldest inode off the queue and forgets it.
func (w *views) next() {
	ino := w.idle[0]
	w.idle = w.idle[1:]
	w.dropped++
	w.drop(ino)
}

// forgetSnapshot forgets what the kernel does not know of a snapshot that was removed, so that
// its blocks can be reclaimed.
func (w *views) forgetSnapshot(id store.ID) {
	w.Lock()
	defer w.Unlock()
	view, ok := w.snaps[id]
	if !ok {
		return
	}
	// What the kernel still knows stays readable until it forgets it.
	view.gone = true
	for _, ino := range w.idle {
		if t, ok := w.nodes[ino]; ok && t.view == view {
			w.dropNow(ino)
		}
	}
}

// dropNow is drop of one that may be in the queue.
func (w *views) dropNow(ino meta.Ino) {
	if t, ok := w.nodes[ino]; ok {
		t.queued = 0
	}
	w.drop(ino)
}

// drop forgets an inode number that nobody needs and that is in the queue no more.
func (w *views) drop(ino meta.Ino) {
	for {
		t, ok := w.nodes[ino]
		if !ok || t.lookups > 0 || t.uses > 0 || t.queued > w.dropped {
			return
		}
		delete(w.nodes, ino)
		if t.view.nodes--; t.view.nodes == 0 {
			delete(w.snaps, t.view.id)
			t.view.pin.Release()
		}
		// Its parent may have stayed for its sake alone, and so on up to the root.
		ino = t.parent
		if p, ok := w.nodes[ino]; ok {
			p.uses--
		}
	}
}

// known counts delta look-ups by the kernel. It reports whether the number leads anywhere.
func (w *views) known(ino meta.Ino, delta int64) bool {
	if ino == SnapshotsDir {
		return true // for ever
	}
	w.Lock()
	defer w.Unlock()
	t, ok := w.nodes[ino]
	if !ok {
		return false
	}
	if delta < 0 {
		t.lookups -= min(t.lookups, uint64(-delta))
		switch {
		case t.lookups > 0:
		case t.view.gone:
			w.dropNow(ino)
		default:
			w.retire(ino, t)
		}
		return true
	}
	t.lookups += uint64(delta)
	return true
}

func (w *views) find(ino meta.Ino) (virtual, bool) {
	w.Lock()
	defer w.Unlock()
	t, ok := w.nodes[ino]
	if !ok {
		return virtual{}, false
	}
	return *t, true
}

// open returns the view of a snapshot and the inode of its root.
func (w *views) open(s Snapshot) (*snapView, meta.Ino, error) {
	w.Lock()
	defer w.Unlock()
	view, ok := w.snaps[s.ID]
	if !ok {
		view = &snapView{id: s.ID, graph: s.Snapshot, pin: w.v.store.NewPin()}
		view.pin.Add(s.ID)
		w.snaps[s.ID] = view
	}
	ino := w.give(view, 0, &graph.Entry{}, 0)
	// From here on the sweep leaves it; was it there until here?
	if has, err := w.v.store.Has(s.ID); err != nil || !has {
		w.dropNow(ino)
		return nil, 0, orErr(err, syscall.ENOENT)
	}
	return view, ino, nil
}

// readVirtual makes the node of an inode in a snapshot.
func (w *views) readVirtual(ino meta.Ino) (*node, error) {
	if ino == SnapshotsDir {
		return w.snapshotsNode()
	}
	t, ok := w.find(ino)
	if !ok {
		// The kernel looks the path up again, which gives the file a number anew.
		return nil, syscall.ESTALE
	}
	e, err := w.virtualEntry(&t)
	if err != nil {
		return nil, err
	}
	parent := t.parent
	if parent == 0 {
		parent = SnapshotsDir
	}
	return virtualNode(ino, parent, t.view, e), nil
}

func (w *views) virtualEntry(t *virtual) (*graph.Entry, error) {
	if t.parent == 0 {
		return &t.view.graph.Root, nil
	}
	if t.ident != 0 {
		return w.linked(t.view, t.ident)
	}
	// No lock of the views is held: the parent may have to be read in the same way.
	d, err := w.v.get(t.parent)
	if err != nil {
		return nil, err
	}
	defer d.release()
	d.mu.Lock()
	defer d.mu.Unlock()
	e, err := w.treeOf(d).Lookup(context.Background(), t.name)
	return &e, noEntry(err)
}

// linked returns what the names of a file with several of them share.
func (w *views) linked(view *snapView, ident uint64) (*graph.Entry, error) {
	t := graph.OpenTree(w.v.store, view.graph.Table, graph.LinkTable)
	e, err := t.Lookup(context.Background(), graph.TableKey(ident))
	if err != nil {
		return nil, fmt.Errorf("file %d of snapshot %s: %w", ident, view.id.Short(), err)
	}
	return &e, nil
}

// noEntry makes ENOENT of a name that is not in a tree.
func noEntry(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return syscall.ENOENT
	}
	return err
}

// treeOf returns the tree that has a directory's names. d.mu is held.
func (w *views) treeOf(d *node) *graph.Tree {
	if d.tree == nil || d.tree.Root() != store.ID(d.attr.LazyID) {
		d.tree = graph.OpenTree(w.v.store, store.ID(d.attr.LazyID), graph.Directory)
	}
	return d.tree
}

func virtualNode(ino, parent meta.Ino, view *snapView, e *graph.Entry) *node {
	a := inodeOf(e, parent)
	a.Mode = withoutPrivileges(a.Mode)
	n := nodeOf(ino, a)
	n.frozen, n.view, n.xattrs, n.xattrLink = true, view, e.Xattrs, e.XattrLink
	n.ext.absent = true
	return n
}

// inodeOf returns the record that an entry stands for, as a lazy inode.
func inodeOf(e *graph.Entry, parent meta.Ino) meta.Inode {
	a := meta.Inode{
		Mode: e.Mode, UID: e.UID, GID: e.GID, Nlink: max(1, e.Nlink), Rdev: e.Rdev, Size: e.Size, Alloc: e.Data, Parent: parent,
		Atime: meta.Time(e.Atime), Mtime: meta.Time(e.Mtime), Ctime: meta.Time(e.Ctime), Btime: meta.Time(e.Btime),
		Target: e.Target, Xattrs: uint32(len(e.Xattrs)), LazyID: meta.BlockID(e.Link.ID),
	}
	if e.IsDir() {
		a.Nlink = uint32(2 + e.Subdirs)
		a.Entries = e.Entries
	}
	if e.XattrLink.Kind != 0 {
		a.Xattrs = 1
	}
	return a
}

// snapshotsNode makes the node of the directory of snapshots.
func (w *views) snapshotsNode() (*node, error) {
	root, err := w.v.Attr(meta.Root)
	if err != nil {
		return nil, err
	}
	mode := uint32(syscall.S_IFDIR | 0o755)
	if w.v.opts.Snapshots == SnapshotsOfRoot {
		mode, root.UID, root.GID = syscall.S_IFDIR|0o700, 0, 0
	}
	n := nodeOf(SnapshotsDir, meta.Inode{
		Mode: mode, UID: root.UID, GID: root.GID, Nlink: 2, Parent: meta.Root,
		Atime: root.Btime, Mtime: root.Btime, Ctime: root.Btime, Btime: root.Btime,
	})
	n.frozen = true
	return n, nil
}

// lookupVirtual finds a name in a directory that is not to be changed.
func (w *views) lookupVirtual(d *node, name string) (meta.Ino, error) {
	switch {
	case !d.isDir():
		return 0, syscall.ENOTDIR
	case len(name) > meta.MaxName:
		return 0, syscall.ENAMETOOLONG
	case d.ino == SnapshotsDir:
		s, err := w.v.Snapshot(context.Background(), name)
		if err != nil {
			return 0, noEntry(err)
		}
		_, ino, err := w.open(s)
		return ino, err
	}
	first, err := w.firstPlace(d)
	if err != nil {
		return 0, err
	}
	// A tree caches the vertices on its way and is not for two at once.
	d.mu.Lock()
	e, index, err := w.treeOf(d).Find(context.Background(), name)
	d.mu.Unlock()
	if err != nil {
		return 0, noEntry(err)
	}
	return w.number(d.view, d.ino, &e, first+uint64(index)), nil
}

// readVirtualDir is ReadDir for such a directory. Positions are in the order of
// names.
func (w *views) readVirtualDir(d *node, after uint64, fn func(Entry) bool) error {
	for pos, name := range []string{posDot: ".", posDotDot: ".."} {
		ino := d.ino
		if name == ".." {
			ino = d.attr.Parent
		}
		if name != "" && after < uint64(pos) && !fn(Entry{Dirent: meta.Dirent{Ino: ino, Type: syscall.S_IFDIR, Name: name}, Pos: uint64(pos)}) {
			return nil
		}
	}
	// A snapshot does not change: the index of a name is its position.
	pos := max(after, posDotDot)
	for {
		batch, err := w.virtualBatch(d, pos-posDotDot)
		if err != nil || len(batch) == 0 {
			return err
		}
		for i := range batch {
			pos++
			batch[i].Pos = pos
			if !fn(batch[i]) {
				return nil
			}
		}
	}
}

// virtualBatch returns some entries from an index on.
func (w *views) virtualBatch(d *node, index uint64) (batch []Entry, err error) {
	if d.ino == SnapshotsDir {
		return w.snapshotEntries(index)
	}
	first, err := w.firstPlace(d)
	if err != nil {
		return nil, err
	}
	place := first + index
	d.mu.Lock()
	defer d.mu.Unlock()
	err = w.treeOf(d).EachFrom(context.Background(), int64(index), func(e *graph.Entry) error {
		full := e
		if e.Ident != 0 {
			if full, err = w.linked(d.view, e.Ident); err != nil {
				return err
			}
		}
		// Each name listed gets a number, which stays while it is among the last ones or known.
		ino := w.number(d.view, d.ino, e, place)
		place++
		// With attributes: a listing that asks for each of them (ls -l) needs no further look-up.
		n := virtualNode(ino, d.ino, d.view, full)
		a := n.stat()
		batch = append(batch, Entry{Dirent: meta.Dirent{Ino: ino, Type: e.Type(), Name: e.Name}, Attr: &a})
		if len(batch) == dirBatchSize {
			return store.ErrStop
		}
		return nil
	})
	return batch, err
}

func (w *views) snapshotEntries(index uint64) (batch []Entry, err error) {
	err = w.v.store.Snapshots(context.Background(), func(r store.SnapshotRef) error {
		if index > 0 {
			index--
			return nil
		}
		if batch = append(batch, Entry{Dirent: meta.Dirent{Ino: w.listed(r), Type: syscall.S_IFDIR, Name: r.Name}}); len(batch) == dirBatchSize {
			return store.ErrStop
		}
		return nil
	})
	return batch, err
}

// listed gives a number to a snapshot. One that cannot be read must not hide the others: it has a
// number that leads nowhere, and whoever looks its name up gets the error.
func (w *views) listed(r store.SnapshotRef) meta.Ino {
	s, err := w.v.snapshots.loadSnapshot(context.Background(), r)
	if err == nil {
		// The snapshot is pinned from here on, as long as a number leads into it.
		var ino meta.Ino
		if _, ino, err = w.open(s); err == nil {
			return ino
		}
	}
	return virtualIno(r.ID, 0, &graph.Entry{}, 0, 0)
}

// snapshotXattrs returns the extended attributes of an inode in a snapshot.
func (w *views) snapshotXattrs(n *node) ([]graph.Xattr, error) {
	if n.xattrLink.Kind == 0 || n.xattrs != nil {
		return n.xattrs, nil
	}
	set, err := w.linkedXattrs(n.xattrLink)
	n.xattrs = set
	return set, err
}

// linkedXattrs reads extended attributes that are stored apart.
func (w *views) linkedXattrs(link graph.Link) ([]graph.Xattr, error) {
	b, err := w.linkedBytes(link)
	if err != nil {
		return nil, err
	}
	return graph.DecodeXattrs(b)
}

// linkedBytes is the reverse of putBytes.
func (w *views) linkedBytes(link graph.Link) ([]byte, error) {
	var out []byte
	err := w.v.files.lazyExtents(context.Background(), link.ID, 0, 1<<62, func(e meta.Extent) error {
		p, err := w.v.files.extentBytes(context.Background(), e)
		out = append(out, p...)
		return err
	})
	return out, err
}

func (w *views) snapshotXattr(n *node, name string) ([]byte, error) {
	set, err := w.snapshotXattrs(n)
	if err != nil {
		return nil, err
	}
	i, ok := slices.BinarySearchFunc(set, name, func(x graph.Xattr, name string) int { return strings.Compare(x.Name, name) })
	if !ok || givesPrivileges(n.attr.Mode, name) {
		return nil, syscall.ENODATA
	}
	return set[i].Value, nil
}
