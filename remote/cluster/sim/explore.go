package sim

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/quarxtor/quarxfs/remote/cluster/mirror"
)

// A Result is what an exploration has found.
type Result struct {
	States   int
	Complete bool     // every state within the bounds was seen
	Broken   string   // which promise; empty: none
	Trace    []string // the events that led there; the shortest there are, when exploring
	Seen     map[string]int
}

func (r Result) String() string {
	if r.Broken == "" {
		return fmt.Sprintf("%d states, complete: %v", r.States, r.Complete)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "after %d states: %s\n", r.States, r.Broken)
	for i, line := range r.Trace {
		fmt.Fprintf(&b, "%4d  %s\n", i+1, line)
	}
	return b.String()
}

// origin is how a state was come to first.
type origin struct {
	from  int32 // the number of the state before
	event event
}

// Explore visits every state that can be come to within the bounds, those with fewer events first,
// until one breaks a promise or there are more than most.
func Explore(bounds Bounds, rules Rules, most int) Result {
	m := &model{bounds, rules}
	first := start(bounds)
	code := &encoder{model: m, used: bounds.Nodes}
	known := map[uint64]struct{}{code.key(&first): {}}
	origins := []origin{{from: -1}}
	r := Result{Seen: make(map[string]int)}
	// A level has the states that take the same number of events. States are large and their
	// origins small, so only two levels are kept.
	level, numbers := []*state{&first}, []int32{0}
	var events []event
	for len(level) > 0 {
		var next []*state
		var nextNumbers []int32
		for i := range level {
			events = m.events(level[i], events[:0])
			for _, e := range events {
				s := m.apply(*level[i], e)
				key := code.key(&s)
				if _, ok := known[key]; ok {
					continue
				}
				known[key] = struct{}{}
				origins = append(origins, origin{numbers[i], e})
				number := int32(len(origins) - 1)
				if broken := m.broken(&s); broken != "" {
					r.States, r.Broken = len(origins), broken
					r.Trace = m.trace(origins, number)
					return r
				}
				m.census(&s, r.Seen)
				if len(origins) >= most {
					r.States = len(origins)
					return r
				}
				next, nextNumbers = append(next, &s), append(nextNumbers, number)
			}
		}
		level, numbers = next, nextNumbers
	}
	r.States, r.Complete = len(origins), true
	return r
}

// trace describes the events up to a state by going through them again.
func (m *model) trace(origins []origin, number int32) []string {
	var path []event
	for ; origins[number].from >= 0; number = origins[number].from {
		path = append(path, origins[number].event)
	}
	s := start(m.Bounds)
	var lines []string
	for i := len(path) - 1; i >= 0; i-- {
		lines = append(lines, path[i].describe(&s))
		s = m.apply(s, path[i])
	}
	return lines
}

// Walk goes one random way of so many events; the same seed goes the same way.
func Walk(bounds Bounds, rules Rules, seed uint64, steps int) Result {
	m := &model{bounds, rules}
	random := rand.New(rand.NewPCG(seed, 0))
	s := start(bounds)
	r := Result{Seen: make(map[string]int)}
	var events []event
	for range steps {
		events = m.events(&s, events[:0])
		if len(events) == 0 {
			break
		}
		e := events[random.IntN(len(events))]
		r.Trace = append(r.Trace, e.describe(&s))
		s = m.apply(s, e)
		r.States++
		m.census(&s, r.Seen)
		if r.Broken = m.broken(&s); r.Broken != "" {
			return r
		}
	}
	return r
}

// census counts what states show, so that a test sees that its bounds let happen what it is about.
func (m *model) census(s *state, seen map[string]int) {
	note := func(what string, is bool) {
		if is {
			seen[what]++
		}
	}
	note("epoch 2", s.register.Epoch >= 2)
	note("epoch 3", s.register.Epoch >= 3)
	note("acked", len(s.acked) > 0)
	note("acked in a later epoch", len(s.acked) > 0 && s.acked[len(s.acked)-1].Epoch > 1)
	note("left behind", len(s.register.InSync) < m.Nodes)
	note("joined", s.register.Epoch >= 2 && len(s.register.InSync) > 1)
	note("removed", s.removed)
	note("owed", s.owed)
	for i := range m.Nodes {
		n := &s.nodes[i]
		note("zombie", n.writes && !n.writer.Fenced && n.writer.Epoch < s.register.Epoch)
		note("other incarnation", n.copy.Self.Incarnation > 1 && s.register.Names(n.copy.Self))
		note("seeded", len(s.logs) > 0 && n.copy.Log.Holds(s.logs[0].End()) && !n.writes)
		note("serves under a vow", m.Ticks > 0 && n.writes && len(n.writer.Peers) > 0 && m.MayServe(n.writer, n.clock))
	}
	note("confirmed", s.register.Stamp.Generation > 1 && s.register.Epoch > 1)
}

