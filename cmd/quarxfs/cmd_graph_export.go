package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/quarxtor/quarxfs/graph/export"
	"github.com/quarxtor/quarxfs/graph/query"
	"github.com/quarxtor/quarxfs/remote"
)

func newGraph() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "graph",
		Short: "Look into the hash-graph",
	}
	for _, c := range []*cobra.Command{newGraphShow(), newGraphWhy(), newGraphMatrix(), newGraphExport(), newGraphSimilar(), newGraphPath()} {
		cmd.AddCommand(c)
	}
	return cmd
}

type graphExportOptions struct {
	remote.ExportRequest
	format string
	output string
}

// Limits of nodes when none is given: what can be looked at, and what programs
// can well be given.
const (
	pictureNodes = 3000
	exportNodes  = 20000
)

func newGraphExport() *cobra.Command {
	o := &graphExportOptions{}
	cmd := &cobra.Command{
		Use:   "export [STORE]",
		Short: "Draw the graph, or write it for other programs",
		Long: `Writes snapshots, objects, files, directories and blocks with the edges between them.
What several refer to is there once.

  html       a page to look around in, complete in itself: drag, zoom, search, click
  svg        a still picture
  dot        Graphviz, as in: dot -Tpdf
  graphml    yEd, igraph, NetworkX
  gexf       Gephi
  cytoscape  Cytoscape.js
  json       for your own programs

--root is where to start: a snapshot (monday, or monday:src/lib), the name or ID of an
object, the ID of any block, or a path in the store. The nodes nearest to it are taken,
up to --limit; standard error says when that was not all.`,
		Example: `  quarxfs graph export /mnt --root monday:src --format html -o src.html
  quarxfs graph export /srv/store --depth 3 --format dot | dot -Tpdf -o store.pdf
  quarxfs graph export /mnt --kind snapshot,tree --format graphml -o trees.graphml`,
		RunE: func(cmd *cobra.Command, args []string) error {
			// onRefs finds the store by the first argument and makes names of the rest; --root is
			// one of them although it is a flag.
			refs := append(args, make([]string, 1-len(args))...)
			if o.Root != "" {
				refs = append(refs, o.Root)
			}
			return onRefs(cmd, refs, func(n remote.Node, refs []string) error {
				if len(refs) > 0 {
					o.Root = refs[0]
				}
				return o.run(cmd, n)
			})
		},
	}
	f := cmd.Flags()
	o.format = "dot"
	choiceVar(f, &o.format, export.Formats(), "format", "of the output")
	f.StringVar(&o.Root, "root", "", "start at this `OBJECT|PATH|SNAPSHOT`; otherwise at all snapshots, objects and /")
	numberVar(f, &o.Depth, 0, most, "depth", "at most so many edges from there; 0: all")
	listVar(f, &o.Kinds, "kind", "", "only these `kinds` of nodes: "+strings.Join(query.ExportKinds(), ", "), query.ExportKinds()...)
	numberVar(f, &o.Limit, 0, export.MaxNodes, "limit", fmt.Sprintf("at most so many nodes (default %d of a picture, else %d)", pictureNodes, exportNodes))
	f.StringVarP(&o.output, "output", "o", "", "write to a `file` instead of standard output")
	return cmd
}

func (o *graphExportOptions) run(cmd *cobra.Command, n remote.Node) error {
	if o.Limit == 0 {
		o.Limit = exportNodes
		// A browser lays out fewer nodes than another program reads.
		if o.format == "svg" || o.format == "html" {
			o.Limit = pictureNodes
		}
	}
	line := newProgress(cmd.ErrOrStderr(), false)
	defer line.clear()
	// Empty and not nil: JSON shows them as [] even if nothing was found.
	g := &export.Graph{Nodes: []export.Node{}, Edges: []export.Edge{}}
	err := n.Export(cmd.Context(), o.ExportRequest, func(it remote.ExportItem) error {
		switch {
		case it.Node != nil:
			g.Nodes = append(g.Nodes, *it.Node)
		case it.Edge != nil:
			g.Edges = append(g.Edges, *it.Edge)
		// The last item says whether all was taken.
		default:
			g.Cut = it.Cut
		}
		line.show("%s nodes, %s edges", humanize.Comma(int64(len(g.Nodes))), humanize.Comma(int64(len(g.Edges))))
		return nil
	})
	if err != nil {
		return err
	}
	line.clear()
	if g.Cut != "" {
		fmt.Fprintf(cmd.ErrOrStderr(), "quarxfs: not all is shown: %s; see --root, --depth, --kind and --limit\n", g.Cut)
	}
	return o.write(cmd, g)
}

func (o *graphExportOptions) write(cmd *cobra.Command, g *export.Graph) (err error) {
	w := cmd.OutOrStdout()
	if o.output != "" && o.output != "-" {
		f, err := os.Create(o.output)
		if err != nil {
			return err
		}
		defer func() {
			// On a network filesystem a full disk may show only now.
			if cerr := f.Close(); err == nil {
				err = cerr
			}
		}()
		w = f
	}
	title := "QuarXFS"
	if o.Root != "" {
		title = o.Root
	}
	out := bufio.NewWriterSize(w, 64<<10)
	if err := export.Write(out, g, o.format, title); err != nil {
		return err
	}
	return out.Flush()
}
