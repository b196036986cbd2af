package volume

import "github.com/quarxtor/quarxfs/fs/meta"

// The names of directories in memory, up to Options.Names of all together and
// half as many of one. They can be dropped at any time, since every change of a
// name is also a row at once. A name takes some 110 bytes.

// maxDirectory is the most names that a directory may have to be held in memory
// whole.
func (v *Volume) maxDirectory() int64 { return int64(v.opts.Names / 2) }

// A directory that is not in memory is asked by its rows, two reads a name,
// until that has come to loadShare of its entries: reading an entry while all
// are brought into memory costs about loadShare times less. So directories that take turns in
// too little memory cost at most twice what asking them costs.
const loadShare = 8

// loadNames brings a directory's names into memory, if they fit there and it is
// worth it; it is when all are wanted. n.mu is held.
func (v *Volume) loadNames(n *node, all bool) error {
	if n.dir != nil || n.gone || n.attr.Entries > v.maxDirectory() {
		return nil
	}
	if n.asked++; !all && int64(n.asked)*loadShare < n.attr.Entries-loadShare*loadShare {
		return nil
	}
	d := newDirectory()
	from, to := meta.EntryRange(n.ino, 0)
	err := v.db.Scan(from, to, func(key, value []byte) error {
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
		v.keepNames(n, d)
	}
	return err
}

// keepNames makes d the node's names. n.mu is held.
func (v *Volume) keepNames(n *node, d *directory) {
	n.dir, n.asked = d, 0
	v.names.Lock()
	v.names.dirs[n] = struct{}{}
	v.names.Unlock()
	v.countNames(n, len(d.names))
}

// countNames counts names that n.dir gained, drops n.dir when it has become too
// large, and others' names when all are too many. n.mu is held.
func (v *Volume) countNames(n *node, delta int) {
	v.names.Lock()
	defer v.names.Unlock()
	v.names.count += delta
	if int64(len(n.dir.names)) > v.maxDirectory() {
		v.forgetNames(n)
	}
	if v.names.count <= v.opts.Names {
		return
	}
	for d := range v.names.dirs { // in Go's map order, which is random
		if d == n || !d.mu.TryLock() {
			continue
		}
		v.forgetNames(d)
		d.mu.Unlock()
		if v.names.count <= v.opts.Names/8*7 {
			return
		}
	}
}

// forgetNames takes a directory's names out of memory. n.mu and v.names are
// held.
func (v *Volume) forgetNames(n *node) {
	if n.dir != nil {
		v.names.count -= len(n.dir.names)
		delete(v.names.dirs, n)
		n.dir = nil
	}
}

// dropNames does so for a node that leaves the table. n.mu is held.
func (v *Volume) dropNames(n *node) {
	if n.dir == nil {
		return
	}
	v.names.Lock()
	defer v.names.Unlock()
	v.forgetNames(n)
}
