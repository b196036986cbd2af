package query

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/store"
)

// History implements remote.Graph.
func (q *Graph) History(ctx context.Context, fn func(graph.HistoryPoint) error) error {
	defer q.store.PauseSweep()()
	var points []*datedPoint
	err := q.store.Snapshots(ctx, func(r store.SnapshotRef) error {
		s, err := graph.GetSnapshot(ctx, q.store, r.ID)
		switch {
		case errors.Is(err, store.ErrNotFound): // removed since
		case errors.Is(err, store.ErrCorrupt), errors.Is(err, store.ErrUnavailable):
			point := graph.HistoryPoint{Name: r.Name, ID: r.ID, Created: r.Set.UTC(), Fault: err.Error()}
			points = append(points, &datedPoint{point, graph.Snapshot{}})
		case err != nil:
			return fmt.Errorf("snapshot %q: %w", r.Name, err)
		default:
			points = append(points, &datedPoint{graph.NewHistoryPoint(r.Name, r.ID, &s), s})
		}
		return nil
	})
	if err != nil {
		return err
	}
	// By time, as a snapshot is compared with the one before it; the store lists them by name.
	slices.SortStableFunc(points, func(a, b *datedPoint) int { return a.Created.Compare(b.Created) })
	last := make(map[string]*datedPoint) // of each volume: those that were pulled have others
	for _, p := range points {
		if p.Fault != "" {
			if err := fn(p.HistoryPoint); err != nil {
				return err
			}
			continue // what comes after is compared with the one before
		}
		if before := last[p.of.Volume]; before != nil {
			// A damaged snapshot must not hide all others: it has an alarm of its own.
			if p.Alarm, err = graph.Suspect(ctx, q.store, &before.of, &p.of); err != nil {
				if ctx.Err() != nil {
					return err
				}
				p.Alarm = fmt.Sprintf("what changed since %q cannot be read, so nothing tells whether files were encrypted: %v", before.Name, err)
			}
		}
		last[p.of.Volume] = p
		if err := fn(p.HistoryPoint); err != nil {
			return err
		}
	}
	return nil
}

// A datedPoint is a point of the history with its snapshot.
type datedPoint struct {
	graph.HistoryPoint
	of graph.Snapshot
}
