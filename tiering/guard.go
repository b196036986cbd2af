package tiering

import (
	"bytes"
	"fmt"
	"sync"
	"time"

	"github.com/quarxtor/quarxfs/tiering/disk"
)

// A guard is a disk.FS that answers within a bounded time, whatever the one
// below does: an operation that takes longer is left to end by itself, and the
// guard is shut. A shut guard refuses everything with ErrUnavailable and stays
// shut; who wants to go on waits until it is idle and makes another. A
// disk.Remote bounds its operations itself, and is only counted.
//
// What an operation that was left reads or writes is the guard's own memory, so
// that its caller may go on with theirs.
type guard struct {
	base    disk.FS
	timeout time.Duration // 0: operations end by themselves
	mu      struct {
		sync.Mutex
		shut  error // or nil
		under int   // operations under way, those left to themselves too
	}
}

// slowFactor is how much longer than others an operation may take that works
// on many pages or names at once.
const slowFactor = 4

func newGuard(base disk.FS, timeout time.Duration) *guard {
	if _, remote := base.(disk.Remote); remote {
		timeout = 0
	}
	return &guard{base: base, timeout: timeout}
}

// close shuts the guard. The first reason is kept.
func (g *guard) close(why error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.mu.shut == nil {
		g.mu.shut = fmt.Errorf("%w: %w", ErrUnavailable, why)
	}
}

func (g *guard) reason() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.mu.shut
}

func (g *guard) idle() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.mu.under == 0
}

// enter counts an operation, unless the guard is shut and force is not set.
func (g *guard) enter(force bool) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.mu.shut != nil && !force {
		return g.mu.shut
	}
	g.mu.under++
	return nil
}

func (g *guard) leave() {
	g.mu.Lock()
	g.mu.under--
	g.mu.Unlock()
}

// outcome is what an operation brought.
type outcome[T any] struct {
	value T
	err   error
}

// guarded runs op within times timeouts of g. op must not touch the caller's
// memory.
func guarded[T any](g *guard, name string, times int, op func() (T, error)) (T, error) {
	var none T
	if err := g.enter(false); err != nil {
		return none, err
	}
	// A Remote bounds its operations itself, and needs no goroutine for each.
	if g.timeout == 0 {
		defer g.leave()
		return op()
	}
	// Room for one: an operation that was given up ends without anybody who receives.
	done := make(chan outcome[T], 1)
	go func() {
		v, err := op()
		// Counted out before it is told, so that who sees the outcome finds the guard idle.
		g.leave()
		done <- outcome[T]{v, err}
	}()
	limit := g.timeout * time.Duration(times)
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case o := <-done:
		return o.value, o.err
	case <-timer.C:
		g.close(fmt.Errorf("%s took longer than %v", name, limit))
		return none, g.reason()
	}
}

func guardedErr(g *guard, name string, times int, op func() error) error {
	_, err := guarded(g, name, times, func() (struct{}, error) { return struct{}{}, op() })
	return err
}

func (g *guard) MkdirAll(dir string) error {
	return guardedErr(g, "mkdir", 1, func() error { return g.base.MkdirAll(dir) })
}

func (g *guard) List(dir string) ([]disk.Info, error) {
	return guarded(g, "list", slowFactor, func() ([]disk.Info, error) { return g.base.List(dir) })
}

func (g *guard) Create(path string) (disk.File, error) {
	return g.file("create", func() (disk.File, error) { return g.base.Create(path) })
}

func (g *guard) Open(path string) (disk.File, error) {
	return g.file("open", func() (disk.File, error) { return g.base.Open(path) })
}

func (g *guard) file(name string, open func() (disk.File, error)) (disk.File, error) {
	f, err := guarded(g, name, 1, open)
	if err != nil {
		return nil, err
	}
	return &guardedFile{g, f}, nil
}

func (g *guard) Rename(from, to string) error {
	return guardedErr(g, "rename", 1, func() error { return g.base.Rename(from, to) })
}

func (g *guard) Remove(path string) error {
	return guardedErr(g, "remove", slowFactor, func() error { return g.base.Remove(path) })
}

func (g *guard) SyncDir(dir string) error {
	return guardedErr(g, "sync of the directory", slowFactor, func() error { return g.base.SyncDir(dir) })
}

type guardedFile struct {
	g    *guard
	base disk.File
}

func (f *guardedFile) ReadAt(p []byte, off int64) (int, error) {
	if f.g.timeout == 0 {
		return guarded(f.g, "read", 1, func() (int, error) { return f.base.ReadAt(p, off) })
	}
	n := len(p)
	got, err := guarded(f.g, "read", 1, func() ([]byte, error) {
		own := make([]byte, n)
		n, err := f.base.ReadAt(own, off)
		return own[:n], err
	})
	return copy(p, got), err
}

func (f *guardedFile) WriteAt(p []byte, off int64) (int, error) {
	// The caller takes its memory back when this returns, though the write may go on.
	own := bytes.Clone(p)
	return guarded(f.g, "write", 1, func() (int, error) { return f.base.WriteAt(own, off) })
}

func (f *guardedFile) WritePairAt(head, body []byte, off int64) error {
	_, err := f.WriteAt(append(append(make([]byte, 0, len(head)+len(body)), head...), body...), off)
	return err
}

// Close also works on a shut guard. It does not wait: all that matters was
// synced before.
func (f *guardedFile) Close() error {
	// Counted, so that the guard is not idle while a file is still open.
	_ = f.g.enter(true)
	go func() {
		defer f.g.leave()
		_ = f.base.Close()
	}()
	return nil
}

func (f *guardedFile) Size() (int64, error) {
	return guarded(f.g, "stat", 1, f.base.Size)
}

func (f *guardedFile) Named(path string) (bool, error) {
	return guarded(f.g, "stat", 1, func() (bool, error) { return f.base.Named(path) })
}

func (f *guardedFile) Truncate(size int64) error {
	return guardedErr(f.g, "truncate", slowFactor, func() error { return f.base.Truncate(size) })
}

func (f *guardedFile) Preallocate(size int64) error {
	return guardedErr(f.g, "preallocate", slowFactor, func() error { return f.base.Preallocate(size) })
}

func (f *guardedFile) WriteBack(off, n int64) error {
	return guardedErr(f.g, "write back", slowFactor, func() error { return f.base.WriteBack(off, n) })
}

func (f *guardedFile) Datasync() error {
	return guardedErr(f.g, "sync", slowFactor, f.base.Datasync)
}
