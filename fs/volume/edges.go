package volume

import (
	"context"
	"math"
	"syscall"

	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/store"
)

// Extents calls fn for the stretches of a file that are in blocks, in order, as
// of the last commit, until fn fails. It reads rows only. An inode that is no
// file, or has gone, has none.
func (v *Volume) Extents(ctx context.Context, ino meta.Ino, fn func(off, length int64, block store.ID) error) error {
	from, to := meta.ExtentsRange(ino, 0, math.MaxUint64)
	return v.db.Scan(from, to, func(key, value []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		_, i, err := meta.KeyNumbers(key)
		if err != nil {
			return err
		}
		page, err := meta.DecodeExtents(value, int64(i)*v.span, v.span)
		if err != nil {
			return err
		}
		for _, e := range page {
			if err := fn(e.Off, int64(e.Len), store.ID(e.ID)); err != nil {
				return err
			}
		}
		return nil
	})
}

// An Edge is a name in a directory, or a stretch of a file that is in a block.
type Edge struct {
	From meta.Ino
	Name string // of an entry
	To   meta.Ino
	Dir  bool // To is a directory

	Block    store.ID // of a stretch, and then To is 0
	Off, Len int64
}

// EachEdge calls fn for all names, by directory, and then for all stretches, by
// file, as of the last commit, until fn fails. It reads rows only. Rows that
// cannot be decoded are passed over: they are Check's.
func (v *Volume) EachEdge(ctx context.Context, fn func(Edge) error) error {
	err := v.db.ScanPrefix(meta.Prefix(meta.KindEntry), func(key, value []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		dir, _, err := meta.KeyNumbers(key)
		if err != nil {
			return nil
		}
		d, err := meta.DecodeDirent(value)
		if err != nil {
			return nil
		}
		return fn(Edge{From: dir, Name: d.Name, To: d.Ino, Dir: d.Type == syscall.S_IFDIR})
	})
	if err != nil {
		return err
	}
	return v.db.ScanPrefix(meta.Prefix(meta.KindExtents), func(key, value []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		ino, i, err := meta.KeyNumbers(key)
		if err != nil {
			return nil
		}
		page, err := meta.DecodeExtents(value, int64(i)*v.span, v.span)
		if err != nil {
			return nil
		}
		for _, e := range page {
			if err := fn(Edge{From: ino, Block: store.ID(e.ID), Off: e.Off, Len: int64(e.Len)}); err != nil {
				return err
			}
		}
		return nil
	})
}

// Paths returns a path of each of the inodes that a name leads to, from the root
// and without a leading slash.
func (v *Volume) Paths(ctx context.Context, inodes []meta.Ino) (map[meta.Ino]string, error) {
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
