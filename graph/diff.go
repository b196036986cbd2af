package graph

import (
	"cmp"
	"context"
	"errors"
	"path"
	"slices"

	"github.com/quarxtor/quarxfs/graph/budget"
	"github.com/quarxtor/quarxfs/store"
)

// A ChangeKind says what happened to a path between two snapshots.
type ChangeKind string

// The kinds of changes.
const (
	Added    ChangeKind = "added"
	Removed  ChangeKind = "removed"
	Modified ChangeKind = "modified" // the bytes, and perhaps attributes
	Renamed  ChangeKind = "renamed"  // the same content under another path; perhaps attributes too
	Metadata ChangeKind = "metadata" // attributes only
)

// A Difference is a path that is not the same in two snapshots.
type Difference struct {
	Change  ChangeKind `json:"change"`
	Path    string     `json:"path"`           // without a leading slash; "" is the root. Of what was removed: where it was
	From    string     `json:"from,omitempty"` // where it was, when renamed
	Mode    uint32     `json:"mode"`           // type and permission bits
	Links   uint32     `json:"links"`          // names of the file; it is counted once in sums
	Size    int64      `json:"size"`           // 0 when it was removed
	Before  int64      `json:"size_before"`    // 0 when it was added
	Ranges  []Range    `json:"ranges,omitempty"`
	Aspects []string   `json:"attributes,omitempty"` // that differ: type, mode, owner, device, target, xattrs, mtime, ctime, btime, links
	Entries int64      `json:"entries,omitempty"`    // of a renamed directory: names in it
	ident   uint64

	was, now Link // content of a regular file on both sides
}

// Changed counts the bytes in the ranges of a modified file.
func (d *Difference) Changed() int64 {
	sum := int64(0)
	for _, r := range d.Ranges {
		sum += r.Len
	}
	return sum
}

// A DiffStat sums up differences.
type DiffStat struct {
	Added    DiffCount `json:"added"`
	Removed  DiffCount `json:"removed"`
	Modified DiffCount `json:"modified"`
	Renamed  DiffCount `json:"renamed"`
	Metadata DiffCount `json:"metadata"`
	Written  int64     `json:"changed_bytes"` // of files added, and of the ranges of those modified
}

// A DiffCount counts differences. Bytes are sizes of regular files.
type DiffCount struct {
	Files  int64 `json:"files"`
	Dirs   int64 `json:"directories"`
	Others int64 `json:"others"`
	Bytes  int64 `json:"bytes"`
}

// Add counts a difference. A file with several names counts with each name; its
// bytes count once.
func (s *DiffStat) Add(d *Difference, first bool) {
	c := map[ChangeKind]*DiffCount{
		Added: &s.Added, Removed: &s.Removed, Modified: &s.Modified, Renamed: &s.Renamed, Metadata: &s.Metadata,
	}[d.Change]
	e := Entry{Mode: d.Mode}
	switch {
	case e.IsDir():
		c.Dirs++
	case e.IsFile():
		c.Files++
	default:
		c.Others++
	}
	// Another name of a file whose bytes are counted already.
	if !first {
		return
	}
	switch d.Change {
	case Removed:
		c.Bytes += d.Before
	case Added:
		c.Bytes += d.Size
		s.Written += d.Size
	case Modified:
		c.Bytes += d.Size
		// What stayed in place was not written.
		s.Written += d.Changed()
	default:
		c.Bytes += d.Size
	}
}

// Bounds of what is in memory until the end: paths added and removed among which renames are looked
// for, and differences to be put in order. Beyond them differences are given out as they come, and
// some renames are shown as an addition and a removal. Bytes count as well as paths: one of a
// directory that is 1,000 deep has kilobytes.
const (
	maxMoves     = 500_000
	maxMoveBytes = 128 << 20
	moveBytes    = 256 // of a path that waits, and of its entry and difference, the path's text apart
)

