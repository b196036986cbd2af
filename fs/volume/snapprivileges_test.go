package volume

import (
	"context"
	"slices"
	"syscall"
	"testing"

	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/store"
)

// What is seen in .snapshots gives no rights; what is taken out of a snapshot has what it had.
func TestSnapshotsGiveNoRights(t *testing.T) {
	r := testRig(t, smallCDC(), Options{Snapshots: SnapshotsVisible})
	v := r.v
	acl := []byte{2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 6, 0, 66, 16, 0, 0, 4, 0, 6, 0, 255, 255, 255, 255,
		16, 0, 6, 0, 255, 255, 255, 255, 32, 0, 6, 0, 255, 255, 255, 255}
	for _, c := range []struct {
		name       string
		mode, seen uint32
		xattr      string
		hidden     bool
	}{
		{"suid", syscall.S_IFREG | 0o4755, syscall.S_IFREG | 0o755, "security.capability", true},
		{"sgid", syscall.S_IFREG | 0o2755, syscall.S_IFREG | 0o755, "user.kept", false},
		{"both", syscall.S_IFREG | 0o6711, syscall.S_IFREG | 0o711, "", false},
		{"sticky", syscall.S_IFREG | 0o1644, syscall.S_IFREG | 0o1644, "", false},
		{"shared", syscall.S_IFDIR | 0o2775, syscall.S_IFDIR | 0o2775, "", false},
		{"char", syscall.S_IFCHR | 0o666, syscall.S_IFCHR, aclAccess, true},
		{"block", syscall.S_IFBLK | 0o660, syscall.S_IFBLK, "", false},
		{"pipe", syscall.S_IFIFO | 0o666, syscall.S_IFIFO | 0o666, "", false},
	} {
		ino := mustCreate(t, v, meta.Root, c.name, c.mode)
		if c.xattr != "" {
			value := []byte("value")
			if c.xattr == aclAccess {
				value = acl
			}
			if err := v.SetXattr(ino, c.xattr, value, 0, false); err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
		}
		mustSnapshot(t, v, c.name)
		if err := v.Clone(context.Background(), SnapshotPath{Snapshot: c.name, Path: c.name}, c.name+".again"); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		top, err := v.Lookup(SnapshotsDir, c.name)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		seen, err := v.Lookup(top.Ino, c.name)
		if err != nil || seen.Mode != c.seen {
			t.Errorf("%s is seen with mode %o, want %o: %v", c.name, seen.Mode, c.seen, err)
		}
		again, err := v.Lookup(meta.Root, c.name+".again")
		if live, lerr := v.Attr(ino); err != nil || lerr != nil || again.Mode != live.Mode {
			t.Errorf("%s comes back with mode %o, %v, %v", c.name, again.Mode, err, lerr)
		}
		if c.xattr == "" {
			continue
		}
		_, err = v.GetXattr(seen.Ino, c.xattr)
		names, lerr := v.ListXattrs(seen.Ino)
		if lerr != nil || c.hidden != (err == syscall.ENODATA) || c.hidden == slices.Contains(names, c.xattr) {
			t.Errorf("%s has %s: %v, listed %q, %v", c.name, c.xattr, err, names, lerr)
		}
		if _, err = v.GetXattr(again.Ino, c.xattr); err != nil {
			t.Errorf("%s comes back without %s: %v", c.name, c.xattr, err)
		}
	}
	var at []uint64
	for from := uint64(0); ; { // one at a time, as a listing that is taken up again
		var got Entry
		if err := v.ReadDir(meta.Root, from, func(e Entry) bool { got = e; return false }); err != nil {
			t.Fatal(err)
		}
		if got.Name == "" {
			break
		}
		if got.Name == SnapshotsName {
			at = append(at, from)
		}
		if got.Pos <= from {
			t.Fatalf("%s is at %d, and what follows it at %d", got.Name, from, got.Pos)
		}
		from = got.Pos
	}
	if len(at) != 1 {
		t.Errorf("%s is listed at %d", SnapshotsName, at)
	}
}

