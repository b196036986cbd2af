package main

import (
	"context"
	"syscall"

	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/store"
)

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
