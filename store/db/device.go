package db

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// logDir is where the log files are; tests replace it to cut the power.
type logDir interface {
	open(name string) (logDevice, error)   // fs.ErrNotExist if there is none
	create(name string) (logDevice, error) // under another name until finish
	finish(name string) error
	sync() error
}

// logDevice is one of the files.
type logDevice interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	size() (int64, error)
	// allocate extends the file to end, if it is shorter, and gives it blocks.
	allocate(end int64) error
	truncate(size int64) error
	sync() error
}

type osDir string

func (d osDir) open(name string) (logDevice, error) { return d.openFile(name, os.O_RDWR) }

func (d osDir) create(name string) (logDevice, error) {
	f, err := createTmp(filepath.Join(string(d), name))
	if err != nil {
		return nil, err
	}
	return osDevice{f}, nil
}

func (d osDir) openFile(name string, flags int) (logDevice, error) {
	f, err := os.OpenFile(filepath.Join(string(d), name), flags, 0o600)
	if err != nil {
		return nil, err
	}
	return osDevice{f}, nil
}

func (d osDir) finish(name string) error { return renameTmp(filepath.Join(string(d), name)) }

func (d osDir) sync() error { return syncDir(string(d)) }

// readOnlyDir is an osDir whose files are only read.
type readOnlyDir struct{ osDir }

func (d readOnlyDir) open(name string) (logDevice, error) { return d.openFile(name, os.O_RDONLY) }

type osDevice struct{ *os.File }

func (f osDevice) size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// names is how many the file has; as many as one when nobody can say.
func (f osDevice) names() uint64 {
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil {
		return 1
	}
	return uint64(st.Nlink)
}

// allocate tolerates filesystems that cannot: there the write itself tells
// whether there is room.
func (f osDevice) allocate(end int64) error {
	err := unix.Fallocate(int(f.Fd()), 0, 0, end)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		err = nil
	}
	return pathError("fallocate", f.Name(), err)
}

func (f osDevice) truncate(size int64) error { return f.Truncate(size) }

func (f osDevice) sync() error { return pathError("fdatasync", f.Name(), unix.Fdatasync(int(f.Fd()))) }

func pathError(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: path, Err: err}
}

// asFull marks an error that says that the filesystem is full.
func asFull(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}
