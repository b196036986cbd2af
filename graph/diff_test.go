package graph

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"sort"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/quarxtor/quarxfs/graph/budget"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/vertex"
)

// A treeModel is a filesystem: paths to what is there. Directories are those
// that paths go through, and those given. Entries with equal Ident are one file.
type treeModel map[string]*Entry

func (m treeModel) clone() treeModel {
	c := make(treeModel, len(m))
	for p, e := range m {
		f := *e
		c[p] = &f
	}
	return c
}

// snapshot builds the vertices of a model.
func (m treeModel) snapshot(t tester, sink Sink) *Snapshot {
	t.Helper()
	rows := make(dirModel)
	names := make(map[uint64]uint32)
	for _, e := range m {
		names[e.Ident]++
	}
	for _, e := range m {
		if e.Ident == 0 {
			continue
		}
		row := *e
		row.Name, row.Ident, row.Nlink = TableKey(e.Ident), 0, names[e.Ident]
		rows[row.Name] = &row
	}
	s := &Snapshot{Root: Entry{Mode: syscall.S_IFDIR | 0o755}}
	m.dir(t, sink, "", &s.Root)
	if len(rows) > 0 {
		s.Table = rows.build(t, sink, LinkTable).ID
	}
	return s
}

func (m treeModel) dir(t tester, sink Sink, at string, dir *Entry) {
	d := make(dirModel)
	for p, e := range m {
		if p == "" || strings.TrimSuffix(path.Dir(p), ".") != at {
			continue
		}
		f := *e
		f.Name = path.Base(p)
		if f.IsDir() {
			m.dir(t, sink, p, &f)
			dir.Subdirs++
		}
		if f.Ident != 0 {
			f = Entry{Name: f.Name, Mode: f.Type(), Ident: f.Ident}
		}
		d[f.Name] = &f
		dir.Entries++
	}
	dir.Link = Link{d.build(t, sink, Directory).ID, store.KindTree}
}

func directory() *Entry { return &Entry{Mode: syscall.S_IFDIR | 0o755} }

