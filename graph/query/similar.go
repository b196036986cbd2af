package query

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/graph/export"
	"github.com/quarxtor/quarxfs/store"
)

// Similar is what shares blocks with something.
type Similar struct {
	Name   string      `json:"name"`
	Kind   export.Kind `json:"kind"`
	Blocks int64       `json:"blocks"` // distinct ones
	Bytes  int64       `json:"bytes"`
	Like   []Like      `json:"like"` // most alike first
}

// Like is something with how like the subject it is.
type Like struct {
	Name     string      `json:"name"`
	Kind     export.Kind `json:"kind"`
	Estimate float64     `json:"estimate"` // of the Jaccard index, from sketches
	graph.Likeness
}

// MaxSimilar is the most that Similar finds.
const MaxSimilar = 1000

// Similar implements remote.Graph.
func (q *Graph) Similar(ctx context.Context, ref string, top int) (Similar, error) {
	if top < 1 || top > MaxSimilar || ref == "" {
		return Similar{}, fmt.Errorf("%w: %q, top %d: name something, and choose a top of 1 to %d", ErrRequest, ref, top, MaxSimilar)
	}
	if err := q.store.Commit(); err != nil {
		return Similar{}, err
	}
	root, err := q.rootOf(ctx, ref)
	if err != nil {
		return Similar{}, err
	}
	defer q.store.PauseSweep()()
	rows, err := q.store.View()
	if err != nil {
		return Similar{}, err
	}
	defer rows.Close()
	// More candidates than are shown: sketches estimate, and the exact comparison below may order
	// them otherwise.
	f := finder{q: q, ctx: ctx, rows: rows, most: 4*top + 16, sketcher: graph.NewSketcher(q.store)}
	if f.subject, err = f.candidate(root); err != nil {
		return Similar{}, err
	}
	set, err := f.blocks(f.subject)
	if err != nil {
		return Similar{}, err
	}
	for id := range set {
		f.sketch.Add(id)
	}
	s := Similar{Name: f.subject.name, Kind: f.subject.kind, Blocks: int64(len(set)), Bytes: set.Bytes(), Like: []Like{}}
	if err := f.candidates(); err != nil {
		return s, err
	}
	for _, t := range f.best {
		other, err := f.blocks(t)
		if err != nil {
			return s, err
		}
		name, err := f.name(t)
		if err != nil {
			return s, err
		}
		s.Like = append(s.Like, Like{name, t.kind, t.estimate, set.Compare(other)})
	}
	slices.SortStableFunc(s.Like, func(a, b Like) int {
		return cmp.Or(cmp.Compare(b.Jaccard, a.Jaccard), cmp.Compare(a.Name, b.Name))
	})
	s.Like = s.Like[:min(top, len(s.Like))]
	return s, nil
}

// A candidate is what can be like another: a file or directory of the live
// filesystem, or a block or vertex.
type candidate struct {
	kind     export.Kind
	name     string // "": that of the inode's path
	file     *export.LiveFile
	id       graph.ID
	estimate float64
}

// same reports whether two candidates are one.
func (t candidate) same(o candidate) bool {
	if t.file != nil && o.file != nil {
		return t.file.Ino == o.file.Ino
	}
	return t.file == nil && o.file == nil && t.id == o.id && t.name == o.name
}

// A finder looks for candidates like its subject.
type finder struct {
	q        *Graph
	ctx      context.Context
	rows     *store.View
	subject  candidate
	sketch   graph.Sketch
	sketcher *graph.Sketcher
	best     []candidate // by estimate, at most most
	most     int
}

// candidate says what a root is.
func (f *finder) candidate(r export.Root) (candidate, error) {
	t := candidate{name: r.Path, file: r.File, id: r.ID}
	switch {
	case r.File != nil && r.File.Directory:
		t.kind = export.Directory
		if t.name == "" {
			t.name = "/"
		}
	case r.File != nil:
		t.kind = export.Inode
	case r.Name != "":
		t.kind, t.name = export.Object, r.Name
	default:
		e, err := f.q.store.Lookup(r.ID)
		if err != nil {
			return t, err
		}
		t.kind = export.Kind(e.Kind.String())
		if t.kind == export.Snapshot {
			t.name = r.Label
		}
		if t.name == "" {
			t.name = r.ID.String()
		}
	}
	return t, nil
}

// blocks collects all blocks of a candidate.
func (f *finder) blocks(t candidate) (graph.BlockSet, error) {
	set := make(graph.BlockSet)
	var err error
	if t.file != nil {
		err = f.live(*t.file, set)
	} else {
		err = set.AddBelow(f.ctx, f.q.store, t.id)
	}
	return set, err
}

