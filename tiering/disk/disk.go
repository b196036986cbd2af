// Package disk is the seam between segments and the file operations they are
// made of, so that tests can record, fail and crash them. OS is the real one;
// package faultdisk has the other.
package disk

import (
	"errors"
	"io"
	"time"
)

// ErrUnreachable: a Remote FS got no answer.
var ErrUnreachable = errors.New("no answer")

// An FS is the directory operations that tiers use. Errors are those of the
// operating system: errors.Is finds fs.ErrNotExist, fs.ErrExist, syscall.ENOSPC.
type FS interface {
	// MkdirAll makes a directory and its missing parents.
	MkdirAll(dir string) error
	// List returns the regular files of a directory, in order of name.
	List(dir string) ([]Info, error)
	// Create makes a new file and opens it; it must not exist.
	Create(path string) (File, error)
	// Open opens an existing file for reading and writing.
	Open(path string) (File, error)
	Rename(from, to string) error
	Remove(path string) error
	// SyncDir makes the names in a directory durable as they are now.
	SyncDir(dir string) error
}

// A Remote is an FS whose files are elsewhere, but for those being written, which
// are in a local directory until Rename takes them there. Each operation ends within
// a bounded time, but for a Rename, which goes on for as long as bytes flow. A
// file that was taken there cannot be renamed or written any more, and Remove
// removes it in one step.
type Remote interface {
	FS
	// Interrupt makes a Rename under way, and later ones, fail.
	Interrupt()
}

// Info is what List tells about a file.
type Info struct {
	Name     string
	Size     int64
	Modified time.Time // zero when it is not known
}

// A File may be used by any number of goroutines.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// WritePairAt writes head and, right behind it, body. It allocates
	// nothing and copies neither.
	WritePairAt(head, body []byte, off int64) error
	Size() (int64, error)
	// Named reports whether path leads to this very file, and not to another one or none. As long
	// as its whole directory is away, a file that was not removed counts as there: it may come
	// back.
	Named(path string) (bool, error)
	// Truncate sets the size, and gives back what Preallocate took behind it.
	Truncate(size int64) error
	// Preallocate reserves space up to size without changing the file's size.
	// It is a hint: a file system may not know how.
	Preallocate(size int64) error
	// WriteBack starts writing a range of dirty pages to the disk. It is a
	// hint; it makes nothing durable.
	WriteBack(off, n int64) error
	// Datasync makes the file's bytes and size durable, but not its name.
	Datasync() error
}
