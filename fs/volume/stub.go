package volume

import (
	"context"
	"errors"
	"fmt"

	"github.com/quarxtor/quarxfs/fs/meta"
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
