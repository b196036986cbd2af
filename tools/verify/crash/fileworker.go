package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/tools/verify/crash/history"
)

// A fileWorker appends, overwrites, renames, creates and unlinks in a few
// directories. An ordered one writes with O_DIRECT, so that each call has
// reached the daemon when it returns and the whole directory can be held to
// one instant; a paged one writes through the page cache.
type fileWorker struct {
	common
	ordered bool
	base    history.State
	now     history.State // what the worker has made of base
	ops     []history.Op
	open    map[string]*os.File
	match   history.Match // of the last judge, ordered only
	buf     []byte        // aligned, for O_DIRECT
}

const (
	maxFiles = 8
	maxSize  = 192 << 10
	maxWrite = 64 << 10 // under the smallest max_write in use, so one WRITE
)

func newFileWorker(kind string, id int, mount string, seed uint64, log *ackLog) *fileWorker {
	buf := make([]byte, maxWrite+history.PageSize)
	// O_DIRECT wants memory on a page's bound.
	if over := int(uintptr(unsafe.Pointer(&buf[0])) % history.PageSize); over > 0 {
		buf = buf[history.PageSize-over:]
	}
	return &fileWorker{
		common: newCommon(kind, id, mount, seed, log), ordered: kind == "ordered",
		open: map[string]*os.File{}, buf: buf[:maxWrite],
	}
}

func (w *fileWorker) prepare() error {
	return makeDirs(w.dir, w.path("d0"), w.path("d1"))
}

func (w *fileWorker) counts() (int, int) { return len(w.ops), w.fsyncs }

func (w *fileWorker) evidence() any { return map[string]any{"base": sizes(w.base), "ops": w.ops} }

func (w *fileWorker) at(cut history.Cut) worker {
	c := *w
	// No open files: those are of the filesystem that the image was taken from.
	c.ops, c.open = cut.Ops(w.ops), map[string]*os.File{}
	return &c
}

func sizes(s history.State) map[string]string {
	m := map[string]string{}
	for name, content := range s {
		m[name] = fmt.Sprintf("%d bytes, %016x", len(content), history.Sum(content))
	}
	return m
}

func (w *fileWorker) judge(round int) error {
	seen, err := readState(w.dir)
	if err != nil {
		return err
	}
	if w.base != nil {
		// Each call of an ordered worker reached the daemon in order; the pages of the other may
		// have come in any.
		if w.ordered {
			w.match, err = history.Ordered(w.base, w.ops, seen)
		} else {
			err = history.Paged(w.base, w.ops, seen)
		}
		if err != nil {
			return err
		}
	}
	w.base, w.now = seen, seen.Clone()
	return nil
}

// begin starts a new history, once all workers have been judged together.
func (w *fileWorker) begin(round int) {
	w.round, w.ops, w.tags, w.fsyncs = round, nil, 0, 0
}

func (w *fileWorker) timeline() history.Timeline {
	return history.Timeline{Name: w.name(), Ops: w.ops, Match: w.match}
}

func (w *fileWorker) work(ctx context.Context) error {
	defer func() {
		for name, f := range w.open {
			_ = f.Close() // of a dead filesystem, as a rule
			delete(w.open, name)
		}
	}()
	for ctx.Err() == nil {
		if err := w.step(w.choose()); err != nil {
			return err
		}
	}
	return nil
}

// choose picks an operation that is valid now.
func (w *fileWorker) choose() history.Op {
	name, exists := w.pick()
	if !exists {
		return history.Op{Kind: history.Create, Path: name}
	}
	switch n := w.rng.IntN(100); {
	// 8 % fsyncs: often enough that most rounds promise something, seldom enough that much is not
	// promised.
	case n < 8:
		return history.Op{Kind: history.Fsync, Path: name}
	case n < 11:
		return history.Op{Kind: history.FsyncDir, Path: []string{"", "d0", "d1"}[w.rng.IntN(3)]}
	case n < 18:
		return w.chooseRename(name)
	case n < 22:
		return history.Op{Kind: history.Unlink, Path: name}
	case n < 26:
		return w.chooseDir()
	// Not for paged ones, whose judge cannot tell the pages of two lengths apart.
	case n < 32 && w.ordered:
		return history.Op{Kind: history.Truncate, Path: name, Len: w.rng.Int64N(int64(len(w.now[name])) + history.PageSize)}
	}
	return w.chooseWrite(name)
}

// pick returns a file's name, new or old.
func (w *fileWorker) pick() (name string, exists bool) {
	name = []string{"", "d0/", "d1/"}[w.rng.IntN(3)] + fmt.Sprintf("f%d", w.rng.IntN(maxFiles/3+1))
	_, exists = w.now[name]
	return name, exists
}

func (w *fileWorker) chooseRename(from string) history.Op {
	for {
		if to, _ := w.pick(); to != from {
			return history.Op{Kind: history.Rename, Path: from, To: to}
		}
	}
}

