package daemon

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"github.com/quarxtor/quarxfs/fs/snapfs"
	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/remote/snapread"
	"github.com/quarxtor/quarxfs/store/owner"
)

// A snapshotMount is what the read-only mount of a node at a URL has in place of a store.
type snapshotMount struct {
	client *remote.Client
	cache  *snapread.BlockCache
}

// openSnapshots connects to the node and opens the cache.
func (d *daemon) openSnapshots(ctx context.Context, memory int64) error {
	o := d.opts
	client, err := o.Dial(o.Node)
	if err != nil {
		return err
	}
	// A node that is not there, or does not let us in, leaves no cache behind where there was none.
	if _, err := os.Lstat(o.Store); errors.Is(err, fs.ErrNotExist) {
		if err := client.ListSnapshots(ctx, func(remote.Snapshot) error { return nil }); err != nil {
			client.Close()
			return err
		}
	}
	// A cache in another user's directory belongs to that user, as a store would.
	inside, _, err := owner.EnterPath(o.Store, d.log)
	if err != nil {
		client.Close()
		return err
	}
	cache, err := snapread.NewBlockCache(client, snapread.CacheOptions{
		Dir: inside, URL: o.Node.URL, Disk: o.CacheSize, Memory: memory, Logger: d.log,
	})
	if err != nil {
		client.Close()
		return err
	}
	d.snaps = &snapshotMount{client, cache}
	_, err = cache.Snapshots(ctx) // who may not come in is told now
	return err
}

// readOnlyNode is a node at a URL to those who ask its mount: nothing is written there, so there is
// nothing to commit, and a token that may only read is enough.
type readOnlyNode struct{ *remote.Client }

func (readOnlyNode) Sync(context.Context) error { return nil }

func (d *daemon) startSnapshots() (err error) {
	o := d.opts
	return owner.AsCaller(func() (err error) {
		d.mount, err = snapfs.Mount(snapshotSource{d.snaps.cache}, o.Mountpoint, snapfs.Options{
			Name: o.Store, AllowOther: o.AllowOther, Debug: o.Debug, ServeOptions: d.serveOptions(),
		})
		if err == nil {
			err = d.noteMount()
		}
		return err
	})
}

func (p *snapshotMount) close() error {
	p.client.Close()
	return p.cache.Close()
}

// snapshotSource is a cache as a mount wants it.
type snapshotSource struct{ *snapread.BlockCache }

// Names implements snapfs.Source.
func (s snapshotSource) Names(ctx context.Context) ([]snapfs.Name, error) {
	list, err := s.Snapshots(ctx)
	names := make([]snapfs.Name, len(list))
	for i, one := range list {
		names[i] = snapfs.Name{Name: one.Name, ID: one.ID}
	}
	return names, err
}
