package graph

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"sort"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/vertex"
)

// A world is a store in miniature: live files, objects and snapshots, with what a
// matrix is made from, and brute force to compare it with.
type world struct {
	*memory
	rnd    *rand.Rand
	live   map[uint64][]vertex.Part // by inode
	paths  map[uint64][]string
	stubs  map[uint64]Link // inodes that stand for a tree or file
	names  []store.Name
	models map[string]treeModel // of snapshots
}

func newWorld(rnd *rand.Rand) *world {
	return &world{
		memory: newMemory(), rnd: rnd, live: make(map[uint64][]vertex.Part), paths: make(map[uint64][]string),
		stubs: make(map[uint64]Link), models: make(map[string]treeModel),
	}
}

// Get does not count reads: a matrix reads concurrently.
func (w *world) Get(_ context.Context, id ID) ([]byte, error) {
	b, ok := w.blocks[id]
	if !ok {
		return nil, store.ErrNotFound
	}
	return b, nil
}

// block stores one of a few blocks. Its length goes with its bytes.
func (w *world) block(t tester) (ID, int64) {
	n := 1 + w.rnd.IntN(60)
	id, err := w.Put(store.KindData, bytes.Repeat([]byte{byte(n)}, n))
	if err != nil {
		t.Fatal(err)
	}
	return id, int64(n)
}

func (w *world) parts(t tester) []vertex.Part {
	var parts []vertex.Part
	for range 1 + w.rnd.IntN(6) {
		id, n := w.block(t)
		p := vertex.Part{ID: id, Len: n}
		if n > 2 && w.rnd.IntN(3) == 0 {
			p.Skip, p.Len = 1, n-2
		}
		if w.rnd.IntN(6) == 0 && len(parts) > 0 && !parts[len(parts)-1].Hole {
			p = vertex.Part{Hole: true, Len: 7}
		}
		parts = append(parts, p)
	}
	return parts
}

// content makes a file of some parts, of one block, or in two heights.
func (w *world) content(t tester) (Link, int64) {
	if w.rnd.IntN(3) == 0 {
		id, n := w.block(t)
		return Link{id, store.KindData}, n
	}
	return fileOf(t, w, w.parts(t), 3)
}

func (w *world) name(t tester, name string, snapshot bool, id ID) {
	b := vertex.AppendLinks(nil, []ID{id})
	v, err := w.Put(store.KindName, append(b, name...))
	if err != nil {
		t.Fatal(err)
	}
	w.names = append(w.names, store.Name{Name: name, Snapshot: snapshot, ID: id, Vertex: v})
}

func (w *world) fill(t tester) {
	for ino := uint64(2); ino < 14; ino++ {
		w.live[ino] = w.parts(t)
		dir := []string{"", "d/", "e/"}[w.rnd.IntN(3)]
		w.paths[ino] = []string{dir + fmt.Sprint("live", ino)}
		if w.rnd.IntN(4) == 0 {
			w.paths[ino] = append(w.paths[ino], fmt.Sprint("other", ino))
		}
	}
	w.paths[13] = nil // deleted and open
	for i := range 3 {
		id, _ := w.content(t)
		w.name(t, fmt.Sprint("object", i), false, id.ID)
	}
	model := make(treeModel)
	for i := range 3 {
		for _, dir := range []string{"", "d", "d/sub", "e"} {
			if dir != "" && model[dir] == nil {
				model[dir] = directory()
			}
			e := fileEntry("", 0)
			e.Link, e.Size = w.content(t)
			e.Data = 0
			if w.rnd.IntN(5) == 0 {
				x, _ := w.content(t)
				e.XattrLink = x
			}
			model[path.Join(dir, fmt.Sprint("f", w.rnd.IntN(6)))] = e
		}
		if i == 1 { // the same file under two names
			l := fileEntry("", 0)
			l.Link, l.Size = w.content(t)
			l.Data, l.Ident = 0, 99
			m := *l
			model["hard1"], model["d/hard2"] = l, &m
		}
		name := fmt.Sprint("snap", i)
		s := model.snapshot(t, w)
		b, err := s.Encode()
		if err != nil {
			t.Fatal(err)
		}
		id, err := w.Put(store.KindSnapshot, b)
		if err != nil {
			t.Fatal(err)
		}
		w.name(t, name, true, id)
		w.models[name] = model.clone()
		if i == 2 && w.rnd.IntN(2) == 0 { // a clone of a directory that nobody has looked into
			e, err := OpenTree(w, s.Root.Link.ID, Directory).Lookup(ctx, "e")
			if err != nil {
				t.Fatal(err)
			}
			w.stubs[50], w.paths[50] = e.Link, []string{"clone"}
			file, _ := w.content(t)
			w.stubs[51], w.paths[51] = file, []string{"stub"}
		}
	}
	w.content(t) // nothing leads to it
}

