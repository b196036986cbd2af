package volume

import (
	"sort"
	"syscall"

	"github.com/quarxtor/quarxfs/fs/meta"
)

// Positions that readdir gives to the entries that no row holds.
const (
	posDot    = 1
	posDotDot = 2
	posViews  = 3 // .snapshots, where it is listed
)

// A directory is the names of a directory in memory, all of them. The node's
// mutex guards it.
type directory struct {
	names map[string]dentry
	order []position // ascending; removed ones have no name
	holes int
}

type dentry struct {
	pos uint64
	ino meta.Ino
	typ uint32
}

type position struct {
	pos  uint64
	name string
}

func newDirectory() *directory { return &directory{names: make(map[string]dentry)} }

func (d *directory) add(name string, p dentry) {
	d.names[name] = p
	d.order = append(d.order, position{p.pos, name})
}

func (d *directory) remove(name string) {
	i := d.from(d.names[name].pos)
	d.order[i].name = ""
	delete(d.names, name)
	// Positions stay in order with holes in them, so that a removal moves nothing; rebuilt when
	// most are holes.
	if d.holes++; d.holes > 64 && d.holes > len(d.order)/2 {
		kept := d.order[:0]
		for _, p := range d.order {
			if p.name != "" {
				kept = append(kept, p)
			}
		}
		d.order, d.holes = kept, 0
	}
}

// from returns the index of the first position at or after pos.
func (d *directory) from(pos uint64) int {
	return sort.Search(len(d.order), func(i int) bool { return d.order[i].pos >= pos })
}

// find returns where a name leads. ENOENT: nowhere. n.mu is held.
func (t *nameTree) find(n *node, name string) (dentry, error) {
	if !n.isDir() {
		return dentry{}, syscall.ENOTDIR
	}
	if len(name) > meta.MaxName {
		return dentry{}, syscall.ENAMETOOLONG
	}
	if err := t.loadNames(n, false); err != nil {
		return dentry{}, err
	}
	// All names are there, so a name that is not is nowhere.
	if n.dir != nil {
		if p, ok := n.dir.names[name]; ok {
			return p, nil
		}
		return dentry{}, syscall.ENOENT
	}
	b, err := t.v.db.Get(meta.NameKey(n.ino, name))
	if meta.IsNotFound(err) {
		return dentry{}, syscall.ENOENT
	}
	if err != nil {
		return dentry{}, err
	}
	pos, err := meta.DecodePosition(b)
	if err != nil {
		return dentry{}, err
	}
	// Two rows a name: one leads to the position, which readdir needs, the other is the entry.
	if b, err = t.v.db.Get(meta.EntryKey(n.ino, pos)); err != nil {
		return dentry{}, err
	}
	e, err := meta.DecodeDirent(b)
	return dentry{pos, e.Ino, e.Type}, err
}

// link adds a name to a directory and returns its position. n.mu is held, inside
// Update.
func (t *nameTree) link(n *node, name string, ino meta.Ino, typ uint32) uint64 {
	p := dentry{pos: t.v.numbers.take(), ino: ino, typ: typ}
	t.v.db.Set(meta.NameKey(n.ino, name), meta.EncodePosition(p.pos))
	t.v.db.Set(meta.EntryKey(n.ino, p.pos), meta.AppendDirent(make([]byte, 0, 12+len(name)), meta.Dirent{Ino: ino, Type: typ, Name: name}))
	n.attr.Entries++
	if n.dir != nil {
		n.dir.add(name, p)
		t.v.table.names.add(n, 1)
	}
	t.touchDir(n)
	return p.pos
}

// unlink takes a name out of a directory. n.mu is held, inside Update.
func (t *nameTree) unlink(n *node, name string, p dentry) {
	// The mark is all that tells the next snapshot of this name.
	t.v.tracker.name(n, name, p.pos)
	t.v.db.Delete(meta.NameKey(n.ino, name))
	t.v.db.Delete(meta.EntryKey(n.ino, p.pos))
	n.attr.Entries--
	if n.dir != nil {
		n.dir.remove(name)
		t.v.table.names.add(n, -1)
	}
	t.touchDir(n)
}

