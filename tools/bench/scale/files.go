package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"syscall"

	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/fs/volume"
	"github.com/quarxtor/quarxfs/store"
)

// A fileRun fills a volume. File i is in directory i/perDir and has the number
// as its name, hashed so that names come in no order.
type fileRun struct {
	o    *options
	dir  string
	st   *store.Store
	v    *volume.Volume
	size int
	dirs []meta.Ino
	rand *rand.Rand
	buf  []byte
}

func (o *options) runFiles(ctx context.Context, dir string, sizes []int, r *report) error {
	f := &fileRun{o: o, dir: dir, rand: rand.New(rand.NewPCG(o.seed, 2)), buf: make([]byte, o.bytes)}
	for _, size := range sizes {
		if err := f.reach(ctx, size, r); err != nil {
			return err
		}
		if err := f.measure(subject{r, "files", f.size}); err != nil {
			return err
		}
	}
	return nil
}

func (f *fileRun) open() (err error) {
	if f.st, err = f.o.open(f.dir); err != nil {
		return err
	}
	f.v, err = volume.Open(f.st, volume.Options{DirtyBytes: f.o.memory << 20 / 8})
	return err
}

func (f *fileRun) close() error {
	if err := f.v.Close(); err != nil {
		return err
	}
	return f.st.Close()
}

func (f *fileRun) name(i int) string {
	return fmt.Sprintf("%016x.txt", uint64(i+1)*0x9e3779b97f4a7c15)
}

func (f *fileRun) dirOf(i int) meta.Ino {
	if f.o.perDir == 0 {
		return f.dirs[0]
	}
	return f.dirs[i/f.o.perDir]
}

// add makes the next file.
func (f *fileRun) add() error {
	i := f.size
	// The next file's directory, when it is the first file in it.
	if f.o.perDir == 0 && len(f.dirs) == 0 || f.o.perDir > 0 && i/f.o.perDir == len(f.dirs) {
		a, err := f.v.Create(meta.Root, fmt.Sprintf("d%06d", len(f.dirs)), volume.CreateOptions{Mode: syscall.S_IFDIR | 0o755})
		if err != nil {
			return err
		}
		f.dirs = append(f.dirs, a.Ino)
	}
	a, err := f.v.Create(f.dirOf(i), f.name(i), volume.CreateOptions{Mode: syscall.S_IFREG | 0o644})
	if err != nil {
		return err
	}
	f.size++
	if len(f.buf) == 0 {
		return nil
	}
	for k := 0; k+8 <= len(f.buf); k += 8 {
		binary.LittleEndian.PutUint64(f.buf[k:], f.rand.Uint64())
	}
	// As the kernel's write-back does it, whose pages nobody waits for.
	return f.v.Write(a.Ino, 0, f.buf, volume.WriteMode{Cached: true})
}

func (f *fileRun) reach(ctx context.Context, size int, r *report) error {
	if err := f.open(); err != nil {
		return err
	}
	s, from := subject{r, "files", size}, f.size
	err := s.took("fill, with commits", "us", max(1, size-from), func() error { return f.fillTo(ctx, size) })
	if err != nil {
		return errors.Join(err, f.close())
	}
	return s.once("close", f.close)
}

func (f *fileRun) fillTo(ctx context.Context, size int) error {
	for f.size < size {
		if f.size%1000 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if err := f.add(); err != nil {
			return err
		}
	}
	return f.v.Sync()
}

func (f *fileRun) measure(s subject) (err error) {
	name := map[bool]string{true: "cold", false: "warm"}[dropCaches()]
	if err := s.once("open, "+name, f.open); err != nil {
		return err
	}
	defer func() {
		if err == nil {
			err = f.close()
		}
	}()
	s.memory("after open")
	// Once as it is after opening and once with the tables in the page cache.
	for _, name := range []string{name, "warm"} {
		if err := f.reads(s, name); err != nil {
			return err
		}
		if err := warm(filepath.Join(f.dir, "db")); err != nil {
			return err
		}
	}
	if err := f.changes(s); err != nil {
		return err
	}
	if err := f.listDirs(s); err != nil {
		return err
	}
	return f.known(s)
}

func (f *fileRun) reads(s subject, name string) error {
	ops := f.o.ops
	inos := make([]meta.Ino, ops)
	err := s.each("lookup of a random file, "+name, ops, func(i int) error {
		k := f.rand.IntN(f.size)
		a, err := f.v.Lookup(f.dirOf(k), f.name(k))
		// For stat below, which goes by inode.
		inos[i] = a.Ino
		return err
	})
	if err != nil {
		return err
	}
	err = s.each("lookup of an absent file, "+name, ops, func(i int) error {
		k := f.rand.IntN(f.size)
		// In a directory that is there, by a name that was never given.
		_, err := f.v.Lookup(f.dirOf(k), f.name(k+1<<40))
		if errors.Is(err, syscall.ENOENT) {
			return nil
		}
		return fmt.Errorf("file %d is there (%w)", k, err)
	})
	if err != nil {
		return err
	}
	return s.each("stat, "+name, ops, func(i int) error {
		_, err := f.v.Attr(inos[i])
		return err
	})
}

func (f *fileRun) changes(s subject) error {
	ops := f.o.ops
	if err := s.each("create", ops, func(int) error { return f.add() }); err != nil {
		return err
	}
	if err := s.once("commit of these", f.v.Sync); err != nil {
		return err
	}
	// The newest, so that the next size begins where this one ended.
	err := s.each("unlink", ops, func(int) error {
		f.size--
		return f.v.Unlink(f.dirOf(f.size), f.name(f.size))
	})
	if err != nil {
		return err
	}
	return s.once("commit of these", f.v.Sync)
}

// listDirs goes over directories, as far as the operations to be measured.
func (f *fileRun) listDirs(s subject) error {
	n := 0
	return s.took("list an entry, with its stat", "us", f.o.ops, func() error {
		for _, d := range f.dirs {
			err := f.v.ReadDir(d, 0, func(e volume.Entry) bool {
				n++
				_, err := f.v.Peek(e.Ino)
				return err == nil && n < f.o.ops
			})
			if err != nil || n >= f.o.ops {
				return err
			}
		}
		return nil
	})
}

// known has the kernel know every file.
func (f *fileRun) known(s subject) error {
	s.memory("before knowing all")
	// Just after memory has had the collector run.
	before := readMemory().heap
	n := 0
	for _, d := range f.dirs {
		err := f.v.ReadDir(d, 0, func(e volume.Entry) bool {
			f.v.Known(e.Ino)
			n++
			return true
		})
		if err != nil {
			return err
		}
	}
	s.memory("knowing all")
	s.add(row{s.of, s.size, "heap for a file known", float64(readMemory().heap-before) / float64(n), "B", 0, 0})
	return nil
}
