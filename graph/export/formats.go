package export

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"strconv"
	"strings"

	"gonum.org/v1/gonum/graph/encoding"
	"gonum.org/v1/gonum/graph/encoding/dot"
	"gonum.org/v1/gonum/graph/formats/cytoscapejs"
	"gonum.org/v1/gonum/graph/formats/gexf12"
	"gonum.org/v1/gonum/graph/multi"
)

func writeJSON(w io.Writer, g *Graph, _ string) error {
	e := json.NewEncoder(w)
	e.SetIndent("", " ")
	e.SetEscapeHTML(false)
	return e.Encode(g)
}

// An attribute is a property of nodes or edges as the formats have it.
type attribute[T any] struct {
	name  string
	typ   string // of GraphML: string, long or double
	value func(*T) any
}

var nodeAttributes = []attribute[Node]{
	{"kind", "string", func(n *Node) any { return string(n.Kind) }},
	{"label", "string", func(n *Node) any { return n.Label }},
	{"path", "string", func(n *Node) any { return n.Path }},
	{"size_bytes", "long", func(n *Node) any { return n.Size }},
	{"raw_bytes", "long", func(n *Node) any { return n.Raw }},
	{"stored_bytes", "long", func(n *Node) any { return n.Stored }},
	{"refs", "long", func(n *Node) any { return n.Refs }},
	{"entropy", "double", func(n *Node) any { return n.Entropy }},
	{"damage", "string", func(n *Node) any { return n.Damage }},
}

var edgeAttributes = []attribute[Edge]{
	{"role", "string", func(e *Edge) any { return e.Role }},
	{"name", "string", func(e *Edge) any { return e.Name }},
	{"offset", "long", func(e *Edge) any { return e.Offset }},
	{"bytes", "long", func(e *Edge) any { return e.Bytes }},
	{"count", "long", func(e *Edge) any { return e.Count }},
}

// A dotNode is a node for gonum. Values are quoted here, since gonum takes one
// that looks like HTML for that.
type dotNode struct {
	*Node
	id int64
}

func (n dotNode) ID() int64     { return n.id }
func (n dotNode) DOTID() string { return strconv.Quote(n.Node.ID) }

func (n dotNode) Attributes() []encoding.Attribute {
	color := n.color()
	if n.Kind == Data && n.Refs > 1 {
		color = sharedColor
	}
	label := n.Label
	if n.Refs > 1 {
		label += fmt.Sprintf(" (%d)", n.Refs)
	}
	return []encoding.Attribute{
		quoted("label", label), quoted("shape", styles[n.Kind].shape), quoted("color", color),
		quoted("tooltip", fmt.Sprintf("%s %s, %d bytes", n.Kind, n.Node.ID, n.weight())),
	}
}

type dotLine struct {
	multi.Line
	edge *Edge
}

func (l dotLine) Attributes() []encoding.Attribute {
	var all []encoding.Attribute
	if l.edge.Count > 1 {
		all = append(all, quoted("label", fmt.Sprintf("%d times", l.edge.Count)))
	}
	return append(all, quoted("tooltip", strings.TrimSpace(l.edge.Role+" "+l.edge.Name)))
}

func quoted(key, value string) encoding.Attribute {
	return encoding.Attribute{Key: key, Value: strconv.Quote(value)}
}

// dotGraph adds what holds for the whole graph.
type dotGraph struct {
	*multi.DirectedGraph
	title string
}

type attributes []encoding.Attribute

func (a attributes) Attributes() []encoding.Attribute { return a }

func (g dotGraph) DOTAttributers() (graph, node, edge encoding.Attributer) {
	return attributes{quoted("label", g.title), quoted("rankdir", "LR")},
		attributes{quoted("fontname", "sans-serif"), quoted("fontsize", "10")},
		attributes{quoted("color", "#9ca3af"), quoted("fontsize", "8")}
}

func writeDOT(w io.Writer, g *Graph, title string) error {
	d := dotGraph{multi.NewDirectedGraph(), title + note(g)}
	nodes := make([]dotNode, len(g.Nodes))
	for i := range g.Nodes {
		nodes[i] = dotNode{&g.Nodes[i], int64(i)}
		d.AddNode(nodes[i])
	}
	for i, p := range g.indexes() {
		d.SetLine(dotLine{multi.Line{F: nodes[p[0]], T: nodes[p[1]], UID: int64(i)}, &g.Edges[i]})
	}
	b, err := dot.MarshalMulti(d, "quarxfs", "", "\t")
	if err != nil {
		return err
	}
	_, err = w.Write(append(b, '\n'))
	return err
}

// note says in a title that there is more.
func note(g *Graph) string {
	if g.Cut == "" {
		return ""
	}
	return " (" + g.Cut + ")"
}

// GraphML: Brandes et al., GraphML Progress Report, Graph Drawing 2001;
// http://graphml.graphdrawing.org/specification.html.
type graphML struct {
	XMLName xml.Name     `xml:"http://graphml.graphdrawing.org/xmlns graphml"`
	Keys    []graphMLKey `xml:"key"`
	Graph   struct {
		ID      string        `xml:"id,attr"`
		Default string        `xml:"edgedefault,attr"`
		Desc    string        `xml:"desc"`
		Nodes   []graphMLNode `xml:"node"`
		Edges   []graphMLEdge `xml:"edge"`
	} `xml:"graph"`
}

