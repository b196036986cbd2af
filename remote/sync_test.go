package remote_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/store"
)

// A site is a store with a node on it.
type site struct {
	st   *store.Store
	node *remote.Local
}

func newSite(t testing.TB, o store.Options) site {
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
	return site{st, remote.NewLocal(st, remote.Surroundings{Files: someFiles})}
}

// serve returns a client of the site over TCP, through a handler around its own.
func (s site) serve(t testing.TB, around func(http.Handler) http.Handler) *remote.Client {
	h := remote.Handler(s.node, slog.New(slog.DiscardHandler))
	if around != nil {
		h = around(h)
	}
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	c := remote.NewClient(srv.URL, nil)
	t.Cleanup(c.Close)
	return c
}

// plant makes a snapshot of files of random bytes and returns its ID. Files with
// the same seed are equal.
func (s site) plant(t testing.TB, name string, seeds ...uint64) remote.Travel {
	t.Helper()
	release := s.st.Hold()
	defer release()
	names := make([]graph.Entry, 0, len(seeds))
	for i, seed := range seeds {
		var blocks [][]byte
		for k := range 3 {
			blocks = append(blocks, randomBytes(seed+uint64(k)*100, 20_000))
		}
		ids, err := s.st.PutAll(blocks)
		if err != nil {
			t.Fatal(err)
		}
		b := s.st.NewFileBuilder()
		for _, id := range ids {
			if err := b.Add(store.Part{ID: id, Len: 20_000}); err != nil {
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
	id := s.putSnapshot(t, names)
	if err := s.st.Update(func() error { return s.st.NameSnapshot(name, id) }); err != nil {
		t.Fatal(err)
	}
	if err := s.st.Commit(); err != nil {
		t.Fatal(err)
	}
	return remote.Travel{Name: name, ID: id}
}

func (s site) putSnapshot(t testing.TB, names []graph.Entry) store.ID {
	t.Helper()
	w := graph.NewWriter(s.st)
	defer w.Close()
	tree := graph.NewTreeBuilder(w, graph.Directory)
	var below graph.Sums
	for i := range names {
		if err := tree.Add(&names[i]); err != nil {
			t.Fatal(err)
		}
		below.Add(names[i].Sum(), 1)
	}
	root, err := tree.Finish()
	if err != nil {
		t.Fatal(err)
	}
	snap := graph.Snapshot{Volume: s.st.Config().VolumeID, Root: graph.Entry{
		Mode: syscall.S_IFDIR | 0o755, Entries: int64(len(names)), Below: below, Link: graph.Link{ID: root.ID, Kind: store.KindTree},
	}}
	plain, err := snap.Encode()
	if err != nil {
		t.Fatal(err)
	}
	id, err := s.st.Put(store.KindSnapshot, plain)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// sound sees that a store is whole.
func (s site) sound(t testing.TB) {
	t.Helper()
	r, err := s.st.Check(context.Background(), store.CheckOptions{Data: true})
	if err != nil || r.Count != 0 {
		t.Fatalf("check: %v, %v", r.Problems, err)
	}
}

// below returns all that a snapshot has.
func (s site) below(t testing.TB, id store.ID) map[store.ID]bool {
	t.Helper()
	all := make(map[store.ID]bool)
	err := graph.Walk{}.From(context.Background(), s.st, []store.ID{id}, func(v graph.Vertex) error {
		all[v.ID] = true
		_, err := s.st.Get(context.Background(), v.ID)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func seeds(from, n int) (list []uint64) {
	for i := range n {
		list = append(list, uint64(from+i))
	}
	return list
}

// eachWay runs a test with both sides here, with a remote destination, and with a
// remote source.
func eachWay(t *testing.T, test func(t *testing.T, a, b site, from, to remote.Peer)) {
	for _, way := range []string{"here", "push", "pull"} {
		t.Run(way, func(t *testing.T) {
			a, b := newSite(t, store.Options{}), newSite(t, store.Options{})
			var from, to remote.Peer = a.node, b.node
			switch way {
			case "push":
				to = b.serve(t, nil)
			case "pull":
				from = a.serve(t, nil)
			}
			test(t, a, b, from, to)
		})
	}
}

func transfer(from, to remote.Peer, travels ...remote.Travel) remote.Transfer {
	return remote.Transfer{From: from, To: to, Snapshots: travels, Whose: "test"}
}

func TestSyncBringsAll(t *testing.T) {
	eachWay(t, func(t *testing.T, a, b site, from, to remote.Peer) {
		one := a.plant(t, "one", seeds(0, 40)...)
		done, err := transfer(from, to, one).Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		want := a.below(t, one.ID)
		if diff := cmp.Diff(want, b.below(t, one.ID)); diff != "" {
			t.Error(diff)
		}
		if done.Blocks != int64(len(want)) || done.Snapshots != 1 {
			t.Errorf("%d blocks travelled of %d; %+v", done.Blocks, len(want), done)
		}
		if r, err := b.st.Snapshot("one"); err != nil || r.ID != one.ID {
			t.Errorf("the name: %+v, %v", r, err)
		}
		// Nothing travels twice, and of what changed only that.
		if again, err := transfer(from, to, one).Run(t.Context()); err != nil || again.Blocks != 0 {
			t.Errorf("again: %+v, %v", again, err)
		}
		two := a.plant(t, "two", append(seeds(0, 39), 77)...)
		tr := transfer(from, to, one, two)
		tr.Base = []store.ID{one.ID}
		more, err := tr.Run(t.Context())
		if more.Skipped > 5 {
			t.Errorf("with a base, %d blocks were asked for and there", more.Skipped)
		}
		if err != nil || more.Blocks == 0 || more.Blocks > 3+1+2+1 { // blocks, file, trees, snapshot
			t.Errorf("a change of one file: %+v, %v", more, err)
		}
		for _, s := range []site{a, b} {
			if _, err := s.st.Sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
			s.sound(t)
			if l := s.st.Leases(); len(l) != 0 {
				t.Errorf("leases are left: %v", l)
			}
		}
		b.below(t, two.ID)
	})
}

func TestSyncNames(t *testing.T) {
	eachWay(t, func(t *testing.T, a, b site, from, to remote.Peer) {
		mine, other := a.plant(t, "x", 1), b.plant(t, "x", 2)
		if _, err := transfer(from, to, mine).Run(t.Context()); !errors.Is(err, store.ErrNameTaken) {
			t.Errorf("a name that is another snapshot's: %v", err)
		}
		if r, _ := b.st.Snapshot("x"); r.ID != other.ID {
			t.Error("the name has moved")
		}
		if err := to.Disown(t.Context(), "x", mine.ID); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("disown of another one: %v", err)
		}
		if err := to.Disown(t.Context(), "x", other.ID); err != nil {
			t.Error(err)
		}
		if err := to.Adopt(t.Context(), "a/b", mine.ID); err == nil {
			t.Error("a name with a slash")
		}
	})
}

// The destination sweeps all the time, and has dropped what it is told that it
// keeps.
func TestSweepDuringSync(t *testing.T) {
	a, b := newSite(t, store.Options{}), newSite(t, store.Options{SweepInterval: time.Millisecond, CommitInterval: 2 * time.Millisecond})
	one := a.plant(t, "one", seeds(0, 60)...)
	shared := b.plant(t, "shared", seeds(0, 30)...)
	dropped := make(chan error, 1)
	var once sync.Once
	to := b.serve(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h.ServeHTTP(w, r)
			if strings.HasSuffix(r.URL.Path, "/keep") {
				time.Sleep(5 * time.Millisecond)
			}
			if strings.HasSuffix(r.URL.Path, "/records") {
				once.Do(func() { dropped <- b.st.RemoveSnapshot(shared.Name) })
				time.Sleep(5 * time.Millisecond) // for some sweeps
			}
		})
	})
	if _, err := transfer(a.node, to, one).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-dropped; err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(a.below(t, one.ID), b.below(t, one.ID)); diff != "" {
		t.Error(diff)
	}
	b.sound(t)
}

// Three stores push much the same to a fourth at once.
func TestPushesAtOnce(t *testing.T) {
	dest := newSite(t, store.Options{SweepInterval: 5 * time.Millisecond})
	to := dest.serve(t, nil)
	var wg sync.WaitGroup
	var want [3]map[store.ID]bool
	var travels [3]remote.Travel
	for i := range want {
		src := newSite(t, store.Options{})
		travels[i] = src.plant(t, fmt.Sprint("from", i), append(seeds(0, 30), uint64(50+i))...)
		want[i] = src.below(t, travels[i].ID)
		wg.Go(func() {
			if _, err := transfer(src.node, to, travels[i]).Run(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i := range want {
		if diff := cmp.Diff(want[i], dest.below(t, travels[i].ID)); diff != "" {
			t.Error(diff)
		}
	}
	dest.sound(t)
}

// Connections break at random; what has come does not travel again.
func TestCutConnections(t *testing.T) {
	eachWay(t, func(t *testing.T, a, b site, _, _ remote.Peer) {
		if strings.HasSuffix(t.Name(), "here") {
			return // nothing can be cut
		}
		one := a.plant(t, "one", seeds(0, 150)...)
		rng, mu := rand.New(rand.NewPCG(1, 2)), sync.Mutex{}
		cuts := atomic.Int64{}
		cut := func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				breaks := strings.HasSuffix(r.URL.Path, "/records") && cuts.Load() < 5 && rng.IntN(3) == 0
				mu.Unlock()
				if breaks {
					cuts.Add(1)
					r.Body = struct {
						io.Reader
						io.Closer
					}{io.LimitReader(r.Body, 100_000), r.Body}
					w = &cutWriter{w, 100_000}
					defer func() { panic(http.ErrAbortHandler) }()
				}
				h.ServeHTTP(w, r)
			})
		}
		var from, to remote.Peer = a.node, b.serve(t, cut)
		if strings.HasSuffix(t.Name(), "pull") {
			from, to = a.serve(t, cut), b.node
		}
		tr := transfer(from, to, one)
		tr.Streams, tr.Wait = 2, func(int) time.Duration { return time.Millisecond }
		done, err := tr.Run(t.Context())
		if err != nil || done.Retries == 0 {
			t.Fatalf("%+v, %v", done, err)
		}
		want := a.below(t, one.ID)
		if diff := cmp.Diff(want, b.below(t, one.ID)); diff != "" {
			t.Error(diff)
		}
		// A cut costs what was in flight: two parcels and perhaps the vertices.
		if most := int64(len(want)) + done.Retries*400; done.Blocks > most {
			t.Errorf("%d blocks travelled for %d, with %d retries", done.Blocks, len(want), done.Retries)
		}
		b.sound(t)
	})
}

type cutWriter struct {
	http.ResponseWriter
	left int
}

func (c *cutWriter) Write(b []byte) (int, error) {
	if c.left -= len(b); c.left < 0 {
		return 0, errors.New("cut")
	}
	return c.ResponseWriter.Write(b)
}

func (c *cutWriter) Unwrap() http.ResponseWriter { return c.ResponseWriter }

func TestImportRefusals(t *testing.T) {
	eachNode(t, func(t *testing.T, n remote.Node) {
		ctx := t.Context()
		lease, err := n.NewLease(ctx, "test")
		if err != nil {
			t.Fatal(err)
		}
		src := newSite(t, store.Options{})
		one := src.plant(t, "one", 1)
		record := func(id store.ID) (r store.Record) {
			if err := src.node.Records(ctx, []store.ID{id}, func(got store.Record) error {
				r, r.Payload = got, bytes.Clone(got.Payload)
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			return r
		}
		snap := record(one.ID)
		wrong, short, kind, long := snap, snap, snap, snap
		wrong.Payload = bytes.Clone(snap.Payload)
		wrong.Payload[len(wrong.Payload)/2] ^= 1
		short.RawLen--
		kind.Kind = store.KindData
		long.RawLen = store.MaxBlock
		plain := []byte("\x00not a vertex at all")
		id, err := src.st.Put(store.KindTree, plain)
		if err != nil {
			t.Fatal(err)
		}
		misfit := record(id)
		for name, c := range map[string]struct {
			r    store.Record
			want error
		}{
			"wrong bytes": {wrong, store.ErrCorrupt}, "wrong length": {short, store.ErrCorrupt}, "wrong kind": {kind, store.ErrCorrupt},
			"too long": {long, store.ErrCorrupt}, "links that are not there": {snap, store.ErrNotFound}, "no vertex": {misfit, store.ErrCorrupt},
		} {
			err := n.PutRecords(ctx, lease, func(put func(store.Record) error) error { return put(c.r) })
			if !errors.Is(err, c.want) {
				t.Errorf("%s: %v, want %v", name, err, c.want)
			}
		}
		if has, err := n.Keep(ctx, lease, []store.ID{one.ID, id}); err != nil || has[0] || has[1] {
			t.Errorf("something was stored: %v, %v", has, err)
		}
		if err := n.EndLease(ctx, lease); err != nil {
			t.Error(err)
		}
		if _, err := n.Keep(ctx, lease, nil); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("a lease that has ended: %v", err)
		}
		if err := n.Adopt(ctx, "nothing", one.ID); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("a snapshot that is not there: %v", err)
		}
		if err := n.Records(ctx, []store.ID{one.ID}, func(store.Record) error { return nil }); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("a block that is not there: %v", err)
		}
		if _, err := n.Keep(ctx, lease, make([]store.ID, remote.MaxBatch+1)); !errors.Is(err, remote.ErrRequest) {
			t.Errorf("too many IDs: %v", err)
		}
	})
}

// frame makes a record as it is on the wire.
func frame(kind, codec byte, raw, stored uint32, id store.ID, payload []byte) []byte {
	b := []byte{kind, codec}
	b = binary.LittleEndian.AppendUint32(b, raw)
	b = binary.LittleEndian.AppendUint32(b, stored)
	b = append(b, id[:]...)
	return append(b, payload...)
}

// A hostile source sends what was not asked for, without end, or lies about
// lengths. The client ends in bounded time and memory and stores nothing of it.
func TestHostileSource(t *testing.T) {
	b := newSite(t, store.Options{})
	asked := store.ID{1}
	for name, answer := range map[string]func(w io.Writer){
		"wrong bytes":     func(w io.Writer) { _, _ = w.Write(frame(1, 0, 3, 3, asked, []byte("abc"))) },
		"another block":   func(w io.Writer) { _, _ = w.Write(frame(1, 0, 3, 3, store.ID{2}, []byte("abc"))) },
		"a huge length":   func(w io.Writer) { _, _ = w.Write(frame(1, 0, 1<<31, 1<<31, asked, nil)) },
		"stored over raw": func(w io.Writer) { _, _ = w.Write(frame(1, 0, 1, 1<<20, asked, nil)) },
		"a huge failure":  func(w io.Writer) { _, _ = w.Write(frame(255, 0, 0, 1<<31, store.ID{}, nil)) },
		"none":            func(w io.Writer) { _, _ = w.Write(frame(0, 0, 0, 0, store.ID{}, nil)) },
		"cut":             func(w io.Writer) { _, _ = w.Write(frame(1, 0, 3, 3, asked, nil)) },
		"endless": func(w io.Writer) {
			for {
				if _, err := w.Write(frame(1, 0, 3, 3, asked, []byte("abc"))); err != nil {
					return
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { answer(w) }))
			defer srv.Close()
			c := remote.NewClient(srv.URL, nil)
			defer c.Close()
			lease, err := b.node.NewLease(t.Context(), "test")
			if err != nil {
				t.Fatal(err)
			}
			err = b.node.PutRecords(t.Context(), lease, func(put func(store.Record) error) error {
				return c.Records(t.Context(), []store.ID{asked}, put)
			})
			if err == nil {
				t.Error("it was taken")
			}
			if has, err := b.node.Keep(t.Context(), lease, []store.ID{asked}); err != nil || has[0] {
				t.Errorf("it is there: %v, %v", has, err)
			}
		})
	}
	b.sound(t)
}

func TestHeal(t *testing.T) {
	a, b := newSite(t, store.Options{}), newSite(t, store.Options{CacheBytes: 1})
	one := a.plant(t, "one", seeds(0, 5)...)
	if _, err := transfer(a.node, b.node, one).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	var bad []store.ID
	for id := range b.below(t, one.ID) {
		bad = append(bad, id)
	}
	healed, err := remote.Heal(t.Context(), a.serve(t, nil), b.node, append(bad, store.ID{1}), func(store.ID) {})
	if err != nil || healed != len(bad) {
		t.Errorf("healed %d of %d: %v", healed, len(bad), err)
	}
	b.sound(t)
}

// FuzzSyncRequests sends bytes of any kind to all that sync decodes.
func FuzzSyncRequests(f *testing.F) {
	f.Add([]byte{})
	f.Add(frame(0, 0, 0, 0, store.ID{}, nil))
	f.Add(frame(1, 0, 3, 3, store.ID{1}, []byte("abc")))
	f.Add(frame(4, 1, 1<<24, 9, store.ID{1}, []byte("abcdefghi")))
	f.Add(make([]byte, 64))
	s := newSite(f, store.Options{})
	h := remote.Handler(s.node, slog.New(slog.DiscardHandler))
	lease, err := s.node.NewLease(context.Background(), "fuzz")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, path := range []string{"/records", "/keep"} {
			do(t, h, http.MethodPost, "/v1/sync/leases/"+lease.String()+path, body)
		}
		do(t, h, http.MethodPost, "/v1/sync/records", body)
		do(t, h, http.MethodPut, "/v1/sync/snapshots/x", body)
		do(t, h, http.MethodPost, "/v1/sync/leases/"+fmt.Sprintf("%x", body[:min(16, len(body))])+"/keep", nil)
	})
}

func do(t *testing.T, h http.Handler, method, path string, body []byte) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, path, bytes.NewReader(body)))
	if w.Code == http.StatusInternalServerError && !strings.Contains(w.Body.String(), `"corrupt"`) {
		t.Errorf("%s %s with %x: %d %s", method, path, body, w.Code, w.Body)
	}
}
