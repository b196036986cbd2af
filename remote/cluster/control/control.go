// Package control is what a cluster's controller thinks with: it turns what the register and the
// nodes say into the facts that package place decides by, and what that has decided into what is
// shown. All of it is a pure function; the agent acts.
//
// A vault that is in the register is a copy only when its node says so: until then it is being
// made, and nothing is dropped on its account.
package control

import (
	"slices"
	"strings"
	"time"

	"github.com/quarxtor/quarxfs/remote/cluster"
	"github.com/quarxtor/quarxfs/remote/cluster/health"
	"github.com/quarxtor/quarxfs/remote/cluster/place"
)

// A Silence is since when nobody has vouched for a node, or for a volume on it. What the register
// says of nodes that are down outlives a controller, this does not: then it is begun anew.
type Silence map[string]time.Time

func (s Silence) key(node, volume string) string { return node + "/" + volume } // names have no slash

// last is for how long there is silence, which is more than 0: what is not seen is not seen.
func (s Silence) last(key string, now time.Time) time.Duration {
	if _, ok := s[key]; !ok && s != nil {
		s[key] = now
	}
	if since, ok := s[key]; ok {
		return max(1, now.Sub(since))
	}
	return 1
}

// FactsOf returns what place decides by, with the volumes in the order of f's, and the nodes by
// name. sizes are what the volumes had last, by ID, for those whose home does not say. A nil
// Silence remembers nothing: what is silent was seen a moment ago.
func FactsOf(f health.Facts, sizes map[string]int64, s Silence) place.Facts {
	f = f.Indexed()
	p := place.Facts{Rules: place.DefaultRules(), RolledBack: f.GoneBack || len(f.Ahead()) > 0}
	p.Rules.RepairAfter = f.Cluster.RepairAfter()
	quiet := make(map[string]bool)
	silent := func(node, volume string) time.Duration {
		quiet[s.key(node, volume)] = true
		return s.last(s.key(node, volume), f.AsOf)
	}
	for _, n := range f.Nodes {
		p.Nodes = append(p.Nodes, nodeOf(f, n, silent))
	}
	slices.SortFunc(p.Nodes, func(a, b place.Node) int { return strings.Compare(a.Name, b.Name) })
	for _, v := range f.Volumes {
		p.Volumes = append(p.Volumes, volumeOf(f, v, sizes, silent))
	}
	for key := range s { // what has been heard again is silent from then on, if it is
		if !quiet[key] {
			delete(s, key)
		}
	}
	return p
}

func nodeOf(f health.Facts, n health.NodeFacts, silent func(node, volume string) time.Duration) place.Node {
	p := place.Node{Name: n.Name, Zone: n.Zone, Data: n.Has(cluster.RoleData), Draining: n.State == cluster.StateDraining}
	switch {
	case n.Said == nil && n.DownSince != nil:
		p.Unseen = max(1, f.AsOf.Sub(*n.DownSince))
	case n.Said == nil || !n.Up:
		p.Unseen = silent(n.Name, "")
	}
	if n.Said != nil {
		p.Disk = diskOf(n)
	}
	return p
}

// diskOf is what the node may use of its disk, which its capacity bounds.
func diskOf(n health.NodeFacts) *place.Disk {
	d := place.Disk{Size: n.Said.Used + n.Said.Free, Free: n.Said.Free}
	if n.Capacity > 0 && n.Capacity < d.Size {
		d.Size = n.Capacity
		d.Free = min(d.Free, max(0, n.Capacity-n.Said.Used))
	}
	return &d
}