// Diff calls fn for each difference of two snapshots, or from nothing when
// before is nil, and sums them up. They are in order of paths unless there are
// more than half a million, or they take more than 128 MiB. Subtrees with
// equal IDs are not read, except that
// the names of changed files with several names are looked for in the whole
// tree. Access times are not compared; nor are the times and counts of a
// directory in which names changed. Ranges of files are narrowed down by exact,
// which may be nil. A directory that was added or removed is
// followed by all that is in it; one that was renamed as a whole is one
// difference. An error of fn ends it and is returned, except store.ErrStop.
func Diff(ctx context.Context, src Source, before, after *Snapshot, exact *Exact, fn func(*Difference) error) (DiffStat, error) {
	d := &differ{ctx: ctx, src: src, exact: exact, fn: fn, counted: make(map[uint64]bool)}
	// The link tables first: every comparison of entries with an identity needs them.
	d.tables[1] = d.table(after)
	var err error
	if before == nil {
		err = d.tree("", nil, &after.Root)
	} else {
		d.tables[0] = d.table(before)
		err = d.both("", &before.Root, &after.Root)
	}
	if err == nil {
		// Only now is it known which names were reported, so that none is twice.
		err = d.linked(after)
	}
	if err == nil {
		// Renames come last: both halves of each have to be known.
		err = d.pair()
	}
	if err == nil {
		err = d.flush()
	}
	return d.stat, unlessStop(err)
}

type differ struct {
	ctx     context.Context
	src     Source
	exact   *Exact
	fn      func(*Difference) error
	tables  [2]*Tree // link tables before and after
	held    []*Difference
	gone    []move
	made    []move
	weight  int  // bytes of held, gone, made and what pair has of them
	full    bool // there are too many to be put in order
	stat    DiffStat
	counted map[uint64]bool // files with several names whose bytes are in stat
}

// A move is a path that was removed or added, perhaps half of a rename.
type move struct {
	path  string
	entry *Entry
}

func (d *differ) table(s *Snapshot) *Tree {
	if s.Table == (ID{}) {
		return nil
	}
	return OpenTree(d.src, s.Table, LinkTable)
}

// resolve returns what an entry stands for: for one of a file with several
// names the row of the link table, under its name.
func (d *differ) resolve(side int, e *Entry) (*Entry, error) {
	if e == nil || e.Ident == 0 {
		return e, nil
	}
	// Such an entry has no attributes of its own: without its row nothing could be compared.
	if d.tables[side] == nil {
		return nil, corrupt("snapshot", "a file with several names and no link table")
	}
	row, err := d.tables[side].Lookup(d.ctx, TableKey(e.Ident))
	if errors.Is(err, store.ErrNotFound) {
		return nil, corrupt("snapshot", "a file with several names that is not in the link table")
	}
	// The row has the identity for its name, as the table is sorted by it.
	row.Name, row.Ident = e.Name, e.Ident
	return &row, err
}

// tree compares two directories, either of which may be none.
func (d *differ) tree(dir string, before, after *Entry) error {
	return DiffTrees(d.ctx, d.dir(before), d.dir(after), func(a, b *Entry) error {
		p := ""
		if b != nil {
			p = path.Join(dir, b.Name)
		} else {
			p = path.Join(dir, a.Name)
		}
		a, err := d.resolve(0, a)
		if err != nil {
			return err
		}
		b, err = d.resolve(1, b)
		if err != nil {
			return err
		}
		switch {
		case a == nil:
			return d.one(&d.made, p, b)
		case b == nil:
			return d.one(&d.gone, p, a)
		// Another type is another file: no rename may pair the two either.
		case a.Type() != b.Type():
			if err := d.one(&d.gone, p, a); err != nil {
				return err
			}
			return d.one(&d.made, p, b)
		}
		return d.both(p, a, b)
	})
}

func (d *differ) dir(e *Entry) *Tree {
	if e == nil || e.Link.Kind != store.KindTree {
		return nil
	}
	return OpenTree(d.src, e.Link.ID, Directory)
}

