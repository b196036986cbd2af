package export

import (
	"math"
)

// A point is a place in the picture; a node's radius is in the same unit.
type point struct{ x, y float64 }

// radii grow with the logarithm of what nodes stand for: 3 for nothing, 8 for
// 64 KiB, 20 for 100 MiB; those of directories whose bytes are not known, with
// that of their entries.
func radii(g *Graph) []float64 {
	entries := make([]int, len(g.Nodes))
	for _, p := range g.indexes() {
		// By edges that are in the picture: what was cut off makes no circle larger.
		entries[p[0]]++
	}
	r := make([]float64, len(g.Nodes))
	for i := range g.Nodes {
		n := &g.Nodes[i]
		r[i] = 3 + 1.2*math.Log2(1+float64(n.weight())/4096)
		switch n.Kind {
		case Snapshot, Object:
			r[i] += 4
		case Directory, Tree:
			if n.Size > 0 {
				r[i] += 2
				break
			}
			r[i] = 4 + 1.5*math.Log2(1+float64(entries[i]))
		}
		r[i] = min(r[i], 28)
	}
	return r
}

const (
	steps     = 300
	friction  = 0.6  // of a velocity that is left after a step
	gravity   = 0.04 // towards the middle, which keeps what is not connected near
	repulsion = 90
	opening   = 0.9 // of the Barnes-Hut approximation
	ring      = 60  // between a node and its children, at the start
	linkSpace = 14  // between the circles of linked nodes
	nodeSpace = 2   // between any circles, at least
)

// layout finds a place for each node, a circle of the radius that r gives: linked ones pull each
// other, all push each other away, circles do not overlap. It is deterministic.
//
// Forces as in Fruchterman and Reingold, Software: Practice and Experience 21
// (1991), with steps that cool down; pushes by the approximation of Barnes and Hut,
// Nature 324 (1986), in O(n log n) a step. The start is a tree drawn in rings (Eades,
// Drawing Free Trees, 1992), so that few lines cross from the beginning on.
func layout(g *Graph, r []float64) []point {
	s := simulation{links: g.indexes(), bodies: make([]body, len(g.Nodes))}
	start := rings(len(g.Nodes), s.links)
	for i := range s.bodies {
		s.bodies[i] = body{point: start[i], r: r[i]}
	}
	s.weighLinks()
	heat := 1.0
	// Down to a thousandth at the last step, so that nothing jumps at the end.
	cooling := 1 - math.Pow(0.001, 1.0/steps)
	for step := range steps {
		s.pull(heat)
		s.push(heat)
		for i := range s.bodies {
			b := &s.bodies[i]
			b.vx -= b.x * gravity * heat
			b.vy -= b.y * gravity * heat
			b.vx, b.vy = b.vx*friction, b.vy*friction
			b.x, b.y = b.x+b.vx, b.y+b.vy
		}
		// Not before the rough shape is there: circles have to get past each other.
		if step > steps/2 {
			s.separate()
		}
		heat -= heat * cooling
	}
	places := make([]point, len(s.bodies))
	for i := range s.bodies {
		places[i] = s.bodies[i].point
	}
	return places
}

