package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/fs/volume"
	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/graph/export"
	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/store"
)

var _ remote.Live = volumeFiles{}

// LiveFile implements remote.Live.
func (l volumeFiles) LiveFile(_ context.Context, path string) (export.LiveFile, error) {
	a, err := l.find(path)
	return liveFile(a), err
}

func liveFile(a volume.Attr) export.LiveFile {
	return export.LiveFile{Ino: uint64(a.Ino), Directory: a.Mode&syscall.S_IFMT == syscall.S_IFDIR, Size: a.Size}
}

// LiveEdges implements remote.Live. Entries of what has no data, such as
// symbolic links, are edges as well.
func (l volumeFiles) LiveEdges(ctx context.Context, f export.LiveFile, fn func(export.LiveEdge) error) error {
	var err error
	if f.Directory {
		err = l.entries(ctx, meta.Ino(f.Ino), fn)
	} else {
		err = l.vol.Extents(ctx, meta.Ino(f.Ino), func(off, length int64, block store.ID) error {
			return fn(export.LiveEdge{Role: graph.Contains, Block: block, Offset: off, Bytes: length})
		})
	}
	if errors.Is(err, syscall.ENOENT) {
		return fmt.Errorf("inode %d: %w", f.Ino, store.ErrNotFound)
	}
	return err
}

func (l volumeFiles) entries(ctx context.Context, dir meta.Ino, fn func(export.LiveEdge) error) error {
	var failed error
	err := l.vol.ReadDir(dir, 0, func(e volume.Entry) bool {
		if e.Name == "." || e.Name == ".." {
			return true
		}
		if failed = ctx.Err(); failed != nil {
			return false
		}
		a, err := l.vol.Peek(e.Ino)
		if errors.Is(err, syscall.ENOENT) {
			return true
		}
		if failed = err; failed != nil {
			return false
		}
		file := liveFile(a)
		failed = fn(export.LiveEdge{Role: graph.Content, Name: e.Name, File: &file, Bytes: a.Size})
		return failed == nil
	})
	return errors.Join(failed, err)
}

// EachLiveEdge implements remote.Live.
func (l volumeFiles) EachLiveEdge(ctx context.Context, fn func(from uint64, e export.LiveEdge) error) error {
	return l.vol.EachEdge(ctx, func(e volume.Edge) error {
		edge := export.LiveEdge{Role: graph.Contains, Block: e.Block, Offset: e.Off, Bytes: e.Len}
		if e.To != 0 {
			edge = export.LiveEdge{Role: graph.Content, Name: e.Name, File: &export.LiveFile{Ino: uint64(e.To), Directory: e.Dir}}
		}
		return fn(uint64(e.From), edge)
	})
}

// LivePaths implements remote.Live.
func (l volumeFiles) LivePaths(ctx context.Context, inodes []uint64) (map[uint64]string, error) {
	wanted := make([]meta.Ino, len(inodes))
	for i, ino := range inodes {
		wanted[i] = meta.Ino(ino)
	}
	found, err := l.vol.Paths(ctx, wanted)
	paths := make(map[uint64]string, len(found))
	for ino, p := range found {
		paths[uint64(ino)] = p
	}
	return paths, err
}
