package query

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/quarxtor/quarxfs/graph/export"
)

// An ExportRequest says which part of the graph is wanted.
type ExportRequest struct {
	// Root is a snapshot (NAME, NAME:PATH), an object (its name), a block or
	// vertex (its ID or what only one ID starts with), or a path of the live
	// filesystem; empty: all snapshots, all objects and the live filesystem.
	Root  string
	Depth int      // edges from the roots; 0: all
	Kinds []string // of nodes, see export.Kinds; empty: all
	Limit int      // at most so many nodes
}

// An ExportItem is one node or edge, or says that there is more.
type ExportItem struct {
	Node *export.Node `json:"node,omitempty"`
	Edge *export.Edge `json:"edge,omitempty"`
	Cut  string       `json:"cut,omitempty"`
}

// Check reports a request that makes no sense. ErrRequest.
func (r ExportRequest) Check() error {
	if r.Depth < 0 || r.Limit < 1 || r.Limit > export.MaxNodes {
		return fmt.Errorf("%w: depth %d, limit %d: choose a limit of 1 to %d", ErrRequest, r.Depth, r.Limit, export.MaxNodes)
	}
	for _, k := range r.Kinds {
		if !slices.Contains(export.Kinds, export.Kind(k)) {
			return fmt.Errorf("%w: kind %q: choose of %s", ErrRequest, k, strings.Join(ExportKinds(), ", "))
		}
	}
	return nil
}

// ExportKinds lists the kinds of nodes.
func ExportKinds() []string {
	names := make([]string, len(export.Kinds))
	for i, k := range export.Kinds {
		names[i] = string(k)
	}
	return names
}

// Export implements remote.Graph.
func (q *Graph) Export(ctx context.Context, r ExportRequest, fn func(ExportItem) error) error {
	if err := r.Check(); err != nil {
		return err
	}
	if err := q.store.Commit(); err != nil { // what is written becomes blocks
		return err
	}
	pin := q.store.NewPin()
	defer pin.Release()
	roots, err := q.rootsOf(ctx, r.Root)
	if err != nil {
		return err
	}
	o := export.Options{Depth: r.Depth, Nodes: r.Limit}
	for _, k := range r.Kinds {
		o.Kinds = append(o.Kinds, export.Kind(k))
	}
	for _, root := range roots {
		if root.File == nil {
			pin.Add(root.ID)
		}
	}
	g, err := export.Collect(ctx, q.store, q.live, roots, o)
	if err != nil {
		return err
	}
	for i := range g.Nodes {
		if err := fn(ExportItem{Node: &g.Nodes[i]}); err != nil {
			return err
		}
	}
	for i := range g.Edges {
		if err := fn(ExportItem{Edge: &g.Edges[i]}); err != nil {
			return err
		}
	}
	if g.Cut != "" {
		return fn(ExportItem{Cut: g.Cut})
	}
	return nil
}
