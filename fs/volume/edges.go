package volume

import (
	"context"
	"math"
	"syscall"

	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/store"
)

// An Edge leads from an inode to a part of what it holds: an entry of a
// directory, a stretch of a file that is in a block, or the vertex of a stub.
type Edge struct {
	From meta.Ino
	Name string   // of an entry
	To   meta.Ino // what an entry leads to; 0: Block
	Type uint32   // of To, as in the mode

	Block    store.ID
	Stub     bool  // Block is the vertex that has the other names, or the bytes from Off on
	Off, Len int64 // of the stretch, in the file
}

// Edges calls fn for the edges that leave an inode, as of the last commit, until
// fn fails. It reads rows only: looking into a stub unfolds nothing. ENOENT: the
// inode has gone.
func (v *Volume) Edges(ctx context.Context, ino meta.Ino, fn func(Edge) error) error {
	attr, err := v.readInode(ino)
	if err != nil {
		return err
	}
	from, to, read := v.rangeOf(ino, attr.Mode)
	err = v.db.Scan(from, to, func(key, value []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return read(key, value, fn)
	})
	if err != nil || !attr.IsStub() {
		return err
	}
	return fn(v.stubEdge(ino, &attr))
}

// rangeOf returns where the rows with an inode's edges are, and how to read one.
func (v *Volume) rangeOf(ino meta.Ino, mode uint32) (from, to []byte, read func(key, value []byte, fn func(Edge) error) error) {
	if mode&syscall.S_IFMT == syscall.S_IFDIR {
		from, to = meta.EntryRange(ino, 0)
		return from, to, readEntryEdge
	}
	from, to = meta.ExtentsRange(ino, 0, math.MaxUint64)
	return from, to, v.readExtentEdges
}

// EachEdge calls fn for all edges as of the last commit, until fn fails: entries
// by directory, then stubs, then stretches by file. It reads rows only. Rows that cannot be
// decoded are passed over: they are Check's.
func (v *Volume) EachEdge(ctx context.Context, fn func(Edge) error) error {
	scans := []struct {
		prefix []byte
		read   func(key, value []byte, fn func(Edge) error) error
	}{
		{meta.Prefix(meta.KindEntry), readEntryEdge},
		{meta.InodePrefix(), v.readStubEdge},
		{meta.Prefix(meta.KindExtents), v.readExtentEdges},
	}
	for _, s := range scans {
		err := v.db.ScanPrefix(s.prefix, func(key, value []byte) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			var failed error
			err := s.read(key, value, func(e Edge) error { failed = fn(e); return failed })
			if failed == nil && err != nil {
				v.log.Warn("a row that cannot be read was passed over", "err", err)
			}
			return failed
		})
		if err != nil {
			return err
		}
	}
	return nil
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

func (v *Volume) readStubEdge(key, value []byte, fn func(Edge) error) error {
	ino, err := meta.KeyIno(key)
	if err != nil {
		return err
	}
	attr, err := meta.DecodeInode(value)
	if err != nil || !attr.IsStub() {
		return err
	}
	return fn(v.stubEdge(ino, &attr))
}

func (v *Volume) stubEdge(ino meta.Ino, attr *meta.Inode) Edge {
	off := int64(attr.Owned) * v.span
	return Edge{From: ino, Block: store.ID(attr.Stub), Stub: true, Off: off, Len: max(0, attr.Size-off)}
}

func (v *Volume) readExtentEdges(key, value []byte, fn func(Edge) error) error {
	ino, i, err := meta.KeyNumbers(key)
	if err != nil {
		return err
	}
	page, err := meta.DecodeExtents(value, int64(i)*v.span, v.span)
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

// OnePath returns a path of each of the inodes that a name leads to, from the
// root and without a leading slash.
func (v *Volume) OnePath(ctx context.Context, inodes []meta.Ino) (map[meta.Ino]string, error) {
	wanted := make(map[meta.Ino]bool, len(inodes))
	for _, ino := range inodes {
		wanted[ino] = true
	}
	found, err := v.pathsOf(ctx, wanted)
	if err != nil {
		return nil, err
	}
	all := make(map[meta.Ino]string, len(inodes))
	for _, ino := range inodes {
		if p := found.of(ino); p != "" || ino == meta.Root {
			all[ino] = p
		}
	}
	return all, nil
}
