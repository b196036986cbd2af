package query

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/graph/export"
	"github.com/quarxtor/quarxfs/store"
)

// rootsOf finds where to start.
func (q *Graph) rootsOf(ctx context.Context, ref string) ([]export.Root, error) {
	if ref != "" {
		root, err := q.rootOf(ctx, ref)
		return []export.Root{root}, err
	}
	var roots []export.Root
	err := q.store.Snapshots(ctx, func(s store.SnapshotRef) error {
		root, err := q.snapshotRoot(ctx, s)
		roots = append(roots, root)
		return err
	})
	if err != nil {
		return nil, err
	}
	err = q.store.Objects(ctx, "", func(o store.ObjectInfo) error {
		roots = append(roots, objectRoot(o))
		// More roots than nodes would not be shown anyway.
		if len(roots) > export.MaxNodes {
			return store.ErrStop
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if q.live != nil {
		live, err := q.liveRoot(ctx, "")
		if err != nil {
			return nil, err
		}
		roots = append(roots, live)
	}
	return roots, nil
}

// rootOf finds what one reference means.
func (q *Graph) rootOf(ctx context.Context, ref string) (export.Root, error) {
	if strings.HasPrefix(ref, "/") {
		return q.liveRoot(ctx, ref)
	}
	name, path, _ := strings.Cut(ref, ":")
	snapshot, err := q.store.Snapshot(name)
	if err == nil {
		if path = strings.Trim(path, "/"); path != "" {
			return q.inSnapshot(ctx, snapshot, path)
		}
		return q.snapshotRoot(ctx, snapshot)
	}
	if !errors.Is(err, store.ErrNotFound) {
		return export.Root{}, err
	}
	o, err := q.store.Stat(ctx, ref)
	if err == nil {
		if o.Created.IsZero() {
			return export.Root{ID: o.ID, Size: o.Size}, nil
		}
		return objectRoot(o), nil
	}
	var id store.ID
	if id.UnmarshalText([]byte(ref)) == nil { // a tree is no object
		if has, herr := q.store.Has(id); herr != nil || has {
			return export.Root{ID: id}, herr
		}
	}
	if !errors.Is(err, store.ErrNotFound) {
		return export.Root{}, err
	}
	if q.live != nil {
		if root, lerr := q.liveRoot(ctx, ref); !errors.Is(lerr, store.ErrNotFound) {
			return root, lerr
		}
	}
	return export.Root{}, fmt.Errorf("no snapshot, object, block or file %q: %w", ref, store.ErrNotFound)
}

func objectRoot(o store.ObjectInfo) export.Root {
	return export.Root{Name: o.Name, ID: o.ID, Size: o.Size}
}

func (q *Graph) liveRoot(ctx context.Context, path string) (export.Root, error) {
	if q.live == nil {
		return export.Root{}, fmt.Errorf("%w: %q", ErrNoFiles, path)
	}
	path = strings.Trim(path, "/")
	f, err := q.live.LiveFile(ctx, path)
	label := "/"
	if path != "" {
		label = path[strings.LastIndexByte(path, '/')+1:]
	}
	return export.Root{Label: export.Printable(label), Path: export.Printable(path), Size: f.Size, File: &f}, err
}

func (q *Graph) snapshotRoot(ctx context.Context, s store.SnapshotRef) (export.Root, error) {
	root := export.Root{Label: export.Printable(s.Name), Path: export.Printable(s.Name) + ":", ID: s.ID}
	v, err := q.Snapshot(ctx, s)
	root.Size = v.Totals.Logical
	if errors.Is(err, store.ErrCorrupt) {
		err = nil // it is shown as damaged
	}
	return root, err
}

// Snapshot reads a snapshot of the store. store.ErrNotFound: it was removed since;
// store.ErrCorrupt.
func (q *Graph) Snapshot(ctx context.Context, ref store.SnapshotRef) (graph.Snapshot, error) {
	s, err := graph.GetSnapshot(ctx, q.store, ref.ID)
	if err != nil {
		return s, fmt.Errorf("snapshot %q: %w", ref.Name, err)
	}
	return s, nil
}

// inSnapshot finds the content of a file or directory of a snapshot.
func (q *Graph) inSnapshot(ctx context.Context, s store.SnapshotRef, path string) (export.Root, error) {
	v, err := q.Snapshot(ctx, s)
	if err != nil {
		return export.Root{}, err
	}
	missing := fmt.Errorf("%q in snapshot %q: %w", path, s.Name, store.ErrNotFound)
	e := v.Root
	for name := range strings.SplitSeq(path, "/") {
		if !e.IsDir() || e.Link.Kind == 0 {
			return export.Root{}, missing
		}
		e, err = graph.OpenTree(q.store, e.Link.ID, graph.Directory).Lookup(ctx, name)
		// A file with several names has its content in the link table only.
		if err == nil && e.Ident != 0 {
			e, err = graph.OpenTree(q.store, v.Table, graph.LinkTable).Lookup(ctx, graph.TableKey(e.Ident))
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
