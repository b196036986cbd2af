package snapfs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	nodefs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/fs"
	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/vertex"
)

var (
	_ nodefs.NodeLookuper    = (*node)(nil)
	_ nodefs.NodeReaddirer   = (*node)(nil)
	_ nodefs.NodeGetattrer   = (*node)(nil)
	_ nodefs.NodeOpener      = (*node)(nil)
	_ nodefs.NodeReader      = (*node)(nil)
	_ nodefs.NodeLseeker     = (*node)(nil)
	_ nodefs.NodeStatxer     = (*node)(nil)
	_ nodefs.NodeReadlinker  = (*node)(nil)
	_ nodefs.NodeGetxattrer  = (*node)(nil)
	_ nodefs.NodeListxattrer = (*node)(nil)
)

// Getattr implements fs.NodeGetattrer.
func (n *node) Getattr(_ context.Context, _ nodefs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	fs.FillSnapshotAttr(n.StableAttr().Ino, &n.entry, &out.Attr)
	return 0
}

// Statx implements fs.NodeStatxer.
func (n *node) Statx(_ context.Context, _ nodefs.FileHandle, _, _ uint32, out *fuse.StatxOut) syscall.Errno {
	fs.FillSnapshotStatx(n.StableAttr().Ino, &n.entry, &out.Statx)
	return 0
}

// Readlink implements fs.NodeReadlinker.
func (n *node) Readlink(context.Context) ([]byte, syscall.Errno) { return []byte(n.entry.Target), 0 }

// open returns a directory's tree. n.mu is held.
func (n *node) open() *graph.Tree {
	if n.tree == nil {
		n.tree = graph.OpenTree(n.view.f.src, n.entry.Link.ID, graph.Directory)
	}
	return n.tree
}

// Lookup implements fs.NodeLookuper.
func (n *node) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*nodefs.Inode, syscall.Errno) {
	if n.entry.Link.Kind == 0 {
		return nil, syscall.ENOENT
	}
	n.mu.Lock()
	e, err := n.open().Lookup(ctx, name)
	n.mu.Unlock()
	if errors.Is(err, store.ErrNotFound) {
		return nil, syscall.ENOENT
	}
	if err != nil {
		return nil, n.view.errno(ctx, "look up "+name, err)
	}
	return n.view.inode(ctx, &n.Inode, e, out)
}

// Readdir implements fs.NodeReaddirer.
func (n *node) Readdir(context.Context) (nodefs.DirStream, syscall.Errno) {
	return &stream{n: n}, 0
}

// A stream lists a directory, some entries at a time.
type stream struct {
	n     *node
	index int64
	batch []fuse.DirEntry
	done  bool
	errno syscall.Errno
}

const listBatch = 1024

// HasNext implements fs.DirStream.
func (s *stream) HasNext() bool {
	if len(s.batch) > 0 || s.done {
		return len(s.batch) > 0
	}
	n := s.n
	if n.entry.Link.Kind == 0 {
		s.done = true
		return false
	}
	// The tree caches vertices on its way and is not for two at once.
	n.mu.Lock()
	defer n.mu.Unlock()
	err := n.open().EachFrom(context.Background(), s.index, func(e *graph.Entry) error {
		s.batch = append(s.batch, fuse.DirEntry{Name: e.Name, Mode: e.Mode, Ino: n.view.number(n.StableAttr().Ino, e)})
		if len(s.batch) == listBatch {
			return store.ErrStop
		}
		return nil
	})
	s.index += int64(len(s.batch))
	s.done = len(s.batch) < listBatch
	if err != nil {
		s.errno = n.view.errno(context.Background(), "list a directory", err)
		s.done = true
		return true // Next has the error
	}
	return len(s.batch) > 0
}

// Next implements fs.DirStream.
func (s *stream) Next() (fuse.DirEntry, syscall.Errno) {
	if len(s.batch) == 0 {
		return fuse.DirEntry{}, s.errno
	}
	e := s.batch[0]
	s.batch = s.batch[1:]
	return e, 0
}

