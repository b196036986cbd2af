package disk

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// OS returns the operating system's file operations.
func OS() FS { return osFS{} }

type osFS struct{}

func (osFS) MkdirAll(dir string) error    { return os.MkdirAll(dir, 0o700) }
func (osFS) Rename(from, to string) error { return os.Rename(from, to) }
func (osFS) Remove(path string) error     { return os.Remove(path) }

func (osFS) List(dir string) ([]Info, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	infos := make([]Info, 0, len(entries))
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return nil, err
		}
		if info.Mode().IsRegular() {
			infos = append(infos, Info{Name: e.Name(), Size: info.Size(), Modified: info.ModTime()})
		}
	}
	return infos, nil
}

func (osFS) Create(path string) (File, error) {
	return openFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL)
}

func (osFS) Open(path string) (File, error) {
	return openFile(path, os.O_RDWR)
}

func openFile(path string, flags int) (File, error) {
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return nil, err
	}
	file := &osFile{File: f, fd: int(f.Fd())}
	same, err := file.is(path)
	file.named = err == nil && same && file.names() > 0
	return file, nil
}

func (osFS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if closeErr := d.Close(); err == nil {
		err = closeErr
	}
	return err
}

// An osFile keeps the descriptor beside the os.File, which owns it.
type osFile struct {
	*os.File
	fd int
	// named: the filesystem counts names, and tells files apart by their numbers. So it means
	// something when there is no name any more, or another file's number.
	named bool
}

func (f *osFile) WritePairAt(head, body []byte, off int64) error {
	n, err := unix.Pwritev(f.fd, [][]byte{head, body}, off)
	for errors.Is(err, unix.EINTR) {
		n, err = unix.Pwritev(f.fd, [][]byte{head, body}, off)
	}
	if err != nil {
		return &os.PathError{Op: "pwritev", Path: f.Name(), Err: err}
	}
	if n == len(head)+len(body) {
		return nil
	}
	// A short write is a signal or a disk that is just full; going on tells which.
	if n < len(head) {
		if _, err := f.WriteAt(head[n:], off+int64(n)); err != nil {
			return err
		}
		n = len(head)
	}
	_, err = f.WriteAt(body[n-len(head):], off+int64(n))
	return err
}

func (f *osFile) Size() (int64, error) {
	var st unix.Stat_t // on the stack: it is asked before each append
	err := retry(func() error { return unix.Fstat(f.fd, &st) })
	return st.Size, pathError("fstat", f.Name(), err)
}

func (f *osFile) Named(path string) (bool, error) {
	if !f.named {
		return true, nil // nobody can say
	}
	return f.is(path)
}

// is compares the file with what is at path, as Named says. A link there is another file.
func (f *osFile) is(path string) (bool, error) {
	var own, there unix.Stat_t
	if err := retry(func() error { return unix.Fstat(f.fd, &own) }); err != nil {
		return false, pathError("fstat", f.Name(), err)
	}
	err := retry(func() error { return unix.Lstat(path, &there) })
	if errors.Is(err, unix.ENOENT) {
		err = retry(func() error { return unix.Lstat(filepath.Dir(path), &there) })
		if errors.Is(err, unix.ENOENT) {
			return own.Nlink > 0, nil
		}
		return false, pathError("lstat", filepath.Dir(path), err)
	}
	return own.Dev == there.Dev && own.Ino == there.Ino, pathError("lstat", path, err)
}

func (f *osFile) Preallocate(size int64) error {
	err := retry(func() error { return unix.Fallocate(f.fd, unix.FALLOC_FL_KEEP_SIZE, 0, size) })
	return pathError("fallocate", f.Name(), err)
}

func (f *osFile) WriteBack(off, n int64) error {
	return pathError("sync_file_range", f.Name(), unix.SyncFileRange(f.fd, off, n, unix.SYNC_FILE_RANGE_WRITE))
}

// Datasync fails if the file was removed: what is durable in it goes when it is closed.
func (f *osFile) Datasync() error {
	err := retry(func() error { return unix.Fdatasync(f.fd) })
	if err == nil && f.named && f.names() == 0 {
		err = unix.ENOENT
	}
	return pathError("fdatasync", f.Name(), err)
}

// names is how many the file has; as many as one when nobody can say.
func (f *osFile) names() uint64 {
	var st unix.Stat_t
	if unix.Fstat(f.fd, &st) != nil {
		return 1
	}
	return uint64(st.Nlink)
}

func pathError(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: path, Err: err}
}

func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
