package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/quarxtor/quarxfs/fs/volume"
	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/store"
)

var _ remote.Snapshotter = volumeFiles{}

// CreateSnapshot implements remote.Snapshotter.
func (l volumeFiles) CreateSnapshot(ctx context.Context, n remote.NewSnapshot) (remote.Snapshot, error) {
	s, err := l.vol.CreateSnapshot(ctx, volume.SnapshotOptions{
		Name: n.Name, Message: n.Message, Tags: n.Tags, Host: n.Host, Progress: n.Progress, Marks: n.Marks,
	})
	if err != nil {
		return remote.Snapshot{}, err
	}
	return remote.DescribeSnapshot(s.SnapshotRef, &s.Snapshot), nil
}

// RemoveSnapshot implements remote.Snapshotter.
func (l volumeFiles) RemoveSnapshot(_ context.Context, name string) error {
	return l.vol.RemoveSnapshot(name)
}

// AdoptSnapshot implements remote.Snapshotter.
func (l volumeFiles) AdoptSnapshot(_ context.Context, name string, id store.ID) error {
	return l.vol.AdoptSnapshot(name, id)
}

// EditSnapshot implements remote.Snapshotter.
func (l volumeFiles) EditSnapshot(_ context.Context, name string, e remote.SnapshotEdit) error {
	if e.Held != nil {
		if err := l.vol.HoldSnapshot(name, *e.Held); err != nil {
			return err
		}
	}
	if e.Name != nil {
		return l.vol.RenameSnapshot(name, *e.Name)
	}
	return nil
}

// Clone implements remote.Snapshotter.
func (l volumeFiles) Clone(ctx context.Context, r remote.CloneRequest) error {
	from := volume.Past{Snapshot: r.Snapshot, Path: strings.Trim(r.Path, "/")}
	do := l.vol.Clone
	switch {
	case r.Replace && r.AnyKind:
		do = l.vol.Restore
	case r.Replace:
		do = l.vol.RestoreAlike
	}
	return pathError(do(ctx, from, r.To))
}

// Rollback implements remote.Snapshotter.
func (l volumeFiles) Rollback(ctx context.Context, snapshot string) error {
	return l.vol.Rollback(ctx, snapshot)
}

// pathError makes an error of the store's of one about a path.
func pathError(err error) error {
	for _, row := range []struct {
		is error
		as error
	}{
		{syscall.EEXIST, store.ErrNameTaken}, {syscall.ENOENT, store.ErrNotFound}, {syscall.ENOTDIR, store.ErrNotFound},
		{syscall.EINVAL, remote.ErrRequest}, {syscall.EROFS, remote.ErrRequest}, {syscall.ENAMETOOLONG, remote.ErrRequest},
	} {
		if errors.Is(err, row.is) {
			return fmt.Errorf("%w: %w", err, row.as)
		}
	}
	return err
}
