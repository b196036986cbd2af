package graph

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/quarxtor/quarxfs/store"
)

var ctx = context.Background()

// drawDir makes a directory. Names are of a small alphabet, so that changes meet
// what is there; some directories have long entries, so that nodes end by their
// bytes.
func drawDir(t *rapid.T, label string) dirModel {
	d := make(dirModel)
	n := rapid.SampledFrom([]int{0, 1, 2, 40, 200, 1500, 12_000}).Draw(t, label+" size")
	seed := rapid.Uint64().Draw(t, label)
	long := rapid.Bool().Draw(t, label+" long")
	rnd := rand.New(rand.NewPCG(seed, 1))
	for range n {
		e := fileEntry(drawName(rnd), rnd.Uint64N(100))
		if long {
			e.Xattrs = []Xattr{{"user.long", []byte(strings.Repeat("x", rnd.IntN(900)))}}
		}
		d[e.Name] = e
	}
	return d
}

func drawName(rnd *rand.Rand) string { return fmt.Sprintf("f%05d", rnd.IntN(20_000)) }

// drawChanges changes d and returns how, and the directory before.
func drawChanges(t *rapid.T, d dirModel) (changes []Change, before dirModel) {
	before = make(dirModel, len(d))
	for name, e := range d {
		before[name] = e
	}
	rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "changes"), 2))
	n := rapid.SampledFrom([]int{0, 1, 2, 3, 20, 500}).Draw(t, "changes made")
	kind := rapid.SampledFrom([]string{"mixed", "mixed", "all gone", "a stretch gone", "at the end"}).Draw(t, "kind")
	touched := make(dirModel)
	names := d.names()
	set := func(name string, e *Entry) {
		if e == nil {
			delete(d, name)
		} else {
			d[name] = e
		}
		touched[name] = e
	}
	switch kind {
	case "all gone":
		for _, name := range names {
			set(name, nil)
		}
	case "a stretch gone":
		if len(names) > 0 {
			at := rnd.IntN(len(names))
			for _, name := range names[at : at+rnd.IntN(len(names)-at)+1] {
				set(name, nil)
			}
		}
	case "at the end":
		for i := range n {
			name := fmt.Sprintf("z%05d", i)
			set(name, fileEntry(name, 3))
		}
	default:
		for range n {
			name := drawName(rnd)
			if len(names) > 0 && rnd.IntN(2) == 0 {
				name = names[rnd.IntN(len(names))]
			}
			if rnd.IntN(3) == 0 {
				set(name, nil)
			} else {
				set(name, fileEntry(name, rnd.Uint64N(100)))
			}
		}
	}
	for _, name := range touched.names() {
		changes = append(changes, Change{name, touched[name]})
	}
	return changes, before
}

// A tree that was changed is the same bytes as one built anew, and can be read.
func TestApplyIsBuild(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := newMemory()
		d := drawDir(rt, "directory")
		root := d.build(t, m, Directory)
		for range rapid.IntRange(1, 3).Draw(rt, "rounds") {
			changes, before := drawChanges(rt, d)
			got, err := OpenTree(m, root.ID, Directory).Apply(ctx, m, changes)
			if err != nil {
				rt.Fatal(err)
			}
			if want := d.build(t, newMemory(), Directory); got != want {
				rt.Fatalf("a tree of %d with %d changes is %v, built anew %v", len(before), len(changes), got, want)
			}
			readAll(rt, m, got, d)
			compareTrees(rt, m, root, got, before, d)
			root = got
		}
	})
}

// readAll compares a tree with what it should hold, in every way it can be read.
func readAll(t *rapid.T, m *memory, root TreeRoot, d dirModel) {
	tree := OpenTree(m, root.ID, Directory)
	names := d.names()
	if n, err := tree.Len(ctx); err != nil || n != int64(len(names)) || root.Entries != n {
		t.Fatalf("%d entries (%v), want %d", n, err, len(names))
	}
	i := 0
	if err := tree.Each(ctx, "", func(e *Entry) error {
		if i == len(names) || !e.Equal(d[names[i]]) {
			t.Fatalf("entry %d is %+v", i, e)
		}
		i++
		return nil
	}); err != nil || i != len(names) {
		t.Fatalf("read %d of %d: %v", i, len(names), err)
	}
	from := rapid.IntRange(0, len(names)).Draw(t, "from")
	first := ""
	if err := tree.EachFrom(ctx, int64(from), func(e *Entry) error { first = e.Name; return store.ErrStop }); err != nil {
		t.Fatal(err)
	}
	if want := append(names[from:], "")[0]; first != want {
		t.Fatalf("entry %d is %q, want %q", from, first, want)
	}
	name := drawName(rand.New(rand.NewPCG(uint64(from), 3)))
	e, err := tree.Lookup(ctx, name)
	if want, ok := d[name]; ok && (err != nil || !e.Equal(want)) || !ok && !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("%q is %+v (%v), want %+v", name, e, err, want)
	}
}

