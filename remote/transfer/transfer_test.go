package transfer_test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/remote/remotetest"
	"github.com/quarxtor/quarxfs/remote/transfer"
	"github.com/quarxtor/quarxfs/store"
)

func newSite(t testing.TB, o store.Options) remotetest.Site {
	return remotetest.NewSite(t, o, remote.Environment{})
}

func plant(t testing.TB, s remotetest.Site, name string, seeds ...uint64) transfer.SnapshotRef {
	t.Helper()
	return transfer.SnapshotRef{Name: name, ID: s.Plant(t, name, seeds...)}
}

func seeds(from, n int) (list []uint64) {
	for i := range n {
		list = append(list, uint64(from+i))
	}
	return list
}

// eachWay runs a test with both sides here, with a remote destination, and with a
// remote source.
func eachWay(t *testing.T, test func(t *testing.T, a, b remotetest.Site, from, to remote.Peer)) {
	for _, way := range []string{"here", "push", "pull"} {
		t.Run(way, func(t *testing.T) {
			a, b := newSite(t, store.Options{}), newSite(t, store.Options{})
			var from, to remote.Peer = a.Node, b.Node
			switch way {
			case "push":
				to = b.Serve(t, nil)
			case "pull":
				from = a.Serve(t, nil)
			}
			test(t, a, b, from, to)
		})
	}
}

func newTransfer(from, to remote.Peer, snapshots ...transfer.SnapshotRef) transfer.Transfer {
	return transfer.Transfer{From: from, To: to, Snapshots: snapshots, Whose: "test"}
}

func TestSyncBringsAll(t *testing.T) {
	eachWay(t, func(t *testing.T, a, b remotetest.Site, from, to remote.Peer) {
		one := plant(t, a, "one", seeds(0, 40)...)
		done, err := newTransfer(from, to, one).Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		want := a.Below(t, one.ID)
		if diff := cmp.Diff(want, b.Below(t, one.ID)); diff != "" {
			t.Error(diff)
		}
		if done.Blocks != int64(len(want)) || done.Snapshots != 1 {
			t.Errorf("%d blocks travelled of %d; %+v", done.Blocks, len(want), done)
		}
		if r, err := b.Store.Snapshot("one"); err != nil || r.ID != one.ID {
			t.Errorf("the name: %+v, %v", r, err)
		}
		// Nothing travels twice, and of what changed only that.
		if again, err := newTransfer(from, to, one).Run(t.Context()); err != nil || again.Blocks != 0 {
			t.Errorf("again: %+v, %v", again, err)
		}
		two := plant(t, a, "two", append(seeds(0, 39), 77)...)
		tr := newTransfer(from, to, one, two)
		tr.Base = []store.ID{one.ID}
		more, err := tr.Run(t.Context())
		if more.Skipped > 5 {
			t.Errorf("with a base, %d blocks were asked for and there", more.Skipped)
		}
		if err != nil || more.Blocks == 0 || more.Blocks > 3+1+2+1 { // blocks, file, trees, snapshot
			t.Errorf("a change of one file: %+v, %v", more, err)
		}
		for _, s := range []remotetest.Site{a, b} {
			if _, err := s.Store.Sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
			s.Sound(t)
			if l := s.Store.Leases(); len(l) != 0 {
				t.Errorf("leases are left: %v", l)
			}
		}
		b.Below(t, two.ID)
		// The snapshots that came say what is new in them; here only what is put here is.
		if got := b.Store.Stats().Totals.Appended; got != (store.Appended{}) {
			t.Errorf("what came counts as stored here: %+v", got)
		}
		plant(t, b, "own", seeds(0, 41)...)
		if err := b.Store.Commit(); err != nil {
			t.Fatal(err)
		}
		if got := b.Store.Stats().Totals.Appended; got.Blocks == 0 || got.Blocks > 3 {
			t.Errorf("of one more file: %+v", got)
		}
	})
}

func TestSyncNames(t *testing.T) {
	eachWay(t, func(t *testing.T, a, b remotetest.Site, from, to remote.Peer) {
		mine, other := plant(t, a, "x", 1), plant(t, b, "x", 2)
		if _, err := newTransfer(from, to, mine).Run(t.Context()); !errors.Is(err, store.ErrNameTaken) {
			t.Errorf("a name that is another snapshot's: %v", err)
		}
		if r, _ := b.Store.Snapshot("x"); r.ID != other.ID {
			t.Error("the name has moved")
		}
		if err := to.UnlinkSnapshot(t.Context(), "x", mine.ID); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("unlink of another one: %v", err)
		}
		if err := to.UnlinkSnapshot(t.Context(), "x", other.ID); err != nil {
			t.Error(err)
		}
		if err := to.LinkSnapshot(t.Context(), "a/b", mine.ID); err == nil {
			t.Error("a name with a slash")
		}
	})
}

