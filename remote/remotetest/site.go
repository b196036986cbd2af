// Package remotetest makes stores with nodes on them, for tests.
package remotetest

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"syscall"
	"testing"
	"time"

	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/remote/serve"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/config"
	"github.com/quarxtor/quarxfs/store/vertex"
)

// A Site is a store with a node on it.
type Site struct {
	Store *store.Store
	Node  *remote.Local
}

// NewSite makes a store of small blocks in a directory of the test.
func NewSite(t testing.TB, o store.Options, around remote.Environment) Site {
	t.Helper()
	dir := t.TempDir() + "/store"
	conf := store.DefaultConfig()
	conf.Chunker.Min, conf.Chunker.Avg, conf.Chunker.Max = 4<<10, 16<<10, 64<<10
	if err := store.Init(dir, conf); err != nil {
		t.Fatal(err)
	}
	o.MemTable, o.Ballast = 8<<20, -1
	st, err := store.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	return Site{st, remote.NewLocal(st, around)}
}

// Serve returns a client of the site over TCP, through a handler around its own.
func (s Site) Serve(t testing.TB, around func(http.Handler) http.Handler) *remote.Client {
	h := remote.Handler(s.Node, slog.New(slog.DiscardHandler))
	if around != nil {
		h = around(h)
	}
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	c := remote.NewClient(srv.URL, nil)
	t.Cleanup(c.Close)
	return c
}

// Front lets other machines in to the site, over TCP.
func (s Site) Front(t *testing.T, l serve.ListenOptions, g serve.MiddlewareOptions) *serve.Front {
	t.Helper()
	if l.Addr == "" {
		l.Addr = "127.0.0.1:0"
	}
	f, err := serve.Listen(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	g.Tokens, g.Log = s.Store.CheckToken, slog.New(slog.DiscardHandler)
	f.Serve(serve.NewMiddleware(s.Node, g), g.Log)
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // at once
		if err := f.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return f
}

// Token makes a token of the site and returns its secret.
func (s Site) Token(t *testing.T, name string, scopes ...config.Scope) string {
	t.Helper()
	secret, err := s.Store.CreateToken(name, scopes, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

// Plant makes a snapshot of files of random bytes and returns its ID. Files with
// the same seed are equal.
func (s Site) Plant(t testing.TB, name string, seeds ...uint64) store.ID {
	t.Helper()
	release := s.Store.Hold()
	defer release()
	names := make([]graph.Entry, 0, len(seeds))
	for i, seed := range seeds {
		var blocks [][]byte
		for k := range 3 {
			blocks = append(blocks, RandomBytes(seed+uint64(k)*100, 20_000))
		}
		ids, err := s.Store.PutAll(blocks)
		if err != nil {
			t.Fatal(err)
		}
		b := s.Store.NewFileBuilder()
		for _, id := range ids {
			if err := b.Add(vertex.Part{ID: id, Len: 20_000}); err != nil {
				t.Fatal(err)
			}
		}
		root, err := b.Finish()
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, graph.Entry{
			Name: fmt.Sprintf("f%04d", i), Mode: syscall.S_IFREG | 0o644, Size: root.Size, Data: root.Data,
			Link: graph.Link{ID: root.ID, Kind: store.KindFile},
		})
		b.Close()
	}
	id := s.PutSnapshot(t, names)
	if err := s.Store.Update(func() error { return s.Store.NameSnapshot(name, id) }); err != nil {
		t.Fatal(err)
	}
	if err := s.Store.Commit(); err != nil {
		t.Fatal(err)
	}
	return id
}

// PutSnapshot makes a snapshot of a root directory and returns its ID. The caller names it, or has
// paused the sweep, which would take it.
func (s Site) PutSnapshot(t testing.TB, names []graph.Entry) store.ID {
	t.Helper()
	release := s.Store.Hold()
	defer release()
	snap := graph.Snapshot{Volume: s.Store.Config().VolumeID, Root: s.Dir(t, names...)}
	plain, err := snap.Encode()
	if err != nil {
		t.Fatal(err)
	}
	id, err := s.Store.Put(store.KindSnapshot, plain)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// Dir makes a directory without a name of entries in order. The caller has paused the sweep.
func (s Site) Dir(t testing.TB, names ...graph.Entry) graph.Entry {
	t.Helper()
	return Dir(t, s.Store, names...)
}

// Dir makes a directory without a name of entries in order.
func Dir(t testing.TB, to graph.Sink, names ...graph.Entry) graph.Entry {
	t.Helper()
	tree := graph.NewTreeBuilder(to, graph.Directory)
	dir := graph.Entry{Mode: syscall.S_IFDIR | 0o755, Entries: int64(len(names))}
	for i := range names {
		if err := tree.Add(&names[i]); err != nil {
			t.Fatal(err)
		}
		dir.Below.Add(names[i].Sum(), 1)
		if names[i].IsDir() {
			dir.Subdirs++
		}
	}
	root, err := tree.Finish()
	if err != nil {
		t.Fatal(err)
	}
	dir.Link = graph.Link{ID: root.ID, Kind: store.KindTree}
	return dir
}

// Chain makes directories one in the other, so many deep.
func Chain(t testing.TB, to graph.Sink, depth int) graph.Entry {
	dir := Dir(t, to)
	for range depth {
		dir.Name = "d"
		dir = Dir(t, to, dir)
	}
	return dir
}

// Doubling makes directories that have the next one twice, so many deep, with one file at the end.
func Doubling(t testing.TB, to graph.Sink, depth int) graph.Entry {
	id, err := to.Put(store.KindData, []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	dir := Dir(t, to, graph.Entry{Name: "f", Mode: syscall.S_IFREG | 0o644, Size: 1, Data: 1, Link: graph.Link{ID: id, Kind: store.KindData}})
	for range depth {
		a, b := dir, dir
		a.Name, b.Name = "a", "b"
		dir = Dir(t, to, a, b)
	}
	return dir
}

// PlantTree makes a snapshot of what the function makes, and names it.
func (s Site) PlantTree(t testing.TB, name string, names func(graph.Sink) []graph.Entry) store.ID {
	t.Helper()
	release := s.Store.Hold()
	defer release()
	id := s.PutSnapshot(t, names(s.Store))
	if err := s.Store.Update(func() error { return s.Store.NameSnapshot(name, id) }); err != nil {
		t.Fatal(err)
	}
	return id
}

// Sound sees that a store is whole.
func (s Site) Sound(t testing.TB) {
	t.Helper()
	r, err := s.Store.Check(context.Background(), store.CheckOptions{Data: true})
	if err != nil || r.Count != 0 {
		t.Fatalf("check: %v, %v", r.Problems, err)
	}
}

// Below returns all that a snapshot has.
func (s Site) Below(t testing.TB, id store.ID) map[store.ID]bool {
	t.Helper()
	all := make(map[store.ID]bool)
	err := graph.Walk{}.From(context.Background(), s.Store, []store.ID{id}, func(v graph.Vertex) error {
		all[v.ID] = true
		_, err := s.Store.Get(context.Background(), v.ID)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// RandomBytes returns n bytes that are the same for each seed.
func RandomBytes(seed uint64, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed)}).Read(b)
	return b
}
