package graph

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"slices"

	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/vertex"
)

// An Occurrence is a place where the bytes of a block are.
type Occurrence struct {
	Path      string   `json:"path"`                // of a file, from the root, without a leading slash; of an object its name
	Object    bool     `json:"object,omitempty"`    // it is an object
	Xattrs    bool     `json:"xattrs,omitempty"`    // the bytes are of the file's extended attributes
	Offset    int64    `json:"offset"`              // in the file
	Bytes     int64    `json:"bytes"`               // of the file
	Skip      int64    `json:"skip"`                // where they start in the block
	Live      bool     `json:"live"`                // it is so in the live filesystem
	Snapshots []string `json:"snapshots,omitempty"` // and in these
	Inode     uint64   `json:"inode,omitempty"`     // of a live file without a name
}

// LivePaths returns all paths of files of the live filesystem, at the instant of
// the matrix. A file without a name is not in it.
type LivePaths func(inodes map[uint64]bool) (map[uint64][]string, error)

// maxOccurrences bounds what Why looks at. A long path counts as several.
const (
	maxOccurrences = 1_000_000
	pathUnit       = 256 // bytes
)

// units is what a path counts as.
func units(path string) int { return 1 + len(path)/pathUnit }

// A Climber says where blocks are. What it learns of directories and paths serves all blocks that
// it is asked of, so one is made for all of a file. It is not for concurrent use.
type Climber struct {
	m     *Matrix
	src   Source
	live  LivePaths
	trees map[int][]treePos              // of vertices of trees
	links map[string]map[uint64][]string // of a snapshot, paths of files with several names
	paths map[uint64][]string            // of live files
	known int                            // what trees and paths hold
}

// NewClimber returns one for the blocks of a matrix.
func NewClimber(m *Matrix, src Source, live LivePaths) *Climber {
	c := &Climber{m: m, src: src, live: live, links: make(map[string]map[uint64][]string)}
	c.forget()
	return c
}

// forget drops what may be learnt again.
func (c *Climber) forget() {
	c.trees, c.paths, c.known = make(map[int][]treePos), make(map[uint64][]string), 0
}

// Why finds every place where the bytes of a block or file vertex are: in files
// of the live filesystem and of snapshots, and in objects. Of a tree vertex it
// finds the directories that it is, or is a part of. They are in order of paths.
// ErrTooMany: there are more than a million, or their paths are as long as a million.
func (c *Climber) Why(ctx context.Context, col int) ([]Occurrence, error) {
	if c.known > maxOccurrences {
		c.forget() // this block may bring as many again
	}
	// What is found is of this block alone; trees and paths stay with the climber.
	w := &why{Climber: c, ctx: ctx, found: make(map[location]*sides)}
	if err := w.start(col); err != nil {
		return nil, err
	}
	if err := w.liveFiles(); err != nil {
		return nil, err
	}
	return w.result(), nil
}

func (w *why) start(col int) error {
	b := w.m.Block(col)
	switch b.Kind {
	case store.KindData:
		// All of the block, until an edge says which part of it a file uses.
		return w.content(col, occurrence{len: b.Raw, start: true})
	case store.KindFile:
		plain, err := w.src.Get(w.ctx, b.ID)
		if err != nil {
			return err
		}
		v, err := vertex.DecodeFile(plain)
		if err != nil {
			return fmt.Errorf("%s: %w", b.ID, err)
		}
		return w.content(col, occurrence{len: v.Size, start: true})
	case store.KindTree:
		at, err := w.positions(col)
		if err != nil {
			return err
		}
		for _, p := range at {
			if err := w.inTree(p, "", occurrence{}); err != nil {
				return err
			}
		}
	}
	return nil
}

// A why climbs from one block to all that holds it.
type why struct {
	*Climber
	ctx    context.Context
	found  map[location]*sides
	inodes []liveUse
	size   int // units of both
}

