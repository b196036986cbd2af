// Package volume is a POSIX filesystem without a kernel: inodes, directories,
// dirty buffers, and the order in which they reach the store. Methods return a
// syscall.Errno where POSIX names one, and the store's errors otherwise.
//
// Lock order (an inner lock is taken while holding the outer ones):
//
//	snapshotter.mu         one snapshot, clone or rollback at a time
//	  the store's lock     store.Update; not held while waiting for room in the dirty buffers
//	    nameTree           changes of names: create, link, unlink, rename
//	      node.mu          one node's attributes, dirty ranges, extents, names; two only in ascending order of ino
//	        nodeTable      the nodes in memory
//	          nameCache    the directories whose names are in memory; others' node.mu is only tried under it
//	        dirtySet       the nodes to be written
//	        kernelRefs     the kernel's lookup counts and the orphans
//	        dirtyBudget    the memory of dirty bytes
//	        Volume.views   what the kernel knows of snapshots
//	        inodeReader, prefetcher  where listings and readers are; nothing is taken inside
//	        the store's inner locks
//
// node.mu is released while blocks are hashed, stored or read; node.busy says
// meanwhile that the dirty ranges in node.flushing belong to a flusher.
package volume

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/fs/rows"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/routine"
)

// Options are the settings of one opening of a volume; zero values mean the
// defaults given.
type Options struct {
	DirtyBytes int64            // memory for written bytes that are not yet stored; 64 MiB
	Nodes      int              // inodes kept in memory; 65,536
	Names      int              // names of directories kept in memory; 131,072
	Now        func() time.Time // the clock; the one that the kernel stamps files with
	NoAtime    bool             // reads leave the access time alone
	Snapshots  SnapshotsShown   // who sees .snapshots
	Logger     *slog.Logger
}

// A Volume is the live filesystem of a store. All methods are safe for
// concurrent use.
type Volume struct {
	store *store.Store
	db    *meta.DB
	opts  Options
	log   *slog.Logger
	life  lifetime

	table        nodeTable    // inodes in memory
	tree         nameTree     // directories
	files        fileMap      // bytes of files
	xattrs       xattrs       // extended attributes
	flusher      flusher      // from dirty ranges to blocks
	materializer materializer // rows of clones
	reaper       reaper       // of what has no name any more
	prefetcher   prefetcher   // blocks that will be read
	snapshots    snapshotter
	views        views // what is seen of snapshots

	known    kernelRefs
	numbers  inodeNumbers
	counters counters
	tracker  tracker
	unkept   unkept
}

// A lifetime ends in two steps: closing, when what waits or takes long gives up, and stop, when the
// goroutines of the volume end.
type lifetime struct {
	closing context.Context // ends when Close begins
	close   context.CancelFunc
	stop    chan struct{}
	stopped sync.WaitGroup
}

// Open opens the volume of a store, makes its root directory when there is
// none, and takes up what a crash left: staged bytes and orphans.
func Open(st *store.Store, o Options) (*Volume, error) {
	if o.DirtyBytes == 0 {
		o.DirtyBytes = 64 << 20
	}
	if o.Nodes == 0 {
		o.Nodes = 65536
	}
	if o.Names == 0 {
		o.Names = 131072
	}
	if o.Now == nil {
		o.Now = kernelTime
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.NoAtime = o.NoAtime || st.ReadOnly()
	ck := st.Chunker()
	v := &Volume{store: st, db: st.DB(), opts: o, log: o.Logger}
	v.files.chunker, v.files.span = ck, meta.PageSpan(ck.Avg(), ck.Max())
	v.xattrs.directory = DirectoryKey(st.Path())
	v.life.stop = make(chan struct{})
	v.life.closing, v.life.close = context.WithCancel(context.Background())
	v.prefetcher.spans = make(chan inodeSpan, 1)
	v.table.init(o.Nodes, o.Names)
	v.views.nodes, v.views.snaps = make(map[meta.Ino]*virtual), make(map[store.ID]*snapView)
	v.flusher.now, v.reaper.now = make(chan struct{}, 1), make(chan struct{}, 1)
	v.flusher.dirty.init()
	v.flusher.v, v.reaper.v, v.materializer.v, v.files.v, v.xattrs.v, v.snapshots.v, v.views.v = v, v, v, v, v, v, v
	v.tree.v, v.tracker.v, v.prefetcher.v, v.table.reader.v = v, v, v, v
	v.known.init(v.db, v.reaper.now)
	v.flusher.budget.init(o.DirtyBytes, v.flusher.now)
	if err := v.load(); err != nil {
		return nil, fmt.Errorf("open volume: %w", err)
	}
	v.numbers.generation = max(1, v.counters.saved.Generation)
	// Before the goroutines: what they change belongs into the commits.
	st.Join(v)
	v.life.stopped.Add(4)
	go v.flusher.run()
	go v.flusher.runCoalescer()
	go v.reaper.run()
	go v.prefetcher.run()
	if !st.ReadOnly() {
		routine.Kick(v.reaper.now)
	}
	return v, nil
}

func (v *Volume) load() error {
	b, err := v.db.Get(meta.CounterKey())
	switch {
	case meta.IsNotFound(err):
		return v.format()
	case err != nil:
		return err
	}
	if v.counters.saved, err = meta.DecodeCounters(b); err != nil {
		return err
	}
	v.numbers.next.Store(v.counters.saved.Next)
	v.counters.set(&v.counters.saved)
	if v.counters.saved.Form != meta.CountsData {
		if err := v.counters.countAgain(v.store, v.log); err != nil {
			return err
		}
	}
	// Nobody knows them any more, so all of them are reaped.
	err = v.db.ScanPrefix(meta.OrphanPrefix(), func(key, _ []byte) error {
		ino, err := meta.KeyIno(key)
		v.known.addOrphan(ino)
		return err
	})
	if err != nil {
		return err
	}
	if err := v.tracker.load(); err != nil {
		return err
	}
	return v.flusher.loadStaged()
}

// format makes the root directory; it belongs to whoever makes the volume.
func (v *Volume) format() error {
	v.numbers.next.Store(meta.FirstIno)
	v.counters.saved.Generation = meta.NewGeneration()
	now := v.Now()
	root := nodeOf(meta.Root, meta.Inode{
		Mode: syscall.S_IFDIR | 0o755, Nlink: 2, Parent: meta.Root,
		UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()),
		Atime: now, Mtime: now, Ctime: now, Btime: now,
	})
	root.ext.absent = true
	v.table.names.keep(root, newDirectory())
	// Nothing is durable yet: a crash finds no counters, and makes the root again.
	return v.store.Update(func() error {
		v.table.insertNew(root)
		v.counters.inodes.Store(1)
		root.mu.Lock()
		defer root.mu.Unlock()
		v.flusher.markChanged(root)
		return nil
	})
}

