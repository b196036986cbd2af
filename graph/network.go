package graph

import (
	"context"
	"encoding/binary"
	"slices"
)

// A Point of a Network is a block or vertex, or an inode if that is not 0.
type Point struct {
	ID  ID
	Ino uint64
}

// hash tells points apart. Two blocks have the same with a probability that
// does not matter, and whoever follows a path sees that it leads nowhere.
func (p Point) hash() uint64 {
	if p.Ino != 0 {
		return p.Ino * 0x9e3779b97f4a7c15 // odd, so that no two inodes meet
	}
	return binary.BigEndian.Uint64(p.ID[:8])
}

// A Network is points and edges, with some 100 bytes of memory for a point and 16 for an
// edge. The zero value is not one: see NewNetwork.
type Network struct {
	numbers map[uint64]uint32
	points  []Point
	edges   [][2]uint32
}

// NewNetwork returns a network of nothing.
func NewNetwork() *Network { return &Network{numbers: make(map[uint64]uint32)} }

// Add adds an edge and its points.
func (n *Network) Add(from, to Point) {
	n.edges = append(n.edges, [2]uint32{n.number(from), n.number(to)})
}

func (n *Network) number(p Point) uint32 {
	h := p.hash()
	i, ok := n.numbers[h]
	if !ok {
		i = uint32(len(n.points))
		n.numbers[h] = i
		n.points = append(n.points, p)
	}
	return i
}

// Shortest returns the points of a shortest way from a to b, both among them,
// along edges or against them; of several, one that goes down first. Without
// any it returns nil. The error is that of ctx.
func (n *Network) Shortest(ctx context.Context, a, b Point) ([]Point, error) {
	if a == b {
		return []Point{a}, nil
	}
	from, ok := n.numbers[a.hash()]
	to, ok2 := n.numbers[b.hash()]
	if !ok || !ok2 {
		return nil, nil
	}
	down, up := n.adjacency(0), n.adjacency(1)
	before := make([]int32, len(n.points)) // where the search came from
	for i := range before {
		before[i] = -1
	}
	// It is its own predecessor, so that the search does not come back to it.
	before[from] = int32(from)
	for queue := []uint32{from}; len(queue) > 0; queue = queue[1:] {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		at := queue[0]
		if at == to {
			return n.way(before, from, to), nil
		}
		// Down before up: of two shortest ways the one that goes down is met first.
		for _, list := range [][]uint32{down.of(at), up.of(at)} {
			for _, next := range list {
				if before[next] < 0 {
					before[next] = int32(at)
					queue = append(queue, next)
				}
			}
		}
	}
	return nil, nil
}

func (n *Network) way(before []int32, from, to uint32) []Point {
	way := []Point{n.points[to]}
	for at := to; at != from; {
		at = uint32(before[at])
		way = append(way, n.points[at])
	}
	slices.Reverse(way)
	return way
}

// An adjacency has the neighbours of each point side by side (compressed sparse
// rows).
type adjacency struct{ starts, ends []uint32 }

func (a *adjacency) of(i uint32) []uint32 { return a.ends[a.starts[i]:a.starts[i+1]] }

// adjacency collects neighbours: end 0, those that edges lead to; end 1, those
// that they come from. They are in the order in which the edges were added.
func (n *Network) adjacency(end int) *adjacency {
	a := &adjacency{make([]uint32, len(n.points)+1), make([]uint32, len(n.edges))}
	for _, e := range n.edges {
		// Counting sort: sums of the counts are where each point's neighbours begin.
		a.starts[e[end]+1]++
	}
	for i := range n.points {
		a.starts[i+1] += a.starts[i]
	}
	next := slices.Clone(a.starts)
	for _, e := range n.edges {
		a.ends[next[e[end]]] = e[1-end]
		next[e[end]]++
	}
	return a
}
