package main

import (
	"context"
	"fmt"

	"github.com/quarxtor/quarxfs/fs/fsck"
	"github.com/quarxtor/quarxfs/fs/rows"
	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/store"
)

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
