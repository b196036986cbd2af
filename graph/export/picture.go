package export

import (
	"bufio"
	"cmp"
	_ "embed" // for the page's parts
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"
	"unicode/utf8"

	"github.com/dustin/go-humanize"
)

// box returns what encloses all circles, with a margin.
func box(at []point, r []float64) (x, y, w, h float64) {
	const margin = 30
	lo, hi := point{}, point{}
	for i, p := range at {
		lo = point{min(lo.x, p.x-r[i]), min(lo.y, p.y-r[i])}
		hi = point{max(hi.x, p.x+r[i]), max(hi.y, p.y+r[i])}
	}
	return lo.x - margin, lo.y - margin, hi.x - lo.x + 2*margin, hi.y - lo.y + 2*margin
}

// writeSVG draws a still picture; a pointer that rests on a node is told about
// it.
func writeSVG(w io.Writer, g *Graph, title string) error {
	out := bufio.NewWriter(w)
	r := radii(g)
	at := layout(g, r)
	x, y, width, height := box(at, r)
	scale := max(width, height) / 1500 // of letters, so that they can be read when all is seen
	fmt.Fprintf(out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="%.0f %.0f %.0f %.0f" width="1500" height="%.0f" font-family="sans-serif">`+"\n",
		x, y-40*scale, width, height+40*scale, 1500*(height+40*scale)/width)
	fmt.Fprintf(out, `<title>%s</title><rect x="%.0f" y="%.0f" width="%.0f" height="%.0f" fill="#ffffff"/>`+"\n", xmlText(title), x, y-40*scale, width, height+40*scale)
	svgEdges(out, g, at)
	in := g.indegrees()
	for i := range g.Nodes {
		svgNode(out, &g.Nodes[i], at[i], r[i], in[i])
	}
	svgLabels(out, g, at, r, 11*scale)
	svgLegend(out, g, title, x+10*scale, y-22*scale, scale)
	fmt.Fprintln(out, "</svg>")
	return out.Flush()
}

func svgEdges(w io.Writer, g *Graph, at []point) {
	in := g.indegrees()
	for _, shared := range []bool{false, true} {
		color, opacity := "#94a3b8", 0.5
		if shared {
			color, opacity = sharedColor, 0.4
		}
		fmt.Fprintf(w, `<path fill="none" stroke="%s" stroke-opacity="%.1f" stroke-width="1" d="`, color, opacity)
		for _, p := range g.indexes() {
			if (in[p[1]] > 1) == shared {
				a, b := at[p[0]], at[p[1]]
				fmt.Fprintf(w, "M%.1f %.1fL%.1f %.1f", a.x, a.y, b.x, b.y)
			}
		}
		fmt.Fprintln(w, `"/>`)
	}
}

func svgNode(w io.Writer, n *Node, p point, r float64, in int) {
	ring := ""
	if in > 1 {
		ring = fmt.Sprintf(` stroke="%s" stroke-width="%.1f"`, sharedColor, 1+math.Log2(float64(in)))
	}
	fmt.Fprintf(w, `<circle cx="%.1f" cy="%.1f" r="%.1f" fill="%s"%s><title>%s</title></circle>`+"\n",
		p.x, p.y, r, n.color(), ring, xmlText(n.describe(in)))
}

// describe says in a few lines what a node is.
func (n *Node) describe(in int) string {
	s := fmt.Sprintf("%s %s\n%s", styles[n.Kind].what, n.Label, humanize.IBytes(uint64(max(0, n.weight()))))
	if n.Path != "" {
		s += "\n" + n.Path
	}
	if in > 1 {
		s += fmt.Sprintf("\nshared: %d edges lead here", in)
	}
	if n.Damage != "" {
		s += "\n" + n.Damage
	}
	return s
}

// importance orders nodes for labels: high ones are named first.
func (n *Node) importance(radius float64, in int) float64 {
	v := radius - 2*float64(n.Depth)
	switch n.Kind {
	case Snapshot, Object:
		v += 100
	case Directory, Tree:
		v += 40
	case Inode, File:
		v += 20
	}
	if n.named() && in > 1 {
		v += 10
	}
	return v
}

// named reports whether the label is a name and not the start of the ID.
func (n *Node) named() bool { return len(n.Label) != 12 || len(n.ID) < 12 || n.ID[:12] != n.Label }

// svgLabels names as many nodes as find room, the most important first.
func svgLabels(w io.Writer, g *Graph, at []point, radius []float64, size float64) {
	in := g.indegrees()
	order := make([]int, len(g.Nodes))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Compare(g.Nodes[b].importance(radius[b], in[b]), g.Nodes[a].importance(radius[a], in[a]))
	})
	type rect struct{ x, y, w, h float64 }
	var taken []rect
	const most = 400
	fmt.Fprintf(w, `<g font-size="%.1f" fill="#0f172a" stroke="#ffffff" stroke-width="%.1f" paint-order="stroke" stroke-linejoin="round">`+"\n", size, size/4)
	for _, i := range order {
		n := &g.Nodes[i]
		if !n.named() || len(taken) == most {
			continue
		}
		label := shorten(n.Label, 28)
		r := rect{at[i].x + radius[i] + 2, at[i].y - size/2, 0.6 * size * float64(utf8.RuneCountInString(label)), size}
		if slices.ContainsFunc(taken, func(t rect) bool {
			return r.x < t.x+t.w && t.x < r.x+r.w && r.y < t.y+t.h && t.y < r.y+r.h
		}) {
			continue
		}
		taken = append(taken, r)
		fmt.Fprintf(w, `<text x="%.1f" y="%.1f">%s</text>`+"\n", r.x, at[i].y+size*0.35, xmlText(label))
	}
	fmt.Fprintln(w, "</g>")
}

