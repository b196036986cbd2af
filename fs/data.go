package fs

import (
	"context"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/quarxtor/quarxfs/fs/volume"
)

// Open refuses once, so that the kernel opens files by itself and keeps their
// pages.
func (f *filesystem) Open(_ <-chan struct{}, _ *fuse.OpenIn, _ *fuse.OpenOut) fuse.Status {
	f.meter.count(opOpen)
	return fuse.ENOSYS
}

// Create refuses once; the kernel then sends MKNOD.
func (f *filesystem) Create(_ <-chan struct{}, _ *fuse.CreateIn, _ string, _ *fuse.CreateOut) fuse.Status {
	f.meter.count(opCreate)
	return fuse.ENOSYS
}

// Flush refuses once: a WRITE has already been accepted or refused when the
// kernel, which writes pages back at close, would flush.
func (f *filesystem) Flush(_ <-chan struct{}, _ *fuse.FlushIn) fuse.Status {
	f.meter.count(opFlush)
	return fuse.ENOSYS
}

func (f *filesystem) Read(_ <-chan struct{}, in *fuse.ReadIn, _ []byte) (fuse.ReadResult, fuse.Status) {
	defer f.meter.time(opRead)()
	vec, err := f.vol.Read(context.Background(), ino(&in.InHeader), int64(in.Offset), int(in.Size))
	if err != nil {
		return nil, f.status("read", err)
	}
	return fuse.ReadResultVector(vec), fuse.OK
}

func (f *filesystem) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	defer f.meter.time(opWrite)()
	err := f.vol.Write(ino(&in.InHeader), int64(in.Offset), data, volume.WriteMode{
		Cached:   in.WriteFlags&fuse.WRITE_CACHE != 0,
		KillPriv: in.WriteFlags&fuse.WRITE_KILL_SUIDGID != 0,
	})
	if err != nil {
		return 0, f.status("write", err)
	}
	return uint32(len(data)), fuse.OK
}

func (f *filesystem) Fsync(_ <-chan struct{}, _ *fuse.FsyncIn) fuse.Status {
	defer f.meter.time(opFsync)()
	return f.status("fsync", f.vol.Sync())
}

func (f *filesystem) FsyncDir(_ <-chan struct{}, _ *fuse.FsyncIn) fuse.Status {
	defer f.meter.time(opFsyncDir)()
	return f.status("fsyncdir", f.vol.Sync())
}

func (f *filesystem) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	defer f.meter.time(opFallocate)()
	return f.status("fallocate", f.vol.Fallocate(ino(&in.InHeader), int64(in.Offset), int64(in.Length), in.Mode))
}

func (f *filesystem) Lseek(_ <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	defer f.meter.time(opLseek)()
	off, err := f.vol.Seek(ino(&in.InHeader), int64(in.Offset), in.Whence)
	out.Offset = uint64(off)
	return f.status("lseek", err)
}

// maxCopy is the most that one reply can count, in whole pages.
const maxCopy = 1<<32 - 4096

func (f *filesystem) CopyFileRange(_ <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	defer f.meter.time(opCopyFileRange)()
	n, err := f.vol.CopyRange(ino(&in.InHeader), int64(in.OffIn), volume.Ino(in.NodeIdOut), int64(in.OffOut), int64(min(in.Len, maxCopy)))
	return uint32(n), f.status("copy_file_range", err)
}

// Ioctl knows none.
func (f *filesystem) Ioctl(_ <-chan struct{}, _ *fuse.IoctlIn, _ []byte, _ *fuse.IoctlOut, _ []byte) fuse.Status {
	f.meter.count(opIoctl)
	return fuse.Status(25) // ENOTTY
}
