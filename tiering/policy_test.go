package tiering

import (
	"container/list"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

func TestPlan(t *testing.T) {
	base := Policy{Limit: 1000}
	census := func(old, young, pinned int64) (c Census) {
		now := uint32(noon.Unix())
		c.Add(Coldness(now, now-1_000_000), false, old/2)
		c.Add(Coldness(now, now-10_000), false, old-old/2)
		c.Add(Coldness(now, now-5), true, young)
		c.Pinned = pinned
		return c
	}
	for _, c := range []struct {
		name   string
		change func(*Policy)
		u      Usage
		demote int64
		urgent bool
		short  bool
		why    string
	}{
		{"no policy", func(p *Policy) { *p = Policy{} }, Usage{Live: 5000, Files: 5000}, 0, false, false, "no policy"},
		{"below", nil, Usage{Live: 899, Files: 899}, 0, false, false, "less than 90 %"},
		{"high", nil, Usage{Live: 900, Files: 900, Census: census(800, 0, 0)}, 100, false, false, "100 B leave"},
		{"young stay", nil, Usage{Live: 950, Files: 950, Census: census(60, 800, 0)}, 60, false, false, "younger"},
		{"urgent", nil, Usage{Live: 1000, Files: 1000, Census: census(60, 800, 0)}, 200, true, false, "over its limit"},
		{"pinned", nil, Usage{Live: 1000, Files: 1000, Census: census(0, 0, 1000)}, 0, true, true, "pinned"},
		{"out of reach", nil, Usage{Live: 1000, Files: 1000, Cold: "unplugged", Census: census(800, 0, 0)}, 0, true, true, "unplugged"},
		{"garbage", nil, Usage{Live: 500, Files: 950, Census: census(500, 0, 0)}, 0, false, false, "compacted"},
		{"paused", func(p *Policy) { p.Paused = true }, Usage{Live: 950, Files: 950, Census: census(800, 0, 0)}, 0, false, false, "paused"},
		{"paused and full", func(p *Policy) { p.Paused = true }, Usage{Live: 1000, Files: 1000, Census: census(800, 0, 0)}, 200, true, false, "200 B leave"},
		{"at night", func(p *Policy) { p.Hours = "22:00-06:00" }, Usage{Live: 950, Files: 950, Census: census(800, 0, 0)}, 0, false, false, "22:00"},
		{"by day", func(p *Policy) { p.Hours = "11:00-13:00" }, Usage{Live: 950, Files: 950, Census: census(800, 0, 0)}, 150, false, false, "150 B leave"},
	} {
		p := base
		if c.change != nil {
			c.change(&p)
		}
		c.u.Now = noon
		plan := p.Plan(c.u)
		if why := strings.Join(plan.Why, "; "); plan.Demote != c.demote || plan.Urgent != c.urgent || plan.Short != c.short || !strings.Contains(why, c.why) {
			t.Errorf("%s: %+v, want %d bytes, urgent %v, short %v, because %q", c.name, plan, c.demote, c.urgent, c.short, c.why)
		}
	}
}

func TestPolicyValidate(t *testing.T) {
	for _, p := range []Policy{
		{}, {Limit: 1}, {Limit: 1, High: 100, Low: 100}, {Limit: 1, High: 10}, {Limit: 1, MinAge: -1}, {Limit: 1, Hours: "22:00-06:00"},
	} {
		if err := p.Validate(); err != nil {
			t.Errorf("%+v: %v", p, err)
		}
	}
	for _, p := range []Policy{
		{Limit: -1}, {High: 90}, {Limit: 1, High: 101}, {Limit: 1, Low: 95}, {Limit: 1, Low: -1}, {Limit: 1, Window: -1},
		{Limit: 1, MinAge: maxSeconds + 1}, {Limit: 1, Rate: 1}, {Limit: 1, Hours: "22-6"}, {Limit: 1, Hours: "25:00-06:00"},
	} {
		if err := p.Validate(); !errors.Is(err, ErrPolicy) {
			t.Errorf("%+v: %v", p, err)
		}
	}
}

// The classes are in the order of scores.
func TestColdness(t *testing.T) {
	now := uint32(noon.Unix())
	last := -1
	for _, score := range []uint32{0, 1000, now / 2, now - 100_000, now - 1000, now - 1, now, now + 1, now + 1000, now + 1_000_000, 1<<32 - 1} {
		class := Coldness(now, score)
		if class < last || class < 0 || class >= coldness {
			t.Errorf("score %d: class %d after %d", score, class, last)
		}
		last = class
	}
}

func blockOf(n int) (id [32]byte) {
	rng := rand.New(rand.NewPCG(uint64(n), 1))
	for i := 0; i < len(id); i += 8 {
		binary.LittleEndian.PutUint64(id[i:], rng.Uint64())
	}
	return id
}

func TestHeatTouch(t *testing.T) {
	h := NewHeat(0)
	a, now := blockOf(1), uint32(1_000_000)
	for _, step := range []struct {
		after uint32
		again bool
	}{{0, false}, {5, false}, {6, true}, {3000, true}, {5000, false}, {60, true}} {
		now += step.after
		if got := h.Touch(a, now, 3600); got != step.again {
			t.Errorf("at %d: again %v", now, got)
		}
	}
	// A block that is used twice as often is hotter, now and later.
	b := blockOf(2)
	for i := range uint32(20) {
		h.Touch(a, now+i*100, 3600)
		if i%2 == 0 {
			h.Touch(b, now+i*100, 3600)
		}
	}
	_, wa := h.Of(a)
	_, wb := h.Of(b)
	if wa <= wb || wa < now {
		t.Errorf("heats are 1 at %d and %d", wa-now, wb-now)
	}
	// 300,000 blocks that are read once push neither out of the 8192 entries.
	for i := range 300_000 {
		h.Touch(blockOf(10+i), now+2000, 3600)
	}
	if _, w := h.Of(a); w != wa {
		t.Error("a scan has pushed a warm block out")
	}
}

func TestHeatFile(t *testing.T) {
	h := NewHeat(0)
	for i := range 100 {
		h.Touch(blockOf(i), 1000, 3600)
		if i%2 == 0 {
			h.Touch(blockOf(i), 2000, 3600)
		}
	}
	b := h.Encode()
	if len(b) != 16+100*12 {
		t.Errorf("%d bytes", len(b))
	}
	for _, blocks := range []int64{0, 1 << 20} {
		g := NewHeat(blocks)
		if err := g.Decode(b); err != nil {
			t.Fatal(err)
		}
		for i := range 100 {
			s, w := h.Of(blockOf(i))
			if s2, w2 := g.Of(blockOf(i)); s2 != s || w2 != w {
				t.Errorf("block %d: %d %d, want %d %d", i, s2, w2, s, w)
			}
		}
	}
	for i := range b {
		bad := append([]byte{}, b...)
		bad[i] ^= 1
		if NewHeat(0).Decode(bad) == nil || NewHeat(0).Decode(b[:i]) == nil {
			t.Fatalf("byte %d: damage is taken for heat", i)
		}
	}
}

func FuzzHeatFile(f *testing.F) {
	f.Add(NewHeat(0).Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		h := NewHeat(0)
		if h.Decode(b) == nil && len(h.Encode()) > len(b) {
			t.Error("more than there was")
		}
	})
}

