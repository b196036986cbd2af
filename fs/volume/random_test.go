package volume

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/store/chunk"
)

// TestRandom does random things to a volume and to a model of one and compares
// them. More of it: -rapid.checks=1000 -rapid.steps=60.
func TestRandom(t *testing.T) {
	t.Parallel()
	runRandom(t, func(m *machine) map[string]func(*rapid.T) { return m.actions() })
}

func runRandom(t *testing.T, actions func(*machine) map[string]func(*rapid.T)) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "quarxfs-random-")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		m := newMachine(t, filepath.Join(dir, "store"))
		defer m.abandon()
		t.Repeat(actions(m))
		m.expandAll(t)
		m.remount(t)
	})
}

// A machine is a volume, its model, and the model as it was at the last commit.
type machine struct {
	*rig
	model     *model
	committed *model
	snaps     map[string]*model // snapshots, as the volume was then
	written   [][]byte          // data written before, to be written again
	cursors   []*cursor
	crashes   int
}

// A cursor is a listing of a directory under way.
type cursor struct {
	dir    meta.Ino
	pos    uint64
	expect map[string]bool // names that have been there from the start, not seen yet
	seen   map[uint64]bool
}

func newMachine(t *rapid.T, dir string) *machine {
	ck := rapid.SampledFrom([]chunk.Config{fixed4K(), smallCDC()}).Draw(t, "chunker")
	o := tiny()
	o.DirtyBytes = rapid.SampledFrom([]int64{64 << 10, 256 << 10, 16 << 20}).Draw(t, "dirty")
	o.Nodes = rapid.SampledFrom([]int{1, 8, 1000}).Draw(t, "nodes")
	m := &machine{rig: newRig(t, dir, ck, o)}
	m.model = newModel(m.clock.time())
	m.snaps = make(map[string]*model)
	m.commit(t)
	return m
}

// abandon closes the store whatever the test's result is.
func (m *machine) abandon() {
	if m.v != nil {
		_ = errors.Join(m.v.Close(), m.st.Close())
	}
}

// commit syncs and notes what a crash must leave from now on.
func (m *machine) commit(t tb) {
	mustSync(t, m.v)
	m.committed = m.model.asCommitted()
}

func (m *machine) actions() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"":          m.tick,
		"create":    m.create,
		"create2":   m.create,
		"nameless":  m.nameless,
		"link":      m.link,
		"remove":    m.remove,
		"rename":    m.rename,
		"rename2":   m.rename,
		"write":     m.write,
		"write2":    m.write,
		"write3":    m.write,
		"small":     m.smallWrite,
		"small2":    m.smallWrite,
		"truncate":  m.truncate,
		"fallocate": m.fallocate,
		"copy":      m.copy,
		"copy2":     m.copy,
		"xattr":     m.xattr,
		"acl":       m.acl,
		"setattr":   m.setattr,
		"known":     m.know,
		"forget":    m.forget,
		"list":      m.listDir,
		"snapshot":  m.snapshot,
		"snapshot2": m.snapshot,
		"unsnap":    m.unsnap,
		"resnap":    m.renameSnapshot,
		"past":      m.seeSnapshot,
		"clone":     func(t *rapid.T) { m.put(t, m.v.Clone, false) },
		"clone2":    func(t *rapid.T) { m.put(t, m.v.Clone, false) },
		"restore":   func(t *rapid.T) { m.put(t, m.v.Restore, true) },
		"rollback":  m.rollback,
		"expand":    m.expandAll,
		"sync":      func(t *rapid.T) { m.commit(t) },
		"sync2":     func(t *rapid.T) { m.commit(t) },
		"flush":     m.flush,
		"mend":      m.coalesce,
		"sweep":     m.sweep,
		"verify":    m.verify,
		"remount":   m.remount,
		"crash":     m.crash,
	}
}

// tick lets time pass between actions: sometimes enough to make blocks of staged bytes.
func (m *machine) tick(t *rapid.T) {
	m.clock.advance(time.Duration(rapid.SampledFrom([]int{1, 1, 1, 11}).Draw(t, "seconds")) * time.Second)
	m.model.now = m.clock.time()
}