// rings draws a spanning forest: children on a ring around the middle, one
// further out than their parent, in a sector as wide as they have leaves.
func rings(n int, links [][2]int) []point {
	children := make([][]int, n)
	parent := make([]int, n)
	for i := range parent {
		parent[i] = -1
	}
	// Nodes are nearest to the roots first, so the first edge to a node is
	// from the nearest node that leads to it, and there are no loops.
	var roots []int
	for _, l := range links {
		if parent[l[1]] < 0 && l[0] < l[1] {
			parent[l[1]] = l[0]
			children[l[0]] = append(children[l[0]], l[1])
		}
	}
	leaves := make([]int, n)
	for i := n - 1; i >= 0; i-- {
		leaves[i] = max(leaves[i], 1)
		if parent[i] >= 0 {
			leaves[parent[i]] += leaves[i]
		} else {
			roots = append(roots, i)
		}
	}
	places := make([]point, n)
	type sector struct {
		node, depth int
		from, width float64
	}
	var todo []sector
	spread := func(nodes []int, depth int, from, width float64) {
		total := 0
		for _, c := range nodes {
			total += leaves[c]
		}
		for _, c := range nodes {
			w := width * float64(leaves[c]) / float64(total)
			todo = append(todo, sector{c, depth, from, w})
			from += w
		}
	}
	first := 1
	if len(roots) == 1 {
		first = 0
	}
	spread(roots, first, 0, 2*math.Pi)
	for len(todo) > 0 {
		s := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		angle := s.from + s.width/2
		places[s.node] = point{float64(s.depth) * ring * math.Cos(angle), float64(s.depth) * ring * math.Sin(angle)}
		spread(children[s.node], s.depth+1, s.from, s.width)
	}
	return places
}

// A body is a node that moves.
type body struct {
	point
	vx, vy float64
	r      float64
	links  int
}

type simulation struct {
	bodies []body
	links  [][2]int
	tree   quadtree
}

func (s *simulation) weighLinks() {
	for _, l := range s.links {
		s.bodies[l[0]].links++
		s.bodies[l[1]].links++
	}
}

// pull draws linked nodes to their distance; of two, that with fewer links
// moves more.
func (s *simulation) pull(heat float64) {
	for _, l := range s.links {
		a, b := &s.bodies[l[0]], &s.bodies[l[1]]
		if a == b {
			continue
		}
		dx, dy := b.x+b.vx-a.x-a.vx, b.y+b.vy-a.y-a.vy
		d := math.Hypot(dx, dy)
		if d == 0 {
			dx, d = 1, 1
		}
		want := a.r + b.r + linkSpace
		f := (d - want) / d * heat / float64(min(a.links, b.links))
		share := float64(a.links) / float64(a.links+b.links)
		b.vx, b.vy = b.vx-dx*f*share, b.vy-dy*f*share
		a.vx, a.vy = a.vx+dx*f*(1-share), a.vy+dy*f*(1-share)
	}
}

func (s *simulation) push(heat float64) {
	s.tree.build(s.bodies)
	for i := range s.bodies {
		b := &s.bodies[i]
		fx, fy := s.tree.force(b.point)
		b.vx, b.vy = b.vx+fx*heat*repulsion, b.vy+fy*heat*repulsion
	}
}

// separate moves circles that overlap apart. Only those in neighbouring cells
// of a grid can.
func (s *simulation) separate() {
	cell := 1.0
	for i := range s.bodies {
		// As large as the largest circle, so that overlapping ones are in neighbouring cells.
		cell = max(cell, 2*s.bodies[i].r+nodeSpace)
	}
	type square struct{ x, y int }
	grid := make(map[square][]int, len(s.bodies))
	at := func(b *body) square { return square{int(math.Floor(b.x / cell)), int(math.Floor(b.y / cell))} }
	for i := range s.bodies {
		p := at(&s.bodies[i])
		grid[p] = append(grid[p], i)
	}
	for i := range s.bodies {
		a := &s.bodies[i]
		p := at(a)
		for dx := -1; dx <= 1; dx++ {
			for dy := -1; dy <= 1; dy++ {
				for _, j := range grid[square{p.x + dx, p.y + dy}] {
					// Each pair once.
					if j > i {
						a.part(&s.bodies[j])
					}
				}
			}
		}
	}
}

// part moves two circles apart if they overlap.
func (a *body) part(b *body) {
	dx, dy := b.x-a.x, b.y-a.y
	d := math.Hypot(dx, dy)
	over := a.r + b.r + nodeSpace - d
	if over <= 0 {
		return
	}
	if d == 0 {
		dx, d = 1, 1
	}
	move := over / d / 2
	a.x, a.y = a.x-dx*move, a.y-dy*move
	b.x, b.y = b.x+dx*move, b.y+dy*move
}

