package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/fs/fsck"
	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/chunk"
)

// A clock is the time that a test decides.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Unix(1_700_000_000, 123_456_789)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func (c *clock) time() meta.Time {
	t := c.Now()
	return meta.Time{Sec: t.Unix(), Nsec: uint32(t.Nanosecond())}
}

// tb is what a rig needs of testing.T and rapid.T.
type tb interface {
	Helper()
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
	Logf(format string, args ...any)
}

// A rig is an open store and volume whose commits happen only when asked for.
type rig struct {
	dir     string
	clock   *clock
	options Options
	st      *store.Store
	v       *Volume
}

func fixed4K() chunk.Config { return chunk.Config{Name: "fixed", Min: 4096, Avg: 4096, Max: 4096} }

func smallCDC() chunk.Config {
	return chunk.Config{Name: chunk.FastCDCTar, Min: 1024, Avg: 4096, Max: 16384, Key: bytes.Repeat([]byte{7}, 32)}
}

// tiny are options that make evictions, flushes and waiting writers common.
func tiny() Options { return Options{DirtyBytes: 256 << 10, Nodes: 8, Names: 16, NoAtime: true} }

// newRig makes a store in dir, which must not exist.
func newRig(t tb, dir string, ck chunk.Config, o Options) *rig {
	t.Helper()
	conf := store.DefaultConfig()
	conf.Chunker = ck
	conf.SegmentSize = 1 << 20
	if err := store.Init(dir, conf); err != nil {
		t.Fatalf("init: %v", err)
	}
	r := &rig{dir: dir, clock: newClock(), options: o}
	r.options.Now = r.clock.Now
	r.open(t)
	return r
}

func (r *rig) open(t tb) {
	t.Helper()
	var err error
	r.st, err = store.Open(r.dir, store.Options{
		CacheBytes: 1 << 20, CommitInterval: time.Hour, SweepInterval: -1, MinFree: 1, MemTable: 8 << 20,
	})
	if err != nil {
		t.Fatalf("open store: %v", err)
	}
	if r.v, err = Open(r.st, r.options); err != nil {
		t.Fatalf("open volume: %v", err)
	}
	r.v.coverNumbers() // else the first new inode would, with a commit
}

func (r *rig) close(t tb) {
	t.Helper()
	if err := errors.Join(r.v.Close(), r.st.Close()); err != nil {
		t.Fatalf("close: %v", err)
	}
}

// testRig makes a rig for one test and closes it at its end, with a check.
func testRig(t *testing.T, ck chunk.Config, o Options) *rig {
	t.Helper()
	r := newRig(t, filepath.Join(t.TempDir(), "store"), ck, o)
	t.Cleanup(func() {
		if !t.Failed() {
			r.check(t)
		}
		r.close(t)
	})
	return r
}

// awaitReaper waits until no inode is left that the reaper shall remove.
func (r *rig) awaitReaper(t tb) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(200 * time.Microsecond) {
		left := 0
		r.v.known.Lock()
		for ino := range r.v.known.orphans {
			if r.v.known.lookups.get(ino) == 0 {
				left++
			}
		}
		r.v.known.Unlock()
		if left == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d orphans are not removed", left)
		}
	}
}

// checkNames compares the count of names in memory with those that are there.
func (r *rig) checkNames(t tb) {
	t.Helper()
	v := r.v
	v.table.names.Lock()
	defer v.table.names.Unlock()
	sum := 0
	for n := range v.table.names.dirs {
		n.mu.Lock() // nobody else is at work
		if n.dir == nil {
			t.Errorf("directory %d counts as in memory and is not", n.ino)
		} else {
			sum += len(n.dir.names)
		}
		n.mu.Unlock()
	}
	if sum != v.table.names.count || sum > v.opts.Names {
		t.Errorf("%d names are in memory, %d are counted, and %d may be", sum, v.table.names.count, v.opts.Names)
	}
	v.table.Lock()
	defer v.table.Unlock()
	for n := range v.table.names.dirs {
		if v.table.nodes[n.ino] != n {
			t.Errorf("directory %d has names in memory and is not in the table", n.ino)
		}
	}
}

