package remote

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/graph/export"
	"github.com/quarxtor/quarxfs/store"
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

// Live is what a graph needs to know of the live filesystem. The volume's owner
// provides it.
type Live interface {
	export.Live
	// LiveFile finds the file at a path. store.ErrNotFound.
	LiveFile(ctx context.Context, path string) (export.LiveFile, error)
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

// Export implements Graph.
func (l *Local) Export(ctx context.Context, r ExportRequest, fn func(ExportItem) error) error {
	if err := r.Check(); err != nil {
		return err
	}
	if err := l.store.Commit(); err != nil { // what is written becomes blocks
		return err
	}
	pin := l.store.NewPin()
	defer pin.Release()
	roots, err := l.exportRoots(ctx, r.Root)
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
	g, err := export.Collect(ctx, l.store, l.env.Live, roots, o)
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

// exportRoots finds where to start.
func (l *Local) exportRoots(ctx context.Context, ref string) ([]export.Root, error) {
	if ref != "" {
		root, err := l.exportRoot(ctx, ref)
		return []export.Root{root}, err
	}
	var roots []export.Root
	err := l.store.Snapshots(ctx, func(s store.SnapshotRef) error {
		root, err := l.snapshotRoot(ctx, s)
		roots = append(roots, root)
		return err
	})
	if err != nil {
		return nil, err
	}
	err = l.store.Objects(ctx, "", func(o store.ObjectInfo) error {
		roots = append(roots, objectRoot(o))
		if len(roots) > export.MaxNodes {
			return store.ErrStop
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if l.env.Live != nil {
		live, err := l.liveRoot(ctx, "")
		if err != nil {
			return nil, err
		}
		roots = append(roots, live)
	}
	return roots, nil
}

// exportRoot finds what one reference means.
func (l *Local) exportRoot(ctx context.Context, ref string) (export.Root, error) {
	if strings.HasPrefix(ref, "/") {
		return l.liveRoot(ctx, ref)
	}
	name, path, _ := strings.Cut(ref, ":")
	snapshot, err := l.store.Snapshot(name)
	if err == nil {
		if path = strings.Trim(path, "/"); path != "" {
			return l.inSnapshot(ctx, snapshot, path)
		}
		return l.snapshotRoot(ctx, snapshot)
	}
	if !errors.Is(err, store.ErrNotFound) {
		return export.Root{}, err
	}
	o, err := l.store.Stat(ctx, ref)
	if err == nil {
		if o.Created.IsZero() {
			return export.Root{ID: o.ID, Size: o.Size}, nil
		}
		return objectRoot(o), nil
	}
	var id store.ID
	if id.UnmarshalText([]byte(ref)) == nil { // a tree is no object
		if has, herr := l.store.Has(id); herr != nil || has {
			return export.Root{ID: id}, herr
		}
	}
	if !errors.Is(err, store.ErrNotFound) {
		return export.Root{}, err
	}
	if l.env.Live != nil {
		if root, lerr := l.liveRoot(ctx, ref); !errors.Is(lerr, store.ErrNotFound) {
			return root, lerr
		}
	}
	return export.Root{}, fmt.Errorf("no snapshot, object, block or file %q: %w", ref, store.ErrNotFound)
}

func objectRoot(o store.ObjectInfo) export.Root {
	return export.Root{Name: o.Name, ID: o.ID, Size: o.Size}
}

func (l *Local) liveRoot(ctx context.Context, path string) (export.Root, error) {
	if l.env.Live == nil {
		return export.Root{}, fmt.Errorf("%w: %q", errNoFiles, path)
	}
	path = strings.Trim(path, "/")
	f, err := l.env.Live.LiveFile(ctx, path)
	label := "/"
	if path != "" {
		label = path[strings.LastIndexByte(path, '/')+1:]
	}
	return export.Root{Label: export.Printable(label), Path: export.Printable(path), Size: f.Size, File: &f}, err
}

func (l *Local) snapshotRoot(ctx context.Context, s store.SnapshotRef) (export.Root, error) {
	root := export.Root{Label: export.Printable(s.Name), Path: export.Printable(s.Name) + ":", ID: s.ID}
	v, err := l.snapshot(ctx, s)
	root.Size = v.Totals.Logical
	if errors.Is(err, store.ErrCorrupt) {
		err = nil // it is shown as damaged
	}
	return root, err
}

func (l *Local) snapshot(ctx context.Context, s store.SnapshotRef) (graph.Snapshot, error) {
	plain, err := l.store.Get(ctx, s.ID)
	if err != nil {
		return graph.Snapshot{}, fmt.Errorf("snapshot %q: %w", s.Name, err)
	}
	return graph.DecodeSnapshot(plain)
}

// inSnapshot finds the content of a file or directory of a snapshot.
func (l *Local) inSnapshot(ctx context.Context, s store.SnapshotRef, path string) (export.Root, error) {
	v, err := l.snapshot(ctx, s)
	if err != nil {
		return export.Root{}, err
	}
	missing := fmt.Errorf("%q in snapshot %q: %w", path, s.Name, store.ErrNotFound)
	e := v.Root
	for name := range strings.SplitSeq(path, "/") {
		if !e.IsDir() || e.Link.Kind == 0 {
			return export.Root{}, missing
		}
		e, err = graph.OpenTree(l.store, e.Link.ID, graph.Directory).Lookup(ctx, name)
		if err == nil && e.Ident != 0 {
			e, err = graph.OpenTree(l.store, v.Table, graph.LinkTable).Lookup(ctx, graph.TableKey(e.Ident))
		}
		if err != nil {
			return export.Root{}, fmt.Errorf("%q in snapshot %q: %w", path, s.Name, err)
		}
	}
	if e.Link.Kind == 0 {
		return export.Root{}, fmt.Errorf("%w: %q in snapshot %q has no content", ErrRequest, path, s.Name)
	}
	label := path[strings.LastIndexByte(path, '/')+1:]
	return export.Root{Label: export.Printable(label), Path: export.Printable(s.Name + ":" + path), Size: e.Size, ID: e.Link.ID}, nil
}

var exportParams = []param{
	{"root", "", "what to begin at, as ref elsewhere; without it, at all snapshots and objects"},
	{"kind", "", "only these kinds, separated by commas"},
	{"depth", 0, "so many steps from the roots at most"},
	{"limit", 0, "so many nodes at most"},
}

func (r ExportRequest) query() url.Values {
	q := make(url.Values)
	setText(q, "root", r.Root)
	setText(q, "kind", strings.Join(r.Kinds, ","))
	setNumber(q, "depth", int64(r.Depth))
	setNumber(q, "limit", int64(r.Limit))
	return q
}

func parseExportRequest(q url.Values) (r ExportRequest, err error) {
	r.Root = q.Get("root")
	if k := q.Get("kind"); k != "" {
		r.Kinds = strings.Split(k, ",")
	}
	for key, n := range map[string]*int{"depth": &r.Depth, "limit": &r.Limit} {
		v, err := number(q, key)
		if err != nil {
			return r, err
		}
		*n = int(v)
	}
	return r, r.Check()
}

// Export implements Graph.
func (c *Client) Export(ctx context.Context, r ExportRequest, fn func(ExportItem) error) error {
	return receiveStream(ctx, c, withQuery("/v1/graph/export", r.query()), fn)
}

func (s *server) export(w http.ResponseWriter, r *http.Request) {
	req, err := parseExportRequest(r.URL.Query())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	sendStream(s, w, r, func(fn func(ExportItem) error) error { return s.node.Export(r.Context(), req, fn) })
}
