// Package fs is the mount: it turns FUSE requests into volume calls. Methods
// decode, make one volume call and encode; what the calls mean is in
// fs/volume.
//
// The mount is handle-less: OPEN, CREATE, OPENDIR and FLUSH are refused with
// ENOSYS once, after which the kernel stops sending them and keeps its page
// cache across opens. A file's data lives until the kernel forgets the inode.
package fs

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/quarxtor/quarxfs/fs/transport"
	"github.com/quarxtor/quarxfs/fs/volume"
)

// cacheFor is how long the kernel may keep what it was told: this process is
// the only one that changes the volume.
const cacheFor = 24 * time.Hour

// filesystem answers the kernel's requests. Its methods are called
// concurrently.
type filesystem struct {
	fuse.RawFileSystem // refuses what is not answered here
	vol                *volume.Volume
	log                *slog.Logger
	meter              *Meter
	server             *transport.Server           // tells the kernel things; nil: it is not mounted
	sync               func(context.Context) error // has the kernel hand over what was written; or nil
	reconnects         reconnects
	logged             sync.Map // error texts already logged once
	loggedCount        atomic.Int64
}

func newFilesystem(v *volume.Volume, log *slog.Logger) *filesystem {
	return &filesystem{RawFileSystem: fuse.NewDefaultRawFileSystem(), vol: v, log: log, meter: newMeter()}
}

func (f *filesystem) String() string { return "quarxfs" }

// keepAttr is how long the kernel may keep an inode's attributes. While a file
// is open the kernel does not ask again how many blocks it has; a file that has
// none must not look empty all that time to programs that skip holes.
func keepAttr(a volume.Attr) time.Duration {
	if a.Blocks == 0 && a.Mode&syscall.S_IFMT == syscall.S_IFREG {
		return time.Second
	}
	return cacheFor
}

func (f *filesystem) entry(a volume.Attr, out *fuse.EntryOut) {
	f.vol.Known(a.Ino)
	f.fillEntry(a, out)
}

func (f *filesystem) fillEntry(a volume.Attr, out *fuse.EntryOut) {
	out.NodeId = uint64(a.Ino)
	if a.Ino != volume.Root { // the kernel has made that by itself, with none
		out.Generation = uint64(f.vol.GenerationOf(a.Ino))
	}
	out.SetEntryTimeout(cacheFor)
	out.SetAttrTimeout(keepAttr(a))
	fillAttr(a, &out.Attr)
}

func fillAttr(a volume.Attr, out *fuse.Attr) {
	*out = fuse.Attr{
		Ino: uint64(a.Ino), Size: uint64(a.Size), Blocks: uint64(a.Blocks), Mode: a.Mode, Nlink: a.Nlink,
		Owner: fuse.Owner{Uid: a.UID, Gid: a.GID}, Rdev: a.Rdev, Blksize: 4096,
		Atime: uint64(a.Atime.Sec), Atimensec: a.Atime.Nsec,
		Mtime: uint64(a.Mtime.Sec), Mtimensec: a.Mtime.Nsec,
		Ctime: uint64(a.Ctime.Sec), Ctimensec: a.Ctime.Nsec,
	}
}

func ino(h *fuse.InHeader) volume.Ino { return volume.Ino(h.NodeId) }
