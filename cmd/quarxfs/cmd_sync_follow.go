package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/store/config"
)

func newSyncFollow() *cobra.Command {
	var every time.Duration
	var f config.Follow
	var off, asJSON bool
	cmd := &cobra.Command{
		Use:   "follow [STORE] REMOTE",
		Short: "Sync new snapshots automatically while the store is mounted",
		Long: `While the store is mounted, its daemon pushes new snapshots to a remote at an interval, or pulls
them. The setting is kept in the store and applies at once. quarxfs snapshot policy has
snapshots made automatically.`,
		Example: `  quarxfs sync follow /mnt nas --every 30s
  quarxfs sync follow /mnt nas --off`,
		RunE: func(cmd *cobra.Command, args []string) error {
			// The settings keep whole seconds: half of one would be lost without a word.
			if !off && (every < time.Second || every%time.Second != 0) {
				return fmt.Errorf("%w: --every %s: choose whole seconds, or --off", errUsage, inUnits(every))
			}
			// --off is an interval of none, so that the settings need no further field.
			if f.Seconds = int64(every / time.Second); off {
				f = config.Follow{}
			}
			return onSettings(cmd, args[:1], func(n remote.Node, set config.Settings) error {
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
	fl.BoolVar(&f.Pull, "pull", false, "pull instead of push")
	fl.BoolVar(&f.Prune, "prune", false, "remove on the receiving side what the other side has removed")
	fl.BoolVar(&off, "off", false, "end automatic syncs")
	jsonFlag(fl, &asJSON)
	cmd.MarkFlagsMutuallyExclusive("off", "every")
	return cmd
}

func describeFollow(f config.Follow) string {
	if f.Seconds == 0 {
		return "synced by command only"
	}
	text := fmt.Sprintf("pushed every %s while mounted", inUnits(f.Every()))
	if f.Pull {
		text = fmt.Sprintf("pulled every %s while mounted", inUnits(f.Every()))
	}
	if f.Prune {
		text += ", with prune"
	}
	return text
}