func (w *fileWorker) chooseDir() history.Op {
	name := fmt.Sprintf("e%d/", w.rng.IntN(3))
	if _, exists := w.now[name]; exists {
		return history.Op{Kind: history.Rmdir, Path: name}
	}
	return history.Op{Kind: history.Mkdir, Path: name}
}

// chooseWrite appends in half of the cases and overwrites in the other. Paged
// writes leave no gap, so that no page of a file is zero by the worker's will.
func (w *fileWorker) chooseWrite(name string) history.Op {
	size := int64(len(w.now[name]))
	op := history.Op{Kind: history.Write, Path: name, Off: size, Len: int64(w.between(1, maxWrite)), Tag: w.tag()}
	// Overwrite also what has grown too large, or a file would end at maxSize and only be read.
	if size > 0 && (w.chance(50) || size > maxSize-maxWrite) {
		op.Off = w.rng.Int64N(size)
	}
	if w.ordered {
		op.Off -= op.Off % history.PageSize
		op.Len = min(maxWrite, (op.Len+history.PageSize-1)/history.PageSize*history.PageSize)
		// Tag 0 is zeroes, which the store keeps as a hole.
		if w.chance(5) {
			op.Tag = 0
		}
	}
	// A write has a byte at least, also at the very end of the largest file.
	op.Len = max(min(op.Len, maxSize-op.Off), 1)
	return op
}

// step does op, keeps its place in the history, and for an fsync checks and
// logs what was promised.
func (w *fileWorker) step(op history.Op) error {
	if op.Kind == history.Fsync {
		// Read before it is promised: what the fsync makes durable must be what was written.
		if err := readBack(w.path(op.Path), w.now[op.Path]); err != nil {
			return err
		}
	}
	// In the history before the call, since a crash may come at any moment of it; without End it is
	// not promised.
	op.Start = clock()
	w.ops = append(w.ops, op)
	if err := w.do(op); err != nil {
		return fmt.Errorf("%v: %w", op, err)
	}
	w.ops[len(w.ops)-1].End = clock()
	w.now.Apply(op)
	switch op.Kind {
	case history.Fsync:
		content := w.now[op.Path]
		return w.acknowledged(ack{Op: len(w.ops), Path: op.Path, Len: len(content), Sum: strconv.FormatUint(history.Sum(content), 16)})
	case history.FsyncDir:
		return w.acknowledged(ack{Op: len(w.ops), Path: op.Path + "/"})
	}
	return nil
}

func (w *fileWorker) do(op history.Op) error {
	name := w.path(op.Path)
	switch op.Kind {
	case history.Create:
		f, err := w.openFile(op.Path, os.O_CREATE|os.O_EXCL)
		if err == nil {
			w.open[op.Path] = f
		}
		return err
	case history.Write:
		return w.write(op)
	case history.Truncate:
		return os.Truncate(name, op.Len)
	case history.Rename:
		// Files are known here by name: after the rename the descriptors would belong to other
		// names.
		if err := errors.Join(w.close(op.Path), w.close(op.To)); err != nil {
			return err
		}
		return os.Rename(name, w.path(op.To))
	case history.Unlink:
		return errors.Join(w.close(op.Path), unix.Unlink(name))
	case history.Mkdir:
		return os.Mkdir(strings.TrimSuffix(name, "/"), 0o755)
	case history.Rmdir:
		return unix.Rmdir(strings.TrimSuffix(name, "/"))
	case history.Fsync:
		f, err := w.file(op.Path)
		if err != nil {
			return err
		}
		// Fdatasync must promise as much as far as content and size go, which is all that is
		// judged.
		if w.chance(50) {
			return unix.Fdatasync(int(f.Fd()))
		}
		return f.Sync()
	case history.FsyncDir:
		return fsyncDir(name)
	}
	return fmt.Errorf("no such operation: %s", op.Kind)
}

func (w *fileWorker) write(op history.Op) error {
	f, err := w.file(op.Path)
	if err != nil {
		return err
	}
	buf := w.buf[:op.Len]
	if op.Tag == 0 {
		clear(buf)
	} else {
		history.Fill(buf, op.Tag, op.Off)
	}
	_, err = f.WriteAt(buf, op.Off)
	return err
}

func (w *fileWorker) file(name string) (*os.File, error) {
	if f := w.open[name]; f != nil {
		return f, nil
	}
	f, err := w.openFile(name, 0)
	if err == nil {
		w.open[name] = f
	}
	return f, err
}

func (w *fileWorker) openFile(name string, flags int) (*os.File, error) {
	if w.ordered {
		flags |= unix.O_DIRECT
	}
	return os.OpenFile(w.path(name), os.O_RDWR|flags, 0o644)
}

func (w *fileWorker) close(name string) error {
	f := w.open[name]
	delete(w.open, name)
	if f == nil {
		return nil
	}
	return f.Close()
}
