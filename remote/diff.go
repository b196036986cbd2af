package remote

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/quarxtor/quarxfs/graph"
)

// A DiffRequest says what to compare.
type DiffRequest struct {
	A, B  string // names of snapshots; no B: the live filesystem
	Exact bool   // narrow ranges down to the bytes that differ, by reading blocks, up to 256 MiB
}

// exactBytes is how much is read for exact ranges.
const exactBytes = 256 << 20

// A DiffItem is a difference, or the sums, which come last.
type DiffItem struct {
	Difference *graph.Difference `json:"difference,omitempty"`
	Stat       *graph.DiffStat   `json:"stat,omitempty"`
}

// LiveTree gives the live filesystem as it is now, as a snapshot. The volume's
// owner provides it.
type LiveTree interface {
	// LiveTree calls fn with it. Its vertices are there until fn returns.
	LiveTree(ctx context.Context, fn func(*graph.Snapshot) error) error
}

var errNoLiveTree = errors.New("this node has no live filesystem")

// Diff implements Graph.
func (l *Local) Diff(ctx context.Context, r DiffRequest, fn func(DiffItem) error) error {
	defer l.store.KeepAll()()
	before, err := l.named(ctx, r.A)
	if err != nil {
		return err
	}
	var exact *graph.Exact
	if r.Exact {
		exact = &graph.Exact{Left: exactBytes}
	}
	run := func(after *graph.Snapshot) error {
		stat, err := graph.Diff(ctx, l.store, before, after, exact, func(d *graph.Difference) error {
			return fn(DiffItem{Difference: d})
		})
		if err != nil {
			return err
		}
		return fn(DiffItem{Stat: &stat})
	}
	if r.B != "" {
		after, err := l.named(ctx, r.B)
		if err != nil {
			return err
		}
		return run(after)
	}
	if l.env.LiveTree == nil {
		return errNoLiveTree
	}
	return l.env.LiveTree.LiveTree(ctx, run)
}

// named returns the snapshot with a name.
func (l *Local) named(ctx context.Context, name string) (*graph.Snapshot, error) {
	if name == "" {
		return nil, fmt.Errorf("%w: name a snapshot", ErrRequest)
	}
	r, err := l.store.Snapshot(name)
	if err != nil {
		return nil, err
	}
	s, err := l.snapshot(ctx, r)
	return &s, err
}

// Diff implements Graph.
func (c *Client) Diff(ctx context.Context, r DiffRequest, fn func(DiffItem) error) error {
	q := make(url.Values)
	setText(q, "a", r.A)
	setText(q, "b", r.B)
	if r.Exact {
		q.Set("exact", "true")
	}
	return receiveStream(ctx, c, withQuery("/v1/diff", q), fn)
}

func (s *server) diff(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	req := DiffRequest{A: q.Get("a"), B: q.Get("b"), Exact: q.Get("exact") == "true"}
	sendStream(s, w, r, func(fn func(DiffItem) error) error { return s.node.Diff(r.Context(), req, fn) })
}
