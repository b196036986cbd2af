package remote_test

import (
	"errors"
	"math"
	"strings"
	"syscall"
	"testing"

	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/remote/remotetest"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/vertex"
)

// A wire collects what is put as records, to be sent in that order.
type wire struct{ records []store.Record }

// Put implements graph.Sink.
func (w *wire) Put(kind store.Kind, plain []byte) (store.ID, error) {
	id := store.ID(vertex.Sum(kind, plain))
	w.records = append(w.records, store.Record{ID: id, Kind: kind, RawLen: uint32(len(plain)), Payload: plain})
	return id, nil
}

// send sends all, a part at a time.
func (w *wire) send(t *testing.T, n remote.Peer) error {
	t.Helper()
	lease, err := n.NewLease(t.Context(), "test")
	if err != nil {
		t.Fatal(err)
	}
	for len(w.records) > 0 {
		part := w.records[:min(1000, len(w.records))]
		w.records = w.records[len(part):]
		err := n.PutRecords(t.Context(), lease, func(put func(store.Record) error) error {
			for _, r := range part {
				if err := put(r); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// file makes an entry of a file of two blocks of 1,000 bytes, as the function has altered its
// vertex and the entry.
func (w *wire) file(alter func(v *vertex.File, e *graph.Entry)) graph.Entry {
	a, _ := w.Put(store.KindData, remotetest.RandomBytes(1, 1000))
	b, _ := w.Put(store.KindData, remotetest.RandomBytes(2, 1000))
	v := vertex.File{Size: 2000, Data: 2000, Parts: []vertex.Part{{ID: a, Len: 1000}, {ID: b, Len: 1000}}}
	e := graph.Entry{Name: "f", Mode: syscall.S_IFREG | 0o644, Size: 2000, Data: 2000}
	alter(&v, &e)
	id, _ := w.Put(store.KindFile, v.Encode())
	e.Link = graph.Link{ID: id, Kind: store.KindFile}
	return e
}

// dir puts a directory in another one, as the function has altered its entry.
func (w *wire) dir(t *testing.T, alter func(e *graph.Entry)) {
	chain := remotetest.Chain(t, w, 2)
	chain.Name = "a"
	e := remotetest.Dir(t, w, chain, w.file(func(*vertex.File, *graph.Entry) {}))
	e.Name = "d"
	alter(&e)
	remotetest.Dir(t, w, e)
}

// TestContradictions sends vertices that contradict what they link to, or themselves: none is
// stored, and the error says that the record is bad. Sound ones of the same sort are.
func TestContradictions(t *testing.T) {
	block := func(w *wire, t *testing.T, size, data int64) {
		id, _ := w.Put(store.KindData, []byte("four"))
		remotetest.Dir(t, w, graph.Entry{Name: "f", Mode: syscall.S_IFREG, Size: size, Data: data, Link: graph.Link{ID: id, Kind: store.KindData}})
	}
	high := func(w *wire, alter func(v *vertex.File)) {
		e := w.file(func(*vertex.File, *graph.Entry) {})
		v := vertex.File{Height: 1, Size: 2000, Data: 2000, Parts: []vertex.Part{{ID: e.Link.ID, Len: 2000}}}
		alter(&v)
		_, _ = w.Put(store.KindFile, v.Encode())
	}
	snapshot := func(w *wire, t *testing.T, alter func(*graph.Snapshot)) {
		s := graph.Snapshot{Root: remotetest.Dir(t, w, w.file(func(*vertex.File, *graph.Entry) {}))}
		alter(&s)
		b, err := s.Encode()
		if err != nil {
			t.Fatal(err)
		}
		_, _ = w.Put(store.KindSnapshot, b)
	}
	for name, c := range map[string]struct {
		put   func(w *wire, t *testing.T)
		sound bool
	}{
		"a file":                  {func(w *wire, t *testing.T) { remotetest.Dir(t, w, w.file(func(*vertex.File, *graph.Entry) {})) }, true},
		"a file of one block":     {func(w *wire, t *testing.T) { block(w, t, 4, 4) }, true},
		"a directory":             {func(w *wire, t *testing.T) { w.dir(t, func(*graph.Entry) {}) }, true},
		"a high file":             {func(w *wire, _ *testing.T) { high(w, func(*vertex.File) {}) }, true},
		"a snapshot":              {func(w *wire, t *testing.T) { snapshot(w, t, func(*graph.Snapshot) {}) }, true},
		"the deepest directories": {func(w *wire, t *testing.T) { remotetest.Chain(t, w, graph.MaxDepth) }, true},
		"directories that double": {func(w *wire, t *testing.T) { remotetest.Doubling(t, w, 40) }, true},

		"a longer part than its block": {func(w *wire, _ *testing.T) {
			w.file(func(v *vertex.File, _ *graph.Entry) { v.Parts[0].Len, v.Size, v.Data = 1001, 2001, 2001 })
		}, false},
		"a part behind its block": {func(w *wire, _ *testing.T) { w.file(func(v *vertex.File, _ *graph.Entry) { v.Parts[1].Skip = 1 }) }, false},
		"a longer entry": {func(w *wire, t *testing.T) {
			remotetest.Dir(t, w, w.file(func(_ *vertex.File, e *graph.Entry) { e.Size = 2001 }))
		}, false},
		"a shorter entry": {func(w *wire, t *testing.T) {
			remotetest.Dir(t, w, w.file(func(_ *vertex.File, e *graph.Entry) { e.Size, e.Data = 1999, 1999 }))
		}, false},
		"less data": {func(w *wire, t *testing.T) {
			remotetest.Dir(t, w, w.file(func(_ *vertex.File, e *graph.Entry) { e.Data = 7 }))
		}, false},
		"a longer block":       {func(w *wire, t *testing.T) { block(w, t, 100, 100) }, false},
		"a shorter block":      {func(w *wire, t *testing.T) { block(w, t, 3, 3) }, false},
		"a hole in a block":    {func(w *wire, t *testing.T) { block(w, t, 4, 3) }, false},
		"a longer high part":   {func(w *wire, _ *testing.T) { high(w, func(v *vertex.File) { v.Parts[0].Len, v.Size = 2001, 2001 }) }, false},
		"another height":       {func(w *wire, _ *testing.T) { high(w, func(v *vertex.File) { v.Height = 2 }) }, false},
		"less data below":      {func(w *wire, _ *testing.T) { high(w, func(v *vertex.File) { v.Data = 1 }) }, false},
		"more entries":         {func(w *wire, t *testing.T) { w.dir(t, func(e *graph.Entry) { e.Entries++ }) }, false},
		"fewer directories":    {func(w *wire, t *testing.T) { w.dir(t, func(e *graph.Entry) { e.Subdirs-- }) }, false},
		"2^63-1 files":         {func(w *wire, t *testing.T) { w.dir(t, func(e *graph.Entry) { e.Below.Files = math.MaxInt64 }) }, false},
		"less below":           {func(w *wire, t *testing.T) { w.dir(t, func(e *graph.Entry) { e.Below.Bytes-- }) }, false},
		"other links below":    {func(w *wire, t *testing.T) { w.dir(t, func(e *graph.Entry) { e.Below.Linked++ }) }, false},
		"too deep":             {func(w *wire, t *testing.T) { remotetest.Chain(t, w, graph.MaxDepth+2) }, false},
		"a root of more files": {func(w *wire, t *testing.T) { snapshot(w, t, func(s *graph.Snapshot) { s.Root.Below.Files++ }) }, false},
		"a directory as link table": {func(w *wire, t *testing.T) {
			snapshot(w, t, func(s *graph.Snapshot) { s.Table = s.Root.Link.ID })
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			var w wire
			c.put(&w, t)
			err := w.send(t, newSite(t, store.Options{}).Node)
			if c.sound && err != nil || !c.sound && !errors.Is(err, remote.ErrRecord) {
				t.Errorf("%v", err)
			}
			if err != nil && !strings.Contains(err.Error(), "vertex") {
				t.Errorf("the error does not name the vertex: %v", err)
			}
		})
	}
}
