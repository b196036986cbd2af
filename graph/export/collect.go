package export

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/graph/budget"
	"github.com/quarxtor/quarxfs/store"
)

// A LiveFile is a file or directory of the live filesystem.
type LiveFile struct {
	Ino       uint64
	Directory bool
	Size      int64
}

// Clone is the role of the edge from a live file to the vertex that it was made
// from and that still has what the live filesystem has not.
const Clone graph.Role = "clone"

// A LiveEdge leads from a file of the live filesystem to what it is made of.
type LiveEdge struct {
	Role   graph.Role
	Name   string    // of an entry
	File   *LiveFile // what it leads to; nil: Block
	Block  graph.ID  // a block, or the vertex that the file is a clone of
	Offset int64     // of a span in the file
	Bytes  int64
}

// Live knows the files that no vertex describes yet.
type Live interface {
	// LiveEdges calls fn for what a file is made of, until fn fails.
	// store.ErrNotFound: it has gone.
	LiveEdges(ctx context.Context, f LiveFile, fn func(LiveEdge) error) error
}

// A Root is where the walk starts.
type Root struct {
	Label string    // "": the start of the ID
	Path  string    // what the paths of all below start with
	Size  int64     // of what it stands for, if that is known
	Name  string    // if not "": of an object, which is a node of its own and leads to ID
	ID    graph.ID  // of a block or vertex
	File  *LiveFile // if not nil, instead of ID
}

// Options bound what is collected.
type Options struct {
	Depth int    // edges from a root; 0: no bound
	Nodes int    // at most so many nodes, nearest first; at least 1
	Kinds []Kind // only these, reached through nodes of any kind; empty: all
}

const (
	// MaxNodes is the most nodes that can be collected.
	MaxNodes = 1 << 18
	// edgesPerNode bounds the edges.
	edgesPerNode = 16
	// passedPerNode bounds the nodes that are gone through and not kept.
	passedPerNode = 64
	// maxPaths bounds the bytes of paths: those of a deep tree grow with the square of its depth.
	maxPaths   = 64 << 20
	visitBytes = 512 // of a node or what is passed through, its path apart
)

// errCut ends a walk that has enough.
var errCut = errors.New("enough")