// one notes a path that is on one side only; what is in a directory follows
// once it is clear that the directory was not renamed.
func (d *differ) one(list *[]move, p string, e *Entry) error {
	*list = append(*list, move{p, e})
	if err := d.hold(p); err != nil || len(d.gone)+len(d.made) < maxMoves && !d.full {
		return err
	}
	// From here on differences are given out as they come, no longer in order of paths.
	d.full = true
	return d.pair()
}

// hold counts a path that waits.
func (d *differ) hold(p string) error { return d.weigh(moveBytes + len(p)) }

// release counts a path that waits no more.
func (d *differ) release(p string) {
	_ = d.weigh(-moveBytes - len(p)) // nothing is too little
}

func (d *differ) weigh(bytes int) error {
	d.weight += bytes
	d.full = d.full || d.weight > maxMoveBytes
	return budget.Hold(d.ctx, bytes)
}

// both compares what a path is on both sides; the types are the same.
func (d *differ) both(p string, a, b *Entry) error {
	diff := &Difference{Path: p, Mode: b.Mode, Links: max(1, b.Nlink), Size: b.Size, Before: a.Size, Aspects: aspects(a, b), ident: b.Ident, was: a.Link, now: b.Link}
	switch {
	case b.IsDir() && a.Link != b.Link:
		// Names that come and go change a directory's times.
		diff.Aspects = slices.DeleteFunc(diff.Aspects, func(s string) bool { return s == "mtime" || s == "ctime" })
		// What is in it is emitted before the directory itself: flush puts them in order.
		if err := d.tree(p, a, b); err != nil {
			return err
		}
	case b.IsFile() && (a.Link != b.Link || a.Size != b.Size):
		ranges, err := DiffFiles(d.ctx, d.src, a.Link, a.Size, b.Link, b.Size, d.exact)
		if err != nil {
			return err
		}
		// Other vertices may hold the same bytes, split otherwise or compared exactly: then no
		// range is left.
		if len(ranges) > 0 || a.Size != b.Size {
			diff.Change, diff.Ranges = Modified, ranges
			return d.emit(diff)
		}
	}
	if len(diff.Aspects) == 0 {
		return nil
	}
	diff.Change = Metadata
	return d.emit(diff)
}

// aspects names the attributes that differ. What moves by itself is left out:
// access times.
func aspects(a, b *Entry) []string {
	var list []string
	note := func(differs bool, name string) {
		if differs {
			list = append(list, name)
		}
	}
	note(a.Mode != b.Mode, "mode")
	note(a.UID != b.UID || a.GID != b.GID, "owner")
	note(a.Rdev != b.Rdev, "device")
	note(a.Target != b.Target, "target")
	note(!slices.EqualFunc(a.Xattrs, b.Xattrs, func(x, y Xattr) bool {
		return x.Name == y.Name && string(x.Value) == string(y.Value)
	}) || a.XattrLink != b.XattrLink, "xattrs")
	note(a.Mtime != b.Mtime, "mtime")
	note(a.Ctime != b.Ctime, "ctime")
	note(a.Btime != b.Btime, "btime")
	// 0 stands for 1: most entries do not spell it out.
	note(max(1, a.Nlink) != max(1, b.Nlink), "links")
	return list
}

// linked reports changed files with several names, of which the directories say
// nothing: only the link table differs.
func (d *differ) linked(after *Snapshot) error {
	rows := make(map[uint64][2]*Entry)
	// With no table on one side no file had several names there, so every change shows in a
	// directory.
	if d.tables[0] == nil || d.tables[1] == nil {
		return nil
	}
	err := DiffTrees(d.ctx, d.tables[0], d.tables[1], func(a, b *Entry) error {
		// A row on one side only is a file that came or went, which its directory shows.
		if a != nil && b != nil {
			rows[TableIdent(b.Name)] = [2]*Entry{a, b}
		}
		return nil
	})
	if err != nil || len(rows) == 0 {
		return err
	}
	seen := make(map[string]bool)
	// Those with a name that was found by its directory were compared there.
	for _, x := range d.held {
		seen[x.Path] = true
	}
	for _, m := range d.made {
		seen[m.path] = true
	}
	// The table does not say where the names are, so the whole tree has to be gone through.
	return WalkTree(d.ctx, d.src, &after.Root, "", func(p string, e *Entry) error {
		pair, ok := rows[e.Ident]
		if e.Ident == 0 || !ok || seen[p] {
			return nil
		}
		a, b := *pair[0], *pair[1]
		a.Ident, b.Ident = e.Ident, e.Ident
		return d.both(p, &a, &b)
	})
}

