package fsck

import (
	"context"

	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/store"
)

// References calls ref for every reference that the extents and lazy inodes of a store
// make, whether or not a volume is open. Rows that cannot be decoded are passed over: Repair has
// told of them.
func References(ctx context.Context, st *store.Store, ref func(store.ID)) error {
	ck := st.Chunker()
	span := meta.PageSpan(ck.Avg(), ck.Max())
	// A row that cannot be decoded makes no reference that anybody could follow: it is no error
	// here.
	err := st.DB().ScanPrefix(meta.InodePrefix(), func(_, value []byte) error {
		if attr, err := meta.DecodeInode(value); err == nil && attr.IsLazy() {
			ref(store.ID(attr.LazyID))
		}
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	return st.DB().ScanPrefix(meta.Prefix(meta.KindExtents), func(key, value []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		_, i, err := meta.KeyNumbers(key)
		if err != nil || i > uint64(1<<62/span) {
			return nil
		}
		page, err := meta.DecodeExtents(value, int64(i)*span, span)
		if err != nil {
			return nil
		}
		for _, e := range page {
			ref(store.ID(e.ID))
		}
		return nil
	})
}
