package main

import (
	"fmt"
	"io"
	"strings"
	"syscall"

	"github.com/dustin/go-humanize"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"

	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/remote"
)

type diffOptions struct{ stat, json, ranges bool }

// newSnapshotDiff makes the command that compares snapshots.
func newSnapshotDiff() *cobra.Command {
	o := &diffOptions{}
	cmd := &cobra.Command{
		Use:   "diff [STORE] A [B]",
		Short: "Show what differs between two snapshots, or a snapshot and now",
		Long: `Shows the paths that differ between snapshots A and B, or between A and the live
filesystem. Only what differs is read.

  +  added
  -  removed
  M  modified, with how many bytes of it
  R  renamed: the same bytes under another path
  a  attributes only, with which

Access times are not compared.`,
		Example: `  quarxfs snapshot diff /mnt monday
  quarxfs snapshot diff /mnt monday tuesday --stat`,
		RunE: func(cmd *cobra.Command, args []string) error {
			// Without B it is the live filesystem.
			r := remote.DiffRequest{A: args[1], Exact: o.ranges}
			if len(args) > 2 {
				r.B = args[2]
			}
			return onStore(cmd, args[:1], func(n remote.Node) error {
				return o.run(cmd.OutOrStdout(), func(fn func(remote.DiffItem) error) error { return n.Diff(cmd.Context(), r, fn) })
			})
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.stat, "stat", false, "print sums only")
	f.BoolVar(&o.ranges, "ranges", false, "print which bytes of a file changed, as offset+length; reads the blocks on both sides")
	f.BoolVar(&o.json, "json", false, "print a JSON object a line, the sums last")
	return cmd
}

func (o *diffOptions) run(w io.Writer, diff func(fn func(remote.DiffItem) error) error) error {
	if o.json {
		return printLines(w, true, nil, func(fn func(remote.DiffItem) error) error {
			return diff(func(it remote.DiffItem) error {
				// The node sends all items; the sums are the last one.
				if o.stat && it.Stat == nil {
					return nil
				}
				return fn(it)
			})
		})
	}
	return printLines(w, false, o.print, diff)
}

func (o *diffOptions) print(w io.Writer, it remote.DiffItem) error {
	if it.Stat != nil {
		if !o.stat {
			return nil
		}
		return printDiffStat(w, it.Stat)
	}
	if o.stat {
		return nil
	}
	_, err := io.WriteString(w, o.line(it.Difference))
	return err
}

func (o *diffOptions) line(d *graph.Difference) string {
	name := func(p string) string {
		if d.Mode&syscall.S_IFMT == syscall.S_IFDIR {
			p += "/"
		}
		return printable(p)
	}
	// The letters of git status, and a for attributes alone.
	mark := map[graph.ChangeKind]string{graph.Added: "+", graph.Removed: "-", graph.Modified: "M", graph.Renamed: "R", graph.Metadata: "a"}[d.Change]
	what := name(d.Path)
	if d.Change == graph.Renamed {
		what = name(d.From) + " -> " + what
	}
	var notes []string
	if d.Change == graph.Modified {
		notes = append(notes, size(d.Changed())+" of "+size(d.Size))
	}
	// A file that kept its length needs no second figure.
	if d.Change == graph.Modified && d.Size != d.Before {
		notes = append(notes, "was "+size(d.Before))
	}
	if d.Change != graph.Modified && len(d.Aspects) > 0 {
		notes = append(notes, strings.Join(d.Aspects, ", "))
	}
	line := mark + "  " + what
	if len(notes) > 0 {
		line += "  (" + strings.Join(notes, ", ") + ")"
	}
	if o.ranges {
		for _, r := range d.Ranges {
			line += fmt.Sprintf(" %d+%d", r.Off, r.Len)
		}
	}
	return line + "\n"
}

func printDiffStat(w io.Writer, s *graph.DiffStat) error {
	t := newTable("", text.AlignLeft, text.AlignRight, text.AlignRight, text.AlignRight, text.AlignRight)
	t.AppendHeader(table.Row{"", "Files", "Directories", "Others", "Bytes"})
	for _, r := range []struct {
		name string
		graph.DiffCount
	}{{"added", s.Added}, {"removed", s.Removed}, {"modified", s.Modified}, {"renamed", s.Renamed}, {"attributes", s.Metadata}} {
		t.AppendRow(table.Row{r.name, humanize.Comma(r.Files), humanize.Comma(r.Dirs), humanize.Comma(r.Others), size(r.Bytes)})
	}
	finish(w, t)
	_, err := fmt.Fprintf(w, "\n%s new or changed.\n", size(s.Written))
	return err
}