func volumeOf(f health.Facts, v cluster.Volume, sizes map[string]int64, silent func(node, volume string) time.Duration) place.Volume {
	home := f.HomeOf(v)
	p := place.Volume{ID: v.Name, Bytes: sizes[v.ID], Vaults: v.Copies - 1}
	if home != nil && home.Online {
		p.Bytes = home.Bytes
	}
	// A new home that is being filled, and a node that knows nothing of the store that it is to
	// have, are no copies: as long as that is so, no vault is dropped.
	w := place.Copy{Node: v.Home, Kind: place.Writer, State: place.Made}
	if n := f.NodeOf(v.Home); v.From != nil || n != nil && n.Said != nil && home == nil {
		w.State = place.Making
	}
	p.Copies = append(p.Copies, w)
	newest := newestOf(f, v)
	for _, name := range v.Vaults {
		c := place.Copy{Node: name, Kind: place.Vault, State: place.Making}
		has, answered := f.CopyOf(v, name)
		switch {
		case answered && has != nil && has.Error != "":
			c.Unseen = silent(name, v.Name) // it is there, and cannot look
		case has != nil && has.Newest != nil:
			c.Age = max(0, f.AsOf.Sub(has.Newest.Created))
			c.State = stateOf(v, has, newest)
			// With damaged blocks, which may be its own, it is not counted on at all.
			c.Behind = c.State == place.Making && has.Bad == 0
		}
		p.Copies = append(p.Copies, c)
	}
	return p
}

// newestOf is the newest snapshot that a vault of the volume has; nil: none.
func newestOf(f health.Facts, v cluster.Volume) (newest *health.Snapshot) {
	for _, name := range v.Vaults {
		has, _ := f.CopyOf(v, name)
		if has != nil && has.Error == "" && has.Newest != nil && (newest == nil || cluster.NewerSnapshot(has.Newest.Name, newest.Name) > 0) {
			newest = has.Newest
		}
	}
	return newest
}

// stateOf tells a vault that may stand for another one from one that lags behind it. Snapshots
// reach vaults at different times, so a newer one elsewhere says nothing yet within the RPO.
func stateOf(v cluster.Volume, has *health.Copy, newest *health.Snapshot) place.CopyState {
	mine, _, _ := cluster.ParseSnapshotName(has.Newest.Name)
	last, _, _ := cluster.ParseSnapshotName(newest.Name)
	switch {
	case has.Bad > 0: // nobody knows of which volume
		return place.Making
	case mine < last: // their times are of two clocks
		return place.Making
	case newest.Created.Sub(has.Newest.Created) > time.Duration(v.RPO)*time.Second:
		return place.Making
	}
	return place.Made
}

// Repairs are the volumes that lack a copy, with the node that gets it or why there is none.
func Repairs(f place.Facts, p place.Plan, now time.Time) map[string]cluster.Repair {
	found := make(map[string]cluster.Repair)
	for _, b := range p.Blocked {
		if b.Kind == place.Vault {
			found[b.Volume] = cluster.Repair{Why: string(b.Why), Since: now}
		}
	}
	for _, s := range p.Steps {
		if s.Do == place.Make {
			found[s.Volume] = cluster.Repair{Node: s.Node, Why: string(s.Why), Since: now}
		}
	}
	for _, v := range f.Volumes {
		made := 0
		var filled []string
		for _, c := range v.Copies {
			switch {
			case c.Kind != place.Vault || leaves(f, c.Node):
			case c.State == place.Made:
				made++
			default:
				filled = append(filled, c.Node)
			}
		}
		// What the plan has a step for is named by that: it is the newer word.
		if _, ok := found[v.ID]; !ok && made < v.Vaults && len(filled) > 0 {
			found[v.ID] = cluster.Repair{Node: slices.Min(filled), Why: string(place.Missing), Since: now}
		}
	}
	return found
}

// leaves tells whether what the node has does not count for what is wanted.
func leaves(f place.Facts, node string) bool {
	n, ok := nodeIn(f, node)
	return !ok || n.Draining
}

// nodeIn returns a node of what FactsOf has made: for each copy of each volume one is asked for.
func nodeIn(f place.Facts, name string) (n place.Node, ok bool) {
	i, ok := slices.BinarySearchFunc(f.Nodes, name, func(n place.Node, name string) int {
		return strings.Compare(n.Name, name)
	})
	if ok {
		n = f.Nodes[i]
	}
	return n, ok
}

// A Fill is a vault that is to get what another one has.
type Fill struct{ To, From string }

// Fills are the vaults of a volume that are being made, each with one that is whole.
func Fills(f place.Facts, v place.Volume) (fills []Fill) {
	best := -1
	for j, c := range v.Copies {
		if c.Kind == place.Vault && c.State == place.Made && up(f, c) && (best < 0 || c.Age < v.Copies[best].Age) {
			best = j
		}
	}
	for _, c := range v.Copies {
		if best >= 0 && c.Kind == place.Vault && c.State == place.Making && up(f, c) {
			fills = append(fills, Fill{c.Node, v.Copies[best].Node})
		}
	}
	return fills
}

