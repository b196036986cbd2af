package volume

import (
	"slices"
	"sync"

	"github.com/quarxtor/quarxfs/fs/meta"
)

// A nodeTable has the inodes in memory, one node for each. It drops those that nobody uses and that
// hold nothing the database lacks, some at a time, when there are too many. Under its mutex a
// node's is only tried, since whoever has that may ask the table for another node.
type nodeTable struct {
	sync.Mutex
	nodes     map[meta.Ino]*node
	limit     int
	retry     int        // no eviction below so many nodes
	evictions uint64     // counts times at which nodes were dropped
	ahead     []meta.Ino // nodes that were read ahead, the oldest first
	names     nameCache
	reader    inodeReader
}

func (t *nodeTable) init(nodes, names int) {
	t.nodes, t.limit = make(map[meta.Ino]*node), nodes
	t.names.dirs, t.names.limit = make(map[*node]struct{}), names
}

// cached returns the node of an inode, which the caller releases, if it is in the table, or nil.
// Whoever reads the inode then hands evictions on to insert.
func (t *nodeTable) cached(ino meta.Ino) (n *node, evictions uint64) {
	t.Lock()
	defer t.Unlock()
	if n = t.nodes[ino]; n != nil {
		n.users.Add(1)
	}
	return n, t.evictions
}

// insert puts n into the table unless somebody was quicker, and returns the
// one in the table. It declines when nodes were evicted since n was read: one
// of them may have been a newer n.
func (t *nodeTable) insert(n *node, evictions uint64) (*node, bool) {
	t.Lock()
	defer t.Unlock()
	if old, ok := t.nodes[n.ino]; ok {
		old.users.Add(1)
		return old, true
	}
	// A row that was read before an eviction may lack what the evicted node has saved since.
	if evictions != t.evictions {
		return nil, false
	}
	n.users.Add(1)
	t.nodes[n.ino] = n
	t.bound()
	return n, true
}

// insertNew puts the node of an inode that was just made into the table; nobody can have it yet.
func (t *nodeTable) insertNew(n *node) {
	t.Lock()
	defer t.Unlock()
	t.nodes[n.ino] = n
	t.bound()
}

// insertAhead is insert of nodes that nobody waits for. They drop older ones of
// their kind, so that listing a large tree leaves the rest of the table alone.
func (t *nodeTable) insertAhead(nodes []*node, evictions uint64) bool {
	t.Lock()
	defer t.Unlock()
	if evictions != t.evictions {
		return false
	}
	for _, n := range nodes {
		if _, ok := t.nodes[n.ino]; !ok {
			t.nodes[n.ino] = n
			t.ahead = append(t.ahead, n.ino)
		}
	}
	// Nodes that somebody has come to use meanwhile stay.
	if over := len(t.ahead) - min(maxAhead, t.limit/2); over > 0 {
		t.evictions++
		for _, ino := range t.ahead[:over] {
			if n := t.nodes[ino]; n != nil {
				t.drop(n)
			}
		}
		t.ahead = slices.Delete(t.ahead, 0, over)
	}
	t.bound()
	return true
}

// bound evicts nodes when there are too many. When few can be dropped, because
// they wait for a commit, it tries again when there are some more, and not at
// each new node. The table is locked.
func (t *nodeTable) bound() {
	if len(t.nodes) <= max(t.limit, t.retry) {
		return
	}
	t.evict()
	t.retry = len(t.nodes) + t.limit/64
}

// evict drops a share of the nodes. The table is locked. Go's map order makes the
// choice random.
func (t *nodeTable) evict() {
	t.evictions++
	tries, dropped := 4096, 0
	for ino, n := range t.nodes {
		if tries--; tries < 0 || dropped >= 1024 {
			return
		}
		if ino != meta.Root && t.drop(n) {
			dropped++
		}
	}
}

// drop takes a node out of the table that nobody uses and that holds nothing the
// database lacks; it reports whether it did. The table is locked, and evictions was
// counted.
func (t *nodeTable) drop(n *node) bool {
	// A user holds the table's lock when it starts; so nobody can start now.
	if n.users.Load() != 0 || !n.mu.TryLock() {
		return false
	}
	defer n.mu.Unlock()
	// Each of these says that the node has what no row has, or is on a list.
	if n.enqueued || n.busy || len(n.dirty) > 0 || len(n.staged) > 0 || n.overlaid != nil {
		return false
	}
	t.names.drop(n)
	delete(t.nodes, n.ino)
	return true
}

// remove takes a reaped node out of the table.
func (t *nodeTable) remove(n *node) {
	t.Lock()
	defer t.Unlock()
	t.evictions++ // whoever has read its record by now must not insert it
	delete(t.nodes, n.ino)
}

// count returns how many nodes are in memory.
func (t *nodeTable) count() int {
	t.Lock()
	defer t.Unlock()
	return len(t.nodes)
}
