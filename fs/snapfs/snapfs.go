// Package snapfs is a read-only mount of the snapshots of a store that is elsewhere.
// The root directory has the snapshots by name, and below each is its tree. Nothing
// but vertices and blocks is asked for, each when it is needed.
//
// The kernel keeps what it is told of a snapshot, which never changes, and asks
// again for the list of them after ListTime.
package snapfs

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cespare/xxhash/v2"
	nodefs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/fs"
	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/store"
)

// A Source has snapshots and blocks. Its methods are called concurrently.
type Source interface {
	graph.Source
	// GetAll returns blocks in the order of their IDs.
	GetAll(ctx context.Context, ids []store.ID) ([][]byte, error)
	// Names returns the snapshots that there are.
	Names(ctx context.Context) ([]Name, error)
}

// A Name is a snapshot's.
type Name struct {
	Name string
	ID   store.ID
}

// Options are the settings of a mount.
type Options struct {
	Name       string // shown by df
	AllowOther bool   // users other than the mounting one may enter; always so for root
	Debug      bool   // log every request
	fs.ServeOptions
}

// ListTime is how long a list of snapshots is believed.
const ListTime = 5 * time.Second

// keepTime is how long the kernel may keep what is in a snapshot.
const keepTime = 24 * time.Hour

const maxRequest = 1 << 20 // bytes of one READ; the kernel's own limit

// Mount mounts the snapshots of a source at dir, without set-user-ID programs and
// devices: who made them may be root elsewhere only. Errors: those of fs.Serve.
func Mount(src Source, dir string, o Options) (*fs.Mount, error) {
	root := os.Geteuid() == 0
	_, raw := newFilesystem(src, o.Logger)
	return fs.Serve(raw, dir, &fuse.MountOptions{
		AllowOther: o.AllowOther || root, Options: []string{"ro", "nosuid", "nodev", "default_permissions"}, FsName: o.Name, Name: "quarxfs",
		MaxWrite: maxRequest, MaxReadAhead: maxRequest, MaxBackground: 64, EnableAcl: true, Debug: o.Debug,
		Logger:      slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
		DirectMount: root, DirectMountFlags: unix.MS_MGC_VAL | unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV,
		EnableSymlinkCaching: true, DisabledCapabilities: fuse.CAP_PASSTHROUGH,
	}, o.ServeOptions)
}

func newFilesystem(src Source, log *slog.Logger) (*top, fuse.RawFileSystem) {
	t := &top{f: &filesystem{src: src, log: log, began: time.Now()}}
	keep := keepTime
	return t, nodefs.NewNodeFS(t, &nodefs.Options{
		AttrTimeout: &keep, EntryTimeout: &keep, NegativeTimeout: new(time.Duration), RootStableAttr: &nodefs.StableAttr{Ino: 1},
		NullPermissions: true, // as they are in the snapshot
	})
}

// filesystem is what all inodes share.
type filesystem struct {
	src   Source
	log   *slog.Logger
	began time.Time

	mu    sync.Mutex
	names []Name // as they were when listed
	until time.Time
}

// snapshots returns them, asked for anew when that was some time ago.
func (f *filesystem) snapshots(ctx context.Context) ([]Name, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Now().Before(f.until) {
		return f.names, nil
	}
	names, err := f.src.Names(ctx)
	if err == nil {
		f.names, f.until = names, time.Now().Add(ListTime)
	}
	return names, err
}

// has reports whether a snapshot is still there, asked for anew. It is while nobody says
// otherwise.
func (f *filesystem) has(ctx context.Context, id store.ID) bool {
	f.mu.Lock()
	f.until = time.Time{}
	f.mu.Unlock()
	names, err := f.snapshots(ctx)
	return err != nil || slices.ContainsFunc(names, func(n Name) bool { return n.ID == id })
}

// errno is what the kernel is told.
func (f *filesystem) errno(op string, err error) syscall.Errno {
	if err == nil {
		return 0
	}
	if e, ok := err.(syscall.Errno); ok {
		return e
	}
	if errors.Is(err, context.Canceled) {
		return syscall.EINTR
	}
	f.log.Error("request failed", "op", op, "err", err)
	return syscall.EIO
}

// A top is the root directory.
type top struct {
	nodefs.Inode
	f *filesystem
}

var (
	_ nodefs.NodeLookuper  = (*top)(nil)
	_ nodefs.NodeReaddirer = (*top)(nil)
	_ nodefs.NodeGetattrer = (*top)(nil)
	_ nodefs.NodeStatfser  = (*top)(nil)
)

// Getattr implements fs.NodeGetattrer.
func (t *top) Getattr(_ context.Context, _ nodefs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Nlink, out.Size, out.Blocks, out.Blksize = syscall.S_IFDIR|0o555, 2, 4096, 8, 4096
	out.SetTimes(&t.f.began, &t.f.began, &t.f.began)
	return 0
}

