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
)

// A stub is an inode that names a vertex and has, until somebody looks into it,
// no rows below its own: a directory's names are in a tree, a file's bytes in a
// file vertex or its only block. So a whole tree is cloned by making one inode.
//
// A directory is unfolded one level when a name in it is looked up; its children
// are stubs then. A file is read through the vertex, and unfolded before its first
// change. Trees that stubs name have no files with several names in them: these
// are unfolded at once when a tree is cloned.

// stubExtents calls fn for the extents that a file's vertex or only block stands
// for, from those on that start at or after lo and up to those that start before
// hi, in order. An error of fn ends it and is returned.
func (v *Volume) stubExtents(ctx context.Context, id store.ID, lo, hi int64, fn func(meta.Extent) error) error {
	e, err := v.store.Lookup(id)
	if err != nil {
		return err
	}
	if e.Kind == store.KindData {
		return v.partExtents(0, store.Part{ID: id, Len: int64(e.Raw)}, lo, hi, fn)
	}
	return v.vertexExtents(ctx, id, -1, 0, lo, hi, fn)
}

// vertexExtents does so for a vertex, which stands for the file from base on; height
// is what its parent says, -1: nothing.
func (v *Volume) vertexExtents(ctx context.Context, id store.ID, height int, base, lo, hi int64, fn func(meta.Extent) error) error {
	b, err := v.store.Get(ctx, id)
	if err != nil {
		return err
	}
	f, err := store.DecodeFileVertex(b)
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
			err = v.partExtents(base, p, lo, hi, fn)
		default:
			err = v.vertexExtents(ctx, p.ID, f.Height-1, base, lo, hi, fn)
		}
		if err != nil {
			return err
		}
		base = end
	}
	return nil
}

