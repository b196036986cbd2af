package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/remote/transfer"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/config"
)

func newSync() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sync",
		Short: "Copy snapshots to and from other stores",
		Long: `Copies snapshots between stores. Only blocks that the other side lacks travel, compressed
as they are stored. An interrupted sync resumes when it is called again.`,
	}
	for _, c := range []*cobra.Command{newSyncRun(false), newSyncRun(true), newSyncStatus(), newSyncFollow()} {
		cmd.AddCommand(c)
	}
	return cmd
}

func newSyncRun(pull bool) *cobra.Command {
	j := &transfer.Job{Pull: pull, Host: hostname()}
	var prefix string
	var asJSON bool
	use, short := "push", "Send snapshots to a remote store"
	if pull {
		use, short = "pull", "Fetch snapshots from a remote store"
	}
	cmd := &cobra.Command{
		Use:   use + " [STORE] REMOTE [SNAPSHOT...]",
		Short: short,
		Long: short + `: those named, --all, or the --latest. Snapshots that the
receiving store already has are skipped. A snapshot whose name another one has there is left out
and named, and the exit code is 16: give --as or --prefix. One that the sending store has not is
named, too, with exit code 7. The others are sent.`,
		Example: fmt.Sprintf("  quarxfs sync %s /mnt nas --all --prune\n  quarxfs sync %s /mnt nas monday --as monday-2", use, use),
		RunE: func(cmd *cobra.Command, args []string) error {
			j.Names = args[2:]
			// Before the store is opened and the remote is asked.
			if err := checkSync(j); err != nil {
				return err
			}
			return onStore(cmd, args[:1], func(n remote.Node) error {
				return onRemote(cmd.Context(), n, args[1], func(r config.Remote, peer *remote.Client) error {
					// An empty --prefix is given to have none, so its value cannot say whether it
					// was given.
					if j.Remote = r; cmd.Flags().Changed("prefix") {
						j.Remote.Prefix = prefix
					}
					return runSync(cmd, j, n, peer, asJSON)
				})
			})
		},
	}
	f := cmd.Flags()
	f.BoolVar(&j.All, "all", false, "all snapshots")
	f.BoolVar(&j.Latest, "latest", false, "the newest snapshot")
	f.StringVar(&j.As, "as", "", "`name` of the snapshot on the receiving side; for a single one")
	f.StringVar(&prefix, "prefix", "", "`text` before the names on the receiving side, in place of the remote's")
	f.BoolVar(&j.Prune, "prune", false, "with --all: remove on the receiving side what came from the other side and was removed there")
	numberVar(f, &j.Streams, 0, 256, "streams", "parallel streams of blocks; 0: chosen by the latency")
	jsonFlag(f, &asJSON)
	return cmd
}

func checkSync(j *transfer.Job) error {
	ways := 0
	for _, set := range []bool{j.All, j.Latest, len(j.Names) > 0} {
		if set {
			ways++
		}
	}
	switch {
	case ways != 1:
		return fmt.Errorf("%w: name snapshots, or give --all or --latest", errUsage)
	case j.As != "" && (j.All || len(j.Names) > 1):
		return fmt.Errorf("%w: --as is for one snapshot; give --prefix", errUsage)
	case j.Prune && !j.All:
		return fmt.Errorf("%w: --prune goes with --all", errUsage)
	}
	return nil
}

func runSync(cmd *cobra.Command, j *transfer.Job, local, peer remote.Node, asJSON bool) error {
	line := newProgress(cmd.ErrOrStderr(), asJSON)
	begun := time.Now()
	j.Progress = func(p transfer.Progress) { line.show("%s", describeSync(p, time.Since(begun))) }
	j.Retried = func(err error) {
		line.clear()
		fmt.Fprintf(cmd.ErrOrStderr(), "quarxfs: the sync goes on after: %s\n", oneLine(err))
	}
	r, err := j.Run(cmd.Context(), local, peer)
	line.clear()
	// What was left out is an error and a result: the others were sent.
	if err != nil && !r.LeftOut() {
		return err
	}
	// What was done is reported although something was left out.
	return errors.Join(err, printOne(cmd, asJSON, r, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s %s: %s, %s, %s in %.1f s; %s already there\n", r.Direction, printable(r.Remote),
			amount(len(r.Sent), "snapshot"), amount(r.Blocks, "block"), size(r.Bytes), r.Seconds, humanize.Comma(r.Skipped))
		for _, name := range r.Pruned {
			fmt.Fprintf(w, "removed %s\n", printable(name))
		}
		return err
	}))
}

// describeSync is what a terminal shows of a sync.
func describeSync(p transfer.Progress, took time.Duration) string {
	seconds := max(0.001, took.Seconds())
	eta := ""
	if p.Blocks > 0 && p.Found > p.Blocks {
		left := time.Duration(seconds * float64(p.Found-p.Blocks) / float64(p.Blocks) * float64(time.Second))
		eta = ", " + left.Round(time.Second).String() + " left"
	}
	return fmt.Sprintf("%s, %s of %s blocks, %s there, %s/s%s", size(p.Bytes), humanize.Comma(p.Blocks), humanize.Comma(p.Found),
		humanize.Comma(p.Skipped), size(int64(float64(p.Bytes)/seconds)), eta)
}

// A syncStatus is what `sync status` prints.
type syncStatus struct {
	Remotes []config.Remote `json:"remotes"`
	remote.SyncState
}

func newSyncStatus() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "status [STORE]",
		Short:   "Show how the last syncs went and which are under way",
		Example: `  quarxfs sync status /mnt`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return onSettings(cmd, args, func(n remote.Node, set config.Settings) error {
				// The remotes are settings, what became of them is state; the two have routes of
				// their own.
				state, err := n.SyncState(cmd.Context())
				if err != nil {
					return err
				}
				st := syncStatus{set.Remotes, state}
				return printOne(cmd, asJSON, st, st.print)
			})
		},
	}
	jsonFlag(cmd.Flags(), &asJSON)
	return cmd
}

func (s syncStatus) print(w io.Writer) error {
	last := make(map[string]store.SyncNote, len(s.Notes))
	for _, n := range s.Notes {
		last[n.Remote] = n
	}
	// By the remotes and not by the notes: one that was never synced has none.
	for _, r := range s.Remotes {
		fmt.Fprintf(w, "%s (%s): %s\n", printable(r.Name), printable(r.URL), describeFollow(r.Follow))
		n, ok := last[r.Name]
		switch {
		case !ok:
			fmt.Fprintln(w, "  never synced")
		case n.Error != "":
			fmt.Fprintf(w, "  %s %s failed: %s\n", humanize.Time(n.Ended), n.Direction, printable(joinLines(n.Error)))
		default:
			fmt.Fprintf(w, "  %s %s: %s, %s, %s\n", humanize.Time(n.Ended), n.Direction, amount(n.Snapshots, "snapshot"), amount(n.Blocks, "block"), size(n.Bytes))
		}
	}
	// A lease stays when its sync was interrupted, so it cannot be told which of the two it is.
	for _, l := range s.Leases {
		fmt.Fprintf(w, "under way or interrupted: %s, since %s\n", printable(l.For), l.Begun.Local().Format("2006-01-02 15:04:05"))
	}
	if len(s.Remotes) == 0 {
		_, err := fmt.Fprintln(w, "There are no remotes.")
		return err
	}
	return nil
}