// The destination sweeps all the time, and has dropped what it is told that it
// keeps.
func TestSweepDuringSync(t *testing.T) {
	a, b := newSite(t, store.Options{}), newSite(t, store.Options{SweepInterval: time.Millisecond, CommitInterval: 2 * time.Millisecond})
	one := plant(t, a, "one", seeds(0, 60)...)
	shared := plant(t, b, "shared", seeds(0, 30)...)
	dropped := make(chan error, 1)
	var once sync.Once
	to := b.Serve(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h.ServeHTTP(w, r)
			if strings.HasSuffix(r.URL.Path, "/keep") {
				time.Sleep(5 * time.Millisecond)
			}
			if strings.HasSuffix(r.URL.Path, "/records") {
				once.Do(func() { dropped <- b.Store.RemoveSnapshot(shared.Name) })
				time.Sleep(5 * time.Millisecond) // for some sweeps
			}
		})
	})
	if _, err := newTransfer(a.Node, to, one).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-dropped; err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(a.Below(t, one.ID), b.Below(t, one.ID)); diff != "" {
		t.Error(diff)
	}
	b.Sound(t)
}

// Three stores push much the same to a fourth at once.
func TestPushesAtOnce(t *testing.T) {
	dest := newSite(t, store.Options{SweepInterval: 5 * time.Millisecond})
	to := dest.Serve(t, nil)
	var wg sync.WaitGroup
	var want [3]map[store.ID]bool
	var travels [3]transfer.SnapshotRef
	for i := range want {
		src := newSite(t, store.Options{})
		travels[i] = plant(t, src, fmt.Sprint("from", i), append(seeds(0, 30), uint64(50+i))...)
		want[i] = src.Below(t, travels[i].ID)
		wg.Go(func() {
			if _, err := newTransfer(src.Node, to, travels[i]).Run(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i := range want {
		if diff := cmp.Diff(want[i], dest.Below(t, travels[i].ID)); diff != "" {
			t.Error(diff)
		}
	}
	dest.Sound(t)
}

// Connections break at random; what has come does not travel again.
func TestCutConnections(t *testing.T) {
	eachWay(t, func(t *testing.T, a, b remotetest.Site, _, _ remote.Peer) {
		if strings.HasSuffix(t.Name(), "here") {
			return // nothing can be cut
		}
		one := plant(t, a, "one", seeds(0, 150)...)
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
		var from, to remote.Peer = a.Node, b.Serve(t, cut)
		if strings.HasSuffix(t.Name(), "pull") {
			from, to = a.Serve(t, cut), b.Node
		}
		tr := newTransfer(from, to, one)
		tr.Streams, tr.Wait = 2, func(int) time.Duration { return time.Millisecond }
		done, err := tr.Run(t.Context())
		if err != nil || done.Retries == 0 {
			t.Fatalf("%+v, %v", done, err)
		}
		want := a.Below(t, one.ID)
		if diff := cmp.Diff(want, b.Below(t, one.ID)); diff != "" {
			t.Error(diff)
		}
		// A cut costs what was in flight: two batches and perhaps the vertices.
		if most := int64(len(want)) + done.Retries*400; done.Blocks > most {
			t.Errorf("%d blocks travelled for %d, with %d retries", done.Blocks, len(want), done.Retries)
		}
		b.Sound(t)
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

func TestRestoreBlocks(t *testing.T) {
	a, b := newSite(t, store.Options{}), newSite(t, store.Options{CacheBytes: 1})
	one := plant(t, a, "one", seeds(0, 5)...)
	if _, err := newTransfer(a.Node, b.Node, one).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	var bad []store.ID
	for id := range b.Below(t, one.ID) {
		bad = append(bad, id)
	}
	restored, err := transfer.RestoreBlocks(t.Context(), a.Serve(t, nil), b.Node, append(bad, store.ID{1}), func(store.ID) {})
	if err != nil || restored != len(bad) {
		t.Errorf("restored %d of %d: %v", restored, len(bad), err)
	}
	b.Sound(t)
}
