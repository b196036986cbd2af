package snapfs

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/fs"
	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/fs/volume"
	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/chunk"
)

// A nearby is a Source that has its blocks from a store here, as long as it is told to.
type nearby struct {
	st    *store.Store
	names []Name

	mu       sync.RWMutex // held over reads, so that none is under way after a change
	lost     bool         // no block is there any more
	unlisted bool         // nor a name
}

func (s *nearby) set(flag *bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*flag = true
}

// Get implements graph.Source.
func (s *nearby) Get(ctx context.Context, id store.ID) ([]byte, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.lost {
		return nil, fmt.Errorf("%w: %s", graph.ErrGone, id.Short())
	}
	return s.st.Get(ctx, id)
}

// GetAll implements Source.
func (s *nearby) GetAll(ctx context.Context, ids []store.ID) (blocks [][]byte, err error) {
	for _, id := range ids {
		b, err := s.Get(ctx, id)
		if err != nil {
			return nil, err
		}
		blocks = append(blocks, b)
	}
	return blocks, nil
}

// Names implements Source.
func (s *nearby) Names(context.Context) ([]Name, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.unlisted {
		return nil, nil
	}
	return s.names, nil
}

// A scene is a snapshot of what fill made, and the mount of it without a kernel.
type scene struct {
	t    *testing.T
	src  *nearby
	top  *top
	root *node
	log  strings.Builder
}

func newScene(t *testing.T, fill func(v *volume.Volume)) *scene {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "store")
	conf := store.DefaultConfig()
	conf.Chunker = chunk.Config{Name: "fixed", Min: 4096, Avg: 4096, Max: 4096}
	must(t, store.Init(dir, conf))
	st, err := store.Open(dir, store.Options{})
	must(t, err)
	t.Cleanup(func() { must(t, st.Close()) })
	v, err := volume.Open(st, volume.Options{})
	must(t, err)
	t.Cleanup(func() { must(t, v.Close()) })
	fill(v)
	made, err := v.CreateSnapshot(t.Context(), volume.SnapshotOptions{Name: "one"})
	must(t, err)
	s := &scene{t: t, src: &nearby{st: st, names: []Name{{"one", made.ID}}}}
	t.Cleanup(func() { s.src.set(&s.src.lost) }) // some may be read ahead
	s.top, _ = newFilesystem(s.src, slog.New(slog.NewTextHandler(&s.log, nil)))
	in, errno := s.top.Lookup(t.Context(), "one", new(fuse.EntryOut))
	if errno != 0 {
		t.Fatal(errno)
	}
	s.root = in.Operations().(*node)
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// find looks a path in the snapshot up.
func (s *scene) find(path ...string) (*node, *fuse.EntryOut) {
	s.t.Helper()
	var out fuse.EntryOut
	n := s.root
	for _, name := range path {
		in, errno := n.Lookup(s.t.Context(), name, &out)
		if errno != 0 {
			s.t.Fatalf("%v: %v", path, errno)
		}
		n = in.Operations().(*node)
	}
	return n, &out
}

func create(t *testing.T, v *volume.Volume, dir meta.Ino, name string, n volume.CreateOptions) meta.Ino {
	t.Helper()
	a, err := v.Create(dir, name, n)
	must(t, err)
	return a.Ino
}

var (
	plainFile = volume.CreateOptions{Mode: syscall.S_IFREG | 0o640, UID: 7, GID: 8}
	directory = volume.CreateOptions{Mode: syscall.S_IFDIR | 0o755}
)

// TestRead reads every part of a file, holes among them, from and to places
// around the bounds of its blocks.
func TestRead(t *testing.T) {
	want := make([]byte, 40_000)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(want)
	clear(want[9_000:30_000])
	s := newScene(t, func(v *volume.Volume) {
		ino := create(t, v, meta.Root, "f", plainFile)
		must(t, v.Write(ino, 0, want[:9_000], volume.WriteMode{}))
		must(t, v.Write(ino, 30_000, want[30_000:], volume.WriteMode{}))
	})
	n, out := s.find("f")
	if out.Attr.Size != uint64(len(want)) || out.Attr.Mode != syscall.S_IFREG|0o640 || out.Attr.Uid != 7 || out.Attr.Gid != 8 {
		t.Errorf("attributes %+v", out.Attr)
	}
	bounds := []int{0, 1, 4095, 4096, 4097, 8192, 8999, 9000, 12287, 12288, 29_999, 30_000, 32_768, 39_999, 40_000, 40_001, 1 << 20}
	for _, from := range bounds {
		for _, to := range bounds {
			if from > to {
				continue
			}
			res, errno := n.Read(t.Context(), nil, make([]byte, to-from), int64(from))
			if errno != 0 {
				t.Fatalf("%d to %d: %v", from, to, errno)
			}
			got, _ := res.Bytes(nil)
			if part := want[min(from, len(want)):min(to, len(want))]; !bytes.Equal(got, part) {
				t.Errorf("%d to %d: %d bytes, %d of them as they were", from, to, len(got), same(got, part))
			}
		}
	}
}

