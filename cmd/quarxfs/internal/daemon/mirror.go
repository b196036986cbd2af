package daemon

import (
	"context"

	"github.com/quarxtor/quarxfs/remote/cluster/mirrored"
	"github.com/quarxtor/quarxfs/store"
)

// openMirror has the store be opened as the copy that is written, if it is one of a mirrored
// volume. Who only reads it needs nobody's leave. What cannot be read here store.Open says.
func (d *daemon) openMirror(ctx context.Context, inside string, o *store.Options) error {
	conf, err := store.ReadConfig(inside)
	if err != nil || !conf.Mirrored || o.ReadOnly {
		return nil
	}
	// By its path, as the segments of a store with a disk of its own are.
	w, err := mirrored.Open(ctx, d.opts.Store, mirrored.Options{MemTable: o.MemTable, LockWait: LockWait, Log: d.log})
	if err != nil {
		return err
	}
	d.mirror, o.Disk, o.Follower = w, w, w
	return nil
}
