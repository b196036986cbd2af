package place

import (
	"cmp"
	"slices"
)

// A Move takes a copy from one node to another: it is made at To, and what is then one too many is
// the one at From, which Next drops.
type Move struct {
	Volume   string
	Kind     Kind
	From, To string
	Bytes    int64
	Why      Reason
}

// Balance returns moves, one to be done after the other, that bring copies into zones of their own
// and then even out how full the disks are; why there are none, if nothing may be moved now.
//
// It does not begin below Rules.BeginSpread and goes on down to EndSpread, so what is balanced does
// not become unbalanced by a little growth. After each move the target is emptier than the source
// was before, by LeastGain at least. So the fills, sorted with the fullest first, go down in
// lexical order, and no series of moves comes back to where it began.
func Balance(f Facts) (moves []Move, held Reason) {
	p := Next(f)
	if p.Held != "" {
		return nil, p.Held
	}
	if len(p.Steps) > 0 {
		return nil, Busy
	}
	// Zones before disks: an even disk is comfort, and a zone of one's own is a copy more.
	v := newView(f)
	for len(moves) < v.Rules.PerRound {
		m, ok := v.apart()
		if !ok {
			break
		}
		moves = append(moves, m)
		v.move(m)
	}
	for least := v.Rules.BeginSpread; v.spread() > least && len(moves) < v.Rules.PerRound; least = v.Rules.EndSpread {
		m, ok := v.even()
		if !ok {
			break
		}
		moves = append(moves, m)
		v.move(m)
	}
	return moves, ""
}

// move does it in the view.
func (v *view) move(m Move) {
	i, _ := slices.BinarySearchFunc(v.Volumes, m.Volume, func(vol Volume, id string) int { return cmp.Compare(vol.ID, id) })
	vol := &v.Volumes[i]
	vol.put(Copy{Node: m.To, Kind: m.Kind, State: Made})
	vol.Copies = slices.DeleteFunc(vol.Copies, func(c Copy) bool { return c.Node == m.From })
	v.nodes[m.To].take(m.Bytes)
	if d := v.nodes[m.From].Disk; d != nil {
		d.Free = min(d.Size, d.Free+m.Bytes)
	}
}

// weighed returns the nodes whose disks are to be even, the fullest first.
func (v *view) weighed() []*Node {
	var found []*Node
	for i, n := range v.Nodes {
		if n.Data && !n.Draining && n.Unseen == 0 && n.Disk != nil {
			found = append(found, &v.Nodes[i])
		}
	}
	slices.SortStableFunc(found, func(a, b *Node) int { return cmp.Compare(b.Disk.fill(0), a.Disk.fill(0)) })
	return found
}

// spread is the difference between the fullest and the emptiest disk.
func (v *view) spread() int64 {
	nodes := v.weighed()
	if len(nodes) == 0 {
		return 0
	}
	return nodes[0].Disk.fill(0) - nodes[len(nodes)-1].Disk.fill(0)
}

// apart returns a move of a copy out of a zone that another one is in.
func (v *view) apart() (Move, bool) {
	for _, vol := range v.Volumes {
		if !v.whole(vol) || len(v.zones(vol, "")) == len(vol.Copies) {
			continue
		}
		to, shared, ok := v.target(vol)
		if !ok || shared {
			continue
		}
		for _, kind := range []Kind{Mirror, Vault} {
			m := Move{Volume: vol.ID, Kind: kind, To: to, Bytes: vol.Bytes, Why: Apart}
			// Without it there must be as many zones as before, or there is no gain.
			if from, ok := v.dropped(vol, m); ok && len(v.zones(vol, from)) == len(v.zones(vol, "")) {
				m.From = from
				return m, true
			}
		}
	}
	return Move{}, false
}

// dropped returns whose copy Next would drop after the new one was made.
func (v *view) dropped(vol Volume, m Move) (string, bool) {
	vol.Copies = append(slices.Clone(vol.Copies), Copy{Node: m.To, Kind: m.Kind, State: Made})
	target := v.nodes[m.To].Disk
	before := *target
	v.nodes[m.To].take(m.Bytes)
	c, ok := v.droppable(vol, m.Kind)
	*target = before
	return c.Node, ok && c.Node != m.To
}

// even returns the move that lowers most what the fullest disk with a copy to give has.
func (v *view) even() (best Move, ok bool) {
	nodes := v.weighed()
	for _, from := range nodes {
		bestFill := int64(-1)
		for _, vol := range v.Volumes {
			i := slices.IndexFunc(vol.Copies, func(c Copy) bool { return c.Node == from.Name && c.Kind != Writer })
			if i < 0 || !v.whole(vol) {
				continue
			}
			m := Move{Volume: vol.ID, Kind: vol.Copies[i].Kind, From: from.Name, Bytes: vol.Bytes, Why: Uneven}
			if fill, ok := v.bestTarget(&m, vol, nodes); ok && (bestFill < 0 || fill < bestFill) {
				best, bestFill = m, fill
			}
		}
		if bestFill >= 0 {
			return best, true
		}
	}
	return Move{}, false
}

// bestTarget sets the move's target, and returns how full the fuller of both disks is after it.
func (v *view) bestTarget(m *Move, vol Volume, nodes []*Node) (int64, bool) {
	from := v.nodes[m.From].Disk
	zones := v.zones(vol, m.From)
	all := len(v.zones(vol, ""))
	// From the emptiest on: with disks of one size the first that is possible is the best.
	for _, to := range slices.Backward(nodes) {
		after := to.Disk.fill(m.Bytes)
		if after+v.Rules.LeastGain > from.fill(0) {
			continue // a larger disk that is fuller may still do
		}
		apart := len(zones)
		if !zones[to.zone()] {
			apart++
		}
		if apart < all || !v.takes(to, vol) {
			continue
		}
		m.To = to.Name
		if dropped, ok := v.dropped(vol, *m); ok && dropped == m.From {
			return max(after, from.fill(-m.Bytes)), true
		}
	}
	return 0, false
}
