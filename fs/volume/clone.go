package volume

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/tiering/also"
)

// A SnapshotPath is a file or directory in a snapshot; an empty path means all of it.
type SnapshotPath struct {
	Snapshot string
	Path     string
}

// Clone makes a path of the volume a writable copy of what is in a snapshot, at
// the cost of one inode, whatever is below; only directories that lead to files
// with several names are copied name by name. Errors: store.ErrNotFound for what is not in
// the snapshot or a directory of the path; EEXIST.
//
// What another store's snapshot has gives no privileges here: no set-user-ID and set-group-ID bits
// of files, no devices and no security.* attributes, unless KeepPrivileges says so. Finding them
// costs a walk of the directories.
func (v *Volume) Clone(ctx context.Context, from SnapshotPath, to string, rights ...Rights) error {
	return v.snapshots.put(ctx, from, to, replaceNothing, rights)
}

// replacing says what put may take the place of.
type replacing int

const (
	replaceNothing replacing = iota
	replaceAlike             // a directory of a directory, anything else of anything else
	replaceAny
)

// They say in their own words why something cannot be done, and are an errno for whoever asks.
var (
	errDirectory   = also.Is(errors.New("it is a directory, and what would take its place is none"), syscall.EEXIST)
	errNoDirectory = also.Is(errors.New("it is no directory, and what would take its place is one"), syscall.EEXIST)
	errTop         = also.Is(errors.New("the top of the store cannot be made a copy of anything; quarxfs snapshot rollback goes back to a whole snapshot"), syscall.EINVAL)
)

// Restore is Clone, but takes the place of what is at the path. That happens at
// one instant.
func (v *Volume) Restore(ctx context.Context, from SnapshotPath, to string, rights ...Rights) error {
	return v.snapshots.put(ctx, from, to, replaceAny, rights)
}

// RestoreAlike is Restore, but for a directory that is not to be a file, or a file that is not to
// be a directory: EEXIST.
func (v *Volume) RestoreAlike(ctx context.Context, from SnapshotPath, to string, rights ...Rights) error {
	return v.snapshots.put(ctx, from, to, replaceAlike, rights)
}

func (ss *snapshotter) put(ctx context.Context, from SnapshotPath, to string, replace replacing, rights []Rights) error {
	if err := ss.v.store.Admit(metadataCost); err != nil {
		return err
	}
	dir, name, err := ss.v.tree.parentOf(to)
	if err != nil {
		return err
	}
	d, err := ss.v.get(dir)
	if err != nil {
		return err
	}
	defer d.release()
	// Outside of the mutex below, since a directory is materialized for it in many steps.
	if err := ss.v.tree.changeable(d); err != nil {
		return fmt.Errorf("%q: %w", to, err)
	}
	if err := ss.v.store.Accepts(); err != nil {
		return err
	}
	// One at a time: a snapshot that is being made must not see half a clone.
	ss.mu.Lock()
	defer ss.mu.Unlock()
	return ss.withClone(ctx, from, false, rights, func(n *node, nlink uint32) error {
		err := ss.v.store.Change(func() error { return ss.v.tree.attach(n, nlink, d, name, replace) })
		if err != nil {
			return fmt.Errorf("%q: %w", to, err)
		}
		ss.v.known.invalidate([]Invalidation{{dir, name}, {dir, ""}})
		return nil
	})
}

// parentOf resolves a path up to its last name. Symbolic links are not followed.
func (t *nameTree) parentOf(path string) (dir meta.Ino, name string, err error) {
	dir = meta.Root
	parts := strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
	if len(parts) == 0 {
		return 0, "", errTop
	}
	// No symbolic links and no dots: a path in the store means the same whoever asks, and cannot
	// leave it.
	for _, name := range parts[:len(parts)-1] {
		if name == "." || name == ".." {
			return 0, "", fmt.Errorf("%q: %w", path, syscall.EINVAL)
		}
		a, err := t.v.Lookup(dir, name)
		if err != nil {
			return 0, "", fmt.Errorf("%q: %q: %w", path, name, err)
		}
		dir = a.Ino
	}
	name = parts[len(parts)-1]
	if err := checkName(name); err != nil {
		return 0, "", fmt.Errorf("%q: %w", path, err)
	}
	return dir, name, nil
}

