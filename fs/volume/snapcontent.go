package volume

import (
	"fmt"
	"slices"
	"syscall"

	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/vertex"
)

// entry makes the entry of an inode, with its content.
func (b *snapBuilder) entry(name string, ino meta.Ino, attr *meta.Inode, branch *meta.Branch) (graph.Entry, error) {
	e := graph.Entry{
		Name: name, Mode: attr.Mode, UID: attr.UID, GID: attr.GID,
		Atime: graph.Time(attr.Atime), Mtime: graph.Time(attr.Mtime), Ctime: graph.Time(attr.Ctime), Btime: graph.Time(attr.Btime),
	}
	var err error
	switch attr.Mode & syscall.S_IFMT {
	case syscall.S_IFDIR:
		// The directory's tree was made before: see child.
		e.Link = graph.Link{ID: store.ID(branch.ID), Kind: store.KindTree}
		e.Entries, e.Subdirs, e.Below = branch.Entries, branch.Subdirs, graph.Sums(branch.Below)
	case syscall.S_IFREG:
		e.Size = attr.Size
		e.Link, e.Data, err = b.content(ino, attr)
	case syscall.S_IFLNK:
		e.Target = attr.Target
	case syscall.S_IFCHR, syscall.S_IFBLK:
		e.Rdev = attr.Rdev
	}
	if err == nil && attr.Xattrs > 0 {
		err = b.xattrs(ino, &e)
	}
	if err != nil {
		err = fmt.Errorf("inode %d: %w", ino, err)
	}
	return e, err
}

func (b *snapBuilder) xattrs(ino meta.Ino, e *graph.Entry) error {
	err := b.view.ScanPrefix(meta.XattrPrefix(ino), func(key, value []byte) error {
		name, err := meta.KeyTail(key)
		e.Xattrs = append(e.Xattrs, graph.Xattr{Name: name, Value: slices.Clone(value)})
		return err
	})
	// Long ones apart: a tree's vertex with them would be made anew with each change of a
	// neighbour.
	if err != nil || graph.XattrsSize(e.Xattrs) <= graph.MaxInlineXattrs {
		return err
	}
	e.XattrLink, err = b.v.snapshots.putBytes(graph.AppendXattrs(nil, e.Xattrs))
	e.Xattrs = nil
	return err
}

// bytesPart is how long the blocks of what is no file's data are at most.
const bytesPart = 1 << 20

// putBytes stores bytes that are no file's. The sweep stands still.
func (ss *snapshotter) putBytes(p []byte) (graph.Link, error) {
	fb := ss.v.store.NewKeptFileBuilder()
	for part := range slices.Chunk(p, bytesPart) {
		id, err := ss.v.store.Put(store.KindData, part)
		if err != nil {
			return graph.Link{}, err
		}
		if len(part) == len(p) {
			return graph.Link{ID: id, Kind: store.KindData}, nil
		}
		if err := fb.Add(vertex.Part{ID: id, Len: int64(len(part))}); err != nil {
			return graph.Link{}, err
		}
	}
	root, err := fb.Finish()
	return graph.Link{ID: root.ID, Kind: store.KindFile}, err
}

// content returns the link to a file's bytes, and how many of them are in no hole.
func (b *snapBuilder) content(ino meta.Ino, attr *meta.Inode) (link graph.Link, data int64, err error) {
	if attr.Size == 0 {
		return link, 0, nil
	}
	// Never written to: the vertex that it was cloned from is its content.
	if attr.IsLazy() && attr.Owned == 0 {
		link, err = b.v.snapshots.linkTo(store.ID(attr.LazyID))
		return link, attr.Alloc, err
	}
	exts, err := b.extents(ino, attr)
	if err != nil {
		return link, 0, err
	}
	// One whole block needs no vertex.
	if len(exts) == 1 && exts[0].Off == 0 && exts[0].Skip == 0 && int64(exts[0].Len) == attr.Size {
		id := store.ID(exts[0].ID)
		block, err := b.v.store.Lookup(id)
		if err != nil {
			return link, 0, err
		}
		if int64(block.Raw) == attr.Size {
			return graph.Link{ID: id, Kind: store.KindData}, attr.Size, nil
		}
	}
	fb := b.v.store.NewKeptFileBuilder()
	root, err := buildFile(fb, exts, attr.Size)
	return graph.Link{ID: root.ID, Kind: store.KindFile}, root.Data, err
}

// buildFile makes the vertices of a file.
func buildFile(fb *store.FileBuilder, exts []meta.Extent, size int64) (store.FileRoot, error) {
	at := int64(0)
	hole := func(to int64) error {
		if to <= at {
			return nil
		}
		return fb.Add(vertex.Part{Hole: true, Len: to - at})
	}
	// Holes are parts like any: the parts tile the file.
	for _, e := range exts {
		if err := hole(e.Off); err != nil {
			return store.FileRoot{}, err
		}
		if err := fb.Add(vertex.Part{ID: store.ID(e.ID), Len: int64(e.Len), Skip: e.Skip}); err != nil {
			return store.FileRoot{}, err
		}
		at = e.End()
	}
	if err := hole(size); err != nil {
		return store.FileRoot{}, err
	}
	return fb.Finish()
}

// linkTo returns a link to a file's vertex or only block.
func (ss *snapshotter) linkTo(id store.ID) (graph.Link, error) {
	e, err := ss.v.store.Lookup(id)
	return graph.Link{ID: id, Kind: e.Kind}, err
}

// extents returns all extents of a file.
func (b *snapBuilder) extents(ino meta.Ino, attr *meta.Inode) (exts []meta.Extent, err error) {
	page := func(i uint64, row []byte) error {
		list, err := meta.DecodeExtents(row, int64(i)*b.v.files.span, b.v.files.span)
		exts = append(exts, list...)
		return err
	}
	// One row for a small file, without a scan.
	if attr.Size <= b.v.files.span {
		row, err := b.view.Get(meta.ExtentsKey(ino, 0))
		if meta.IsNotFound(err) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		return exts, page(0, row)
	}
	from, to := meta.ExtentsRange(ino, 0, uint64((attr.Size-1)/b.v.files.span)+1)
	err = b.view.Scan(from, to, func(key, row []byte) error {
		_, i, err := meta.KeyNumbers(key)
		if err != nil {
			return err
		}
		return page(i, row)
	})
	// Behind what it owns a lazy file is still what its vertex says.
	if err != nil || !attr.IsLazy() {
		return exts, err
	}
	err = b.v.files.lazyExtents(b.ctx, store.ID(attr.LazyID), int64(attr.Owned)*b.v.files.span, attr.Size, func(e meta.Extent) error {
		exts = append(exts, e)
		return nil
	})
	return exts, err
}
