package fs

import (
	"context"
	"errors"
	"os"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/quarxtor/quarxfs/fs/volume"
)

// In .snapshots mkdir makes a snapshot, rmdir removes one and rename renames.

func inSnapshots(node uint64) bool { return volume.Ino(node) == volume.SnapshotsDir }

func (f *filesystem) makeSnapshot(name string, out *fuse.EntryOut) fuse.Status {
	defer f.meter.time(opMkdir)()
	if f.sync != nil {
		// The kernel waits for our answer to mkdir only; it can write back meanwhile.
		if err := f.sync(context.Background()); err != nil {
			return f.status("mkdir", err)
		}
	}
	host, _ := os.Hostname() // none is no harm
	if _, err := f.vol.CreateSnapshot(context.Background(), volume.SnapshotOptions{Name: name, Host: host}); err != nil {
		return f.status("mkdir", err)
	}
	a, err := f.vol.Lookup(volume.SnapshotsDir, name)
	if err != nil {
		return f.status("mkdir", err)
	}
	f.entry(a, out)
	out.SetEntryTimeout(0)
	return fuse.OK
}

func (f *filesystem) renameSnapshot(in *fuse.RenameIn, oldName, newName string) fuse.Status {
	if !inSnapshots(in.NodeId) || !inSnapshots(in.Newdir) {
		return fuse.Status(syscall.EXDEV)
	}
	if in.Flags&^1 != 0 { // RENAME_NOREPLACE is what it does anyway
		return fuse.EINVAL
	}
	return f.snapshotStatus("rename", f.vol.RenameSnapshot(oldName, newName))
}

// snapshotStatus is status where what is missing can only be the snapshot.
func (f *filesystem) snapshotStatus(op string, err error) fuse.Status {
	if errors.Is(err, volume.ErrMissing) {
		return fuse.ENOENT
	}
	return f.status(op, err)
}

// invalidate tells the kernel what it may not remember any more: listings before it returns, names
// soon after, since a directory's lock may be held for the request that is being answered.
func (f *filesystem) invalidate(list []volume.Invalidation) {
	if f.server == nil {
		return
	}
	var names []volume.Invalidation
	for _, s := range list {
		if s.Name == "" {
			f.dropListing(s.Ino)
		} else {
			names = append(names, s)
		}
	}
	// EntryNotify takes the directory's lock, which the kernel may hold for this very request.
	go func() {
		for _, s := range names {
			if st := f.server.EntryNotify(uint64(s.Ino), s.Name); !st.Ok() && st != fuse.ENOENT {
				f.log.Debug("the kernel was not told of a change", "inode", uint64(s.Ino), "name", s.Name, "status", st)
			}
		}
	}()
}
