package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/store"
)

// TestVirtualXattrs: virtual attributes tell of what was just written, cannot be set, and are not
// listed.
func TestVirtualXattrs(t *testing.T) {
	r := testRig(t, fixed4K(), Options{})
	data := bytes.Repeat([]byte("0123456789abcdef"), 3*256) // three equal blocks
	copy(data, "other")
	data = append(data, make([]byte, 8192)...)
	data = append(data, "tail"...)
	write := func(name string) meta.Ino {
		a, err := r.v.Create(meta.Root, name, CreateOptions{Mode: syscall.S_IFREG | 0o644})
		if err == nil {
			err = r.v.Write(a.Ino, 0, data, WriteMode{})
		}
		if err != nil {
			t.Fatal(err)
		}
		return a.Ino
	}
	get := func(ino meta.Ino, name string) string {
		t.Helper()
		b, err := r.v.GetXattr(ino, virtualPrefix+name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		return string(b)
	}
	file := write("file")
	id := get(file, "id") // before any commit
	o, err := r.st.Ingest(t.Context(), bytes.NewReader(data), "object")
	if err != nil || o.ID.String() != id {
		t.Errorf("id is %s, that of the object %s (%v)", id, o.ID, err)
	}
	if err := r.st.Delete(t.Context(), "object"); err != nil {
		t.Fatal(err)
	}
	if err := r.v.Sync(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.st.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Blocks: other, a, a, tail. 4,096 + 4,096 + 4 bytes are kept for 12,292.
	for name, want := range map[string]string{"blocks": "4", "dedup": fmt.Sprintf("%.2f", 12292./8196), "tier": "hot", "stored": stored(t, r)} {
		if got := get(file, name); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	again := write("again")
	if err := r.v.Sync(); err != nil {
		t.Fatal(err)
	}
	if got := get(again, "dedup"); got != fmt.Sprintf("%.2f", 2*12292./8196) {
		t.Errorf("dedup of two is %s", got)
	}
	empty, err := r.v.Create(meta.Root, "empty", CreateOptions{Mode: syscall.S_IFREG})
	if err != nil {
		t.Fatal(err)
	}
	if get(empty.Ino, "blocks") != "0" || get(empty.Ino, "stored") != "0" || get(empty.Ino, "tier") != "" || get(empty.Ino, "dedup") != "1.00" {
		t.Error("figures of an empty file")
	}
	if list, err := r.v.ListXattrs(file); err != nil || len(list) != 0 {
		t.Errorf("listed: %q (%v)", list, err)
	}
	if err := r.v.SetXattr(file, virtualPrefix+"id", []byte("x"), 0, false); err != syscall.EPERM {
		t.Errorf("set: %v", err)
	}
	if err := r.v.RemoveXattr(file, virtualPrefix+"id"); err != syscall.ENODATA {
		t.Errorf("remove: %v", err)
	}
	for name, ino := range map[string]meta.Ino{"id": meta.Root, "soup": file} {
		if _, err := r.v.GetXattr(ino, virtualPrefix+name); err != syscall.ENODATA {
			t.Errorf("%s of inode %d: %v", name, ino, err)
		}
	}
	inSnapshot(t, r, id)
}

// inSnapshot compares a virtual attribute of a file with that in a snapshot.
func inSnapshot(t *testing.T, r *rig, id string) {
	t.Helper()
	s, err := r.v.CreateSnapshot(context.Background(), SnapshotOptions{Name: "s"})
	if err != nil {
		t.Fatal(err)
	}
	top, err := r.v.Lookup(SnapshotsDir, s.Name)
	if err != nil {
		t.Fatal(err)
	}
	a, err := r.v.Lookup(top.Ino, "file")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := r.v.GetXattr(a.Ino, virtualPrefix+"id"); err != nil || string(got) != id {
		t.Errorf("in a snapshot the id is %s (%v), live %s", got, err, id)
	}
	var vertex store.ID
	if err := vertex.UnmarshalText([]byte(id)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.st.Lookup(vertex); errors.Is(err, store.ErrNotFound) {
		t.Errorf("the snapshot has no vertex %s", id)
	}
}

func stored(t *testing.T, r *rig) string {
	t.Helper()
	sum := int64(0)
	if err := r.st.Blocks(t.Context(), store.BlockFilter{}, func(b store.BlockInfo) error {
		sum += b.Stored
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(sum)
}