func lines(t tester, m *memory, a, b treeModel) (list []string, stat DiffStat) {
	t.Helper()
	var before *Snapshot
	if a != nil {
		before = a.snapshot(t, m)
	}
	stat, err := Diff(ctx, m, before, b.snapshot(t, m), nil, func(d *Difference) error {
		line := string(d.Change) + " " + d.Path
		if d.From != "" {
			line += " from " + d.From
		}
		for _, r := range d.Ranges {
			line += fmt.Sprintf(" %d+%d", r.Off, r.Len)
		}
		if len(d.Aspects) > 0 {
			line += " " + strings.Join(d.Aspects, ",")
		}
		list = append(list, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list, stat
}

func TestDiff(t *testing.T) {
	base := treeModel{
		"a": fileEntry("", 1), "b": fileEntry("", 2), "d": directory(), "d/x": fileEntry("", 3), "d/y": fileEntry("", 4),
		"e": directory(), "e/f": directory(), "e/f/z": fileEntry("", 5), "same": directory(), "same/q": fileEntry("", 1),
		"h1": fileEntry("", 7), "same/h2": fileEntry("", 7), "empty": {Mode: syscall.S_IFREG},
	}
	base["h1"].Ident, base["same/h2"].Ident = 50, 50
	for name, x := range map[string]struct {
		change func(m treeModel)
		want   []string
	}{
		"nothing":     {func(m treeModel) {}, nil},
		"access only": {func(m treeModel) { m["a"].Atime.Sec++ }, nil},
		"added":       {func(m treeModel) { m["n"] = fileEntry("", 90) }, []string{"added n"}},
		"removed":     {func(m treeModel) { delete(m, "d/x") }, []string{"removed d/x"}},
		"modified":    {func(m treeModel) { m["a"].Link.ID = fake(60) }, []string{"modified a 0+5"}},
		"truncated": {func(m treeModel) { m["a"].Size, m["a"].Data = 3, 3 },
			[]string{"modified a"}},
		"emptied": {func(m treeModel) {
			*m["a"] = Entry{Mode: m["a"].Mode, UID: 1000, GID: 100, Atime: m["a"].Atime, Mtime: m["a"].Mtime, Ctime: m["a"].Ctime, Btime: m["a"].Btime}
		}, []string{"modified a"}},
		"attributes":  {func(m treeModel) { m["a"].UID, m["a"].Mode, m["a"].Ctime.Sec = 0, syscall.S_IFREG, 99 }, []string{"metadata a mode,owner,ctime"}},
		"a directory": {func(m treeModel) { m["e/f"].UID, m["e/f"].Mtime.Sec = 5, 5 }, []string{"metadata e/f owner,mtime"}},
		"times of a directory with new names": {func(m treeModel) { m["e"].Mtime.Sec, m["e"].Mode = 5, syscall.S_IFDIR; m["e/n"] = fileEntry("", 66) },
			[]string{"metadata e mode", "added e/n"}},
		"renamed": {func(m treeModel) { m["d/new"] = m["a"]; delete(m, "a"); m["d/new"].Ctime.Sec++ }, []string{"renamed d/new from a"}},
		"renamed and changed": {func(m treeModel) { m["new"] = m["b"]; delete(m, "b"); m["new"].Mode = syscall.S_IFREG },
			[]string{"renamed new from b mode"}},
		"a directory renamed": {func(m treeModel) {
			m["g"], m["g/f"], m["g/f/z"] = m["e"], m["e/f"], m["e/f/z"]
			delete(m, "e")
			delete(m, "e/f")
			delete(m, "e/f/z")
		}, []string{"renamed g from e"}},
		"a directory renamed into a new one": {func(m treeModel) {
			m["g"], m["g/h"], m["g/h/f"], m["g/h/f/z"] = directory(), m["e"], m["e/f"], m["e/f/z"]
			delete(m, "e")
			delete(m, "e/f")
			delete(m, "e/f/z")
		}, []string{"added g", "renamed g/h from e"}},
		"a directory renamed and a file in it changed": {func(m treeModel) {
			m["g"], m["g/x"], m["g/y"] = m["d"], m["d/x"], fileEntry("", 80)
			delete(m, "d")
			delete(m, "d/x")
			delete(m, "d/y")
		}, []string{"removed d", "removed d/y", "added g", "renamed g/x from d/x", "added g/y"}},
		"of two equal files the one with the name": {func(m treeModel) {
			m["d/q"] = m["same/q"]
			delete(m, "same/q")
			m["moved"] = m["a"]
			delete(m, "a")
		}, []string{"renamed d/q from same/q", "renamed moved from a"}},
		"empty files are no renames": {func(m treeModel) { m["none"] = m["empty"]; delete(m, "empty") }, []string{"removed empty", "added none"}},
		"type":                       {func(m treeModel) { m["a"] = &Entry{Mode: syscall.S_IFLNK | 0o777, Target: "x"} }, []string{"removed a", "added a"}},
		"several names, modified":    {func(m treeModel) { m["h1"].Link.ID, m["same/h2"].Link.ID = fake(70), fake(70) }, []string{"modified h1 0+5", "modified same/h2 0+5"}},
		"a name more":                {func(m treeModel) { m["h3"] = fileEntry("", 7); m["h3"].Ident = 50 }, []string{"metadata h1 links", "added h3", "metadata same/h2 links"}},
		"one of two names renamed": {func(m treeModel) { m["h3"] = m["h1"]; delete(m, "h1") },
			[]string{"renamed h3 from h1"}},
		"a first second name": {func(m treeModel) {
			m["b"].Ident = 60
			m["c"] = fileEntry("", 2)
			m["c"].Ident = 60
		}, []string{"metadata b links", "added c"}},
	} {
		changed := base.clone()
		x.change(changed)
		got, _ := lines(t, newMemory(), base, changed)
		if diff := cmp.Diff(x.want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	all, stat := lines(t, newMemory(), nil, base)
	if len(all) != len(base) || stat.Added != (DiffCount{Files: 9, Dirs: 4, Bytes: 7 * 5}) || stat.Written != 35 {
		t.Errorf("from nothing: %q, %+v", all, stat)
	}
	_, stat = lines(t, newMemory(), base, treeModel{"a": fileEntry("", 9)})
	if stat.Removed != (DiffCount{Files: 8, Dirs: 4, Bytes: 6 * 5}) || stat.Modified != (DiffCount{Files: 1, Bytes: 5}) {
		t.Errorf("nearly to nothing: %+v", stat)
	}
}

// TestDiffGivesBack has paths wait in each way there is: none is held once the diff is done.
func TestDiffGivesBack(t *testing.T) {
	base := treeModel{
		"old": fileEntry("", 1), "gone": fileEntry("", 2), "changed": fileEntry("", 3),
		"d": directory(), "d/x": fileEntry("", 4), "d/y": fileEntry("", 5),
	}
	next := treeModel{
		"new": base["old"], "changed": fileEntry("", 6), "made": fileEntry("", 7),
		"e": directory(), "e/x": base["d/x"], "e/z": fileEntry("", 8),
	}
	m := newMemory()
	l := budget.Limits{Time: time.Hour, Memory: 1 << 20, Pool: budget.NewPool(1<<20, 1<<20)}
	ctx, done := budget.With(t.Context(), budget.Client{"a"}, l)
	defer done()
	if _, err := Diff(ctx, m, base.snapshot(t, m), next.snapshot(t, m), nil, func(*Difference) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if err := budget.Hold(ctx, 1<<20); err != nil {
		t.Errorf("something is held: %v", err)
	}
}

// On random trees every path that differs is named once, and no other.
func TestDiffAgainstModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 4))
		a := make(treeModel)
		dirs := []string{""}
		grow := func(m treeModel, n int) {
			for range n {
				p := path.Join(dirs[rnd.IntN(len(dirs))], fmt.Sprint(rnd.IntN(300)))
				if _, ok := m[p]; ok || a[p] != nil || p != path.Base(p) && m[path.Dir(p)] == nil {
					continue
				}
				if rnd.IntN(8) == 0 && len(dirs) < 40 {
					m[p] = directory()
					dirs = append(dirs, p)
				} else {
					m[p] = fileEntry("", rnd.Uint64N(400)+1)
				}
			}
		}
		grow(a, rapid.IntRange(0, 600).Draw(rt, "size"))
		b := a.clone()
		for _, p := range dirModel(b).names() {
			e := b[p]
			switch rnd.IntN(20) {
			case 0:
				if !e.IsDir() {
					delete(b, p)
				}
			case 1:
				e.UID++
			case 2:
				if !e.IsDir() {
					e.Link.ID = fake(rnd.Uint64N(400) + 1)
				}
			}
		}
		grow(b, rapid.IntRange(0, 50).Draw(rt, "more"))
		m := newMemory()
		named := make(map[string]bool)
		_, err := Diff(ctx, m, a.snapshot(rt, m), b.snapshot(rt, m), nil, func(d *Difference) error {
			x, y := a[d.Path], b[d.Path]
			if d.Change == Renamed {
				x = a[d.From]
				if b[d.From] != nil || a[d.Path] != nil || named[d.From] {
					rt.Errorf("%s was not renamed to %s", d.From, d.Path)
				}
				named[d.From] = true
			}
			if named[d.Path] {
				rt.Errorf("%s is named twice", d.Path)
			}
			named[d.Path] = true
			ok := map[ChangeKind]bool{
				Added:    x == nil && y != nil,
				Removed:  x != nil && y == nil,
				Modified: x != nil && y != nil && x.Link != y.Link,
				Renamed:  x != nil && y != nil && x.Link == y.Link,
				Metadata: x != nil && y != nil && x.Link == y.Link && x.UID != y.UID,
			}[d.Change]
			if !ok {
				rt.Errorf("%+v: %+v became %+v", d, x, y)
			}
			return nil
		})
		if err != nil {
			rt.Fatal(err)
		}
		for _, side := range []treeModel{a, b} {
			for p := range side {
				same := a[p] != nil && b[p] != nil && a[p].Equal(b[p])
				if same == named[p] {
					rt.Errorf("%s: the same %t, named %t", p, same, named[p])
				}
			}
		}
	})
}

// fileOf makes a file of parts, through vertices of a few parts each, and
// returns its content and size.
func fileOf(t tester, sink Sink, parts []vertex.Part, fanOut int) (Link, int64) {
	t.Helper()
	size := int64(0)
	for _, p := range parts {
		size += p.Len
	}
	for height := 0; ; height++ {
		var up []vertex.Part
		for len(parts) > 0 {
			n := min(fanOut, len(parts))
			v := vertex.File{Height: height, Parts: parts[:n]}
			for _, p := range v.Parts {
				v.Size += p.Len
				if !p.Hole {
					v.Data += p.Len
				}
			}
			id, err := sink.Put(store.KindFile, v.Encode())
			if err != nil {
				t.Fatal(err)
			}
			up = append(up, vertex.Part{ID: id, Len: v.Size})
			parts = parts[n:]
		}
		if len(up) == 1 {
			return Link{up[0].ID, store.KindFile}, size
		}
		parts = up
	}
}

// DiffFiles agrees with a comparison byte by byte, where each block's bytes are
// unlike any other's.
func TestDiffFiles(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := newMemory()
		rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 5))
		part := func() vertex.Part {
			if rnd.IntN(5) == 0 {
				return vertex.Part{Hole: true, Len: 1 + rnd.Int64N(30)}
			}
			return vertex.Part{ID: fake(1 + rnd.Uint64N(1000)), Len: 1 + rnd.Int64N(20), Skip: rnd.Uint32N(3)}
		}
		var a []vertex.Part
		for range rapid.IntRange(1, 200).Draw(rt, "parts") {
			p := part()
			if k := len(a); k > 0 && p.Hole && a[k-1].Hole {
				continue
			}
			a = append(a, p)
		}
		b := slices.Clone(a)
		for range rapid.IntRange(0, 4).Draw(rt, "edits") {
			at := rnd.IntN(len(b))
			fresh := vertex.Part{ID: fake(1 + rnd.Uint64N(1000)), Len: 1 + rnd.Int64N(20)}
			switch rnd.IntN(5) {
			case 4: // longer: what follows is at another offset
				b[at].Len++
			case 0:
				fresh.Len = b[at].Len
				b[at] = fresh
			case 1:
				b = slices.Insert(b, at, fresh)
			case 2:
				b = append(b, fresh)
			case 3: // cut in two
				if p := b[at]; !p.Hole && p.Len > 1 {
					q := p
					p.Len /= 2
					q.Len -= p.Len
					q.Skip += uint32(p.Len)
					b[at] = p
					b = slices.Insert(b, at+1, q)
				}
			}
		}
		fanOut := rapid.IntRange(2, 9).Draw(rt, "fan-out")
		x, sizeX := fileOf(rt, m, a, fanOut)
		y, sizeY := fileOf(rt, m, b, fanOut)
		got, err := DiffFiles(ctx, m, x, sizeX, y, sizeY, nil)
		if err != nil {
			rt.Fatal(err)
		}
		bytesA, bytesB := bytesOf(a), bytesOf(b)
		var want []Range
		for i := range bytesB {
			if i < len(bytesA) && bytesA[i] == bytesB[i] {
				continue
			}
			if k := len(want) - 1; k >= 0 && want[k].Off+want[k].Len == int64(i) {
				want[k].Len++
			} else {
				want = append(want, Range{int64(i), 1})
			}
		}
		if !slices.Equal(got, want) {
			rt.Errorf("%v became %v: got %v, want %v", a, b, got, want)
		}
		var back []vertex.Part
		if err := FileSpans(ctx, m, y, sizeY, func(s Span) error {
			back = append(back, s.Part)
			return nil
		}); err != nil || !slices.Equal(bytesOf(back), bytesB) {
			rt.Errorf("spans of %v are %v (%v)", b, back, err)
		}
	})
}