// A treePos is where a tree is: below a path of a snapshot, or of a directory of
// the live filesystem that still is lazy; or it is a snapshot's link table.
type treePos struct {
	snapshot string
	inode    uint64
	table    bool
	path     string
}

// An occurrence is a range of what is being climbed from.
type occurrence struct {
	off, len, skip int64
	start          bool // nothing has been climbed yet
	xattrs         bool
}

type liveUse struct {
	inode uint64
	below string
	occurrence
}

type sides struct {
	live      bool
	snapshots map[string]bool
}

// A location is a range of a file or object.
type location struct {
	path   string
	object bool
	inode  uint64 // of a file without a name
	occurrence
}

// note notes a location, in a snapshot or, without a name of one, live.
func (w *why) note(at location, snapshot string) error {
	s, ok := w.found[at]
	if !ok {
		s = &sides{snapshots: make(map[string]bool)}
		w.found[at] = s
		w.size += units(at.path)
	}
	if snapshot != "" {
		s.snapshots[snapshot] = true
	} else {
		s.live = true
	}
	return w.bound()
}

// edges returns the edges of a vertex that lead to a block.
func (w *why) edges(row int, to ID) ([]Edge, error) {
	r := w.m.Row(row)
	col, _ := w.m.Column(r.ID)
	plain, err := w.src.Get(w.ctx, r.ID)
	if err != nil {
		return nil, fmt.Errorf("vertex %s: %w", r.ID.Short(), err)
	}
	all, err := Edges(r.ID, w.m.Block(col).Kind, plain)
	// One vertex may refer to a block several times, each at another offset.
	return slices.DeleteFunc(all, func(e Edge) bool { return e.To != to }), err
}

// each calls fn for all rows that refer to a column.
func (w *why) each(col int, fn func(row int) error) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	var err error
	w.m.EachInColumn(col, func(row int) bool {
		err = fn(row)
		return err == nil
	})
	return err
}

// content climbs from a block or file vertex.
func (w *why) content(col int, o occurrence) error {
	return w.each(col, func(row int) error {
		switch r := w.m.Row(row); r.Kind {
		case FileRow:
			w.inFile(row, col, r.Ino, o)
			return nil
		case NameRow:
			// A block that a snapshot names directly is a vertex, and no content.
			if r.Name.Snapshot {
				return nil
			}
			return w.note(location{path: r.Name.Name, object: true, occurrence: o}, "")
		}
		edges, err := w.edges(row, w.m.Block(col).ID)
		if err != nil {
			return err
		}
		// Each vertex in a row has a column: rows were made of columns.
		up, _ := w.m.Column(w.m.Row(row).ID)
		for _, e := range edges {
			if err := w.through(up, e, o); err != nil {
				return err
			}
		}
		return nil
	})
}

// through climbs along one edge, to a vertex.
func (w *why) through(up int, e Edge, o occurrence) error {
	// The first edge says which bytes of the block the file has; those above only where they lie.
	if o.start && e.Role == Contains {
		return w.content(up, occurrence{off: e.Offset, len: e.Bytes, skip: e.Skip})
	}
	o.start = false
	switch e.Role {
	case Contains:
		o.off += e.Offset
		return w.content(up, o)
	case Names:
		// A name vertex is between an object and its name.
		return w.content(up, o)
	case Content, Xattrs:
		o.xattrs = e.Role == Xattrs
		at, err := w.positions(up)
		if err != nil {
			return err
		}
		for _, p := range at {
			if err := w.inTree(p, e.Name, o); err != nil {
				return err
			}
		}
	}
	return nil
}

// inFile notes the uses of a file of the live filesystem.
func (w *why) inFile(row, col int, inode uint64, o occurrence) {
	w.m.EachInRow(row, func(u Use) bool {
		switch {
		case u.Col != col:
		case u.Len > 0:
			w.inodes = append(w.inodes, liveUse{inode, "", occurrence{off: u.Off, len: u.Len, skip: int64(u.Skip)}})
		default:
			o.start = false
			w.lazy(inode, u.Off, o)
		}
		return true
	})
}

