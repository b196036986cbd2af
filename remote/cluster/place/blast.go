package place

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"
)

// A Fate is what becomes of a volume.
type Fate string

const (
	Lost      Fate = "lost"             // no copy is left of which it is known that it is whole
	FromVault Fate = "from a vault"     // what is newer than the newest snapshot there is lost
	TakenOver Fate = "by a mirror"      // a mirror writes on; nothing is lost
	Bare      Fate = "with less copies" // the writer goes on
)

// A Loss is what one volume loses.
type Loss struct {
	Volume    string
	Fate      Fate
	Bytes     int64         // that nothing has any more
	Age       time.Duration // of the snapshot that it comes back with
	Copies    int           // that are left
	Unseen    []string      // nodes that may have a copy and are not heard of
	Snapshots []string      // that nothing has any more
}

// A Damage is what is lost when nodes die with their disks, the worst first.
type Damage struct {
	Losses  []Loss
	Bytes   int64     // of all losses
	Repair  int64     // bytes that travel until all is as wanted again
	NoRoom  []Blocked // what cannot be made again
	NoNodes []string  // that were named, and are none
}

var fateRank = map[Fate]int{Lost: 0, FromVault: 1, TakenOver: 2, Bare: 3}

// Blast returns what is lost when all these nodes and all nodes of these zones die with their
// disks. What nobody can see is not counted on.
func Blast(f Facts, nodes, zones []string) Damage {
	v := newView(f)
	var d Damage
	dead := make(map[string]bool)
	for _, name := range nodes {
		if v.nodes[name] == nil {
			d.NoNodes = append(d.NoNodes, name)
		}
		dead[name] = true
	}
	for _, n := range v.Nodes {
		if n.Zone != "" && slices.Contains(zones, n.Zone) {
			dead[n.Name] = true
		}
	}
	for _, vol := range v.Volumes {
		if l, ok := v.loss(vol, dead); ok {
			d.Losses = append(d.Losses, l)
			d.Bytes += l.Bytes
		}
	}
	// Stable, so that volumes of one fate and size keep the order of their IDs.
	slices.SortStableFunc(d.Losses, func(a, b Loss) int {
		return cmp.Or(cmp.Compare(fateRank[a.Fate], fateRank[b.Fate]), cmp.Compare(b.Bytes, a.Bytes))
	})
	d.Repair, d.NoRoom = v.afterwards(f.sorted(), dead)
	return d
}

// loss returns what the volume loses, if anything.
func (v *view) loss(vol Volume, dead map[string]bool) (Loss, bool) {
	l := Loss{Volume: vol.ID, Fate: Lost}
	// Of all copies that are left the one counts that loses least: the writer's, else a mirror,
	// else the newest vault.
	touched := false
	for _, c := range vol.Copies {
		if dead[c.Node] {
			touched = true
			continue
		}
		if !v.comesBack(c) {
			if v.unseen(c) {
				l.Unseen = append(l.Unseen, c.Node)
			}
			continue
		}
		l.Copies++
		fate := map[Kind]Fate{Writer: Bare, Mirror: TakenOver, Vault: FromVault}[c.Kind]
		switch {
		case fateRank[fate] > fateRank[l.Fate]:
			l.Fate, l.Age = fate, c.Age
		case fate == FromVault && l.Fate == FromVault:
			l.Age = min(l.Age, c.Age)
		}
	}
	if !touched {
		return l, false
	}
	if l.Fate == Lost {
		l.Bytes = vol.Bytes
	}
	for _, s := range vol.Snapshots {
		if l.Fate == Lost || !v.anySees(s.Nodes, dead) {
			l.Snapshots = append(l.Snapshots, s.Name)
			if l.Fate != Lost {
				l.Bytes += s.Bytes
			}
		}
	}
	return l, l.Fate != Bare || l.Copies < 1+vol.Mirrors+vol.Vaults || len(l.Snapshots) > 0
}

// comesBack reports whether the volume can be had from the copy. A vault that lags behind the
// others is no copy to drop another one for, but what it has is not lost.
func (v *view) comesBack(c Copy) bool {
	s := v.standing(c)
	return s == good || s == filling && c.Kind == Vault && c.Behind
}

