package place

import (
	"cmp"
	"hash/fnv"
	"math/bits"
	"slices"
)

// standing is what a copy counts for.
type standing int

const (
	good    standing = iota // whole and seen
	filling                 // on its way
	awaited                 // unseen, but not for long enough
	gone                    // it has to be made anew
)

// A view has facts by name, and what a plan has added to them.
type view struct {
	Facts
	nodes   map[string]*Node
	filling map[string]int // copies that a node is filled with
}

func newView(f Facts) *view { return viewOf(f.sorted()) }

// viewOf is newView of facts that are copies already.
func viewOf(f Facts) *view {
	v := &view{Facts: f, nodes: make(map[string]*Node, len(f.Nodes)), filling: make(map[string]int)}
	for i := range v.Nodes {
		v.nodes[v.Nodes[i].Name] = &v.Nodes[i]
	}
	for _, vol := range v.Volumes {
		for _, c := range vol.Copies {
			if c.State != Making {
				continue // most of them: no node needs to be looked up
			}
			if n := v.nodes[c.Node]; n != nil && v.standing(c) == filling {
				v.filling[c.Node]++
				// How much of it is written already is not known: what is free may be seen too low,
				// but not too high.
				n.take(v.room(vol.Bytes))
			}
		}
	}
	return v
}

// take lowers what is free.
func (n *Node) take(bytes int64) {
	if n.Disk != nil {
		n.Disk.Free = max(0, n.Disk.Free-bytes)
	}
}

func (v *view) standing(c Copy) standing {
	n := v.nodes[c.Node]
	if n == nil || c.State == Bad {
		return gone
	}
	switch unseen := max(c.Unseen, n.Unseen); {
	case unseen > 0 && unseen >= v.Rules.RepairAfter:
		return gone
	case unseen > 0:
		return awaited
	case c.State == Making:
		return filling
	}
	return good
}

// stays reports whether the copy's node is to keep it.
func (v *view) stays(c Copy) bool {
	n := v.nodes[c.Node]
	return n != nil && !n.Draining
}

// count returns how many copies of the kind on nodes that stay have one of the standings.
func (v *view) count(vol Volume, kind Kind, of ...standing) int {
	found := 0
	for _, c := range vol.Copies {
		if c.Kind == kind && v.stays(c) && slices.Contains(of, v.standing(c)) {
			found++
		}
	}
	return found
}

// writer returns the copy that is written to, if there is one.
func (vol Volume) writer() (Copy, bool) {
	i := slices.IndexFunc(vol.Copies, func(c Copy) bool { return c.Kind == Writer })
	if i < 0 {
		return Copy{}, false
	}
	return vol.Copies[i], true
}

// writes reports whether the volume's writer is there and seen.
func (v *view) writes(vol Volume) bool {
	w, ok := vol.writer()
	return ok && v.standing(w) == good
}

// wanted returns how many copies of the kind nodes that stay have to have. A writer that is to go
// leaves one of the mirrors in its place, so one more is needed.
func (v *view) wanted(vol Volume, kind Kind) int {
	if kind == Vault {
		return vol.Vaults
	}
	if w, ok := vol.writer(); ok && !v.stays(w) && v.standing(w) == good && vol.MayMove {
		return vol.Mirrors + 1
	}
	return vol.Mirrors
}

// whole reports whether the volume has all that is wanted, and nothing else.
func (v *view) whole(vol Volume) bool {
	return v.writes(vol) && v.count(vol, Mirror, good) == vol.Mirrors && v.count(vol, Vault, good) == vol.Vaults &&
		len(vol.Copies) == 1+vol.Mirrors+vol.Vaults
}

// held returns why nothing may be moved.
func (v *view) held() Reason {
	if v.RolledBack {
		return WasRestored
	}
	var all, down int64
	for _, n := range v.Nodes {
		if n.Data {
			all++
			if n.Unseen > 0 {
				down++
			}
		}
	}
	// A single one is the failure that copies are for, also where it is a third of the nodes.
	if down > 1 && share(down, all) > v.Rules.MostDown {
		return ManyDown
	}
	return ""
}

