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

// findStoreOf is findStore where PATH may be behind STORE: without STORE, it is the store whose
// mount the first path leads into, if it leads into any.
func findStoreOf(cmd *cobra.Command, args []string) (access, error) {
	if len(args) > 1 && args[0] == "" {
		if to, err := findStorePath(args[1]); err == nil {
			return access{target: to, stderr: cmd.ErrOrStderr()}, nil
		}
	}
	return findStore(cmd, args)
}

// onStore runs fn on the store that the first argument names, if there is one.
func onStore(cmd *cobra.Command, args []string, fn func(remote.Node) error) error {
	a, err := findStore(cmd, args)
	if err != nil {
		return err
	}
	return a.run(cmd.Context(), fn)
}

// changeStore is onStore for what may leave blocks behind that nothing refers to.
func changeStore(cmd *cobra.Command, args []string, fn func(remote.Node) error) error {
	a, err := findStore(cmd, args)
	if err != nil {
		return err
	}
	a.tidy = true
	return a.run(cmd.Context(), fn)
}

func findStore(cmd *cobra.Command, args []string) (access, error) {
	arg := ""
	if len(args) > 0 {
		arg = args[0]
	}
	to, err := locateAt(arg)
	a := access{stderr: cmd.ErrOrStderr()}
	if isURL(to.dir) {
		a.url = to.dir
		return a, acceptURL(cmd, a.url)
	}
	a.target = to
	return a, err
}