// Close flushes everything, commits and leaves the store open.
func (v *Volume) Close() error {
	v.life.close()
	v.snapshots.mu.Lock() // a snapshot under way gives up
	defer v.snapshots.mu.Unlock()
	close(v.life.stop)
	v.life.stopped.Wait()
	// Programs may go on with a mount that was detached. So the volume stays in
	// the store's commits, the last among them: rows of theirs without the nodes and counters
	// that belong to them would be half a change.
	return v.store.Commit()
}

// Store returns the store that the volume is in.
func (v *Volume) Store() *store.Store { return v.store }

// Rows reads the volume's rows, as of the last commit where nothing else is said.
func (v *Volume) Rows() rows.Reader { return rows.Of(v.store) }

// Sync makes all that was written before the call durable (I8).
func (v *Volume) Sync() error {
	if err := v.store.Commit(); err != nil {
		return err
	}
	_, err := v.flusher.held.last()
	return err
}

// kernelTime reads the clock that the kernel takes a cached file's times from.
// It lags the exact one by up to a tick; with the exact one a file could be
// modified before it was made.
func kernelTime() time.Time {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &ts); err != nil {
		return time.Now()
	}
	return time.Unix(ts.Unix())
}

// Now reads the volume's clock.
func (v *Volume) Now() meta.Time {
	t := v.opts.Now()
	return meta.Time{Sec: t.Unix(), Nsec: uint32(t.Nanosecond())}
}

// LimitDirty changes the memory for written bytes that are not yet stored; whoever is
// over it waits.
func (v *Volume) LimitDirty(bytes int64) { v.flusher.budget.setLimit(bytes) }

// DirtyBytes returns the memory that written bytes hold.
func (v *Volume) DirtyBytes() int64 { return v.flusher.budget.bytes() }

// Stats tells what the volume holds.
type Stats struct {
	Inodes       int64 `json:"inodes"`
	LogicalBytes int64 `json:"logical_bytes"` // sizes of all regular files
	DataBytes    int64 `json:"data_bytes"`    // of these, what is in no hole, and in blocks
	StagedBytes  int64 `json:"staged_bytes"`
	DirtyBytes   int64 `json:"dirty_bytes"`
	DirtyLimit   int64 `json:"dirty_limit_bytes"`
	CachedNodes  int   `json:"cached_inodes"`
	KnownNodes   int   `json:"inodes_known_to_kernel"`
	Orphans      int   `json:"unlinked_open_inodes"`
}

// Stats returns the volume's figures at this moment.
func (v *Volume) Stats() Stats {
	known, orphans := v.known.counts()
	return Stats{
		Inodes: v.counters.inodes.Load(), LogicalBytes: v.counters.logical.Load(), DataBytes: v.counters.data.Load(), StagedBytes: v.flusher.staged.Load(),
		DirtyBytes: v.DirtyBytes(), DirtyLimit: v.flusher.budget.limit.Load(), CachedNodes: v.table.count(), KnownNodes: known, Orphans: orphans,
	}
}

// Space tells how much room the store takes and has.
type Space struct {
	Used, Free int64 // bytes
	Inodes     int64
}

// Space returns what statfs(2) reports. Free is what may still be written.
func (v *Volume) Space() Space {
	used, free := v.store.Space()
	return Space{used, free, v.counters.inodes.Load()}
}
