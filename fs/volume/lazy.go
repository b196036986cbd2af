package volume

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/fs/rows"
	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/vertex"
)

// A lazy inode is one that names a vertex and has, until somebody looks into it,
// no rows below its own: a directory's names are in a tree, a file's bytes in a
// file vertex or its only block. So a whole tree is cloned by making one inode.
//
// A directory is materialized one level when a name in it is looked up; its children
// are lazy then. A file is read through the vertex, and materialized before its first
// change. Trees that lazy inodes name have no files with several names in them: these
// are materialized at once when a tree is cloned.

// lazyExtents calls fn for the extents that a file's vertex or only block stands
// for, from those on that start at or after lo and up to those that start before
// hi, in order. An error of fn ends it and is returned.
func (m *fileMap) lazyExtents(ctx context.Context, id store.ID, lo, hi int64, fn func(meta.Extent) error) error {
	e, err := m.v.store.Lookup(id)
	if err != nil {
		return err
	}
	if e.Kind == store.KindData {
		return m.partExtents(0, vertex.Part{ID: id, Len: int64(e.Raw)}, lo, hi, fn)
	}
	return m.vertexExtents(ctx, id, -1, 0, lo, hi, fn)
}

// vertexExtents does so for a vertex, which stands for the file from base on; height
// is what its parent says, -1: nothing.
func (m *fileMap) vertexExtents(ctx context.Context, id store.ID, height int, base, lo, hi int64, fn func(meta.Extent) error) error {
	b, err := m.v.store.Get(ctx, id)
	if err != nil {
		return err
	}
	f, err := vertex.DecodeFile(b)
	// Heights go down by one: so a damaged vertex cannot lead round in a circle.
	if err == nil && height >= 0 && f.Height != height {
		err = store.ErrCorrupt
	}
	if err != nil {
		return fmt.Errorf("file vertex %s: %w", id, err)
	}
	for _, p := range f.Parts {
		end := base + p.Len
		switch {
		case base >= hi:
			return nil
		case p.Hole || end <= lo:
		case f.Height == 0:
			err = m.partExtents(base, p, lo, hi, fn)
		default:
			err = m.vertexExtents(ctx, p.ID, f.Height-1, base, lo, hi, fn)
		}
		if err != nil {
			return err
		}
		base = end
	}
	return nil
}

// partExtents makes extents of a part, none longer than a page covers.
func (m *fileMap) partExtents(base int64, p vertex.Part, lo, hi int64, fn func(meta.Extent) error) error {
	for done := int64(0); done < p.Len; {
		n := min(p.Len-done, m.span)
		e := meta.Extent{Off: base + done, Len: uint32(n), Skip: p.Skip + uint32(done), ID: meta.BlockID(p.ID)}
		if e.Off >= lo && e.Off < hi {
			if err := fn(e); err != nil {
				return err
			}
		}
		done += n
	}
	return nil
}

