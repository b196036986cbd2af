package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/minio/minio-go/v7"

	"github.com/quarxtor/quarxfs/tiering/disk"
)

// A file is one in the spool or an object, and goes from the first to the second
// when it is renamed.
type file struct {
	fs   *FS
	name string // of the object, once it is one
	mu   sync.RWMutex
	disk disk.File // in the spool; nil: an object
	size int64     // of the object
	head []byte    // its first bytes
}

// headSize is how much is read to see whether an object is there: enough for a
// segment's header and for a tier's marker.
const headSize = 256

var errReadOnly = errors.New("an object does not change")

// Create makes a file in the spool.
func (f *FS) Create(name string) (disk.File, error) {
	d, err := f.c.Local.Create(f.spool(name))
	if err != nil {
		return nil, err
	}
	return f.enter(name, d), nil
}

// Open opens a file in the spool for reading and writing, or an object for reading.
func (f *FS) Open(name string) (disk.File, error) {
	d, err := f.c.Local.Open(f.spool(name))
	if err == nil {
		return f.enter(name, d), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	o := &file{fs: f, name: filepath.Base(name), head: make([]byte, headSize)}
	n, size, err := f.read(o.name, o.head, 0)
	if err != nil {
		return nil, err
	}
	o.head, o.size = o.head[:n], size
	return o, nil
}

// enter notes that a file in the spool is open.
func (f *FS) enter(name string, d disk.File) *file {
	o := &file{fs: f, disk: d}
	f.mu.Lock()
	defer f.mu.Unlock()
	name = filepath.Base(name)
	if f.mu.open[name] == nil {
		f.mu.open[name] = map[*file]struct{}{}
	}
	f.mu.open[name][o] = struct{}{}
	return o
}

// leave takes the files of one name, or one file, out of the list.
func (f *FS) leave(name string, only *file) (left []*file) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for n, files := range f.mu.open {
		for o := range files {
			if n == name || o == only {
				left = append(left, o)
				delete(files, o)
			}
		}
		if len(files) == 0 {
			delete(f.mu.open, n)
		}
	}
	return left
}

// become makes the file an object.
func (o *file) become(name string, size int64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	d := o.disk
	o.disk, o.name, o.size = nil, name, size
	if d == nil {
		return nil
	}
	return d.Close()
}

func (o *file) ReadAt(p []byte, off int64) (int, error) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if o.disk != nil {
		return o.disk.ReadAt(p, off)
	}
	return o.readObject(p, off)
}

func (o *file) readObject(p []byte, off int64) (int, error) {
	want := p[:max(0, min(int64(len(p)), o.size-off))]
	if off+int64(len(want)) <= int64(len(o.head)) {
		copy(want, o.head[off:])
	} else if len(want) > 0 {
		n, size, err := o.fs.read(o.name, want, off)
		if err == nil && (size != o.size || n < len(want)) {
			err = fmt.Errorf("%s: it had %d bytes and now has %d", o.name, o.size, size)
		}
		if err != nil {
			return 0, err
		}
	}
	if len(want) < len(p) {
		return len(want), io.EOF
	}
	return len(want), nil
}

// read fills p from an object, as far as that reaches, and returns the size of
// the object. A body that breaks off is asked for anew.
func (f *FS) read(name string, p []byte, off int64) (n int, size int64, err error) {
	whole, _, done := patience(context.Background(), 0, f.c.Timeout/2)
	defer done()
	for range retries {
		if n, size, err = f.readOnce(whole, name, p, off); err == nil || whole.Err() != nil || !errors.Is(err, errBroken) {
			break
		}
	}
	if errors.Is(err, errBroken) || whole.Err() != nil && err != nil {
		return 0, 0, f.fail(whole, "read", name, err)
	}
	return n, size, err
}

var errBroken = errors.New("the answer broke off")

func (f *FS) readOnce(ctx context.Context, name string, p []byte, off int64) (int, int64, error) {
	ctx, touch, done := patience(ctx, f.c.Timeout/4, 0)
	defer done()
	var o minio.GetObjectOptions
	if err := o.SetRange(off, off+int64(len(p))-1); err != nil {
		return 0, 0, err
	}
	body, _, header, err := f.core.GetObject(ctx, f.bucket, f.key(name), o)
	if err != nil {
		err = f.fail(ctx, "read", name, err)
		if context.Cause(ctx) != nil {
			err = fmt.Errorf("%w: %w", errBroken, err)
		}
		return 0, 0, err
	}
	defer body.Close()
	// A server that ignores the range sends the object from its start: those bytes must not pass
	// for the wanted ones.
	length, size, err := parseRange(header.Get("Content-Range"), off, len(p))
	if err != nil {
		return 0, 0, f.fail(ctx, "read", name, minio.ErrorResponse{Code: "InvalidAnswer", Message: err.Error(), StatusCode: 200})
	}
	for n := 0; n < length; {
		got, err := body.Read(p[n:length])
		// Patience begins anew with every byte: a slow line is no dead one.
		touch()
		if n += got; err != nil && n < length {
			return 0, 0, fmt.Errorf("%w after %d of %d bytes: %w", errBroken, n, length, err)
		}
	}
	return length, size, nil
}

// parseRange reads the header of an answer to a request for n bytes at off:
// "bytes 5-9/20".
func parseRange(s string, off int64, n int) (length int, size int64, err error) {
	bad := fmt.Errorf("a range %q for %d bytes at %d", s, n, off)
	span, total, ok := strings.Cut(strings.TrimPrefix(s, "bytes "), "/")
	first, last, dash := strings.Cut(span, "-")
	size, err = strconv.ParseInt(total, 10, 64)
	from, err1 := strconv.ParseInt(first, 10, 64)
	to, err2 := strconv.ParseInt(last, 10, 64)
	if !ok || !dash || errors.Join(err, err1, err2) != nil || from != off || size <= off || to != min(off+int64(n), size)-1 {
		return 0, 0, bad
	}
	return int(to - from + 1), size, nil
}

// spooled returns the file in the spool for a change.
func (o *file) spooled() (disk.File, error) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if o.disk == nil {
		return nil, &fs.PathError{Op: "write", Path: o.name, Err: errReadOnly}
	}
	return o.disk, nil
}

func (o *file) WriteAt(p []byte, off int64) (int, error) {
	d, err := o.spooled()
	if err != nil {
		return 0, err
	}
	return d.WriteAt(p, off)
}

func (o *file) WritePairAt(head, body []byte, off int64) error {
	d, err := o.spooled()
	if err == nil {
		err = d.WritePairAt(head, body, off)
	}
	return err
}

func (o *file) Truncate(size int64) error {
	d, err := o.spooled()
	if err == nil {
		err = d.Truncate(size)
	}
	return err
}

func (o *file) Datasync() error {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if o.disk == nil {
		return nil // it was durable before it became an object
	}
	return o.disk.Datasync()
}

func (o *file) Preallocate(size int64) error {
	d, err := o.spooled()
	if err == nil {
		err = d.Preallocate(size)
	}
	return err
}

func (o *file) WriteBack(off, n int64) error {
	d, err := o.spooled()
	if err == nil {
		err = d.WriteBack(off, n)
	}
	return err
}

func (o *file) Size() (int64, error) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if o.disk != nil {
		return o.disk.Size()
	}
	return o.size, nil
}

// Named is about the spool only: an object is no file that is held.
func (o *file) Named(name string) (bool, error) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if o.disk == nil {
		return true, nil
	}
	return o.disk.Named(o.fs.spool(name))
}

func (o *file) Close() error {
	o.fs.leave("", o)
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.disk == nil {
		return nil
	}
	return o.disk.Close()
}