func (m *machine) expect(t *rapid.T, err error, want syscall.Errno) {
	t.Helper()
	if got := errnoOf(err); got != want {
		t.Fatalf("got %v (%v), want %v", got, err, want)
	}
}

func any1(*file) bool { return true }

func isDirectory(f *file) bool { return f.isDir() }

func isRegular(f *file) bool { return f.isReg() }

// pick chooses an inode. An action that makes no sense calls t.Skip before it has
// changed anything: rapid then takes another one in its place.
func (m *machine) pick(t *rapid.T, label string, keep func(*file) bool) meta.Ino {
	list := m.model.inodes(keep)
	if len(list) == 0 {
		t.Skip("there is none")
	}
	ino := rapid.SampledFrom(list).Draw(t, label)
	if f := m.model.nodes[ino]; f.lazy != nil {
		m.model.expand(f, m.number(t, m.v))
	}
	return ino
}

// number asks a volume which inode a name leads to.
func (m *machine) number(t tb, v *Volume) func(dir meta.Ino, name string) meta.Ino {
	return func(dir meta.Ino, name string) meta.Ino {
		a, err := v.Lookup(dir, name)
		if err != nil {
			t.Fatalf("%q in directory %d: %v", name, dir, err)
		}
		return a.Ino
	}
}

func (m *machine) expandAll(t *rapid.T) {
	m.model.expandAll(m.number(t, m.v))
	m.verify(t)
}

// usually picks what keep wants, and now and then anything.
func (m *machine) usually(t *rapid.T, label string, keep func(*file) bool) meta.Ino {
	if rapid.IntRange(0, 19).Draw(t, "odd") == 0 {
		keep = any1
	}
	return m.pick(t, label, keep)
}

func name(t *rapid.T, label string) string {
	return rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f\xff\xfe"}).Draw(t, label)
}

func permissions(t *rapid.T) uint32 { return rapid.Uint32Range(0, 0o7777).Draw(t, "permissions") }

func (m *machine) newInode(t *rapid.T) CreateOptions {
	c := CreateOptions{
		Mode:  rapid.SampledFrom([]uint32{syscall.S_IFREG, syscall.S_IFREG, syscall.S_IFDIR, syscall.S_IFLNK, syscall.S_IFIFO}).Draw(t, "type"),
		Umask: rapid.SampledFrom([]uint32{0, 0o22, 0o77}).Draw(t, "umask"),
		UID:   rapid.Uint32Range(0, 3).Draw(t, "uid"),
		GID:   rapid.Uint32Range(0, 3).Draw(t, "gid"),
	}
	c.Mode |= permissions(t)
	if c.Mode&syscall.S_IFMT == syscall.S_IFLNK {
		c.Target = "to/" + name(t, "target")
	}
	return c
}

func (m *machine) create(t *rapid.T) {
	dir, name, c := m.usually(t, "dir", isDirectory), name(t, "name"), m.newInode(t)
	a, err := m.v.Create(dir, name, c)
	m.expect(t, err, m.model.vacant(dir, name))
	if err == nil {
		m.model.create(dir, name, c, a.Ino)
		m.model.nodes[a.Ino].compare(t, m.v)
	}
}

func (m *machine) nameless(t *rapid.T) {
	dir, c := m.pick(t, "dir", isDirectory), m.newInode(t)
	c.Mode = syscall.S_IFREG | c.Mode&0o7777
	c.Target = ""
	a, err := m.v.CreateNameless(dir, c)
	m.expect(t, err, m.model.vacant(dir, ""))
	if err == nil {
		m.model.create(dir, "", c, a.Ino)
		m.model.nodes[a.Ino].compare(t, m.v)
	}
}

func (m *machine) link(t *rapid.T) {
	ino, dir, name := m.pick(t, "inode", any1), m.usually(t, "dir", isDirectory), name(t, "name")
	_, err := m.v.Link(ino, dir, name)
	m.expect(t, err, m.model.link(ino, dir, name))
}

