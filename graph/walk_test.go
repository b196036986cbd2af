package graph

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/vertex"
)

// A small graph: a snapshot of a root with a big and a small file, and a file
// with several names.
type sample struct {
	*memory
	snapshot, root, table, big, bigPart ID
}

func newSample(t *testing.T) *sample {
	t.Helper()
	s := &sample{memory: newMemory()}
	put := func(kind store.Kind, b []byte) ID {
		id, err := s.Put(kind, b)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	part := vertex.File{Size: 30, Data: 20, Parts: []vertex.Part{{ID: fake(1), Len: 10}, {Hole: true, Len: 10}, {ID: fake(2), Len: 10, Skip: 3}}}
	s.bigPart = put(store.KindFile, part.Encode())
	big := vertex.File{Height: 1, Size: 60, Data: 40, Parts: []vertex.Part{{ID: s.bigPart, Len: 30}, {ID: s.bigPart, Len: 30}}}
	s.big = put(store.KindFile, big.Encode())
	file := fileEntry("big", 0)
	file.Size, file.Data, file.Link = 60, 40, Link{s.big, store.KindFile}
	alias := &Entry{Name: "alias", Mode: syscall.S_IFREG, Ident: 9}
	s.root = dirModel{"alias": alias, "big": file, "small": fileEntry("small", 2)}.build(t, s, Directory).ID
	row := fileEntry(TableKey(9), 3)
	row.Nlink, row.XattrLink = 2, Link{fake(4), store.KindData}
	s.table = dirModel{row.Name: row}.build(t, s, LinkTable).ID
	b, err := (&Snapshot{Root: Entry{Mode: syscall.S_IFDIR, Entries: 3, Link: Link{s.root, store.KindTree}}, Table: s.table}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	s.snapshot = put(store.KindSnapshot, b)
	return s
}

func (s *sample) label(id ID) string {
	for name, other := range map[string]ID{"snapshot": s.snapshot, "root": s.root, "table": s.table, "big": s.big, "part": s.bigPart} {
		if id == other {
			return name
		}
	}
	return fmt.Sprint(id[31])
}

func (s *sample) walk(t *testing.T, w Walk, roots ...ID) []string {
	t.Helper()
	var lines []string
	if err := w.From(ctx, s, roots, func(v Vertex) error {
		lines = append(lines, fmt.Sprintf("%d %s %s", v.Depth, v.Kind, s.label(v.ID)))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return lines
}

func TestWalk(t *testing.T) {
	s := newSample(t)
	all := []string{
		"0 snapshot snapshot", "1 tree root", "1 tree table", "2 file big", "2 data 2", "2 data 3", "2 data 4", "3 file part", "4 data 1",
	}
	for _, x := range []struct {
		name  string
		walk  Walk
		roots []ID
		want  []string
	}{
		{"all", Walk{}, []ID{s.snapshot}, all},
		{"two edges", Walk{Depth: 2}, []ID{s.snapshot}, all[:7]},
		{"trees", Walk{Kinds: []store.Kind{store.KindSnapshot, store.KindTree}}, []ID{s.snapshot}, all[:3]},
		{"two roots", Walk{Depth: 1}, []ID{s.bigPart, s.table}, []string{"0 file part", "0 tree table", "1 data 1", "1 data 2", "1 data 3", "1 data 4"}},
	} {
		if diff := cmp.Diff(x.want, s.walk(t, x.walk, x.roots...)); diff != "" {
			t.Errorf("%s: %s", x.name, diff)
		}
	}
	var visited []string
	err := Walk{}.From(ctx, s, []ID{s.snapshot}, func(v Vertex) error {
		visited = append(visited, s.label(v.ID))
		if v.ID == s.root {
			return ErrSkipEdges
		}
		return nil
	})
	if want := []string{"snapshot", "root", "table", "3", "4"}; err != nil || !slices.Equal(visited, want) {
		t.Errorf("visited %v (%v), want %v", visited, err, want)
	}
	if err := (Walk{Visited: 3}).From(ctx, s, []ID{s.snapshot}, func(Vertex) error { return nil }); !errors.Is(err, ErrTooMany) {
		t.Errorf("a bound of 3: %v", err)
	}
	if err := (Walk{}).From(ctx, s, []ID{num(77), {1}}, func(Vertex) error { return nil }); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a root that is not there: %v", err)
	}
}

func TestEdges(t *testing.T) {
	s := newSample(t)
	for id, want := range map[ID][]Edge{
		s.snapshot: {{s.snapshot, s.root, RootOf, "", 0, 0, 0}, {s.snapshot, s.table, TableOf, "", 0, 0, 0}},
		s.root:     {{s.root, s.big, Content, "big", 0, 60, 0}, {s.root, fake(2), Content, "small", 0, 5, 0}},
		s.table:    {{s.table, fake(3), Content, "#9", 0, 5, 0}, {s.table, fake(4), Xattrs, "#9", 0, 0, 0}},
		s.big:      {{s.big, s.bigPart, Contains, "", 0, 30, 0}, {s.big, s.bigPart, Contains, "", 30, 30, 0}},
		s.bigPart:  {{s.bigPart, fake(1), Contains, "", 0, 10, 0}, {s.bigPart, fake(2), Contains, "", 20, 10, 3}},
		fake(1):    nil,
	} {
		got, err := Successors(ctx, s, id)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v (%v), want %v", s.label(id), got, err, want)
		}
	}
}
