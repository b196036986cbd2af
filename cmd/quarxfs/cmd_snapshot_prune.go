package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/store/config"
)

// addRetention adds the flags of a retention policy.
func addRetention(f *pflag.FlagSet, p *config.Retention) {
	numberVar(f, &p.Last, -1, most, "keep-last", "keep so many of the newest")
	numberVar(f, &p.Hourly, -1, most, "keep-hourly", "keep the newest of each hour, for so many hours that have one")
	numberVar(f, &p.Daily, -1, most, "keep-daily", "keep the newest of each day, for so many days that have one")
	numberVar(f, &p.Weekly, -1, most, "keep-weekly", "keep the newest of each week, for so many weeks that have one")
	numberVar(f, &p.Monthly, -1, most, "keep-monthly", "keep the newest of each month, for so many months that have one")
	numberVar(f, &p.Yearly, -1, most, "keep-yearly", "keep the newest of each year, for so many years that have one")
	listVar(f, &p.Tags, "keep-tag", "", "keep those with any of these `tags`")
}

func newSnapshotPrune() *cobra.Command {
	var r remote.PruneRequest
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "prune [STORE]",
		Short: "Remove the snapshots that a policy does not keep",
		Long: `Keeps the snapshots that any of the --keep flags names, and those that are held; removes
the others.`,
		Example: `  quarxfs snapshot prune /mnt --keep-hourly 24 --keep-daily 7 --keep-monthly 12 --dry-run`,
		RunE: func(cmd *cobra.Command, args []string) error {
			// A policy that keeps nothing is a flag that was forgotten, most likely.
			if r.Policy.Empty() {
				return fmt.Errorf("%w: give at least one --keep flag; without any, all snapshots would go", errUsage)
			}
			return onStore(cmd, args, func(n remote.Node) error {
				verdicts, err := n.Prune(cmd.Context(), r)
				if err != nil {
					return err
				}
				// The verdicts come all at once: which ones stay is known only when all were
				// judged.
				show := func(w io.Writer, v graph.Verdict) error { return showVerdict(w, v, r.DryRun) }
				return printLines(cmd.OutOrStdout(), asJSON, show, func(fn func(graph.Verdict) error) error { return each(verdicts, fn) })
			})
		},
	}
	f := cmd.Flags()
	addRetention(f, &r.Policy)
	f.StringVar(&r.Among, "among", "", "judge only snapshots with this `tag`")
	f.BoolVar(&r.DryRun, "dry-run", false, "only say what would be done")
	jsonLinesFlag(f, &asJSON)
	return cmd
}

func showVerdict(w io.Writer, v graph.Verdict, dry bool) error {
	what := "removed"
	switch {
	case v.Keep:
		what = "kept: " + strings.Join(v.Reasons, ", ")
	case dry:
		what = "would be removed"
	}
	_, err := fmt.Fprintf(w, "%s  %s  %s\n", v.Created.Local().Format("2006-01-02 15:04:05"), printable(v.Name), what)
	return err
}

type policyOptions struct {
	every time.Duration
	keep  config.Retention
	off   bool
	json  bool
}

func newSnapshotPolicy() *cobra.Command {
	o := &policyOptions{}
	cmd := &cobra.Command{
		Use:   "policy [STORE]",
		Short: "Make and prune snapshots automatically",
		Long: `Sets how often a snapshot is made while the store is mounted, and which of these stay;
without flags it shows what is set. Automatic snapshots have the tag auto. When one is made,
older automatic ones that no --keep flag keeps are removed; without --keep flags all stay.
--every alone changes only the interval, --keep flags alone only what stays. A mounted store
applies it at once.`,
		Example: `  quarxfs snapshot policy /mnt --every 1h --keep-hourly 24 --keep-daily 30
  quarxfs snapshot policy /srv/store --off`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return onSettings(cmd, args, func(n remote.Node, set config.Settings) error { return o.run(cmd, n, set.Snapshots) })
		},
	}
	f := cmd.Flags()
	timeVar(f, timeFlag{to: &o.every, least: time.Second}, "every", "make one at this `interval`, such as 1h")
	addRetention(f, &o.keep)
	f.BoolVar(&o.off, "off", false, "make none")
	jsonFlag(f, &o.json)
	// --off with --keep is refused in run, as --keep is seven flags.
	cmd.MarkFlagsMutuallyExclusive("off", "every")
	return cmd
}

func (o *policyOptions) run(cmd *cobra.Command, n remote.Node, now config.SnapshotSchedule) error {
	switch every := cmd.Flags().Changed("every"); {
	case o.off && !o.keep.Empty():
		return fmt.Errorf("%w: --off goes without --keep flags", errUsage)
	case every && (o.every < time.Second || o.every%time.Second != 0):
		return fmt.Errorf("%w: --every %s: choose whole seconds, or --off", errUsage, inUnits(o.every))
	case o.off:
		now = config.SnapshotSchedule{}
	case every:
		now.Seconds = int64(o.every / time.Second)
	}
	// Without --keep flags the ones that are set go on to count.
	if !o.keep.Empty() {
		now.Keep = o.keep
	}
	if o.off || o.every != 0 || !o.keep.Empty() {
		if err := n.SetSchedule(cmd.Context(), now); err != nil {
			return err
		}
	}
	return printOne(cmd, o.json, now, func(w io.Writer) error {
		stats, err := n.Stats(cmd.Context())
		if err != nil {
			return err
		}
		if every := stats.Daemon.SnapshotEvery; every != nil {
			fmt.Fprintf(w, "This mount was told %s: mount --snapshot-every. At the next:\n", describeEvery(*every))
		}
		_, err = fmt.Fprintln(w, describeSchedule(now))
		return err
	})
}

// describeEvery says how often a mount makes snapshots that was told so.
func describeEvery(seconds int64) string {
	if seconds == 0 {
		return "to make no snapshots"
	}
	return fmt.Sprintf("to make a snapshot every %s", inUnits(time.Duration(seconds)*time.Second))
}

func describeSchedule(s config.SnapshotSchedule) string {
	if s.Seconds == 0 {
		return "No snapshots are made automatically."
	}
	text := fmt.Sprintf("While mounted, a snapshot every %s; ", inUnits(s.Every()))
	if s.Keep.Empty() {
		return text + "all stay."
	}
	var kept []string
	for _, r := range []struct {
		n    int
		name string
	}{
		{s.Keep.Last, "last"}, {s.Keep.Hourly, "hourly"}, {s.Keep.Daily, "daily"}, {s.Keep.Weekly, "weekly"},
		{s.Keep.Monthly, "monthly"}, {s.Keep.Yearly, "yearly"},
	} {
		switch {
		// -1 keeps all, as the flags say.
		case r.n < 0:
			kept = append(kept, "all "+r.name)
		case r.n > 0:
			kept = append(kept, fmt.Sprintf("%d %s", r.n, r.name))
		}
	}
	for _, tag := range s.Keep.Tags {
		kept = append(kept, "tag "+printable(tag))
	}
	return text + "kept: " + strings.Join(kept, ", ") + "."
}
