package volume

import (
	"maps"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/fs/meta"
)

// A model is a volume as simple as can be: what the volume shall look like.
type model struct {
	nodes map[meta.Ino]*file
	now   meta.Time
}

// A file is an inode of the model.
type file struct {
	ino          meta.Ino
	mode         uint32
	uid, gid     uint32
	nlink        uint32
	data         []byte
	shared       bool // data belongs to another model too
	target       string
	names        map[string]meta.Ino
	parent       meta.Ino
	xattrs       map[string][]byte
	access       []aclEntry // nil: only the mode
	inherited    []aclEntry // default ACL
	mtime, ctime meta.Time
	known        uint64
	linked       bool // it has, or had, several names

	// A directory of a cloned tree that nobody has looked into is lazy: its names
	// are those of an inode in another model.
	lazy    *model
	lazyIno meta.Ino
}

func newModel(now meta.Time) *model {
	m := &model{nodes: make(map[meta.Ino]*file), now: now}
	m.nodes[meta.Root] = &file{
		ino: meta.Root, mode: syscall.S_IFDIR | 0o755, nlink: 2, parent: meta.Root,
		names: make(map[string]meta.Ino), xattrs: make(map[string][]byte), mtime: now, ctime: now,
	}
	return m
}

// asCommitted is the model with nobody who knows its files. What has no name goes only when the
// store is opened, by the clock of then.
func (m *model) asCommitted() *model {
	c := &model{nodes: make(map[meta.Ino]*file, len(m.nodes)), now: m.now}
	for ino, f := range m.nodes {
		c.nodes[ino] = f.copy()
	}
	return c
}

// clone copies the model as a crash would leave it: nobody knows an inode, and
// what has no name is gone.
func (m *model) clone() *model {
	c := m.asCommitted()
	for _, ino := range c.inodes(func(f *file) bool { return f.nlink == 0 }) {
		if f := c.nodes[ino]; f != nil {
			c.reap(f)
		}
	}
	return c
}

// copy copies a file that nobody knows.
func (f *file) copy() *file {
	f.shared = true
	g := *f
	g.names = maps.Clone(f.names)
	g.xattrs = maps.Clone(f.xattrs)
	g.known = 0
	return &g
}

// resolved is clone without lazy directories; what these lead to gets numbers
// that no volume gives.
func (m *model) resolved() *model {
	c := m.clone()
	next := meta.Ino(1) << 50
	number := func(meta.Ino, string) meta.Ino { next++; return next }
	c.expandAll(number)
	return c
}

// expandAll makes all lazy directories whole. number says which inode a name in
// one leads to.
func (m *model) expandAll(number func(dir meta.Ino, name string) meta.Ino) {
	for {
		lazy := m.inodes(func(f *file) bool { return f.lazy != nil })
		if len(lazy) == 0 {
			return
		}
		for _, ino := range lazy {
			m.expand(m.nodes[ino], number)
		}
	}
}

// expand makes the names in a lazy directory.
func (m *model) expand(d *file, number func(dir meta.Ino, name string) meta.Ino) {
	src, from := d.lazy, d.lazyIno
	d.lazy, d.lazyIno, d.names = nil, 0, make(map[string]meta.Ino)
	m.fill(d, src, from, number, make(map[meta.Ino]meta.Ino))
}

// fill makes in d what is in a directory of another model: as the volume does,
// lazy directories where no file with several names is below.
func (m *model) fill(d *file, src *model, from meta.Ino, number func(dir meta.Ino, name string) meta.Ino, links map[meta.Ino]meta.Ino) {
	for _, name := range slices.Sorted(maps.Keys(src.nodes[from].names)) {
		was := src.nodes[from].names[name]
		ino := number(d.ino, name)
		d.names[name] = ino
		if there, ok := links[was]; ok && src.nodes[was].linked {
			m.nodes[there].nlink++
			continue
		}
		f := m.imitate(src, was, ino, d.ino)
		if f.linked = src.nodes[was].linked; f.linked {
			links[was] = ino
		}
		if f.lazy != nil && src.hasLinks(was) {
			f.lazy, f.names = nil, make(map[string]meta.Ino)
			m.fill(f, src, was, number, links)
		}
	}
}