// compareTrees compares DiffTrees with a comparison entry by entry.
func compareTrees(t *rapid.T, m *memory, a, b TreeRoot, before, after dirModel) {
	want := make(map[string][2]*Entry)
	for name, e := range before {
		if f := after[name]; f == nil || !e.Equal(f) {
			want[name] = [2]*Entry{e, f}
		}
	}
	for name, f := range after {
		if before[name] == nil {
			want[name] = [2]*Entry{nil, f}
		}
	}
	last, got := "", 0
	err := DiffTrees(ctx, OpenTree(m, a.ID, Directory), OpenTree(m, b.ID, Directory), func(x, y *Entry) error {
		name := ""
		for _, e := range []*Entry{x, y} {
			if e != nil {
				name = e.Name
			}
		}
		w, ok := want[name]
		if !ok || name <= last || (x == nil) != (w[0] == nil) || (y == nil) != (w[1] == nil) ||
			x != nil && !x.Equal(w[0]) || y != nil && !y.Equal(w[1]) {
			t.Fatalf("difference at %q after %q: %+v, %+v", name, last, x, y)
		}
		last = name
		got++
		return nil
	})
	if err != nil || got != len(want) {
		t.Fatalf("%d differences (%v), want %d", got, err, len(want))
	}
}

// One changed entry of a million stores little, and is found by reading little.
func TestLargeDirectory(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a million entries")
	}
	m := newMemory()
	b := NewTreeBuilder(m, Directory)
	const n = 1_000_000
	for i := range n {
		if err := b.Add(fileEntry(fmt.Sprintf("some-file-%07d.txt", i), uint64(i))); err != nil {
			t.Fatal(err)
		}
	}
	root, err := b.Finish()
	if err != nil {
		t.Fatal(err)
	}
	nodes := len(m.puts)
	for _, name := range []string{"some-file-0500000.txt", "some-file-0000000.txt", "some-file-0999999.txt", "some-file-0500000.txt2", "zzz"} {
		m.puts, m.reads = nil, 0
		after, err := OpenTree(m, root.ID, Directory).Apply(ctx, m, []Change{{name, fileEntry(name, 7777777)}})
		if err != nil {
			t.Fatal(err)
		}
		sum := 0
		for _, size := range m.puts {
			sum += size
		}
		if sum > 64<<10 || m.reads > 12 {
			t.Errorf("changing %s stored %d bytes in %d vertices and read %d", name, sum, len(m.puts), m.reads)
		}
		m.reads = 0
		found := 0
		if err := DiffTrees(ctx, OpenTree(m, root.ID, Directory), OpenTree(m, after.ID, Directory), func(a, b *Entry) error {
			found++
			return nil
		}); err != nil || found != 1 || m.reads > 12 {
			t.Errorf("%s: found %d differences (%v) with %d reads", name, found, err, m.reads)
		}
		t.Logf("%s: %d bytes in %d vertices, found with %d reads", name, sum, len(m.puts), m.reads)
	}
	t.Logf("%d vertices, %d entries a vertex", nodes, n/nodes)
}

func TestTreeRefusals(t *testing.T) {
	m := newMemory()
	root := dirModel{"a": fileEntry("a", 1)}.build(t, m, Directory)
	tree := OpenTree(m, root.ID, Directory)
	for name, changes := range map[string][]Change{
		"out of order": {{"b", nil}, {"a", nil}},
		"twice":        {{"b", nil}, {"b", nil}},
		"other name":   {{"b", fileEntry("c", 1)}},
		"no name":      {{"", fileEntry("", 1)}},
		"slash":        {{"a/b", fileEntry("a/b", 1)}},
		"empty dir":    {{"b", &Entry{Name: "b", Mode: 0o40755}}},
		"no type":      {{"b", &Entry{Name: "b", Mode: 0o755}}},
	} {
		if _, err := tree.Apply(ctx, m, changes); !errors.Is(err, store.ErrConfig) {
			t.Errorf("%s: %v", name, err)
		}
	}
	b := NewTreeBuilder(m, Directory)
	if err := b.Add(fileEntry("b", 1)); err != nil {
		t.Fatal(err)
	}
	if err := b.Add(fileEntry("a", 1)); !errors.Is(err, store.ErrConfig) {
		t.Errorf("names out of order: %v", err)
	}
	if _, err := OpenTree(m, root.ID, LinkTable).Lookup(ctx, "a"); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("a directory read as a link table: %v", err)
	}
	if _, err := OpenTree(m, fake(9), Directory).Lookup(ctx, "a"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a tree that is not there: %v", err)
	}
}

// A vertex that is not what its parent says is refused.
func TestTreeLies(t *testing.T) {
	m := newMemory()
	d := make(dirModel)
	for i := range 1000 {
		name := fmt.Sprintf("f%05d", i)
		d[name] = fileEntry(name, 1)
	}
	root := d.build(t, m, Directory)
	top, err := OpenTree(m, root.ID, Directory).top(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(n *node){
		"another key":      func(n *node) { n.items[0].key += "x" },
		"another number":   func(n *node) { n.items[0].entries++ },
		"another height":   func(n *node) { n.height++ },
		"children swapped": func(n *node) { n.items[0].id, n.items[1].id = n.items[1].id, n.items[0].id },
		"the same twice":   func(n *node) { n.items[1] = n.items[0]; n.items[1].key += "x" },
	} {
		lie := &node{form: top.form, height: top.height, items: append([]item{}, top.items...)}
		change(lie)
		id, err := m.Put(store.KindTree, lie.encode())
		if err != nil {
			t.Fatal(err)
		}
		if err := OpenTree(m, id, Directory).Each(ctx, "", func(*Entry) error { return nil }); !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