// live collects the blocks below a live file. What has gone meanwhile is left
// out.
func (f *finder) live(file export.LiveFile, set graph.BlockSet) error {
	var below []export.LiveFile
	err := f.q.live.LiveEdges(f.ctx, file, func(e export.LiveEdge) error {
		if e.File != nil {
			below = append(below, *e.File)
			return nil
		}
		if _, ok := set[e.Block]; ok {
			return nil
		}
		return gone(set.AddBelow(f.ctx, f.q.store, e.Block))
	})
	if gone(err) != nil {
		return err
	}
	for _, b := range below {
		if err := f.live(b, set); err != nil {
			return err
		}
	}
	return nil
}

// candidates fills best with what is of the subject's sort: files, live and in
// snapshots, and objects; or directories and snapshots. A snapshot is compared with the whole live
// filesystem, but not with its parts.
func (f *finder) candidates() error {
	switch f.subject.kind {
	case export.Inode, export.Object, export.File, export.Data:
		return errors.Join(f.objects(), f.files(), f.oldFiles())
	case export.Snapshot, export.Directory, export.Tree:
		return errors.Join(f.snapshots(), f.directories())
	}
	return fmt.Errorf("%w: nothing can be like a %s", ErrRequest, f.subject.kind)
}

// consider takes a candidate into the best if it is one of them.
func (f *finder) consider(t candidate, s *graph.Sketch) {
	t.estimate = f.sketch.Jaccard(s)
	if t.estimate == 0 || t.same(f.subject) {
		return
	}
	// The place behind all that are as good, so that equal ones stay in the order in which they
	// came.
	i, _ := slices.BinarySearchFunc(f.best, t.estimate, func(a candidate, e float64) int {
		if a.estimate >= e {
			return -1
		}
		return 1
	})
	if i == f.most {
		return
	}
	f.best = slices.Insert(f.best[:min(len(f.best), f.most-1)], i, t)
}

func (f *finder) objects() error {
	var all []store.ObjectInfo
	err := f.q.store.Objects(f.ctx, "", func(o store.ObjectInfo) error { all = append(all, o); return nil })
	if err != nil {
		return err
	}
	for _, o := range all {
		s, err := f.sketcher.Of(f.ctx, o.ID)
		if err != nil {
			return fmt.Errorf("object %q: %w", o.Name, err)
		}
		f.consider(candidate{kind: export.Object, name: o.Name, id: o.ID}, s)
	}
	return nil
}

func (f *finder) snapshots() error {
	var all []store.SnapshotRef
	err := f.q.store.Snapshots(f.ctx, func(s store.SnapshotRef) error { all = append(all, s); return nil })
	if err != nil {
		return err
	}
	for _, r := range all {
		s, err := f.sketcher.Of(f.ctx, r.ID)
		if err != nil {
			return fmt.Errorf("snapshot %q: %w", r.Name, err)
		}
		f.consider(candidate{kind: export.Snapshot, name: r.Name, id: r.ID}, s)
	}
	return nil
}

// eachFile calls names for all entries of directories, then fn with the sketch of
// every live file that has blocks, and of the vertex of every directory that is a
// clone; the sketch is valid during the call.
func (f *finder) eachFile(names func(Name), fn func(ino uint64, s *graph.Sketch)) error {
	err := f.q.rows.Names(f.ctx, f.rows, func(n Name) error { names(n); return nil })
	if err != nil {
		return err
	}
	last, s := uint64(0), new(graph.Sketch)
	err = f.q.rows.References(f.ctx, f.rows, func(r graph.Reference) error {
		// References come by inode: when the next one begins, the file before is complete.
		if r.Ino != last {
			if !s.Empty() {
				fn(last, s)
			}
			last, s = r.Ino, new(graph.Sketch)
		}
		below, err := f.sketcher.Of(f.ctx, r.ID)
		if err == nil {
			s.Merge(below)
		}
		return gone(err)
	})
	if err == nil && !s.Empty() {
		fn(last, s)
	}
	return err
}

func (f *finder) files() error {
	dirs := make(map[uint64]bool)
	return f.eachFile(func(n Name) {
		if n.Directory {
			dirs[n.Ino] = true
		}
	}, func(ino uint64, s *graph.Sketch) {
		// A cloned directory has a reference, too, and is not compared with files.
		if !dirs[ino] {
			f.consider(candidate{kind: export.Inode, file: &export.LiveFile{Ino: ino}}, s)
		}
	})
}

