// Package rows answers questions about the namespace from its rows alone: what refers to which
// block, which paths lead to an inode, what a lazy directory has in its tree. It takes no lock and
// changes nothing, so it works on a store at a standstill, beside a volume, or on a view of the
// rows at one instant.
package rows

import (
	"context"
	"fmt"
	"syscall"

	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/store"
)

// A Reader reads the rows of a store's namespace.
type Reader struct {
	st   *store.Store
	db   *meta.DB
	span int64 // bytes of a file that one page of extents covers
}

// Of returns the reader of a store, which stays open meanwhile.
func Of(st *store.Store) Reader {
	ck := st.Chunker()
	return Reader{st: st, db: st.DB(), span: meta.PageSpan(ck.Avg(), ck.Max())}
}

// A Source has rows: the database as it is now, or a view of it.
type Source interface {
	Get(key []byte) ([]byte, error)
	Scan(from, to []byte, fn func(key, value []byte) error) error
}

// Inode reads the record of an inode. ENOENT: there is none.
func Inode(src Source, ino meta.Ino) (meta.Inode, error) {
	b, err := src.Get(meta.InodeKey(ino))
	if meta.IsNotFound(err) {
		return meta.Inode{}, syscall.ENOENT
	}
	if err != nil {
		return meta.Inode{}, err
	}
	attr, err := meta.DecodeInode(b)
	if err != nil {
		err = fmt.Errorf("inode %d: %w", ino, err)
	}
	return attr, err
}

// MaterializedUpTo returns where a directory's names without rows begin.
func MaterializedUpTo(db Source, dir meta.Ino) (end string, err error) {
	from, to := meta.NameRange(dir)
	err = db.Scan(from, to, func(key, _ []byte) error {
		name, err := meta.KeyTail(key)
		end = name + "\x00" // names are in order
		return err
	})
	return end, err
}

// LazySums adds up what a directory that is lazy has in its tree only. The
// volume's counters have it beside what has rows.
func LazySums(ctx context.Context, st *store.Store, rows Source, dir meta.Ino, attr *meta.Inode) (sums graph.Sums, err error) {
	begun, err := MaterializedUpTo(rows, dir)
	if err != nil {
		return sums, err
	}
	// Nothing has rows yet: the sums that the clone brought along are right, and save reading the
	// whole tree.
	if begun == "" {
		row, err := rows.Get(meta.TreeKey(dir))
		if err != nil && !meta.IsNotFound(err) {
			return sums, err
		}
		if branch, err := meta.DecodeBranch(row); err == nil && branch.ID == attr.LazyID {
			return graph.Sums(branch.Below), nil
		}
	}
	err = graph.OpenTree(st, store.ID(attr.LazyID), graph.Directory).Each(ctx, begun, func(e *graph.Entry) error {
		sums.Add(e.Sum(), 1)
		return nil
	})
	return sums, err
}

// Inodes returns how many inodes sums are over. A file with several names is in
// none; there are none in a tree that a lazy inode names.
func Inodes(s graph.Sums) int64 { return s.Files + s.Dirs + s.Others }
