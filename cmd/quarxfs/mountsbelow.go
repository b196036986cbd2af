package main

import (
	"context"
	"fmt"
	"path"
	"strings"

	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/mounts"
	"github.com/quarxtor/quarxfs/fs/volume"
	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/store"
)

// When a name comes to lead to something else by other means than a request, the kernel forgets
// what is below it, and takes away what is mounted there. So restores, rollbacks and removals of
// snapshots are refused as long as something is.

// mountedFiles are a volume's that is mounted.
type mountedFiles struct {
	volumeFiles
	device string                      // of the mounted filesystem
	flush  func(context.Context) error // has the kernel hand over what programs have written
}

// CreateSnapshot implements remote.Snapshotter. Whoever asks for a snapshot, from whatever mount
// namespace or machine, gets what was written before.
func (l mountedFiles) CreateSnapshot(ctx context.Context, n remote.NewSnapshot) (remote.Snapshot, error) {
	if err := l.flush(ctx); err != nil {
		return remote.Snapshot{}, err
	}
	return l.volumeFiles.CreateSnapshot(ctx, n)
}

// LiveTree implements remote.LiveTree.
func (l mountedFiles) LiveTree(ctx context.Context, fn func(*graph.Snapshot) error) error {
	if err := l.flush(ctx); err != nil {
		return err
	}
	return l.vol.LiveTree(ctx, fn)
}

// Clone implements remote.Snapshotter.
func (l mountedFiles) Clone(ctx context.Context, r remote.CloneRequest) error {
	if r.Replace {
		if err := l.NothingOn(r.To); err != nil {
			return err
		}
	}
	return l.volumeFiles.Clone(ctx, r)
}

// Rollback implements remote.Snapshotter.
func (l mountedFiles) Rollback(ctx context.Context, snapshot string) error {
	if err := l.NothingOn("/"); err != nil {
		return err
	}
	return l.volumeFiles.Rollback(ctx, snapshot)
}

// RemoveSnapshot implements remote.Snapshotter.
func (l mountedFiles) RemoveSnapshot(ctx context.Context, name string) error {
	if err := l.NothingOn(path.Join(volume.SnapshotsName, name)); err != nil {
		return err
	}
	return l.volumeFiles.RemoveSnapshot(ctx, name)
}

// EditSnapshot implements remote.Snapshotter.
func (l mountedFiles) EditSnapshot(ctx context.Context, name string, e remote.SnapshotEdit) error {
	if e.Name != nil {
		if err := l.NothingOn(path.Join(volume.SnapshotsName, name)); err != nil {
			return err
		}
	}
	return l.volumeFiles.EditSnapshot(ctx, name, e)
}

// NothingOn returns an error that names what is mounted on a path of the volume or below it, if
// anything is.
func (l mountedFiles) NothingOn(where string) error {
	on, err := mounts.On(l.device, path.Join("/", where))
	if err != nil || len(on) == 0 {
		return err
	}
	names := make([]string, len(on))
	for i, h := range on {
		names[i] = h.String()
	}
	return fmt.Errorf("%w: %s, and would be torn away; first: %s", store.ErrMounted, strings.Join(names, "; "), on[0].Release())
}