// A world is tiers of blocks of one byte each, which the policy moves.
type world struct {
	p       Policy
	heat    *Heat
	hot     map[int]uint32 // block -> when it came
	wanted  map[int]bool
	now     uint32
	hits    int
	moves   int
	moved   map[int]int
	usage   Usage
	counted uint32
}

func newWorld(blocks, hot int) *world {
	w := &world{p: Policy{Limit: int64(hot), MinAge: 600, Window: 40_000, High: 95, Low: 85}, heat: NewHeat(1 << 20), hot: make(map[int]uint32), wanted: make(map[int]bool), moved: make(map[int]int), now: 1_000_000}
	for i := range blocks {
		w.hot[i] = w.now
	}
	w.now += 10_000
	w.demote()
	w.moves, w.moved = 0, make(map[int]int)
	return w
}

func (w *world) census() {
	w.usage = Usage{Now: time.Unix(int64(w.now), 0).UTC(), Live: int64(len(w.hot)), Files: int64(len(w.hot))}
	for id, came := range w.hot {
		seen, warm := w.heat.Of(blockOf(id))
		w.usage.Census.Add(Coldness(w.now, max(came, warm)), Young(w.p, w.now, came, seen, warm), 1)
	}
	w.counted = w.now
}

func (w *world) demote() {
	if !w.p.WithDefaults().Due(int64(len(w.hot)), int64(len(w.hot))) {
		return
	}
	w.census()
	plan := w.p.Plan(w.usage)
	left := plan.Demote
	for id, came := range w.hot {
		seen, warm := w.heat.Of(blockOf(id))
		if left > 0 && Coldness(w.now, max(came, warm)) <= plan.Class && (plan.Urgent || !Young(w.p, w.now, came, seen, warm)) {
			delete(w.hot, id)
			w.move(id)
			left--
		}
	}
}