// WalkTree calls fn for all that is below a directory, directories before what
// they hold, in order of names. Of a file with several names it gives the entry
// that leads to the link table. An error of fn ends it and is returned.
func WalkTree(ctx context.Context, src Source, dir *Entry, at string, fn func(path string, e *Entry) error) error {
	return OpenTree(src, dir.Link.ID, Directory).Each(ctx, "", func(e *Entry) error {
		p := path.Join(at, e.Name)
		if err := fn(p, e); err != nil || !e.IsDir() {
			return err
		}
		return WalkTree(ctx, src, e, p, fn)
	})
}

// A content is by what a rename is told: the bytes of a file, the names of a
// directory, or the identity of a file with several names.
type content struct {
	link  Link
	ident uint64
}

func (m *move) contents() []content {
	var keys []content
	if m.entry.Ident != 0 {
		keys = append(keys, content{ident: m.entry.Ident})
	}
	if m.entry.Link.Kind != 0 && (!m.entry.IsDir() || m.entry.Entries > 0) {
		keys = append(keys, content{link: m.entry.Link})
	}
	return keys
}

// moves are paths that wait for their other half.
type moves struct {
	list      []move
	paired    []bool
	byContent map[content][]int
}

func (w *moves) add(m move) {
	if w.byContent == nil {
		w.byContent = make(map[content][]int)
	}
	for _, c := range m.contents() {
		w.byContent[c] = append(w.byContent[c], len(w.list))
	}
	w.list, w.paired = append(w.list, m), append(w.paired, false)
}

// match takes the path that m has or had: one with the same last name, else the
// first that is left.
func (w *moves) match(m *move) *move {
	found := -1
	for _, c := range m.contents() {
		for _, k := range w.byContent[c] {
			// Snapshots of two volumes may have one identity for files of two types.
			if w.paired[k] || w.list[k].entry.Type() != m.entry.Type() {
				continue
			}
			if path.Base(w.list[k].path) == path.Base(m.path) {
				found = k
				break
			}
			// Not the best, but the first; a later one with the same last name is better.
			if found < 0 {
				found = k
			}
		}
		if found >= 0 {
			w.paired[found] = true
			return &w.list[found]
		}
	}
	return nil
}

