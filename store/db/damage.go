package db

import (
	"errors"
	"fmt"
	"io/fs"
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

// Unreadable is the error for a file that the disk or its owner does not let be read.
func Unreadable(file string, err error) error {
	var no syscall.Errno
	if !errors.As(err, &no) || no != syscall.EACCES && no != syscall.EPERM && no != syscall.EIO && no != syscall.ELOOP {
		return err
	}
	return &FileError{File: file, What: "cannot be read (" + no.Error() + ")", Next: "see to it that it can be read, or put it back from a copy of the store", Err: err}
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
