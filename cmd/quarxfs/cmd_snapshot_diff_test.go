package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/localnode"
	"github.com/quarxtor/quarxfs/fs/volume"
	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/store"
)

// The diff of a snapshot and the live filesystem is that of the snapshot and one
// made right after, and tells of just the files whose bytes differ.
func TestDiffOfVolume(t *testing.T) {
	for seed := range uint64(4) {
		s := newShelf(t, 100+seed)
		s.node = remote.NewLocal(s.st, localnode.Around(s.vol))
		srv := httptest.NewServer(remote.Handler(s.node, slog.New(slog.DiscardHandler)))
		t.Cleanup(srv.Close)
		client := remote.NewClient(srv.URL, nil)
		t.Cleanup(client.Close)
		for i := range 80 {
			s.step(t, i)
		}
		snap := func(name string) volume.Snapshot {
			x, err := s.vol.CreateSnapshot(t.Context(), volume.SnapshotOptions{Name: name})
			if err != nil {
				t.Fatal(err)
			}
			return x
		}
		a := snap("a")
		if got := diffItems(t, s.node, "a", ""); len(got) != 1 {
			t.Errorf("nothing was changed: %+v", got)
		}
		for i := range 30 {
			s.step(t, 100+i)
		}
		live := diffItems(t, client, "a", "")
		b := snap("b")
		if got, want := asJSON(t, diffItems(t, s.node, "a", "b")), asJSON(t, live); got != want {
			t.Errorf("a and b:\n%s\na and now:\n%s", got, want)
		}
		x, y := s.contents(t, a), s.contents(t, b)
		seen := make(map[string]bool)
		for _, it := range live[:len(live)-1] {
			d := it.Difference
			if d.Change == graph.Metadata {
				continue
			}
			seen[d.Path] = true
			if d.Change == graph.Renamed {
				seen[d.From] = true
			}
		}
		for _, side := range []map[string]graph.Link{x, y} {
			for p := range side {
				if same := x[p] == y[p]; same == seen[p] {
					t.Errorf("seed %d: %q: the same %t, seen of %t", seed, p, same, seen[p])
				}
			}
		}
	}
}

// contents returns what all files of a snapshot are made of.
func (s *shelf) contents(t *testing.T, snap volume.Snapshot) map[string]graph.Link {
	t.Helper()
	all := make(map[string]graph.Link)
	err := graph.WalkTree(t.Context(), s.st, &snap.Root, "", func(p string, e *graph.Entry) error {
		if e.Ident != 0 {
			row, err := graph.OpenTree(s.st, snap.Table, graph.LinkTable).Lookup(t.Context(), graph.TableKey(e.Ident))
			if err != nil {
				return err
			}
			e = &row
		}
		if e.IsFile() && e.Size > 0 {
			all[p] = e.Link
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func diffItems(t *testing.T, n remote.Node, a, b string) (list []remote.DiffItem) {
	t.Helper()
	err := n.Diff(t.Context(), remote.DiffRequest{A: a, B: b}, func(it remote.DiffItem) error { list = append(list, it); return nil })
	if err != nil || len(list) == 0 || list[len(list)-1].Stat == nil {
		t.Fatalf("diff of %q and %q: %d items, %v", a, b, len(list), err)
	}
	return list
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestDiffErrors(t *testing.T) {
	s := newShelf(t, 1)
	for names, want := range map[[2]string]error{{"none", ""}: store.ErrNotFound, {"", ""}: remote.ErrRequest} {
		if err := s.node.Diff(t.Context(), remote.DiffRequest{A: names[0], B: names[1]}, nil); !errors.Is(err, want) {
			t.Errorf("%q: %v", names, err)
		}
	}
}

func TestDiffLines(t *testing.T) {
	var b strings.Builder
	for _, d := range []graph.Difference{
		{Change: graph.Added, Path: "a/b", Mode: 0o100644, Size: 5},
		{Change: graph.Removed, Path: "dir", Mode: 0o40755},
		{Change: graph.Modified, Path: "f", Mode: 0o100644, Size: 2048, Before: 1024, Ranges: []graph.Range{{Off: 0, Len: 1024}}},
		{Change: graph.Renamed, Path: "new", From: "old", Mode: 0o40755, Aspects: []string{"owner"}},
		{Change: graph.Metadata, Path: "x\ny", Mode: 0o100600, Aspects: []string{"mode", "ctime"}},
	} {
		fmt.Fprint(&b, (&diffOptions{ranges: true}).line(&d))
	}
	want := "+  a/b\n-  dir/\nM  f  (1.0 KiB of 2.0 KiB, was 1.0 KiB) 0+1024\nR  old/ -> new/  (owner)\na  \"x\\ny\"  (mode, ctime)\n"
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
}
