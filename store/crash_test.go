package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/store/chunk"
	"github.com/quarxtor/quarxfs/tiering/disk"
	"github.com/quarxtor/quarxfs/tiering/disk/faultdisk"
	"github.com/quarxtor/quarxfs/tiering/segment"
)

// A faultStore is a store whose segments are on a disk in memory.
type faultStore struct {
	*Store
	dir  string
	disk *faultdisk.Disk
}

func faultOptions(d *faultdisk.Disk) Options {
	return Options{
		CommitInterval: time.Hour, SweepInterval: -1, Ballast: -1, MemTable: 8 << 20, CacheBytes: 1 << 20, Disk: anywhere{d},
		Now: func() time.Time { return time.UnixMilli(1_700_000_000_000) },
	}
}

func initFaultStore(t testing.TB, dir string, c Config) *faultStore {
	if err := Init(dir, c); err != nil {
		t.Fatal(err)
	}
	return openFaultStore(t, dir, faultdisk.New())
}

func openFaultStore(t testing.TB, dir string, d *faultdisk.Disk) *faultStore {
	s, err := Open(dir, faultOptions(d))
	if err != nil {
		t.Fatal(err)
	}
	return &faultStore{s, dir, d}
}

// crash returns the store as a power loss now would leave it. No commit may be
// under way; then what the database's files hold is what it made durable.
func (f *faultStore) crash(t testing.TB, rng *rand.Rand, to string) *faultStore {
	t.Helper()
	if err := copyStore(f.dir, to); err != nil {
		t.Fatal(err)
	}
	return openFaultStore(t, to, f.disk.Crash(rng))
}

// anywhere is a disk on which the directories of tiers have one name wherever the store is,
// so that a copy of a store finds its segments.
type anywhere struct{ *faultdisk.Disk }

func atDir(dir string) string { return filepath.Join("/", filepath.Base(dir)) }
func at(path string) string   { return filepath.Join(atDir(filepath.Dir(path)), filepath.Base(path)) }

func (d anywhere) List(dir string) ([]disk.Info, error)  { return d.Disk.List(atDir(dir)) }
func (d anywhere) Create(path string) (disk.File, error) { return placed(d.Disk.Create(at(path))) }
func (d anywhere) Open(path string) (disk.File, error)   { return placed(d.Disk.Open(at(path))) }
func (d anywhere) Rename(from, to string) error          { return d.Disk.Rename(at(from), at(to)) }
func (d anywhere) Remove(path string) error              { return d.Disk.Remove(at(path)) }
func (d anywhere) SyncDir(dir string) error              { return d.Disk.SyncDir(atDir(dir)) }

// A placedFile finds its own name where an anywhere has put it.
type placedFile struct{ disk.File }

func placed(f disk.File, err error) (disk.File, error) {
	if err != nil {
		return nil, err
	}
	return placedFile{f}, nil
}

func (f placedFile) Named(path string) (bool, error) { return f.File.Named(at(path)) }

// copyStore copies a store's directory as it is at one moment: Badger may be
// tidying up in the background.
func copyStore(from, to string) error {
	for {
		before, err := listing(from)
		if err == nil {
			err = copySparse(from, to)
		}
		if after, listErr := listing(from); err == nil && listErr == nil && before == after {
			return nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := os.RemoveAll(to); err != nil {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func listing(dir string) (string, error) {
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil {
			fmt.Fprintln(&b, path, info.Size(), info.ModTime().UnixNano())
		}
		return err
	})
	return b.String(), err
}

func copySparse(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		dest := filepath.Join(to, strings.TrimPrefix(path, from))
		if d.IsDir() {
			return os.MkdirAll(dest, 0o700)
		}
		if d.Name() == lockName {
			return nil
		}
		f, err := os.Create(dest)
		if err != nil {
			return err
		}
		size, err := eachPart(path, func(at int64, b []byte) error {
			_, err := f.WriteAt(b, at)
			return err
		})
		return errors.Join(err, f.Truncate(size), f.Close())
	})
}

// eachPart calls fn with what is not a hole of a file, and returns its size.
func eachPart(path string, fn func(at int64, b []byte) error) (size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	b := make([]byte, 64<<10)
	for at := int64(0); ; {
		if at, err = f.Seek(at, unix.SEEK_DATA); errors.Is(err, unix.ENXIO) {
			return info.Size(), nil
		} else if err != nil {
			return 0, err
		}
		end, err := f.Seek(at, unix.SEEK_HOLE)
		if err != nil {
			return 0, err
		}
		for at < end {
			n, err := f.ReadAt(b[:min(int64(len(b)), end-at)], at)
			if err == nil || errors.Is(err, io.EOF) {
				err = fn(at, b[:n])
			}
			if err != nil || n == 0 { // it was cut meanwhile
				return at, err
			}
			at += int64(n)
		}
	}
}

func changing(op faultdisk.Op) bool {
	return op.Name != "read" && op.Name != "list" && op.Name != "open"
}

