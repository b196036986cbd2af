package place

import (
	"cmp"
	"slices"
)

// Choose returns the node that a new copy of the volume goes to, and whether that shares its zone
// with another copy. NoTarget, if there is none; empty otherwise.
func Choose(f Facts, vol Volume) (node string, shared bool, why Reason) {
	node, shared, ok := viewOf(f.sortedNodes()).target(vol)
	if !ok {
		return "", false, NoTarget
	}
	return node, shared, ""
}

// Next returns what to do now so that each volume has the copies that are wanted, on nodes that
// stay, and no others.
func Next(f Facts) Plan {
	v := newView(f)
	if why := v.held(); why != "" {
		return Plan{Held: why}
	}
	var p Plan
	// Volumes with the fewest copies first: they are the next to be lost, and a plan has an end.
	order := make([]*Volume, len(v.Volumes))
	for i := range v.Volumes {
		order[i] = &v.Volumes[i]
	}
	left := func(vol *Volume) int { return v.count(*vol, Writer, good) + v.count(*vol, Mirror, good) }
	slices.SortStableFunc(order, func(a, b *Volume) int { return cmp.Compare(left(a), left(b)) })
	// Mirrors before vaults: an acknowledged write that only one machine has is in more danger than
	// a snapshot.
	for _, kind := range []Kind{Mirror, Vault} {
		if kind == Vault { // among those that are written by one machine, the ones that it alone has
			vaults := func(vol *Volume) int { return v.count(*vol, Vault, good) }
			slices.SortStableFunc(order, func(a, b *Volume) int {
				return cmp.Or(cmp.Compare(left(a), left(b)), cmp.Compare(vaults(a), vaults(b)))
			})
		}
		for _, vol := range order {
			v.makeMissing(&p, vol, kind)
		}
	}
	for _, vol := range order {
		v.dropExcess(&p, *vol)
	}
	return p
}

func (p *Plan) full(r Rules) bool { return len(p.Steps) >= r.PerRound }

// makeMissing plans the copies of the kind that the volume lacks.
func (v *view) makeMissing(p *Plan, vol *Volume, kind Kind) {
	missing := v.wanted(*vol, kind) - v.count(*vol, kind, good, filling, awaited)
	for ; missing > 0 && !p.full(v.Rules); missing-- {
		from, ok := v.source(*vol, kind)
		if !ok {
			p.Blocked = append(p.Blocked, Blocked{Volume: vol.ID, Kind: kind, Why: NoSource})
			return
		}
		node, shared, ok := v.target(*vol)
		if !ok {
			p.Blocked = append(p.Blocked, Blocked{Volume: vol.ID, Kind: kind, Why: NoTarget})
			return
		}
		s := Step{
			Do: Make, Volume: vol.ID, Kind: kind, Node: node, From: from, Bytes: vol.Bytes, Shared: shared,
			Why: v.whyMissing(*vol, kind),
		}
		p.Steps = append(p.Steps, s)
		// The next choice sees this one.
		vol.put(Copy{Node: node, Kind: kind, State: Making})
		v.filling[node]++
		v.nodes[node].take(v.room(vol.Bytes))
	}
}

func (v *view) whyMissing(vol Volume, kind Kind) Reason {
	for _, c := range vol.Copies {
		if !v.stays(c) && v.standing(c) == good && (c.Kind == kind || c.Kind == Writer && kind == Mirror) {
			return Leaving
		}
	}
	return Missing
}

// put sets the volume's copy on a node.
func (vol *Volume) put(c Copy) {
	vol.Copies = slices.DeleteFunc(vol.Copies, func(old Copy) bool { return old.Node == c.Node })
	vol.Copies = append(vol.Copies, c)
}

// dropExcess plans at most one removal, or one change of writers: what a second would rest on is
// known when the first is done.
func (v *view) dropExcess(p *Plan, vol Volume) {
	if p.full(v.Rules) {
		return
	}
	w, ok := vol.writer()
	if !ok || v.standing(w) != good {
		return // whoever is to write may need any of the others
	}
	if !v.stays(w) {
		v.handOver(p, vol, w)
		return
	}
	for _, kind := range []Kind{Mirror, Vault} {
		if c, ok := v.droppable(vol, kind); ok {
			why := Excess
			switch {
			case v.nodes[c.Node] == nil:
				why = Removed
			case !v.stays(c):
				why = Leaving
			}
			p.Steps = append(p.Steps, Step{Do: Drop, Volume: vol.ID, Kind: kind, Node: c.Node, Why: why})
			return
		}
	}
}

// handOver lets a mirror that stays write, once there are as many as will be wanted.
func (v *view) handOver(p *Plan, vol Volume, w Copy) {
	if !vol.MayMove {
		p.Blocked = append(p.Blocked, Blocked{Volume: vol.ID, Kind: Writer, Node: w.Node, Why: InUse})
		return
	}
	if v.count(vol, Mirror, good) < v.wanted(vol, Mirror) {
		return
	}
	var to Node
	var found bool
	for _, c := range vol.Copies {
		if n := v.nodes[c.Node]; c.Kind == Mirror && v.stays(c) && v.standing(c) == good {
			if !found || rendezvous(vol.ID, n.Name) < rendezvous(vol.ID, to.Name) {
				to, found = *n, true
			}
		}
	}
	p.Steps = append(p.Steps, Step{Do: Hand, Volume: vol.ID, Kind: Writer, Node: to.Name, From: w.Node, Why: Leaving})
}

// droppable returns the copy of the kind that is best removed, if one may be (P1, P2).
func (v *view) droppable(vol Volume, kind Kind) (Copy, bool) {
	enough := v.count(vol, kind, good) - v.wanted(vol, kind)
	zones := len(v.zones(vol, ""))
	var best Copy
	var bestRank []int64
	for _, c := range vol.Copies {
		stays := v.stays(c)
		n := v.nodes[c.Node]
		// That a node was removed is a decision, and nobody waits for what it had.
		seen := n == nil || max(c.Unseen, n.Unseen) == 0
		if c.Kind != kind || !seen || enough < 0 || stays && c.State != Bad && enough == 0 {
			continue
		}
		if c.State == Making && stays {
			continue // somebody wanted it; when it is made, the worst one goes
		}
		// First what is leaving, then what is no copy, then one whose zone has another, then the
		// one on the fullest disk.
		rank := []int64{0, 0, 0, 0}
		if !stays {
			rank[0] = 1
		}
		if c.State == Bad {
			rank[1] = 1
		}
		if len(v.zones(vol, c.Node)) == zones {
			rank[2] = 1
		}
		if n != nil && n.Disk != nil {
			rank[3] = n.Disk.fill(0)
		}
		if bestRank == nil || slices.Compare(rank, bestRank) > 0 {
			best, bestRank = c, rank
		}
	}
	return best, bestRank != nil
}
