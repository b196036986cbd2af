package volume

import (
	"context"
	"fmt"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/quarxtor/quarxfs/fs/meta"
)

// An inode number of a snapshot leads to the same inode in a later mount in which nobody has looked
// at it before, however the numbers are asked for; it leads nowhere once the snapshot is removed.
func TestSnapshotNumbers(t *testing.T) {
	r := newRig(t, filepath.Join(t.TempDir(), "store"), fixed4K(), tiny())
	defer func() { r.close(t) }()
	for i := range 40 {
		dir := mustCreate(t, r.v, meta.Root, fmt.Sprint("d", i), syscall.S_IFDIR|0o755)
		mustCreate(t, r.v, dir, "f", syscall.S_IFREG|0o644)
		sub := mustCreate(t, r.v, dir, "sub", syscall.S_IFDIR|0o755)
		for n := range i {
			mustCreate(t, r.v, sub, fmt.Sprint("f", n), syscall.S_IFREG|0o644)
		}
		file := mustCreate(t, r.v, sub, "linked", syscall.S_IFREG|0o644)
		if _, err := r.v.Link(file, dir, "link"); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"a", "b"} {
		if _, err := r.v.CreateSnapshot(context.Background(), SnapshotOptions{Name: name}); err != nil {
			t.Fatal(err)
		}
		mustCreate(t, r.v, meta.Root, "new "+name, syscall.S_IFREG|0o644)
	}
	numbers := make(map[string]Attr)
	note := func(path string, a Attr) error { numbers[path] = a; return nil }
	if err := r.v.Walk(SnapshotsDir, "", note); err != nil {
		t.Fatal(err)
	}
	if len(numbers) < 1900 {
		t.Fatalf("%d names", len(numbers))
	}
	r.close(t)
	r.open(t)
	asked := 0
	// In the order of a map: far from that of the places.
	for path, want := range numbers {
		if asked++; asked > 300 {
			break
		}
		got, err := r.v.Reconnect(want.Ino)
		if err != nil || got.Ino != want.Ino || got.Inode.Mode != want.Inode.Mode || got.Btime != want.Btime {
			t.Fatalf("%s: %+v, not %+v: %v", path, got, want, err)
		}
		r.v.Forget(want.Ino, 1)
	}
	if err := r.v.RemoveSnapshot("a"); err != nil {
		t.Fatal(err)
	}
	for path, want := range numbers {
		if path == "a/d1/f" || path == "b/d1/f" {
			if _, err := r.v.Reconnect(want.Ino); (err == nil) != (path == "b/d1/f") {
				t.Errorf("%s: %v", path, err)
			}
		}
	}
	for _, ino := range []meta.Ino{firstVirtual, firstVirtual + 5, firstVirtual | hashedBit, 1 << 63, 1<<64 - 1} {
		if _, err := r.v.Reconnect(ino); err == nil {
			t.Errorf("%x leads somewhere", uint64(ino))
		}
	}
}