// Close implements fs.DirStream.
func (s *stream) Close() {}

// Open implements fs.NodeOpener. The kernel's pages stay across opens.
func (n *node) Open(_ context.Context, flags uint32) (nodefs.FileHandle, uint32, syscall.Errno) {
	if flags&syscall.O_ACCMODE != syscall.O_RDONLY {
		return nil, 0, syscall.EROFS
	}
	return nil, fuse.FOPEN_KEEP_CACHE, 0
}

// How far is read ahead of a file that is read from front to back: up to most
// bytes, asked for anew when less than half of these are left.
const most = 16 << 20

// Read implements fs.NodeReader.
func (n *node) Read(ctx context.Context, _ nodefs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	length := min(int64(len(dest)), n.entry.Size-off)
	if length <= 0 {
		return fuse.ReadResultData(nil), 0
	}
	list, err := n.readSpans(ctx, off, length)
	if err != nil {
		return nil, n.view.errno(ctx, "read", err)
	}
	// Asked for before this read's own blocks, so that both are fetched side by side.
	n.readAhead(off, length)
	blocks, err := n.view.f.src.GetAll(ctx, idsOf(list))
	if err != nil {
		return nil, n.view.errno(ctx, "read", err)
	}
	if err := copyOut(dest[:length], off, list, blocks); err != nil {
		return nil, n.view.errno(ctx, "read", err)
	}
	return fuse.ReadResultData(dest[:length]), 0
}

// Lseek implements fs.NodeLseeker: SEEK_DATA and SEEK_HOLE as lseek(2) says.
func (n *node) Lseek(ctx context.Context, _ nodefs.FileHandle, off uint64, whence uint32) (uint64, syscall.Errno) {
	if off >= uint64(n.entry.Size) {
		return 0, syscall.ENXIO
	}
	found := uint64(n.entry.Size) // the end is a hole
	err := graph.FileSpansFrom(ctx, n.view.f.src, n.entry.Link, n.entry.Size, int64(off), func(x graph.Span) error {
		if x.Hole != (whence == unix.SEEK_HOLE) {
			return nil
		}
		found = uint64(x.Off)
		return store.ErrStop
	})
	switch {
	case err != nil:
		return 0, n.view.errno(ctx, "lseek", err)
	case whence == unix.SEEK_DATA && found == uint64(n.entry.Size):
		return 0, syscall.ENXIO
	}
	return found, 0
}

// readSpans returns those that tile a part of the file.
func (n *node) readSpans(ctx context.Context, off, length int64) (list []graph.Span, err error) {
	err = graph.FileSpansFrom(ctx, n.view.f.src, n.entry.Link, n.entry.Size, off, func(x graph.Span) error {
		// The last one is cut, so that the spans tile the request to the byte.
		x.Len = min(x.Len, off+length-x.Off)
		list = append(list, x)
		if x.End() == off+length {
			return store.ErrStop
		}
		return nil
	})
	return list, err
}

func idsOf(list []graph.Span) []store.ID {
	ids := make([]store.ID, 0, len(list))
	for _, x := range list {
		if !x.Hole {
			ids = append(ids, x.ID)
		}
	}
	return ids
}

// copyOut puts the bytes of spans, which tile dest, into their places.
func copyOut(dest []byte, off int64, list []graph.Span, blocks [][]byte) error {
	for _, x := range list {
		to := dest[x.Off-off:][:x.Len]
		if x.Hole {
			clear(to)
			continue
		}
		block := blocks[0]
		blocks = blocks[1:]
		// Blocks come from another machine: what does not fit its vertex is no content.
		if int64(x.Skip)+x.Len > int64(len(block)) {
			return fmt.Errorf("block %s of %d bytes is shorter than its vertex says: %w", x.ID.Short(), len(block), store.ErrCorrupt)
		}
		copy(to, block[x.Skip:])
	}
	return nil
}

