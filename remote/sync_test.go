package remote_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/remote/remotetest"
	"github.com/quarxtor/quarxfs/store"
)

// A site is a store with a node on it, whose volume has someFiles.
type site struct{ remotetest.Site }

func newSite(t testing.TB, o store.Options) site {
	return site{remotetest.NewSite(t, o, remote.Environment{Files: someFiles})}
}

func TestImportRefusals(t *testing.T) {
	eachNode(t, func(t *testing.T, n remote.Node) {
		ctx := t.Context()
		lease, err := n.NewLease(ctx, "test")
		if err != nil {
			t.Fatal(err)
		}
		src := newSite(t, store.Options{})
		one := src.Plant(t, "one", 1)
		record := func(id store.ID) (r store.Record) {
			if err := src.Node.Records(ctx, []store.ID{id}, func(got store.Record) error {
				r, r.Payload = got, bytes.Clone(got.Payload)
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			return r
		}
		snap := record(one)
		wrong, short, kind, long := snap, snap, snap, snap
		wrong.Payload = bytes.Clone(snap.Payload)
		wrong.Payload[len(wrong.Payload)/2] ^= 1
		short.RawLen--
		kind.Kind = store.KindData
		long.RawLen = store.MaxBlock
		plain := []byte("\x00not a vertex at all")
		id, err := src.Store.Put(store.KindTree, plain)
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
		if has, err := n.Keep(ctx, lease, []store.ID{one, id}); err != nil || has[0] || has[1] {
			t.Errorf("something was stored: %v, %v", has, err)
		}
		if err := n.EndLease(ctx, lease); err != nil {
			t.Error(err)
		}
		if _, err := n.Keep(ctx, lease, nil); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("a lease that has ended: %v", err)
		}
		if err := n.LinkSnapshot(ctx, "nothing", one); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("a snapshot that is not there: %v", err)
		}
		if err := n.Records(ctx, []store.ID{one}, func(store.Record) error { return nil }); !errors.Is(err, store.ErrNotFound) {
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
			lease, err := b.Node.NewLease(t.Context(), "test")
			if err != nil {
				t.Fatal(err)
			}
			err = b.Node.PutRecords(t.Context(), lease, func(put func(store.Record) error) error {
				return c.Records(t.Context(), []store.ID{asked}, put)
			})
			if err == nil {
				t.Error("it was taken")
			}
			if has, err := b.Node.Keep(t.Context(), lease, []store.ID{asked}); err != nil || has[0] {
				t.Errorf("it is there: %v, %v", has, err)
			}
		})
	}
	b.Sound(t)
}

// FuzzSyncRequests sends bytes of any kind to all that sync decodes.
func FuzzSyncRequests(f *testing.F) {
	f.Add([]byte{})
	f.Add(frame(0, 0, 0, 0, store.ID{}, nil))
	f.Add(frame(1, 0, 3, 3, store.ID{1}, []byte("abc")))
	f.Add(frame(4, 1, 1<<24, 9, store.ID{1}, []byte("abcdefghi")))
	f.Add(make([]byte, 64))
	s := newSite(f, store.Options{})
	h := remote.Handler(s.Node, slog.New(slog.DiscardHandler))
	lease, err := s.Node.NewLease(context.Background(), "fuzz")
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
