// Package localnode answers what package remote asks about the files of a store whose volume is
// open in this process.
package localnode

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/quarxtor/quarxfs/fs/fsck"
	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/fs/rows"
	"github.com/quarxtor/quarxfs/fs/volume"
	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/graph/export"
	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/store"
)

// Around is what a volume adds to its store.
func Around(vol *volume.Volume) remote.Environment {
	files := volumeFiles{vol}
	return remote.Environment{
		Volume:    func() remote.VolumeStats { return remote.VolumeStats(vol.Stats()) },
		Files:     files,
		Live:      files,
		Rows:      files,
		LiveTree:  vol,
		Namespace: files,
		Snapshots: files,
		Pins:      files,
		Reaped:    func() { vol.AwaitReaped() },
	}
}

// volumeFiles lists a volume for the API.
type volumeFiles struct{ vol *volume.Volume }

var errEnough = errors.New("the limit is reached")

// ListFiles implements remote.Files.
func (l volumeFiles) ListFiles(ctx context.Context, filter remote.FileFilter, fn func(remote.File) error) error {
	if err := filter.Check(); err != nil {
		return err
	}
	path := strings.Trim(filter.Path, "/")
	top, err := l.find(path)
	if err != nil {
		return err
	}
	count := int64(0)
	show := func(p string, a volume.Attr) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		f := fileOf(p, a)
		if !filter.Match(p, f.Type) {
			return nil
		}
		if err := fn(f); err != nil {
			return err
		}
		// After it was shown: a limit of one shows one.
		if count++; count == filter.Limit {
			return errEnough
		}
		return nil
	}
	// Walk is for directories; a file that is named is listed by itself, as ls does.
	if top.Mode&syscall.S_IFMT != syscall.S_IFDIR {
		err = show(path, top)
	} else {
		if path != "" {
			path += "/"
		}
		err = l.vol.Walk(top.Ino, path, show)
	}
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// find follows a path from the root, not through symbolic links.
func (l volumeFiles) find(path string) (volume.Attr, error) {
	a, err := l.vol.Attr(meta.Root)
	for name := range strings.SplitSeq(path, "/") {
		if err != nil {
			break
		}
		switch name {
		case "", ".":
		case "..":
			return a, fmt.Errorf("%w: no .. may be in the path %q", remote.ErrRequest, path)
		default:
			// A file in the middle gives ENOTDIR, which is made "not found" below: a path is there
			// or is not.
			a, err = l.vol.Lookup(a.Ino, name)
		}
	}
	if meta.IsErrno(err, syscall.ENOENT) || meta.IsErrno(err, syscall.ENOTDIR) {
		return a, fmt.Errorf("%q in the store: %w", path, store.ErrNotFound)
	}
	return a, err
}

func fileOf(path string, a volume.Attr) remote.File {
	return remote.File{
		Path: path, Ino: uint64(a.Ino), Type: typeOf(a.Mode), Mode: a.Mode &^ syscall.S_IFMT,
		UID: a.UID, GID: a.GID, Nlink: a.Nlink, Size: a.Size, Alloc: a.Blocks * 512,
		Mtime: time.Unix(a.Mtime.Sec, int64(a.Mtime.Nsec)).UTC(), Target: a.Target,
	}
}

func typeOf(mode uint32) remote.FileType {
	switch mode & syscall.S_IFMT {
	case syscall.S_IFDIR:
		return remote.Directory
	case syscall.S_IFLNK:
		return remote.Symlink
	case syscall.S_IFIFO:
		return remote.FIFO
	case syscall.S_IFSOCK:
		return remote.Socket
	case syscall.S_IFBLK:
		return remote.Block
	case syscall.S_IFCHR:
		return remote.Char
	}
	return remote.Regular
}

var _ remote.Live = volumeFiles{}

// LiveFile implements remote.Live.
func (l volumeFiles) LiveFile(_ context.Context, path string) (export.LiveFile, error) {
	a, err := l.find(path)
	if err == nil && a.Mode&syscall.S_IFMT == syscall.S_IFDIR {
		// The names in a cloned directory get rows, so that each can be told apart.
		err = l.vol.ReadDir(a.Ino, 0, func(volume.Entry) bool { return false })
	}
	if a.Mode&syscall.S_IFMT == syscall.S_IFDIR {
		return export.LiveFile{Ino: uint64(a.Ino), Directory: true}, err
	}
	return export.LiveFile{Ino: uint64(a.Ino), Size: a.Size}, err
}