// check fails the test for everything that the checks of the volume and of the
// store find, among it reference counts that are not those of what refers.
func (r *rig) check(t tb) {
	t.Helper()
	r.checkVolume(t)
	ctx := context.Background()
	holder := func(ctx context.Context, ref func(store.ID)) error { return fsck.Inspect(ctx, r.st, ref, nil) }
	found, err := r.st.Check(ctx, store.CheckOptions{Holders: []func(context.Context, func(store.ID)) error{holder}})
	if err != nil {
		t.Fatalf("%v", err)
	}
	for _, p := range found.Problems {
		t.Errorf("check: %s", p)
	}
}

// checkVolume does so for the volume alone.
func (r *rig) checkVolume(t tb) {
	t.Helper()
	r.awaitReaper(t)
	r.checkNames(t)
	report := func(f fsck.Finding) { t.Errorf("check: %s inode %d %q: %s", f.Rule, f.Ino, f.Path, f.What) }
	if err := checkCommitted(r.st, report); err != nil {
		t.Fatalf("%v", err)
	}
	if n := r.v.flusher.dirty.count(); n != 0 {
		t.Errorf("check: %d nodes are still to be written after a commit", n)
	}
	r.checkMemory(t)
}

// checkMemory compares the sums kept of dirty ranges and staged slots with the nodes.
func (r *rig) checkMemory(t tb) {
	t.Helper()
	var used, staged int64
	r.v.table.Lock()
	for _, n := range r.v.table.nodes {
		n.mu.Lock()
		used += n.dirty.capacity() + n.flushing.capacity()
		for _, size := range n.staged {
			staged += int64(size)
		}
		n.mu.Unlock()
	}
	r.v.table.Unlock()
	if got := r.v.DirtyBytes(); got != used {
		t.Errorf("check: %d bytes of memory are accounted for and %d in use", got, used)
	}
	if got := r.v.flusher.staged.Load(); got != staged {
		t.Errorf("check: %d staged bytes are accounted for, %d are there", got, staged)
	}
}

func read(t tb, v *Volume, ino meta.Ino, off int64, size int) []byte {
	t.Helper()
	a, err := v.Read(context.Background(), ino, off, size)
	if err != nil {
		t.Fatalf("read %d bytes of inode %d at %d: %v", size, ino, off, err)
	}
	defer a.Done()
	return bytes.Join(a.Slices, nil)
}

func mustWrite(t tb, v *Volume, ino meta.Ino, off int64, p []byte) {
	t.Helper()
	if err := v.Write(ino, off, p, WriteMode{}); err != nil {
		t.Fatalf("write %d bytes of inode %d at %d: %v", len(p), ino, off, err)
	}
}

func mustCreate(t tb, v *Volume, dir meta.Ino, name string, mode uint32) meta.Ino {
	t.Helper()
	a, err := v.Create(dir, name, CreateOptions{Mode: mode})
	if err != nil {
		t.Fatalf("create %q: %v", name, err)
	}
	return a.Ino
}

func mustSync(t tb, v *Volume) {
	t.Helper()
	if err := v.Sync(); err != nil {
		t.Fatalf("sync: %v", err)
	}
}

// truncate sets a file's size.
func truncate(v *Volume, ino meta.Ino, size int64) error {
	_, err := v.SetAttr(ino, Change{Size: &size})
	return err
}

// errnoOf returns the errno in err, 0 for nil.
func errnoOf(err error) syscall.Errno {
	var e syscall.Errno
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e):
		return e
	}
	return syscall.EIO
}

// copyStore copies a store's directory as it is at this moment, holes included.
// It starts again when a segment is sealed, and so renamed, meanwhile.
func copyStore(from, to string) error {
	for {
		err := copyTree(from, to)
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := os.RemoveAll(to); err != nil {
			return err
		}
	}
}

func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o700)
		}
		if !d.Type().IsRegular() {
			return nil
		}
		return copySparse(path, filepath.Join(to, rel))
	})
}

func copySparse(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	for off := int64(0); ; {
		lo, err := unix.Seek(int(in.Fd()), off, unix.SEEK_DATA)
		if err == unix.ENXIO {
			break
		}
		if err != nil {
			return fmt.Errorf("seek in %s: %w", from, err)
		}
		hi, err := unix.Seek(int(in.Fd()), lo, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.NewOffsetWriter(out, lo), io.NewSectionReader(in, lo, hi-lo)); err != nil {
			return err
		}
		off = hi
	}
	return out.Truncate(info.Size())
}

// checkCommitted commits, and checks the rows.
func checkCommitted(st *store.Store, report func(fsck.Finding)) error {
	if err := st.Commit(); err != nil {
		return err
	}
	return fsck.Inspect(context.Background(), st, nil, report)
}