// withClone makes a nameless inode of what is in a snapshot and calls fn, which
// may give it a name; else it goes away again. flat says that a directory shall have
// rows of its own. fn is told how many links the inode has with one name. The
// inode's node is held meanwhile, and v.snapshots.mu.
func (ss *snapshotter) withClone(ctx context.Context, from SnapshotPath, flat bool, rights []Rights, fn func(n *node, nlink uint32) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ss.v.life.closing, cancel)()
	s, err := ss.v.Snapshot(ctx, from.Snapshot)
	if err != nil {
		return err
	}
	// Pinned, then looked for again: between the two looks a sweep may have taken it.
	pin := ss.v.store.NewPin()
	defer pin.Release()
	pin.Add(s.ID)
	if s, err = ss.v.Snapshot(ctx, from.Snapshot); err != nil { // it was still there when it was pinned
		return err
	}
	e, err := ss.snapshotEntry(ctx, &s, from.Path)
	if err != nil {
		return err
	}
	foreign, err := ss.foreign(&s)
	if err != nil {
		return err
	}
	var stripped *stripper
	if foreign && !slices.Contains(rights, KeepPrivileges) {
		// What is stripped has no reference until the clone has it.
		release := ss.v.store.Hold()
		defer release()
		stripped = &stripper{ctx: ctx, v: ss.v, done: make(map[store.ID]store.ID)}
		if err := stripped.entry(e); err != nil {
			return fmt.Errorf("copy %s without the privileges of another store's files: %w", from, err)
		}
	}
	ss.v.coverNumbers()
	g := &cloner{ctx: ctx, v: ss.v, stripped: stripped, table: graph.OpenTree(ss.v.store, s.Table, graph.LinkTable), files: make(map[uint64]*clonedFile)}
	n, err := g.top(e, flat)
	if n != nil {
		defer n.release()
		defer ss.v.Forget(n.ino, 1)
	}
	if err != nil {
		return fmt.Errorf("copy %s: %w", from, err)
	}
	if stripped != nil && stripped.n > 0 {
		ss.v.log.Warn("files of another store's snapshot were brought back without set-user-ID, devices and security attributes",
			"snapshot", from.Snapshot, "files", stripped.n)
	}
	// Until fn names it the inode is an orphan, so that a crash leaves nothing behind.
	nlink := uint32(1)
	if e.IsDir() {
		nlink = uint32(2 + e.Subdirs)
	}
	if err := fn(n, nlink); err != nil {
		return err
	}
	if err := ss.v.store.Commit(); err != nil {
		return fmt.Errorf("%w: %w", store.ErrUncommitted, err)
	}
	return nil
}

func (p SnapshotPath) String() string {
	if p.Path == "" {
		return p.Snapshot
	}
	return p.Snapshot + ":" + p.Path
}

// snapshotEntry finds the entry at a path of a snapshot.
func (ss *snapshotter) snapshotEntry(ctx context.Context, s *Snapshot, path string) (*graph.Entry, error) {
	e := &s.Root
	for name := range strings.SplitSeq(path, "/") {
		if name == "" || name == "." {
			continue
		}
		if e.Link.Kind != store.KindTree {
			return nil, fmt.Errorf("%q in snapshot %q: %w", path, s.Name, store.ErrNotFound)
		}
		next, err := graph.OpenTree(ss.v.store, e.Link.ID, graph.Directory).Lookup(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("%q in snapshot %q: %w", path, s.Name, err)
		}
		e = &next
	}
	// A file with several names has only its identity in the directory.
	if e.Ident == 0 {
		return e, nil
	}
	row, err := graph.OpenTree(ss.v.store, s.Table, graph.LinkTable).Lookup(ctx, graph.TableKey(e.Ident))
	return &row, err
}

