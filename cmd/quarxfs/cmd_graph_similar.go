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
	"github.com/quarxtor/quarxfs/graph/export"
	"github.com/quarxtor/quarxfs/graph/query"
	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/remote/rawjson"
)

type graphSimilarOptions struct {
	top  int
	json bool
}

func newGraphSimilar() *cobra.Command {
	o := &graphSimilarOptions{}
	cmd := &cobra.Command{
		Use:   "similar [STORE] PATH|SNAP|OBJECT",
		Short: "Find what shares the most blocks with something",
		Long: `Compares the blocks of a file with those of all files, those in snapshots and objects
included; those of a directory with all directories and snapshots; those of a snapshot with
all snapshots and the live filesystem. The Jaccard index is the share of their blocks that both have: 1
where all are, 0 where none is. The estimate comes from small samples and decides what is
looked at closely; the index is exact.`,
		Example: `  quarxfs graph similar /mnt images/debian-12.qcow2
  quarxfs graph similar /srv/store monday --top 3`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return onRefs(cmd, args, func(n remote.Node, refs []string) error {
				s, err := n.Similar(cmd.Context(), refs[0], o.top)
				if err != nil {
					return err
				}
				// One object: the subject and what is like it belong together.
				if o.json {
					return rawjson.Write(cmd.OutOrStdout(), s)
				}
				return showSimilar(cmd.OutOrStdout(), s)
			})
		},
	}
	o.top = 10
	numberVar(cmd.Flags(), &o.top, 1, query.MaxSimilar, "top", "show so many")
	jsonFlag(cmd.Flags(), &o.json)
	return cmd
}

func showSimilar(w io.Writer, s remote.Similar) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s: %s, %s\n", kindName(s.Kind), printable(s.Name), amount(s.Blocks, "block"), size(s.Bytes))
	if len(s.Like) == 0 {
		fmt.Fprintln(&b, "Nothing shares any of them.")
		_, err := io.WriteString(w, b.String())
		return err
	}
	right := text.AlignRight
	t := newTable("", right, right, right, right, right, text.AlignLeft, text.AlignLeft)
	t.AppendHeader(table.Row{"Jaccard", "Estimate", "Shared", "Bytes", "of its", "Kind", "Name"})
	for _, l := range s.Like {
		t.AppendRow(table.Row{fmt.Sprintf("%.4f", l.Jaccard), fmt.Sprintf("%.4f", l.Estimate), humanize.Comma(l.Shared),
			size(l.SharedBytes), size(l.Bytes), likeName(l.Kind), printable(l.Name)})
	}
	section(&b, t)
	_, err := io.WriteString(w, b.String())
	return err
}

// kindName is short for people, who see from a path what is live.
func kindName(k export.Kind) string {
	return strings.TrimPrefix(string(k), "live-")
}

// likeName calls a file in a snapshot one even when it is a single block.
func likeName(k export.Kind) string {
	if k == export.Data {
		k = export.File
	}
	return kindName(k)
}

func newGraphPath() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "path [STORE] FROM TO",
		Short: "Find the shortest connection between two things",
		Long: `Shows how two files, directories, snapshots, objects or blocks are connected: the
shortest way along edges of the graph, or against them. Each line is a node, with the
edge that leads to it: -> down to what the node before is made of, <- up to what the node
before is a part of.`,
		Example: `  quarxfs graph path /mnt src/a.go backup/a.go
  quarxfs graph path /srv/store monday 7db8a54c`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return onRefs(cmd, args, func(n remote.Node, refs []string) error {
				// At once: the way is known only when its other end was reached.
				steps, err := n.Connect(cmd.Context(), refs[0], refs[1])
				if err != nil {
					return err
				}
				return printLines(cmd.OutOrStdout(), asJSON, showStep, func(fn func(remote.Step) error) error { return each(steps, fn) })
			})
		},
	}
	jsonLinesFlag(cmd.Flags(), &asJSON)
	return cmd
}

func showStep(w io.Writer, s remote.Step) error {
	_, err := fmt.Fprintf(w, "%-28s %-9s %s\n", crossing(s.Edge), kindName(s.Kind), printable(s.Name))
	return err
}

// crossing describes an edge.
func crossing(e *remote.Crossed) string {
	if e == nil {
		return ""
	}
	arrow := "->"
	if e.Against {
		arrow = "<-"
	}
	switch {
	case e.Name != "":
		return fmt.Sprintf("%s %s %s", arrow, e.Role, printable(e.Name))
	case e.Role == graph.Contains:
		return fmt.Sprintf("%s %s at %d", arrow, e.Role, e.Offset)
	}
	return fmt.Sprintf("%s %s", arrow, e.Role)
}
