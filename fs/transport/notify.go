package transport

import (
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// InodeNotify has the kernel forget what it caches of an inode: its attributes, and its pages of n
// bytes from off, which it first writes back; 0 stands for all that follow, and a negative off for
// the attributes alone. ENOENT: it does not know the inode.
func (s *Server) InodeNotify(node uint64, off, n int64) fuse.Status {
	return notify(s, fuse.NOTIFY_INVAL_INODE, &fuse.NotifyInvalInodeOut{Ino: node, Off: off, Length: n}, "")
}

// EntryNotify has the kernel forget a name. It takes the directory's lock: never to be called for a
// request that may hold it. ENOENT: it does not know the name.
func (s *Server) EntryNotify(parent uint64, name string) fuse.Status {
	return notify(s, fuse.NOTIFY_INVAL_ENTRY, &fuse.NotifyInvalEntryOut{Parent: parent, NameLen: uint32(len(name))}, name+"\x00")
}

func notify[T any](s *Server, code int32, body *T, name string) fuse.Status {
	head := fuse.OutHeader{Status: -code} // go-fuse has them negative
	iov := [][]byte{bytesOf(&head), bytesOf(body)}
	if name != "" {
		iov = append(iov, []byte(name))
	}
	for _, b := range iov {
		head.Length += uint32(len(b))
	}
	s.close.RLock()
	defer s.close.RUnlock()
	if s.close.closed {
		return fuse.Status(unix.ENODEV)
	}
	for {
		_, err := unix.Writev(s.fd, iov)
		if err != unix.EINTR {
			return fuse.ToStatus(err)
		}
	}
}

func bytesOf[T any](v *T) []byte { return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v)) }
