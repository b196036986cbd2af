package fs

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/quarxtor/quarxfs/fs/volume"
)

func (f *filesystem) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	defer f.meter.time(opLookup)()
	if name == "." || name == ".." {
		return f.reconnect(h, name, out)
	}
	a, err := f.vol.Lookup(ino(h), name)
	if err == syscall.ENOENT {
		// Inode 0 lets the kernel remember that there is nothing.
		*out = fuse.EntryOut{}
		if !inSnapshots(h.NodeId) {
			out.SetEntryTimeout(cacheFor)
		}
		return fuse.OK
	}
	if err != nil {
		return f.status("lookup", err)
	}
	if a.Ino == volume.SnapshotsDir {
		f.foundSnapshots(h)
	}
	f.entry(a, out)
	if inSnapshots(h.NodeId) {
		out.SetEntryTimeout(0) // they come and go without the kernel
	}
	return fuse.OK
}

func (f *filesystem) Forget(node, count uint64) {
	f.meter.count(opForget)
	f.vol.Forget(volume.Ino(node), count)
}

func (f *filesystem) create(op opCode, h *fuse.InHeader, name string, c volume.CreateOptions, out *fuse.EntryOut) fuse.Status {
	defer f.meter.time(op)()
	c.UID, c.GID = h.Uid, h.Gid
	a, err := f.vol.Create(ino(h), name, c)
	if err != nil {
		return f.status(op.String(), err)
	}
	f.entry(a, out)
	return fuse.OK
}

func (f *filesystem) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	return f.create(opMknod, &in.InHeader, name, volume.CreateOptions{Mode: in.Mode, Umask: in.Umask, Rdev: in.Rdev}, out)
}

func (f *filesystem) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	if inSnapshots(in.NodeId) {
		return f.makeSnapshot(name, out)
	}
	return f.create(opMkdir, &in.InHeader, name, volume.CreateOptions{Mode: syscall.S_IFDIR | in.Mode&0o7777, Umask: in.Umask}, out)
}

func (f *filesystem) Symlink(_ <-chan struct{}, h *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	return f.create(opSymlink, h, name, volume.CreateOptions{Mode: syscall.S_IFLNK | 0o777, Target: target}, out)
}

func (f *filesystem) Tmpfile(_ <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	defer f.meter.time(opTmpfile)()
	a, err := f.vol.CreateNameless(ino(&in.InHeader), volume.CreateOptions{
		Mode: syscall.S_IFREG | in.Mode&0o7777, Umask: in.Umask, UID: in.Uid, GID: in.Gid,
	})
	if err != nil {
		return f.status("tmpfile", err)
	}
	f.fillEntry(a, &out.EntryOut) // CreateNameless has counted the look-up
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE
	return fuse.OK
}

func (f *filesystem) Readlink(_ <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	defer f.meter.time(opReadlink)()
	target, err := f.vol.Readlink(ino(h))
	return []byte(target), f.status("readlink", err)
}

func (f *filesystem) Unlink(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	defer f.meter.time(opUnlink)()
	return f.status("unlink", f.vol.Unlink(ino(h), name))
}

func (f *filesystem) Rmdir(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	defer f.meter.time(opRmdir)()
	if inSnapshots(h.NodeId) {
		return f.snapshotStatus("rmdir", f.vol.RemoveSnapshot(name))
	}
	return f.status("rmdir", f.vol.Rmdir(ino(h), name))
}

func (f *filesystem) Rename(_ <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	defer f.meter.time(opRename)()
	if inSnapshots(in.NodeId) || inSnapshots(in.Newdir) {
		return f.renameSnapshot(in, oldName, newName)
	}
	return f.status("rename", f.vol.Rename(ino(&in.InHeader), oldName, volume.Ino(in.Newdir), newName, in.Flags))
}

func (f *filesystem) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	defer f.meter.time(opLink)()
	a, err := f.vol.Link(volume.Ino(in.Oldnodeid), ino(&in.InHeader), name)
	if err != nil {
		return f.status("link", err)
	}
	f.entry(a, out)
	return fuse.OK
}

// OpenDir refuses once, so that the kernel opens directories by itself.
func (f *filesystem) OpenDir(_ <-chan struct{}, _ *fuse.OpenIn, _ *fuse.OpenOut) fuse.Status {
	f.meter.count(opOpenDir)
	return fuse.ENOSYS
}

func (f *filesystem) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	defer f.meter.time(opReadDir)()
	return f.status("readdir", f.readDir(in, func(e volume.Entry) bool {
		return out.AddDirEntry(dirEntry(e))
	}))
}

func dirEntry(e volume.Entry) fuse.DirEntry {
	return fuse.DirEntry{Mode: e.Type, Name: e.Name, Ino: uint64(e.Ino), Off: e.Pos}
}

func (f *filesystem) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	defer f.meter.time(opReadDirPlus)()
	return f.status("readdirplus", f.readDir(in, func(e volume.Entry) bool {
		// A name that is listed for a file handle is still to be looked up: see foundSnapshots.
		if e.Name == "." || e.Name == ".." || e.Ino == volume.SnapshotsDir && f.reconnects.under(in.Pid) {
			return out.AddDirLookupEntry(dirEntry(e)) != nil
		}
		a, err := f.vol.PeekEntry(e)
		if err == syscall.ENOENT {
			return true // removed since the names were read
		}
		slot := out.AddDirLookupEntry(dirEntry(e))
		if slot == nil {
			return false
		}
		if err != nil {
			f.status("readdirplus", err) // inode 0 here: a look-up will report it
			return true
		}
		f.entry(a, slot)
		if inSnapshots(in.NodeId) {
			slot.SetEntryTimeout(0)
		}
		return true
	}))
}

func (f *filesystem) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	defer f.meter.time(opStatFs)()
	*out = statfs(f.vol.Space())
	return fuse.OK
}

// mostInodes is how many inodes df(1) is told there can be. There is no limit; the largest
// number that programs with 32 bits take says so without changing with the free space.
const mostInodes = 1<<32 - 1

// statfs makes the reply to statfs(2): what others have on the disk below, or what it
// keeps for itself, is neither in use here nor free.
func statfs(s volume.Space) fuse.StatfsOut {
	const unit = 4096
	used, free := uint64(max(0, s.Used)+unit-1)/unit, uint64(max(0, s.Free))/unit
	inodes := uint64(max(0, s.Inodes))
	files := max(mostInodes, inodes)
	return fuse.StatfsOut{
		Blocks: used + free, Bfree: free, Bavail: free,
		Files: files, Ffree: files - inodes,
		Bsize: unit, Frsize: unit, NameLen: volume.MaxName,
	}
}
