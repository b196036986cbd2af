package fs

import (
	"context"
	"errors"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/quarxtor/quarxfs/fs/volume"
)

// errnos says what the kernel is told for errors that are no errno themselves.
var errnos = []struct {
	err   error
	errno syscall.Errno
	log   bool // it is worth a line in the log
}{
	{volume.ErrFull, syscall.ENOSPC, false},
	{volume.ErrReadOnly, syscall.EROFS, false},
	{volume.ErrCorrupt, syscall.EIO, true},
	{volume.ErrMissing, syscall.EIO, true},
	{volume.ErrNameTaken, syscall.EEXIST, false},
	{volume.ErrHeld, syscall.EBUSY, false},
	{volume.ErrName, syscall.EINVAL, false},
	{context.Canceled, syscall.EINTR, false}, // by the kernel, for a caller that is being killed
}

// status turns an error into the kernel's errno. An error without a row in the
// table is EIO. What is logged is logged once with its chain.
func (f *filesystem) status(op string, err error) fuse.Status {
	if err == nil {
		return fuse.OK
	}
	for _, row := range errnos {
		if errors.Is(err, row.err) {
			if row.log {
				f.logOnce(op, err)
			}
			return fuse.Status(row.errno)
		}
	}
	// An errno by itself is the volume's answer; one within another error is that of the disk
	// below.
	var errno syscall.Errno
	if e, ok := err.(syscall.Errno); ok {
		return fuse.Status(e)
	}
	// A full disk is told as what it is; whatever else a lower layer said is no errno of this call.
	f.logOnce(op, err)
	if errors.As(err, &errno) && errno == syscall.ENOSPC {
		return fuse.Status(errno)
	}
	return fuse.EIO
}

// maxLogged bounds the memory of logOnce.
const maxLogged = 10000

func (f *filesystem) logOnce(op string, err error) {
	text := op + ": " + err.Error()
	if f.loggedCount.Load() > maxLogged {
		return
	}
	if _, seen := f.logged.LoadOrStore(text, true); seen {
		return
	}
	f.loggedCount.Add(1)
	f.log.Error("request failed", "op", op, "err", err)
}