// partExtents makes extents of a part, none longer than a page covers.
func (v *Volume) partExtents(base int64, p store.Part, lo, hi int64, fn func(meta.Extent) error) error {
	for done := int64(0); done < p.Len; {
		n := min(p.Len-done, v.span)
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

// eachStubExtent is eachExtent for what is still in the vertex.
func (v *Volume) eachStubExtent(n *node, lo, hi int64, fn func(meta.Extent) bool) error {
	owned := int64(n.attr.Owned) * v.span
	err := v.stubExtents(context.Background(), store.ID(n.attr.Stub), max(owned, lo-v.span), hi, func(e meta.Extent) error {
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

// unfoldStep is how many names, or pages of a file, one step of unfolding makes.
const unfoldStep = 256

// unfold gives a directory that is a stub rows of its own. The caller holds the
// node and no lock.
func (v *Volume) unfold(d *node) error {
	for {
		d.mu.Lock()
		stub := d.attr.IsStub() && d.isDir() && !d.frozen && !d.gone
		d.mu.Unlock()
		if !stub {
			return nil
		}
		v.coverNumbers()
		err := v.store.Update(func() error { return v.unfoldNames(d) })
		if err == syscall.ENOENT {
			return err
		}
		if err != nil {
			return fmt.Errorf("directory %d: %w", d.ino, err)
		}
		v.relieve()
	}
}

// unfoldNames makes the rows of some names. Nobody sees them before the last of
// them is there; a crash leaves a part, and unfolding goes on behind that.
func (v *Volume) unfoldNames(d *node) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.reaping:
		return syscall.ENOENT
	case !d.attr.IsStub():
		return nil
	}
	if !d.unfolding {
		if err := v.lastUnfolded(d); err != nil {
			return err
		}
		d.unfolding = true
	}
	made := 0
	err := v.treeOf(d).Each(context.Background(), d.unfolded, func(e *graph.Entry) error {
		if made == unfoldStep {
			return store.ErrStop
		}
		made++
		d.unfolded = e.Name + "\x00"
		d.unfoldedSums.Add(e.Sum(), 1)
		if e.Ident != 0 {
			return fmt.Errorf("%q is a file with several names in a tree that may have none: %w", e.Name, store.ErrCorrupt)
		}
		v.counters.add(e.Sum(), -1) // the directory has counted for it so far
		_, err := v.addStub(d.ino, e)
		return err
	})
	if err != nil {
		d.unfolding = false
		return err
	}
	if made == unfoldStep {
		return nil
	}
	v.recount(d)
	v.dropStub(d)
	// Names made now can go again without a mark, so the tree that the last
	// snapshot has is nothing to build on.
	v.db.Delete(meta.TreeKey(d.ino))
	d.unfolding, d.unfolded, d.tree = false, "", nil
	v.changed(d) // its entries are new ones
	return nil
}

// recount puts right what a directory counted for as a stub, in case that the sums of a
// snapshot from elsewhere were made up. All its names have been seen.
func (v *Volume) recount(d *node) {
	row, err := v.db.Get(meta.TreeKey(d.ino))
	if err != nil {
		return
	}
	if branch, err := meta.DecodeBranch(row); err == nil && branch.ID == d.attr.Stub {
		v.counters.add(d.unfoldedSums, 1)
		v.counters.add(graph.Sums(branch.Below), -1)
	}
}

// lastUnfolded finds where a crash, or being dropped from memory, left off.
func (v *Volume) lastUnfolded(d *node) error {
	var err error
	d.unfoldedSums = graph.Sums{}
	if d.unfolded, err = rows.MaterializedUpTo(v.db, d.ino); err != nil || d.unfolded == "" {
		return err
	}
	return v.treeOf(d).Each(context.Background(), "", func(e *graph.Entry) error {
		if e.Name >= d.unfolded {
			return store.ErrStop
		}
		d.unfoldedSums.Add(e.Sum(), 1)
		return nil
	})
}

// abandonStub ends that a directory without a name is a stub, so that nothing below
// it counts but what has rows: these go like those of any other directory.
func (v *Volume) abandonStub(n *node) error {
	return v.store.Update(func() error {
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.attr.Nlink != 0 || !n.attr.IsLazyDir() || n.gone {
			return nil
		}
		n.reaping = true // nobody unfolds it any more
		sums, err := rows.LazySums(context.Background(), v.store, v.db, n.ino, &n.attr)
		if err != nil { // it shall go even so
			v.log.Warn("what was below a removed directory cannot be counted", "inode", uint64(n.ino), "err", err)
		}
		v.counters.add(sums, -1)
		v.dropStub(n)
		v.unsaved(n)
		return nil
	})
}

// addStub makes an inode of a snapshot's entry and a name of it in a directory.
// The caller counts the directory's entries and is inside Update.
func (v *Volume) addStub(dir meta.Ino, e *graph.Entry) (meta.Ino, error) {
	ino := meta.Ino(v.alloc())
	attr, err := v.newStub(ino, e)
	if err != nil {
		return 0, err
	}
	attr.Parent, attr.Pos = dir, v.alloc()
	v.db.Set(meta.InodeKey(ino), meta.AppendInode(nil, &attr))
	v.setName(dir, e.Name, attr.Pos, ino, e.Type())
	return ino, nil
}

// setName writes the rows of a name.
func (v *Volume) setName(dir meta.Ino, name string, pos uint64, ino meta.Ino, typ uint32) {
	v.db.Set(meta.NameKey(dir, name), meta.EncodePosition(pos))
	v.db.Set(meta.EntryKey(dir, pos), meta.AppendDirent(nil, meta.Dirent{Ino: ino, Type: typ, Name: name}))
}

// newStub makes the record of an inode from a snapshot's entry, and all rows but
// that one and those of names. It counts the inode with all that is below. Inside Update.
func (v *Volume) newStub(ino meta.Ino, e *graph.Entry) (meta.Inode, error) {
	attr := inodeOf(e, 0)
	if e.IsDir() && e.Entries == 0 {
		attr.Stub = meta.BlockID{}
	}
	set := e.Xattrs
	if e.XattrLink.Kind != 0 {
		var err error
		if set, err = v.linkedXattrs(e.XattrLink); err != nil {
			return attr, err
		}
	}
	attr.Xattrs = uint32(len(set))
	for _, x := range set {
		v.db.Set(meta.XattrKey(ino, x.Name), append([]byte{}, x.Value...))
	}
	if attr.IsStub() {
		v.store.Ref(store.ID(attr.Stub), 1)
	}
	if attr.IsStub() && e.IsDir() {
		branch := meta.Branch{ID: attr.Stub, Below: meta.Sums(e.Below), Entries: e.Entries, Subdirs: e.Subdirs}
		v.db.Set(meta.TreeKey(ino), branch.Encode())
	}
	v.counters.add(e.Sum(), 1)
	return attr, nil
}

// dropStub ends that n is a stub. n.mu is held, inside Update.
func (v *Volume) dropStub(n *node) {
	v.store.Ref(store.ID(n.attr.Stub), -1)
	n.attr.Stub, n.attr.Owned = meta.BlockID{}, 0
}

// errStub says that a file has to be unfolded before its bytes are changed.
var errStub = errors.New("the file's bytes are in a vertex")

// editData is edit for what changes a file's bytes.
func (v *Volume) editData(ino meta.Ino, fn func(n *node) error) error {
	for {
		err := v.edit(ino, func(n *node) error {
			if n.attr.IsStub() && n.isReg() {
				return errStub
			}
			return fn(n)
		})
		if err != errStub {
			return err
		}
		n, err := v.get(ino)
		if err != nil {
			return err
		}
		err = v.own(n)
		n.release()
		if err != nil {
			return err
		}
	}
}

// own gives a file that is a stub extents of its own. The caller holds the node
// and no lock.
func (v *Volume) own(n *node) error {
	for more := true; more; {
		err := v.store.Update(func() (err error) {
			more, err = v.ownPages(n)
			return err
		})
		if err != nil {
			return fmt.Errorf("inode %d: %w", n.ino, err)
		}
		v.relieve()
	}
	return nil
}

func (v *Volume) ownPages(n *node) (more bool, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.attr.IsStub() || !n.isReg() || n.frozen || n.gone {
		return false, nil
	}
	first := n.attr.Owned
	lo, hi := int64(first)*v.span, n.attr.Size
	if pages := uint64((hi-1)/v.span) + 1; pages > first+unfoldStep {
		hi = int64(first+unfoldStep) * v.span
	}
	fresh := make(map[uint64]*page)
	err = v.stubExtents(context.Background(), store.ID(n.attr.Stub), lo, hi, func(e meta.Extent) error {
		i := uint64(e.Off / v.span)
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
	for i, p := range fresh {
		n.ext.pages[i] = p
		for _, e := range p.exts {
			v.store.Ref(e.ID, 1)
		}
	}
	if n.attr.Owned = first + unfoldStep; hi >= n.attr.Size {
		v.dropStub(n)
	}
	v.unsaved(n)
	v.save(n)
	return n.attr.IsStub(), nil
}
