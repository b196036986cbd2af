package volume

import (
	"context"
	"math"

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
