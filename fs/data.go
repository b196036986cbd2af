package fs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

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

func (f *filesystem) Read(cancel <-chan struct{}, in *fuse.ReadIn, _ []byte) (fuse.ReadResult, fuse.Status) {
	defer f.meter.time(opRead)()
	read := f.vol.Read
	if in.Flags&syscall.O_NOATIME != 0 {
		read = f.vol.ReadNoAtime
	}
	a, err := read(interruptible{context.Background(), cancel}, ino(&in.InHeader), int64(in.Offset), int(in.Size))
	if errors.Is(err, context.Canceled) && !dying(in.Pid) {
		// Programs expect no EINTR of a file. This joins the read that was left.
		a, err = read(context.Background(), ino(&in.InHeader), int64(in.Offset), int(in.Size))
	}
	if err != nil {
		return nil, f.status("read", err)
	}
	return &answer{fuse.ReadResultVector(a.Slices), a}, fuse.OK
}

// An interruptible context ends when the kernel interrupts a request.
type interruptible struct {
	context.Context
	cancel <-chan struct{}
}

func (i interruptible) Done() <-chan struct{} { return i.cancel }

func (i interruptible) Err() error {
	select {
	case <-i.cancel:
		return context.Canceled
	default:
		return nil
	}
}

// dying reports whether a thread is being killed. The kernel interrupts a request for any signal
// that has a handler, too, and does not say which it was.
func dying(thread uint32) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", thread))
	if err != nil {
		return false // of another namespace
	}
	return killPending(string(b))
}

// killPending finds SIGKILL among the pending signals in a thread's status, where the kernel puts
// it for each signal that ends the process.
func killPending(status string) bool {
	for line := range strings.Lines(status) {
		rest, ok := strings.CutPrefix(line, "SigPnd:")
		if !ok {
			continue
		}
		pending, err := strconv.ParseUint(strings.TrimSpace(rest), 16, 64)
		return err == nil && pending&(1<<(syscall.SIGKILL-1)) != 0
	}
	return false
}

// An answer to READ gives its memory back when the kernel has the bytes.
type answer struct {
	fuse.ReadResult
	volume.Answer
}

// Slices implements what go-fuse asks of a result that has its bytes in memory.
func (a *answer) Slices() ([][]byte, fuse.Status) { return a.Answer.Slices, fuse.OK }

// Done implements fuse.ReadResult.
func (a *answer) Done() { a.Answer.Done() }

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

func (f *filesystem) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	defer f.meter.time(opFsync)()
	return f.status("fsync", f.vol.SyncFile(ino(&in.InHeader)))
}

func (f *filesystem) FsyncDir(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	defer f.meter.time(opFsyncDir)()
	return f.status("fsyncdir", f.vol.SyncFile(ino(&in.InHeader)))
}

func (f *filesystem) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	defer f.meter.time(opFallocate)()
	return f.status("fallocate", f.vol.Fallocate(ino(&in.InHeader), int64(in.Offset), int64(in.Length), in.Mode))
}

func (f *filesystem) Lseek(_ <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	defer f.meter.time(opLseek)()
	off, err := f.seek(ino(&in.InHeader), int64(in.Offset), in.Whence)
	out.Offset = uint64(off)
	return f.status("lseek", err)
}

// seekTries bounds how long seek follows a writer that keeps adding data.
const seekTries = 1000

// seek asks the volume, and before it believes in a hole has the kernel write
// back what it may hold there: the kernel sends LSEEK without doing so, and a
// hole reported over unwritten data is data that cp and tar lose.
func (f *filesystem) seek(ino volume.Ino, off int64, whence uint32) (int64, error) {
	for range seekTries {
		at, err := f.vol.Seek(ino, off, whence)
		if err != nil && err != syscall.ENXIO {
			return at, err
		}
		lo, n := holeClaimed(off, at, whence, err)
		if n < 0 {
			return at, nil
		}
		f.writeBack(ino, lo, n)
		// Written back pages have changed the answer: then it is asked again, and its own hole is
		// looked into.
		again, err2 := f.vol.Seek(ino, off, whence)
		if again == at && err2 == err {
			return at, err
		}
	}
	if whence == unix.SEEK_DATA {
		return off, nil // what may be data is data
	}
	return f.vol.Seek(ino, off, whence)
}

// holeClaimed returns where the answer at and err to a seek from off says that
// a hole is: n bytes from lo, 0 for all that follows, negative for nowhere.
func holeClaimed(off, at int64, whence uint32, err error) (lo, n int64) {
	switch {
	case err != nil:
		return off, 0
	case whence == unix.SEEK_DATA && at == off:
		return 0, -1
	case whence == unix.SEEK_DATA:
		return off, at - off
	}
	return at, maxRequest
}

// writeBack makes the kernel write back and drop the pages that it caches of n
// bytes from off; 0 stands for all that follow. The kernel may hold the inode's
// lock for the request that is being answered, as it does for LSEEK and
// SETXATTR: writing pages back does not need it. No lock of ours may be held.
func (f *filesystem) writeBack(ino volume.Ino, off, n int64) {
	if f.server == nil {
		return
	}
	if st := f.server.InodeNotify(uint64(ino), off, n); !st.Ok() && st != fuse.ENOENT {
		f.log.Debug("the kernel did not write pages back", "inode", uint64(ino), "status", st)
	}
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
	return fuse.Status(syscall.ENOTTY)
}
