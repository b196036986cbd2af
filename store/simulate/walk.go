package simulate

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A walker finds files and feeds their data.
type walker struct {
	ctx    context.Context
	feeder *feeder
	o      Options
	in     Input
	linked map[inode]uint64 // files with several names: names that are still to come
	shown  time.Time
}

var errNotRegular = errors.New("it is no regular file any more")

type inode struct{ dev, ino uint64 }

// showEvery is how often Progress is called.
const showEvery = 50 * time.Millisecond

func (w *walker) roots(roots []string) error {
	for _, r := range roots {
		st, err := os.Lstat(r)
		if err != nil {
			return err
		}
		if err := w.visit(r, st, st.Sys().(*syscall.Stat_t).Dev); err != nil {
			return err
		}
	}
	return nil
}

// visit counts one file or directory; its error is the context's.
func (w *walker) visit(path string, st fs.FileInfo, dev uint64) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	sys := st.Sys().(*syscall.Stat_t)
	switch {
	case st.IsDir():
		if w.o.OneFilesystem && sys.Dev != dev {
			return nil
		}
		return w.directory(path, dev)
	case !st.Mode().IsRegular():
		w.in.Others++
	// Only files with several names are remembered, so that memory does not grow with the tree.
	case sys.Nlink > 1 && w.again(inode{sys.Dev, sys.Ino}, uint64(sys.Nlink)):
		w.in.Hardlinks++
	default:
		if err := w.file(path); err != nil {
			return w.skip(path, err)
		}
	}
	return nil
}

// again reports whether a file was met under another name. An inode is
// forgotten when its last name was met.
func (w *walker) again(i inode, names uint64) bool {
	left, met := w.linked[i]
	if !met {
		left = names
	}
	if left--; left == 0 {
		delete(w.linked, i)
	} else {
		w.linked[i] = left
	}
	return met
}

// skip reports what cannot be read. A file that is gone since its directory was
// read never was there.
func (w *walker) skip(path string, err error) error {
	if cerr := w.ctx.Err(); cerr != nil {
		return cerr
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	w.in.Skipped++
	if w.o.Skip != nil {
		w.o.Skip(path, err)
	}
	return nil
}

// directory walks in the order of the directory, some entries at a time, so
// that one with millions of names takes little memory.
func (w *walker) directory(path string, dev uint64) error {
	d, err := os.Open(path)
	if err != nil {
		return w.skip(path, err)
	}
	defer d.Close()
	w.in.Directories++
	for {
		entries, err := d.ReadDir(1024)
		for _, e := range entries {
			name := filepath.Join(path, e.Name())
			// One call for each, which the walk needs anyway to know what it is.
			st, err := e.Info()
			if err == nil {
				err = w.visit(name, st, dev)
			} else {
				err = w.skip(name, err)
			}
			if err != nil {
				return err
			}
		}
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return w.skip(path, err)
		}
	}
}

// file feeds a file's data, from one hole to the next, as a file is written
// whose holes are kept.
func (w *walker) file(path string) error {
	f, err := openQuietly(path)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return errNotRegular
	}
	w.in.Files++
	size := st.Size()
	w.in.Size += size
	if size == 0 {
		return nil // or one of the kernel's, whose bytes are made up as they are read
	}
	if st.Sys().(*syscall.Stat_t).Blocks*512 >= size {
		return w.data(f, 0, size)
	}
	return w.sparse(f, size)
}

func (w *walker) sparse(f *os.File, size int64) error {
	for end := int64(0); end < size; {
		start, err := f.Seek(end, unix.SEEK_DATA)
		if errors.Is(err, syscall.ENXIO) {
			start = size // a hole up to the end
		} else if err != nil {
			return err
		}
		start = min(start, size)
		w.in.Holes += start - end
		if start == size {
			return nil
		}
		if end, err = f.Seek(start, unix.SEEK_HOLE); err != nil {
			return err
		}
		end = min(end, size)
		if err := w.data(f, start, end); err != nil {
			return err
		}
	}
	return nil
}

// data feeds the bytes [start, end) of a file.
func (w *walker) data(f *os.File, start, end int64) error {
	n, err := w.feeder.stream(&counted{w, io.NewSectionReader(f, start, end-start)}, start)
	if short := end - start - n; err == nil && short > 0 {
		w.in.Size -= short // it was made shorter meanwhile
	}
	return err
}

// counted counts what is read and ends with the context.
type counted struct {
	w *walker
	r io.Reader
}

func (c *counted) Read(p []byte) (int, error) {
	if err := c.w.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.r.Read(p[:min(len(p), 1<<20)])
	c.w.in.Read += int64(n)
	if c.w.o.Progress != nil && time.Since(c.w.shown) >= showEvery {
		c.w.shown = time.Now()
		c.w.o.Progress(c.w.in)
	}
	return n, err
}

// openQuietly opens a file without changing its access time, where that is
// allowed, and without waiting for what a pipe's other end does.
func openQuietly(path string) (*os.File, error) {
	const flags = os.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK
	f, err := os.OpenFile(path, flags|unix.O_NOATIME, 0)
	if errors.Is(err, syscall.EPERM) {
		return os.OpenFile(path, flags, 0)
	}
	return f, err
}
