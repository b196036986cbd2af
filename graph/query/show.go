package query

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/graph/export"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/vertex"
)

// A ShowItem is what was asked for, or one of its parts.
type ShowItem struct {
	Subject *Subject  `json:"subject,omitempty"`
	Part    *ShowPart `json:"part,omitempty"`
}

// A Subject is what Show was asked about. ID, and what a block is, are of its
// vertex or only block; files and directories of the live filesystem have none.
type Subject struct {
	What     string           `json:"what"` // live file, live directory, file, directory, snapshot, object, block, name
	Path     string           `json:"path,omitempty"`
	Size     int64            `json:"size"` // of a file, object or block
	Block    *store.BlockInfo `json:"block,omitempty"`
	Height   int              `json:"height,omitempty"` // vertices from the top down to what is below the last
	Snapshot *ShownSnap       `json:"snapshot,omitempty"`
}

// ShownSnap is a snapshot.
type ShownSnap struct {
	Created time.Time    `json:"created"`
	Volume  string       `json:"volume"`
	Host    string       `json:"host"`
	Message string       `json:"message"`
	Tags    []string     `json:"tags"`
	Parents []store.ID   `json:"parents"`
	Totals  graph.Totals `json:"totals"`
}

// A ShowPart is a span of a file or an entry of a directory.
type ShowPart struct {
	Role   graph.Role       `json:"role"`
	Name   string           `json:"name,omitempty"` // of an entry
	Offset int64            `json:"offset"`         // in the file
	Bytes  int64            `json:"bytes"`          // of the file, or of what the name leads to
	Skip   int64            `json:"skip,omitempty"` // where they start in the block
	Hole   bool             `json:"hole,omitempty"`
	Block  *store.BlockInfo `json:"block,omitempty"` // where it leads; nil: to a live file, to a hole, or to nothing
}

// Show implements remote.Graph.
func (q *Graph) Show(ctx context.Context, ref string, fn func(ShowItem) error) error {
	if ref == "" {
		return fmt.Errorf("%w: name what to show", ErrRequest)
	}
	if err := q.store.Commit(); err != nil { // what is written becomes blocks
		return err
	}
	defer q.store.PauseSweep()()
	// With the sweep paused: what a reference means now is there until it has been shown.
	root, err := q.rootOf(ctx, ref)
	if err != nil {
		return err
	}
	w := shower{q: q, ctx: ctx, fn: fn}
	if root.File != nil {
		return w.live(root)
	}
	row, err := q.store.Lookup(root.ID)
	if err != nil {
		return err
	}
	info := row.Info(root.ID)
	s := Subject{Path: root.Path, Size: root.Size, Block: &info}
	if root.Name != "" {
		s.What, s.Path = "object", root.Name
	}
	switch row.Kind {
	case store.KindData:
		return w.block(s)
	case store.KindFile:
		return w.file(s)
	case store.KindTree:
		return w.tree(s)
	case store.KindSnapshot:
		return w.snapshot(s)
	}
	s.What = "name"
	return w.fn(ShowItem{Subject: &s})
}

type shower struct {
	q   *Graph
	ctx context.Context
	fn  func(ShowItem) error
}

func (w *shower) part(p ShowPart, id store.ID) error {
	// A lost block is shown without its sizes: that is what is looked for.
	row, err := w.q.store.Lookup(id)
	if err == nil {
		info := row.Info(id)
		p.Block = &info
	} else if !errors.Is(err, store.ErrNotFound) {
		return err
	}
	return w.fn(ShowItem{Part: &p})
}

// live shows a file or directory of the live filesystem.
func (w *shower) live(root export.Root) error {
	s := Subject{What: "live file", Path: root.Path, Size: root.File.Size}
	if root.File.Directory {
		s.What, s.Size = "live directory", 0
	}
	if err := w.fn(ShowItem{Subject: &s}); err != nil {
		return err
	}
	return w.q.live.LiveEdges(w.ctx, *root.File, func(e export.LiveEdge) error {
		p := ShowPart{Role: e.Role, Name: e.Name, Offset: e.Offset, Bytes: e.Bytes}
		if e.File != nil {
			return w.fn(ShowItem{Part: &p})
		}
		return w.part(p, e.Block)
	})
}

func (w *shower) block(s Subject) error {
	if s.Size = s.Block.Raw; s.What == "" {
		s.What = "block"
	}
	return w.fn(ShowItem{Subject: &s})
}

func (w *shower) file(s Subject) error {
	plain, err := w.q.store.Get(w.ctx, s.Block.ID)
	if err != nil {
		return err
	}
	v, err := vertex.DecodeFile(plain)
	if err != nil {
		return fmt.Errorf("%s: %w", s.Block.ID, err)
	}
	if s.Size, s.Height = v.Size, v.Height; s.What == "" {
		s.What = "file"
	}
	if err := w.fn(ShowItem{Subject: &s}); err != nil {
		return err
	}
	return graph.FileSpans(w.ctx, w.q.store, graph.Link{ID: s.Block.ID, Kind: store.KindFile}, v.Size, func(x graph.Span) error {
		p := ShowPart{Role: graph.Contains, Offset: x.Off, Bytes: x.Len, Skip: int64(x.Skip), Hole: x.Hole}
		if x.Hole {
			return w.fn(ShowItem{Part: &p})
		}
		return w.part(p, x.ID)
	})
}

// tree shows a directory, or the edges of a vertex that is only a part of one.
func (w *shower) tree(s Subject) error {
	s.What = "directory"
	if err := w.fn(ShowItem{Subject: &s}); err != nil {
		return err
	}
	return w.entries(s.Block.ID)
}

func (w *shower) entries(tree store.ID) error {
	edges, err := graph.Successors(w.ctx, w.q.store, tree)
	if err != nil {
		return err
	}
	for _, e := range edges {
		if e.Role == graph.Part { // the parts of a big directory are shown as one
			err = w.entries(e.To)
		} else {
			err = w.part(ShowPart{Role: e.Role, Name: e.Name, Bytes: e.Bytes}, e.To)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *shower) snapshot(s Subject) error {
	plain, err := w.q.store.Get(w.ctx, s.Block.ID)
	if err != nil {
		return err
	}
	v, err := graph.DecodeSnapshot(plain)
	if err != nil {
		return fmt.Errorf("%s: %w", s.Block.ID, err)
	}
	s.What, s.Path, s.Size = "snapshot", strings.TrimSuffix(s.Path, ":"), v.Totals.Logical
	s.Snapshot = &ShownSnap{
		Created: time.Unix(v.Created.Sec, int64(v.Created.Nsec)).UTC(), Volume: v.Volume, Host: v.Host, Message: v.Message,
		Tags: v.Tags, Parents: v.Parents, Totals: v.Totals,
	}
	if err := w.fn(ShowItem{Subject: &s}); err != nil {
		return err
	}
	edges, err := graph.Edges(s.Block.ID, store.KindSnapshot, plain)
	if err != nil {
		return err
	}
	for _, e := range edges {
		if err := w.part(ShowPart{Role: e.Role, Bytes: e.Bytes}, e.To); err != nil {
			return err
		}
	}
	return w.entries(v.Root.Link.ID)
}