// eachLazyExtent is eachExtent for what is still in the vertex.
func (m *fileMap) eachLazyExtent(n *node, lo, hi int64, fn func(meta.Extent) bool) error {
	owned := int64(n.attr.Owned) * m.span
	err := m.lazyExtents(context.Background(), store.ID(n.attr.LazyID), max(owned, lo-m.span), hi, func(e meta.Extent) error {
		if e.End() > lo && !fn(e) {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// errEnough ends a walk early.
var errEnough = errors.New("enough")

// A materializer makes rows of what lazy inodes have in vertices. Each step is one Update; n.mu of
// the inode is held in it, and what it has made is to be seen only when the last step is done.
type materializer struct{ v *Volume }

// materializeStep is how many names, or pages of a file, one step of materializing makes.
const materializeStep = 256

// directory gives a directory that is lazy rows of its own. The caller holds the
// node and no lock.
func (m *materializer) directory(d *node) error {
	for {
		d.mu.Lock()
		lazy := d.attr.IsLazy() && d.isDir() && !d.frozen && !d.gone
		d.mu.Unlock()
		if !lazy {
			return nil
		}
		// Each name takes a number and a position.
		m.v.coverNumbers()
		err := m.v.store.Update(func() error { return m.names(d) })
		if err == syscall.ENOENT {
			return err
		}
		if err != nil {
			return fmt.Errorf("directory %d: %w", d.ino, err)
		}
		m.v.flusher.maybeCommit()
	}
}

// names makes the rows of some names. Nobody sees them before the last of
// them is there; a crash leaves a part, and materializing goes on behind that.
func (m *materializer) names(d *node) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.reaping:
		return syscall.ENOENT
	case !d.attr.IsLazy():
		return nil
	}
	if !d.materializing {
		// Which names an earlier try has made, only the rows tell.
		if err := m.lastMaterialized(d); err != nil {
			return err
		}
		d.materializing = true
	}
	made := 0
	err := m.v.views.treeOf(d).Each(context.Background(), d.materialized, func(e *graph.Entry) error {
		if made == materializeStep {
			return store.ErrStop
		}
		made++
		d.materialized = e.Name + "\x00"
		d.materializedSums.Add(e.Sum(), 1)
		if e.Ident != 0 {
			return fmt.Errorf("%q is a file with several names in a tree that may have none: %w", e.Name, store.ErrCorrupt)
		}
		m.v.counters.add(e.Sum(), -1) // the directory has counted for it so far
		_, err := m.add(d.ino, e, m.newLazy)
		return err
	})
	if err != nil {
		// The next try finds out anew how far the rows go.
		d.materializing = false
		return err
	}
	if made == materializeStep {
		return nil
	}
	m.recount(d)
	m.endLazy(d)
	// Names made now can go again without a mark, so the tree that the last
	// snapshot has is nothing to build on.
	m.v.db.Delete(meta.TreeKey(d.ino))
	d.materializing, d.materialized, d.tree = false, "", nil
	m.v.flusher.markChanged(d) // its entries are new ones
	return nil
}

// recount puts right what a directory counted for as a lazy inode, in case that the sums of a
// snapshot from elsewhere were made up. All its names have been seen.
func (m *materializer) recount(d *node) {
	row, err := m.v.db.Get(meta.TreeKey(d.ino))
	if err != nil {
		return
	}
	// Without the row nothing says what was counted.
	if branch, err := meta.DecodeBranch(row); err == nil && branch.ID == d.attr.LazyID {
		m.v.counters.add(d.materializedSums, 1)
		m.v.counters.add(graph.Sums(branch.Below), -1)
	}
}

// lastMaterialized finds where a crash, or being dropped from memory, left off.
func (m *materializer) lastMaterialized(d *node) error {
	var err error
	d.materializedSums = graph.Sums{}
	if d.materialized, err = rows.MaterializedUpTo(m.v.db, d.ino); err != nil || d.materialized == "" {
		return err
	}
	return m.v.views.treeOf(d).Each(context.Background(), "", func(e *graph.Entry) error {
		if e.Name >= d.materialized {
			return store.ErrStop
		}
		d.materializedSums.Add(e.Sum(), 1)
		return nil
	})
}

// abandonLazy ends that a directory without a name is lazy, so that nothing below
// it counts but what has rows: these go like those of any other directory.
func (r *reaper) abandonLazy(n *node) error {
	return r.v.store.Update(func() error {
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.attr.Nlink != 0 || !n.attr.IsLazyDir() || n.gone {
			return nil
		}
		n.reaping = true // nobody materializes it any more
		sums, err := rows.LazySums(context.Background(), r.v.store, r.v.db, n.ino, &n.attr)
		if err != nil { // it shall go even so
			r.v.log.Warn("what was below a removed directory cannot be counted", "inode", uint64(n.ino), "err", err)
		}
		r.v.counters.add(sums, -1)
		r.v.materializer.endLazy(n)
		r.v.flusher.markDirty(n)
		return nil
	})
}

// add makes an inode of a snapshot's entry, as record says, and a name of it in a directory.
// The caller counts the directory's entries and is inside Update.
func (m *materializer) add(dir meta.Ino, e *graph.Entry, record func(meta.Ino, *graph.Entry) (meta.Inode, error)) (meta.Ino, error) {
	ino := meta.Ino(m.v.numbers.take())
	attr, err := record(ino, e)
	if err != nil {
		return 0, err
	}
	attr.Parent, attr.Pos = dir, m.v.numbers.take()
	m.v.db.Set(meta.InodeKey(ino), meta.AppendInode(nil, &attr))
	m.v.tree.setName(dir, e.Name, attr.Pos, ino, e.Type())
	return ino, nil
}

// setName writes the rows of a name.
func (t *nameTree) setName(dir meta.Ino, name string, pos uint64, ino meta.Ino, typ uint32) {
	t.v.db.Set(meta.NameKey(dir, name), meta.EncodePosition(pos))
	t.v.db.Set(meta.EntryKey(dir, pos), meta.AppendDirent(nil, meta.Dirent{Ino: ino, Type: typ, Name: name}))
}

// newLazy makes the record of an inode from a snapshot's entry, and all rows but
// that one and those of names. It counts the inode with all that is below. Inside Update.
func (m *materializer) newLazy(ino meta.Ino, e *graph.Entry) (meta.Inode, error) {
	attr := inodeOf(e, 0)
	if e.IsDir() && e.Entries == 0 {
		// An empty directory needs no tree to be read: it is as good as materialized.
		attr.LazyID = meta.BlockID{}
	}
	set := e.Xattrs
	if e.XattrLink.Kind != 0 {
		var err error
		if set, err = m.v.views.linkedXattrs(e.XattrLink); err != nil {
			return attr, err
		}
	}
	attr.Xattrs = uint32(len(set))
	for _, x := range set {
		m.v.db.Set(meta.XattrKey(ino, x.Name), append([]byte{}, x.Value...))
	}
	// The inode refers to the vertex itself, so the snapshot may go.
	if attr.IsLazy() {
		m.v.store.Ref(store.ID(attr.LazyID), 1)
	}
	// The sums are at hand now; without the row they would cost a walk.
	if attr.IsLazy() && e.IsDir() {
		branch := meta.Branch{ID: attr.LazyID, Below: meta.Sums(e.Below), Entries: e.Entries, Subdirs: e.Subdirs}
		m.v.db.Set(meta.TreeKey(ino), branch.Encode())
	}
	m.v.counters.add(e.Sum(), 1)
	return attr, nil
}

// endLazy ends that n is lazy. n.mu is held, inside Update.
func (m *materializer) endLazy(n *node) {
	m.v.store.Ref(store.ID(n.attr.LazyID), -1)
	n.attr.LazyID, n.attr.Owned = meta.BlockID{}, 0
}

// errLazy says that a file has to be materialized before its bytes are changed.
var errLazy = errors.New("the file's bytes are in a vertex")

// editDataIn is editIn for what changes a file's bytes.
func (v *Volume) editDataIn(change func(func() error) error, ino meta.Ino, fn func(n *node) error) error {
	for {
		err := v.editIn(change, ino, func(n *node) error {
			if n.attr.IsLazy() && n.isReg() {
				return errLazy
			}
			return fn(n)
		})
		// Not in the same Update: giving the file extents takes Updates of its own.
		if err != errLazy {
			return err
		}
		n, err := v.get(ino)
		if err != nil {
			return err
		}
		err = v.materializer.file(n)
		n.release()
		if err != nil {
			return err
		}
	}
}

// file gives a file that is lazy extents of its own. The caller holds the node
// and no lock.
func (m *materializer) file(n *node) error {
	for more := true; more; {
		err := m.v.store.Update(func() (err error) {
			more, err = m.pages(n)
			return err
		})
		if err != nil {
			return fmt.Errorf("inode %d: %w", n.ino, err)
		}
		m.v.flusher.maybeCommit()
	}
	return nil
}

func (m *materializer) pages(n *node) (more bool, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.attr.IsLazy() || !n.isReg() || n.frozen || n.gone {
		return false, nil
	}
	first := n.attr.Owned
	lo, hi := int64(first)*m.v.files.span, n.attr.Size
	// A bounded number of pages a step, so that a commit gets in between.
	if pages := uint64((hi-1)/m.v.files.span) + 1; pages > first+materializeStep {
		hi = int64(first+materializeStep) * m.v.files.span
	}
	fresh := make(map[uint64]*page)
	err = m.v.files.lazyExtents(context.Background(), store.ID(n.attr.LazyID), lo, hi, func(e meta.Extent) error {
		i := uint64(e.Off / m.v.files.span)
		if fresh[i] == nil {
			fresh[i] = &page{dirty: true}
		}
		fresh[i].exts = append(fresh[i].exts, e)
		return nil
	})
	if err != nil {
		return false, err
	}
	if n.ext.pages == nil {
		n.ext.pages = make(map[uint64]*page)
	}
	// The pages are new, behind those that the file owns: nothing is replaced.
	for i, p := range fresh {
		n.ext.pages[i] = p
		for _, e := range p.exts {
			m.v.store.Ref(e.ID, 1)
		}
	}
	if n.attr.Owned = first + materializeStep; hi >= n.attr.Size {
		m.endLazy(n)
	}
	m.v.flusher.markDirty(n)
	// At once, and not with the next flush: a crash must find pages and Owned in step.
	m.v.flusher.save(n)
	return n.attr.IsLazy(), nil
}
