package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"

	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/graph/query"
	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/remote/rawjson"
)

type duOptions struct {
	remote.UsageRequest
	json  bool
	bytes bool
	top   int
}

func newDu() *cobra.Command {
	o := &duOptions{}
	cmd := &cobra.Command{
		Use:   "du [STORE] [PATH]",
		Short: "Show what parts of a store take, and what deleting them would free",
		Long: `Shows the stored bytes of parts of a store: of blocks as they are on disk, compressed.

  unique   of blocks that are used once, in this part
  inside   of blocks that are used several times, in this part only
  outside  of blocks that another part has as well; these bytes are counted once in
           the line below, and not freed when this part goes
  freed    what deleting this part frees: unique, inside, and the vertices
           that only it has

The lines of "freed" and those below add up to all stored bytes exactly. What was
deleted a moment ago is unused until the next sweep.

` + pathRule,
		Example: `  quarxfs du /mnt
  quarxfs du /mnt src --by type
  quarxfs du /srv/store --by snapshot`,
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := findStoreOf(cmd, args)
			if err != nil {
				return err
			}
			if o.Path, err = a.onlyPath(cmd.Context(), args); err != nil {
				return err
			}
			// Before the store is opened, which may take a while.
			if err := o.Check(); err != nil {
				return err
			}
			// What the kernel has not yet handed over has no blocks, and would be missing here.
			return a.runFlushed(cmd.Context(), func(n remote.Node) error {
				u, err := n.Usage(cmd.Context(), o.UsageRequest)
				if err != nil {
					return err
				}
				if o.json {
					return rawjson.Write(cmd.OutOrStdout(), u)
				}
				return o.print(cmd.OutOrStdout(), u)
			})
		},
	}
	f := cmd.Flags()
	o.By = query.ByDir
	choiceVar(f, &o.By, []string{query.ByDir, query.BySnapshot, query.ByType}, "by", "divide by directory, snapshot or ending of the name")
	jsonFlag(f, &o.json)
	f.BoolVarP(&o.bytes, "bytes", "b", false, "print bytes, not KiB, MiB and so on")
	o.top = 40
	numberVar(f, &o.top, 0, most, "top", "at most so many parts; 0: all")
	return cmd
}

func (o *duOptions) size(n int64) string {
	if o.bytes {
		return humanize.Comma(n)
	}
	return size(n)
}

func (o *duOptions) print(w io.Writer, u remote.Usage) error {
	var b strings.Builder
	t := newTable("", text.AlignLeft, text.AlignRight, text.AlignRight, text.AlignRight, text.AlignRight, text.AlignRight, text.AlignRight)
	t.AppendHeader(table.Row{"Part", "Files", "Apparent", "Unique", "Inside", "Outside", "Freed"})
	row := func(name string, g graph.Usage) {
		t.AppendRow(table.Row{name, humanize.Comma(g.Files), o.size(g.Apparent), o.size(g.Unique), o.size(g.SharedInside), o.size(g.SharedOutside), o.size(g.Freed)})
	}
	// What is outside a part may be inside another of those left out, so that sum would count it
	// twice.
	var more graph.Usage
	for i, g := range u.Groups {
		if o.top > 0 && i >= o.top {
			more.Files += g.Files
			more.Apparent += g.Apparent
			more.Unique += g.Unique
			more.SharedInside += g.SharedInside
			more.Freed += g.Freed
			continue
		}
		row(printable(g.Name), g)
	}
	if n := len(u.Groups) - o.top; o.top > 0 && n > 0 {
		t.AppendRow(table.Row{fmt.Sprintf("%d more", n), humanize.Comma(more.Files), o.size(more.Apparent), o.size(more.Unique), o.size(more.SharedInside), "", o.size(more.Freed)})
	}
	finish(&b, t)
	sums := newTable("", text.AlignLeft, text.AlignRight, text.AlignLeft)
	parts := int64(0)
	// Of all groups, those that --top left out as well.
	for _, g := range u.Groups {
		parts += g.Freed
	}
	sums.AppendRow(table.Row{"Freed, the lines above", o.size(parts), ""})
	sums.AppendRow(table.Row{"Shared between parts", o.size(u.Shared), "data blocks"})
	sums.AppendRow(table.Row{"", o.size(u.SharedVertices), "vertices"})
	if u.Path != "" {
		sums.AppendRow(table.Row{"Elsewhere only", o.size(u.Elsewhere), ""})
	} else if u.Elsewhere > 0 {
		sums.AppendRow(table.Row{"Deleted and still open", o.size(u.Elsewhere), ""})
	}
	sums.AppendRow(table.Row{"Unused", o.size(u.Unused), "until the next sweep"})
	sums.AppendRow(table.Row{"Stored", o.size(u.Total), "the sum"})
	section(&b, sums)
	what := "/" + printable(u.Path)
	if u.Path == "" {
		what = "all live files"
	}
	fmt.Fprintf(&b, "\nDeleting %s would free %s.\n", what, o.size(u.Whole.Freed))
	_, err := io.WriteString(w, b.String())
	return err
}
