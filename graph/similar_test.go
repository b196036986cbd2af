package graph

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/quarxtor/quarxfs/store/chunk"
)

func blockID(i int) ID { return chunk.Sum(binary.LittleEndian.AppendUint64(nil, uint64(i))) }

func sketchOf(from, to int) *Sketch {
	s := new(Sketch)
	for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(to - from) {
		s.Add(blockID(from + i))
		s.Add(blockID(from + i))
	}
	return s
}

func TestSketch(t *testing.T) {
	for _, c := range []struct{ a, b, c, d int }{
		{0, 10, 5, 15}, {0, 256, 0, 256}, {0, 100, 50, 200}, {0, 10, 10, 20}, {0, 0, 0, 5}, {0, 0, 0, 0}, // small: exact
		{0, 10_000, 5000, 15_000}, {0, 10_000, 0, 20_000}, {0, 50_000, 49_000, 60_000}, {0, 300, 0, 100_000}, {0, 9000, 0, 9000},
	} {
		a, b := sketchOf(c.a, c.b), sketchOf(c.c, c.d)
		both := max(0, min(c.b, c.d)-max(c.a, c.c))
		want := ratio(both, c.b-c.a+c.d-c.c-both)
		got := a.Jaccard(b)
		tolerance := 0.12 // four standard errors
		if c.b-c.a <= SketchSize && c.d-c.c <= SketchSize && c.b-c.a+c.d-c.c-both <= SketchSize {
			tolerance = 0
		}
		if math.Abs(got-want) > tolerance || b.Jaccard(a) != got {
			t.Errorf("%+v: estimated %v, it is %v", c, got, want)
		}
		union := sketchOf(c.a, c.b)
		union.Merge(b)
		all := sketchOf(c.a, c.b)
		for i := c.c; i < c.d; i++ {
			all.Add(blockID(i))
		}
		if !slices.Equal(union.low, all.low) {
			t.Errorf("%+v: merging is not adding", c)
		}
	}
}

func TestCompare(t *testing.T) {
	a, b := make(BlockSet), make(BlockSet)
	for i := range 10 {
		a[blockID(i)] = 100
		b[blockID(i+8)] = uint32(i + 1)
	}
	want := Likeness{Jaccard: 2.0 / 18, Shared: 2, SharedBytes: 3, Blocks: 10, Bytes: 55}
	if got := a.Compare(b); got != want {
		t.Errorf("%+v", got)
	}
}

// TestShortest compares with the distances that Floyd and Warshall's method
// finds.
func TestShortest(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		const points = 14
		point := func(i int) Point {
			if i%2 == 0 {
				return Point{Ino: uint64(i + 1)}
			}
			return Point{ID: blockID(i)}
		}
		n := NewNetwork()
		var far [points][points]int
		for i := range far {
			for j := range far {
				if i != j {
					far[i][j] = 1000
				}
			}
		}
		for range rng.IntN(20) {
			a, b := rng.IntN(points), rng.IntN(points)
			n.Add(point(a), point(b))
			if a != b {
				far[a][b], far[b][a] = 1, 1
			}
		}
		for k := range far {
			for i := range far {
				for j := range far {
					far[i][j] = min(far[i][j], far[i][k]+far[k][j])
				}
			}
		}
		for i := range far {
			for j := range far {
				way, err := n.Shortest(t.Context(), point(i), point(j))
				if err != nil {
					t.Fatal(err)
				}
				if far[i][j] >= 1000 {
					if way != nil {
						t.Fatalf("a way where there is none: %v", way)
					}
					continue
				}
				if len(way) != far[i][j]+1 || way[0] != point(i) || way[len(way)-1] != point(j) {
					t.Fatalf("%d to %d, %d apart: %v", i, j, far[i][j], way)
				}
				for k := range way[1:] {
					if !slices.ContainsFunc(n.edges, func(e [2]uint32) bool {
						a, b := n.points[e[0]], n.points[e[1]]
						return a == way[k] && b == way[k+1] || b == way[k] && a == way[k+1]
					}) {
						t.Fatalf("no edge from %v to %v", way[k], way[k+1])
					}
				}
			}
		}
	}
}

// TestDownFirst: of two ways of the same length, that over a common block is
// taken and not that over a common directory.
func TestDownFirst(t *testing.T) {
	n := NewNetwork()
	dir, a, b, block := Point{Ino: 1}, Point{Ino: 2}, Point{Ino: 3}, Point{ID: blockID(1)}
	n.Add(dir, a)
	n.Add(dir, b)
	n.Add(a, block)
	n.Add(b, block)
	if way, err := n.Shortest(t.Context(), a, b); err != nil || !slices.Equal(way, []Point{a, block, b}) {
		t.Error(way, err)
	}
}