// bytesOf gives every byte of parts a value of its own.
func bytesOf(parts []vertex.Part) []string {
	var list []string
	for _, p := range parts {
		for i := range p.Len {
			if p.Hole {
				list = append(list, "hole")
			} else {
				list = append(list, fmt.Sprint(p.ID[31], p.ID[30], " ", int64(p.Skip)+i))
			}
		}
	}
	return list
}

// With Exact the ranges are those of the bytes that differ, until it may read no
// more.
func TestDiffFilesExact(t *testing.T) {
	m := newMemory()
	put := func(s string) ID {
		id, err := m.Put(store.KindData, []byte(s))
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	zeroes, text := strings.Repeat("\x00", 100), strings.Repeat("abcdefghij", 10)
	edit := func(s string, at ...int) string {
		b := []byte(s)
		for _, i := range at {
			b[i] = '!'
		}
		return string(b)
	}
	file := func(parts ...vertex.Part) (Link, int64) { return fileOf(t, m, parts, 9) }
	a, size := file(vertex.Part{ID: put(text), Len: 100}, vertex.Part{Hole: true, Len: 100},
		vertex.Part{ID: put(text + text), Len: 90, Skip: 10}, vertex.Part{ID: put("tail"), Len: 4})
	b, _ := file(vertex.Part{ID: put(edit(text, 3, 5, 70, 99)), Len: 100}, vertex.Part{ID: put(edit(zeroes, 0, 50)), Len: 100},
		vertex.Part{ID: put(text), Len: 90, Skip: 10}, vertex.Part{ID: put("tall"), Len: 4})
	for left, want := range map[int64][]Range{
		0:       {{0, 294}},
		150:     {{0, 290}, {292, 1}}, // what is short enough is still compared
		200:     {{3, 3}, {70, 224}},
		1 << 20: {{3, 3}, {70, 31}, {150, 1}, {292, 1}},
	} {
		got, err := DiffFiles(ctx, m, a, size, b, size, &Exact{Left: left})
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%d bytes may be read: %v (%v), want %v", left, got, err, want)
		}
	}
	short, _ := file(vertex.Part{ID: put("x"), Len: 100}, vertex.Part{Hole: true, Len: 194})
	if _, err := DiffFiles(ctx, m, a, size, short, size, &Exact{Left: 1000}); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("a block that is too short: %v", err)
	}
}