// imitate makes an inode of another model's, with one name and as lazy as can be.
func (m *model) imitate(src *model, was, ino, parent meta.Ino) *file {
	f := src.nodes[was].copy()
	f.ino, f.linked = ino, false
	if !f.isDir() {
		f.nlink = 1
	} else if f.parent = parent; len(f.names) > 0 {
		f.lazy, f.lazyIno, f.names = src, was, nil
	}
	m.nodes[ino] = f
	return f
}

// hasLinks reports whether a file with several names is below.
func (m *model) hasLinks(dir meta.Ino) bool {
	for _, ino := range m.nodes[dir].names {
		if f := m.nodes[ino]; f.linked || f.isDir() && m.hasLinks(ino) {
			return true
		}
	}
	return false
}

func (f *file) isDir() bool { return f.mode&syscall.S_IFMT == syscall.S_IFDIR }

func (f *file) isReg() bool { return f.mode&syscall.S_IFMT == syscall.S_IFREG }

func (m *model) inodes(keep func(*file) bool) []meta.Ino {
	var list []meta.Ino
	for ino, f := range m.nodes {
		if keep(f) {
			list = append(list, ino)
		}
	}
	slices.Sort(list)
	return list
}

// bytes makes the file's data its own, at least size bytes of it.
func (f *file) bytes(size int64) {
	if f.shared {
		f.data = slices.Clone(f.data)
		f.shared = false
	}
	if more := size - int64(len(f.data)); more > 0 {
		f.data = append(f.data, make([]byte, more)...)
	}
}

func (f *file) modified(m *model) { f.mtime, f.ctime = m.now, m.now }

func (f *file) killPriv(all bool) {
	delete(f.xattrs, capabilityXattr)
	if all {
		f.mode &^= syscall.S_ISUID
		if f.mode&0o010 != 0 {
			f.mode &^= syscall.S_ISGID
		}
	}
}

func (m *model) write(ino meta.Ino, off int64, p []byte, mode WriteMode) syscall.Errno {
	f := m.nodes[ino]
	if !f.isReg() {
		return syscall.EINVAL
	}
	if !mode.Cached || mode.KillPriv {
		f.killPriv(mode.KillPriv)
	}
	f.bytes(off + int64(len(p)))
	copy(f.data[off:], p)
	if !mode.Cached {
		f.modified(m)
	}
	return 0
}

func (m *model) truncate(ino meta.Ino, size int64, kill bool) syscall.Errno {
	f := m.nodes[ino]
	switch {
	case f.isDir():
		return syscall.EISDIR
	case !f.isReg():
		return syscall.EINVAL
	}
	if size != int64(len(f.data)) {
		f.mtime = m.now
	}
	f.bytes(size)
	f.data = f.data[:size:size]
	f.killPriv(kill)
	f.ctime = m.now
	return 0
}

func (m *model) fallocate(ino meta.Ino, off, length int64, mode uint32) syscall.Errno {
	f := m.nodes[ino]
	if mode&^(unix.FALLOC_FL_KEEP_SIZE|unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_ZERO_RANGE) != 0 {
		return syscall.EOPNOTSUPP
	}
	if length <= 0 {
		return syscall.EINVAL
	}
	if !f.isReg() {
		return syscall.ENODEV
	}
	f.bytes(0)
	if mode&(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_ZERO_RANGE) != 0 && off < int64(len(f.data)) {
		clear(f.data[off:min(off+length, int64(len(f.data)))])
	}
	if mode&unix.FALLOC_FL_KEEP_SIZE == 0 {
		f.bytes(off + length)
	}
	f.killPriv(false)
	f.modified(m)
	return 0
}

func (m *model) copyRange(src meta.Ino, so int64, dst meta.Ino, do, length int64) (int64, syscall.Errno) {
	a, b := m.nodes[src], m.nodes[dst]
	switch {
	case src == dst && so < do+length && do < so+length:
		return 0, syscall.EINVAL
	case a.isDir() || b.isDir():
		return 0, syscall.EISDIR
	case !a.isReg() || !b.isReg():
		return 0, syscall.EINVAL
	case so >= int64(len(a.data)) || length == 0:
		return 0, 0
	}
	length = min(length, int64(len(a.data))-so)
	p := slices.Clone(a.data[so : so+length])
	m.write(dst, do, p, WriteMode{})
	return length, 0
}

