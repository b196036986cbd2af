// Command faultfs shows a directory at a mountpoint and makes chosen operations on it fail, as a
// bad disk would. Operations are counted from 1. It says on standard output that it serves and
// which operations it failed, and at the end how many there were. SIGUSR1 mends the disk. It is
// for files that a program under test maps or hands to a library, where no other seam can be had.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/spf13/cobra"

	"github.com/quarxtor/quarxfs/tools/cli"
)

func main() { cli.Main(newCommand()) }

func newCommand() *cobra.Command {
	d := &faulty{}
	cmd := &cobra.Command{
		Use:   "faultfs [flags] DIR MOUNTPOINT",
		Short: "Show a directory at a mountpoint and fail chosen operations",
		Args:  cobra.ExactArgs(2),
		RunE:  func(cmd *cobra.Command, args []string) error { return d.serve(cmd.Context(), args[0], args[1]) },
	}
	f := cmd.Flags()
	f.Int64Var(&d.from, "from", 0, "first operation to fail; 0: none")
	f.Int64Var(&d.count, "count", 1, "how many to fail; 0: all from then on")
	f.StringSliceVar(&d.ops, "ops", nil, "`operations` that are counted, such as read,write,fsync; all if empty")
	f.IntVar(&d.errno, "errno", int(syscall.EIO), "the error's number")
	return cmd
}

// serve returns when the mount has gone; a signal takes it away.
func (d *faulty) serve(ctx context.Context, dir, mountpoint string) error {
	root, err := fs.NewLoopbackRoot(dir)
	if err != nil {
		return err
	}
	// Without passthrough and its own checks, the kernel brings every operation here to be counted.
	d.RawFileSystem = fs.NewNodeFS(root, &fs.Options{NullPermissions: true})
	server, err := fuse.NewServer(d, mountpoint, &fuse.MountOptions{
		Name: "faultfs", DirectMount: true, DisableXAttrs: true, MaxWrite: 1 << 20, DisabledCapabilities: fuse.CAP_PASSTHROUGH,
	})
	if err != nil {
		return err
	}
	healed := make(chan os.Signal, 1)
	signal.Notify(healed, syscall.SIGUSR1)
	go func() {
		for range healed {
			d.mended.Store(true)
		}
	}()
	defer context.AfterFunc(ctx, func() { _ = server.Unmount() })() // if busy, a second signal ends it
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
	if d.mended.Load() || len(d.ops) > 0 && !slices.Contains(d.ops, op) {
		return fuse.OK
	}
	// Counted also when nothing is to fail: a first run without faults says how many there are to
	// choose from.
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