// A cloner makes inodes of a snapshot's entries.
type cloner struct {
	ctx      context.Context
	v        *Volume
	stripped *stripper // nil: nothing is
	table    *graph.Tree
	files    map[uint64]*clonedFile // with several names, by identity
}

// clonedFile is such a file, as far as its names have come.
type clonedFile struct {
	ino  meta.Ino
	attr meta.Inode
}

// top makes the inode that everything else is below: nameless, and known once.
func (g *cloner) top(e *graph.Entry, flat bool) (n *node, err error) {
	v := g.v
	whole := e.IsDir() && e.Entries > 0 && (e.Below.Linked != 0 || flat)
	err = v.store.Change(func() error {
		ino := meta.Ino(v.numbers.take())
		record := v.materializer.newLazy
		if whole {
			record = v.materializer.newWhole
		}
		attr, err := record(ino, e)
		if err != nil {
			return err
		}
		// Without a name and known once: the reaper leaves it alone while it is filled, and takes
		// it if that fails.
		attr.Nlink = 0
		n = nodeOf(ino, attr)
		n.mu.Lock()
		defer n.mu.Unlock()
		// For the caller; held from before it is in the table, or it could be dropped at once.
		n.users.Add(1)
		v.Known(ino)
		v.known.orphan(n.ino)
		v.flusher.markDirty(n)
		v.table.insertNew(n)
		return nil
	})
	if err != nil || !whole {
		return n, err
	}
	return n, g.fill(n.ino, e)
}

// fill makes the names in a directory, in steps: lazy inodes where no file with
// several names is below, and all that is below elsewhere. Nobody looks into it yet.
func (g *cloner) fill(dir meta.Ino, d *graph.Entry) error {
	tree := graph.OpenTree(g.v.store, d.Link.ID, graph.Directory)
	type sub struct {
		ino meta.Ino
		e   graph.Entry
	}
	// In steps: a commit must get in between, however many names there are.
	for from, more := "", true; more; {
		var subs []sub
		err := g.v.store.Change(func() error {
			made := 0
			more = false
			return tree.Each(g.ctx, from, func(e *graph.Entry) error {
				if made == materializeStep {
					more = true
					return store.ErrStop
				}
				made++
				// The least name behind this one: there the next step goes on.
				from = e.Name + "\x00"
				if e.Ident != 0 {
					return g.linked(dir, e)
				}
				if !e.IsDir() || e.Below.Linked == 0 {
					_, err := g.v.materializer.add(dir, e, g.v.materializer.newLazy)
					return err
				}
				ino, err := g.v.materializer.add(dir, e, g.v.materializer.newWhole)
				subs = append(subs, sub{ino, *e})
				return err
			})
		})
		if err != nil {
			return err
		}
		g.v.flusher.maybeCommit()
		// After the Update: each is an Update of its own.
		for _, s := range subs {
			if err := g.fill(s.ino, &s.e); err != nil {
				return err
			}
		}
	}
	return g.ctx.Err()
}

// newWhole is newLazy for a directory whose names follow as rows.
func (m *materializer) newWhole(ino meta.Ino, e *graph.Entry) (meta.Inode, error) {
	bare := *e
	bare.Entries, bare.Below = 0, graph.Sums{} // not lazy, which counts for itself only
	attr, err := m.newLazy(ino, &bare)
	attr.Entries = e.Entries
	return attr, err
}

// linked makes one name of a file with several.
func (g *cloner) linked(dir meta.Ino, e *graph.Entry) error {
	f := g.files[e.Ident]
	if f == nil {
		row, err := g.table.Lookup(g.ctx, graph.TableKey(e.Ident))
		if err != nil {
			return fmt.Errorf("file %d: %w", e.Ident, err)
		}
		if g.stripped != nil {
			if err := g.stripped.entry(&row); err != nil {
				return fmt.Errorf("file %d: %w", e.Ident, err)
			}
		}
		f = &clonedFile{ino: meta.Ino(g.v.numbers.take())}
		if f.attr, err = g.v.materializer.newLazy(f.ino, &row); err != nil {
			return err
		}
		// Each name that is met adds one: only those inside the cloned part count.
		f.attr.Nlink, f.attr.Shared, f.attr.Parent = 0, true, 0
		g.files[e.Ident] = f
	}
	f.attr.Nlink++
	g.v.db.Set(meta.InodeKey(f.ino), meta.AppendInode(nil, &f.attr))
	g.v.tree.setName(dir, e.Name, g.v.numbers.take(), f.ino, e.Type())
	return nil
}