// Collect walks from the roots and returns what it comes to. What the store
// cannot read becomes a node that says so. The caller keeps the roots from the
// sweep. Errors: those of live and ctx.
func Collect(ctx context.Context, blocks graph.Blocks, live Live, roots []Root, o Options) (*Graph, error) {
	c := collector{ctx: ctx, blocks: blocks, live: live, o: o, met: make(map[string]*visit), edges: make(map[edgeKey]int)}
	c.g.Nodes, c.g.Edges = []Node{}, []Edge{}
	for _, r := range roots {
		c.root(r)
	}
	for len(c.queue) > 0 {
		p := c.queue[0]
		c.queue = c.queue[1:]
		// It is shown, and what it leads to is not.
		if o.Depth > 0 && p.depth >= o.Depth {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		// A cut ends the edges of this node alone: others may lead to nodes that are there.
		if err := c.expand(p); err != nil && !errors.Is(err, errCut) {
			return nil, err
		}
		if c.err != nil {
			return nil, c.err
		}
	}
	return &c.g, c.err
}

// A visit is where the walk has come to.
type visit struct {
	id    string
	kind  store.Kind // of a block or vertex
	block graph.ID
	file  *LiveFile
	depth int
	path  string
	node  int // in the graph, or -1
}

type edgeKey struct {
	from, to   int
	role, name string
}

type collector struct {
	ctx    context.Context
	blocks graph.Blocks
	live   Live
	o      Options
	g      Graph
	met    map[string]*visit
	queue  []*visit
	edges  map[edgeKey]int
	paths  int   // bytes
	err    error // budget.ErrCost: what add could not hold
}

// root adds a root and, of an object, the edge from its name.
func (c *collector) root(r Root) {
	// The name is a node of its own, so the object's content is an edge away.
	if r.Name != "" {
		name := &visit{id: "object:" + Printable(r.Name), path: Printable(r.Name) + ":", node: -1}
		c.add(name, Node{Kind: Object, Label: Printable(r.Name), Size: r.Size})
		if to := c.block(r.ID, 1, name.path, "", r.Size); to != nil {
			c.edge(name, to, string(graph.Names), "", 0, r.Size)
		}
		return
	}
	if r.File != nil {
		c.file(*r.File, 0, r.Path, r.Label)
		return
	}
	c.block(r.ID, 0, r.Path, r.Label, r.Size)
}

// add takes a visit in, as a node if its kind is wanted and there is room. It
// returns nil when there is not.
func (c *collector) add(p *visit, n Node) *visit {
	wanted := len(c.o.Kinds) == 0 || slices.Contains(c.o.Kinds, n.Kind)
	switch {
	case wanted && len(c.g.Nodes) >= c.o.Nodes:
		c.g.Cut = fmt.Sprintf("the first %d nodes; there are more", c.o.Nodes)
		return nil
	// Nodes of kinds that are not wanted are walked through, and take memory, too.
	case len(c.met) >= passedPerNode*c.o.Nodes:
		c.g.Cut = fmt.Sprintf("given up after going through %d nodes", len(c.met))
		return nil
	case c.paths > maxPaths:
		c.g.Cut = fmt.Sprintf("given up after going through %d nodes, whose paths are long", len(c.met))
		return nil
	}
	c.paths += len(p.path)
	if err := budget.Hold(c.ctx, visitBytes+len(p.path)); err != nil {
		c.err = err
		return nil
	}
	c.met[p.id] = p
	c.queue = append(c.queue, p)
	if wanted {
		p.node = len(c.g.Nodes)
		n.ID, n.Path, n.Depth = p.id, p.path, p.depth
		c.g.Nodes = append(c.g.Nodes, n)
	}
	return p
}

// block returns the visit of a block or vertex, or nil when there is no room.
func (c *collector) block(id graph.ID, depth int, path, label string, size int64) *visit {
	key := id.String()
	if p, ok := c.met[key]; ok {
		if p.node >= 0 && label != "" && c.g.Nodes[p.node].Label == id.Short() { // a name is better
			c.g.Nodes[p.node].Label, c.g.Nodes[p.node].Path = label, path
		}
		return p
	}
	if label == "" {
		label = id.Short()
	}
	n := Node{Kind: Data, Label: label, Size: size}
	p := &visit{id: key, block: id, depth: depth, path: path, node: -1}
	e, err := c.blocks.Lookup(id)
	if err == nil {
		p.kind = e.Kind
		n.Kind, n.Raw, n.Stored, n.Refs = Kind(e.Kind.String()), int64(e.Raw), e.Stored(), int64(e.Refs)
	} else {
		// A lost block is a node that says so, and ends no walk.
		n.Damage = Printable(err.Error())
	}
	if p.kind == store.KindData {
		n.Size, n.Entropy = n.Raw, e.EntropyBits()
	}
	return c.add(p, n)
}

func (c *collector) file(f LiveFile, depth int, path, label string) *visit {
	key := fmt.Sprintf("inode:%d", f.Ino)
	if p, ok := c.met[key]; ok {
		return p
	}
	kind := Inode
	if f.Directory {
		kind = Directory
	}
	return c.add(&visit{id: key, file: &f, depth: depth, path: path, node: -1}, Node{Kind: kind, Label: label, Size: f.Size})
}

// expand follows the edges of what was visited.
func (c *collector) expand(p *visit) error {
	if p.file != nil {
		return c.expandLive(p)
	}
	if p.kind == 0 || p.kind == store.KindData {
		return nil
	}
	edges, err := graph.Successors(c.ctx, c.blocks, p.block)
	if err != nil {
		// A damaged vertex is shown as such, and the rest of the graph with it.
		if p.node >= 0 && c.ctx.Err() == nil {
			c.g.Nodes[p.node].Damage = Printable(err.Error())
		}
		return c.ctx.Err()
	}
	for _, e := range edges {
		name := Printable(e.Name)
		to := c.block(e.To, p.depth+1, Join(p.path, name), name, e.Bytes)
		if to == nil {
			continue // further edges may lead to what is there
		}
		if err := c.edge(p, to, string(e.Role), name, e.Offset, e.Bytes); err != nil {
			return err
		}
	}
	return nil
}

func (c *collector) expandLive(p *visit) error {
	missed := 0
	err := c.live.LiveEdges(c.ctx, *p.file, func(e LiveEdge) error {
		var to *visit
		name := Printable(e.Name)
		if e.File != nil {
			to = c.file(*e.File, p.depth+1, Join(p.path, name), name)
		} else {
			to = c.block(e.Block, p.depth+1, p.path, "", e.Bytes)
		}
		if to == nil {
			if missed++; missed > edgesPerNode*c.o.Nodes {
				return errCut // a directory of millions
			}
			return nil
		}
		return c.edge(p, to, string(e.Role), name, e.Offset, e.Bytes)
	})
	if errors.Is(err, store.ErrNotFound) {
		return nil // it was there when its directory was read
	}
	return err
}

// edge adds an edge, or counts it when it is there.
func (c *collector) edge(from, to *visit, role, name string, off, bytes int64) error {
	// One end is of a kind that is not shown: what leads through it is not drawn.
	if from.node < 0 || to.node < 0 {
		return nil
	}
	key := edgeKey{from.node, to.node, role, name}
	if i, ok := c.edges[key]; ok {
		// A file of zeroes has one block a million times: that is one edge with a count.
		c.g.Edges[i].Count++
		c.g.Edges[i].Bytes += bytes
		return nil
	}
	if len(c.g.Edges) >= edgesPerNode*c.o.Nodes {
		c.g.Cut = fmt.Sprintf("the first %d edges; there are more", len(c.g.Edges))
		return errCut
	}
	c.edges[key] = len(c.g.Edges)
	c.g.Edges = append(c.g.Edges, Edge{From: from.id, To: to.id, Role: role, Name: name, Offset: off, Bytes: bytes, Count: 1})
	return nil
}

// Join appends a name to a path of a Root or of what is below one.
func Join(path, name string) string {
	if name == "" || path == "" || strings.HasSuffix(path, ":") {
		return path + name
	}
	return path + "/" + name
}
