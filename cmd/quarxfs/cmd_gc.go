package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/remote/rawjson"
)

type gcOptions struct {
	rate    byteSize
	minLive float64
	json    bool
}

func newGC() *cobra.Command {
	o := &gcOptions{}
	cmd := &cobra.Command{
		Use:   "gc [STORE]",
		Short: "Free the space of what nothing refers to",
		Long: `Removes blocks that nothing refers to. Then it moves the blocks in use out of segments that have
few of them, removes these segments, and rewrites the database without its deleted rows. The
store may be mounted and in use. A mounted store does all but the last automatically.

The bytes freed are the sizes of the removed segment files, less what was moved out of them,
plus what the tables of the database got smaller. A removed block frees nothing while its segment
stays.`,
		Example: `  quarxfs gc /mnt --rate 20MiB
  quarxfs gc /srv/store --min-live 0.9`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return onStore(cmd, args, func(n remote.Node) error { return o.run(cmd, n) })
		},
	}
	f := cmd.Flags()
	rateVar(f, &o.rate, "rate", "most bytes moved a second, such as 20MiB; 0: no limit")
	o.minLive = 0.5
	shareVar(f, &o.minLive, 0.95, "min-live", "empty segments of which less than this `share` is in use, up to 0.95 or 95%")
	jsonFlag(f, &o.json)
	return cmd
}

func (o *gcOptions) run(cmd *cobra.Command, n remote.Node) error {
	line := newProgress(cmd.ErrOrStderr(), o.json)
	var last remote.GC
	err := n.GC(cmd.Context(), remote.GCOptions{MinLive: o.minLive, Rate: int64(o.rate)}, func(g remote.GC) error {
		// The last one has the sums.
		last = g
		line.show("moved %s, %s to go", size(g.Compacted.Copied), size(g.Compacted.Todo))
		return nil
	})
	line.clear()
	if err != nil {
		return err
	}
	if o.json {
		return rawjson.Write(cmd.OutOrStdout(), last)
	}
	out := cmd.OutOrStdout()
	c := last.Compacted
	// Moved blocks may take more than the segments that went: nothing was freed then, and not less.
	fmt.Fprintf(out, "%s freed: segments %s - moved %s + database %s\n", size(max(0, last.Freed())),
		size(last.Swept.SegmentBytes+c.SegmentBytes), size(c.Copied), size(c.Database))
	fmt.Fprintf(out, "  segments  %s removed; %s (%s) had no reference left\n",
		amount(last.Swept.Segments+c.Segments, "file"), amount(last.Swept.Blocks, "block"), size(last.Swept.StoredBytes))
	fmt.Fprintf(out, "  moved     %s in use, out of these files\n", amount(c.Blocks, "block"))
	if !last.Compacted.NoRoom {
		fmt.Fprintln(out, "  database  tables rewritten without their deleted rows")
	}
	if last.Compacted.Unreadable > 0 {
		fmt.Fprintf(out, "unreadable, and not moved: %s; see quarxfs scrub\n", amount(last.Compacted.Unreadable, "block"))
	}
	if last.Compacted.NoRoom {
		fmt.Fprintln(out, "the disk is too full to move blocks or to write the database again; what is removed is gone all the same")
	}
	return nil
}