// shorten cuts the middle out of a long name.
func shorten(s string, most int) string {
	r := []rune(s)
	if len(r) <= most {
		return s
	}
	half := (most - 1) / 2
	return string(r[:half]) + "…" + string(r[len(r)-half:])
}

func svgLegend(w io.Writer, g *Graph, title string, x, y, scale float64) {
	fmt.Fprintf(w, `<text x="%.0f" y="%.0f" font-size="%.0f" font-weight="bold">%s</text>`+"\n", x, y, 15*scale, xmlText(title+note(g)))
	y += 22 * scale
	for _, k := range kindsIn(g) {
		fmt.Fprintf(w, `<circle cx="%.0f" cy="%.0f" r="%.0f" fill="%s"/><text x="%.0f" y="%.0f" font-size="%.0f">%s</text>`+"\n",
			x+5*scale, y, 5*scale, styles[k].color, x+14*scale, y+4*scale, 12*scale, styles[k].what)
		x += float64(24+8*len(styles[k].what)) * scale
	}
	fmt.Fprintf(w, `<circle cx="%.0f" cy="%.0f" r="%.0f" fill="none" stroke="%s" stroke-width="%.0f"/><text x="%.0f" y="%.0f" font-size="%.0f">shared</text>`+"\n",
		x+5*scale, y, 5*scale, sharedColor, 2*scale, x+14*scale, y+4*scale, 12*scale)
}

// kindsIn lists the kinds that a graph has nodes of.
func kindsIn(g *Graph) []Kind {
	return slices.DeleteFunc(slices.Clone(Kinds), func(k Kind) bool {
		return !slices.ContainsFunc(g.Nodes, func(n Node) bool { return n.Kind == k })
	})
}

// xmlText is text for an XML document. Labels are printable already.
func xmlText(s string) string { return template.HTMLEscapeString(s) }

//go:embed page.html
var pageHTML string

//go:embed page.css
var pageCSS string

//go:embed page.js
var pageJS string

// A pageNode is a node of the page's data.
type pageNode struct {
	*Node
	X      float64 `json:"x"`
	Y      float64 `json:"y"`
	Radius float64 `json:"radius"`
	Weight float64 `json:"importance"`
}

// A pageEdge is an edge of it; From and To are indexes of nodes.
type pageEdge struct {
	From   int    `json:"from"`
	To     int    `json:"to"`
	Role   string `json:"role"`
	Name   string `json:"name,omitempty"`
	Offset int64  `json:"offset"`
	Bytes  int64  `json:"bytes"`
	Count  int64  `json:"count"`
}

type pageKind struct {
	Kind  Kind   `json:"kind"`
	Color string `json:"color"`
	What  string `json:"what"`
}

type pageData struct {
	Kinds  []pageKind `json:"kinds"`
	Shared string     `json:"shared"`
	Nodes  []pageNode `json:"nodes"`
	Edges  []pageEdge `json:"edges"`
}

func tenth(x float64) float64 { return math.Round(x*10) / 10 }

// writeHTML makes a page that fetches nothing: data, style and script are in it.
func writeHTML(w io.Writer, g *Graph, title string) error {
	data := pageData{Shared: sharedColor, Nodes: make([]pageNode, len(g.Nodes)), Edges: make([]pageEdge, len(g.Edges))}
	for _, k := range kindsIn(g) {
		data.Kinds = append(data.Kinds, pageKind{k, styles[k].color, styles[k].what})
	}
	in, r := g.indegrees(), radii(g)
	for i, p := range layout(g, r) {
		n := &g.Nodes[i]
		data.Nodes[i] = pageNode{n, tenth(p.x), tenth(p.y), tenth(r[i]), tenth(n.importance(r[i], in[i]))}
	}
	for i, p := range g.indexes() {
		e := &g.Edges[i]
		data.Edges[i] = pageEdge{p[0], p[1], e.Role, e.Name, e.Offset, e.Bytes, e.Count}
	}
	b, err := json.Marshal(data) // escapes <, > and &, so that no name ends the script
	if err != nil {
		return err
	}
	page, err := template.New("page").Parse(pageHTML)
	if err != nil {
		return err
	}
	return page.Execute(w, map[string]any{
		"Title": title, "Cut": g.Cut, "Style": template.CSS(pageCSS), "Script": template.JS(pageJS), "Data": template.JS(b),
	})
}
