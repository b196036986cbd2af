package volume

import (
	"context"
	"fmt"

	"github.com/quarxtor/quarxfs/graph"
)

// LiveTree calls fn with the live filesystem as it is at one instant after the
// call, as a snapshot without a name. It costs what a snapshot does. Its vertices
// are there until fn returns; nothing else keeps them. What the kernel has not yet
// handed over is not in it.
func (v *Volume) LiveTree(ctx context.Context, fn func(*graph.Snapshot) error) error {
	defer v.store.KeepAll()()
	var live graph.Snapshot
	if err := v.liveTree(ctx, &live); err != nil {
		return fmt.Errorf("look at the live filesystem: %w", err)
	}
	return fn(&live)
}

func (v *Volume) liveTree(ctx context.Context, live *graph.Snapshot) error {
	v.snapshots.mu.Lock()
	defer v.snapshots.mu.Unlock()
	return v.snapshots.withCheckpoint(ctx, false, func(ctx context.Context, c *checkpoint) error {
		b := &snapBuilder{ctx: ctx, v: v, view: c.view, last: c.before, base: c.before.Base}
		out, err := b.build()
		*live = v.snapshots.describe(out, b, c, SnapshotOptions{}, v.store.Stats().Totals.Appended)
		return err
	})
}
