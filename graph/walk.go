package graph

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/quarxtor/quarxfs/graph/budget"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/vertex"
)

// A Role says what an edge means.
type Role string

// The roles of edges.
const (
	Contains Role = "contains" // a file vertex: a block, or a vertex that is a part of the file
	Part     Role = "part"     // a tree: a vertex that is a part of it
	Content  Role = "entry"    // a tree: what a name leads to
	Xattrs   Role = "xattrs"   // a tree or snapshot: extended attributes that are stored apart
	RootOf   Role = "root"     // a snapshot: its root directory
	TableOf  Role = "links"    // a snapshot: its link table
	Names    Role = "name"     // a name vertex: what is named
)

// An Edge leads from a vertex to what it links to.
type Edge struct {
	From   ID     `json:"from"`
	To     ID     `json:"to"`
	Role   Role   `json:"role"`
	Name   string `json:"name,omitempty"`   // of an entry
	Offset int64  `json:"offset,omitempty"` // of contained bytes, in the part of the file that From is
	Bytes  int64  `json:"bytes,omitempty"`  // of the file, or of all files below a directory
	Skip   int64  `json:"skip,omitempty"`   // where they start in the block
}

// Blocks are all that a walk needs. Lookup gives the kind and size of a block;
// errors: store.ErrNotFound.
type Blocks interface {
	Source
	Lookup(id ID) (store.Entry, error)
}