func (w *world) inputs() Inputs {
	return Inputs{
		Source: w, Count: 10,
		Blocks: func(fn func(ID, store.Entry) error) error {
			ids := make([]ID, 0, len(w.blocks))
			for id := range w.blocks {
				ids = append(ids, id)
			}
			slices.SortFunc(ids, func(a, b ID) int { return bytes.Compare(a[:], b[:]) })
			for _, id := range ids {
				e := store.Entry{Kind: w.kinds[id], Raw: uint32(len(w.blocks[id]))}
				e.Loc.Length = e.Raw + 56
				if err := fn(id, e); err != nil {
					return err
				}
			}
			return nil
		},
		Names: func(fn func(store.Name) error) error {
			for _, n := range w.names {
				if err := fn(n); err != nil {
					return err
				}
			}
			return nil
		},
		Files: func(fn func(Reference) error) error {
			for ino := range uint64(60) {
				off := int64(0)
				for _, p := range w.live[ino] {
					if !p.Hole {
						if err := fn(Reference{Ino: ino, Off: off, Len: p.Len, Skip: p.Skip, ID: p.ID}); err != nil {
							return err
						}
					}
					off += p.Len
				}
				if l, ok := w.stubs[ino]; ok {
					if err := fn(Reference{Ino: ino, ID: l.ID}); err != nil {
						return err
					}
				}
			}
			return nil
		},
	}
}

func (w *world) livePaths(map[uint64]bool) (map[uint64][]string, error) { return w.paths, nil }