// repoint makes an existing name lead to another inode.
func (t *nameTree) repoint(n *node, name string, p dentry, ino meta.Ino, typ uint32) {
	t.v.tracker.name(n, name, p.pos)
	t.v.db.Set(meta.EntryKey(n.ino, p.pos), meta.AppendDirent(nil, meta.Dirent{Ino: ino, Type: typ, Name: name}))
	if n.dir != nil {
		n.dir.names[name] = dentry{p.pos, ino, typ}
	}
	t.touchDir(n)
}

func (t *nameTree) touchDir(n *node) {
	n.attr.Mtime = t.v.Now()
	n.attr.Ctime = n.attr.Mtime
	t.v.flusher.markChanged(n)
}

// An Entry is one name that ReadDir lists. Pos resumes the listing after it: it is
// where the next one is. So whoever removes what it has read goes on from a position
// that is still in use. Linux keeps a directory's listing in pages; one that was read anew
// meanwhile no longer has the position of what was removed, and if its last page
// is full to the byte, the kernel takes that for the end.
type Entry struct {
	meta.Dirent
	Pos  uint64
	Attr *Attr // if it is at hand
}

// ReadDir calls fn for the entries of a directory from a position on, in the
// order in which they were made, until fn returns false. Positions stay valid
// while the directory changes. Names made after the listing began are left out,
// so that renaming or adding files while listing comes to an end. fn must not call the volume's
// methods for the same directory, except through Peek.
func (v *Volume) ReadDir(ino meta.Ino, from uint64, fn func(Entry) bool) error {
	return v.tree.readDir(ino, from, ino == meta.Root && v.opts.Snapshots == SnapshotsVisible, fn)
}

// ReadDirWithSnapshots is ReadDir of the root directory with .snapshots, whether or not that is
// listed.
func (v *Volume) ReadDirWithSnapshots(ino meta.Ino, from uint64, fn func(Entry) bool) error {
	return v.tree.readDir(ino, from, ino == meta.Root, fn)
}

func (t *nameTree) readDir(ino meta.Ino, from uint64, withSnapshots bool, fn func(Entry) bool) error {
	n, err := t.v.get(ino)
	if err != nil {
		return err
	}
	defer n.release()
	// What is in a snapshot has no rows: its names are in a tree.
	if n.frozen {
		if !n.isDir() {
			return syscall.ENOTDIR
		}
		return t.v.views.readVirtualDir(n, from, fn)
	}
	// Positions are those of rows; names in a tree have none.
	if err := t.v.materializer.directory(n); err != nil {
		return err
	}
	b, err := t.readBatch(n, from)
	if err != nil {
		return err
	}
	if from < posDot && !fn(Entry{Dirent: meta.Dirent{Ino: ino, Type: syscall.S_IFDIR, Name: "."}, Pos: posDot}) {
		return nil
	}
	// The position after ".." is where the next entry really is: see Entry.
	behind := b.first
	if withSnapshots {
		b.first, behind = max(b.first, posViews), posDotDot
	}
	if from < posDotDot && !fn(Entry{Dirent: meta.Dirent{Ino: b.parent, Type: syscall.S_IFDIR, Name: ".."}, Pos: behind}) {
		return nil
	}
	if withSnapshots && from < posViews && !fn(Entry{Dirent: meta.Dirent{Ino: SnapshotsDir, Type: syscall.S_IFDIR, Name: SnapshotsName}, Pos: b.first}) {
		return nil
	}
	// fn runs without the directory's lock: it may look up what it is told of.
	for {
		for _, e := range b.entries {
			if !fn(e) {
				return nil
			}
		}
		if !b.full {
			return nil
		}
		if b, err = t.readBatch(n, b.entries[dirBatchSize-1].Pos); err != nil {
			return err
		}
	}
}

// dirBatchSize is how many entries are copied at a time, so that fn runs
// without the directory's lock.
const dirBatchSize = 256

// A dirBatch is some entries of a directory, the first of them at position first.
type dirBatch struct {
	parent  meta.Ino
	first   uint64
	entries []Entry
	full    bool // there is more behind it
}