// TestPrivilegesOfOtherStores brings files of another store's snapshot back in each way: none has
// privileges then, also in later snapshots, unless they are asked for. Those of this store's own
// have them.
func TestPrivilegesOfOtherStores(t *testing.T) {
	long := make([]byte, 2000) // stored apart
	files := []struct {
		name        string
		mode, after uint32
		xattrs      map[string]bool // whether it is kept
	}{
		{"suid", syscall.S_IFREG | 0o4755, syscall.S_IFREG | 0o755, nil},
		{"sgid", syscall.S_IFREG | 0o2755, syscall.S_IFREG | 0o755, nil},
		{"caps", syscall.S_IFREG | 0o755, syscall.S_IFREG | 0o755, map[string]bool{"security.capability": false, "user.kept": true}},
		{"label", syscall.S_IFREG | 0o644, syscall.S_IFREG | 0o644, map[string]bool{"security.selinux": false, "user.long": true}},
		{"disk", syscall.S_IFBLK | 0o660, syscall.S_IFBLK, nil},
		{"tty", syscall.S_IFCHR | 0o666, syscall.S_IFCHR, nil},
		{"plain", syscall.S_IFREG | 0o751, syscall.S_IFREG | 0o751, nil},
		{"shared", syscall.S_IFDIR | 0o2775, syscall.S_IFDIR | 0o2775, nil},
	}
	for name, source := range map[string]struct {
		foreign bool
		make    func(t *testing.T, v *Volume, s Snapshot)
		rights  []Rights
	}{
		"own":    {false, func(t *testing.T, v *Volume, s Snapshot) { must(t, v.RenameSnapshot(s.Name, "from")) }, nil},
		"pulled": {true, func(t *testing.T, v *Volume, s Snapshot) { must(t, v.LinkSnapshot("from", s.ID, "")) }, nil},
		"pushed": {true, func(t *testing.T, v *Volume, s Snapshot) { must(t, v.LinkSnapshot("from", s.ID, "token x")) }, nil},
		"wanted": {false, func(t *testing.T, v *Volume, s Snapshot) { must(t, v.LinkSnapshot("from", s.ID, "")) }, []Rights{KeepPrivileges}},
		"renamed": {true, func(t *testing.T, v *Volume, s Snapshot) {
			must(t, v.LinkSnapshot("x", s.ID, "token x"))
			must(t, v.RenameSnapshot("x", "from"))
		}, nil},
		"of before that was noted": {true, func(t *testing.T, v *Volume, s Snapshot) {
			s.Volume = "another"
			plain, err := s.Encode()
			must(t, err)
			defer v.store.Hold()()
			id, err := v.store.Put(store.KindSnapshot, plain)
			must(t, err)
			must(t, v.store.Update(func() error { return v.store.NameSnapshot("from", id) }))
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			r := testRig(t, smallCDC(), Options{})
			v := r.v
			d := mustCreate(t, v, meta.Root, "d", syscall.S_IFDIR|0o755)
			in := mustCreate(t, v, d, "in", syscall.S_IFDIR|0o755)
			clean := mustCreate(t, v, d, "clean", syscall.S_IFDIR|0o755)
			mustCreate(t, v, clean, "f", syscall.S_IFREG|0o600)
			for _, f := range files {
				a, err := v.Create(in, f.name, CreateOptions{Mode: f.mode, UID: 1000, GID: 1000})
				must(t, err)
				for x := range f.xattrs {
					value := []byte("value")
					if x == "user.long" {
						value = long
					}
					must(t, v.SetXattr(a.Ino, x, value, 0, false))
				}
			}
			linked := mustCreate(t, v, d, "linked", syscall.S_IFREG|0o4711)
			_, err := v.Link(linked, in, "again")
			must(t, err)
			source.make(t, v, mustSnapshot(t, v, "s"))
			// In live directories, and once more by a snapshot of these made here.
			check := func(way string, dir meta.Ino) {
				t.Helper()
				at := func(path ...string) Attr {
					a := Attr{Ino: dir}
					for _, name := range path {
						if a, err = v.Lookup(a.Ino, name); err != nil {
							t.Fatalf("%s: %q: %v", way, path, err)
						}
					}
					return a
				}
				for _, f := range files {
					a, want := at("in", f.name), f.mode
					owner := uint32(1000)
					if source.foreign {
						want = f.after
						if f.name == "disk" || f.name == "tty" {
							owner = 0
						}
					}
					if a.Mode != want || a.UID != owner || a.GID != owner {
						t.Errorf("%s: %s has mode %o and owner %d, want %o and %d", way, f.name, a.Mode, a.UID, want, owner)
					}
					for x, kept := range f.xattrs {
						if _, err := v.GetXattr(a.Ino, x); (err == nil) != (kept || !source.foreign) {
							t.Errorf("%s: %s of %s: %v", way, x, f.name, err)
						}
					}
				}
				want := uint32(syscall.S_IFREG | 0o4711)
				if source.foreign {
					want = syscall.S_IFREG | 0o711
				}
				if a, b := at("linked"), at("in", "again"); a.Mode != want || b.Ino != a.Ino {
					t.Errorf("%s: the file with two names: %o, %d and %d", way, a.Mode, a.Ino, b.Ino)
				}
				if a := at("clean", "f"); a.Mode != syscall.S_IFREG|0o600 {
					t.Errorf("%s: a file beside has mode %o", way, a.Mode)
				}
			}
			must(t, v.Clone(t.Context(), SnapshotPath{"from", "d"}, "clone", source.rights...))
			must(t, v.Clone(t.Context(), SnapshotPath{"from", "d"}, "unseen", source.rights...))
			must(t, v.RestoreAlike(t.Context(), SnapshotPath{"from", "d"}, "d", source.rights...))
			mustSnapshot(t, v, "after")
			for _, name := range []string{"clone", "d"} {
				a, err := v.Lookup(meta.Root, name)
				must(t, err)
				check(name, a.Ino)
			}
			check("own snapshot", mustClone(t, v, SnapshotPath{"after", "unseen"}, "once more"))
			must(t, v.Rollback(t.Context(), "from", source.rights...))
			a, err := v.Lookup(meta.Root, "d")
			must(t, err)
			check("rollback", a.Ino)
			r.check(t)
		})
	}
}