func (w *world) move(id int) { w.moves++; w.moved[id]++ }

func (w *world) use(id int) {
	w.now++
	if _, ok := w.hot[id]; ok {
		w.hits++
		w.heat.Touch(blockOf(id), w.now, uint32(w.p.Window))
	} else if w.heat.Touch(blockOf(id), w.now, uint32(w.p.Window)) {
		w.wanted[id] = true
	}
	if w.now%60 == 0 {
		w.round()
	}
}

func (w *world) round() {
	w.demote()
	if len(w.wanted) > 0 && w.now-w.counted > uint32(w.p.Window)/16 {
		w.census()
	}
	for id := range w.wanted {
		w.usage.Now, w.usage.Live = time.Unix(int64(w.now), 0).UTC(), int64(len(w.hot))
		if _, warm := w.heat.Of(blockOf(id)); w.p.Welcome(&w.usage, warm, 1) {
			w.hot[id] = w.now
			w.move(id)
		}
	}
	clear(w.wanted)
}

// lruHits is what the same trace hits in a tier of the same size that always
// keeps what was used last, and how many blocks it has to bring in.
func lruHits(trace []int, size int) (hits, moves int) {
	order, at := list.New(), make(map[int]*list.Element)
	for _, id := range trace {
		if e, ok := at[id]; ok {
			hits++
			order.MoveToFront(e)
			continue
		}
		moves++
		at[id] = order.PushFront(id)
		if order.Len() > size {
			delete(at, order.Remove(order.Back()).(int))
		}
	}
	return hits, moves
}

// TestPolicyOnTraces compares the policy with LRU on traces over four times the
// hot tier. It must hit more, or about as much, and move far less.
func TestPolicyOnTraces(t *testing.T) {
	const blocks, hot = 4000, 1000
	n := 400_000
	if testing.Short() {
		n = 150_000
	}
	traces := map[string]func(rng *rand.Rand) []int{
		"zipf": func(rng *rand.Rand) (tr []int) {
			z := rand.NewZipf(rng, 1.1, 20, blocks-1)
			for range n {
				tr = append(tr, int(z.Uint64()*1237%blocks))
			}
			return tr
		},
		"scan": func(rng *rand.Rand) (tr []int) {
			z := rand.NewZipf(rng, 1.1, 20, blocks-1)
			for len(tr) < n {
				for range 40_000 {
					tr = append(tr, int(z.Uint64()*1237%blocks))
				}
				for id := range blocks {
					tr = append(tr, id)
				}
			}
			return tr
		},
		"loop": func(*rand.Rand) (tr []int) {
			for i := range n {
				tr = append(tr, i%(2*hot))
			}
			return tr
		},
	}
	for name, make := range traces {
		trace := make(rand.New(rand.NewPCG(1, 2)))
		w := newWorld(blocks, hot)
		for i, id := range trace {
			if i == len(trace)/2 { // warmed up
				w.hits, w.moves = 0, 0
				clear(w.moved)
			}
			w.use(id)
		}
		all, _ := lruHits(trace[:len(trace)/2], hot)
		hits, moves := lruHits(trace, hot)
		hits -= all
		most := 0
		for _, m := range w.moved {
			most = max(most, m)
		}
		t.Logf("%s: %.1f %% of hits, LRU %.1f %%; %d moves, LRU %d; a block at most %d times", name,
			200*float64(w.hits)/float64(len(trace)), 200*float64(hits)/float64(len(trace)), w.moves, moves, most)
		if float64(w.hits) < 0.97*float64(hits) {
			t.Errorf("%s: %d hits, LRU has %d", name, w.hits, hits)
		}
		if w.moves > moves/10 {
			t.Errorf("%s: %d moves, LRU %d", name, w.moves, moves)
		}
		// A window has to pass before a block can have become so much hotter again.
		if windows := len(trace)/2/int(w.p.Window) + 2; most > 2*windows {
			t.Errorf("%s: a block was moved %d times in %d windows", name, most, windows)
		}
	}
}

func BenchmarkHeatTouch(b *testing.B) {
	h := NewHeat(1 << 20)
	ids := make([][32]byte, 1<<16)
	for i := range ids {
		ids[i] = blockOf(i)
	}
	b.ResetTimer()
	for i := range b.N {
		h.Touch(ids[i&(1<<16-1)], uint32(1000+i>>10), 3600)
	}
}
