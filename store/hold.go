package store

// generationSize is how many blocks a generation notes before the next Hold
// starts another, so that holds which overlap without end still let go.
const generationSize = 4096

// holds are the blocks that the sweep must leave alone although nothing refers
// to them. Generations are in order of age. A hold keeps all that is noted in
// its own generation and in later ones. Store.pend guards it.
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
func (s *Store) Hold() (release func()) {
	s.pend.Lock()
	defer s.pend.Unlock()
	g := s.pend.holds.enter()
	return func() {
		s.pend.Lock()
		defer s.pend.Unlock()
		s.pend.holds.leave(g)
	}
}

// PauseSweep has the sweep stand still until the function that it returns is called
// once: for whoever builds on what was referred to at one instant, and may not be
// any more. Meanwhile nothing that is deleted gives space back.
func (s *Store) PauseSweep() (release func()) {
	s.pend.Lock()
	defer s.pend.Unlock()
	s.pend.sweepPauses++
	return func() {
		s.pend.Lock()
		defer s.pend.Unlock()
		s.pend.sweepPauses--
	}
}

// A Pin keeps chosen blocks from the sweep, for as long as it takes. It lives
// in memory only: after a crash the sweep takes what nothing refers to. A Pin
// is for one goroutine at a time.
type Pin struct {
	s   *Store
	ids map[ID]int
}

// NewPin returns a Pin of nothing. The caller releases it.
func (s *Store) NewPin() *Pin { return &Pin{s: s, ids: make(map[ID]int)} }

// Add pins blocks. The caller makes sure that they are there and stay so until
// Add returns: by Hold, by another Pin, or by a reference.
func (p *Pin) Add(ids ...ID) {
	p.s.pend.Lock()
	defer p.s.pend.Unlock()
	for _, id := range ids {
		p.ids[id]++
		p.s.pend.holds.pins[id]++
	}
}

// Drop takes back one Add of each.
func (p *Pin) Drop(ids ...ID) {
	p.s.pend.Lock()
	defer p.s.pend.Unlock()
	for _, id := range ids {
		p.drop(id, 1)
	}
}

// Release takes back all that was added. The Pin can be used again.
func (p *Pin) Release() {
	p.s.pend.Lock()
	defer p.s.pend.Unlock()
	for id, n := range p.ids {
		p.drop(id, n)
	}
}

func (p *Pin) drop(id ID, n int) {
	n = min(n, p.ids[id])
	if p.ids[id] -= n; p.ids[id] == 0 {
		delete(p.ids, id)
	}
	pins := p.s.pend.holds.pins
	if pins[id] -= n; pins[id] == 0 {
		delete(pins, id)
	}
}