// TestEveryFaultOnce fails each changing operation on the segments once, then
// crashes: what was acknowledged is there, and the store goes on as soon as the
// fault is gone.
func TestEveryFaultOnce(t *testing.T) {
	conf := DefaultConfig()
	conf.Chunker = chunk.Config{Name: chunk.Fixed, Avg: 64 << 10} // few operations
	conf.SegmentSize = 1 << 20
	step := 1
	if testing.Short() {
		step = 7
	}
	for n := 0; ; n += step {
		dir := fastDir(t)
		f := initFaultStore(t, filepath.Join(dir, "a"), conf)
		fail, fired := faultdisk.FailNth(n, syscall.EIO, changing)
		f.disk.Fail(fail)
		kept := faultWorkload(t, f)
		f.disk.Fail(nil)
		verifyObjects(t, f, kept)
		if t.Failed() {
			t.Fatalf("fault %d", n)
		}
		image := f.crash(t, rand.New(rand.NewPCG(uint64(n), 7)), filepath.Join(dir, "b"))
		verifyObjects(t, image, kept)
		if err := errors.Join(image.Close(), f.Close()); err != nil {
			t.Errorf("close: %v", err)
		}
		if t.Failed() {
			t.Fatalf("crash after fault %d", n)
		}
		if !fired() {
			t.Logf("%d operations were failed", n)
			return
		}
	}
}

// faultWorkload does everything that writes to segments, tries again what
// failed, and returns the objects that must be there.
func faultWorkload(t *testing.T, f *faultStore) map[string][]byte {
	kept := make(map[string][]byte)
	again := func(what string, op func() error) {
		t.Helper()
		failures := 0
		for op() != nil {
			if failures++; failures > 1 {
				t.Fatalf("%s fails again after the fault is gone: %v", what, op())
			}
		}
	}
	for i := range 6 {
		name := fmt.Sprint("object ", i)
		data := randomBytes(uint64(i), 400<<10) // the segments of 1 MiB get full
		again("ingest", func() error {
			_, err := f.Ingest(ctx, bytes.NewReader(data), name)
			return err
		})
		kept[name] = data
		if i == 3 {
			again("delete", func() error {
				err := f.Delete(ctx, "object 1")
				if errors.Is(err, ErrNotFound) { // the first try dropped the name
					err = f.Commit()
				}
				return err
			})
			again("delete", func() error {
				err := f.Delete(ctx, "object 2")
				if errors.Is(err, ErrNotFound) {
					err = f.Commit()
				}
				return err
			})
			delete(kept, "object 1")
			delete(kept, "object 2")
		}
		if i >= 3 {
			again("sweep", func() error { _, err := f.Sweep(ctx); return err })
		}
	}
	return kept
}

func verifyObjects(t *testing.T, f *faultStore, want map[string][]byte) {
	t.Helper()
	for name, data := range want {
		if !bytes.Equal(fetch(t, f.Store, name, 0, -1), data) {
			t.Errorf("%s is something else", name)
		}
	}
	if r := mustCheck(t, f.Store); r.Objects != int64(len(want)) {
		t.Errorf("%d objects, want %d", r.Objects, len(want))
	}
}

// A segment that cannot be synced costs nothing: not what was committed before,
// not what that commit brings, not what is put while it is under way.
func TestFailedSync(t *testing.T) {
	dir := fastDir(t)
	f := initFaultStore(t, filepath.Join(dir, "a"), smallConfig())
	defer f.Close()
	before := randomBytes(1, 50_000)
	mustIngest(t, f.Store, "before", before)

	first := f.tiers.Segments()[0].Number
	f.disk.Fail(func(op faultdisk.Op) error {
		if op.Name == "datasync" && strings.Contains(op.Path, segment.Name(first, "")) {
			return syscall.EIO
		}
		return nil
	})
	during := randomBytes(2, 50_000)
	mustIngest(t, f.Store, "during", during)
	f.disk.Fail(nil)
	after := randomBytes(3, 50_000)
	mustIngest(t, f.Store, "after", after)
	for seed := range uint64(4) {
		image := f.crash(t, rand.New(rand.NewPCG(seed, 1)), filepath.Join(dir, fmt.Sprint(seed)))
		verifyObjects(t, image, map[string][]byte{"before": before, "during": during, "after": after})
		if err := image.Close(); err != nil {
			t.Error(err)
		}
	}
}

// While every sync fails nothing is acknowledged; once they work everything is
// there, though it was in segments that are lost by then.
func TestDiskThatFailsForAWhile(t *testing.T) {
	dir := fastDir(t)
	f := initFaultStore(t, filepath.Join(dir, "a"), smallConfig())
	defer f.Close()
	mustIngest(t, f.Store, "before", []byte("makes sure that there is a segment"))
	f.disk.Fail(func(op faultdisk.Op) error {
		if op.Name == "datasync" {
			return syscall.EIO
		}
		return nil
	})
	data := randomBytes(2, 100_000)
	for range 3 {
		if _, err := f.Ingest(ctx, bytes.NewReader(data), "a"); !errors.Is(err, syscall.EIO) {
			t.Fatalf("ingest: %v", err)
		}
	}
	f.disk.Fail(nil)
	if err := f.Commit(); err != nil {
		t.Fatal(err)
	}
	image := f.crash(t, rand.New(rand.NewPCG(1, 1)), filepath.Join(dir, "b"))
	defer image.Close()
	verifyObjects(t, image, map[string][]byte{"before": []byte("makes sure that there is a segment"), "a": data})
}
