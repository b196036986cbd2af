package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/quarxtor/quarxfs/remote"
)

type listBlocksOptions struct {
	json    bool
	minSize byteSize
	filter  remote.BlockFilter
}

func newListBlocks() *cobra.Command {
	o := &listBlocksOptions{}
	cmd := &cobra.Command{
		Use:   "list-blocks [STORE]",
		Short: "List the blocks of a store",
		Long: `Lists the blocks of a store in the order of their IDs: kind, plain bytes, stored bytes,
references, entropy in bits a byte, and where the block is. Changes that are not yet
committed are not counted in the references.`,
		Example: `  quarxfs list-blocks /mnt --min-refs 10
  quarxfs list-blocks /mnt --json | jq -s 'map(.raw_bytes) | add'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			// Flags of sizes have a type of their own, and the filter is the API's.
			o.filter.MinSize = int64(o.minSize)
			if err := o.filter.Check(); err != nil {
				return err
			}
			return onStore(cmd, args, func(n remote.Node) error { return o.run(cmd, n) })
		},
	}
	f := cmd.Flags()
	jsonLinesFlag(f, &o.json)
	listVar(f, &o.filter.Kinds, "kind", "", "only these `kinds`: data, file, tree, snapshot", "data", "file", "tree", "snapshot")
	f.StringVar(&o.filter.Prefix, "prefix", "", "only IDs that start with these hex `digits`")
	numberVar(f, &o.filter.MinRefs, 0, most, "min-refs", "only blocks with at least so many references")
	numberVar(f, &o.filter.MaxRefs, 0, most, "max-refs", "only blocks with at most so many references; 0: any")
	f.BoolVar(&o.filter.Unreferenced, "unreferenced", false, "only blocks that nothing refers to: the sweep takes them")
	sizeVar(f, sizeFlag{to: &o.minSize}, "min-size", "only blocks of at least so many plain bytes")
	numberVar(f, &o.filter.Limit, 0, most, "limit", "stop after so many; 0: never")
	return cmd
}

func (o *listBlocksOptions) run(cmd *cobra.Command, n remote.Node) error {
	return printLines(cmd.OutOrStdout(), o.json, printBlock, func(fn func(remote.BlockInfo) error) error {
		return n.ListBlocks(cmd.Context(), o.filter, fn)
	})
}

func printBlock(w io.Writer, b remote.BlockInfo) error {
	_, err := fmt.Fprintf(w, "%s %-8s %8d %8d %6d refs  %4.2f bits  %s %d+%d\n",
		b.ID, b.Kind, b.Raw, b.Stored, b.Refs, b.Entropy, b.Tier, b.Segment, b.Offset)
	return err
}
