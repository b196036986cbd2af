package volume

import (
	"context"
	"errors"
	"maps"
	"slices"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/store"
)

// TestRandomSnapshots does little else but to make, clone, restore and roll back
// snapshots of what changes now and then.
func TestRandomSnapshots(t *testing.T) {
	t.Parallel()
	runRandom(t, func(m *machine) map[string]func(*rapid.T) {
		all := m.actions()
		some := make(map[string]func(*rapid.T))
		for _, name := range []string{
			"", "create", "create2", "link", "remove", "rename", "write", "small", "truncate", "copy", "xattr", "known", "forget",
			"snapshot", "snapshot2", "unsnap", "past", "clone", "clone2", "restore", "rollback", "expand", "sweep", "verify", "remount", "crash",
		} {
			some[name] = all[name]
		}
		for _, name := range []string{"snapshot", "clone", "restore"} {
			some[name+"3"], some[name+"4"] = all[name], all[name]
		}
		return some
	})
}

// path returns a path to an inode that the root leads to.
func (m *model) path(ino meta.Ino) (string, bool) {
	var find func(dir meta.Ino, prefix string) (string, bool)
	find = func(dir meta.Ino, prefix string) (string, bool) {
		if dir == ino {
			return prefix, true
		}
		for _, name := range slices.Sorted(maps.Keys(m.nodes[dir].names)) {
			if p, ok := find(m.nodes[dir].names[name], prefix+"/"+name); ok {
				return p, true
			}
		}
		return "", false
	}
	return find(meta.Root, "")
}

// put clones or restores something of a snapshot.
func (m *machine) put(t *rapid.T, do func(context.Context, SnapshotPath, string, ...Rights) error, replace bool) {
	name := snapshotName(t, "snapshot")
	src := m.snaps[name]
	if src == nil {
		t.Skip("there is none")
	}
	was := rapid.SampledFrom(src.inodes(any1)).Draw(t, "what")
	from, ok := src.path(was)
	if !ok {
		t.Fatalf("no path leads to inode %d of snapshot %q", was, name)
	}
	dir, to := m.pick(t, "dir", isDirectory), rapid.SampledFrom([]string{"a", "b", "c", "d", "e"}).Draw(t, "name")
	path, ok := m.model.path(dir)
	if !ok {
		t.Skip("no path leads there")
	}
	err := do(context.Background(), SnapshotPath{name, from}, path+"/"+to)
	d := m.model.nodes[dir]
	old, taken := d.names[to]
	if taken && !replace {
		m.expect(t, err, syscall.EEXIST)
		return
	}
	m.expect(t, err, 0)
	if taken {
		m.model.detach(d, to, m.model.nodes[old])
		m.model.lose(m.model.nodes[old])
		m.vanished(dir, to)
	}
	m.cloneInto(t, src, was, dir, to)
	if taken {
		m.reaped(t)
	}
	m.committed = m.model.asCommitted()
}

// cloneInto adds what the volume has made of an inode of a snapshot.
func (m *machine) cloneInto(t *rapid.T, src *model, was, dir meta.Ino, name string) {
	number := m.number(t, m.v)
	d := m.model.nodes[dir]
	f := m.model.imitate(src, was, number(dir, name), dir)
	m.model.attach(d, name, f)
	if f.lazy != nil && src.hasLinks(was) {
		m.model.expand(f, number)
	}
	f.compare(t, m.v)
}

func (m *machine) rollback(t *rapid.T) {
	name := snapshotName(t, "snapshot")
	src := m.snaps[name]
	if src == nil {
		t.Skip("there is none")
	}
	m.expect(t, m.v.Rollback(context.Background(), name), 0)
	root := m.model.nodes[meta.Root]
	for _, name := range slices.Sorted(maps.Keys(root.names)) {
		f := m.model.nodes[root.names[name]]
		m.model.detach(root, name, f)
		m.model.lose(f)
		m.vanished(meta.Root, name)
	}
	fresh := src.nodes[meta.Root].copy()
	fresh.known, fresh.names = root.known, make(map[string]meta.Ino)
	m.model.nodes[meta.Root] = fresh
	m.model.fill(fresh, src, meta.Root, m.number(t, m.v), make(map[meta.Ino]meta.Ino))
	m.reaped(t)
	m.committed = m.model.asCommitted()
	m.model.compare(t, m.v)
}

// reaped waits until what was in a directory that is gone has lost its names, by the clock of now,
// and commits that: after a crash it would lose them later.
func (m *machine) reaped(t *rapid.T) {
	m.awaitReaper(t)
	mustSync(t, m.v)
}

func snapshotName(t *rapid.T, label string) string {
	return rapid.SampledFrom([]string{"s1", "s2", "s3", "s4"}).Draw(t, label)
}