// zone returns what fails together with the node.
func (n *Node) zone() string {
	if n.Zone == "" {
		return "\x00" + n.Name // no zone has that name
	}
	return n.Zone
}

// zones returns those of the copies that count, without the one at skip.
func (v *view) zones(vol Volume, skip string) map[string]bool {
	found := make(map[string]bool)
	for _, c := range vol.Copies {
		if c.Node != skip && v.stays(c) && v.standing(c) != gone {
			found[v.nodes[c.Node].zone()] = true
		}
	}
	return found
}

// room is what must be free for a volume.
func (v *view) room(bytes int64) int64 {
	high, low := bits.Mul64(uint64(max(0, bytes)), uint64(v.Rules.Room))
	if high >= million {
		return 1<<63 - 1
	}
	quotient, _ := bits.Div64(high, low, million)
	return int64(min(quotient, 1<<63-1))
}

// share returns part of whole in millionths, rounded down; at most a million times as much.
func share(part, whole int64) int64 {
	if part <= 0 {
		return 0
	}
	if whole <= 0 {
		return million * million
	}
	high, low := bits.Mul64(uint64(part), million)
	if high >= uint64(whole) {
		return million * million
	}
	quotient, _ := bits.Div64(high, low, uint64(whole))
	return int64(min(quotient, million*million))
}

// fill returns how full the disk is with so many bytes more.
func (d Disk) fill(more int64) int64 { return share(d.Size-d.Free+more, d.Size) }

// takes reports whether the node may be given a copy of the volume.
func (v *view) takes(n *Node, vol Volume) bool {
	if !n.Data || n.Draining || n.Unseen > 0 || n.Disk == nil || v.filling[n.Name] >= v.Rules.AtOnce {
		return false
	}
	if n.Disk.Free < v.room(vol.Bytes) {
		return false
	}
	// A copy that is no longer one is filled again where it is.
	return !slices.ContainsFunc(vol.Copies, func(c Copy) bool { return c.Node == n.Name && c.State != Bad })
}

// target returns the node for a new copy, and whether its zone has one already. Of those that are
// least filled afterwards a hash decides, so that not all volumes go the same way.
func (v *view) target(vol Volume) (name string, shared, ok bool) {
	zones := v.zones(vol, "")
	var best *Node
	var bestRank [3]uint64
	for i := range v.Nodes {
		n := &v.Nodes[i]
		if !v.takes(n, vol) {
			continue
		}
		rank := [3]uint64{0, 1, uint64(n.Disk.fill(vol.Bytes))}
		if zones[n.zone()] {
			rank[0] = 1
		}
		if vol.at(n.Name) {
			rank[1] = 0 // the bad copy there still has most of the bytes
		}
		var order int
		if best != nil {
			if order = slices.Compare(rank[:], bestRank[:]); order == 0 {
				order = cmp.Compare(rendezvous(vol.ID, n.Name), rendezvous(vol.ID, best.Name))
			}
		}
		if best == nil || order < 0 {
			best, bestRank = n, rank
		}
	}
	if best == nil {
		return "", false, false
	}
	return best.Name, bestRank[0] == 1, true
}

func (vol Volume) at(node string) bool {
	return slices.ContainsFunc(vol.Copies, func(c Copy) bool { return c.Node == node })
}

func rendezvous(volume, node string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(volume))
	h.Write([]byte{0}) // volumes' IDs have no zero byte
	h.Write([]byte(node))
	return h.Sum64()
}

// source returns the node to fill a new copy from: a mirror has to have what the writer has, a
// vault may come from another one.
func (v *view) source(vol Volume, kind Kind) (string, bool) {
	if w, ok := vol.writer(); ok && v.standing(w) == good {
		return w.Node, true
	}
	if kind != Vault {
		return "", false
	}
	var best *Copy
	for i, c := range vol.Copies {
		if v.standing(c) == good && (best == nil || cmp.Or(cmp.Compare(c.Age, best.Age), cmp.Compare(c.Node, best.Node)) < 0) {
			best = &vol.Copies[i]
		}
	}
	if best == nil {
		return "", false
	}
	return best.Node, true
}
