package localnode

import (
	"context"
	"fmt"
	"path"
	"strings"
	"syscall"

	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/mounts"
	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/fs/volume"
	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/tiering/also"
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

// LinkSnapshot implements remote.Snapshotter.
func (l volumeFiles) LinkSnapshot(_ context.Context, name string, id store.ID, by store.Actor) error {
	return l.vol.LinkSnapshot(name, id, by)
}

// EditSnapshot implements remote.Snapshotter.
func (l volumeFiles) EditSnapshot(_ context.Context, name string, e remote.SnapshotEdit) error {
	if e.Held != nil {
		if err := l.vol.Store().HoldSnapshot(name, *e.Held); err != nil {
			return err
		}
	}
	if !e.Until.IsZero() {
		if err := l.vol.Store().LockSnapshot(name, e.Until); err != nil {
			return err
		}
	}
	// Last, as the hold is found by the old name.
	if e.Name != nil {
		return l.vol.RenameSnapshot(name, *e.Name)
	}
	return nil
}

// Clone implements remote.Snapshotter.
func (l volumeFiles) Clone(ctx context.Context, r remote.CloneRequest) error {
	from := volume.SnapshotPath{Snapshot: r.Snapshot, Path: strings.Trim(r.Path, "/")}
	do := l.vol.Clone
	switch {
	case r.Replace && r.AnyKind:
		do = l.vol.Restore
	case r.Replace:
		do = l.vol.RestoreAlike
	}
	return pathError(do(ctx, from, r.To, rights(r.KeepPrivileges)...))
}

func rights(keep bool) (list []volume.Rights) {
	if keep {
		list = append(list, volume.KeepPrivileges)
	}
	return list
}

// Rollback implements remote.Snapshotter.
func (l volumeFiles) Rollback(ctx context.Context, r remote.RollbackRequest) error {
	return l.vol.Rollback(ctx, r.Snapshot, rights(r.KeepPrivileges)...)
}

// pathError makes an error of the store's of one about a path.
func pathError(err error) error {
	for _, row := range []struct {
		is syscall.Errno
		as error
	}{
		{syscall.EEXIST, store.ErrNameTaken}, {syscall.ENOENT, store.ErrNotFound}, {syscall.ENOTDIR, store.ErrNotFound},
		{syscall.EINVAL, remote.ErrRequest}, {syscall.EROFS, remote.ErrRequest}, {syscall.ENAMETOOLONG, remote.ErrRequest},
	} {
		if meta.IsErrno(err, row.is) {
			return also.Is(err, row.as)
		}
	}
	return err
}

// When a name comes to lead to something else by other means than a request, the kernel forgets
// what is below it, and takes away what is mounted there. So restores, rollbacks and removals of
// snapshots are refused as long as something is.

// AroundMount is Around for a volume that is mounted as the filesystem with a device number; flush
// has the kernel hand over what programs have written.
func AroundMount(vol *volume.Volume, device string, flush func(context.Context) error) remote.Environment {
	a := Around(vol)
	mounted := mountedFiles{volumeFiles{vol}, device, flush}
	a.Snapshots, a.LiveTree, a.Flush = mounted, mounted, flush
	return a
}

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
func (l mountedFiles) Rollback(ctx context.Context, r remote.RollbackRequest) error {
	if err := l.NothingOn("/"); err != nil {
		return err
	}
	return l.volumeFiles.Rollback(ctx, r)
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
	// Looked up each time: others mount and unmount at any moment.
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
