package snapread

import (
	"context"
	"fmt"
	"io"
	"strings"
	"syscall"

	"golang.org/x/sync/errgroup"

	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/store"
)

// A Reader is where snapshots can be read without a copy of them: here, or on
// another machine.
type Reader interface {
	GetSnapshot(ctx context.Context, name string) (remote.Snapshot, error)
	Records(ctx context.Context, ids []store.ID, fn func(store.Record) error) error
}

// ReadFile writes length bytes of a file in a snapshot, from off on, to w; a
// negative length means up to the end, and what would be beyond it is left out.
// Only the vertices on the way and the blocks of these bytes are asked for, in
// batches of which several are under way, and each is checked against its ID.
// Symbolic links are not followed. Errors: store.ErrNotFound of the snapshot or
// path, store.ErrRange, remote.ErrRequest of what is no file, store.ErrCorrupt; what w
// got before is good.
func ReadFile(ctx context.Context, from Reader, snapshot, path string, off, length int64, w io.Writer) error {
	src := recordSource{from}
	e, err := lookUpFile(ctx, src, snapshot, path)
	if err != nil {
		return fmt.Errorf("%s:/%s: %w", snapshot, path, err)
	}
	if off < 0 || off > e.Size {
		return fmt.Errorf("%s:/%s has %d bytes, not %d: %w", snapshot, path, e.Size, off, store.ErrRange)
	}
	// Compared without a sum, which could overflow.
	if length < 0 || length > e.Size-off {
		length = e.Size - off
	}
	if length == 0 {
		return nil
	}
	if err := src.write(ctx, e, off, length, w); err != nil {
		return fmt.Errorf("%s:/%s: %w", snapshot, path, err)
	}
	return nil
}

// A recordSource gets blocks as records. It is a graph.Source.
type recordSource struct{ Reader }

// Get implements graph.Source.
func (s recordSource) Get(ctx context.Context, id store.ID) ([]byte, error) {
	blocks, err := s.all(ctx, []store.ID{id})
	if err != nil {
		return nil, err
	}
	return blocks[0], nil
}

// all returns blocks in the order of their IDs, at most remote.MaxBatch.
func (s recordSource) all(ctx context.Context, ids []store.ID) (blocks [][]byte, err error) {
	err = s.Records(ctx, ids, func(r store.Record) error {
		plain, err := store.Unpack(&r) // checks it
		blocks = append(blocks, plain)
		return err
	})
	if err == nil && len(blocks) != len(ids) {
		err = fmt.Errorf("%d of %d blocks came: %w", len(blocks), len(ids), remote.ErrCut)
	}
	return blocks, err
}

// lookUpFile finds a regular file in a snapshot.
func lookUpFile(ctx context.Context, src recordSource, snapshot, path string) (graph.Entry, error) {
	described, err := src.GetSnapshot(ctx, snapshot)
	if err != nil {
		return graph.Entry{}, err
	}
	s, err := graph.GetSnapshot(ctx, src, described.ID)
	if err != nil {
		return graph.Entry{}, err
	}
	e := s.Root
	for name := range strings.SplitSeq(path, "/") {
		if name == "" || name == "." {
			continue
		}
		if !e.IsDir() {
			return e, fmt.Errorf("%s: %w", what(&e), store.ErrNotFound)
		}
		if e, err = graph.OpenTree(src, e.Link.ID, graph.Directory).Lookup(ctx, name); err != nil {
			return e, err
		}
	}
	if e.Ident != 0 {
		// Its entry in the directory says no more than its identity.
		e, err = graph.OpenTree(src, s.Table, graph.LinkTable).Lookup(ctx, graph.TableKey(e.Ident))
	}
	if err == nil && !e.IsFile() {
		err = fmt.Errorf("%w: it is %s, not a file", remote.ErrRequest, what(&e))
	}
	return e, err
}

func what(e *graph.Entry) string {
	switch e.Type() {
	case syscall.S_IFDIR:
		return "a directory"
	case syscall.S_IFLNK:
		return fmt.Sprintf("a symbolic link to %q", e.Target)
	case syscall.S_IFREG:
		return "a file"
	}
	return "a device, socket or FIFO"
}

// How far reading goes ahead of what is written: aheadBatches batches of batchBytes
// plain bytes or batchBlocks blocks are in memory at most, and one more.
const (
	aheadBatches = 4
	batchBytes   = 4 << 20
	batchBlocks  = 256
)

// A batch is spans of a file that are fetched in one request.
type batch struct {
	spans  []graph.Span
	ids    []store.ID // of those that are no holes
	bytes  int64
	blocks chan [][]byte // gets them, or is never sent to when the group fails
}

// write has one goroutine walk the file's vertices, some fetch batches, and
// writes them in order.
func (s recordSource) write(ctx context.Context, e graph.Entry, off, length int64, w io.Writer) error {
	g, ctx := errgroup.WithContext(ctx)
	ordered := make(chan *batch, aheadBatches-1) // and one that is being written
	g.Go(func() error {
		defer close(ordered)
		return s.walk(ctx, e, off, length, func(b *batch) error {
			select {
			case ordered <- b:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			g.Go(func() error {
				blocks, err := s.all(ctx, b.ids)
				if err == nil {
					b.blocks <- blocks
				}
				return err
			})
			return nil
		})
	})
	g.Go(func() error {
		for b := range ordered {
			select {
			case blocks := <-b.blocks:
				if err := b.write(w, blocks); err != nil {
					return err
				}
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	})
	return g.Wait()
}

// walk calls fn for batches that tile a part of a file.
func (s recordSource) walk(ctx context.Context, e graph.Entry, off, length int64, fn func(*batch) error) error {
	newBatch := func() *batch { return &batch{blocks: make(chan [][]byte, 1)} }
	b := newBatch()
	err := graph.FileSpansFrom(ctx, s, e.Link, e.Size, off, func(x graph.Span) error {
		x.Len = min(x.Len, off+length-x.Off)
		b.spans = append(b.spans, x)
		if !x.Hole {
			b.ids = append(b.ids, x.ID)
			b.bytes += x.Len
		}
		// Holes count as spans: a file of nothing but holes would else make one batch without end.
		last := x.End() == off+length
		if last || b.bytes >= batchBytes || len(b.spans) >= batchBlocks {
			if err := fn(b); err != nil {
				return err
			}
			b = newBatch()
		}
		// The walk would go on to the end of the file.
		if last {
			return store.ErrStop
		}
		return nil
	})
	return err
}

func (b *batch) write(w io.Writer, blocks [][]byte) error {
	for _, x := range b.spans {
		if x.Hole {
			if _, err := io.CopyN(w, zeroes{}, x.Len); err != nil {
				return err
			}
			continue
		}
		block := blocks[0]
		blocks = blocks[1:]
		// The block has the bytes of its ID, but the vertex is another machine's word.
		if int64(x.Skip)+x.Len > int64(len(block)) {
			return fmt.Errorf("block %s of %d bytes is shorter than its vertex says: %w", x.ID.Short(), len(block), store.ErrCorrupt)
		}
		if _, err := w.Write(block[x.Skip:][:x.Len]); err != nil {
			return err
		}
	}
	return nil
}

// zeroes reads as zeroes without end.
type zeroes struct{}

func (zeroes) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}
