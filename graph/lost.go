package graph

import (
	"context"
	"errors"
	"syscall"
	"time"

	"github.com/quarxtor/quarxfs/store"
)

// LostDirectory makes the vertex of a snapshot of a directory that nothing leads to any more: what
// led to its tree is lost, and with it the directory's own name, owner and times. Files with
// several names had their rest in a table that may be lost as well. Errors: store.ErrCorrupt for
// what is no directory's, or cannot be read.
func LostDirectory(ctx context.Context, src Source, tree store.ID, now time.Time) ([]byte, error) {
	root := Entry{Mode: syscall.S_IFDIR | 0o700, Link: Link{tree, store.KindTree}}
	root.Mtime = Time{Sec: now.Unix()}
	root.Atime, root.Ctime, root.Btime = root.Mtime, root.Mtime, root.Mtime
	t := OpenTree(src, tree, Directory)
	var err error
	if root.Entries, err = t.Len(ctx); err != nil {
		return nil, err
	}
	err = t.Each(ctx, "", func(e *Entry) error {
		if e.IsDir() {
			root.Subdirs++
		}
		root.Below.Add(e.Sum(), 1)
		return nil
	})
	if err != nil && !errors.Is(err, store.ErrCorrupt) && !errors.Is(err, store.ErrNotFound) {
		return nil, err // else a part of the directory is lost as well, and the rest is kept
	}
	s := Snapshot{Root: root, Created: root.Mtime, Message: "found by fsck --repair"}
	s.Totals.Files, s.Totals.Dirs, s.Totals.Others = root.Below.Files, root.Below.Dirs+1, root.Below.Others
	s.Totals.Logical, s.Totals.Data = root.Below.Bytes, root.Below.Data
	return s.Encode()
}
