package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/fs/rows"
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
			a, err := l.vol.Peek(e.To)
			if errors.Is(err, syscall.ENOENT) {
				return nil
			}
			if err != nil {
				return err
			}
			edge.File.Size, edge.Bytes = a.Size, a.Size
		}
		return fn(edge)
	})
	if errors.Is(err, syscall.ENOENT) {
		return fmt.Errorf("inode %d: %w", f.Ino, store.ErrNotFound)
	}
	return err
}

func liveEdge(e rows.Edge) export.LiveEdge {
	switch {
	case e.To != 0:
		return export.LiveEdge{Role: graph.Content, Name: e.Name, File: &export.LiveFile{Ino: uint64(e.To), Directory: e.Type == syscall.S_IFDIR}}
	case e.Stub:
		return export.LiveEdge{Role: export.Clone, Block: e.Block, Offset: e.Off, Bytes: e.Len}
	}
	return export.LiveEdge{Role: graph.Contains, Block: e.Block, Offset: e.Off, Bytes: e.Len}
}