func (m *machine) remove(t *rapid.T) {
	dir, name, wantDir := m.usually(t, "dir", isDirectory), name(t, "name"), rapid.Bool().Draw(t, "rmdir")
	do := m.v.Unlink
	if wantDir {
		do = m.v.Rmdir
	}
	err := do(dir, name)
	m.expect(t, err, m.model.remove(dir, name, wantDir))
	if err == nil {
		m.vanished(dir, name)
	}
}

func (m *machine) rename(t *rapid.T) {
	od, on := m.usually(t, "from", isDirectory), name(t, "old")
	nd, nn := m.usually(t, "to", isDirectory), name(t, "new")
	flags := rapid.SampledFrom([]uint32{0, 0, unix.RENAME_NOREPLACE, unix.RENAME_EXCHANGE, unix.RENAME_EXCHANGE, unix.RENAME_WHITEOUT, 3, 8}).Draw(t, "flags")
	same := od == nd && on == nn
	src, _ := m.model.lookup(od, on)
	dst, _ := m.model.lookup(nd, nn)
	orphan := m.model.nodes[nd].nlink == 0
	err := m.v.Rename(od, on, nd, nn, flags)
	want := m.model.rename(od, on, nd, nn, flags)
	if orphan && want != 0 && err != nil {
		return // several errors fit a directory that is gone
	}
	m.expect(t, err, want)
	if err != nil || flags == unix.RENAME_EXCHANGE || same || src == dst {
		return
	}
	m.vanished(od, on)
	if flags == unix.RENAME_WHITEOUT {
		a, err := m.v.Lookup(od, on)
		m.expect(t, err, 0)
		from := m.model.nodes[od]
		m.model.create(od, on, CreateOptions{Mode: syscall.S_IFCHR, UID: from.uid, GID: from.gid}, a.Ino)
		m.model.nodes[a.Ino].access = nil // a whiteout inherits no ACL
	}
}

// payload draws bytes to be written.
func (m *machine) payload(t *rapid.T, sizes []int) []byte {
	size := rapid.SampledFrom(sizes).Draw(t, "size")
	if rapid.Bool().Draw(t, "odd size") {
		size = rapid.IntRange(1, size).Draw(t, "exact size")
	}
	var p []byte
	switch kind := rapid.SampledFrom([]string{"noise", "noise", "zero", "old", "text", "mixed", "archive"}).Draw(t, "kind"); {
	case kind == "zero":
		p = make([]byte, size)
	case kind == "old" && len(m.written) > 0:
		p = slices.Clone(rapid.SampledFrom(m.written).Draw(t, "written"))
		p = p[:min(len(p), size)]
	case kind == "text":
		p = slices.Repeat([]byte("all the same line\n"), size/18+1)[:size]
	case kind == "archive":
		p = archive(rapid.Uint64Range(0, 1<<8).Draw(t, "seed"), size)
	default:
		p = noise(rapid.Uint64Range(0, 1<<16).Draw(t, "seed"), size)
		if kind == "mixed" {
			clear(p[size/4 : size/2])
		}
	}
	if len(m.written) < 20 {
		m.written = append(m.written, p)
	}
	return p
}

// archive returns so many bytes of a tar file, whose members' lengths depend on the seed.
func archive(seed uint64, size int) []byte {
	rng := rand.New(rand.NewPCG(seed, 0))
	var b bytes.Buffer
	for w := tar.NewWriter(&b); b.Len() < size; {
		p := noise(seed, rng.IntN(10_000)*rng.IntN(2)) // an empty one has its header in a row with the next
		_ = w.WriteHeader(&tar.Header{Name: "member", Mode: 0o644, Size: int64(len(p))})
		_, _ = w.Write(p)
		_ = w.Flush()
	}
	return b.Bytes()[:size]
}

func (m *machine) offset(t *rapid.T, ino meta.Ino) int64 {
	size := int64(len(m.model.nodes[ino].data))
	off := rapid.Int64Range(0, size+20000).Draw(t, "offset")
	switch rapid.SampledFrom([]string{"any", "end", "start", "page", "page", "gap"}).Draw(t, "place") {
	case "end":
		off = size
	case "start":
		off = 0
	case "page":
		off &^= 4095
	case "gap":
		off = size + rapid.Int64Range(0, 600_000).Draw(t, "gap")
	}
	return min(off, 8<<20)
}

