package volume

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"

	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/fs/rows"
	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/store"
)

// counters are the volume's sums over all inodes, with those below clones that nobody has
// looked into. A change of an inode counts at once; the row is written at the next cut.
type counters struct {
	inodes  atomic.Int64
	logical atomic.Int64 // sizes of regular files
	data    atomic.Int64 // bytes of regular files that are in no hole, and in blocks

	saved meta.Counters // the row as last written; guarded by the store's lock
}

// add counts all that sums are over, sign times.
func (c *counters) add(s graph.Sums, sign int64) {
	c.inodes.Add(sign * rows.Inodes(s))
	c.logical.Add(sign * s.Bytes)
	c.data.Add(sign * s.Data)
}

// set takes up what a row says.
func (c *counters) set(row *meta.Counters) {
	c.inodes.Store(row.Inodes)
	c.logical.Store(row.Logical)
	c.data.Store(row.Data)
}

// row returns the row of the counters as they are now, but for where numbering goes on.
func (c *counters) row() meta.Counters {
	return meta.Counters{
		Inodes: c.inodes.Load(), Logical: c.logical.Load(), Data: c.data.Load(),
		Form: meta.CountsData, Generation: c.saved.Generation,
	}
}

// countAgain puts right what an earlier program counted, which left out what is below clones,
// or the bytes in holes.
func (c *counters) countAgain(st *store.Store, log *slog.Logger) error {
	var sum meta.Counters
	err := st.DB().ScanPrefix(meta.InodePrefix(), func(key, value []byte) error {
		ino, err := meta.KeyIno(key)
		if err != nil {
			return nil // fsck finds it
		}
		attr, err := meta.DecodeInode(value)
		if err != nil {
			return nil
		}
		sum.AddInode(&attr)
		if !attr.IsLazyDir() {
			return nil
		}
		below, err := rows.LazySums(context.Background(), st, st.DB(), ino, &attr)
		if err != nil {
			log.Warn("what is below a cloned directory cannot be counted", "inode", uint64(ino), "err", err)
		}
		sum.Add(rows.Inodes(below), below.Bytes, below.Data)
		return nil
	})
	if err != nil {
		return fmt.Errorf("count the inodes: %w", err)
	}
	c.set(&sum)
	return nil
}
