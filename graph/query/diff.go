package query

import (
	"context"
	"errors"
	"fmt"

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

var errNoLiveTree = errors.New("this node has no live filesystem")

// Diff implements remote.Graph.
func (q *Graph) Diff(ctx context.Context, r DiffRequest, fn func(DiffItem) error) error {
	defer q.store.PauseSweep()()
	before, err := q.named(ctx, r.A)
	if err != nil {
		return err
	}
	var exact *graph.Exact
	if r.Exact {
		exact = &graph.Exact{Left: exactBytes}
	}
	compare := func(after *graph.Snapshot) error {
		stat, err := graph.Diff(ctx, q.store, before, after, exact, func(d *graph.Difference) error {
			return fn(DiffItem{Difference: d})
		})
		if err != nil {
			return err
		}
		return fn(DiffItem{Stat: &stat})
	}
	if r.B != "" {
		after, err := q.named(ctx, r.B)
		if err != nil {
			return err
		}
		return compare(after)
	}
	if q.tree == nil {
		return errNoLiveTree
	}
	return q.tree.LiveTree(ctx, compare)
}

// named returns the snapshot with a name.
func (q *Graph) named(ctx context.Context, name string) (*graph.Snapshot, error) {
	if name == "" {
		return nil, fmt.Errorf("%w: name a snapshot", ErrRequest)
	}
	r, err := q.store.Snapshot(name)
	if err != nil {
		return nil, err
	}
	s, err := q.Snapshot(ctx, r)
	return &s, err
}
