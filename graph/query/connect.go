package query

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/graph/budget"
	"github.com/quarxtor/quarxfs/graph/export"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/vertex"
)

// A Step is one node on the way between two, and the edge that leads there.
type Step struct {
	ID   string      `json:"id"` // of a block or vertex; "inode:N" of a live file
	Kind export.Kind `json:"kind"`
	Name string      `json:"name"`           // a path, the name of a snapshot, or the first digits of the ID
	Edge *Crossed    `json:"edge,omitempty"` // from the step before; the first has none
}

// Crossed is an edge that a way goes along, or against.
type Crossed struct {
	Role    graph.Role `json:"role"`
	Name    string     `json:"name,omitempty"` // of an entry
	Offset  int64      `json:"offset"`
	Bytes   int64      `json:"bytes,omitempty"`
	Against bool       `json:"against"`
}

// Connect implements remote.Graph.
func (q *Graph) Connect(ctx context.Context, a, b string) ([]Step, error) {
	if a == "" || b == "" {
		return nil, fmt.Errorf("%w: name both ends", ErrRequest)
	}
	if err := q.store.Commit(); err != nil {
		return nil, err
	}
	// After the commit: what was just written has no block before.
	from, err := q.rootOf(ctx, a)
	if err != nil {
		return nil, err
	}
	to, err := q.rootOf(ctx, b)
	if err != nil {
		return nil, err
	}
	// Until the steps are described: each of them is looked up again.
	defer q.store.PauseSweep()()
	rows, err := q.store.View()
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	n, err := q.network(ctx, rows)
	if err != nil {
		return nil, err
	}
	way, err := n.Shortest(ctx, pointOf(from), pointOf(to))
	if err != nil {
		return nil, err
	}
	if way == nil {
		return nil, fmt.Errorf("a way from %q to %q: %w", a, b, store.ErrNotFound)
	}
	return q.steps(ctx, rows, way)
}

func pointOf(r export.Root) graph.Point {
	if r.File != nil {
		return graph.Point{Ino: r.File.Ino}
	}
	return graph.Point{ID: r.ID}
}

const pointBytes = 116 // of a point of a network, and an edge