func (m *machine) writeOf(t *rapid.T, sizes []int) {
	ino := m.usually(t, "inode", isRegular)
	off, p := m.offset(t, ino), m.payload(t, sizes)
	mode := WriteMode{Cached: rapid.Bool().Draw(t, "cached"), KillPriv: rapid.Bool().Draw(t, "kill")}
	err := m.v.Write(ino, off, p, mode)
	m.expect(t, err, m.model.write(ino, off, p, mode))
	m.model.nodes[ino].compare(t, m.v)
}

func (m *machine) write(t *rapid.T) {
	m.writeOf(t, []int{100, 4096, 16384, 60000, 300_000, 1 << 20, 5 << 19})
}

// smallWrite does as a database does: a page, and often an fsync.
func (m *machine) smallWrite(t *rapid.T) {
	m.writeOf(t, []int{10, 512, 4096, 8192})
	if rapid.Bool().Draw(t, "fsync") {
		m.commit(t)
	}
}

func (m *machine) truncate(t *rapid.T) {
	ino := m.usually(t, "inode", isRegular)
	size, kill := m.offset(t, ino), rapid.Bool().Draw(t, "kill")
	_, err := m.v.SetAttr(ino, Change{Size: &size, KillPriv: kill})
	m.expect(t, err, m.model.truncate(ino, size, kill))
	m.model.nodes[ino].compare(t, m.v)
}

func (m *machine) fallocate(t *rapid.T) {
	const keep, punch, zero = unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_PUNCH_HOLE, unix.FALLOC_FL_ZERO_RANGE
	ino := m.usually(t, "inode", isRegular)
	off, length := m.offset(t, ino), rapid.Int64Range(0, 100_000).Draw(t, "length")
	if rapid.Bool().Draw(t, "pages") {
		length &^= 4095
	}
	mode := rapid.SampledFrom([]uint32{0, keep, punch | keep, zero, zero | keep, unix.FALLOC_FL_COLLAPSE_RANGE}).Draw(t, "mode")
	err := m.v.Fallocate(ino, off, length, mode)
	m.expect(t, err, m.model.fallocate(ino, off, length, mode))
	m.model.nodes[ino].compare(t, m.v)
}

func (m *machine) copy(t *rapid.T) {
	src, dst := m.usually(t, "source", isRegular), m.usually(t, "target", isRegular)
	so, do := m.offset(t, src), m.offset(t, dst)
	length := rapid.Int64Range(0, 1<<20).Draw(t, "length")
	switch rapid.SampledFrom([]string{"all", "pages", "any"}).Draw(t, "range") {
	case "all":
		so, do, length = 0, 0, 1<<40
	case "pages":
		so, do, length = so&^4095, do&^4095, length&^4095
	}
	got, err := m.v.CopyRange(src, so, dst, do, length)
	want, e := m.model.copyRange(src, so, dst, do, length)
	m.expect(t, err, e)
	if got != want {
		t.Fatalf("%d bytes copied, want %d", got, want)
	}
	m.model.nodes[dst].compare(t, m.v)
}

func (m *machine) xattr(t *rapid.T) {
	ino := m.pick(t, "inode", any1)
	f := m.model.nodes[ino]
	name := rapid.SampledFrom([]string{"user.a", "user.b", "trusted.c", capabilityXattr}).Draw(t, "name")
	_, has := f.xattrs[name]
	if rapid.IntRange(0, 3).Draw(t, "remove") == 0 {
		err := m.v.RemoveXattr(ino, name)
		if !has {
			m.expect(t, err, syscall.ENODATA)
			return
		}
		m.expect(t, err, 0)
		delete(f.xattrs, name)
		f.ctime = m.model.now
		return
	}
	value := noise(rapid.Uint64Range(0, 99).Draw(t, "seed"), rapid.SampledFrom([]int{0, 1, 300, 65536, 65537}).Draw(t, "size"))
	flags := rapid.SampledFrom([]uint32{0, 0, unix.XATTR_CREATE, unix.XATTR_REPLACE}).Draw(t, "flags")
	err := m.v.SetXattr(ino, name, value, flags, false)
	switch {
	case len(value) > 65536:
		m.expect(t, err, syscall.E2BIG)
	case has && flags == unix.XATTR_CREATE:
		m.expect(t, err, syscall.EEXIST)
	case !has && flags == unix.XATTR_REPLACE:
		m.expect(t, err, syscall.ENODATA)
	default:
		m.expect(t, err, 0)
		f.xattrs[name] = value
		f.ctime = m.model.now
	}
	f.compare(t, m.v)
}