// up tells whether the copy's node vouches for it.
func up(f place.Facts, c place.Copy) bool {
	n, ok := nodeIn(f, c.Node)
	return ok && c.Unseen == 0 && n.Unseen == 0
}

// Whole tells whether a volume has all the copies that are wanted, each seen on a node that stays,
// and no others.
func Whole(f place.Facts, v place.Volume) bool {
	return len(v.Copies) == 1+v.Vaults && !slices.ContainsFunc(v.Copies, func(c place.Copy) bool {
		return c.State != place.Made || !up(f, c) || c.Kind == place.Vault && leaves(f, c.Node)
	})
}

// Busy tells whether copies are being made.
func Busy(f place.Facts) bool {
	return slices.ContainsFunc(f.Volumes, func(v place.Volume) bool {
		return slices.ContainsFunc(v.Copies, func(c place.Copy) bool {
			return c.Kind == place.Vault && c.State == place.Making && c.Unseen == 0 && !leaves(f, c.Node)
		})
	})
}

// A Left is a copy on a node that is to have none.
type Left struct {
	Volume string
	Kind   place.Kind
	To     string       // the node that gets another one first; empty: enough are there
	Why    place.Reason // why it stays; empty: it goes
}

// LeftOn returns what a node still has, and what becomes of it when it is drained. held: why
// nothing is moved at all.
func LeftOn(f place.Facts, node string) (left []Left, held place.Reason) {
	to := make(map[string]string)
	// What is being made is taken for made, or all that waits for it would seem to be stuck.
	soon := f
	soon.Volumes = slices.Clone(f.Volumes)
	for i := range soon.Volumes {
		v := &soon.Volumes[i]
		v.Copies = slices.Clone(v.Copies)
		for j := range v.Copies {
			if c := &v.Copies[j]; c.Kind == place.Vault && c.State == place.Making && c.Node != node {
				c.State = place.Made
				to[v.ID] = c.Node
			}
		}
	}
	plan := place.Drain(soon, node)
	for _, s := range plan.Steps {
		if s.Do == place.Make {
			to[s.Volume] = s.Node
		}
	}
	stays := make(map[string]place.Reason) // by volume
	for _, b := range plan.Blocked {
		if b.Node == node {
			stays[b.Volume] = b.Why
		}
	}
	for _, v := range f.Volumes {
		for _, c := range v.Copies {
			if c.Node != node {
				continue
			}
			l := Left{Volume: v.ID, Kind: c.Kind, To: to[v.ID]}
			if why, ok := stays[v.ID]; ok {
				l.To, l.Why = "", why
			}
			left = append(left, l)
		}
	}
	return left, plan.Held
}

// NoRoom returns the node with the most bytes of copies, if the others have no room for them, and
// the volumes that would lack a copy then. That there are too few nodes is another matter.
func NoRoom(f place.Facts) (node string, volumes []string) {
	has := make(map[string]int64)
	for _, v := range f.Volumes {
		for _, c := range v.Copies {
			if c.Kind == place.Vault {
				has[c.Node] += v.Bytes
			}
		}
	}
	for _, n := range f.Nodes { // in the order of the register, so that of two the first is named
		if has[n.Name] > 0 && (node == "" || has[n.Name] > has[node]) {
			node = n.Name
		}
	}
	if node == "" {
		return "", nil
	}
	// With volumes of no size only the lack of nodes is left, which is not meant here.
	small := f
	small.Volumes = slices.Clone(f.Volumes)
	for i := range small.Volumes {
		small.Volumes[i].Bytes = 0
	}
	anyway := lacking(small, node)
	for _, name := range lacking(f, node) {
		if _, ok := slices.BinarySearch(anyway, name); !ok {
			volumes = append(volumes, name)
		}
	}
	if len(volumes) == 0 {
		return "", nil
	}
	return node, volumes
}

// lacking are the volumes that cannot be made whole again when the node has died.
func lacking(f place.Facts, node string) (names []string) {
	for _, b := range place.Blast(f, []string{node}, nil).NoRoom {
		if b.Why == place.NoTarget {
			names = append(names, b.Volume)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