// unseen reports whether nobody knows what there is of a copy.
func (v *view) unseen(c Copy) bool {
	n := v.nodes[c.Node]
	return n != nil && c.State != Bad && max(c.Unseen, n.Unseen) > 0
}

// anySees reports whether one of the nodes lives and is seen.
func (v *view) anySees(nodes []string, dead map[string]bool) bool {
	return slices.ContainsFunc(nodes, func(name string) bool {
		n := v.nodes[name]
		return n != nil && !dead[name] && n.Unseen == 0
	})
}

// afterwards returns how much repair moves, and what it cannot.
func (v *view) afterwards(f Facts, dead map[string]bool) (bytes int64, blocked []Blocked) {
	f.RolledBack, f.Rules.MostDown = false, million // it asks what would be, not whether to begin now
	f.Nodes = slices.DeleteFunc(f.Nodes, func(n Node) bool { return dead[n.Name] })
	for i := range f.Volumes {
		vol := &f.Volumes[i]
		vol.Copies = slices.DeleteFunc(vol.Copies, func(c Copy) bool { return dead[c.Node] })
		if _, ok := vol.writer(); !ok {
			v.promoteAny(vol)
		}
	}
	steps, _, last := forecast(f)
	for _, s := range steps {
		bytes += s.Bytes
	}
	return bytes, last.Blocked
}

// promoteAny makes the first mirror that is whole the writer.
func (v *view) promoteAny(vol *Volume) {
	for i, c := range vol.Copies {
		if c.Kind == Mirror && v.standing(c) == good {
			vol.Copies[i].Kind = Writer
			return
		}
	}
}

// Worst returns the n nodes whose death together loses the most bytes of volumes, fewer if no more
// of them add anything. For one and two nodes it is the worst there is. For more it is found by
// adding what is worst next to what was found, and a worse one may exist.
func Worst(f Facts, n int) []string {
	v := newView(f)
	// A volume is lost with the set of all nodes that have it: any worst set is a union of such.
	lost := make(map[string]int64)
	for _, vol := range v.Volumes {
		var holders []string
		for _, c := range vol.Copies {
			if v.comesBack(c) {
				holders = append(holders, c.Node)
			}
		}
		if len(holders) > 0 && len(holders) <= n {
			lost[strings.Join(holders, "\x00")] += vol.Bytes
		}
	}
	var dead []string
	for len(dead) < n {
		next := worstNext(lost, dead, n)
		if len(next) == len(dead) {
			break
		}
		dead = next
	}
	return dead
}

// worstNext returns the nodes that are dead with those of one set, or of two if both fit, that lose
// the most together.
func worstNext(lost map[string]int64, dead []string, n int) []string {
	sets := slices.Sorted(maps.Keys(lost))
	single := make(map[string]int64) // what one more node loses, beside those that are dead
	for _, set := range sets {
		if rest := without(strings.Split(set, "\x00"), dead); len(rest) == 1 {
			single[rest[0]] += lost[set]
		}
	}
	var best []string
	var bestBytes int64
	consider := func(rest []string, bytes int64) {
		if bytes > bestBytes || bytes == bestBytes && bytes > 0 && slices.Compare(rest, best) < 0 {
			best, bestBytes = rest, bytes
		}
	}
	for _, set := range sets {
		rest := without(strings.Split(set, "\x00"), dead)
		if len(rest) == 0 || len(dead)+len(rest) > n {
			continue
		}
		var bytes int64
		if len(rest) > 1 {
			bytes = lost[set]
		}
		for _, name := range rest {
			bytes += single[name]
		}
		consider(rest, bytes)
	}
	// Two that lose nothing together may each lose much.
	if len(dead)+2 <= n {
		names := slices.SortedFunc(maps.Keys(single), func(a, b string) int {
			return cmp.Or(cmp.Compare(single[b], single[a]), cmp.Compare(a, b))
		})
		if len(names) >= 2 {
			consider(slices.Sorted(slices.Values(names[:2])), single[names[0]]+single[names[1]])
		}
	}
	return slices.Sorted(slices.Values(append(slices.Clone(dead), best...)))
}

func without(names, dead []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(s string) bool { return slices.Contains(dead, s) })
}
