package fs

import (
	"sync/atomic"
	"time"

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
		n    atomic.Uint64
		took volume.Timer
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
		o.took.Add(time.Since(start))
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
		if l := o.took.Summary(); l.Count > 0 {
			s.Latencies[opNames[i]] = l
		}
	}
	return s
}
