package tiering

import (
	"container/list"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
)

// sizeOf spreads blocks over 1 to 63 KiB.
func sizeOf(n int) int64 { return int64(1+n*2654435761%63) << 10 }

// lruRatio is what share of a trace an LRU cache of limit bytes answers.
func lruRatio(trace []int, limit int64) float64 {
	order, at := list.New(), make(map[int]*list.Element)
	hits, bytes := 0, int64(0)
	for _, n := range trace {
		if e, ok := at[n]; ok {
			hits++
			order.MoveToFront(e)
			continue
		}
		at[n] = order.PushFront(n)
		bytes += sizeOf(n)
		for bytes > limit {
			last := order.Remove(order.Back()).(int)
			delete(at, last)
			bytes -= sizeOf(last)
		}
	}
	return float64(hits) / float64(len(trace))
}

func TestCurveAgainstLRU(t *testing.T) {
	n := 1_000_000 // fewer than curveLife: LRU forgets nothing
	if testing.Short() {
		n = 100_000
	}
	zipf := func(rng *rand.Rand, s float64, blocks int) func() int {
		z := rand.NewZipf(rng, s, 20, uint64(blocks-1))
		return func() int { return int(z.Uint64() * 7919 % uint64(blocks)) }
	}
	for _, c := range []struct {
		name  string
		cache int64
		trace func(rng *rand.Rand) func(i int) int
	}{
		{"zipf over 20,000 blocks", 64 << 20, func(rng *rand.Rand) func(int) int {
			next := zipf(rng, 1.1, 20_000)
			return func(int) int { return next() }
		}},
		{"zipf over 200,000 blocks", 512 << 20, func(rng *rand.Rand) func(int) int {
			next := zipf(rng, 1.02, 200_000)
			return func(int) int { return next() }
		}},
		{"with a scan of twice as many every 50,000 uses", 64 << 20, func(rng *rand.Rand) func(int) int {
			next := zipf(rng, 1.1, 20_000)
			return func(i int) int {
				if i%90_000 >= 50_000 {
					return i%90_000 - 50_000
				}
				return next()
			}
		}},
		{"a loop over three caches", 64 << 20, func(*rand.Rand) func(int) int {
			return func(i int) int { return i % 6000 }
		}},
		{"a small cache", 4 << 20, func(rng *rand.Rand) func(int) int {
			next := zipf(rng, 1.2, 2_000)
			return func(int) int { return next() }
		}},
	} {
		next := c.trace(rand.New(rand.NewPCG(3, 4)))
		trace, ids := make([]int, n), make(map[int][32]byte)
		done := uint64(0)
		curve := newCurve(func() uint64 { return done })
		curve.limit(8 * c.cache)
		for i := range trace {
			trace[i] = next(i)
			id, ok := ids[trace[i]]
			if !ok {
				id = blockOf(trace[i])
				ids[trace[i]] = id
			}
			done++
			curve.use(&id, sizeOf(trace[i]))
			if len(curve.mu.slots) > maxSample || cap(curve.mu.order) > maxOrder {
				t.Fatalf("%s: a sample of %d blocks in %d places", c.name, len(curve.mu.slots), cap(curve.mu.order))
			}
		}
		points := curve.points(c.cache)
		if len(points) != 5 || points[0].Bytes != c.cache/2 || points[4].Bytes != 8*c.cache {
			t.Fatalf("%s: %v", c.name, points)
		}
		for _, p := range points {
			want := lruRatio(trace, p.Bytes)
			t.Logf("%s, %d MiB: %.3f, LRU has %.3f (%d blocks of 2^-%d)", c.name, p.Bytes>>20, p.HitRatio, want, len(curve.mu.slots), curve.zeros.Load())
			if math.Abs(p.HitRatio-want) > 0.02 {
				t.Errorf("%s, %d MiB: %.3f, LRU has %.3f", c.name, p.Bytes>>20, p.HitRatio, want)
			}
		}
	}
}

// TestCurveFollows: what was long ago counts less and less.
func TestCurveFollows(t *testing.T) {
	done := uint64(0)
	c := newCurve(func() uint64 { return done })
	if c.points(1<<20) != nil {
		t.Error("points before the start")
	}
	id := blockOf(0)
	c.use(&id, 1000) // nobody asked
	c.limit(8 << 20)
	if c.points(1<<20) != nil {
		t.Error("points without a use")
	}
	ids := make([][32]byte, 1<<16)
	for i := range ids {
		ids[i] = blockOf(i)
	}
	use := func(blocks, times int) {
		for i := range times {
			done++
			c.use(&ids[i%blocks], 4<<10)
		}
	}
	use(100, 100_000)
	if p := c.points(1 << 20); p[0].HitRatio < 0.99 {
		t.Errorf("100 blocks: %v", p)
	}
	use(1<<16, 3<<20) // a loop over 256 MiB
	if p := c.points(1 << 20); p[4].HitRatio > 0.02 {
		t.Errorf("a loop: %v", p)
	}
	if z := c.zeros.Load(); z != firstZeros {
		t.Errorf("the sample is of 2^-%d", z)
	}
	c.limit(1 << 40)
	use(1<<16, 1<<17)
	if z := c.zeros.Load(); z <= firstZeros || len(c.mu.slots) > maxSample {
		t.Errorf("%d blocks of 2^-%d", len(c.mu.slots), z)
	}
	c.limit(8 << 20)
	use(1<<10, 3<<20)
	if z := c.zeros.Load(); z != firstZeros {
		t.Errorf("the sample is of 2^-%d once fewer blocks matter", z)
	}
	c.limit(0)
	use(100, 100)
	if c.points(1<<20) != nil {
		t.Error("points after the end")
	}
}

func TestCurveInParallel(t *testing.T) {
	c := newCurve(func() uint64 { return 1 << 20 })
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 20_000 {
				id := blockOf(i * (w + 1))
				c.use(&id, sizeOf(i))
				if i%1000 == 0 {
					c.limit(int64(i) << 14)
					c.points(1 << 20)
				}
			}
		})
	}
	wg.Wait()
}

func TestCurveSteps(t *testing.T) {
	for bytes := int64(1); bytes < 1<<60; bytes += 1 + bytes/500 {
		i := curveStep(bytes)
		if i > 0 && stepSize(i-1) >= bytes || i < curveSteps-1 && stepSize(i) < bytes {
			t.Fatalf("%d bytes are in step %d, up to %d", bytes, i, stepSize(i))
		}
	}
}

func BenchmarkCurve(b *testing.B) {
	ids := make([][32]byte, 1<<14)
	for i := range ids {
		ids[i] = blockOf(i)
	}
	for name, cache := range map[string]int64{"small": 64 << 20, "large": 64 << 30} {
		b.Run(name, func(b *testing.B) {
			done := uint64(0)
			c := newCurve(func() uint64 { return done })
			c.limit(8 * cache)
			rng := rand.New(rand.NewPCG(1, 2))
			for i := 0; b.Loop(); i++ {
				id := ids[i&(1<<14-1)]
				if name == "large" { // as if there were more blocks
					id[0], id[1] = byte(rng.Uint32()), byte(rng.Uint32())
				}
				c.use(&id, 32<<10)
			}
		})
	}
}