// LiveEdges implements remote.Live.
func (l volumeFiles) LiveEdges(ctx context.Context, f export.LiveFile, fn func(export.LiveEdge) error) error {
	err := l.vol.Rows().Edges(ctx, meta.Ino(f.Ino), func(e rows.Edge) error {
		edge := liveEdge(e)
		if edge.File != nil && !edge.File.Directory {
			// Peek, which drops nothing from memory for it: all entries are asked for.
			a, err := l.vol.Peek(e.To)
			if meta.IsErrno(err, syscall.ENOENT) {
				// Removed between the row and this look.
				return nil
			}
			if err != nil {
				return err
			}
			edge.File.Size, edge.Bytes = a.Size, a.Size
		}
		return fn(edge)
	})
	if meta.IsErrno(err, syscall.ENOENT) {
		return fmt.Errorf("inode %d: %w", f.Ino, store.ErrNotFound)
	}
	return err
}

func liveEdge(e rows.Edge) export.LiveEdge {
	switch {
	case e.To != 0:
		return export.LiveEdge{Role: graph.Content, Name: e.Name, File: &export.LiveFile{Ino: uint64(e.To), Directory: e.Type == syscall.S_IFDIR}}
	case e.Lazy:
		return export.LiveEdge{Role: export.Clone, Block: e.Block, Offset: e.Off, Bytes: e.Len}
	}
	return export.LiveEdge{Role: graph.Contains, Block: e.Block, Offset: e.Off, Bytes: e.Len}
}

var _ remote.Rows = volumeFiles{}

// References implements remote.Rows.
func (l volumeFiles) References(ctx context.Context, rows *store.View, fn func(graph.Reference) error) error {
	return l.vol.Rows().References(ctx, rows, fn)
}

// Names implements remote.Rows.
func (l volumeFiles) Names(ctx context.Context, rows *store.View, fn func(remote.Name) error) error {
	return l.vol.Rows().Names(ctx, rows, func(dir meta.Ino, e meta.Dirent) error {
		return fn(remote.Name{Dir: uint64(dir), Ino: uint64(e.Ino), Directory: e.Type == syscall.S_IFDIR, Name: e.Name})
	})
}

// Contents implements remote.Rows.
func (l volumeFiles) Contents(ctx context.Context, rows *store.View, fn func(remote.Content) error) error {
	return l.vol.Rows().Contents(ctx, rows, func(ino meta.Ino, below graph.Sums) error {
		return fn(remote.Content{Ino: uint64(ino), Files: below.Files, Data: below.Data})
	})
}

// AllPaths implements remote.Rows.
func (l volumeFiles) AllPaths(ctx context.Context, rows *store.View, inodes map[uint64]bool) (map[uint64][]string, error) {
	return l.vol.Rows().AllPaths(ctx, rows, inodes)
}

// Uses implements remote.Namespace.
func (l volumeFiles) Uses(ctx context.Context, chosen func(store.ID) bool, fn func(remote.Use) error) error {
	return l.vol.Rows().Uses(ctx, chosen, func(u rows.Use) error {
		return fn(remote.Use{Path: u.Path, Ino: uint64(u.Ino), Offset: u.Off, Bytes: u.Len, Block: u.Block})
	})
}

// Inspect implements remote.Namespace.
func (l volumeFiles) Inspect(ctx context.Context, ref func(store.ID), report func(remote.Finding)) error {
	return fsck.Inspect(ctx, l.vol.Store(), ref, func(f fsck.Finding) { report(findingOf(f)) })
}

func findingOf(f fsck.Finding) remote.Finding {
	x := remote.Finding{Rule: f.Rule, Subject: "volume", Text: f.What}
	if f.Ino != 0 {
		x.Subject = fmt.Sprintf("inode %d", f.Ino)
	}
	if f.Path != "" {
		x.Paths = []string{f.Path}
	}
	return x
}

var _ remote.Pins = volumeFiles{}

// SetPinned implements remote.Pins.
func (l volumeFiles) SetPinned(_ context.Context, path string, pinned bool) error {
	a, err := l.find(path)
	if err != nil {
		return err
	}
	return l.vol.SetPinned(a.Ino, pinned)
}

// Pinned implements remote.Pins.
func (l volumeFiles) Pinned(ctx context.Context) ([]string, error) { return l.vol.Pinned(ctx) }

// PinnedBlocks implements remote.Pins.
func (l volumeFiles) PinnedBlocks(ctx context.Context, fn func(store.ID) error) error {
	return l.vol.PinnedBlocks(ctx, fn)
}