// Edges returns the edges that leave a vertex, in the order of its links; a
// block has none. The error is store.ErrCorrupt.
func Edges(id ID, kind store.Kind, plain []byte) ([]Edge, error) {
	var edges []Edge
	var err error
	switch kind {
	case store.KindData:
		return nil, nil
	case store.KindFile:
		edges, err = fileEdges(plain)
	case store.KindTree:
		edges, err = treeEdges(plain)
	case store.KindSnapshot:
		edges, err = snapshotEdges(plain)
	// A name vertex: what it links to is what it names.
	default:
		var links []ID
		links, err = vertex.Links(plain)
		for _, to := range links {
			edges = append(edges, Edge{To: to, Role: Names})
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s vertex %s: %w", kind, id, err)
	}
	for i := range edges {
		edges[i].From = id
	}
	return edges, nil
}

func fileEdges(plain []byte) ([]Edge, error) {
	v, err := vertex.DecodeFile(plain)
	if err != nil {
		return nil, err
	}
	edges := make([]Edge, 0, len(v.Parts))
	at := int64(0)
	for _, p := range v.Parts {
		if !p.Hole {
			edges = append(edges, Edge{To: p.ID, Role: Contains, Offset: at, Bytes: p.Len, Skip: int64(p.Skip)})
		}
		at += p.Len
	}
	return edges, nil
}

func treeEdges(plain []byte) ([]Edge, error) {
	n, err := decodeNode(plain)
	if err != nil {
		return nil, err
	}
	edges := make([]Edge, 0, len(n.items))
	for _, it := range n.items {
		// Above height 0 the items are vertices: parts of one directory, which have no names.
		if it.entry == nil {
			edges = append(edges, Edge{To: it.id, Role: Part})
			continue
		}
		edges = append(edges, entryEdges(it.entry, Content, n.form.Label(it.key))...)
	}
	return edges, nil
}

// Label makes a tree's key fit to be read.
func (f Form) Label(key string) string {
	if f == LinkTable {
		return fmt.Sprintf("#%d", TableIdent(key))
	}
	return key
}

func entryEdges(e *Entry, role Role, name string) []Edge {
	var edges []Edge
	if e.Link.Kind != 0 {
		edges = append(edges, Edge{To: e.Link.ID, Role: role, Name: name, Bytes: e.Size + e.Below.Bytes})
	}
	if e.XattrLink.Kind != 0 {
		edges = append(edges, Edge{To: e.XattrLink.ID, Role: Xattrs, Name: name})
	}
	return edges
}

func snapshotEdges(plain []byte) ([]Edge, error) {
	s, err := DecodeSnapshot(plain)
	if err != nil {
		return nil, err
	}
	edges := entryEdges(&s.Root, RootOf, "")
	if s.Table != (ID{}) {
		edges = append(edges, Edge{To: s.Table, Role: TableOf})
	}
	return edges, nil
}

// A Vertex is a block or vertex that a walk has come to.
type Vertex struct {
	ID    ID
	Kind  store.Kind
	Raw   int64 // plain bytes
	Depth int   // edges from the nearest root
	Row   store.Entry

	// Edges are those that the walk follows on. On the last level of a bounded
	// walk there are none.
	Edges []Edge
}

// A Walk says how to go through the graph. Its zero value goes along the edges
// to all that can be reached.
type Walk struct {
	Depth   int          // at most so many edges from a root; 0: no bound
	Kinds   []store.Kind // only these are given to fn and gone through; empty: all
	Visited int          // at most so many vertices; 0: no bound
}

// ErrTooMany ends a walk that has come to more than Walk.Visited vertices, or to more places than
// Why looks at.
var ErrTooMany = fmt.Errorf("there is more than can be looked at: %w", budget.ErrCost)

// From calls fn for every vertex that can be reached from roots, each once,
// nearest first. ErrSkipEdges of fn leaves its edges out; another error ends the
// walk and is returned, except store.ErrStop. It takes some 80 bytes of memory
// for each vertex. Errors: store.ErrNotFound, store.ErrCorrupt.
func (w Walk) From(ctx context.Context, b Blocks, roots []ID, fn func(Vertex) error) error {
	seen := make(map[ID]struct{}, len(roots))
	var next []ID
	push := func(id ID) {
		if _, ok := seen[id]; !ok {
			seen[id] = struct{}{}
			next = append(next, id)
		}
	}
	for _, id := range roots {
		push(id)
	}
	charged := 0
	for depth, visited := 0, 0; len(next) > 0; depth++ {
		// Level by level, so that fn sees the nearest first and depth is exact.
		now := next
		next = nil
		for _, id := range now {
			v, err := w.vertex(ctx, b, id, depth)
			if err != nil {
				return err
			}
			// Neither given to fn nor gone through: blocks of data are left out so.
			if len(w.Kinds) > 0 && !slices.Contains(w.Kinds, v.Kind) {
				continue
			}
			if visited++; w.Visited > 0 && visited > w.Visited {
				return ErrTooMany
			}
			switch err := fn(v); {
			case err == nil:
			case errors.Is(err, ErrSkipEdges):
				continue
			default:
				return unlessStop(err)
			}
			// Marked when they are pushed, not when they are visited: else a block of a million
			// references would be a million entries of the next level.
			for _, e := range v.Edges {
				push(e.To)
			}
			if err := budget.Hold(ctx, visitBytes*(len(seen)-charged)); err != nil {
				return err
			}
			charged = len(seen)
		}
	}
	return nil
}

const visitBytes = 80 // of a vertex that a walk has come to

// ErrSkipEdges, returned by the function given to From, leaves out what the
// vertex leads to.
var ErrSkipEdges = errors.New("skip the edges of a vertex")

func (w Walk) vertex(ctx context.Context, b Blocks, id ID, depth int) (Vertex, error) {
	if err := ctx.Err(); err != nil {
		return Vertex{}, err
	}
	row, err := b.Lookup(id)
	if err != nil {
		return Vertex{}, err
	}
	v := Vertex{ID: id, Kind: row.Kind, Raw: int64(row.Raw), Depth: depth, Row: row}
	// On the last level no vertex is read: most of a store is below it.
	if w.Depth > 0 && depth >= w.Depth {
		return v, nil
	}
	v.Edges, err = Successors(ctx, b, id)
	return v, err
}

// Successors returns the edges that leave a block or vertex. Errors:
// store.ErrNotFound, store.ErrCorrupt.
func Successors(ctx context.Context, b Blocks, id ID) ([]Edge, error) {
	row, err := b.Lookup(id)
	if err != nil || row.Kind == store.KindData {
		return nil, err
	}
	plain, err := b.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	return Edges(id, row.Kind, plain)
}