// Statfs implements fs.NodeStatfser.
func (t *top) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	out.Bsize, out.Frsize, out.NameLen = 4096, 4096, 255
	return 0
}

// Readdir implements fs.NodeReaddirer.
func (t *top) Readdir(ctx context.Context) (nodefs.DirStream, syscall.Errno) {
	names, err := t.f.snapshots(ctx)
	if err != nil {
		return nil, t.f.errno("list snapshots", err)
	}
	list := make([]fuse.DirEntry, len(names))
	for i, n := range names {
		v := view{id: n.ID}
		list[i] = fuse.DirEntry{Name: n.Name, Mode: syscall.S_IFDIR, Ino: v.number(t.StableAttr().Ino, &graph.Entry{})}
	}
	return nodefs.NewListDirStream(list), 0
}

// Lookup implements fs.NodeLookuper.
func (t *top) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*nodefs.Inode, syscall.Errno) {
	names, err := t.f.snapshots(ctx)
	if err != nil {
		return nil, t.f.errno("list snapshots", err)
	}
	for _, n := range names {
		if n.Name != name {
			continue
		}
		s, err := graph.GetSnapshot(ctx, t.f.src, n.ID)
		if err != nil {
			return nil, t.f.errno("open snapshot "+name, err)
		}
		v := &view{f: t.f, name: n.Name, id: n.ID, snap: s}
		e := s.Root
		ch, errno := v.inode(ctx, &t.Inode, e, out)
		out.SetEntryTimeout(ListTime)
		return ch, errno
	}
	return nil, syscall.ENOENT
}

// A view is a snapshot that is looked at.
type view struct {
	f    *filesystem
	name string
	id   store.ID
	snap graph.Snapshot
	gone atomic.Bool // it was removed where it comes from
}

// errno is what the kernel is told of what went wrong in a snapshot. ESTALE: it was
// removed meanwhile; the log has that once.
func (v *view) errno(ctx context.Context, op string, err error) syscall.Errno {
	if !errors.Is(err, graph.ErrGone) || !v.gone.Load() && v.f.has(ctx, v.id) {
		return v.f.errno(op, err)
	}
	if !v.gone.Swap(true) {
		v.f.log.Warn("a snapshot was removed where it comes from: what was not read of it yet is stale", "snapshot", v.name, "op", op, "err", err)
	}
	return syscall.ESTALE
}

// A node is a file or directory in a snapshot.
type node struct {
	nodefs.Inode
	view   *view
	parent uint64 // inode
	entry  graph.Entry

	mu    sync.Mutex
	tree  *graph.Tree   // of a directory; not for two at once
	xattr []graph.Xattr // nil: not read yet
	next  int64         // where a sequential read goes on
	ahead int64         // up to where blocks were asked for
}

// inode returns the inode of an entry in a directory. Numbers are made from the
// snapshot and the path there, or the file's key where it has several names.
func (v *view) inode(ctx context.Context, dir *nodefs.Inode, e graph.Entry, out *fuse.EntryOut) (*nodefs.Inode, syscall.Errno) {
	if e.Ident != 0 {
		full, err := graph.OpenTree(v.f.src, v.snap.Table, graph.LinkTable).Lookup(ctx, graph.TableKey(e.Ident))
		if err != nil {
			return nil, v.errno(ctx, "look up "+e.Name, err)
		}
		full.Name, full.Ident = e.Name, e.Ident
		e = full
	}
	want := &node{view: v, parent: dir.StableAttr().Ino, entry: e}
	for ino := v.number(want.parent, &e); ; ino++ {
		if ino < firstInode {
			ino = firstInode
		}
		ch := dir.NewInode(ctx, want, nodefs.StableAttr{Mode: e.Mode & syscall.S_IFMT, Ino: ino})
		// NewInode returns the node that has the number already, which may be of another path with
		// the same hash.
		if got := ch.Operations().(*node); got.same(want) {
			fs.FillSnapshotAttr(ino, &got.entry, &out.Attr)
			return ch, 0
		}
	}
}

const firstInode = 1 << 62

func (v *view) number(parent uint64, e *graph.Entry) uint64 {
	h := xxhash.New()
	_, _ = h.Write(v.id[:])
	if e.Ident != 0 {
		_, _ = h.Write(binary.BigEndian.AppendUint64([]byte{'i'}, e.Ident))
	} else {
		_, _ = h.Write(binary.BigEndian.AppendUint64([]byte{'n'}, parent))
		_, _ = h.WriteString(e.Name)
	}
	return h.Sum64()>>2 | firstInode
}

// same tells an inode from another one whose path has the same hash.
func (n *node) same(m *node) bool {
	if n.view.id != m.view.id || n.entry.Ident != m.entry.Ident {
		return false
	}
	return n.entry.Ident != 0 || n.parent == m.parent && n.entry.Name == m.entry.Name
}