// Comparing costs what differs, not what is there.
func TestDiffFilesSkips(t *testing.T) {
	m := newMemory()
	var parts []vertex.Part
	for i := range 10_000 {
		parts = append(parts, vertex.Part{ID: fake(uint64(i + 1)), Len: 10})
	}
	a, size := fileOf(t, m, parts, 10)
	parts[5000].ID = fake(1 << 40)
	b, _ := fileOf(t, m, parts, 10)
	m.reads = 0
	got, err := DiffFiles(ctx, m, a, size, b, size, nil)
	if err != nil || !slices.Equal(got, []Range{{50_000, 10}}) || m.reads > 8 {
		t.Errorf("%v (%v) with %d reads", got, err, m.reads)
	}
	parts = append(parts, vertex.Part{ID: fake(5), Len: 1})
	longer, sizeLonger := fileOf(t, m, parts, 10)
	m.reads = 0
	got, err = DiffFiles(ctx, m, b, size, longer, sizeLonger, nil)
	if err != nil || !slices.Equal(got, []Range{{100_000, 1}}) || m.reads > 8 {
		t.Errorf("longer: %v (%v) with %d reads", got, err, m.reads)
	}
}

func TestWalkTree(t *testing.T) {
	m := newMemory()
	model := treeModel{"a": fileEntry("", 1), "d": directory(), "d/x": fileEntry("", 3), "d/e": directory()}
	s := model.snapshot(t, m)
	var got, want []string
	if err := WalkTree(ctx, m, &s.Root, "", func(p string, e *Entry) error { got = append(got, p); return nil }); err != nil {
		t.Fatal(err)
	}
	for p := range model {
		want = append(want, p)
	}
	sort.Strings(want)
	if !slices.Equal(got, want) {
		t.Errorf("walked %v, want %v", got, want)
	}
}