// lazy notes what is left of an occurrence in a file of which all before from has
// been changed.
func (w *why) lazy(inode uint64, from int64, o occurrence) {
	if cut := from - o.off; cut > 0 {
		if cut >= o.len {
			return
		}
		o.off, o.len, o.skip = o.off+cut, o.len-cut, o.skip+cut
	}
	w.inodes = append(w.inodes, liveUse{inode, "", o})
}

// positions climbs from a tree.
func (w *why) positions(col int) ([]treePos, error) {
	if list, ok := w.trees[col]; ok {
		return list, nil
	}
	var list []treePos
	err := w.each(col, func(row int) (err error) {
		r := w.m.Row(row)
		switch r.Kind {
		case FileRow:
			list, err = w.place(list, treePos{inode: r.Ino})
			return err
		case NameRow:
			return nil
		}
		edges, err := w.edges(row, w.m.Block(col).ID)
		if err != nil {
			return err
		}
		up, _ := w.m.Column(r.ID)
		for _, e := range edges {
			if list, err = w.positionsThrough(list, up, e); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil { // part of it would be taken for all by the next block
		w.trees[col] = list
		w.known++
	}
	return list, err
}

// place adds a position to a list, and counts it before the next one is made: each may have a path
// of any length. Beside what was known before this block, the lists of all trees on the way up add
// up.
func (w *why) place(list []treePos, p treePos) ([]treePos, error) {
	if w.known += units(p.path); w.known > 2*maxOccurrences {
		return list, ErrTooMany
	}
	return append(list, p), w.ctx.Err()
}

func (w *why) positionsThrough(list []treePos, up int, e Edge) ([]treePos, error) {
	if e.Role == RootOf || e.Role == TableOf {
		// One snapshot vertex may have several names.
		for _, name := range w.snapshotNames(up) {
			var err error
			if list, err = w.place(list, treePos{snapshot: name, table: e.Role == TableOf}); err != nil {
				return list, err
			}
		}
		return list, nil
	}
	// It ends: a vertex contains the hashes of what it links to, so no way up is a circle.
	above, err := w.positions(up)
	if err != nil {
		return list, err
	}
	for _, p := range above {
		// Parts of a large directory are at the path of the whole.
		if e.Role == Content {
			p.path = path.Join(p.path, e.Name)
		}
		if list, err = w.place(list, p); err != nil {
			return list, err
		}
	}
	if len(list) > maxOccurrences {
		return list, ErrTooMany
	}
	return list, nil
}

// snapshotNames returns the names of a snapshot vertex.
func (w *why) snapshotNames(col int) (names []string) {
	w.m.EachInColumn(col, func(row int) bool {
		if r := w.m.Row(row); r.Kind == VertexRow { // a name vertex
			// A snapshot's name refers to a name vertex, which refers to the snapshot: two steps
			// up.
			at, _ := w.m.Column(r.ID)
			w.m.EachInColumn(at, func(row int) bool {
				if n := w.m.Row(row); n.Kind == NameRow && n.Name.Snapshot {
					names = append(names, n.Name.Name)
				}
				return true
			})
		}
		return true
	})
	return names
}

// inTree notes an entry of a tree.
func (w *why) inTree(p treePos, name string, o occurrence) error {
	switch {
	case p.table && name == "": // a part of the table
		return nil
	case p.table:
		paths, err := w.linkPaths(p.snapshot)
		if err != nil {
			return err
		}
		var ident uint64
		if _, err := fmt.Sscanf(name, "#%d", &ident); err != nil {
			return fmt.Errorf("row %q of a link table: %w", name, store.ErrCorrupt)
		}
		for _, at := range paths[ident] {
			if err := w.note(location{path: at, occurrence: o}, p.snapshot); err != nil {
				return err
			}
		}
		return nil
	case p.inode != 0:
		below := path.Join(p.path, name)
		w.inodes, w.size = append(w.inodes, liveUse{p.inode, below, o}), w.size+units(below)
		return w.bound()
	}
	return w.note(location{path: path.Join(p.path, name), occurrence: o}, p.snapshot)
}

// linkPaths returns the paths of all files with several names in a snapshot.
func (w *why) linkPaths(name string) (map[uint64][]string, error) {
	if paths, ok := w.links[name]; ok {
		return paths, nil
	}
	s, err := w.snapshot(name)
	if err != nil {
		return nil, err
	}
	paths := make(map[uint64][]string)
	size := 0
	err = WalkTree(w.ctx, w.src, &s.Root, "", func(p string, e *Entry) error {
		// Only these are found by their row of the link table, which has no path.
		if e.Ident != 0 {
			paths[e.Ident] = append(paths[e.Ident], p)
			if size += units(p); size > maxOccurrences {
				return ErrTooMany
			}
		}
		return nil
	})
	if err == nil {
		w.links[name] = paths
	}
	return paths, err
}

func (w *why) snapshot(name string) (*Snapshot, error) {
	for _, n := range w.m.names {
		if n.Snapshot && n.Name == name {
			s, err := GetSnapshot(w.ctx, w.src, n.ID)
			if err != nil {
				return nil, fmt.Errorf("snapshot %q: %w", name, err)
			}
			return &s, nil
		}
	}
	return nil, fmt.Errorf("snapshot %q: %w", name, store.ErrNotFound)
}

// liveFiles gives the files of the live filesystem their paths.
func (w *why) liveFiles() error {
	if err := w.learnPaths(); err != nil {
		return err
	}
	for _, u := range w.inodes {
		names := w.paths[u.inode]
		for _, p := range names {
			if err := w.note(location{path: path.Join(p, u.below), occurrence: u.occurrence}, ""); err != nil {
				return err
			}
		}
		// An orphan: unlinked and open, or found by fsck; it takes space all the same.
		if len(names) == 0 {
			if err := w.note(location{path: u.below, inode: u.inode, occurrence: u.occurrence}, ""); err != nil {
				return err
			}
		}
	}
	return nil
}

// learnPaths asks for the paths that are not known yet: of blocks of one file only once.
func (w *why) learnPaths() error {
	wanted := make(map[uint64]bool)
	for _, u := range w.inodes {
		if _, known := w.paths[u.inode]; !known {
			wanted[u.inode] = true
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	paths, err := w.live(wanted)
	if err != nil {
		return err
	}
	for inode := range wanted {
		w.paths[inode] = paths[inode] // none, too, is known from now on
		w.known += 1 + len(paths[inode])
	}
	return nil
}

func (w *why) bound() error {
	if w.size > maxOccurrences {
		return ErrTooMany
	}
	return w.ctx.Err()
}

func (w *why) result() []Occurrence {
	list := make([]Occurrence, 0, len(w.found))
	for at, s := range w.found {
		o := Occurrence{
			Path: at.path, Object: at.object, Xattrs: at.xattrs, Offset: at.off, Bytes: at.len, Skip: at.skip, Inode: at.inode,
			Live: s.live && !at.object,
		}
		for name := range s.snapshots {
			o.Snapshots = append(o.Snapshots, name)
		}
		slices.Sort(o.Snapshots)
		list = append(list, o)
	}
	// Maps give another order each time, and answers are compared and shown in pages.
	slices.SortFunc(list, func(a, b Occurrence) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Offset, b.Offset), cmp.Compare(a.Skip, b.Skip),
			cmp.Compare(fmt.Sprint(a.Object, a.Xattrs), fmt.Sprint(b.Object, b.Xattrs)), cmp.Compare(a.Inode, b.Inode))
	})
	return list
}