// same counts the bytes up to the first that differs.
func same(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// TestList lists directories of as many names as fit in some batches, or nearly.
func TestList(t *testing.T) {
	sizes := []int{0, 1, listBatch - 1, listBatch, listBatch + 1, 2*listBatch + 7}
	s := newScene(t, func(v *volume.Volume) {
		for _, size := range sizes {
			dir := create(t, v, meta.Root, fmt.Sprint(size), directory)
			for i := range size {
				create(t, v, dir, fmt.Sprintf("%05d", i), plainFile)
			}
		}
	})
	for _, size := range sizes {
		n, _ := s.find(fmt.Sprint(size))
		list, errno := n.Readdir(t.Context())
		if errno != 0 {
			t.Fatal(errno)
		}
		inodes := make(map[uint64]bool)
		i := 0
		for ; list.HasNext(); i++ {
			e, errno := list.Next()
			if want := fmt.Sprintf("%05d", i); errno != 0 || e.Name != want || inodes[e.Ino] {
				t.Fatalf("entry %d of %d is %+v, %v; want %s", i, size, e, errno, want)
			}
			inodes[e.Ino] = true
		}
		list.Close()
		if i != size {
			t.Errorf("%d entries of %d", i, size)
		}
		if size > 0 {
			if _, out := s.find(fmt.Sprint(size), "00000"); !inodes[out.Attr.Ino] {
				t.Errorf("a look-up gives another inode than the list of %d", size)
			}
		}
	}
}

// TestNames has hard links, symbolic links, extended attributes and what is not there.
func TestNames(t *testing.T) {
	large := bytes.Repeat([]byte("value"), 3_000)
	s := newScene(t, func(v *volume.Volume) {
		dir := create(t, v, meta.Root, "d", directory)
		ino := create(t, v, dir, "a", plainFile)
		_, err := v.Link(ino, meta.Root, "b")
		must(t, err)
		create(t, v, dir, "link", volume.CreateOptions{Mode: syscall.S_IFLNK | 0o777, Target: "../b"})
		must(t, v.SetXattr(ino, "user.small", []byte("1"), 0, false))
		must(t, v.SetXattr(dir, "user.large", large, 0, false))
	})
	a, first := s.find("d", "a")
	_, second := s.find("b")
	if first.Attr.Ino != second.Attr.Ino || first.Attr.Nlink != 2 {
		t.Errorf("two names of a file: %+v, %+v", first.Attr, second.Attr)
	}
	link, out := s.find("d", "link")
	if target, errno := link.Readlink(t.Context()); string(target) != "../b" || errno != 0 || out.Attr.Size != 4 {
		t.Errorf("symbolic link: %q, %v, %+v", target, errno, out.Attr)
	}
	d, _ := s.find("d")
	for _, c := range []struct {
		n     *node
		name  string
		value []byte
		errno syscall.Errno
	}{
		{a, "user.small", []byte("1"), 0},
		{a, "user.large", nil, syscall.ENODATA},
		{d, "user.large", large, 0},
		{link, "user.small", nil, syscall.ENODATA},
	} {
		value := make([]byte, len(c.value))
		size, errno := c.n.Getxattr(t.Context(), c.name, value)
		if errno != c.errno || errno == 0 && (int(size) != len(c.value) || !bytes.Equal(value, c.value)) {
			t.Errorf("%s of %s: %d bytes, %v", c.name, c.n.entry.Name, size, errno)
		}
		if _, errno := c.n.Getxattr(t.Context(), c.name, nil); c.errno == 0 && errno != syscall.ERANGE {
			t.Errorf("%s into nothing: %v", c.name, errno)
		}
	}
	if _, errno := d.Lookup(t.Context(), "nothing", new(fuse.EntryOut)); errno != syscall.ENOENT {
		t.Errorf("a name that is not there: %v", errno)
	}
	if _, errno := s.top.Lookup(t.Context(), "two", new(fuse.EntryOut)); errno != syscall.ENOENT {
		t.Errorf("a snapshot that is not there: %v", errno)
	}
	if _, _, errno := a.Open(t.Context(), syscall.O_RDWR); errno != syscall.EROFS {
		t.Errorf("open to write: %v", errno)
	}
}

// TestRemovedSnapshot: what cannot be read since the snapshot was removed is stale, and
// the log says so once; what cannot be read though it is there is an error of its own.
func TestRemovedSnapshot(t *testing.T) {
	s := newScene(t, func(v *volume.Volume) {
		ino := create(t, v, meta.Root, "f", plainFile)
		must(t, v.Write(ino, 0, make([]byte, 1), volume.WriteMode{}))
		must(t, v.Write(ino, 5_000, []byte("bytes"), volume.WriteMode{}))
		create(t, v, create(t, v, meta.Root, "d", directory), "x", plainFile)
	})
	f, _ := s.find("f")
	d, _ := s.find("d")
	read := func() syscall.Errno {
		_, errno := f.Read(t.Context(), nil, make([]byte, 10_000), 0)
		return errno
	}
	s.src.set(&s.src.lost)
	if errno := read(); errno != syscall.EIO {
		t.Errorf("a block is missing: %v, want EIO", errno)
	}
	s.src.set(&s.src.unlisted)
	for range 3 {
		if errno := read(); errno != syscall.ESTALE {
			t.Errorf("the snapshot was removed: %v, want ESTALE", errno)
		}
	}
	if _, errno := d.Lookup(t.Context(), "x", new(fuse.EntryOut)); errno != syscall.ESTALE {
		t.Errorf("look up in a removed snapshot: %v, want ESTALE", errno)
	}
	if n := strings.Count(s.log.String(), "was removed where it comes from"); n != 1 {
		t.Errorf("%d lines say so:\n%s", n, s.log.String())
	}
	if _, errno := s.top.Lookup(t.Context(), "one", new(fuse.EntryOut)); errno != syscall.ENOENT {
		t.Errorf("the removed snapshot by its name: %v, want ENOENT", errno)
	}
}

// TestSnapshotIsAlike compares what the mount tells of files with what .snapshots on the
// machine of the store tells: all attributes, and data and holes from every offset around
// their bounds.
func TestSnapshotIsAlike(t *testing.T) {
	var v *volume.Volume
	const end = 1<<20 + 5
	s := newScene(t, func(filled *volume.Volume) {
		v = filled
		dir := create(t, v, meta.Root, "d", directory)
		create(t, v, dir, "empty", plainFile)
		create(t, v, dir, "link", volume.CreateOptions{Mode: syscall.S_IFLNK | 0o777, Target: "../b"})
		create(t, v, dir, "device", volume.CreateOptions{Mode: syscall.S_IFCHR | 0o600, Rdev: 0x1234})
		for name, data := range map[string][]int64{
			"data": {0}, "hole": nil, "first": {0}, "last": {end - 9}, "some": {0, 4096, 300_000, 700_001}, "twice": {10_000},
		} {
			ino := create(t, v, dir, name, plainFile)
			size := int64(end)
			if name == "data" {
				size = 9
			}
			_, err := v.SetAttr(ino, volume.Change{Size: &size})
			must(t, err)
			for _, off := range data {
				must(t, v.Write(ino, off, []byte("some data"), volume.WriteMode{}))
			}
		}
		twice, err := v.Lookup(dir, "twice")
		must(t, err)
		_, err = v.Link(twice.Ino, meta.Root, "again")
		must(t, err)
	})
	snapshots, err := v.Lookup(meta.Root, volume.SnapshotsName)
	must(t, err)
	one, err := v.Lookup(snapshots.Ino, "one")
	must(t, err)
	dir, err := v.Lookup(one.Ino, "d")
	must(t, err)
	alike := func(name string, a volume.Attr, n *node) {
		t.Helper()
		var out fuse.AttrOut
		if errno := n.Getattr(t.Context(), nil, &out); errno != 0 {
			t.Fatal(errno)
		}
		ino := out.Ino
		var want fuse.Attr
		fs.FillSnapshotAttr(ino, &n.entry, &want)
		if out.Attr != want || out.Blocks != uint64(a.Blocks) || out.Size != uint64(a.Size) || out.Nlink != a.Nlink || out.Rdev != a.Rdev {
			t.Errorf("%s is %+v, and in .snapshots %+v", name, out.Attr, a)
		}
		var x fuse.StatxOut
		if errno := n.Statx(t.Context(), nil, 0, 0, &x); errno != 0 || x.Ino != ino || x.Blocks != out.Blocks || x.Btime.Sec != uint64(a.Btime.Sec) || x.Btime.Nsec != a.Btime.Nsec {
			t.Errorf("statx of %s: %+v, %v", name, x.Statx, errno)
		}
	}
	alike("the root", one, s.root)
	d, _ := s.find("d")
	alike("d", dir, d)
	for _, name := range []string{"empty", "link", "device", "data", "hole", "first", "last", "some", "twice"} {
		n, _ := s.find("d", name)
		a, err := v.Lookup(dir.Ino, name)
		must(t, err)
		alike(name, a, n)
		if a.Mode&syscall.S_IFMT != syscall.S_IFREG {
			continue
		}
		for _, bound := range []int64{0, 9, 4096, 8192, 10_000, 12_288, 300_000, 303_104, 700_001, 1 << 20, end} {
			for off := max(0, bound-2); off <= bound+2; off++ {
				for _, whence := range []uint32{unix.SEEK_DATA, unix.SEEK_HOLE} {
					want, err := v.Seek(a.Ino, off, whence)
					got, errno := n.Lseek(t.Context(), nil, uint64(off), whence)
					if errno != 0 != (err != nil) || errno != 0 && errno != err || errno == 0 && got != uint64(want) {
						t.Errorf("%s, seek %d from %d: %d, %v; in .snapshots %d, %v", name, whence, off, got, errno, want, err)
					}
				}
			}
		}
	}
}
