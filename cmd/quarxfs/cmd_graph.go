package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/store"
)

func newGraphWhy() *cobra.Command {
	asJSON, limit := false, 10
	cmd := &cobra.Command{
		Use:   "why [STORE] BLOCK|PATH",
		Short: "Show every file, object and snapshot that has a block",
		Long: `Shows every place where the bytes of a block are: path, where in the file, how many
bytes, and where these start in the block; then whether that is so in the live
filesystem and in which snapshots. BLOCK is its ID, or at least four digits that only
its ID starts with. Of a file vertex it shows the files, of a tree the directories.

PATH is a file in the store, or what else quarxfs graph show takes: its blocks are shown, one after
the other, up to --limit.`,
		Example: `  quarxfs graph why /mnt 41f8c2
  quarxfs graph why /mnt /src/main.go
  quarxfs list-blocks /mnt --min-refs 100`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return onRefs(cmd, args, func(n remote.Node, refs []string) error {
				// A block first, whose ID or its beginning cannot be told from a name by its form;
				// only if there is none it is a path.
				why, err := n.Why(cmd.Context(), strings.ToLower(args[1]))
				if err == nil {
					return printLines(cmd.OutOrStdout(), asJSON, printWhy, func(fn func(remote.Why) error) error { return fn(why) })
				}
				if !errors.Is(err, store.ErrNotFound) {
					return err
				}
				return printLines(cmd.OutOrStdout(), asJSON, printWhy, func(fn func(remote.Why) error) error {
					return n.WhyAll(cmd.Context(), refs[0], int64(limit), func(it remote.WhyItem) error {
						if it.Why != nil {
							return fn(*it.Why)
						}
						// On standard error: standard output may be read by a program.
						if limit > 0 && *it.Blocks > int64(limit) {
							fmt.Fprintf(cmd.ErrOrStderr(), "quarxfs: the first %d of %s blocks are shown; see --limit\n", limit, humanize.Comma(*it.Blocks))
						}
						return nil
					})
				})
			})
		},
	}
	numberVar(cmd.Flags(), &limit, 0, most, "limit", "show so many blocks of PATH; 0: all")
	jsonLinesFlag(cmd.Flags(), &asJSON)
	return cmd
}

func printWhy(w io.Writer, why remote.Why) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %s, %s, %s stored, %s\n", why.ID, why.Kind,
		amount(why.Raw, "byte"), humanize.Comma(why.Stored), amount(int64(why.References), "reference"))
	for _, o := range why.Where {
		b.WriteString(occurrence(o))
	}
	// Not an error: this is how a block looks between two sweeps.
	if len(why.Where) == 0 {
		b.WriteString("Nothing has it. The next sweep takes it, unless something that was removed keeps it.\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func occurrence(o graph.Occurrence) string {
	var in []string
	if o.Live {
		in = append(in, "live")
	}
	if o.Object {
		in = append(in, "object")
	}
	for _, s := range o.Snapshots {
		in = append(in, "snapshot "+printable(s))
	}
	// An orphan has none: it is open still, or not yet taken apart.
	name := printable(o.Path)
	if o.Inode != 0 {
		name = strings.TrimSpace(fmt.Sprintf("inode %d without a name %s", o.Inode, name))
	}
	if o.Xattrs {
		name = "extended attributes of " + name
	}
	at := fmt.Sprintf("%d+%d", o.Offset, o.Bytes)
	if o.Skip > 0 {
		at += fmt.Sprintf(" from byte %d of the block", o.Skip)
	}
	return fmt.Sprintf("%s  %s  (%s)\n", name, at, strings.Join(in, ", "))
}

func newGraphShow() *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use:   "show [STORE] OBJECT|PATH|SNAPSHOT",
		Short: "Show what an object, file, directory, snapshot or block is made of",
		Long: `Shows the structure of something: of a file or object its ranges and the blocks that
they are in, of a directory its entries, of a snapshot what it says of itself and the
entries of its root, of a block what the index says. What is meant is found as by graph
export --root: a snapshot (monday, or monday:src/lib), the name or ID of an object, the
ID of any block or vertex, or a path in the store.`,
		Example: `  quarxfs graph show /mnt /src/main.go
  quarxfs graph show /mnt monday:src`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return onRefs(cmd, args, func(n remote.Node, refs []string) error {
				// Part by part as they come, since a large file has hundreds of thousands.
				return printLines(cmd.OutOrStdout(), asJSON, printShown, func(fn func(remote.ShowItem) error) error {
					return n.Show(cmd.Context(), refs[0], fn)
				})
			})
		},
	}
	jsonLinesFlag(cmd.Flags(), &asJSON)
	return cmd
}

func printShown(w io.Writer, it remote.ShowItem) error {
	// The subject comes first, then its parts, each in an item of its own.
	if it.Part != nil {
		_, err := io.WriteString(w, shownPart(it.Part))
		return err
	}
	s := it.Subject
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %s", s.What, printable(s.Path))
	if s.What != "directory" && s.What != "live directory" {
		fmt.Fprintf(&b, "  %s bytes", humanize.Comma(s.Size))
	}
	b.WriteString("\n")
	if s.Block != nil {
		fmt.Fprintf(&b, "%s  %s\n", s.Block.ID, blockLine(s.Block))
	}
	if v := s.Snapshot; v != nil {
		fmt.Fprintf(&b, "made %s on %s\n", v.Created.Local().Format("2006-01-02 15:04:05"), printable(v.Host))
		if v.Message != "" {
			fmt.Fprintf(&b, "message: %s\n", printable(v.Message))
		}
		if len(v.Tags) > 0 {
			fmt.Fprintf(&b, "tags: %s\n", strings.Join(v.Tags, ", "))
		}
		for _, p := range v.Parents {
			fmt.Fprintf(&b, "parent: %s\n", p)
		}
		fmt.Fprintf(&b, "%s, %s, %s, %s; %s written and %s new since the parent\n",
			amount(v.Totals.Files, "file"), amount(v.Totals.Dirs, "directory"), amount(v.Totals.Others, "other"), size(v.Totals.Logical),
			size(v.Totals.Written), size(v.Totals.New))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func blockLine(b *remote.BlockInfo) string {
	return fmt.Sprintf("%s, %s stored as %s in %s, %s, %.2f bits", b.Kind, humanize.Comma(b.Stored), b.Codec, b.Tier, amount(int64(b.Refs), "ref"), b.Entropy)
}

func shownPart(p *remote.ShowPart) string {
	var at string
	switch {
	// Offsets are in columns, since a file may have thousands of them.
	case p.Role == graph.Contains:
		at = fmt.Sprintf("%12d %9d", p.Offset, p.Bytes)
	case p.Role == graph.Content:
		at = printable(p.Name)
	case p.Name != "":
		at = string(p.Role) + " of " + printable(p.Name)
	default:
		at = string(p.Role)
	}
	switch {
	// Neither a hole nor an entry without content has a block.
	case p.Hole:
		return fmt.Sprintf("  %s  hole\n", at)
	case p.Block == nil:
		return fmt.Sprintf("  %s\n", at)
	case p.Skip > 0:
		return fmt.Sprintf("  %s  %s from byte %d  %s\n", at, p.Block.ID, p.Skip, blockLine(p.Block))
	}
	return fmt.Sprintf("  %s  %s  %s\n", at, p.Block.ID, blockLine(p.Block))
}
