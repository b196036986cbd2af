package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/remote/rawjson"
)

func newOptimize() *cobra.Command {
	var o remote.OptimizeOptions
	var rate byteSize
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "optimize [STORE]",
		Short: "Compress better what was compressed quickly",
		Long: `Files are compressed quickly as they are written. This compresses their blocks again by zstd,
which takes less space and is read somewhat more slowly, and rewrites the database. The store may
be mounted and in use. An interrupted optimization loses nothing, and the next one does the rest.

Blocks in the cold tier are compressed by zstd already.`,
		Example: `  quarxfs optimize /mnt --dry-run
  quarxfs optimize /srv/store --rate 50MiB`,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Rate = int64(rate)
			return onStore(cmd, args, func(n remote.Node) error { return optimize(cmd, n, o, asJSON) })
		},
	}
	f := cmd.Flags()
	rateVar(f, &rate, "rate", "most bytes read a second, such as 50MiB; 0: no limit")
	f.BoolVar(&o.DryRun, "dry-run", false, "estimate from a sample what would be saved, and change nothing")
	jsonFlag(f, &asJSON)
	return cmd
}

func optimize(cmd *cobra.Command, n remote.Node, o remote.OptimizeOptions, asJSON bool) error {
	line := newProgress(cmd.ErrOrStderr(), asJSON)
	var last remote.Optimized
	err := n.Optimize(cmd.Context(), o, func(p remote.Optimized) error {
		// The last one has the sums.
		last = p
		line.show("%s saved, %s to go", size(p.From-p.To), size(p.Todo))
		return nil
	})
	line.clear()
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	if asJSON {
		return rawjson.Write(out, last)
	}
	if o.DryRun {
		fmt.Fprintf(out, "About %s would be saved: %s of %s would take about %s.\n",
			size(last.Saved()), amount(last.Blocks, "block"), size(last.From), size(last.To))
		return nil
	}
	fmt.Fprintf(out, "%s saved\n", size(max(0, last.Saved())))
	fmt.Fprintf(out, "  blocks    %s of %s take %s\n", amount(last.Blocks, "block"), size(last.From), size(last.To))
	fmt.Fprintf(out, "  database  %s\n", size(last.Database))
	if last.Unreadable > 0 {
		fmt.Fprintf(out, "unreadable, and left as they are: %s; see quarxfs scrub\n", amount(last.Unreadable, "block"))
	}
	if last.NoRoom {
		fmt.Fprintln(out, "the disk is too full to write all of them again: give it room and repeat the command")
	}
	return nil
}
