package volume

import (
	"sync"

	"github.com/quarxtor/quarxfs/fs/meta"
)

// The names of directories in memory, up to Options.Names of all together and
// half as many of one. They can be dropped at any time, since every change of a
// name is also a row at once. A name takes some 110 bytes.

// A nameCache has the directories whose names are in memory. It is locked while their nodes are;
// so the nodes of others are only tried under its mutex.
type nameCache struct {
	sync.Mutex
	dirs  map[*node]struct{}
	count int // names in all of them
	limit int
}

// maxDirectory is the most names that a directory may have to be held in memory
// whole.
func (c *nameCache) maxDirectory() int64 { return int64(c.limit / 2) }

// A directory that is not in memory is asked by its rows, two reads a name,
// until that has come to loadShare of its entries: reading an entry while all
// are brought into memory costs about loadShare times less. So directories that take turns in
// too little memory cost at most twice what asking them costs.
const loadShare = 8

// loadNames brings a directory's names into memory, if they fit there and it is
// worth it; it is when all are wanted. n.mu is held.
func (t *nameTree) loadNames(n *node, all bool) error {
	if n.dir != nil || n.gone || n.attr.Entries > t.v.table.names.maxDirectory() {
		return nil
	}
	// See loadShare: a directory that is asked little is not worth reading whole.
	if n.asked++; !all && int64(n.asked)*loadShare < n.attr.Entries-loadShare*loadShare {
		return nil
	}
	d := newDirectory()
	from, to := meta.EntryRange(n.ino, 0)
	err := t.v.db.Scan(from, to, func(key, value []byte) error {
		_, pos, err := meta.KeyNumbers(key)
		if err != nil {
			return err
		}
		e, err := meta.DecodeDirent(value)
		if err != nil {
			return err
		}
		d.add(e.Name, dentry{pos, e.Ino, e.Type})
		return nil
	})
	if err == nil {
		t.v.table.names.keep(n, d)
	}
	return err
}

// keep makes d the node's names. n.mu is held.
func (c *nameCache) keep(n *node, d *directory) {
	n.dir, n.asked = d, 0
	c.Lock()
	c.dirs[n] = struct{}{}
	c.Unlock()
	c.add(n, len(d.names))
}

// add counts names that n.dir gained, drops n.dir when it has become too
// large, and others' names when all are too many. n.mu is held.
func (c *nameCache) add(n *node, delta int) {
	c.Lock()
	defer c.Unlock()
	c.count += delta
	// A single huge directory must not drive out all others.
	if int64(len(n.dir.names)) > c.maxDirectory() {
		c.forget(n)
	}
	if c.count <= c.limit {
		return
	}
	for d := range c.dirs { // in Go's map order, which is random
		if d == n || !d.mu.TryLock() {
			continue
		}
		c.forget(d)
		d.mu.Unlock()
		if c.count <= c.limit/8*7 {
			return
		}
	}
}

// forget takes a directory's names out of memory. n.mu is held, and the cache locked.
func (c *nameCache) forget(n *node) {
	if n.dir != nil {
		c.count -= len(n.dir.names)
		delete(c.dirs, n)
		n.dir = nil
	}
}

// drop does so for a node that leaves the table. n.mu is held.
func (c *nameCache) drop(n *node) {
	if n.dir == nil {
		return
	}
	c.Lock()
	defer c.Unlock()
	c.forget(n)
}
