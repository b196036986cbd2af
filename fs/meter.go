package fs

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/quarxtor/quarxfs/fs/volume"
)

type opCode int

const (
	opLookup opCode = iota
	opForget
	opGetAttr
	opStatx
	opSetAttr
	opReadlink
	opSymlink
	opMknod
	opMkdir
	opUnlink
	opRmdir
	opRename
	opLink
	opOpen
	opRead
	opWrite
	opStatFs
	opFsync
	opSetXattr
	opGetXattr
	opListXattr
	opRemoveXattr
	opFlush
	opOpenDir
	opReadDir
	opReadDirPlus
	opFsyncDir
	opCreate
	opTmpfile
	opFallocate
	opLseek
	opCopyFileRange
	opIoctl
	opCount
)

var opNames = [opCount]string{
	"lookup", "forget", "getattr", "statx", "setattr", "readlink", "symlink", "mknod", "mkdir", "unlink", "rmdir",
	"rename", "link", "open", "read", "write", "statfs", "fsync", "setxattr", "getxattr", "listxattr", "removexattr",
	"flush", "opendir", "readdir", "readdirplus", "fsyncdir", "create", "tmpfile", "fallocate", "lseek",
	"copy_file_range", "ioctl",
}

func (o opCode) String() string { return opNames[o] }

// A Meter counts requests by kind and times them.
type Meter struct {
	ops [opCount]struct {
		n  atomic.Uint64
		mu sync.Mutex
		h  *hdrhistogram.Histogram // microseconds
	}
}

func newMeter() *Meter { return &Meter{} }

func (m *Meter) count(op opCode) { m.ops[op].n.Add(1) }

// time counts a request; the function it returns records how long it took.
func (m *Meter) time(op opCode) func() {
	start := time.Now()
	return func() {
		o := &m.ops[op]
		o.n.Add(1)
		us := time.Since(start).Microseconds()
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.h == nil {
			o.h = hdrhistogram.New(1, time.Hour.Microseconds(), 2)
		}
		_ = o.h.RecordValue(us) // longer than an hour is not recorded
	}
}

// Stats tells how many requests of each kind came and how long they took.
type Stats struct {
	Requests  map[string]uint64         `json:"requests"`
	Latencies map[string]volume.Latency `json:"latencies"`
}

// Stats returns the counts since the mount.
func (m *Meter) Stats() Stats {
	s := Stats{Requests: make(map[string]uint64), Latencies: make(map[string]volume.Latency)}
	for i := range m.ops {
		o := &m.ops[i]
		if n := o.n.Load(); n > 0 {
			s.Requests[opNames[i]] = n
		}
		o.mu.Lock()
		if o.h != nil {
			s.Latencies[opNames[i]] = volume.Summarize(o.h)
		}
		o.mu.Unlock()
	}
	return s
}
