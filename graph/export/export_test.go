package export

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"math"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gonum.org/v1/gonum/graph/encoding/dot"
	"gonum.org/v1/gonum/graph/formats/cytoscapejs"
	"gonum.org/v1/gonum/graph/formats/gexf12"
	"gonum.org/v1/gonum/graph/multi"

	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/tiering"
)

// sample has every kind, names that are hard to write, shared blocks, two equal
// edges but for their names, and no loops.
func sample() *Graph {
	names := []string{`plain`, `"quoted" \back\`, `<b>&amp;</script>`, "tab\tand\xff\x00", "日本語 \u2028", "]]>", "", strings.Repeat("long", 60)}
	g := &Graph{Cut: "the first 3 nodes; there are more"}
	for i, k := range Kinds {
		g.Nodes = append(g.Nodes, Node{
			ID: fmt.Sprintf("%064x", i), Kind: k, Label: Printable(names[i]), Path: "p/" + Printable(names[i]),
			Size: 1 << (4 * i), Raw: 100, Stored: 90, Refs: int64(i), Entropy: 7.25, Depth: min(i, 1),
		})
	}
	for i := range 6 {
		g.Edges = append(g.Edges, Edge{From: g.Nodes[i].ID, To: g.Nodes[6].ID, Role: "entry", Name: Printable(names[i]), Count: int64(i)})
	}
	g.Edges = append(g.Edges, Edge{From: g.Nodes[0].ID, To: g.Nodes[6].ID, Role: "entry", Name: "again", Offset: 7, Bytes: 8, Count: 1})
	return g
}

func render(t *testing.T, g *Graph, format string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, g, format, `a "title" & <more>`); err != nil {
		t.Fatal(format, err)
	}
	return b.Bytes()
}

func TestDOT(t *testing.T) {
	g := sample()
	b := render(t, g, "dot")
	d := dotSink{multi.NewDirectedGraph()}
	if err := dot.UnmarshalMulti(b, d); err != nil {
		t.Fatalf("gonum: %v\n%s", err, b)
	}
	if d.Nodes().Len() != len(g.Nodes) || lines(d) != len(g.Edges) {
		t.Errorf("gonum reads %d nodes and %d edges", d.Nodes().Len(), lines(d))
	}
	if _, err := exec.LookPath("dot"); err != nil {
		t.Skip("Graphviz is not installed")
	}
	cmd := exec.Command("dot", "-Tsvg")
	cmd.Stdin = bytes.NewReader(b)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	svg, err := cmd.Output()
	if err != nil || stderr.Len() > 0 {
		t.Fatalf("dot: %v, %s\n%s", err, stderr.String(), b)
	}
	if got := bytes.Count(svg, []byte(`class="node"`)); got != len(g.Nodes) {
		t.Errorf("dot draws %d nodes", got)
	}
	if got := bytes.Count(svg, []byte(`class="edge"`)); got != len(g.Edges) {
		t.Errorf("dot draws %d edges", got)
	}
	wellFormed(t, svg)
}

type dotSink struct{ *multi.DirectedGraph }

func lines(d dotSink) (n int) {
	edges := d.Edges()
	for edges.Next() {
		n += edges.Edge().(multi.Edge).Len()
	}
	return n
}

// wellFormed reads all of an XML document.
func wellFormed(t *testing.T, b []byte) {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(b))
	d.Strict = true
	for {
		if _, err := d.Token(); err != nil {
			if err.Error() != "EOF" {
				t.Errorf("%v in\n%s", err, b)
			}
			return
		}
	}
}

func TestGraphML(t *testing.T) {
	g := sample()
	b := render(t, g, "graphml")
	var m graphML
	if err := xml.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	keys := make(map[string]graphMLKey)
	for _, k := range m.Keys {
		keys[k.ID] = k
	}
	if len(m.Graph.Nodes) != len(g.Nodes) || len(m.Graph.Edges) != len(g.Edges) || len(keys) != len(m.Keys) {
		t.Fatalf("%d nodes, %d edges", len(m.Graph.Nodes), len(m.Graph.Edges))
	}
	for i, n := range m.Graph.Nodes {
		got := make(map[string]string)
		for _, d := range n.Data {
			if keys[d.Key].For != "node" {
				t.Errorf("key %q of a node", d.Key)
			}
			got[keys[d.Key].Name] = d.Value
		}
		if n.ID != g.Nodes[i].ID || got["label"] != g.Nodes[i].Label || got["size_bytes"] != fmt.Sprint(g.Nodes[i].Size) {
			t.Errorf("node %d: %q", i, got)
		}
	}
	if _, err := exec.LookPath("graphml2gv"); err != nil {
		t.Skip("Graphviz is not installed")
	}
	cmd := exec.Command("graphml2gv")
	cmd.Stdin = bytes.NewReader(b)
	out, err := cmd.Output()
	if err != nil || bytes.Count(out, []byte("->")) != len(g.Edges) {
		t.Errorf("graphml2gv: %v\n%s", err, out)
	}
}

func TestGEXF(t *testing.T) {
	g := sample()
	var c gexf12.Content
	if err := xml.Unmarshal(render(t, g, "gexf"), &c); err != nil {
		t.Fatal(err)
	}
	if len(c.Graph.Nodes.Nodes) != len(g.Nodes) || len(c.Graph.Edges.Edges) != len(g.Edges) {
		t.Fatalf("%d nodes, %d edges", len(c.Graph.Nodes.Nodes), len(c.Graph.Edges.Edges))
	}
	for i, n := range c.Graph.Nodes.Nodes {
		if n.Label != g.Nodes[i].Label || n.ID != g.Nodes[i].ID {
			t.Errorf("node %d: %+v", i, n)
		}
	}
}

func TestCytoscape(t *testing.T) {
	g := sample()
	var c cytoscapejs.GraphElem
	if err := json.Unmarshal(render(t, g, "cytoscape"), &c); err != nil {
		t.Fatal(err)
	}
	nodes, edges := 0, 0
	for _, e := range c.Elements {
		switch typ, err := e.Type(); {
		case err != nil:
			t.Error(err)
		case typ == cytoscapejs.NodeElement:
			if want := g.Nodes[nodes]; e.Data.ID != want.ID || e.Data.Attributes["label"] != want.Label {
				t.Errorf("%+v", e)
			}
			nodes++
		default:
			if want := g.Edges[edges]; e.Data.Source != want.From || e.Data.Target != want.To {
				t.Errorf("%+v", e)
			}
			edges++
		}
	}
	if nodes != len(g.Nodes) || edges != len(g.Edges) {
		t.Errorf("%d nodes, %d edges", nodes, edges)
	}
}

func TestPictures(t *testing.T) {
	g := sample()
	svg := render(t, g, "svg")
	wellFormed(t, svg)
	if got := bytes.Count(svg, []byte("<circle")); got < len(g.Nodes) {
		t.Errorf("%d circles", got)
	}
	page := render(t, g, "html")
	for _, outside := range []string{"src=", "href=", "@import", "url(", "fetch(", "XMLHttpRequest"} {
		if bytes.Contains(page, []byte(outside)) {
			t.Errorf("the page has %q in it", outside)
		}
	}
	if bytes.Count(page, []byte("</script>")) != 2 {
		t.Error("a name ends the script")
	}
	for _, g := range []*Graph{{}, {Nodes: []Node{{ID: "x", Kind: Data}}}} {
		for _, f := range Formats() {
			render(t, g, f)
		}
	}
	if err := Write(nil, g, "png", ""); !errors.Is(err, ErrFormat) {
		t.Error(err)
	}
}

// TestLayout: every node has a place, no two circles overlap much, linked nodes
// are near, and the work grows as n log n.
func TestLayout(t *testing.T) {
	g := &Graph{}
	const dirs, files = 60, 50
	node := func(k Kind, size int64) int {
		g.Nodes = append(g.Nodes, Node{ID: fmt.Sprint(len(g.Nodes)), Kind: k, Size: size})
		return len(g.Nodes) - 1
	}
	edge := func(a, b int) {
		g.Edges = append(g.Edges, Edge{From: g.Nodes[a].ID, To: g.Nodes[b].ID, Count: 1})
	}
	root := node(Directory, 0)
	for range dirs {
		edge(root, node(Directory, 0))
	}
	for d := range dirs {
		for f := range files {
			edge(1+d, node(Data, int64(f)<<10))
			if f%10 == 0 && d > 0 {
				edge(d, len(g.Nodes)-1) // shared with the directory before
			}
		}
	}
	begun := time.Now()
	r := radii(g)
	at := layout(g, r)
	t.Logf("%d nodes in %v", len(g.Nodes), time.Since(begun))
	// Its cost is that of the pushes: far from one for each two nodes.
	bodies := make([]body, len(at))
	for i := range at {
		bodies[i] = body{point: at[i], r: r[i]}
	}
	var tree quadtree
	tree.build(bodies)
	for i := range bodies {
		tree.force(bodies[i].point)
	}
	if most := 10 * math.Log2(float64(len(at))); float64(tree.visits)/float64(len(at)) > most {
		t.Errorf("%d visits for %d nodes, more than %.0f for each", tree.visits, len(at), most)
	}
	t.Logf("%d visits a node", tree.visits/len(at))
	overlaps := 0
	for i := range at {
		if math.IsNaN(at[i].x) || math.IsInf(at[i].x, 0) || math.IsNaN(at[i].y) || math.IsInf(at[i].y, 0) {
			t.Fatalf("node %d is at %v", i, at[i])
		}
		for j := range i {
			if math.Hypot(at[i].x-at[j].x, at[i].y-at[j].y) < 0.8*(r[i]+r[j]) {
				overlaps++
			}
		}
	}
	if overlaps > len(at)/50 {
		t.Errorf("%d of %d circles overlap", overlaps, len(at))
	}
	again := layout(g, r)
	for i := range at {
		if at[i] != again[i] {
			t.Fatal("the same graph is drawn in two ways")
		}
	}
}

// fakeLive has the edges of each inode.
type fakeLive map[uint64][]LiveEdge

func (l fakeLive) LiveEdges(_ context.Context, f LiveFile, fn func(LiveEdge) error) error {
	edges, ok := l[f.Ino]
	if !ok {
		return store.ErrNotFound
	}
	for _, e := range edges {
		if err := fn(e); err != nil {
			return err
		}
	}
	return nil
}

func TestCollect(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	if err := store.Init(dir, store.DefaultConfig()); err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	data := bytes.Repeat([]byte("0123456789abcdef"), 40_000)
	for i := range data {
		data[i] += byte(i >> 12)
	}
	one, err := st.Ingest(t.Context(), bytes.NewReader(data), "one")
	if err != nil {
		t.Fatal(err)
	}
	small, err := st.Put(tiering.Data, []byte("small"))
	if err != nil {
		t.Fatal(err)
	}
	gone := graph.ID{1, 2, 3}
	root := LiveFile{Ino: 1, Directory: true}
	live := fakeLive{
		1: {{Role: graph.Content, Name: "f\n", File: &LiveFile{Ino: 2, Size: 15}}, {Role: graph.Content, Name: "d", File: &LiveFile{Ino: 3, Directory: true}}},
		2: {{Role: graph.Contains, Block: small, Bytes: 5}, {Role: graph.Contains, Block: small, Offset: 5, Bytes: 5}, {Role: graph.Contains, Block: gone, Offset: 10, Bytes: 5}},
		3: {{Role: graph.Content, Name: "up", File: &LiveFile{Ino: 2, Size: 15}}, {Role: graph.Content, Name: "gone", File: &LiveFile{Ino: 9}}},
	}
	roots := []Root{{Name: "one", ID: one.ID, Size: one.Size}, {Label: "/", File: &root}}
	g, err := Collect(t.Context(), st, live, roots, Options{Nodes: 100})
	if err != nil || g.Cut != "" {
		t.Fatal(err, g.Cut)
	}
	count := make(map[Kind]int)
	byID := make(map[string]Node)
	for _, n := range g.Nodes {
		count[n.Kind]++
		byID[n.ID] = n
	}
	blocks := len(g.Edges) - 8
	if count[Object] != 1 || count[File] != 1 || count[Directory] != 2 || count[Inode] != 2 || count[Data] < 4 || blocks < 2 {
		t.Errorf("%v, %d edges", count, len(g.Edges))
	}
	if n := byID["inode:2"]; n.Label != `"f\n"` || n.Path != `"f\n"` || n.Size != 15 || n.Depth != 1 {
		t.Errorf("%+v", n)
	}
	if n := byID[small.String()]; n.Path != `"f\n"` || n.Raw != 5 || n.Label != small.Short() || n.Damage != "" {
		t.Errorf("%+v", n)
	}
	if n := byID[gone.String()]; n.Damage == "" {
		t.Errorf("a block that is not there: %+v", n)
	}
	if n := byID[one.ID.String()]; n.Kind != File || n.Size != one.Size || n.Refs != 1 {
		t.Errorf("%+v", n)
	}
	found := false
	for _, e := range g.Edges {
		found = found || e == Edge{From: "inode:2", To: small.String(), Role: "contains", Bytes: 10, Count: 2}
		if _, ok := byID[e.From]; !ok {
			t.Errorf("%+v starts nowhere", e)
		}
		if _, ok := byID[e.To]; !ok {
			t.Errorf("%+v ends nowhere", e)
		}
	}
	if !found {
		t.Error("no edge that counts 2")
	}

	for _, c := range []struct {
		o     Options
		nodes int
		cut   bool
	}{
		{Options{Nodes: 3}, 3, true},
		{Options{Nodes: 100, Depth: 1}, 5, false},
		{Options{Nodes: 100, Kinds: []Kind{Inode, File}}, 3, false},
		{Options{Nodes: 2, Kinds: []Kind{Data}}, 2, true},
	} {
		g, err := Collect(t.Context(), st, live, roots, c.o)
		if err != nil || len(g.Nodes) != c.nodes || (g.Cut != "") != c.cut {
			t.Errorf("%+v: %d nodes, cut %q, %v", c.o, len(g.Nodes), g.Cut, err)
		}
		for _, f := range Formats() {
			render(t, g, f)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Collect(ctx, st, live, roots, Options{Nodes: 9}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
