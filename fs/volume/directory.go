package volume

import (
	"errors"
	"sort"
	"syscall"

	"github.com/quarxtor/quarxfs/fs/meta"
)

// Positions that readdir gives to the entries that no row holds.
const (
	posDot    = 1
	posDotDot = 2
)

// A directory is the names of a directory in memory, all of them. The node's
// mutex guards it.
type directory struct {
	names map[string]place
	order []position // ascending; removed ones have no name
	holes int
}

type place struct {
	pos uint64
	ino meta.Ino
	typ uint32
}

type position struct {
	pos  uint64
	name string
}

func newDirectory() *directory { return &directory{names: make(map[string]place)} }

func (d *directory) add(name string, p place) {
	d.names[name] = p
	d.order = append(d.order, position{p.pos, name})
}

func (d *directory) remove(name string) {
	i := d.from(d.names[name].pos)
	d.order[i].name = ""
	delete(d.names, name)
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
func (v *Volume) find(n *node, name string) (place, error) {
	if !n.isDir() {
		return place{}, syscall.ENOTDIR
	}
	if len(name) > meta.MaxName {
		return place{}, syscall.ENAMETOOLONG
	}
	if err := v.loadNames(n, false); err != nil {
		return place{}, err
	}
	if n.dir != nil {
		if p, ok := n.dir.names[name]; ok {
			return p, nil
		}
		return place{}, syscall.ENOENT
	}
	b, err := v.db.Get(meta.NameKey(n.ino, name))
	if isNotFound(err) {
		return place{}, syscall.ENOENT
	}
	if err != nil {
		return place{}, err
	}
	pos, err := meta.DecodePosition(b)
	if err != nil {
		return place{}, err
	}
	if b, err = v.db.Get(meta.EntryKey(n.ino, pos)); err != nil {
		return place{}, err
	}
	e, err := meta.DecodeDirent(b)
	return place{pos, e.Ino, e.Type}, err
}

// link adds a name to a directory and returns its position. n.mu is held, inside
// Update.
func (v *Volume) link(n *node, name string, ino meta.Ino, typ uint32) uint64 {
	p := place{pos: v.alloc(), ino: ino, typ: typ}
	v.db.Set(meta.NameKey(n.ino, name), meta.EncodePosition(p.pos))
	v.db.Set(meta.EntryKey(n.ino, p.pos), meta.AppendDirent(make([]byte, 0, 12+len(name)), meta.Dirent{Ino: ino, Type: typ, Name: name}))
	n.attr.Entries++
	if n.dir != nil {
		n.dir.add(name, p)
		v.countNames(n, 1)
	}
	v.touchDir(n)
	return p.pos
}

// unlink takes a name out of a directory. n.mu is held, inside Update.
func (v *Volume) unlink(n *node, name string, p place) {
	v.noteName(n, name, p.pos)
	v.db.Delete(meta.NameKey(n.ino, name))
	v.db.Delete(meta.EntryKey(n.ino, p.pos))
	n.attr.Entries--
	if n.dir != nil {
		n.dir.remove(name)
		v.countNames(n, -1)
	}
	v.touchDir(n)
}

// repoint makes an existing name lead to another inode.
func (v *Volume) repoint(n *node, name string, p place, ino meta.Ino, typ uint32) {
	v.noteName(n, name, p.pos)
	v.db.Set(meta.EntryKey(n.ino, p.pos), meta.AppendDirent(nil, meta.Dirent{Ino: ino, Type: typ, Name: name}))
	if n.dir != nil {
		n.dir.names[name] = place{p.pos, ino, typ}
	}
	v.touchDir(n)
}

func (v *Volume) touchDir(n *node) {
	n.attr.Mtime = v.now()
	n.attr.Ctime = n.attr.Mtime
	v.changed(n)
}

// An Entry is one name that ReadDir lists. Pos resumes the listing after it.
type Entry struct {
	meta.Dirent
	Pos  uint64
	Attr *Attr // if it is at hand
}

// ReadDir calls fn for the entries of a directory after position after, in the
// order in which they were made, until fn returns false. Positions stay valid
// while the directory changes. Names made after the listing began are left out,
// so that renaming or adding files while listing comes to an end. fn must not call the volume's methods for the
// same directory, except through Peek.
func (v *Volume) ReadDir(ino meta.Ino, after uint64, fn func(Entry) bool) error {
	n, err := v.get(ino)
	if err != nil {
		return err
	}
	defer n.release()
	if n.frozen {
		if !n.isDir() {
			return syscall.ENOTDIR
		}
		return v.readVirtualDir(n, after, fn)
	}
	if err := v.unfold(n); err != nil {
		return err
	}
	batch, parent, err := v.dirBatch(n, after)
	if err != nil {
		return err
	}
	if after < posDot && !fn(Entry{Dirent: meta.Dirent{Ino: ino, Type: syscall.S_IFDIR, Name: "."}, Pos: posDot}) {
		return nil
	}
	if after < posDotDot && !fn(Entry{Dirent: meta.Dirent{Ino: parent, Type: syscall.S_IFDIR, Name: ".."}, Pos: posDotDot}) {
		return nil
	}
	for len(batch) > 0 {
		for _, e := range batch {
			if !fn(e) {
				return nil
			}
		}
		if len(batch) < dirBatchSize {
			return nil
		}
		if batch, _, err = v.dirBatch(n, batch[len(batch)-1].Pos); err != nil {
			return err
		}
	}
	return nil
}

// dirBatchSize is how many entries are copied at a time, so that fn runs
// without the directory's lock.
const dirBatchSize = 256

func (v *Volume) dirBatch(n *node, after uint64) (batch []Entry, parent meta.Ino, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.isDir() {
		return nil, 0, syscall.ENOTDIR
	}
	v.touchAtime(n)
	if err := v.loadNames(n, true); err != nil {
		return nil, 0, err
	}
	if after <= posDotDot || n.listEnd == 0 {
		n.listEnd = v.next.Load()
	}
	if n.dir != nil {
		for _, p := range n.dir.order[n.dir.from(after+1):] {
			if p.pos >= n.listEnd {
				break
			}
			if p.name == "" {
				continue
			}
			e := n.dir.names[p.name]
			if batch = append(batch, Entry{Dirent: meta.Dirent{Ino: e.ino, Type: e.typ, Name: p.name}, Pos: p.pos}); len(batch) == dirBatchSize {
				break
			}
		}
		return batch, n.attr.Parent, nil
	}
	from, to := meta.EntryRange(n.ino, after+1)
	err = v.db.Scan(from, to, func(key, value []byte) error {
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
		if batch = append(batch, Entry{Dirent: e, Pos: pos}); len(batch) == dirBatchSize {
			return meta.ErrStop
		}
		return nil
	})
	return batch, n.attr.Parent, err
}

// Peek returns an inode's attributes without bringing it into memory. ENOENT:
// it has gone.
func (v *Volume) Peek(ino meta.Ino) (Attr, error) {
	v.cache.Lock()
	n, ok := v.cache.nodes[ino]
	if ok {
		n.users.Add(1)
	}
	v.cache.Unlock()
	if !ok {
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
	return n.stat(), nil
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
	err := v.ReadDir(dir, posDotDot, func(e Entry) bool {
		entries = append(entries, e)
		return true
	})
	if err != nil {
		return err
	}
	for _, e := range entries {
		a, err := v.PeekEntry(e)
		if errors.Is(err, syscall.ENOENT) {
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