type graphMLKey struct {
	ID   string `xml:"id,attr"`
	For  string `xml:"for,attr"`
	Name string `xml:"attr.name,attr"`
	Type string `xml:"attr.type,attr"`
}

type graphMLNode struct {
	ID   string        `xml:"id,attr"`
	Data []graphMLData `xml:"data"`
}

type graphMLEdge struct {
	Source string        `xml:"source,attr"`
	Target string        `xml:"target,attr"`
	Data   []graphMLData `xml:"data"`
}

type graphMLData struct {
	Key   string `xml:"key,attr"`
	Value string `xml:",chardata"`
}

func writeGraphML(w io.Writer, g *Graph, title string) error {
	var m graphML
	m.Keys = append(graphMLKeys("node", nodeAttributes), graphMLKeys("edge", edgeAttributes)...)
	m.Graph.ID, m.Graph.Default, m.Graph.Desc = "quarxfs", "directed", title+note(g)
	for i := range g.Nodes {
		m.Graph.Nodes = append(m.Graph.Nodes, graphMLNode{g.Nodes[i].ID, graphMLValues("node", nodeAttributes, &g.Nodes[i])})
	}
	for i := range g.Edges {
		e := &g.Edges[i]
		m.Graph.Edges = append(m.Graph.Edges, graphMLEdge{e.From, e.To, graphMLValues("edge", edgeAttributes, e)})
	}
	return writeXML(w, m)
}

func graphMLKeys[T any](of string, all []attribute[T]) []graphMLKey {
	var keys []graphMLKey
	for _, a := range all {
		keys = append(keys, graphMLKey{of + "_" + a.name, of, a.name, a.typ})
	}
	return keys
}

// graphMLValues leaves out what is empty.
func graphMLValues[T any](of string, all []attribute[T], v *T) []graphMLData {
	var data []graphMLData
	for _, a := range all {
		if x := a.value(v); x != "" {
			data = append(data, graphMLData{of + "_" + a.name, fmt.Sprint(x)})
		}
	}
	return data
}

func writeXML(w io.Writer, v any) error {
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	e := xml.NewEncoder(w)
	e.Indent("", " ")
	if err := e.Encode(v); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

func writeGEXF(w io.Writer, g *Graph, title string) error {
	c := gexf12.Content{Version: "1.2", Meta: &gexf12.Meta{Creator: "quarxfs", Description: title + note(g)}}
	c.Graph.DefaultEdgeType, c.Graph.Mode = "directed", "static"
	c.Graph.Attributes = []gexf12.Attributes{gexfClass("node", nodeAttributes), gexfClass("edge", edgeAttributes)}
	r := radii(g)
	for i := range g.Nodes {
		n := &g.Nodes[i]
		c.Graph.Nodes.Nodes = append(c.Graph.Nodes.Nodes, gexf12.Node{
			ID: n.ID, Label: n.Label, AttValues: gexfValues(nodeAttributes, n),
			Color: gexfColor(n.color()), Size: &gexf12.Size{Value: r[i]},
		})
	}
	for i := range g.Edges {
		e := &g.Edges[i]
		c.Graph.Edges.Edges = append(c.Graph.Edges.Edges, gexf12.Edge{
			ID: strconv.Itoa(i), Source: e.From, Target: e.To, Label: e.Name, Weight: float64(e.Count), AttValues: gexfValues(edgeAttributes, e),
		})
	}
	c.Graph.Nodes.Count, c.Graph.Edges.Count = len(g.Nodes), len(g.Edges)
	return writeXML(w, c)
}

func gexfClass[T any](class string, all []attribute[T]) gexf12.Attributes {
	a := gexf12.Attributes{Class: class, Mode: "static"}
	for _, x := range all {
		a.Attributes = append(a.Attributes, gexf12.Attribute{ID: x.name, Title: x.name, Type: x.typ})
	}
	return a
}

func gexfValues[T any](all []attribute[T], v *T) *gexf12.AttValues {
	var a gexf12.AttValues
	for _, x := range all {
		a.AttValues = append(a.AttValues, gexf12.AttValue{For: x.name, Value: fmt.Sprint(x.value(v))})
	}
	return &a
}

func gexfColor(hex string) *gexf12.Color {
	n, _ := strconv.ParseUint(hex[1:], 16, 32) // a constant of this package
	return &gexf12.Color{R: byte(n >> 16), G: byte(n >> 8), B: byte(n), A: 1}
}

func writeCytoscape(w io.Writer, g *Graph, _ string) error {
	c := cytoscapejs.GraphElem{Elements: make([]cytoscapejs.Element, 0, len(g.Nodes)+len(g.Edges))}
	for i := range g.Nodes {
		n := &g.Nodes[i]
		c.Elements = append(c.Elements, cytoscapejs.Element{Classes: string(n.Kind),
			Data: cytoscapejs.ElemData{ID: n.ID, Attributes: cytoscapeValues(nodeAttributes, n)}})
	}
	for i := range g.Edges {
		e := &g.Edges[i]
		c.Elements = append(c.Elements, cytoscapejs.Element{Classes: e.Role,
			Data: cytoscapejs.ElemData{ID: fmt.Sprintf("edge-%d", i), Source: e.From, Target: e.To, Attributes: cytoscapeValues(edgeAttributes, e)}})
	}
	return json.NewEncoder(w).Encode(&c)
}

func cytoscapeValues[T any](all []attribute[T], v *T) map[string]any {
	m := make(map[string]any)
	for _, a := range all {
		m[a.name] = a.value(v)
	}
	return m
}