func (m *model) lookup(dir meta.Ino, name string) (meta.Ino, syscall.Errno) {
	d := m.nodes[dir]
	if !d.isDir() {
		return 0, syscall.ENOTDIR
	}
	ino, ok := d.names[name]
	if !ok {
		return 0, syscall.ENOENT
	}
	return ino, 0
}

// vacant reports why name cannot be added to dir.
func (m *model) vacant(dir meta.Ino, name string) syscall.Errno {
	d := m.nodes[dir]
	switch {
	case !d.isDir():
		return syscall.ENOTDIR
	case d.nlink == 0:
		return syscall.ENOENT
	}
	if _, ok := d.names[name]; ok && name != "" {
		return syscall.EEXIST
	}
	return 0
}

// create adds what the volume made as ino.
func (m *model) create(dir meta.Ino, name string, c CreateOptions, ino meta.Ino) {
	d := m.nodes[dir]
	f := &file{
		ino: ino, mode: c.Mode, uid: c.UID, gid: c.GID, nlink: 1, target: c.Target,
		xattrs: make(map[string][]byte), mtime: m.now, ctime: m.now,
	}
	m.nodes[ino] = f
	if d.mode&syscall.S_ISGID != 0 {
		f.gid = d.gid
		if f.isDir() {
			f.mode |= syscall.S_ISGID
		}
	}
	f.inheritFrom(d, c.Umask)
	if f.isDir() {
		f.nlink, f.parent, f.names = 2, dir, make(map[string]meta.Ino)
	}
	if name == "" {
		f.nlink, f.known = 0, 1
		return
	}
	m.attach(d, name, f)
}

func (f *file) inheritFrom(d *file, umask uint32) {
	switch {
	case f.mode&syscall.S_IFMT == syscall.S_IFLNK:
	case d.inherited == nil:
		f.mode &^= umask
	default:
		acl := slices.Clone(d.inherited)
		class := slices.IndexFunc(acl, func(e aclEntry) bool { return e.tag == aclMask })
		for i := range acl {
			switch acl[i].tag {
			case aclUserObj:
				acl[i].perm &= uint16(f.mode >> 6)
			case aclOther:
				acl[i].perm &= uint16(f.mode)
			case aclMask:
				acl[i].perm &= uint16(f.mode >> 3)
			case aclGroupObj:
				if class < 0 {
					acl[i].perm &= uint16(f.mode >> 3)
				}
			}
		}
		f.setAccess(acl)
		if f.isDir() {
			f.inherited = d.inherited
		}
	}
}

// setAccess gives the file an access ACL, and the mode that it stands for.
func (f *file) setAccess(acl []aclEntry) {
	perm := map[uint16]uint16{}
	for _, e := range acl {
		perm[e.tag] |= e.perm
	}
	group, ok := perm[aclMask]
	if !ok {
		group = perm[aclGroupObj]
	}
	f.mode = f.mode&^0o777 | uint32(perm[aclUserObj])<<6 | uint32(group)<<3 | uint32(perm[aclOther])
	f.access = acl
	if len(acl) == 3 {
		f.access = nil
	}
}

func (m *model) chmod(f *file, mode uint32) {
	f.mode = f.mode&syscall.S_IFMT | mode
	if f.access == nil {
		return
	}
	f.access = slices.Clone(f.access)
	for i, e := range f.access {
		switch e.tag {
		case aclUserObj:
			f.access[i].perm = uint16(mode >> 6 & 7)
		case aclMask:
			f.access[i].perm = uint16(mode >> 3 & 7)
		case aclOther:
			f.access[i].perm = uint16(mode & 7)
		}
	}
}

// attach and detach change a directory and count subdirectories; the caller
// counts the file's own links.
func (m *model) attach(d *file, name string, f *file) {
	d.names[name] = f.ino
	d.modified(m)
	if f.isDir() {
		d.nlink++
		f.parent = d.ino
	}
}