func (m *machine) acl(t *rapid.T) {
	ino := m.pick(t, "inode", func(f *file) bool { return f.mode&syscall.S_IFMT != syscall.S_IFLNK })
	f := m.model.nodes[ino]
	perm := func(label string) uint16 { return rapid.Uint16Range(0, 7).Draw(t, label) }
	acl := []aclEntry{{aclUserObj, perm("user"), 1<<32 - 1}}
	if long := rapid.Bool().Draw(t, "long"); long {
		acl = append(acl, aclEntry{aclUser, perm("other user"), 1000},
			aclEntry{aclGroupObj, perm("group"), 1<<32 - 1}, aclEntry{aclMask, perm("mask"), 1<<32 - 1})
	} else {
		acl = append(acl, aclEntry{aclGroupObj, perm("group"), 1<<32 - 1})
	}
	acl = append(acl, aclEntry{aclOther, perm("others"), 1<<32 - 1})
	if rapid.Bool().Draw(t, "default") {
		err := m.v.SetXattr(ino, aclDefault, encodeACL(acl), 0, false)
		if !f.isDir() {
			m.expect(t, err, syscall.EACCES)
			return
		}
		m.expect(t, err, 0)
		f.inherited = acl
	} else {
		drop := rapid.Bool().Draw(t, "drop sgid")
		m.expect(t, m.v.SetXattr(ino, aclAccess, encodeACL(acl), 0, drop), 0)
		f.setAccess(acl)
		if drop {
			f.mode &^= syscall.S_ISGID
		}
	}
	f.ctime = m.model.now
	f.compare(t, m.v)
}

func (m *machine) setattr(t *rapid.T) {
	ino := m.pick(t, "inode", any1)
	f := m.model.nodes[ino]
	var c Change
	if rapid.Bool().Draw(t, "chown") {
		id := rapid.Uint32Range(0, 3).Draw(t, "owner")
		c.UID, c.GID = &id, &id
		f.uid, f.gid = id, id
		if !f.isDir() {
			f.killPriv(true)
		}
	}
	if rapid.Bool().Draw(t, "chmod") {
		mode := permissions(t)
		c.Mode = &mode
		m.model.chmod(f, mode)
	}
	f.ctime = m.model.now
	if rapid.Bool().Draw(t, "utimes") {
		when := meta.Time{Sec: rapid.Int64Range(-1<<40, 1<<40).Draw(t, "sec"), Nsec: rapid.Uint32Range(0, 999_999_999).Draw(t, "nsec")}
		c.Mtime, f.mtime = &when, when
	}
	_, err := m.v.SetAttr(ino, c)
	m.expect(t, err, 0)
	f.compare(t, m.v)
}

func (m *machine) know(t *rapid.T) {
	ino := m.pick(t, "inode", any1)
	m.v.Known(ino)
	m.model.nodes[ino].known++
}

func (m *machine) forget(t *rapid.T) {
	ino := m.pick(t, "inode", func(f *file) bool { return f.known > 0 })
	f := m.model.nodes[ino]
	n := rapid.Uint64Range(1, f.known).Draw(t, "count")
	m.v.Forget(ino, n)
	f.known -= n
	m.model.reap(f)
	m.awaitReaper(t) // what was in a directory that is gone loses a name now, by the clock
}