// oldFiles considers the files in snapshots, equal ones once.
func (f *finder) oldFiles() error {
	paths := make(map[graph.ID]string) // the first that leads to each
	var roots []graph.ID
	err := f.q.store.Snapshots(f.ctx, func(s store.SnapshotRef) error {
		if _, ok := paths[s.ID]; !ok {
			roots = append(roots, s.ID)
			paths[s.ID] = s.Name + ":"
		}
		return nil
	})
	if err != nil {
		return err
	}
	w := graph.Walk{Kinds: []store.Kind{store.KindSnapshot, store.KindTree}}
	return w.From(f.ctx, f.q.store, roots, func(v graph.Vertex) error {
		for _, e := range v.Edges {
			// What is met again is the same bytes; extended attributes are nobody's file.
			if _, met := paths[e.To]; met || e.Role == graph.Xattrs {
				continue
			}
			// Parts of a directory are at its path; only an entry makes it longer.
			paths[e.To] = paths[v.ID]
			if e.Role != graph.Content {
				continue
			}
			paths[e.To] = export.Join(paths[v.ID], e.Name)
			if err := f.oldFile(e.To, paths[e.To]); err != nil {
				return err
			}
		}
		return nil
	})
}

// oldFile considers what an entry leads to, if it is a file.
func (f *finder) oldFile(id graph.ID, path string) error {
	row, err := f.q.store.Lookup(id)
	if err != nil || row.Kind == store.KindTree {
		return err
	}
	s, err := f.sketcher.Of(f.ctx, id)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	f.consider(candidate{kind: export.Kind(row.Kind.String()), name: path, id: id}, s)
	return nil
}

// directories makes the sketches of all directories from those of the files in
// them, from the bottom up.
func (f *finder) directories() error {
	parent := make(map[uint64]uint64)    // of directories
	holders := make(map[uint64][]uint64) // of files: a directory for each name
	sketches := make(map[uint64]*graph.Sketch)
	err := f.eachFile(func(n Name) {
		if n.Directory {
			parent[n.Ino] = n.Dir
		} else {
			holders[n.Ino] = append(holders[n.Ino], n.Dir)
		}
	}, func(ino uint64, s *graph.Sketch) {
		in := holders[ino]
		if len(in) == 0 {
			in = []uint64{ino} // a directory
		}
		for _, dir := range in {
			if sketches[dir] == nil {
				sketches[dir] = new(graph.Sketch)
			}
			sketches[dir].Merge(s)
		}
	})
	if err != nil {
		return err
	}
	above := f.above(parent)
	for _, dir := range bottomUp(parent) {
		s := sketches[dir]
		if s == nil {
			continue
		}
		up, below := parent[dir]
		if !above[dir] && (f.subject.kind != export.Snapshot || !below) {
			f.consider(candidate{kind: export.Directory, file: &export.LiveFile{Ino: dir, Directory: true}}, s)
		}
		if below {
			if sketches[up] == nil {
				sketches[up] = new(graph.Sketch)
			}
			sketches[up].Merge(s)
		}
		// Merged into the one above, so that memory holds little more than one level of the tree.
		delete(sketches, dir)
	}
	return nil
}

// above returns the directories that the subject is in: that they share its
// blocks is no news.
func (f *finder) above(parent map[uint64]uint64) map[uint64]bool {
	above := make(map[uint64]bool)
	if f.subject.file == nil {
		return above
	}
	for dir, ok := parent[f.subject.file.Ino]; ok && !above[dir]; dir, ok = parent[dir] {
		above[dir] = true
	}
	return above
}

// bottomUp lists directories, each after all that are below it.
func bottomUp(parent map[uint64]uint64) []uint64 {
	depth := make(map[uint64]int)
	for dir := range parent {
		var way []uint64
		for {
			if _, known := depth[dir]; known || len(way) > len(parent) { // a damaged tree may have loops
				break
			}
			way = append(way, dir)
			up, ok := parent[dir]
			if !ok {
				break
			}
			dir = up
		}
		for i := len(way) - 1; i >= 0; i-- {
			depth[way[i]] = depth[parent[way[i]]] + 1
		}
	}
	dirs := make([]uint64, 0, len(depth))
	for dir := range depth {
		dirs = append(dirs, dir)
	}
	slices.SortFunc(dirs, func(a, b uint64) int {
		return cmp.Or(cmp.Compare(depth[b], depth[a]), cmp.Compare(a, b))
	})
	return dirs
}

// name says what a candidate is called.
func (f *finder) name(t candidate) (string, error) {
	if t.file == nil {
		return t.name, nil
	}
	path, err := f.q.pathOf(f.ctx, f.rows, t.file.Ino)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return fmt.Sprintf("inode %d", t.file.Ino), nil
	case err == nil && path == "":
		return "/", nil
	}
	return path, err
}
