// Command faultfs shows a directory at a mountpoint and makes chosen operations
// on it fail, as a bad disk would:
//
//	faultfs [-from N] [-count K] [-ops read,write,...] [-errno 5] DIR MOUNTPOINT
//
// Operations are counted from 1. It says on standard output that it serves and
// which operations it failed, and at the end how many there were. SIGUSR1 mends
// the disk. It is for files that a program under test maps or hands to
// a library, where no other seam can be had.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "faultfs:", err)
		os.Exit(1)
	}
}

func run() error {
	d := &faulty{}
	flag.Int64Var(&d.from, "from", 0, "first operation to fail; 0: none")
	flag.Int64Var(&d.count, "count", 1, "how many to fail; 0: all from then on")
	ops := flag.String("ops", "", "operations that are counted, such as read,write,fsync; all")
	flag.IntVar(&d.errno, "errno", int(syscall.EIO), "the error's number")
	flag.Parse()
	if flag.NArg() != 2 {
		return errors.New("usage: faultfs [flags] DIR MOUNTPOINT")
	}
	if *ops != "" {
		d.ops = strings.Split(*ops, ",")
	}
	root, err := fs.NewLoopbackRoot(flag.Arg(0))
	if err != nil {
		return err
	}
	d.RawFileSystem = fs.NewNodeFS(root, &fs.Options{NullPermissions: true})
	server, err := fuse.NewServer(d, flag.Arg(1), &fuse.MountOptions{
		Name: "faultfs", DirectMount: true, DisableXAttrs: true, MaxWrite: 1 << 20, DisabledCapabilities: fuse.CAP_PASSTHROUGH,
	})
	if err != nil {
		return err
	}
	mend := make(chan os.Signal, 1)
	signal.Notify(mend, syscall.SIGUSR1)
	go func() {
		for range mend {
			d.mended.Store(true)
		}
	}()
	fmt.Println("serving")
	server.Serve()
	fmt.Println("operations:", d.seen.Load())
	return nil
}

// faulty is a filesystem that fails when it is its turn.
type faulty struct {
	fuse.RawFileSystem
	from, count int64
	ops         []string
	errno       int
	names       sync.Map // node -> the name that it was last looked up by
	seen        atomic.Int64
	mended      atomic.Bool
}

// fault says how an operation on a node, or on a name in it, ends.
func (d *faulty) fault(op string, in *fuse.InHeader, name string) fuse.Status {
	if d.mended.Load() || len(d.ops) > 0 && !contains(d.ops, op) {
		return fuse.OK
	}
	n := d.seen.Add(1)
	if d.from == 0 || n < d.from || d.count > 0 && n >= d.from+d.count {
		return fuse.OK
	}
	if known, ok := d.names.Load(in.NodeId); ok && name == "" {
		name = known.(string)
	}
	fmt.Println("failed:", n, op, name)
	return fuse.Status(d.errno)
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

func (d *faulty) Open(c <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if st := d.fault("open", &in.InHeader, ""); !st.Ok() {
		return st
	}
	return d.RawFileSystem.Open(c, in, out)
}

func (d *faulty) Create(c <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	if st := d.fault("create", &in.InHeader, name); !st.Ok() {
		return st
	}
	st := d.RawFileSystem.Create(c, in, name, out)
	d.names.Store(out.NodeId, name)
	return st
}

func (d *faulty) Lookup(c <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	st := d.RawFileSystem.Lookup(c, in, name, out)
	d.names.Store(out.NodeId, name)
	return st
}

func (d *faulty) Read(c <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	if st := d.fault("read", &in.InHeader, ""); !st.Ok() {
		return nil, st
	}
	return d.RawFileSystem.Read(c, in, buf)
}

func (d *faulty) Write(c <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	if st := d.fault("write", &in.InHeader, ""); !st.Ok() {
		return 0, st
	}
	return d.RawFileSystem.Write(c, in, data)
}

func (d *faulty) Fsync(c <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	if st := d.fault("fsync", &in.InHeader, ""); !st.Ok() {
		return st
	}
	return d.RawFileSystem.Fsync(c, in)
}

func (d *faulty) FsyncDir(c <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	if st := d.fault("fsyncdir", &in.InHeader, ""); !st.Ok() {
		return st
	}
	return d.RawFileSystem.FsyncDir(c, in)
}

func (d *faulty) Fallocate(c <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	if st := d.fault("fallocate", &in.InHeader, ""); !st.Ok() {
		return st
	}
	return d.RawFileSystem.Fallocate(c, in)
}

func (d *faulty) SetAttr(c <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	if st := d.fault("setattr", &in.InHeader, ""); !st.Ok() {
		return st
	}
	return d.RawFileSystem.SetAttr(c, in, out)
}

func (d *faulty) Rename(c <-chan struct{}, in *fuse.RenameIn, from, to string) fuse.Status {
	if st := d.fault("rename", &in.InHeader, to); !st.Ok() {
		return st
	}
	return d.RawFileSystem.Rename(c, in, from, to)
}

func (d *faulty) Unlink(c <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	if st := d.fault("unlink", in, name); !st.Ok() {
		return st
	}
	return d.RawFileSystem.Unlink(c, in, name)
}
