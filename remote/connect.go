package remote

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/graph/export"
	"github.com/quarxtor/quarxfs/store"
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

// Connect implements Graph.
func (l *Local) Connect(ctx context.Context, a, b string) ([]Step, error) {
	if a == "" || b == "" {
		return nil, fmt.Errorf("%w: name both ends", ErrRequest)
	}
	if err := l.store.Commit(); err != nil {
		return nil, err
	}
	from, err := l.exportRoot(ctx, a)
	if err != nil {
		return nil, err
	}
	to, err := l.exportRoot(ctx, b)
	if err != nil {
		return nil, err
	}
	defer l.store.KeepAll()()
	n, err := l.network(ctx)
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
	return l.steps(ctx, way)
}

func pointOf(r export.Root) graph.Point {
	if r.File != nil {
		return graph.Point{Ino: r.File.Ino}
	}
	return graph.Point{ID: r.ID}
}

// network takes in all vertices and the live filesystem.
func (l *Local) network(ctx context.Context) (*graph.Network, error) {
	var vertices []store.ID
	for _, kind := range []store.Kind{store.KindSnapshot, store.KindTree, store.KindFile} {
		err := l.store.Blocks(ctx, store.BlockFilter{Kind: kind}, func(b store.BlockInfo) error {
			vertices = append(vertices, b.ID)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	n := graph.NewNetwork()
	for _, id := range vertices {
		plain, err := l.store.Get(ctx, id)
		if err != nil {
			return nil, err
		}
		links, err := store.Links(plain)
		if err != nil {
			return nil, fmt.Errorf("vertex %s: %w", id, err)
		}
		for _, to := range links {
			n.Add(graph.Point{ID: id}, graph.Point{ID: to})
		}
	}
	if l.env.Live == nil {
		return n, nil
	}
	return n, l.env.Live.EachLiveEdge(ctx, func(from uint64, e export.LiveEdge) error {
		to := graph.Point{ID: e.Block}
		if e.File != nil {
			to = graph.Point{Ino: e.File.Ino}
		}
		n.Add(graph.Point{Ino: from}, to)
		return nil
	})
}

// steps describes a way.
func (l *Local) steps(ctx context.Context, way []graph.Point) ([]Step, error) {
	var steps []Step
	files := make(map[uint64]export.LiveFile)
	for i, p := range way {
		s, err := l.step(ctx, p, files)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			if s.Edge, err = l.crossed(ctx, way[i-1], p, files); err != nil {
				return nil, err
			}
		}
		steps = append(steps, s)
	}
	return steps, nil
}

// step says what a point is, and notes files.
func (l *Local) step(ctx context.Context, p graph.Point, files map[uint64]export.LiveFile) (Step, error) {
	if p.Ino == 0 {
		e, err := l.store.Lookup(p.ID)
		s := Step{ID: p.ID.String(), Kind: export.Kind(e.Kind.String()), Name: p.ID.Short()}
		if err == nil && s.Kind == export.Snapshot {
			s.Name, err = l.snapshotName(ctx, p.ID)
		}
		return s, err
	}
	s := Step{ID: fmt.Sprintf("inode:%d", p.Ino), Kind: export.Inode}
	paths, err := l.env.Live.LivePaths(ctx, []uint64{p.Ino})
	if err != nil {
		return s, err
	}
	path, ok := paths[p.Ino]
	if !ok {
		return s, fmt.Errorf("inode %d has no path any more: %w", p.Ino, store.ErrNotFound)
	}
	f, err := l.env.Live.LiveFile(ctx, path)
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

// snapshotName returns a name of a snapshot, or the start of its ID.
func (l *Local) snapshotName(ctx context.Context, id graph.ID) (string, error) {
	name := id.Short()
	err := l.store.Snapshots(ctx, func(s store.SnapshotRef) error {
		if s.ID == id {
			name = s.Name
			return store.ErrStop
		}
		return nil
	})
	return name, err
}

// crossed finds the edge between two neighbours, in one direction or the other.
func (l *Local) crossed(ctx context.Context, a, b graph.Point, files map[uint64]export.LiveFile) (*Crossed, error) {
	for _, against := range []bool{false, true} {
		if against {
			a, b = b, a
		}
		var found *Crossed
		err := l.leaving(ctx, a, files, func(e Crossed, to graph.Point) error {
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
	return nil, errors.New("the store changed while it was searched; try again")
}

// leaving calls fn for all edges that leave a point.
func (l *Local) leaving(ctx context.Context, p graph.Point, files map[uint64]export.LiveFile, fn func(Crossed, graph.Point) error) error {
	if p.Ino != 0 {
		return l.env.Live.LiveEdges(ctx, files[p.Ino], func(e export.LiveEdge) error {
			to := graph.Point{ID: e.Block}
			if e.File != nil {
				to = graph.Point{Ino: e.File.Ino}
			}
			return fn(Crossed{Role: e.Role, Name: e.Name, Offset: e.Offset, Bytes: e.Bytes}, to)
		})
	}
	edges, err := graph.Successors(ctx, l.store, p.ID)
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

// Connect implements Graph.
func (c *Client) Connect(ctx context.Context, a, b string) ([]Step, error) {
	q := make(url.Values)
	setText(q, "from", a)
	setText(q, "to", b)
	var steps []Step
	err := c.call(ctx, http.MethodGet, withQuery("/v1/graph/path", q), nil, &steps)
	return steps, err
}

func (s *server) connect(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if err := onlyKnown(q, "from", "to"); err != nil {
		s.fail(w, r, err)
		return
	}
	steps, err := s.node.Connect(r.Context(), q.Get("from"), q.Get("to"))
	s.answer(w, r, steps, err)
}
