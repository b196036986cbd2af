// Package export makes pictures and files of a part of the hash-graph, for
// people and for other programs.
package export

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// ErrFormat says that there is no such format.
var ErrFormat = errors.New("unknown format")

// A Kind says what a node is.
type Kind string

// The kinds of nodes. Those of blocks and vertices have the store's names.
const (
	Data      Kind = "data"
	File      Kind = "file"
	Tree      Kind = "tree"
	Snapshot  Kind = "snapshot"
	Object    Kind = "object"         // the name of an object
	Directory Kind = "live-directory" // of the live filesystem
	Inode     Kind = "live-file"
)

// Kinds lists all kinds, from the top of the graph down.
var Kinds = []Kind{Snapshot, Object, Directory, Inode, Tree, File, Data}

// A Graph is nodes and the edges between them.
type Graph struct {
	Nodes []Node `json:"nodes"` // nearest to the roots first
	Edges []Edge `json:"edges"` // between nodes that are there
	// Cut says why there is more than this: what bounded it. Empty: that is all.
	Cut string `json:"cut,omitempty"`
}

// A Node is a block, a vertex, or a file of the live filesystem.
type Node struct {
	ID      string  `json:"id"` // of a block or vertex in hex; else unique in the graph
	Kind    Kind    `json:"kind"`
	Label   string  `json:"label"`          // a name, or the first digits of the ID; fit to be printed
	Path    string  `json:"path,omitempty"` // a way to it from a root, fit to be printed
	Size    int64   `json:"size_bytes"`     // of the data that it stands for, if that is known
	Raw     int64   `json:"raw_bytes"`      // of the block or vertex itself
	Stored  int64   `json:"stored_bytes"`
	Refs    int64   `json:"refs"`    // references of the whole store, not only from nodes that are there
	Entropy float64 `json:"entropy"` // of a data block, bits a byte
	Depth   int     `json:"depth"`   // edges from the nearest root
	Damage  string  `json:"damage,omitempty"`
}

// An Edge leads to what a node is made of. Equal ones are one, with a count.
type Edge struct {
	From   string `json:"from"`
	To     string `json:"to"`
	Role   string `json:"role"`            // see graph.Role and Clone
	Name   string `json:"name,omitempty"`  // of an entry, fit to be printed
	Offset int64  `json:"offset"`          // of the first, in From
	Bytes  int64  `json:"bytes,omitempty"` // of all of them, in the file
	Count  int64  `json:"count"`
}

// A format writes a graph.
type format struct {
	name  string
	write func(io.Writer, *Graph, string) error
}

var formats = []format{
	{"dot", writeDOT}, {"graphml", writeGraphML}, {"gexf", writeGEXF}, {"cytoscape", writeCytoscape},
	{"json", writeJSON}, {"svg", writeSVG}, {"html", writeHTML},
}

// Formats names the formats: dot (Graphviz), graphml, gexf 1.2 (Gephi),
// cytoscape (Cytoscape.js), json (Graph, as encoding/json has it), svg, and
// html: a page to look around in, which needs nothing else.
func Formats() []string {
	var names []string
	for _, f := range formats {
		names = append(names, f.name)
	}
	return names
}

// Write writes a graph in a format; title says what it is of. Errors: ErrFormat,
// those of w.
func Write(w io.Writer, g *Graph, formatName, title string) error {
	i := slices.IndexFunc(formats, func(f format) bool { return f.name == formatName })
	if i < 0 {
		return fmt.Errorf("%w %q: choose of %s", ErrFormat, formatName, strings.Join(Formats(), ", "))
	}
	return formats[i].write(w, g, Printable(title))
}

// Printable returns a name as it is, or quoted where it has bytes that would
// spoil a terminal or that XML cannot hold.
func Printable(s string) string {
	bad := func(r rune) bool { return r == unicode.ReplacementChar || !unicode.IsPrint(r) }
	if !strings.ContainsFunc(s, bad) {
		return s
	}
	return strconv.Quote(s)
}

// weight is what a node's size in a picture stands for.
func (n *Node) weight() int64 { return max(n.Size, n.Raw) }

// indexes returns the edges as pairs of indexes of nodes.
func (g *Graph) indexes() [][2]int {
	at := make(map[string]int, len(g.Nodes))
	for i := range g.Nodes {
		at[g.Nodes[i].ID] = i
	}
	pairs := make([][2]int, len(g.Edges))
	for i, e := range g.Edges {
		pairs[i] = [2]int{at[e.From], at[e.To]}
	}
	return pairs
}

// indegrees counts the edges that lead to each node.
func (g *Graph) indegrees() []int {
	n := make([]int, len(g.Nodes))
	for _, p := range g.indexes() {
		n[p[1]]++
	}
	return n
}

// A style is how a kind is drawn.
type style struct {
	color string // #rrggbb
	shape string // of Graphviz
	what  string // for a legend
}

var styles = map[Kind]style{
	Snapshot:  {"#8b5cf6", "house", "snapshot"},
	Object:    {"#ec4899", "cds", "name of an object"},
	Directory: {"#15803d", "folder", "directory"},
	Inode:     {"#65a30d", "note", "file"},
	Tree:      {"#2563eb", "folder", "directory in a snapshot"},
	File:      {"#0891b2", "note", "file of several blocks"},
	Data:      {"#d9a441", "box", "block"},
}

// sharedColor marks blocks that several refer to.
const sharedColor = "#dc2626"

func (n *Node) color() string { return styles[n.Kind].color }
