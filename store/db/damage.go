package db

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"syscall"
)

// A FileError says which file is not what it must be, and what to do. It is ErrCorrupt.
type FileError struct {
	File string
	What string // is wrong
	Next string // to be done; empty: what the database's owner says
	Err  error  // the disk's, or nil
}

func (e *FileError) Error() string {
	if e.Next == "" {
		return e.File + " " + e.What
	}
	return e.File + " " + e.What + ": " + e.Next
}

// Unwrap makes it ErrCorrupt, and the disk's error.
func (e *FileError) Unwrap() []error {
	if e.Err == nil {
		return []error{ErrCorrupt}
	}
	return []error{ErrCorrupt, e.Err}
}

// Refused reports whether an error is the system's and proves nothing of the file that it is about:
// a full disk, a failing one, a limit of the process.
func Refused(err error) bool {
	no, ok := errors.AsType[syscall.Errno](err)
	return ok && !slices.Contains([]syscall.Errno{
		syscall.ENOENT, syscall.ENOTDIR, syscall.EISDIR, syscall.ELOOP, syscall.ENXIO, syscall.EACCES, syscall.EPERM,
	}, no)
}

// Unreadable is what an error of the system says of a file. That a file may not be read, or is a
// link, is a fault of the file, which stays until somebody mends it. What was refused is no damage:
// who followed its advice would lose the live tree.
func Unreadable(file string, err error) error {
	no, ok := errors.AsType[syscall.Errno](err)
	if !ok || no != syscall.EACCES && no != syscall.EPERM && no != syscall.ELOOP {
		return asFull(err)
	}
	return &FileError{File: file, What: "cannot be read (" + no.Error() + ")", Next: "see to it that it can be read, or put it back from a copy of the store", Err: err}
}

// unsound is the error for a file or directory that Badger does not take. Badger keeps only the
// text of most errors of the system, so look does by itself what Badger does, and finds them again.
// Only what could be read can be damaged.
func unsound(name, what string, cause error, look func() error) error {
	if _, ok := errors.AsType[syscall.Errno](cause); ok {
		return Unreadable(name, cause)
	}
	if err := look(); err != nil {
		return err
	}
	return damaged(name, "cannot be %s (%.500s)", what, cause)
}

// readThrough reads a file and says what the disk says to that.
func readThrough(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return Unreadable(name, err)
	}
	defer f.Close()
	_, err = f.Stat()
	if err == nil {
		_, err = io.Copy(io.Discard, f)
	}
	if err != nil {
		err = Unreadable(name, err)
	}
	return err
}

func damaged(file, format string, args ...any) error {
	return &FileError{File: file, What: fmt.Sprintf(format, args...)}
}

// Irregular is the error for what is no file where a file must be.
func Irregular(file string, mode fs.FileMode) error {
	what := "is no regular file"
	switch {
	case mode&fs.ModeSymlink != 0:
		what = "is a symbolic link, which is not followed"
	case mode.IsDir():
		what = "is a directory where a file must be"
	}
	return &FileError{File: file, What: what}
}