// holders finds by brute force where a block is: a line for each place.
func (w *world) holders(t tester, block ID) []string {
	lines := make(map[string]bool)
	file := func(where string, l Link, size int64) {
		if err := FileSpans(ctx, w, l, size, func(s Span) error {
			if !s.Hole && s.ID == block {
				lines[fmt.Sprintf("%s %d+%d-%d", where, s.Off, s.Len, s.Skip)] = true
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	for ino, parts := range w.live {
		off := int64(0)
		for _, p := range parts {
			for _, at := range append(slices.Clone(w.paths[ino]), fmt.Sprint("inode ", ino))[:max(1, len(w.paths[ino]))] {
				if !p.Hole && p.ID == block {
					lines[fmt.Sprintf("live %s %d+%d-%d", at, off, p.Len, p.Skip)] = true
				}
			}
			off += p.Len
		}
	}
	size := func(l Link) int64 {
		if l.Kind == store.KindData {
			return int64(len(w.blocks[l.ID]))
		}
		v, err := vertex.DecodeFile(w.blocks[l.ID])
		if err != nil {
			t.Fatal(err)
		}
		return v.Size
	}
	for ino, l := range w.stubs {
		at := "live " + w.paths[ino][0]
		if l.Kind != store.KindTree {
			file(at, l, size(l))
			continue
		}
		if err := WalkTree(ctx, w, &Entry{Link: l}, "", func(p string, e *Entry) error {
			file(at+"/"+p, e.Link, e.Size)
			if e.XattrLink.Kind != 0 {
				file("xattrs of "+at+"/"+p, e.XattrLink, size(e.XattrLink))
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range w.names {
		if !n.Snapshot {
			l := Link{n.ID, w.kinds[n.ID]}
			file("object "+n.Name, l, size(l))
			continue
		}
		for p, e := range w.models[n.Name] {
			if e.IsFile() {
				file(n.Name+" "+p, e.Link, e.Size)
				if e.XattrLink.Kind != 0 {
					file("xattrs of "+n.Name+" "+p, e.XattrLink, size(e.XattrLink))
				}
			}
		}
	}
	list := make([]string, 0, len(lines))
	for line := range lines {
		list = append(list, line)
	}
	sort.Strings(list)
	return list
}

func occurrenceLines(list []Occurrence) []string {
	var lines []string
	for _, o := range list {
		xattrs := ""
		if o.Xattrs {
			xattrs = "xattrs of "
		}
		at := fmt.Sprintf(" %d+%d-%d", o.Offset, o.Bytes, o.Skip)
		name := o.Path
		if o.Inode != 0 {
			name = strings.TrimSpace(fmt.Sprint("inode ", o.Inode, " ", name))
		}
		if o.Object {
			lines = append(lines, "object "+name+at)
		}
		if o.Live {
			lines = append(lines, xattrs+"live "+name+at)
		}
		for _, s := range o.Snapshots {
			lines = append(lines, xattrs+s+" "+name+at)
		}
	}
	sort.Strings(lines)
	return lines
}

// The matrix has every edge, both ways, and Why agrees with brute force.
func TestMatrix(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 6)))
		w.fill(rt)
		m, err := NewMatrix(ctx, w.inputs())
		if err != nil {
			rt.Fatal(err)
		}
		if m.Missing != 0 || m.Columns() != len(w.blocks) {
			rt.Fatalf("%d of %d columns, %d missing", m.Columns(), len(w.blocks), m.Missing)
		}
		w.checkEdges(rt, m)
		climber := NewClimber(m, w, w.livePaths) // what it knows of one block must not mislead it of another
		for id, kind := range w.kinds {
			if kind != store.KindData {
				continue
			}
			col, ok := m.Column(id)
			if !ok {
				rt.Fatalf("%s has no column", id.Short())
			}
			got, err := climber.Why(ctx, col)
			if err != nil {
				rt.Fatal(err)
			}
			if want := w.holders(rt, id); !slices.Equal(occurrenceLines(got), want) {
				rt.Errorf("block %s: got\n%s\nwant\n%s", id.Short(), strings.Join(occurrenceLines(got), "\n"), strings.Join(want, "\n"))
			}
		}
		if _, ok := m.Column(ID{1, 2, 3}); ok {
			rt.Error("a block that is not there has a column")
		}
	})
}

func (w *world) checkEdges(t *rapid.T, m *Matrix) {
	degree := make(map[ID]int)
	for r := range m.Rows() {
		var got []Reference
		m.EachInRow(r, func(u Use) bool {
			id := m.Block(u.Col).ID
			degree[id]++
			got = append(got, Reference{Off: u.Off, Len: u.Len, Skip: u.Skip, ID: id})
			found := false
			m.EachInColumn(u.Col, func(back int) bool { found = found || back == r; return true })
			if !found {
				t.Errorf("row %d is not in column %d", r, u.Col)
			}
			return true
		})
		row := m.Row(r)
		var want []Reference
		switch row.Kind {
		case FileRow:
			if at, ok := m.FileRowOf(row.Ino); !ok || at != r {
				t.Errorf("inode %d is in row %d, not %d", row.Ino, at, r)
			}
			off := int64(0)
			for _, p := range w.live[row.Ino] {
				if !p.Hole {
					want = append(want, Reference{Off: off, Len: p.Len, Skip: p.Skip, ID: p.ID})
				}
				off += p.Len
			}
			if l, ok := w.stubs[row.Ino]; ok {
				want = append(want, Reference{ID: l.ID})
			}
		case NameRow:
			want = []Reference{{ID: row.Name.Vertex}}
		case VertexRow:
			links, err := vertex.Links(w.blocks[row.ID])
			if err != nil {
				t.Fatal(err)
			}
			for _, id := range links {
				want = append(want, Reference{ID: id})
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("row %d (%+v) has %v, want %v", r, row, got, want)
		}
	}
	for c := range m.Columns() {
		b := m.Block(c)
		if m.References(c) != degree[b.ID] || b.Raw != int64(len(w.blocks[b.ID])) {
			t.Errorf("column %d (%+v) has %d references, want %d", c, b, m.References(c), degree[b.ID])
		}
	}
}

// alive returns what is reached from some of the roots, with how often each data
// block is used, up to 2.
func (w *world) alive(t tester, keep func(ino uint64, name string) bool) map[ID]int {
	used := make(map[ID]int)
	var visit func(id ID)
	visit = func(id ID) {
		if used[id] == 2 {
			return
		}
		used[id]++
		if w.kinds[id] == store.KindData {
			return
		}
		links, err := vertex.Links(w.blocks[id])
		if err != nil {
			t.Fatal(err)
		}
		for _, to := range links {
			visit(to)
		}
	}
	for ino, parts := range w.live {
		for _, p := range parts {
			if !p.Hole && keep(ino, "") {
				visit(p.ID)
			}
		}
	}
	for ino, l := range w.stubs {
		if keep(ino, "") {
			visit(l.ID)
		}
	}
	for _, n := range w.names {
		if keep(0, n.Name) {
			visit(n.Vertex)
		}
	}
	return used
}

// The account of random groups adds up, and is what removing each would free.
func TestAccount(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 7)))
		w.fill(rt)
		m, err := NewMatrix(ctx, w.inputs())
		if err != nil {
			rt.Fatal(err)
		}
		n := rapid.IntRange(0, 4).Draw(rt, "groups")
		groups := make([]Group, n)
		member := make(map[string]int) // by inode or name; n: in none
		put := func(key string, add func(g *Group)) {
			member[key] = w.rnd.IntN(n + 1)
			if k := member[key]; k < n {
				add(&groups[k])
			}
		}
		for ino := range uint64(60) {
			if w.live[ino] != nil || w.stubs[ino].Kind != 0 {
				put(fmt.Sprint(ino, " "), func(g *Group) { g.Files = append(g.Files, ino) })
			}
		}
		first, end := m.NameRows()
		for r := first; r < end; r++ {
			put("0 "+m.Row(r).Name.Name, func(g *Group) { g.Rows = append(g.Rows, r) })
		}
		acc, err := m.Account(ctx, groups)
		if err != nil {
			rt.Fatal(err)
		}
		stored := func(id ID) int64 { return int64(len(w.blocks[id])) + 56 }
		all := w.alive(rt, func(uint64, string) bool { return true })
		sum, unused := acc.Elsewhere+acc.Shared+acc.SharedVertices+acc.Unused, int64(0)
		for id := range w.blocks {
			if all[id] == 0 {
				unused += stored(id)
			}
		}
		if acc.Unused != unused {
			rt.Errorf("%d unused, want %d", acc.Unused, unused)
		}
		total := int64(0)
		for id := range w.blocks {
			total += stored(id)
		}
		for k, g := range acc.Groups {
			sum += g.Freed
			want := Usage{Name: g.Name, Files: g.Files, Apparent: g.Apparent}
			mine := w.alive(rt, func(ino uint64, name string) bool { return member[fmt.Sprint(ino, " ", name)] == k })
			others := w.alive(rt, func(ino uint64, name string) bool { return member[fmt.Sprint(ino, " ", name)] != k })
			for id, used := range mine {
				switch {
				case others[id] > 0 && w.kinds[id] == store.KindData:
					want.SharedOutside += stored(id)
				case others[id] > 0:
				case w.kinds[id] != store.KindData:
					want.Vertices += stored(id)
				case used == 1:
					want.Unique += stored(id)
				default:
					want.SharedInside += stored(id)
				}
			}
			want.Freed = want.Unique + want.SharedInside + want.Vertices
			if g != want {
				rt.Errorf("group %d: %+v, want %+v", k, g, want)
			}
		}
		if sum != total || acc.Total != total {
			rt.Errorf("the parts are %d, the total %d, want %d", sum, acc.Total, total)
		}
	})
}

