package meta

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// IsErrno reports whether an error is an errno of the filesystem's own, such as ENOENT of a name or
// an inode that is not there. The system says the same of the store's files when they are gone, and
// that is an error of the store.
func IsErrno(err error, no syscall.Errno) bool {
	if _, ok := errors.AsType[*fs.PathError](err); ok {
		return false
	}
	if _, ok := errors.AsType[*os.SyscallError](err); ok {
		return false
	}
	if _, ok := errors.AsType[*os.LinkError](err); ok {
		return false
	}
	return errors.Is(err, no)
}
