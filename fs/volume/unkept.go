package volume

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/quarxtor/quarxfs/fs/meta"
)

// unkept is what programs have written to the kernel's cache and could not be taken from there. The
// kernel tells whoever calls fsync, and drops the bytes; a program that only closes its file does
// not get to know. It has its own mutex, under which nothing else is taken.
type unkept struct {
	count atomic.Int64 // of files, so that each write that succeeds need not take the mutex
	mu    sync.Mutex
	files map[meta.Ino]meta.Ranges
	err   error // the first one's
}

// maxUnkept bounds how many files are remembered; those that come later have the same cause.
const maxUnkept = 4096

// written notes how a write of the kernel's cache ended.
func (u *unkept) written(ino meta.Ino, off int64, length int, err error) {
	switch {
	case err == nil:
		u.drop(ino, off, off+int64(length))
	// Nobody misses the bytes of what was removed.
	case !meta.IsErrno(err, syscall.ENOENT):
		u.add(ino, off, off+int64(length), err)
	}
}

func (u *unkept) add(ino meta.Ino, lo, hi int64, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.files == nil {
		u.files = make(map[meta.Ino]meta.Ranges)
	}
	r, known := u.files[ino]
	if !known && len(u.files) == maxUnkept {
		return
	}
	if u.err == nil {
		u.err = err
	}
	if r = r.With(lo, hi); len(r) > meta.MaxReserved {
		r = meta.Ranges{{Lo: r[0].Lo, Hi: r[len(r)-1].Hi}}
	}
	u.files[ino] = r
	u.count.Store(int64(len(u.files)))
}

// drop forgets a range: it was written again, or cut off.
func (u *unkept) drop(ino meta.Ino, lo, hi int64) {
	if u.count.Load() == 0 {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	r, known := u.files[ino]
	if !known {
		return
	}
	if r = r.Without(lo, hi); len(r) == 0 {
		delete(u.files, ino)
	} else {
		u.files[ino] = r
	}
	if u.count.Store(int64(len(u.files))); len(u.files) == 0 {
		u.err = nil
	}
}

// all returns the files, and why the first one's bytes were refused.
func (u *unkept) all() ([]meta.Ino, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Sorted(maps.Keys(u.files)), u.err
}

// Unkept is nil, or an error that names the files of which written bytes could not be kept, though
// a program may believe that they were: it has not asked with fsync. It is asked after the last
// commit.
func (v *Volume) Unkept() error {
	inodes, err := v.unkept.all()
	held, herr := v.flusher.held.last()
	if inodes = append(inodes, held...); err == nil {
		err = herr
	}
	paths := make(map[string]bool)
	for _, ino := range inodes {
		if a, perr := v.Peek(ino); perr == nil && a.Nlink > 0 {
			paths[v.tree.pathOf(ino)] = true
		}
	}
	if len(paths) == 0 {
		return nil
	}
	return fmt.Errorf("not kept: what was written to %s: %w", listNames(slices.Sorted(maps.Keys(paths))), err)
}

// forgetCut is told that a file ends at size now.
func (u *unkept) forgetCut(ino meta.Ino, size int64) { u.drop(ino, size, math.MaxInt64) }