// A vertex that has gone since the rows were read has no edges; an edge to what
// the index lacks is counted.
func TestMatrixGaps(t *testing.T) {
	w := newWorld(rand.New(rand.NewPCG(1, 8)))
	w.fill(t)
	in := w.inputs()
	gone := w.names[0].Vertex
	in.Source = sourceFunc(func(id ID) ([]byte, error) {
		if id == gone {
			return nil, store.ErrNotFound
		}
		return w.blocks[id], nil
	})
	m, err := NewMatrix(ctx, in)
	if err != nil {
		t.Fatal(err)
	}
	col, _ := m.Column(gone)
	if r, ok := m.VertexRowOf(col); !ok || len(m.rowCols(r)) != 0 {
		t.Error("a vertex that has gone has edges")
	}
	broken := errors.New("disk on fire")
	in.Source = sourceFunc(func(id ID) ([]byte, error) { return nil, broken })
	if _, err := NewMatrix(ctx, in); !errors.Is(err, broken) {
		t.Errorf("an error of the disk: %v", err)
	}
	in = w.inputs()
	in.Files = func(fn func(Reference) error) error {
		return errors.Join(fn(Reference{Ino: 5, ID: ID{9}}), fn(Reference{Ino: 4, ID: ID{9}}))
	}
	if _, err := NewMatrix(ctx, in); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("files out of order: %v", err)
	}
}

