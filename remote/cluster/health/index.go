package health

import "github.com/quarxtor/quarxfs/remote/cluster"

// An index has facts by name. With it what is judged takes time by how much there is: without, each
// volume would look through all that its nodes say.
type index struct {
	nodes   map[string]*NodeFacts
	volumes map[string]*cluster.Volume
	homes   map[homeKey]*Home
	copies  map[copyKey]*Copy
	stuck   map[string]*cluster.Repair // by volume: those that have no node
}

// A homeKey is what a node writes, in an epoch.
type homeKey struct {
	node, volume string // the volume by its ID
	epoch        int64
}

// A copyKey is what a node's vault has.
type copyKey struct{ node, volume string }

// Indexed returns the facts for who asks for many of them by name: no node, volume, repair or
// answer may come or go afterwards.
func (f Facts) Indexed() Facts {
	if f.by != nil {
		return f
	}
	f.by = &index{
		nodes: make(map[string]*NodeFacts, len(f.Nodes)), volumes: make(map[string]*cluster.Volume, len(f.Volumes)),
		homes: make(map[homeKey]*Home), copies: make(map[copyKey]*Copy), stuck: make(map[string]*cluster.Repair),
	}
	for i := range f.Nodes {
		n := &f.Nodes[i]
		first(f.by.nodes, n.Name, n)
		if n.Said == nil {
			continue
		}
		for j := range n.Said.Homes {
			if h := &n.Said.Homes[j]; h.FencedBy == "" {
				first(f.by.homes, homeKey{n.Name, h.ID, h.Epoch}, h)
			}
		}
		for j := range n.Said.Copies {
			c := &n.Said.Copies[j]
			first(f.by.copies, copyKey{n.Name, c.ID}, c)
		}
	}
	for i := range f.Volumes {
		first(f.by.volumes, f.Volumes[i].Name, &f.Volumes[i])
	}
	for i := range f.Repairs {
		if r := &f.Repairs[i]; r.Node == "" {
			first(f.by.stuck, r.Volume, r)
		}
	}
	return f
}

// first sets what is not set: of two that a node says of one volume the first counts.
func first[K comparable, V any](m map[K]V, key K, value V) {
	if _, ok := m[key]; !ok {
		m[key] = value
	}
}

// NodeOf returns the node of that name; nil: there is none.
func (f Facts) NodeOf(name string) *NodeFacts { return f.Indexed().by.nodes[name] }

// VolumeOf returns the volume of that name; nil: there is none.
func (f Facts) VolumeOf(name string) *cluster.Volume { return f.Indexed().by.volumes[name] }

// HomeOf is what the volume's home says of it in this epoch; nil: nothing.
func (f Facts) HomeOf(v cluster.Volume) *Home {
	return f.Indexed().by.homes[homeKey{v.Home, v.ID, v.Epoch}]
}

// CopyOf is what the vault on a node says of the volume; nil: it knows nothing of it. answered
// tells whether it has said anything at all.
func (f Facts) CopyOf(v cluster.Volume, node string) (c *Copy, answered bool) {
	n := f.NodeOf(node)
	if n == nil || n.Said == nil {
		return nil, false
	}
	return f.Indexed().by.copies[copyKey{node, v.ID}], true
}

// stuck is the volume's repair that no node can be had for; nil: there is none.
func (f Facts) stuck(volume string) *cluster.Repair { return f.Indexed().by.stuck[volume] }
