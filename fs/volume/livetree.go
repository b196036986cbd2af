package volume

import (
	"context"
	"fmt"

	"github.com/quarxtor/quarxfs/graph"
)

// LiveTree calls fn with the live filesystem as it is at one instant after the
// call, as a snapshot without a name. It costs what a snapshot does. Its vertices
// are there until fn returns; nothing else keeps them. Those of a store that is open for
// reading only are in memory. What the kernel has not yet handed over is not in it.
func (v *Volume) LiveTree(ctx context.Context, fn func(*graph.Snapshot) error) error {
	defer v.store.PauseSweep()()
	var live graph.Snapshot
	if err := v.snapshots.liveTree(ctx, &live); err != nil {
		return fmt.Errorf("look at the live filesystem: %w", err)
	}
	return fn(&live)
}

func (ss *snapshotter) liveTree(ctx context.Context, live *graph.Snapshot) error {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	return ss.withCheckpoint(ctx, false, func(ctx context.Context, c *checkpoint) error {
		b, out, err := ss.build(snapBuilder{ctx: ctx, view: c.view, last: c.before})
		*live = ss.describe(out, b, c, SnapshotOptions{}, ss.v.store.Stats().Totals.Appended)
		return err
	})
}