// broken names the promise that a state breaks; empty, if it keeps all of them.
func (m *model) broken(s *state) string {
	for i := range m.Nodes {
		n := &s.nodes[i]
		if why := m.mayLose(s, n); why != "" {
			return why
		}
		if !n.up || !n.writes || n.writer.Fenced {
			continue
		}
		if n.writer.Epoch == s.register.Epoch && n.writer.Record.Stamp.Generation == s.register.Stamp.Generation {
			if why := m.ahead(s, n); why != "" {
				return why
			}
		}
		if m.Ticks > 0 && n.writer.Epoch < s.register.Epoch && m.MayServe(n.writer, n.clock) {
			return fmt.Sprintf("%s serves reads in epoch %d, while %s writes in epoch %d", names(i), n.writer.Epoch, s.register.Writer, s.register.Epoch)
		}
	}
	if s.early {
		return "a commit was acknowledged that a counted copy does not have"
	}
	if s.owed && !m.anyHasAll(s) {
		return "one disk failed, another had every acknowledged commit, and no copy that may write has them any more"
	}
	seen := make(map[uint64]mirror.Position)
	for _, o := range s.objects {
		if other, ok := seen[o.name]; ok && other != o.commit {
			return fmt.Sprintf("commits %v and %v have made objects of one name", other, o.commit)
		}
		seen[o.name] = o.commit
	}
	return ""
}

// whole is the part of a copy's log that is there even after a power cut.
func (n *node) whole() mirror.Log {
	last := n.synced
	if n.hollow > 0 {
		last = min(last, n.hollow-1)
	}
	return n.copy.Log.Cut(last)
}

// mayWrite reports whether the copy could become the writer by the record as it is.
func (m *model) mayWrite(s *state, n *node) bool {
	_, _, why := m.Promote(n.copy, s.register, mirror.Vow{}, n.clock)
	return why == ""
}

// mayLose tells what would be lost if the copy became the writer, which it may: each that may has
// every commit that anybody has acknowledged, and each object that it needs.
func (m *model) mayLose(s *state, n *node) string {
	if n.older || s.excused || !m.mayWrite(s, n) {
		return ""
	}
	return lacks(s, n)
}

// lacks tells what a copy would need that it does not have.
func lacks(s *state, n *node) string {
	log := n.whole()
	for _, p := range s.acked {
		if !log.Holds(p) {
			return fmt.Sprintf("commit %d.%d was acknowledged, and %s, which may become the writer, does not have it", p.Epoch, p.Index, n.copy.Self.Node)
		}
	}
	if s.removed && log.Last == 1 {
		return "the object of the first commit was removed, and " + n.copy.Self.Node + ", which may become the writer, needs it"
	}
	return ""
}

// ahead tells which member has something that the writer made and its disk does not have.
func (m *model) ahead(s *state, writer *node) string {
	for i := range m.Nodes {
		n := &s.nodes[i]
		if n == writer || n.older || writer.older || !s.register.Names(n.copy.Self) {
			continue
		}
		// Commits of earlier writers may be there: nobody has acknowledged them.
		if end := n.copy.Log.End(); end.Epoch >= s.register.Since && !writer.writer.Log.Holds(end) {
			return n.copy.Self.Node + " is in sync and has what the writer's disk does not have"
		}
	}
	return ""
}

func (m *model) anyHasAll(s *state) bool {
	for i := range m.Nodes {
		n := &s.nodes[i]
		if m.mayWrite(s, n) && lacks(s, n) == "" {
			return true
		}
	}
	return false
}