// listDir goes on with a listing that has been begun, or begins one.
func (m *machine) listDir(t *rapid.T) {
	if len(m.cursors) < 3 {
		dir := m.pick(t, "dir", isDirectory)
		c := &cursor{dir: dir, expect: make(map[string]bool), seen: make(map[uint64]bool)}
		for name := range m.model.nodes[dir].names {
			c.expect[name] = true
		}
		m.cursors = append(m.cursors, c)
	}
	i := rapid.IntRange(0, len(m.cursors)-1).Draw(t, "cursor")
	c := m.cursors[i]
	if m.model.nodes[c.dir] == nil {
		m.cursors = slices.Delete(m.cursors, i, i+1)
		return
	}
	left := rapid.IntRange(1, 4).Draw(t, "entries")
	err := m.v.ReadDir(c.dir, c.pos, func(e Entry) bool {
		if left--; left < 0 {
			return false
		}
		if c.seen[e.Pos] {
			t.Errorf("%q at position %d is listed again", e.Name, e.Pos)
		}
		c.seen[e.Pos] = true
		delete(c.expect, e.Name)
		c.pos = e.Pos
		return true
	})
	if err != nil {
		t.Fatalf("list directory %d: %v", c.dir, err)
	}
	if left > 0 {
		for name := range c.expect {
			t.Errorf("%q was in directory %d all the time and is not listed", name, c.dir)
		}
		m.cursors = slices.Delete(m.cursors, i, i+1)
	}
}

// vanished tells the cursors that a name was taken out of a directory.
func (m *machine) vanished(dir meta.Ino, name string) {
	for _, c := range m.cursors {
		if c.dir == dir {
			delete(c.expect, name)
		}
	}
}

// coalesce lets time pass and has small blocks made into longer ones.
func (m *machine) coalesce(t *rapid.T) {
	m.flush(t)
	m.tick(t)
	m.clock.advance(quietTime)
	coalesceAll(t, m.v)
}

func (m *machine) flush(t *rapid.T) {
	mode := rapid.SampledFrom([]flushMode{flushFull, flushPartial, flushWhole}).Draw(t, "mode")
	if err := m.v.flusher.flushAll(mode); err != nil {
		t.Fatal(err)
	}
}

func (m *machine) sweep(t *rapid.T) {
	m.awaitReaper(t)
	m.v.views.forgetIdle()
	// What the sweep's own commits free is left to the next one: one commit may
	// stage bytes that are so old that the next one makes blocks of them.
	mustSync(t, m.v)
	mustSync(t, m.v)
	if _, err := m.st.Sweep(context.Background()); err != nil {
		t.Fatal(err)
	}
	m.committed = m.model.asCommitted()
	if n := m.st.Stats().Totals.Zero; n != 0 {
		t.Errorf("the sweep left %d blocks that nothing refers to", n)
	}
	m.model.compare(t, m.v)
}

func (m *machine) verify(t *rapid.T) {
	m.awaitReaper(t)
	m.model.compare(t, m.v)
	m.compareSnapshots(t, m.v)
	m.check(t)
	m.committed = m.model.asCommitted() // Check commits
}

func (m *machine) remount(t *rapid.T) {
	m.close(t)
	m.v = nil
	m.open(t)
	m.model = m.model.clone()
	m.model.now = m.clock.time()
	m.cursors = nil
	m.verify(t)
}

// crash opens a copy of the store as it is now and compares it with the last
// commit.
func (m *machine) crash(t *rapid.T) {
	m.crashes++
	dir := m.dir + ".crashed"
	defer os.RemoveAll(dir)
	if err := copyStore(m.dir, dir); err != nil {
		t.Fatal(err)
	}
	c := &rig{dir: dir, clock: m.clock, options: m.options}
	c.open(t)
	defer c.close(t)
	c.awaitReaper(t)
	m.committed.now = m.clock.time()
	left := m.committed.clone()
	left.compare(t, c.v)
	c.check(t)
	if rapid.Bool().Draw(t, "expand") {
		left.expandAll(m.number(t, c.v))
	}
	left.compare(t, c.v)
	m.compareSnapshots(t, c.v)
}
