package fs

import (
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/quarxtor/quarxfs/fs/volume"
)

// For a file handle of a directory that the kernel has forgotten, it asks for the directory itself
// and for its "..", lists what that is to find the name, looks that up, and so on up to a directory
// that it knows. The root directory does not list .snapshots; whoever is on that way sees it
// there once.

// reconnects has the threads that have asked where .snapshots is and are about to list the root.
type reconnects struct {
	mu      sync.Mutex
	threads map[uint32]struct{}
}

// maxReconnects bounds the threads that have asked and never come to a look-up.
const maxReconnects = 1024

// begin notes that a thread is on its way from .snapshots to the root.
func (r *reconnects) begin(thread uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.threads) >= maxReconnects {
		clear(r.threads)
	}
	if r.threads == nil {
		r.threads = make(map[uint32]struct{})
	}
	r.threads[thread] = struct{}{}
}

func (r *reconnects) under(thread uint32) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.threads[thread]
	return ok
}

// end notes that the thread has found the name, and reports whether it was on its way.
func (r *reconnects) end(thread uint32) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.threads[thread]
	delete(r.threads, thread)
	return ok
}

// reconnect answers what the kernel asks for a file handle of an inode that it has
// forgotten: "." is the inode itself, ".." the directory that it is in. A path never
// comes here with these names; the kernel walks them by itself.
func (f *filesystem) reconnect(h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	node := ino(h)
	if name == ".." {
		if inSnapshots(h.NodeId) {
			f.reconnects.begin(h.Pid)
			f.dropListing(volume.Root) // the kernel's own copy lacks .snapshots
		}
		var err error
		if node, err = f.vol.Parent(node); err != nil {
			return f.status("lookup", err)
		}
	}
	a, err := f.vol.Reconnect(node)
	if err != nil {
		return f.status("lookup", err)
	}
	f.fillEntry(a, out) // Reconnect has counted the look-up
	return fuse.OK
}

// foundSnapshots is called when .snapshots is looked up: the listing that led there is not to be
// shown to others.
func (f *filesystem) foundSnapshots(h *fuse.InHeader) {
	if f.reconnects.end(h.Pid) {
		f.dropListing(volume.Root)
	}
}

// readDir lists a directory for a thread.
func (f *filesystem) readDir(in *fuse.ReadIn, fn func(volume.Entry) bool) error {
	list := f.vol.ReadDir
	if ino(&in.InHeader) == volume.Root && f.reconnects.under(in.Pid) {
		list = f.vol.ReadDirWithSnapshots
	}
	return list(ino(&in.InHeader), in.Offset, fn)
}

// dropListing has the kernel forget its copy of a directory's listing. It may hold the directory's
// lock for the request that is being answered; forgetting does not need it.
func (f *filesystem) dropListing(dir volume.Ino) {
	if f.server == nil {
		return
	}
	if st := f.server.InodeNotify(uint64(dir), 0, 0); !st.Ok() && st != fuse.ENOENT {
		f.log.Debug("the kernel did not forget a listing", "inode", uint64(dir), "status", st)
	}
}
