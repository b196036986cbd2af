package rows

import (
	"context"
	"syscall"

	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/store"
)

// A Use is a part of a file that is in a block.
type Use struct {
	Ino   meta.Ino
	Path  string // one of the file's paths, without a leading slash; "" when no name leads to it
	Off   int64  // of the part in the file
	Len   int64
	Block store.ID
}

// Uses calls fn for every part of a file whose block is chosen, as of the last
// commit. It reads rows only, takes no lock, and works on a store at a
// standstill. Rows that cannot be decoded are passed over: fsck finds them.
func (r Reader) Uses(ctx context.Context, chosen func(store.ID) bool, fn func(Use) error) error {
	var uses []Use
	files := make(map[meta.Ino]bool)
	err := r.db.ScanPrefix(meta.Prefix(meta.KindExtents), func(key, value []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		ino, i, err := meta.KeyNumbers(key)
		if err != nil {
			return nil
		}
		page, err := meta.DecodeExtents(value, int64(i)*r.span, r.span)
		if err != nil {
			return nil
		}
		for _, e := range page {
			if chosen(store.ID(e.ID)) {
				uses = append(uses, Use{Ino: ino, Off: e.Off, Len: int64(e.Len), Block: store.ID(e.ID)})
				files[ino] = true
			}
		}
		return nil
	})
	// Paths cost a pass over all names: only for those that have come up.
	if err != nil || len(uses) == 0 {
		return err
	}
	paths, err := r.Paths(ctx, files)
	if err != nil {
		return err
	}
	for _, u := range uses {
		u.Path = paths.Of(u.Ino)
		if err := fn(u); err != nil {
			return err
		}
	}
	return nil
}

// A location is where a name is.
type location struct {
	dir  meta.Ino
	name string
}

// Paths lead from inodes to a name of each.
type Paths map[meta.Ino]location

// Paths finds a name of each of the inodes, and those of all directories.
func (r Reader) Paths(ctx context.Context, inodes map[meta.Ino]bool) (Paths, error) {
	found := make(Paths)
	err := r.db.ScanPrefix(meta.Prefix(meta.KindEntry), func(key, value []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		dir, _, err := meta.KeyNumbers(key)
		if err != nil {
			return nil
		}
		e, err := meta.DecodeDirent(value)
		if err == nil && (e.Type == syscall.S_IFDIR || inodes[e.Ino]) {
			found[e.Ino] = location{dir, e.Name}
		}
		return nil
	})
	return found, err
}

// Of returns a path from the root, or "" when none leads to the inode.
func (p Paths) Of(ino meta.Ino) string {
	path := ""
	for range syscall.PathMax { // a damaged tree may have loops
		if ino == meta.Root {
			return path
		}
		l, ok := p[ino]
		if !ok {
			return ""
		}
		if path != "" {
			path = "/" + path
		}
		path, ino = l.name+path, l.dir
	}
	return ""
}
