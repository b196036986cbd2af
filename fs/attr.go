package fs

import (
	"slices"
	"strings"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/quarxtor/quarxfs/fs/volume"
)

func (f *filesystem) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	defer f.meter.time(opGetAttr)()
	a, err := f.vol.Attr(ino(&in.InHeader))
	if err != nil {
		return f.status("getattr", err)
	}
	fillAttr(a, &out.Attr)
	out.SetTimeout(keepAttr(a))
	return fuse.OK
}

// statxMask is STATX_BASIC_STATS | STATX_BTIME.
const statxMask = 0x7ff | 0x800

func (f *filesystem) Statx(_ <-chan struct{}, in *fuse.StatxIn, out *fuse.StatxOut) fuse.Status {
	defer f.meter.time(opStatx)()
	a, err := f.vol.Attr(ino(&in.InHeader))
	if err != nil {
		return f.status("statx", err)
	}
	fillStatx(a, &out.Statx)
	out.SetTimeout(keepAttr(a))
	return fuse.OK
}

func fillStatx(a volume.Attr, out *fuse.Statx) {
	t := func(t volume.Time) fuse.SxTime { return fuse.SxTime{Sec: uint64(t.Sec), Nsec: t.Nsec} }
	*out = fuse.Statx{
		Mask: statxMask, Blksize: 4096, Nlink: a.Nlink, Uid: a.UID, Gid: a.GID, Mode: uint16(a.Mode),
		Ino: uint64(a.Ino), Size: uint64(a.Size), Blocks: uint64(a.Blocks),
		Atime: t(a.Atime), Btime: t(a.Btime), Ctime: t(a.Ctime), Mtime: t(a.Mtime),
		RdevMajor: major(a.Rdev), RdevMinor: minor(a.Rdev),
	}
}

// FillSnapshotAttr has what stat(2) tells of an entry in a snapshot, wherever it is mounted.
func FillSnapshotAttr(ino uint64, e *volume.TreeEntry, out *fuse.Attr) {
	fillAttr(volume.SnapshotAttr(volume.Ino(ino), e), out)
}

// FillSnapshotStatx is FillSnapshotAttr for statx(2).
func FillSnapshotStatx(ino uint64, e *volume.TreeEntry, out *fuse.Statx) {
	fillStatx(volume.SnapshotAttr(volume.Ino(ino), e), out)
}

// major and minor split a device number as the FUSE protocol packs it.
func major(dev uint32) uint32 { return dev >> 8 & 0xfff }
func minor(dev uint32) uint32 { return dev&0xff | dev>>12&0xfff00 }

func (f *filesystem) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	defer f.meter.time(opSetAttr)()
	a, err := f.vol.SetAttr(ino(&in.InHeader), f.change(in))
	if err != nil {
		return f.status("setattr", err)
	}
	fillAttr(a, &out.Attr)
	out.SetTimeout(keepAttr(a))
	return fuse.OK
}

func (f *filesystem) change(in *fuse.SetAttrIn) volume.Change {
	var c volume.Change
	has := func(bit uint32) bool { return in.Valid&bit != 0 }
	if has(fuse.FATTR_MODE) {
		c.Mode = &in.Mode
	}
	if has(fuse.FATTR_UID) {
		c.UID = &in.Uid
	}
	if has(fuse.FATTR_GID) {
		c.GID = &in.Gid
	}
	if has(fuse.FATTR_SIZE) {
		size := int64(in.Size)
		c.Size = &size
	}
	// With FATTR_ATIME_NOW and FATTR_MTIME_NOW the kernel sends its own time, so
	// that both become the same.
	stamp := func(bit uint32, sec uint64, nsec uint32) *volume.Time {
		if !has(bit) {
			return nil
		}
		return &volume.Time{Sec: int64(sec), Nsec: nsec}
	}
	c.Atime = stamp(fuse.FATTR_ATIME, in.Atime, in.Atimensec)
	c.Mtime = stamp(fuse.FATTR_MTIME, in.Mtime, in.Mtimensec)
	c.Ctime = stamp(fuse.FATTR_CTIME, in.Ctime, in.Ctimensec)
	c.KillPriv = has(fuse.FATTR_KILL_SUIDGID) || asksToKillPriv(in)
	return c
}

// asksToKillPriv recognizes a SETATTR that changes nothing. The kernel sends
// one with a ctime for chown(-1, -1), and one without before fallocate and
// copy_file_range of a file with suid or sgid bits or capabilities; in that
// case it leaves to us whether the caller may keep the bits.
func asksToKillPriv(in *fuse.SetAttrIn) bool {
	const changes = fuse.FATTR_MODE | fuse.FATTR_UID | fuse.FATTR_GID | fuse.FATTR_SIZE | fuse.FATTR_ATIME | fuse.FATTR_MTIME
	if in.Valid&changes != 0 {
		return false
	}
	return in.Valid&fuse.FATTR_CTIME != 0 || in.Caller.Uid != 0
}

const selinuxXattr = "security.selinux"

func (f *filesystem) GetXAttr(_ <-chan struct{}, h *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	defer f.meter.time(opGetXattr)()
	value, err := f.vol.GetXattr(ino(h), name)
	if err == syscall.ENODATA && name == selinuxXattr {
		// ls asks for this label of every file until it hears that there are
		// none; the kernel does not remember the answer.
		err = syscall.EOPNOTSUPP
	}
	if err != nil {
		return 0, f.status("getxattr", err)
	}
	if len(dest) < len(value) {
		return uint32(len(value)), fuse.ERANGE
	}
	return uint32(copy(dest, value)), fuse.OK
}

func (f *filesystem) ListXAttr(_ <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	defer f.meter.time(opListXattr)()
	names, err := f.vol.ListXattrs(ino(h))
	if err != nil {
		return 0, f.status("listxattr", err)
	}
	if h.Uid != 0 {
		names = slices.DeleteFunc(names, func(n string) bool { return strings.HasPrefix(n, "trusted.") })
	}
	if len(names) == 0 {
		return 0, fuse.OK
	}
	list := strings.Join(names, "\x00") + "\x00"
	if len(dest) < len(list) {
		return uint32(len(list)), fuse.ERANGE
	}
	return uint32(copy(dest, list)), fuse.OK
}

func (f *filesystem) SetXAttr(_ <-chan struct{}, in *fuse.SetXAttrIn, name string, value []byte) fuse.Status {
	defer f.meter.time(opSetXattr)()
	dropSGID := in.SetXAttrFlags&fuse.SETXATTR_ACL_KILL_SGID != 0
	return f.status("setxattr", f.vol.SetXattr(ino(&in.InHeader), name, value, in.Flags, dropSGID))
}

func (f *filesystem) RemoveXAttr(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	defer f.meter.time(opRemoveXattr)()
	return f.status("removexattr", f.vol.RemoveXattr(ino(h), name))
}
