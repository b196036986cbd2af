package rows

import (
	"context"
	"fmt"
	"slices"
	"syscall"

	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/store"
)

// References calls fn for every reference that an inode makes to a block or
// vertex, at the instant of rows: inodes in order, extents in order of offset,
// then the vertex of a lazy inode. An error of fn ends it and is returned.
func (r Reader) References(ctx context.Context, rows *store.View, fn func(graph.Reference) error) error {
	var lazy []graph.Reference
	err := rows.ScanPrefix(meta.InodePrefix(), func(key, value []byte) error {
		ino, err := meta.KeyIno(key)
		if err != nil {
			return err
		}
		n, err := meta.DecodeInode(value)
		if err != nil {
			return fmt.Errorf("inode %d: %w", ino, err)
		}
		if n.IsLazy() {
			lazy = append(lazy, graph.Reference{Ino: uint64(ino), Off: int64(n.Owned) * r.span, ID: store.ID(n.LazyID)})
		}
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	// Lazy inodes come from the records, extents from their own rows: both are in order of inodes,
	// and are merged.
	lazyBefore := func(ino uint64) error {
		for len(lazy) > 0 && lazy[0].Ino < ino {
			if err := fn(lazy[0]); err != nil {
				return err
			}
			lazy = lazy[1:]
		}
		return nil
	}
	err = rows.ScanPrefix(meta.Prefix(meta.KindExtents), func(key, value []byte) error {
		ino, i, err := meta.KeyNumbers(key)
		if err != nil {
			return err
		}
		page, err := meta.DecodeExtents(value, int64(i)*r.span, r.span)
		if err != nil {
			return fmt.Errorf("inode %d: %w", ino, err)
		}
		if err := lazyBefore(uint64(ino)); err != nil {
			return err
		}
		for _, e := range page {
			if err := fn(graph.Reference{Ino: uint64(ino), Off: e.Off, Len: int64(e.Len), Skip: e.Skip, ID: store.ID(e.ID)}); err != nil {
				return err
			}
		}
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	return lazyBefore(1<<64 - 1)
}

// Names calls fn for every name in a directory, at the instant of rows. An error
// of fn ends it and is returned.
func (r Reader) Names(ctx context.Context, rows *store.View, fn func(dir meta.Ino, e meta.Dirent) error) error {
	return rows.ScanPrefix(meta.Prefix(meta.KindEntry), func(key, value []byte) error {
		dir, _, err := meta.KeyNumbers(key)
		if err != nil {
			return err
		}
		e, err := meta.DecodeDirent(value)
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		return fn(dir, e)
	})
}

// Contents calls fn for every regular file and every directory that is lazy, with
// sums over what the inode holds, at the instant of rows. An error of fn ends it and is
// returned.
func (r Reader) Contents(ctx context.Context, rows *store.View, fn func(ino meta.Ino, sums graph.Sums) error) error {
	return rows.ScanPrefix(meta.InodePrefix(), func(key, value []byte) error {
		ino, err := meta.KeyIno(key)
		if err != nil {
			return err
		}
		attr, err := meta.DecodeInode(value)
		if err != nil {
			return fmt.Errorf("inode %d: %w", ino, err)
		}
		var sums graph.Sums
		switch {
		case attr.Mode&syscall.S_IFMT == syscall.S_IFREG:
			sums = graph.Sums{Files: 1, Bytes: attr.Size, Data: attr.Alloc}
		// What is neither a file nor a lazy directory holds nothing but rows.
		case !attr.IsLazyDir():
			return ctx.Err()
		default:
			// Nothing below a lazy directory has rows, so its sums stand for all of it.
			if sums, err = LazySums(ctx, r.st, rows, ino, &attr); err != nil {
				return fmt.Errorf("inode %d: %w", ino, err)
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		return fn(ino, sums)
	})
}

// AllPaths returns all paths of the chosen inodes, sorted, at the instant of rows.
// One without a name is not in it.
func (r Reader) AllPaths(ctx context.Context, rows *store.View, chosen map[uint64]bool) (map[uint64][]string, error) {
	// Few inodes are climbed from; for many one pass over all names costs less.
	if found, ok := climbAll(rows, chosen); ok {
		return found, nil
	}
	dirs := make(Paths)
	names := make(map[meta.Ino][]location)
	err := r.Names(ctx, rows, func(dir meta.Ino, e meta.Dirent) error {
		if e.Type == syscall.S_IFDIR {
			dirs[e.Ino] = location{dir, e.Name}
		}
		if chosen[uint64(e.Ino)] {
			names[e.Ino] = append(names[e.Ino], location{dir, e.Name})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	found := make(map[uint64][]string, len(names))
	for ino, at := range names {
		for _, l := range at {
			p := dirs.Of(l.dir)
			if p == "" && l.dir != meta.Root {
				continue // a directory without a name
			}
			if p != "" {
				p += "/"
			}
			found[uint64(ino)] = append(found[uint64(ino)], p+l.name)
		}
		slices.Sort(found[uint64(ino)])
	}
	return found, nil
}

// fewPaths is up to how many inodes climbing to the root from each is tried,
// instead of reading all names.
const fewPaths = 10_000

// climbAll finds the paths by the places that inodes know of themselves. It gives
// up on the first that does not: one with several names, or of an old record.
func climbAll(rows *store.View, chosen map[uint64]bool) (found map[uint64][]string, ok bool) {
	if len(chosen) > fewPaths {
		return nil, false
	}
	found = make(map[uint64][]string, len(chosen))
	for ino := range chosen {
		p, ok := climb(rows, meta.Ino(ino))
		if !ok {
			return nil, false
		}
		found[ino] = []string{p}
	}
	return found, true
}

func climb(rows *store.View, ino meta.Ino) (path string, ok bool) {
	for range syscall.PathMax { // a damaged tree may have loops
		if ino == meta.Root {
			return path, true
		}
		b, err := rows.Get(meta.InodeKey(ino))
		if err != nil {
			return "", false
		}
		n, err := meta.DecodeInode(b)
		if err != nil || n.Shared || n.Pos == 0 || n.Nlink == 0 {
			return "", false
		}
		if b, err = rows.Get(meta.EntryKey(n.Parent, n.Pos)); err != nil {
			return "", false
		}
		e, err := meta.DecodeDirent(b)
		if err != nil || e.Ino != ino {
			return "", false
		}
		if path != "" {
			path = "/" + path
		}
		path, ino = e.Name+path, n.Parent
	}
	return "", false
}
