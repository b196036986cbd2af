package rows

import (
	"context"
	"math"
	"syscall"

	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/store"
)

// An Edge leads from an inode to a part of what it holds: an entry of a
// directory, a part of a file that is in a block, or the vertex of a lazy inode.
type Edge struct {
	From meta.Ino
	Name string   // of an entry
	To   meta.Ino // what an entry leads to; 0: Block
	Type uint32   // of To, as in the mode

	Block    store.ID
	Lazy     bool  // Block is the vertex that has the other names, or the bytes from Off on
	Off, Len int64 // of the part, in the file
}

// Edges calls fn for the edges that leave an inode, as of the last commit, until
// fn fails. It reads rows only: looking into a lazy inode materializes nothing. ENOENT: the
// inode has gone.
func (r Reader) Edges(ctx context.Context, ino meta.Ino, fn func(Edge) error) error {
	attr, err := Inode(r.db, ino)
	if err != nil {
		return err
	}
	from, to, read := r.rangeOf(ino, attr.Mode)
	err = r.db.Scan(from, to, func(key, value []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return read(key, value, fn)
	})
	if err != nil || !attr.IsLazy() {
		return err
	}
	return fn(r.lazyEdge(ino, &attr))
}

// rangeOf returns where the rows with an inode's edges are, and how to read one.
func (r Reader) rangeOf(ino meta.Ino, mode uint32) (from, to []byte, read func(key, value []byte, fn func(Edge) error) error) {
	if mode&syscall.S_IFMT == syscall.S_IFDIR {
		from, to = meta.EntryRange(ino, 0)
		return from, to, readEntryEdge
	}
	from, to = meta.ExtentsRange(ino, 0, math.MaxUint64)
	return from, to, r.readExtentEdges
}

func readEntryEdge(key, value []byte, fn func(Edge) error) error {
	dir, _, err := meta.KeyNumbers(key)
	if err != nil {
		return err
	}
	d, err := meta.DecodeDirent(value)
	if err != nil {
		return err
	}
	return fn(Edge{From: dir, Name: d.Name, To: d.Ino, Type: d.Type})
}

func (r Reader) lazyEdge(ino meta.Ino, attr *meta.Inode) Edge {
	off := int64(attr.Owned) * r.span
	return Edge{From: ino, Block: store.ID(attr.LazyID), Lazy: true, Off: off, Len: max(0, attr.Size-off)}
}

func (r Reader) readExtentEdges(key, value []byte, fn func(Edge) error) error {
	ino, i, err := meta.KeyNumbers(key)
	if err != nil {
		return err
	}
	page, err := meta.DecodeExtents(value, int64(i)*r.span, r.span)
	if err != nil {
		return err
	}
	for _, e := range page {
		if err := fn(Edge{From: ino, Block: store.ID(e.ID), Off: e.Off, Len: int64(e.Len)}); err != nil {
			return err
		}
	}
	return nil
}