// A quadtree holds bodies by place. Nodes are in one slice; 0 is the root.
type quadtree struct {
	nodes  []quad
	box    square
	visits int // of quads by force
}

// A quad is a square with one body, or four quads. Its mass is the number of
// bodies, and x, y their centre.
type quad struct {
	children [4]int32 // 0: none
	mass     float64
	x, y     float64
	leaf     bool
}

type square struct{ x, y, size float64 }

// maxQuadDepth stops bodies in one place from dividing it for ever.
const maxQuadDepth = 40

func (q *quadtree) build(bodies []body) {
	if len(bodies) == 0 {
		q.nodes = q.nodes[:0]
		return
	}
	lo, hi := bodies[0].point, bodies[0].point
	for i := range bodies {
		b := bodies[i].point
		lo = point{min(lo.x, b.x), min(lo.y, b.y)}
		hi = point{max(hi.x, b.x), max(hi.y, b.y)}
	}
	q.box = square{lo.x, lo.y, max(hi.x-lo.x, hi.y-lo.y, 1)}
	q.nodes = append(q.nodes[:0], quad{})
	for i := range bodies {
		q.insert(bodies[i].point)
	}
}

func (q *quadtree) insert(p point) {
	at, box := int32(0), q.box
	for depth := 0; ; depth++ {
		n := &q.nodes[at]
		if n.mass == 0 {
			n.mass, n.x, n.y, n.leaf = 1, p.x, p.y, true
			return
		}
		// A second body: the first one moves down into a quarter of its own.
		if n.leaf && depth < maxQuadDepth {
			n.leaf = false
			old, mass := point{n.x, n.y}, n.mass
			i, _ := box.part(old)
			q.nodes = append(q.nodes, quad{mass: mass, x: old.x, y: old.y, leaf: true})
			n = &q.nodes[at]
			n.children[i] = int32(len(q.nodes) - 1)
		}
		n.x, n.y = (n.x*n.mass+p.x)/(n.mass+1), (n.y*n.mass+p.y)/(n.mass+1)
		n.mass++
		if n.leaf {
			return
		}
		i, inner := box.part(p)
		if n.children[i] == 0 {
			q.nodes = append(q.nodes, quad{})
			// append may have moved the nodes.
			n = &q.nodes[at]
			n.children[i] = int32(len(q.nodes) - 1)
		}
		at, box = n.children[i], inner
	}
}

// part returns which quarter a point is in.
func (s square) part(p point) (int, square) {
	half := s.size / 2
	i, q := 0, square{s.x, s.y, half}
	if p.x >= s.x+half {
		i, q.x = 1, s.x+half
	}
	if p.y >= s.y+half {
		i, q.y = i+2, s.y+half
	}
	return i, q
}

// force sums up 1/distance of all bodies, away from them. A quad that looks
// small from p counts as one body.
func (q *quadtree) force(p point) (fx, fy float64) {
	type visit struct {
		at   int32
		size float64
	}
	var buf [4 * maxQuadDepth]visit
	stack := append(buf[:0], visit{0, q.box.size})
	for len(stack) > 0 {
		v := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		n := &q.nodes[v.at]
		q.visits++
		dx, dy := p.x-n.x, p.y-n.y
		d2 := dx*dx + dy*dy
		if !n.leaf && v.size*v.size >= opening*opening*d2 {
			for _, c := range n.children {
				if c != 0 {
					stack = append(stack, visit{c, v.size / 2})
				}
			}
			continue
		}
		if d2 == 0 {
			continue // itself, or what is in the same place: separate parts them
		}
		d2 = max(d2, 1)
		fx, fy = fx+dx/d2*n.mass, fy+dy/d2*n.mass
	}
	return fx, fy
}