// network takes in all vertices and the live filesystem.
func (q *Graph) network(ctx context.Context, rows *store.View) (*graph.Network, error) {
	var vertices []store.ID
	err := rows.Blocks(ctx, func(id store.ID, e store.Entry) error {
		switch e.Kind {
		case store.KindSnapshot, store.KindTree, store.KindFile:
			vertices = append(vertices, id)
			return budget.Hold(ctx, len(id))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	n := graph.NewNetwork()
	for _, id := range vertices {
		// Not inside the scan of rows above: reading blocks there would hold an iterator of the
		// database open.
		plain, err := q.store.Get(ctx, id)
		if err != nil {
			return nil, err
		}
		links, err := vertex.Links(plain)
		if err != nil {
			return nil, fmt.Errorf("vertex %s: %w", id, err)
		}
		for _, to := range links {
			n.Add(graph.Point{ID: id}, graph.Point{ID: to})
		}
		if err := budget.Hold(ctx, pointBytes*(1+len(links))); err != nil {
			return nil, err
		}
	}
	err = q.rows.References(ctx, rows, func(r graph.Reference) error {
		n.Add(graph.Point{Ino: r.Ino}, graph.Point{ID: r.ID})
		return budget.Hold(ctx, pointBytes)
	})
	if err != nil {
		return nil, err
	}
	return n, q.rows.Names(ctx, rows, func(e Name) error {
		n.Add(graph.Point{Ino: e.Dir}, graph.Point{Ino: e.Ino})
		return budget.Hold(ctx, pointBytes)
	})
}

// steps describes a way.
func (q *Graph) steps(ctx context.Context, rows *store.View, way []graph.Point) ([]Step, error) {
	var steps []Step
	files := make(map[uint64]export.LiveFile)
	for i, p := range way {
		s, err := q.step(ctx, rows, p, files)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			if s.Edge, err = q.crossed(ctx, way[i-1], p, files); err != nil {
				return nil, err
			}
		}
		steps = append(steps, s)
	}
	return steps, nil
}

// step says what a point is, and notes files.
func (q *Graph) step(ctx context.Context, rows *store.View, p graph.Point, files map[uint64]export.LiveFile) (Step, error) {
	if p.Ino == 0 {
		e, err := q.store.Lookup(p.ID)
		s := Step{ID: p.ID.String(), Kind: export.Kind(e.Kind.String()), Name: p.ID.Short()}
		if err == nil && s.Kind == export.Snapshot {
			s.Name, err = q.snapshotName(ctx, p.ID)
		}
		return s, err
	}
	s := Step{ID: fmt.Sprintf("inode:%d", p.Ino), Kind: export.Inode}
	path, err := q.pathOf(ctx, rows, p.Ino)
	if err != nil {
		return s, err
	}
	// Kept for crossed, which asks for the edges that leave this file.
	f, err := q.live.LiveFile(ctx, path)
	if err != nil {
		return s, err
	}
	files[p.Ino] = f
	if s.Name = path; path == "" {
		s.Name = "/"
	}
	if f.Directory {
		s.Kind = export.Directory
	}
	return s, nil
}

// pathOf returns a path of a live file. store.ErrNotFound: no name leads to it.
func (q *Graph) pathOf(ctx context.Context, rows *store.View, ino uint64) (string, error) {
	paths, err := q.rows.AllPaths(ctx, rows, map[uint64]bool{ino: true})
	if err != nil || len(paths[ino]) > 0 {
		return strings.Join(paths[ino][:min(1, len(paths[ino]))], ""), err
	}
	if root, err := q.live.LiveFile(ctx, ""); err != nil || root.Ino == ino {
		return "", err
	}
	return "", fmt.Errorf("a path of inode %d: %w", ino, store.ErrNotFound)
}

// snapshotName returns a name of a snapshot, or the start of its ID.
func (q *Graph) snapshotName(ctx context.Context, id graph.ID) (string, error) {
	name := id.Short()
	err := q.store.Snapshots(ctx, func(s store.SnapshotRef) error {
		if s.ID == id {
			name = s.Name
			return store.ErrStop
		}
		return nil
	})
	return name, err
}

// crossed finds the edge between two neighbours, in one direction or the other.
func (q *Graph) crossed(ctx context.Context, a, b graph.Point, files map[uint64]export.LiveFile) (*Crossed, error) {
	for _, against := range []bool{false, true} {
		if against {
			a, b = b, a
		}
		var found *Crossed
		err := q.leaving(ctx, a, files, func(e Crossed, to graph.Point) error {
			if to == b {
				e.Against = against
				found = &e
				return store.ErrStop
			}
			return nil
		})
		if found != nil {
			return found, nil
		}
		if gone(err) != nil {
			return nil, err
		}
	}
	// The way was found in one view, and edges are read as they are now.
	return nil, errors.New("the store changed while it was searched; try again")
}

// leaving calls fn for all edges that leave a point.
func (q *Graph) leaving(ctx context.Context, p graph.Point, files map[uint64]export.LiveFile, fn func(Crossed, graph.Point) error) error {
	if p.Ino != 0 {
		return q.live.LiveEdges(ctx, files[p.Ino], func(e export.LiveEdge) error {
			to := graph.Point{ID: e.Block}
			if e.File != nil {
				to = graph.Point{Ino: e.File.Ino}
			}
			return fn(Crossed{Role: e.Role, Name: e.Name, Offset: e.Offset, Bytes: e.Bytes}, to)
		})
	}
	edges, err := graph.Successors(ctx, q.store, p.ID)
	if err != nil {
		return err
	}
	for _, e := range edges {
		if err := fn(Crossed{Role: e.Role, Name: e.Name, Offset: e.Offset, Bytes: e.Bytes}, graph.Point{ID: e.To}); err != nil {
			return err
		}
	}
	return nil
}
