package main

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/remote/rawjson"
)

type statsOptions struct{ json, history bool }

func newStats() *cobra.Command {
	o := &statsOptions{}
	cmd := &cobra.Command{
		Use:   "stats [STORE]",
		Short: "Show what is inside a store and what it saves",
		Example: `  quarxfs stats /mnt
  quarxfs stats /srv/store --json | jq .dedup_ratio
  quarxfs stats /mnt --history`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return onStore(cmd, args, func(n remote.Node) error {
				// Another request: it goes over all snapshots and the rest over none.
				if o.history {
					return showHistory(cmd.OutOrStdout(), o.json, func(fn func(graph.HistoryPoint) error) error { return n.History(cmd.Context(), fn) })
				}
				s, err := n.Stats(cmd.Context())
				if err != nil {
					return err
				}
				return o.print(cmd.OutOrStdout(), s)
			})
		},
	}
	jsonFlag(cmd.Flags(), &o.json)
	cmd.Flags().BoolVar(&o.history, "history", false, "print what was new in each snapshot, the oldest first; with --json an object a line")
	return cmd
}

func (o *statsOptions) print(w io.Writer, s remote.Stats) error {
	if !o.json {
		return showStats(w, s)
	}
	return rawjson.Write(w, s)
}