// rest calls fn for the paths that stay without another half.
func (w *moves) rest(fn func(*move) error) error {
	for i := range w.list {
		if !w.paired[i] {
			if err := fn(&w.list[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// pair makes renames of what was removed and added with the same content. A
// directory that was added and was not renamed as a whole is opened, then those
// that were removed: what is in them may have been renamed.
func (d *differ) pair() error {
	var gone, left moves
	// A differ that is full comes by for each path: what waited here must not count on.
	defer func() {
		for _, w := range []*moves{&gone, &left} {
			for i := range w.list {
				d.release(w.list[i].path)
			}
		}
	}()
	// All that is gone is known by its content before the first of what was made asks for its other
	// half.
	for _, m := range d.gone {
		gone.add(m)
	}
	made := d.queue(d.made)
	// They are in the queues from here on, and may be many.
	d.gone, d.made = nil, nil
	added := func(m *move) error { return d.opened(Added, m, nil) }
	// From the top down: a directory that was renamed as a whole is one rename, and what is in it
	// is not looked at.
	for m, ok := made.next(); ok; m, ok = made.next() {
		var err error
		switch from := gone.match(&m); {
		case from != nil:
			err = d.renamed(from, &m)
		case m.entry.IsDir():
			err = d.opened(Added, &m, made.add)
		// Beyond the bound nothing waits for another half that may never come.
		case d.full:
			err = added(&m)
		default:
			left.add(m)
			err = d.hold(m.path)
		}
		if err != nil {
			return err
		}
	}
	removed := d.queue(nil)
	if err := gone.rest(func(m *move) error { return removed.add(*m) }); err != nil {
		return err
	}
	for m, ok := removed.next(); ok; m, ok = removed.next() {
		var err error
		if to := left.match(&m); to != nil {
			err = d.renamed(&m, to)
		} else {
			err = d.opened(Removed, &m, removed.add)
		}
		if err != nil {
			return err
		}
	}
	// Files alone are left: directories that were added have been opened above.
	return left.rest(added)
}

// A moveQueue has the moves that are to be looked at, the first first. In a full differ it is a
// stack: what is below one directory is done with before the next one is opened. So a tree that
// doubles at each level has two for each level in memory, and not all of its last one.
type moveQueue struct {
	d    *differ
	list []move
}

func (d *differ) queue(list []move) *moveQueue { return &moveQueue{d, list} }

func (q *moveQueue) add(m move) error {
	q.list = append(q.list, m)
	return q.d.hold(m.path)
}

func (q *moveQueue) next() (m move, ok bool) {
	if len(q.list) == 0 {
		return m, false
	}
	if last := len(q.list) - 1; q.d.full {
		m, q.list = q.list[last], q.list[:last]
	} else {
		m, q.list = q.list[0], q.list[1:]
	}
	q.d.release(m.path)
	return m, true
}

func (d *differ) renamed(from, to *move) error {
	a, b := from.entry, to.entry
	diff := &Difference{
		Change: Renamed, Path: to.path, From: from.path, Mode: b.Mode, Links: max(1, b.Nlink), Size: b.Size, Before: a.Size,
		Entries: b.Entries, ident: b.Ident, Aspects: aspects(a, b),
	}
	// A rename changes this time by itself.
	diff.Aspects = slices.DeleteFunc(diff.Aspects, func(s string) bool { return s == "ctime" })
	// Paired by identity, not by bytes: a file with several names that has changed, too.
	if b.IsFile() && a.Link != b.Link {
		var err error
		if diff.Ranges, err = DiffFiles(d.ctx, d.src, a.Link, a.Size, b.Link, b.Size, d.exact); err != nil {
			return err
		}
	}
	return d.emit(diff)
}

// opened reports a path that is on one side only, and gives what is in it to
// below.
func (d *differ) opened(change ChangeKind, m *move, below func(move) error) error {
	e := m.entry
	diff := &Difference{Change: change, Path: m.path, Mode: e.Mode, Links: max(1, e.Nlink), Size: e.Size, ident: e.Ident, now: e.Link}
	side := 1
	if change == Removed {
		diff.Size, diff.Before = 0, e.Size
		diff.was, diff.now = e.Link, Link{}
		side = 0
	}
	if err := d.emit(diff); err != nil || !e.IsDir() {
		return err
	}
	// Only its direct entries: those that are directories are opened in turn, unless they were
	// renamed.
	return d.dir(e).Each(d.ctx, "", func(e *Entry) error {
		e, err := d.resolve(side, e)
		if err != nil {
			return err
		}
		return below(move{m.path + "/" + e.Name, e})
	})
}

// emit sums up a difference and holds it until the end, to be put in order.
func (d *differ) emit(diff *Difference) error {
	first := diff.ident == 0 || !d.counted[diff.ident]
	if diff.ident != 0 {
		// Of a file with several names the bytes count once.
		d.counted[diff.ident] = true
	}
	d.stat.Add(diff, first)
	d.held = append(d.held, diff)
	if err := d.hold(diff.Path); err != nil || !d.full {
		return err
	}
	return d.flush()
}

func (d *differ) flush() error {
	slices.SortStableFunc(d.held, func(a, b *Difference) int { return cmp.Compare(a.Path, b.Path) })
	held := d.held
	// Let go before fn runs, which may take long: there may be half a million of them.
	d.held = nil
	for _, x := range held {
		d.release(x.Path)
		if err := d.fn(x); err != nil {
			return err
		}
	}
	return nil
}