func (m *machine) snapshot(t *rapid.T) {
	name := snapshotName(t, "name")
	// What a restore has put another thing in place of, and somebody still uses, keeps its names
	// until that ends. A snapshot has those of its files that have several names in its link table,
	// and counts them, as docs/snapshots.md says; the model does not know which.
	for ino, f := range m.model.nodes {
		if _, ok := m.model.path(ino); !ok && len(f.names) > 0 {
			t.Skip("a directory that is gone is in use")
		}
	}
	_, err := m.v.CreateSnapshot(context.Background(), SnapshotOptions{Name: name})
	if m.snaps[name] != nil {
		if !errors.Is(err, store.ErrNameTaken) {
			t.Fatalf("a second snapshot %q: %v", name, err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	m.committed = m.model.asCommitted()
	m.snaps[name] = m.model.resolved()
	m.snaps[name].compareSnapshot(t, m.v, name)
}

func (m *machine) unsnap(t *rapid.T) {
	name := snapshotName(t, "name")
	err := m.v.RemoveSnapshot(name)
	if got := !errors.Is(err, store.ErrNotFound); got != (m.snaps[name] != nil) || got && err != nil {
		t.Fatalf("remove snapshot %q: %v", name, err)
	}
	if err != nil {
		return
	}
	delete(m.snaps, name)
	m.committed = m.model.asCommitted()
	if _, err := m.v.Snapshot(context.Background(), name); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the removed snapshot: %v", err)
	}
}

func (m *machine) renameSnapshot(t *rapid.T) {
	name, to := snapshotName(t, "name"), snapshotName(t, "to")
	err := m.v.RenameSnapshot(name, to)
	s := m.snaps[name]
	switch {
	case s == nil:
		if !errors.Is(err, store.ErrNotFound) {
			t.Fatalf("rename a snapshot that is not there: %v", err)
		}
		return
	case name != to && m.snaps[to] != nil:
		if !errors.Is(err, store.ErrNameTaken) {
			t.Fatalf("rename a snapshot over another one: %v", err)
		}
		return
	case err != nil:
		t.Fatal(err)
	}
	delete(m.snaps, name)
	m.snaps[to] = s
	m.committed = m.model.asCommitted()
}

// seeSnapshot looks at a snapshot, and tries to change it.
func (m *machine) seeSnapshot(t *rapid.T) {
	name := snapshotName(t, "name")
	s := m.snaps[name]
	if s == nil {
		t.Skip("there is none")
	}
	top := s.compareSnapshot(t, m.v, name)
	_, err := m.v.Create(top, "new", CreateOptions{Mode: syscall.S_IFREG})
	m.expect(t, err, syscall.EROFS)
	mode := uint32(0)
	_, err = m.v.SetAttr(top, Change{Mode: &mode})
	m.expect(t, err, syscall.EROFS)
	m.expect(t, m.v.SetXattr(top, "user.a", nil, 0, false), syscall.EROFS)
	m.expect(t, m.v.Rename(top, "a", top, "b", 0), syscall.EROFS)
	m.expect(t, m.v.Unlink(top, "a"), syscall.EROFS)
}

func (m *machine) compareSnapshots(t *rapid.T, v *Volume) {
	list, err := v.Snapshots(context.Background())
	if err != nil || len(list) != len(m.snaps) {
		t.Fatalf("%d snapshots (%v), want %d", len(list), err, len(m.snaps))
	}
	for name, s := range m.snaps {
		s.compareSnapshot(t, v, name)
	}
	v.views.forgetIdle()
	if n := len(v.views.nodes); n != 0 {
		t.Errorf("%d inodes of snapshots are known to nobody and stay", n)
	}
}

// compareSnapshot compares a snapshot with the model and returns its root.
func (m *model) compareSnapshot(t tb, v *Volume, name string) meta.Ino {
	t.Helper()
	dir, err := v.Lookup(meta.Root, SnapshotsName)
	if err != nil {
		t.Fatalf("%s: %v", SnapshotsName, err)
	}
	top, err := v.Lookup(dir.Ino, name)
	if err != nil {
		t.Fatalf("snapshot %q: %v", name, err)
	}
	m.compareTree(t, v, top.Ino, SnapshotsDir)
	s, err := v.Snapshot(context.Background(), name)
	if err != nil {
		t.Fatalf("snapshot %q: %v", name, err)
	}
	if got, want := s.Totals, m.totals(); got.Files != want.Files || got.Dirs != want.Dirs || got.Others != want.Others || got.Logical != want.Logical {
		t.Errorf("snapshot %q: totals %+v, want %+v", name, got, want)
	}
	return top.Ino
}

// totals counts what the root leads to.
func (m *model) totals() (sum graph.Totals) {
	seen := make(map[meta.Ino]bool)
	var walk func(f *file)
	walk = func(f *file) {
		if seen[f.ino] {
			return
		}
		seen[f.ino] = true
		switch {
		case f.isDir():
			sum.Dirs++
		case f.isReg():
			sum.Files++
			sum.Logical += int64(len(f.data))
		default:
			sum.Others++
		}
		for _, ino := range f.names {
			walk(m.nodes[ino])
		}
	}
	walk(m.nodes[meta.Root])
	return sum
}

// forgetIdle forgets all that the kernel does not know.
func (w *views) forgetIdle() {
	w.Lock()
	defer w.Unlock()
	for len(w.idle) > 0 {
		w.next()
	}
}
