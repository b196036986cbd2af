package volume

import (
	"bytes"
	"maps"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/fs/meta"
)

// compare fails the test for every difference between the volume and the model.
func (m *model) compare(t tb, v *Volume) {
	t.Helper()
	for _, ino := range m.inodes(func(*file) bool { return true }) {
		m.nodes[ino].compare(t, v)
	}
	inodes, bytes := m.count()
	if got := v.Stats(); got.Inodes != inodes || got.LogicalBytes != bytes {
		t.Errorf("%d inodes with %d bytes, want %d with %d", got.Inodes, got.LogicalBytes, inodes, bytes)
	}
}

// count counts all inodes, and the bytes of regular files, whoever has looked at them.
func (m *model) count() (inodes, bytes int64) {
	for _, f := range m.nodes {
		inodes, bytes = inodes+1, bytes+int64(len(f.data))
		if f.lazy != nil {
			n, b := f.lazy.countBelow(f.lazyIno)
			inodes, bytes = inodes+n, bytes+b
		}
	}
	return inodes, bytes
}

// countBelow is count for what is in a directory of a tree without links.
func (m *model) countBelow(dir meta.Ino) (inodes, bytes int64) {
	for _, ino := range m.nodes[dir].names {
		n, b := m.countBelow(ino)
		inodes, bytes = inodes+1+n, bytes+b+int64(len(m.nodes[ino].data))
	}
	return inodes, bytes
}

// compareTree fails the test for every difference between what is below a directory and
// the model's tree.
func (m *model) compareTree(t tb, v *Volume, top, parent meta.Ino) {
	t.Helper()
	inos := map[meta.Ino]meta.Ino{meta.Root: top}
	m.match(t, v, m.nodes[meta.Root], top, inos)
	for ino, there := range inos {
		f := *m.nodes[ino]
		f.ino, f.parent = there, parent
		if ino != meta.Root {
			f.parent = inos[m.nodes[ino].parent]
		}
		f.names = make(map[string]meta.Ino, len(f.names))
		for name, child := range m.nodes[ino].names {
			f.names[name] = inos[child]
		}
		f.compare(t, v)
	}
}

// match finds the inodes that the model's names lead to.
func (m *model) match(t tb, v *Volume, d *file, dir meta.Ino, inos map[meta.Ino]meta.Ino) {
	t.Helper()
	for name, ino := range d.names {
		a, err := v.Lookup(dir, name)
		if err != nil {
			t.Fatalf("%q in directory %d: %v", name, dir, err)
		}
		if old, ok := inos[ino]; ok && old != a.Ino {
			t.Errorf("%q in directory %d is inode %d, and another name of it %d", name, dir, a.Ino, old)
		}
		inos[ino] = a.Ino
		if f := m.nodes[ino]; f.isDir() {
			m.match(t, v, f, a.Ino, inos)
		}
	}
}

func (f *file) compare(t tb, v *Volume) {
	t.Helper()
	a, err := v.Attr(f.ino)
	if err != nil {
		t.Fatalf("attributes of inode %d: %v", f.ino, err)
	}
	mode := f.mode
	if isVirtual(f.ino) { // as if mounted nosuid,nodev
		switch mode & syscall.S_IFMT {
		case syscall.S_IFREG:
			mode &^= 0o6000
		case syscall.S_IFCHR, syscall.S_IFBLK:
			mode &= syscall.S_IFMT
		}
	}
	if a.Mode != mode || a.UID != f.uid || a.GID != f.gid || a.Nlink != f.nlink || a.Target != f.target {
		t.Errorf("inode %d: mode %o owner %d:%d links %d target %q, want %o %d:%d %d %q",
			f.ino, a.Mode, a.UID, a.GID, a.Nlink, a.Target, mode, f.uid, f.gid, f.nlink, f.target)
	}
	if a.Mtime != f.mtime || a.Ctime != f.ctime {
		t.Errorf("inode %d: modified %v changed %v, want %v %v", f.ino, a.Mtime, a.Ctime, f.mtime, f.ctime)
	}
	f.compareXattrs(t, v)
	switch {
	case f.isReg():
		f.compareData(t, v, a)
	case f.isDir() && f.lazy == nil:
		f.compareNames(t, v)
	}
}

