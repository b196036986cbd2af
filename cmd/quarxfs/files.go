package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/fs/volume"
	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/store"
)

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
	listed := int64(0)
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
		if listed++; listed == filter.Limit {
			return errEnough
		}
		return nil
	}
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
			a, err = l.vol.Lookup(a.Ino, name)
		}
	}
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENOTDIR) {
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
