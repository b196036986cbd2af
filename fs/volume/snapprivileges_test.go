package volume

import (
	"context"
	"slices"
	"syscall"
	"testing"

	"github.com/quarxtor/quarxfs/fs/meta"
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
