// Package handle keeps directories in hand: names below one lead there whatever
// becomes of the directory's own path.
package handle

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// fds is where the kernel shows what this process has open. What is named below a
// number there is looked up from the directory that is open, not from its path:
// the path may have been given to another directory, be longer than a socket's
// address may be, or have characters that are patterns to filepath.Glob.
const fds = "/proc/self/fd/"

// A Dir is a directory that is held open until Close, although nothing may refer to the Dir
// any more: the names that Join made are good as long. An *os.File would be closed by
// the garbage collector then, and its number lead to whatever is opened next.
type Dir struct {
	fd    atomic.Int32
	given string // its absolute path when it was opened
}

// Open holds the directory at path. Errors: fs.ErrNotExist, syscall.ENOTDIR, and
// what else open(2) says.
func Open(path string) (*Dir, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	d := &Dir{given: Shown(abs)}
	d.fd.Store(int32(fd))
	if _, err := os.Lstat(d.Join()); err != nil {
		return nil, errors.Join(fmt.Errorf("hold %s: %w: is /proc mounted?", abs, err), d.Close())
	}
	return d, nil
}

// Join returns a name of a path below the directory, good until Close.
func (d *Dir) Join(elem ...string) string {
	return filepath.Join(append([]string{fmt.Sprint(fds, d.fd.Load())}, elem...)...)
}

// Path returns where the directory is now, or where it was when nobody can say.
func (d *Dir) Path() string {
	now, err := os.Readlink(d.Join())
	// The kernel marks a path that has been removed by a word that is not part of it.
	if err != nil || !strings.HasPrefix(now, "/") || strings.HasSuffix(now, " (deleted)") {
		return d.given
	}
	return now
}

// Stat describes the directory itself.
func (d *Dir) Stat() (os.FileInfo, error) { return os.Stat(d.Join()) }

// Close lets go of the directory.
func (d *Dir) Close() error {
	fd := d.fd.Swap(-1)
	if fd < 0 {
		return os.ErrClosed // the number may be another file's by now
	}
	return unix.Close(int(fd))
}

var held = regexp.MustCompile(regexp.QuoteMeta(fds) + `\d+`)

// Shown returns text with the paths in it that lead through handles as people
// know them. The handles must be open still.
func Shown(text string) string {
	if !strings.Contains(text, fds) {
		return text
	}
	return held.ReplaceAllStringFunc(text, func(name string) string {
		if path, err := os.Readlink(name); err == nil && strings.HasPrefix(path, "/") {
			return path
		}
		return name
	})
}

// ShownError returns err with the text that Shown makes of its own, now.
func ShownError(err error) error {
	if err == nil || !strings.Contains(err.Error(), fds) {
		return err
	}
	e := &shownError{err: err, text: Shown(err.Error())}
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		e.path = &fs.PathError{Op: p.Op, Path: Shown(p.Path), Err: p.Err}
	}
	return e
}

type shownError struct {
	err  error
	text string
	path *fs.PathError // the one in err, with its path as it was when the handle was open
}

// As has errors.As find the path as people know it.
func (e *shownError) As(target any) bool {
	p, ok := target.(**fs.PathError)
	if ok = ok && e.path != nil; ok {
		*p = e.path
	}
	return ok
}

func (e *shownError) Error() string { return e.text }
func (e *shownError) Unwrap() error { return e.err }