// readAhead has blocks fetched that a sequential reader will want.
func (n *node) readAhead(off, length int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	end := off + length
	// The kernel's own requests come side by side, a little out of order.
	if off > n.next+4*maxRequest || off < n.next-4*maxRequest {
		n.next, n.ahead = end, 0
		return
	}
	n.next = max(n.next, end)
	// Enough is on its way; asking anew for each request would make many small fetches.
	if n.ahead-n.next > most/2 {
		return
	}
	from, to := max(n.ahead, end), min(n.next+most, n.entry.Size)
	if off > 0 && from < to {
		n.ahead = to
		go n.fetch(from, to-from)
	}
}

func (n *node) fetch(off, length int64) {
	ctx := context.Background()
	list, err := n.readSpans(ctx, off, length)
	if err != nil {
		return // who reads there is told
	}
	for batch := range slices.Chunk(idsOf(list), 64) {
		if _, err := n.view.f.src.GetAll(ctx, batch); err != nil {
			return
		}
	}
}

// xattrs returns the extended attributes, by name.
func (n *node) xattrs(ctx context.Context) ([]graph.Xattr, error) {
	if n.entry.XattrLink.Kind == 0 {
		return n.entry.Xattrs, nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.xattr != nil {
		return n.xattr, nil
	}
	b, err := n.linked(ctx, n.entry.XattrLink)
	if err != nil {
		return nil, err
	}
	n.xattr, err = graph.DecodeXattrs(b)
	return n.xattr, err
}

// linked returns bytes that are stored apart: a block, or a file of them.
func (n *node) linked(ctx context.Context, link graph.Link) ([]byte, error) {
	src := n.view.f.src
	b, err := src.Get(ctx, link.ID)
	if err != nil || link.Kind == store.KindData {
		return b, err
	}
	v, err := vertex.DecodeFile(b)
	if err != nil {
		return nil, err
	}
	// The size is allocated below, and comes from the network.
	if v.Size > maxLinked {
		return nil, fmt.Errorf("extended attributes of %d bytes: %w", v.Size, store.ErrCorrupt)
	}
	var list []graph.Span
	if err := graph.FileSpans(ctx, src, link, v.Size, func(x graph.Span) error { list = append(list, x); return nil }); err != nil {
		return nil, err
	}
	blocks, err := src.GetAll(ctx, idsOf(list))
	if err != nil {
		return nil, err
	}
	out := make([]byte, v.Size)
	return out, copyOut(out, 0, list, blocks)
}

// maxLinked bounds the extended attributes of a file, in bytes.
const maxLinked = 64 << 20

// Getxattr implements fs.NodeGetxattrer.
func (n *node) Getxattr(ctx context.Context, name string, dest []byte) (uint32, syscall.Errno) {
	set, err := n.xattrs(ctx)
	if err != nil {
		return 0, n.view.errno(ctx, "getxattr", err)
	}
	i, ok := slices.BinarySearchFunc(set, name, func(x graph.Xattr, name string) int { return strings.Compare(x.Name, name) })
	if !ok {
		return 0, syscall.ENODATA
	}
	return give(dest, set[i].Value)
}

// Listxattr implements fs.NodeListxattrer.
func (n *node) Listxattr(ctx context.Context, dest []byte) (uint32, syscall.Errno) {
	set, err := n.xattrs(ctx)
	if err != nil {
		return 0, n.view.errno(ctx, "listxattr", err)
	}
	var list []byte
	for _, x := range set {
		list = append(append(list, x.Name...), 0)
	}
	return give(dest, list)
}

func give(dest, value []byte) (uint32, syscall.Errno) {
	if len(dest) < len(value) {
		return uint32(len(value)), syscall.ERANGE
	}
	return uint32(copy(dest, value)), 0
}