func (m *model) detach(d *file, name string, f *file) {
	delete(d.names, name)
	d.modified(m)
	if f.isDir() && d.nlink > 0 {
		d.nlink--
	}
}

// lose counts one name less.
func (m *model) lose(f *file) {
	f.nlink--
	if f.isDir() {
		f.nlink = 0
	}
	f.ctime = m.now
	m.reap(f)
}

func (m *model) reap(f *file) {
	if f.nlink != 0 || f.known != 0 || m.nodes[f.ino] != f {
		return
	}
	delete(m.nodes, f.ino)
	for _, name := range slices.Sorted(maps.Keys(f.names)) { // a directory that was removed as a whole
		m.lose(m.nodes[f.names[name]])
	}
}

func (m *model) link(ino, dir meta.Ino, name string) syscall.Errno {
	f := m.nodes[ino]
	if f.isDir() || ino == dir {
		return syscall.EPERM
	}
	if e := m.vacant(dir, name); e != 0 {
		return e
	}
	m.attach(m.nodes[dir], name, f)
	f.linked = f.linked || f.nlink > 0
	f.nlink++
	f.ctime = m.now
	return 0
}

func (m *model) remove(dir meta.Ino, name string, wantDir bool) syscall.Errno {
	ino, e := m.lookup(dir, name)
	if e != 0 {
		return e
	}
	f := m.nodes[ino]
	switch {
	case m.nodes[dir].nlink == 0:
		return syscall.ENOENT
	case wantDir && !f.isDir():
		return syscall.ENOTDIR
	case !wantDir && f.isDir():
		return syscall.EISDIR
	case len(f.names) > 0 || f.lazy != nil:
		return syscall.ENOTEMPTY
	}
	m.detach(m.nodes[dir], name, f)
	m.lose(f)
	return 0
}

// below reports whether dir is top or a directory somewhere below it.
func (m *model) below(dir, top meta.Ino) bool {
	for dir != top && dir != meta.Root && m.nodes[dir] != nil {
		dir = m.nodes[dir].parent
	}
	return dir == top
}

// rename returns the errno of rename(2), without a whiteout.
func (m *model) rename(od meta.Ino, on string, nd meta.Ino, nn string, flags uint32) syscall.Errno {
	if flags > 7 || flags&unix.RENAME_EXCHANGE != 0 && flags != unix.RENAME_EXCHANGE {
		return syscall.EINVAL
	}
	src, e := m.lookup(od, on)
	if e != 0 {
		return e
	}
	dst, e := m.lookup(nd, nn)
	switch {
	case e == syscall.ENOTDIR:
		return e
	case e != 0 && flags == unix.RENAME_EXCHANGE:
		return e
	case e == 0 && flags&unix.RENAME_NOREPLACE != 0:
		return syscall.EEXIST
	}
	f, g := m.nodes[src], m.nodes[dst]
	from, to := m.nodes[od], m.nodes[nd]
	switch {
	case f.isDir() && m.below(nd, src):
		return syscall.EINVAL
	case g != nil && g.isDir() && m.below(od, dst) && flags == unix.RENAME_EXCHANGE:
		return syscall.EINVAL
	case g != nil && g.isDir() && m.below(od, dst):
		return syscall.ENOTEMPTY
	case to.nlink == 0 || from.nlink == 0:
		return syscall.ENOENT
	case f == g:
		return 0
	}
	if flags == unix.RENAME_EXCHANGE {
		m.detach(from, on, f)
		m.detach(to, nn, g)
		m.attach(from, on, g)
		m.attach(to, nn, f)
		f.ctime, g.ctime = m.now, m.now
		return 0
	}
	switch {
	case g == nil:
	case f.isDir() && !g.isDir():
		return syscall.ENOTDIR
	case !f.isDir() && g.isDir():
		return syscall.EISDIR
	case len(g.names) > 0 || g.lazy != nil:
		return syscall.ENOTEMPTY
	}
	if g != nil {
		m.detach(to, nn, g)
		m.lose(g)
	}
	m.detach(from, on, f)
	m.attach(to, nn, f)
	f.ctime = m.now
	return 0
}