// attach gives a cloned inode a name, in the place of another one if replace allows
// that. Inside Update.
func (t *nameTree) attach(n *node, nlink uint32, d *node, name string, replace replacing) error {
	// The lock of names from the look to the change, or another one could take the name in between.
	t.Lock()
	defer t.Unlock()
	d.mu.Lock()
	// What is there, and whether a name could be added: which of the two counts depends on replace.
	p, err := t.find(d, name)
	free := t.vacant(d, name)
	d.mu.Unlock()
	var old *node
	switch {
	case err == nil && replace != replaceNothing:
		if old, err = t.v.get(p.ino); err != nil {
			return err
		}
		defer old.release()
		if replace == replaceAlike && old.isDir() != n.isDir() {
			if old.isDir() {
				return errDirectory
			}
			return errNoDirectory
		}
	case free != nil:
		return free
	}
	// All at once and in order of numbers; d was unlocked, but names do not change meanwhile.
	defer lockAll(d, n, old)()
	if old != nil {
		t.unlink(d, name, p)
		t.dropName(d, old)
	}
	n.attr.Nlink = nlink
	if n.isDir() {
		d.attr.Nlink++
	}
	n.moveTo(d, t.link(d, name, n.ino, n.attr.Mode&syscall.S_IFMT))
	t.v.known.unorphan(n.ino)
	t.v.flusher.markChanged(n)
	return nil
}

// Rollback makes the whole volume what it was in a snapshot, at one instant.
// What was there goes away in the background, once nobody uses it. Files are other
// inodes than before. Errors: store.ErrNotFound.
func (v *Volume) Rollback(ctx context.Context, name string, rights ...Rights) error {
	if err := v.store.Accepts(); err != nil {
		return err
	}
	v.snapshots.mu.Lock()
	defer v.snapshots.mu.Unlock()
	return v.snapshots.withClone(ctx, SnapshotPath{Snapshot: name}, true, rights, func(n *node, _ uint32) error {
		var stale []Invalidation
		err := v.store.Change(func() (err error) {
			stale, err = v.tree.exchangeRoot(n)
			return err
		})
		v.known.invalidate(stale)
		return err
	})
}

// exchangeRoot gives the root directory the attributes and names of a cloned
// directory, and that one the root's names. Inside Update.
func (t *nameTree) exchangeRoot(g *node) (stale []Invalidation, err error) {
	t.Lock()
	defer t.Unlock()
	root, err := t.v.get(meta.Root)
	if err != nil {
		return nil, err
	}
	defer root.release()
	g.mu.Lock()
	attr := g.attr // before its names are taken out
	g.mu.Unlock()
	// Both lists before the first change: names move from one directory to the other below.
	was, err := t.allNames(root)
	if err != nil {
		return nil, err
	}
	will, err := t.allNames(g)
	if err != nil {
		return nil, err
	}
	for _, e := range was {
		// The old names first: one of the new ones may be equal.
		if err := t.discard(root, e); err != nil {
			return nil, err
		}
		stale = append(stale, Invalidation{meta.Root, e.Name})
	}
	for _, e := range will {
		if err := t.moveEntry(g, root, e); err != nil {
			return nil, err
		}
		stale = append(stale, Invalidation{meta.Root, e.Name})
	}
	unlock := lockBoth(root, g)
	defer unlock()
	if err := t.takeAttr(root, g, &attr); err != nil {
		return nil, err
	}
	return append(stale, Invalidation{meta.Root, ""}), nil
}

