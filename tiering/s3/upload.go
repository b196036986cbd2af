package s3

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"github.com/minio/minio-go/v7"

	"github.com/quarxtor/quarxfs/tiering/disk"
)

// Rename makes a file of the spool an object. It must be synced. An object that is
// there already must have the same bytes: fs.ErrExist. Files open under the old name
// read from the object from then on.
func (f *FS) Rename(from, to string) error {
	d, err := f.c.Local.Open(f.spool(from))
	if err != nil {
		return err
	}
	size, err := d.Size()
	if err == nil {
		err = f.place(to, d, size)
	}
	if err := errors.Join(err, d.Close()); err != nil {
		return err
	}
	// Files open for reading change over before the spool's file goes, and never miss a byte.
	for _, o := range f.leave(filepath.Base(from), nil) {
		err = errors.Join(err, o.become(filepath.Base(to), size))
	}
	// Last: until here a crash leaves the file in the spool, and the next Rename finds the object.
	if err == nil {
		err = f.c.Local.Remove(f.spool(from))
	}
	if err == nil {
		err = f.c.Local.SyncDir(f.c.Spool)
	}
	return err
}

// place sees to it that an object has the bytes of d.
func (f *FS) place(name string, d disk.File, size int64) error {
	there, err := f.stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		there, err = f.upload(name, d, size)
	} else if err == nil {
		err = f.same(name, d, size)
	}
	if err == nil && there != size {
		err = &fs.PathError{Op: "upload", Path: f.key(name), Err: fmt.Errorf("%d bytes were sent and %d are there", size, there)}
	}
	return err
}

func (f *FS) stat(name string) (int64, error) {
	ctx, _, done := patience(f.up, 0, f.c.Timeout/2)
	defer done()
	info, err := f.core.StatObject(ctx, f.bucket, f.key(name), minio.StatObjectOptions{})
	return info.Size, f.fail(ctx, "stat", name, err)
}

// upload sends the bytes of d, each request with an MD5 that the server checks (every
// server can; trailing CRC32C of minio-go 7.4.1 versitygw 1.8.0 takes for wrong), and
// returns how many are there. If-None-Match keeps it from replacing what somebody else
// has put there since it was looked for; a server that does not know it says
// so or passes it over.
func (f *FS) upload(name string, d disk.File, size int64) (int64, error) {
	answer, err := f.send(name, d, size, true)
	switch {
	case answer.Code == minio.NotImplemented:
		_, err = f.send(name, d, size, false)
	case answer.Code == minio.PreconditionFailed || answer.Code == "ConditionalRequestConflict":
		err = f.same(name, d, size)
	}
	if err != nil {
		return 0, err
	}
	return f.stat(name)
}

func (f *FS) send(name string, d disk.File, size int64, once bool) (answer minio.ErrorResponse, err error) {
	ctx, touch, done := patience(f.up, uploadPatience*f.c.Timeout, 0)
	defer done()
	o := minio.PutObjectOptions{
		ContentType: "application/octet-stream", SendContentMd5: true, PartSize: partSize,
	}
	if once {
		o.SetMatchETagExcept("*")
	}
	_, err = f.core.Client.PutObject(ctx, f.bucket, f.key(name), newSource(d, size, touch), size, o)
	errors.As(err, &answer)
	return answer, f.fail(ctx, "upload", name, err)
}

// A source is a file to be uploaded.
type source struct {
	*io.SectionReader
	touch func()
}

func newSource(d io.ReaderAt, size int64, touch func()) source {
	return source{io.NewSectionReader(d, 0, size), touch}
}

func (s source) Read(p []byte) (int, error) {
	s.touch()
	return s.SectionReader.Read(p)
}

func (s source) ReadAt(p []byte, off int64) (int, error) {
	s.touch()
	return s.SectionReader.ReadAt(p, off)
}

// same compares an object with d. fs.ErrExist: it differs.
func (f *FS) same(name string, d disk.File, size int64) error {
	differs := &fs.PathError{Op: "upload", Path: f.key(name), Err: fmt.Errorf("%w with other bytes", fs.ErrExist)}
	const step = 4 << 20
	mine, theirs := make([]byte, min(size, step)), make([]byte, min(size, step))
	for off := int64(0); off < size; off += step {
		n := min(step, size-off)
		// Comparing reads all of a segment over the network: Interrupt must not wait for it.
		if err := f.up.Err(); err != nil {
			return err
		}
		if _, err := d.ReadAt(mine[:n], off); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		got, there, err := f.read(name, theirs[:n], off)
		if err != nil {
			return err
		}
		if there != size || !bytes.Equal(mine[:n], theirs[:got]) {
			return differs
		}
	}
	return nil
}
