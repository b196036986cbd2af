package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/remote/transfer"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/routine"
)

func newSyncFollow() *cobra.Command {
	var every time.Duration
	var f store.Follow
	var off, asJSON bool
	cmd := &cobra.Command{
		Use:   "follow [STORE] REMOTE",
		Short: "Have all snapshots synced while the store is mounted",
		Long: `Has the daemon of a mounted store push all new snapshots to a remote, or pull them, again and
again. It is remembered; a mounted store follows at once. Automatic snapshots are made
as quarxfs snapshot policy says.`,
		Example: `  quarxfs sync follow /mnt nas --every 30s
  quarxfs sync follow /mnt nas --off`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !off && (every < time.Second || every%time.Second != 0) {
				return fmt.Errorf("%w: --every %v: choose whole seconds, or --off", errUsage, every)
			}
			if f.Seconds = int64(every / time.Second); off {
				f = store.Follow{}
			}
			return onSettings(cmd, args[:1], func(n remote.Node, set store.Settings) error {
				r, err := set.Remote(args[1])
				if err != nil {
					return err
				}
				r.Follow = f
				if err := n.SetRemote(cmd.Context(), r); err != nil {
					return err
				}
				return printOne(cmd, asJSON, r, func(w io.Writer) error {
					_, err := fmt.Fprintf(w, "%s: %s\n", printable(r.Name), describeFollow(f))
					return err
				})
			})
		},
	}
	fl := cmd.Flags()
	timeVar(fl, timeFlag{to: &every, least: time.Second}, "every", "sync at this `interval`, such as 30s")
	fl.BoolVar(&f.Pull, "pull", false, "pull, and do not push")
	fl.BoolVar(&f.Prune, "prune", false, "remove on the receiving side what the other has no more")
	fl.BoolVar(&off, "off", false, "end automatic syncs")
	jsonFlag(fl, &asJSON)
	cmd.MarkFlagsMutuallyExclusive("off", "every")
	return cmd
}

func describeFollow(f store.Follow) string {
	if f.Seconds == 0 {
		return "synced when told to"
	}
	text := fmt.Sprintf("pushed every %v while mounted", f.Every())
	if f.Pull {
		text = fmt.Sprintf("pulled every %v while mounted", f.Every())
	}
	if f.Prune {
		text += ", with prune"
	}
	return text
}

// A follower syncs with the remotes that the store's settings have it follow, each
// at its own interval.
type follower struct {
	settings func() (store.Settings, <-chan struct{}, error)
	node     remote.Node
	log      *slog.Logger
}

// run has a goroutine for each remote that is followed, until ctx ends; a change of the
// settings replaces those that it changes. What has arrived stays.
func (f *follower) run(ctx context.Context) {
	var syncs sync.WaitGroup
	defer syncs.Wait()
	running := make(map[store.Remote]context.CancelFunc)
	for {
		set, changed, _ := f.settings() // what is wrong with them was logged
		wanted := make(map[store.Remote]bool)
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

func (f *follower) follow(ctx context.Context, r store.Remote) {
	routine.Each(ctx, 0, r.Follow.Every(), nil, func() {
		err := onPeer(r, func(peer *remote.Client) error {
			j := transfer.Job{Remote: r, Pull: r.Follow.Pull, All: true, Prune: r.Follow.Prune, Host: hostname()}
			done, err := j.Run(ctx, f.node, peer)
			if err == nil && len(done.Sent)+len(done.Pruned) > 0 {
				f.log.Info("synced", "remote", r.Name, "direction", done.Direction, "snapshots", len(done.Sent), "blocks", done.Blocks, "bytes", done.Bytes, "pruned", len(done.Pruned))
			}
			return err
		})
		if err != nil && ctx.Err() == nil && !errors.Is(err, context.Canceled) {
			f.log.Error("the sync failed; it is tried again in its turn", "remote", r.Name, "err", err)
		}
	})
}
