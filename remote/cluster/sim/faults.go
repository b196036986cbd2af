package sim

import (
	"github.com/quarxtor/quarxfs/remote/cluster/mirror"
)

func (m *model) fault(s *state, e event) {
	n := &s.nodes[e.a]
	last := mirror.Index(e.b)
	switch e.kind {
	case kill:
		s.left.kills--
		n.stop()
	case power:
		s.left.powers--
		n.stop()
		n.copy.Log = n.copy.Log.Cut(last)
	case hollow:
		s.left.powers--
		n.stop()
		n.hollow = n.copy.Log.Last
	case startNode:
		n.up = true
		n.starts++
		n.synced = n.copy.Log.Last // opening a store syncs what it goes on from
		n.vow = m.Begun(n.clock)
	case wipe:
		s.left.wipes--
		n.stop()
		// The new copy is made by the cluster as it is now.
		n.copy = mirror.Copy{
			Self: mirror.Member{Node: n.copy.Self.Node, Incarnation: n.copy.Self.Incarnation + 1},
			Seen: s.register.Stamp,
		}
		n.synced, n.older, n.hollow = 0, false, 0
		m.owe(s, n)
	case older:
		s.left.older--
		n.stop()
		n.copy.Log = n.copy.Log.Cut(last)
		n.copy.Promised = n.copy.Log.End().Epoch // or later; the least is the worst
		n.copy.Seen = mirror.Stamp{Generation: n.copy.Seen.Generation, Revision: 1}
		n.synced, n.older = last, true
		n.starts++ // what it answered before is of another disk
		m.owe(s, n)
	}
}

// owe notes that the first disk fails while another copy could go on. Of a second one nothing is
// promised.
func (m *model) owe(s *state, failed *node) {
	used := m.Wipes + m.Older - int(s.left.wipes) - int(s.left.older)
	s.owed = false
	for i := range m.Nodes {
		if n := &s.nodes[i]; n != failed && !n.older && m.mayWrite(s, n) {
			s.owed = used == 1
		}
	}
	if !s.owed && failed.older {
		s.excuse() // there was only one copy, which all could see
	}
}

// excuse ends all promises about what was acknowledged: things go on from an older disk.
func (s *state) excuse() { s.owed, s.excused = false, true }

// stop ends the process, and all that is in memory with it.
func (n *node) stop() {
	n.up, n.wants, n.writes = false, false, false
	n.writer, n.heard = mirror.Writer{}, 0
}

// restore puts the copy of the register in its place. Whoever restores it gives it another
// generation, in which nobody writes before somebody confirms who; or does not, where the bounds
// say so.
func (m *model) restore(s *state) {
	s.left.restores--
	generation := s.register.Stamp.Generation
	s.register, s.swaps = s.backup, nil
	if !m.Silent {
		s.register.Stamp.Generation = generation + 1
	}
}

// unconfirmed reports whether the register was restored and nobody has said who goes on.
func (m *model) unconfirmed(s *state) bool {
	for i := range m.Nodes {
		if s.nodes[i].copy.Seen.Generation != s.register.Stamp.Generation {
			return true
		}
	}
	return false
}

func (m *model) confirm(s *state) {
	var copies []mirror.Copy
	for i := range m.Nodes {
		copies = append(copies, s.nodes[i].copy)
	}
	copies, r := mirror.Confirm(copies, s.register)
	m.swapIn(s, r)
	for i := range m.Nodes {
		n := &s.nodes[i]
		n.copy, n.synced = copies[i], n.copy.Log.Last
		n.writer, n.wants = n.writer.Fence(), false
	}
}