// allNames returns all entries of a directory, with their own positions.
func (t *nameTree) allNames(n *node) (list []Entry, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	from, to := meta.EntryRange(n.ino, 0)
	err = t.v.db.Scan(from, to, func(key, value []byte) error {
		_, pos, err := meta.KeyNumbers(key)
		if err != nil {
			return err
		}
		d, err := meta.DecodeDirent(value)
		list = append(list, Entry{Dirent: d, Pos: pos})
		return err
	})
	return list, err
}

// discard removes a name, whatever it leads to. v.tree is held, inside Update.
func (t *nameTree) discard(d *node, e Entry) error {
	n, err := t.v.get(e.Ino)
	if err != nil {
		return err
	}
	defer n.release()
	defer lockBoth(d, n)()
	t.unlink(d, e.Name, dentry{e.Pos, e.Ino, e.Type})
	t.dropName(d, n)
	return nil
}

// moveEntry moves a name to another directory. v.tree is held, inside Update.
func (t *nameTree) moveEntry(from, to *node, e Entry) error {
	n, err := t.v.get(e.Ino)
	if err != nil {
		return err
	}
	defer n.release()
	defer lockAll(from, to, n)()
	t.unlink(from, e.Name, dentry{e.Pos, e.Ino, e.Type})
	n.moveTo(to, t.link(to, e.Name, e.Ino, e.Type))
	if n.isDir() {
		to.attr.Nlink++
	}
	t.v.flusher.markChanged(n)
	return nil
}

// takeAttr gives the root another directory's attributes, of which b are those
// that the record has. Both are locked.
func (t *nameTree) takeAttr(root, g *node, b *meta.Inode) error {
	a := &root.attr
	a.Mode, a.UID, a.GID = b.Mode, b.UID, b.GID
	a.Atime, a.Mtime, a.Ctime, a.Btime = b.Atime, b.Mtime, b.Ctime, b.Btime
	// The root's own go first. The other directory keeps its, and goes away with the old names.
	if err := t.v.xattrs.dropAll(root); err != nil {
		return err
	}
	a.Xattrs = 0
	names, err := t.v.xattrs.names(g)
	if err != nil {
		return err
	}
	for _, name := range names {
		value, err := t.v.xattrs.get(g, name)
		if err != nil {
			return err
		}
		// Copied and not moved: the clone is an orphan, and the reaper takes its own rows.
		t.v.db.Set(meta.XattrKey(root.ino, name), value)
		a.Xattrs++
	}
	t.v.flusher.markChanged(root)
	return nil
}

// removeNames removes the names of a directory that was removed as a whole.
func (r *reaper) removeNames(n *node) error {
	if err := r.abandonLazy(n); err != nil {
		return err
	}
	for {
		// Again each time: a name may have been added before reaping was set.
		n.mu.Lock()
		full := n.attr.Nlink == 0 && n.isDir()
		n.reaping = n.reaping || full
		n.mu.Unlock()
		if !full {
			return nil
		}
		some, err := r.someNames(n)
		if err != nil || len(some) == 0 {
			return err
		}
		err = r.v.store.Removal(func() error {
			r.v.tree.Lock()
			defer r.v.tree.Unlock()
			for _, e := range some {
				if err := r.v.tree.discard(n, e); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		// Millions of names must not pile up in one commit.
		r.v.flusher.maybeCommit()
		select {
		case <-r.v.life.stop:
			return errStopped
		default:
		}
	}
}

// errStopped says that the volume is being closed.
var errStopped = errors.New("the volume is being closed")

func (r *reaper) someNames(n *node) (list []Entry, err error) {
	from, to := meta.EntryRange(n.ino, 0)
	err = r.v.db.Scan(from, to, func(key, value []byte) error {
		_, pos, err := meta.KeyNumbers(key)
		if err != nil {
			return err
		}
		d, err := meta.DecodeDirent(value)
		if list = append(list, Entry{Dirent: d, Pos: pos}); len(list) == materializeStep {
			return meta.ErrStop
		}
		return err
	})
	return list, err
}