type sourceFunc func(ID) ([]byte, error)

func (f sourceFunc) Get(_ context.Context, id ID) ([]byte, error) { return f(id) }

func BenchmarkMatrix(b *testing.B) {
	const blocks = 1_000_000
	ids := make([]ID, blocks)
	rnd := rand.NewChaCha8([32]byte{1})
	for i := range ids {
		rnd.Read(ids[i][:])
	}
	byID := slices.Clone(ids)
	slices.SortFunc(byID, func(a, b ID) int { return bytes.Compare(a[:], b[:]) })
	in := Inputs{
		Count: blocks,
		Blocks: func(fn func(ID, store.Entry) error) error {
			for _, id := range byID {
				if err := fn(id, store.Entry{Kind: store.KindData, Raw: 65536}); err != nil {
					return err
				}
			}
			return nil
		},
		Names: func(func(store.Name) error) error { return nil },
		Files: func(fn func(Reference) error) error {
			for i, id := range ids {
				if err := fn(Reference{Ino: uint64(i / 64), Off: int64(i%64) << 16, Len: 1 << 16, ID: id}); err != nil {
					return err
				}
			}
			return nil
		},
	}
	for b.Loop() {
		m, err := NewMatrix(ctx, in)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(m.Bytes())/1e6, "MB")
	}
}

// A directory that is in one place many times ends with the first path too many: as each may have
// any length, those that follow must not even be made.
func TestWhyCountsAtOnce(t *testing.T) {
	w, model := newWorld(nil), make(treeModel)
	for i := range 10 {
		d := fmt.Sprint("d", i)
		model[d], model[d+"/f"] = directory(), fileEntry("", 1)
	}
	s := model.snapshot(t, w)
	plain, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	id, err := w.Put(store.KindSnapshot, plain)
	if err != nil {
		t.Fatal(err)
	}
	w.name(t, "s", true, id)
	m, err := NewMatrix(ctx, w.inputs())
	if err != nil {
		t.Fatal(err)
	}
	dir, err := OpenTree(w, s.Root.Link.ID, Directory).Lookup(ctx, "d0")
	if err != nil {
		t.Fatal(err)
	}
	col, _ := m.Column(dir.Link.ID)
	for room, want := range map[int]error{4: ErrTooMany, 20: nil} {
		c := NewClimber(m, w, w.livePaths)
		c.known = 2*maxOccurrences - room
		list, err := (&why{Climber: c, ctx: ctx}).positions(col)
		// The root takes two: it has a position, and a list.
		if !errors.Is(err, want) || len(list) != min(room-2, 10) {
			t.Errorf("with room for %d: %d positions, %v", room, len(list), err)
		}
	}
}
