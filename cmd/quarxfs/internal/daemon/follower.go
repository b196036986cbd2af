package daemon

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/remote/transfer"
	"github.com/quarxtor/quarxfs/store/config"
	"github.com/quarxtor/quarxfs/store/routine"
)

// A follower syncs with the remotes that the store's settings have it follow, each
// at its own interval.
type follower struct {
	settings func() (config.Settings, <-chan struct{}, error)
	node     remote.Node
	dial     func(config.Remote) (*remote.Client, error)
	host     string
	log      *slog.Logger
}

// run has a goroutine for each remote that is followed, until ctx ends; a change of the
// settings replaces those that it changes. What has arrived stays.
func (f *follower) run(ctx context.Context) {
	var syncs sync.WaitGroup
	defer syncs.Wait()
	running := make(map[config.Remote]context.CancelFunc)
	for {
		set, changed, _ := f.settings() // what is wrong with them was logged
		// By value: a remote whose URL or interval has changed is another one, and begins anew.
		wanted := make(map[config.Remote]bool)
		for _, r := range set.Remotes {
			if r.Follow.Seconds > 0 {
				wanted[r] = true
			}
		}
		for r, stop := range running {
			if !wanted[r] {
				stop()
				delete(running, r)
			}
		}
		for r := range wanted {
			if running[r] == nil {
				one, stop := context.WithCancel(ctx)
				running[r] = stop
				syncs.Go(func() { f.follow(one, r) })
			}
		}
		select {
		case <-ctx.Done():
			for _, stop := range running {
				stop()
			}
			return
		case <-changed:
		}
	}
}

func (f *follower) follow(ctx context.Context, r config.Remote) {
	routine.Each(ctx, 0, r.Follow.Every(), nil, func() {
		done, err := f.once(ctx, r)
		if err == nil && len(done.Sent)+len(done.Pruned) > 0 {
			f.log.Info("synced", "remote", r.Name, "direction", done.Direction, "snapshots", len(done.Sent), "blocks", done.Blocks,
				"bytes", done.Bytes, "pruned", len(done.Pruned))
		}
		if err != nil && ctx.Err() == nil && !errors.Is(err, context.Canceled) {
			f.log.Error("the sync failed; it is tried again in its turn", "remote", r.Name, "err", err)
		}
	})
}

func (f *follower) once(ctx context.Context, r config.Remote) (done transfer.Report, err error) {
	peer, err := f.dial(r)
	if err != nil {
		return done, err
	}
	defer peer.Close()
	j := transfer.Job{Remote: r, Pull: r.Follow.Pull, All: true, Prune: r.Follow.Prune, Host: f.host}
	return j.Run(ctx, f.node, peer)
}
