package store

import "sync"

// A change is what happened to a block since the last cut. Index rows are
// written by the committer alone, which adds the changes up; so counting a
// reference costs no look-up, and rows need no lock.
type change struct {
	delta int64
	fresh bool        // Put stored it
	came  bool        // from another store, which counts it as new there
	dead  *Entry      // the sweep took it; its last row
	move  *relocation // a copy of its record is to be used instead
}

// settled reports whether the block is where its row says and will stay there.
func (c change) settled() bool { return !c.fresh && c.dead == nil && c.move == nil }

// pending is what has happened to blocks since the last cut, and which of them the sweep leaves
// alone. A Put, the sweep and the cut of a commit change it under one hold of mu, so that each sees
// all that another did or nothing.
type pending struct {
	mu          sync.Mutex
	changes     map[ID]change
	fresh       map[uint64]int // segment -> blocks appended and not yet committed
	holds       holds
	dropped     uint64  // counts the references that were taken back
	sweepPauses int     // callers of PauseSweep
	objects     objects // what Totals.Objects gains
}

func newPending() pending {
	return pending{changes: make(map[ID]change), fresh: make(map[uint64]int), holds: holds{pins: make(map[ID]int)}}
}

// Ref adds delta references to the block. Call it inside Update, together with
// the rows that make the reference. (I4)
func (pd *pending) Ref(id ID, delta int64) {
	pd.mu.Lock()
	defer pd.mu.Unlock()
	pd.ref(id, delta)
}

// ref does so; the caller holds mu.
func (pd *pending) ref(id ID, delta int64) {
	if delta < 0 {
		pd.dropped++
	}
	c := pd.changes[id]
	c.delta += delta
	pd.changes[id] = c
}

// note keeps a block for whoever holds, before it is looked up, or the sweep could
// come in between.
func (pd *pending) note(id ID) {
	pd.mu.Lock()
	defer pd.mu.Unlock()
	pd.holds.note(id)
}

// generationSize is how many blocks a generation notes before the next Hold
// starts another, so that holds which overlap without end still let go.
const generationSize = 4096

// holds are the blocks that the sweep must leave alone although nothing refers
// to them. Generations are in order of age. A hold keeps all that is noted in
// its own generation and in later ones. pending.mu guards it.
type holds struct {
	generations []*generation
	pins        map[ID]int
}

type generation struct {
	holders int
	ids     map[ID]struct{}
}

// note keeps id for whoever holds now. Without a holder nobody asked for it.
func (h *holds) note(id ID) {
	if n := len(h.generations); n > 0 {
		h.generations[n-1].ids[id] = struct{}{}
	}
}

func (h *holds) enter() *generation {
	n := len(h.generations)
	// A full generation is not added to, so that its blocks can be let go of although holds overlap
	// for ever.
	if n == 0 || len(h.generations[n-1].ids) >= generationSize {
		h.generations = append(h.generations, &generation{ids: make(map[ID]struct{})})
		n++
	}
	g := h.generations[n-1]
	g.holders++
	return g
}

func (h *holds) leave(g *generation) {
	g.holders--
	// From the oldest on: a hold covers what was noted in later generations, too, so that one of
	// these that has ended stays while an older hold lasts.
	for len(h.generations) > 0 && h.generations[0].holders == 0 {
		h.generations = h.generations[1:]
	}
}

func (h *holds) has(id ID) bool {
	if h.pins[id] > 0 {
		return true
	}
	for _, g := range h.generations {
		if _, ok := g.ids[id]; ok {
			return true
		}
	}
	return false
}

// Hold keeps the sweep away from every block that is Put until the function
// that it returns is called, for callers that are between Put and Ref. Holds
// are cheap, may overlap and nest, and nobody waits for them; but all blocks
// put meanwhile are remembered, so for long work use a Pin.
func (pd *pending) Hold() (release func()) {
	pd.mu.Lock()
	defer pd.mu.Unlock()
	g := pd.holds.enter()
	return func() {
		pd.mu.Lock()
		defer pd.mu.Unlock()
		pd.holds.leave(g)
	}
}

// PauseSweep has the sweep stand still until the function that it returns is called
// once: for whoever builds on what was referred to at one instant, and may not be
// any more. Meanwhile nothing that is deleted gives space back.
func (pd *pending) PauseSweep() (release func()) {
	pd.mu.Lock()
	defer pd.mu.Unlock()
	pd.sweepPauses++
	return func() {
		pd.mu.Lock()
		defer pd.mu.Unlock()
		pd.sweepPauses--
	}
}

// A Pin keeps chosen blocks from the sweep, for as long as it takes. It lives
// in memory only: after a crash the sweep takes what nothing refers to. A Pin
// is for one goroutine at a time.
type Pin struct {
	held *pending
	ids  map[ID]int
}

// NewPin returns a Pin of nothing. The caller releases it.
func (pd *pending) NewPin() *Pin { return &Pin{held: pd, ids: make(map[ID]int)} }

// Add pins blocks. The caller makes sure that they are there and stay so until
// Add returns: by Hold, by another Pin, or by a reference.
func (p *Pin) Add(ids ...ID) {
	p.held.mu.Lock()
	defer p.held.mu.Unlock()
	for _, id := range ids {
		p.ids[id]++
		p.held.holds.pins[id]++
	}
}

// Drop takes back one Add of each.
func (p *Pin) Drop(ids ...ID) {
	p.held.mu.Lock()
	defer p.held.mu.Unlock()
	for _, id := range ids {
		p.drop(id, 1)
	}
}

// Release takes back all that was added. The Pin can be used again.
func (p *Pin) Release() {
	p.held.mu.Lock()
	defer p.held.mu.Unlock()
	for id, n := range p.ids {
		p.drop(id, n)
	}
}

func (p *Pin) drop(id ID, n int) {
	n = min(n, p.ids[id])
	if p.ids[id] -= n; p.ids[id] == 0 {
		delete(p.ids, id)
	}
	pins := p.held.holds.pins
	if pins[id] -= n; pins[id] == 0 {
		delete(pins, id)
	}
}
