package volume

import (
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/fs/rows"
	"github.com/quarxtor/quarxfs/graph"
)

// A node is an inode in memory. Its fields but the first three are guarded by mu. Its states:
//
//	clean           nodeTable may drop it when nobody uses it
//	attrChanged     -> its record differs from the row [markDirty]     -> saved by a cut [save]
//	enqueued        -> it is in flusher.dirty [enqueueDirty]           -> [save]
//	tracked         -> the next snapshot looks at it [tracker.change]  -> that is made
//	Nlink == 0      -> an orphan [orphan]              -> a name again [unorphan], or reaping
//	reaping         -> nobody reads, names or materializes it any more [reapStep, removeNames,
//	                   abandonLazy]; there is no way back
//	gone            -> its rows are removed [reapStep]; who still holds it gets ENOENT
//	busy            -> a flusher has its extents, and flushing [writeBlocks, coalesce]; who would
//	                   change extents waits [quiesce]. mu is released meanwhile
//	attr.IsLazy()   -> names or bytes are in a vertex [newLazy]   -> rows of its own [endLazy]
//	frozen             it is in a snapshot, for ever: no row, no change
//
// A node is enqueued, or has dirty ranges, staged slots or overlay extents, or is clean; only a
// clean one leaves the table.
type node struct {
	ino   meta.Ino
	users atomic.Int32 // callers that hold the node; it stays in the table meanwhile
	snapshotNode

	mu   sync.Mutex
	attr meta.Inode

	tracked     uint64 // the epoch in which a change was last noted for the next snapshot
	attrChanged bool
	enqueued    bool // in flusher.dirty
	reaping     bool
	gone        bool

	ext extents
	unstored
	names
	progress
}

// snapshotNode is what a node in a snapshot has besides; it does not change.
type snapshotNode struct {
	frozen    bool      // it is in a snapshot, or the directory of these: it is not to be changed
	view      *snapView // the snapshot
	xattrLink graph.Link
	xattrs    []graph.Xattr // guarded by mu: they may be read from xattrLink first
	placed
}

// unstored is what a file has that is not in blocks as it is to be.
type unstored struct {
	dirty    dirtyRanges
	flushing dirtyRanges // taken by the flusher, older than dirty
	busy     bool
	idle     sync.Cond           // busy became false
	growing  bool                // the last flush left the tail of a stream in dirty
	staged   map[uint64]int      // slots with a staged row -> bytes in it
	written  time.Time           // last write, to know what is quiet
	overlaid map[uint64]struct{} // pages of extents that are to be coalesced
}

// names are what is known of a directory's names.
type names struct {
	dir     *directory  // all of them, in memory; nil: not loaded
	asked   int         // look-ups since it was dropped
	listEnd uint64      // positions from here on are newer than the last listing's start; 0: not listed yet
	tree    *graph.Tree // where names are in a tree, once it was looked into
}

// progress is how far a lazy directory has been materialized.
type progress struct {
	materializing    bool // materialized is where to go on
	materialized     string
	materializedSums graph.Sums // over the names before
}

func (n *node) isDir() bool { return n.attr.Mode&syscall.S_IFMT == syscall.S_IFDIR }
func (n *node) isReg() bool { return n.attr.Mode&syscall.S_IFMT == syscall.S_IFREG }

// quiesce waits until no flusher owns the node's extents. mu is held.
func (n *node) quiesce() {
	for n.busy {
		n.idle.Wait()
	}
}

// editIn runs fn on an inode, locked, as one indivisible change: a Change or a Removal of the
// store. ENOENT: the inode is not there, or not any more.
func (v *Volume) editIn(change func(func() error) error, ino meta.Ino, fn func(n *node) error) error {
	n, err := v.get(ino)
	if err != nil {
		return err
	}
	defer n.release()
	if n.frozen {
		return syscall.EROFS
	}
	return change(func() error {
		// Inside the store's lock, so that a commit never sees half a change.
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.gone {
			return syscall.ENOENT
		}
		return fn(n)
	})
}

func (n *node) release() { n.users.Add(-1) }

// get returns the node of an inode; the caller calls release when done with
// it. ENOENT: there is no such inode.
func (v *Volume) get(ino meta.Ino) (*node, error) {
	for {
		n, evictions := v.table.cached(ino)
		if n != nil {
			return n, nil
		}
		n, err := v.readNode(ino)
		if err != nil {
			return nil, err
		}
		// Else nodes were dropped since the row was read, and it may be older than one of them:
		// read again.
		if n, ok := v.table.insert(n, evictions); ok {
			return n, nil
		}
	}
}

func (v *Volume) readNode(ino meta.Ino) (*node, error) {
	if isVirtual(ino) {
		return v.views.readVirtual(ino)
	}
	attr, err := rows.Inode(v.db, ino)
	if err != nil {
		return nil, err
	}
	return nodeOf(ino, attr), nil
}

func nodeOf(ino meta.Ino, attr meta.Inode) *node {
	n := &node{ino: ino, attr: attr}
	n.idle.L = &n.mu
	return n
}

// Known tells the volume that the kernel learned of an inode, once for every
// reply that names it. It reports false for a number that leads into no snapshot.
func (v *Volume) Known(ino meta.Ino) bool {
	if isVirtual(ino) {
		return v.views.known(ino, 1)
	}
	v.known.learn(ino)
	return true
}

// Reconnect finds an inode by its number alone, as a file handle names it, and counts
// as Known. ENOENT, ESTALE: there is none, or it has no name and nobody knows it.
func (v *Volume) Reconnect(ino meta.Ino) (Attr, error) {
	// Known first: from there on the reaper leaves the inode alone. If it has begun
	// before, no name is left to be seen.
	if !v.Known(ino) && !v.views.revive(ino) {
		return Attr{}, syscall.ESTALE // what the table still has of it is not kept by a pin
	}
	a, err := v.Attr(ino)
	if err == nil && a.Nlink == 0 {
		err = syscall.ENOENT
	}
	if err != nil {
		v.Forget(ino, 1)
		return Attr{}, err
	}
	return a, nil
}

// Parent returns the directory that a directory is in. ENOENT: it was removed.
func (v *Volume) Parent(ino meta.Ino) (meta.Ino, error) {
	n, err := v.get(ino)
	if err != nil {
		return 0, err
	}
	defer n.release()
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case !n.isDir():
		return 0, syscall.ENOTDIR
	case n.attr.Nlink == 0:
		return 0, syscall.ENOENT
	}
	return n.attr.Parent, nil
}

// Forget takes back count calls of Known. An inode that has no name and that
// nobody knows is removed soon.
func (v *Volume) Forget(ino meta.Ino, count uint64) {
	if isVirtual(ino) {
		v.views.known(ino, -int64(count))
		return
	}
	v.known.forget(ino, count)
}