// add takes the entry at pos, or leaves it to the next batch.
func (b *dirBatch) add(pos uint64, e meta.Dirent) (more bool) {
	// The entry before ends where this one is, whether or not it fits in here.
	b.end(pos)
	if b.full = len(b.entries) == dirBatchSize; !b.full {
		b.entries = append(b.entries, Entry{Dirent: e})
	}
	return !b.full
}

// end says where what follows the entries is.
func (b *dirBatch) end(pos uint64) {
	if n := len(b.entries); n > 0 {
		b.entries[n-1].Pos = pos
	} else {
		b.first = pos
	}
}

func (t *nameTree) readBatch(n *node, from uint64) (*dirBatch, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.isDir() {
		return nil, syscall.ENOTDIR
	}
	// Also for a batch in the middle: relatime makes most of these do nothing.
	t.v.touchAtime(n)
	if err := t.loadNames(n, true); err != nil {
		return nil, err
	}
	// A listing from the start sees what is there now; what is added later has a greater position.
	if from <= posDotDot || n.listEnd == 0 {
		n.listEnd = t.v.numbers.next.Load()
	}
	b := &dirBatch{parent: n.attr.Parent}
	if err := t.fillBatch(n, from, b); err != nil {
		return nil, err
	}
	if !b.full {
		b.end(n.listEnd)
	}
	return b, nil
}

func (t *nameTree) fillBatch(n *node, from uint64, b *dirBatch) error {
	// In memory or by rows the order is the same: that of positions.
	if n.dir != nil {
		for _, p := range n.dir.order[n.dir.from(from):] {
			if p.pos >= n.listEnd {
				break
			}
			if p.name == "" {
				continue
			}
			e := n.dir.names[p.name]
			if !b.add(p.pos, meta.Dirent{Ino: e.ino, Type: e.typ, Name: p.name}) {
				break
			}
		}
		return nil
	}
	lo, hi := meta.EntryRange(n.ino, from)
	return t.v.db.Scan(lo, hi, func(key, value []byte) error {
		_, pos, err := meta.KeyNumbers(key)
		if err != nil {
			return err
		}
		if pos >= n.listEnd {
			return meta.ErrStop
		}
		e, err := meta.DecodeDirent(value)
		if err != nil {
			return err
		}
		if !b.add(pos, e) {
			return meta.ErrStop
		}
		return nil
	})
}

// Peek returns an inode's attributes and drops nothing from memory for it, so
// that it can be asked of a whole tree. ENOENT: it has gone.
func (v *Volume) Peek(ino meta.Ino) (Attr, error) {
	n, _ := v.table.cached(ino)
	// A whole tree is listed so: rows of neighbours are read at once, and no other node is dropped
	// for it.
	if n == nil && v.table.reader.ahead(ino) {
		n, _ = v.table.cached(ino)
	}
	if n == nil {
		// Not put into the table: a listing of a whole tree would drive out what is in use.
		tmp, err := v.readNode(ino)
		if err != nil {
			return Attr{}, err
		}
		return tmp.stat(), nil
	}
	defer n.release()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.gone {
		return Attr{}, syscall.ENOENT
	}
	return v.stat(n), nil
}

// PeekEntry is Peek for what ReadDir lists.
func (v *Volume) PeekEntry(e Entry) (Attr, error) {
	if e.Attr != nil {
		return *e.Attr, nil
	}
	return v.Peek(e.Ino)
}

// Walk calls fn for every file below a directory, with its path from there,
// directories before what they hold. It sees changes made meanwhile or not.
func (v *Volume) Walk(dir meta.Ino, prefix string, fn func(path string, a Attr) error) error {
	var entries []Entry
	// Names first, then what they lead to: fn of ReadDir may not ask for the same directory.
	err := v.ReadDir(dir, posDotDot, func(e Entry) bool {
		entries = append(entries, e)
		return true
	})
	if err != nil {
		return err
	}
	for _, e := range entries {
		a, err := v.PeekEntry(e)
		// Removed since the names were read.
		if meta.IsErrno(err, syscall.ENOENT) {
			continue
		}
		if err != nil {
			return err
		}
		path := prefix + e.Name
		if err := fn(path, a); err != nil {
			return err
		}
		if e.Type == syscall.S_IFDIR {
			if err := v.Walk(e.Ino, path+"/", fn); err != nil {
				return err
			}
		}
	}
	return nil
}
