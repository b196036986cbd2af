package snapread_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"syscall"
	"testing"

	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/remote/remotetest"
	"github.com/quarxtor/quarxfs/remote/snapread"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/vertex"
)

// counted notes what is asked of a node.
type counted struct {
	remote.Node
	ids []store.ID
}

func (c *counted) Records(ctx context.Context, ids []store.ID, fn func(store.Record) error) error {
	c.ids = append(c.ids, ids...)
	return c.Node.Records(ctx, ids, fn)
}

func TestReadFile(t *testing.T) {
	s := remotetest.NewSite(t, store.Options{}, remote.Environment{})
	s.Plant(t, "monday", 1, 2)
	want := slices.Concat(remotetest.RandomBytes(2, 20_000), remotetest.RandomBytes(102, 20_000), remotetest.RandomBytes(202, 20_000))
	for name, n := range map[string]remote.Node{"local": s.Node, "http": s.Serve(t, nil)} {
		t.Run(name, func(t *testing.T) {
			for _, c := range []struct {
				off, length int64
				blocks      int // of the file
			}{
				{0, -1, 3}, {0, 1, 1}, {19_999, 1, 1}, {19_999, 2, 2}, {20_000, 20_000, 1}, {59_999, 100, 1}, {60_000, -1, 0}, {5, 0, 0}, {1, 1 << 40, 3},
			} {
				node := &counted{Node: n}
				var got bytes.Buffer
				if err := snapread.ReadFile(t.Context(), node, "monday", "f0001", c.off, c.length, &got); err != nil {
					t.Fatal(err)
				}
				part := want[c.off:]
				if c.length >= 0 {
					part = part[:min(c.length, int64(len(part)))]
				}
				if !bytes.Equal(got.Bytes(), part) {
					t.Errorf("from %d, %d bytes: %d came, not those of the file", c.off, c.length, got.Len())
				}
				wantIDs := 2 // snapshot and tree
				if c.blocks > 0 {
					wantIDs += 1 + c.blocks // file vertex
				}
				if len(node.ids) != wantIDs {
					t.Errorf("from %d, %d bytes: %d blocks were asked for, not %d", c.off, c.length, len(node.ids), wantIDs)
				}
			}
			for path, want := range map[string]error{
				"missing": store.ErrNotFound, "f0001/x": store.ErrNotFound, ".": remote.ErrRequest,
			} {
				if err := snapread.ReadFile(t.Context(), n, "monday", path, 0, -1, io.Discard); !errors.Is(err, want) {
					t.Errorf("%s: %v, want %v", path, err, want)
				}
			}
			if err := snapread.ReadFile(t.Context(), n, "tuesday", "f0001", 0, -1, io.Discard); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("no snapshot: %v", err)
			}
			if err := snapread.ReadFile(t.Context(), n, "monday", "f0001", 60_001, 1, io.Discard); !errors.Is(err, store.ErrRange) {
				t.Errorf("behind the end: %v", err)
			}
			full := errors.New("full")
			if err := snapread.ReadFile(t.Context(), n, "monday", "f0001", 0, -1, refusing{full}); !errors.Is(err, full) {
				t.Errorf("a writer that fails: %v", err)
			}
		})
	}
}

type refusing struct{ err error }

func (r refusing) Write([]byte) (int, error) { return 0, r.err }

// TestReadFileSparse reads a file of several levels, batches and holes, and no
// more of its vertices than is needed.
func TestReadFileSparse(t *testing.T) {
	s := remotetest.NewSite(t, store.Options{}, remote.Environment{})
	release := s.Store.Hold()
	b := s.Store.NewFileBuilder()
	var want []byte
	for i := range 3000 {
		block := remotetest.RandomBytes(uint64(i%50), 2000+i)
		id, err := s.Store.Put(store.KindData, block)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Add(vertex.Part{ID: id, Len: int64(len(block))}); err != nil {
			t.Fatal(err)
		}
		want = append(want, block...)
		if i%100 == 0 {
			if err := b.Add(vertex.Part{Hole: true, Len: 3000}); err != nil {
				t.Fatal(err)
			}
			want = append(want, make([]byte, 3000)...)
		}
	}
	root, err := b.Finish()
	if err != nil {
		t.Fatal(err)
	}
	id := s.PutSnapshot(t, []graph.Entry{{
		Name: "f", Mode: syscall.S_IFREG | 0o644, Size: root.Size, Data: root.Data, Link: graph.Link{ID: root.ID, Kind: store.KindFile},
	}})
	if err := s.Store.Update(func() error { return s.Store.NameSnapshot("s", id) }); err != nil {
		t.Fatal(err)
	}
	b.Close()
	release()
	n := &counted{Node: s.Serve(t, nil)}
	for _, off := range []int64{0, 2001, 4000, root.Size / 2, root.Size - 1} {
		for _, length := range []int64{1, 5000, 100_000} {
			n.ids = nil
			var got bytes.Buffer
			if err := snapread.ReadFile(t.Context(), n, "s", "f", off, length, &got); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Bytes(), want[off:min(off+length, root.Size)]) {
				t.Errorf("from %d, %d bytes: not those of the file", off, length)
			}
			if most := 6 + int(length)/2000; len(n.ids) > most {
				t.Errorf("from %d, %d bytes: %d blocks were asked for, more than %d", off, length, len(n.ids), most)
			}
		}
	}
	var got bytes.Buffer
	if err := snapread.ReadFile(t.Context(), s.Node, "s", "f", 0, -1, &got); err != nil || !bytes.Equal(got.Bytes(), want) {
		t.Errorf("whole: %d bytes, %v", got.Len(), err)
	}
}
