package place

import "slices"

// forecast carries out plans, as if nothing else happened, until there is nothing more to do. It
// returns all steps in their order, and the facts afterwards.
func forecast(f Facts) ([]Step, Facts, Plan) {
	f = f.sorted()
	var all []Step
	for {
		p := Next(f)
		if len(p.Steps) == 0 {
			return all, f, p
		}
		for _, s := range p.Steps {
			all = append(all, s)
			apply(&f, s)
		}
	}
}

// apply changes the facts as the step does when it has succeeded.
func apply(f *Facts, s Step) {
	vol := &f.Volumes[slices.IndexFunc(f.Volumes, func(v Volume) bool { return v.ID == s.Volume })]
	i := slices.IndexFunc(f.Nodes, func(n Node) bool { return n.Name == s.Node })
	switch s.Do {
	case Make:
		// As if it were whole at once: what waits for it is to be seen, too.
		vol.put(Copy{Node: s.Node, Kind: s.Kind, State: Made})
		f.Nodes[i].take(vol.Bytes)
	case Drop:
		vol.Copies = slices.DeleteFunc(vol.Copies, func(c Copy) bool { return c.Node == s.Node })
		if d := f.Nodes[i].Disk; d != nil {
			d.Free = min(d.Size, d.Free+vol.Bytes)
		}
	case Hand:
		for i := range vol.Copies {
			switch vol.Copies[i].Node {
			case s.Node:
				vol.Copies[i].Kind = Writer
			case s.From:
				vol.Copies[i].Kind = Mirror
			}
		}
	}
}

// Drain returns what it takes to empty a node: all steps, as far as facts can tell now, and what
// stays there, with the reason. Held says that nothing may be moved at all.
func Drain(f Facts, node string) Plan {
	f = f.sorted()
	for i := range f.Nodes {
		f.Nodes[i].Draining = f.Nodes[i].Draining || f.Nodes[i].Name == node
	}
	steps, end, last := forecast(f)
	p := Plan{Held: last.Held}
	for _, s := range steps {
		if concerns(f, s.Volume, node) {
			p.Steps = append(p.Steps, s)
		}
	}
	for _, vol := range end.Volumes {
		for _, c := range vol.Copies {
			if c.Node == node {
				p.Blocked = append(p.Blocked, Blocked{Volume: vol.ID, Kind: c.Kind, Node: node, Why: whyStays(last, vol, c)})
			}
		}
	}
	return p
}

func concerns(f Facts, volume, node string) bool {
	i := slices.IndexFunc(f.Volumes, func(v Volume) bool { return v.ID == volume })
	return f.Volumes[i].at(node)
}

// whyStays returns what the last plan says of a copy that could not go.
func whyStays(last Plan, vol Volume, c Copy) Reason {
	if last.Held != "" {
		return last.Held
	}
	for _, b := range last.Blocked {
		if b.Volume == vol.ID && (b.Node == c.Node || b.Node == "") {
			return b.Why
		}
	}
	return TooFew
}

// MayLeave returns what speaks against removing the node now; nothing: it may go. A copy there
// that nobody can see counts as one that is there (P2), so it is not the last one to be let go.
func MayLeave(f Facts, node string) []Blocked {
	v := newView(f)
	if n := v.nodes[node]; n != nil {
		n.Draining = true // what is counted is what stays
	}
	var against []Blocked
	for _, vol := range v.Volumes {
		for _, c := range vol.Copies {
			if c.Node != node {
				continue
			}
			if why := v.whyNeeded(vol, c); why != "" {
				against = append(against, Blocked{Volume: vol.ID, Kind: c.Kind, Node: node, Why: why})
			}
		}
	}
	return against
}

// whyNeeded returns why the copy's node may not leave.
func (v *view) whyNeeded(vol Volume, c Copy) Reason {
	others := v.count(vol, Writer, good) + v.count(vol, Mirror, good) + v.count(vol, Vault, good)
	here := v.standing(c)
	switch {
	case c.State == Made && others == 0:
		return OnlyCopy
	case here != good:
		return "" // it does not count as it is, so nothing becomes less
	case c.Kind == Writer:
		return InUse
	case v.count(vol, c.Kind, good) < v.wanted(vol, c.Kind):
		return TooFew
	}
	return ""
}