func (f *file) compareXattrs(t tb, v *Volume) {
	t.Helper()
	want := maps.Clone(f.xattrs)
	if f.access != nil {
		want[aclAccess] = encodeACL(f.access)
	}
	if f.inherited != nil {
		want[aclDefault] = encodeACL(f.inherited)
	}
	if isVirtual(f.ino) { // as if mounted nosuid,nodev
		switch f.mode & syscall.S_IFMT {
		case syscall.S_IFREG:
			delete(want, "security.capability")
		case syscall.S_IFCHR, syscall.S_IFBLK:
			delete(want, aclAccess)
		}
	}
	names, err := v.ListXattrs(f.ino)
	if err != nil || !slices.Equal(names, slices.Sorted(maps.Keys(want))) {
		t.Errorf("inode %d has attributes %q (%v), want %q", f.ino, names, err, slices.Sorted(maps.Keys(want)))
	}
	for name, value := range want {
		got, err := v.GetXattr(f.ino, name)
		if err != nil || !bytes.Equal(got, value) {
			t.Errorf("inode %d: attribute %s is %x (%v), want %x", f.ino, name, got, err, value)
		}
	}
}

func (f *file) compareData(t tb, v *Volume, a Attr) {
	t.Helper()
	if a.Size != int64(len(f.data)) {
		t.Errorf("inode %d has %d bytes, want %d", f.ino, a.Size, len(f.data))
	}
	got := read(t, v, f.ino, 0, len(f.data)+100)
	if !bytes.Equal(got, f.data) {
		lo := 0
		for lo < min(len(got), len(f.data)) && got[lo] == f.data[lo] {
			lo++
		}
		hi := min(len(got), len(f.data))
		for hi > lo && got[hi-1] == f.data[hi-1] {
			hi--
		}
		t.Fatalf("inode %d: %d bytes read, want %d; they differ from %d to %d", f.ino, len(got), len(f.data), lo, hi)
	}
	f.compareHoles(t, v)
}

// compareHoles walks the file as lseek does: what is called a hole is zeroes.
func (f *file) compareHoles(t tb, v *Volume) {
	t.Helper()
	size := int64(len(f.data))
	for off := int64(0); off < size; {
		lo, err := v.Seek(f.ino, off, unix.SEEK_DATA)
		if err == syscall.ENXIO {
			lo, err = size, nil
		}
		if err != nil || lo < off || lo > size {
			t.Fatalf("inode %d of %d bytes: data after %d is at %d (%v)", f.ino, size, off, lo, err)
		}
		for i, b := range f.data[off:lo] {
			if b != 0 {
				t.Fatalf("inode %d: byte %d is in a hole from %d to %d", f.ino, off+int64(i), off, lo)
			}
		}
		if lo == size {
			return
		}
		if off, err = v.Seek(f.ino, lo, unix.SEEK_HOLE); err != nil || off <= lo || off > size {
			t.Fatalf("inode %d of %d bytes: the hole after %d is at %d (%v)", f.ino, size, lo, off, err)
		}
	}
}

func (f *file) compareNames(t tb, v *Volume) {
	t.Helper()
	got := make(map[string]meta.Ino)
	last := uint64(0)
	err := v.ReadDir(f.ino, 0, func(e Entry) bool {
		if e.Pos <= last {
			t.Errorf("directory %d: position %d after %d", f.ino, e.Pos, last)
		}
		last = e.Pos
		got[e.Name] = e.Ino
		return true
	})
	want := maps.Clone(f.names)
	want["."], want[".."] = f.ino, f.parent
	if err != nil || !maps.Equal(got, want) {
		t.Fatalf("directory %d lists %v (%v), want %v", f.ino, got, err, want)
	}
	for name, ino := range f.names {
		if a, err := v.Lookup(f.ino, name); err != nil || a.Ino != ino {
			t.Errorf("%q in directory %d leads to %d (%v), want %d", name, f.ino, a.Ino, err, ino)
		}
	}
}
