package volume

import (
	"context"
	"syscall"
	"testing"

	"github.com/quarxtor/quarxfs/fs/meta"
)

func mustSnapshot(t tb, v *Volume, name string) Snapshot {
	t.Helper()
	s, err := v.CreateSnapshot(context.Background(), SnapshotOptions{Name: name})
	if err != nil {
		t.Fatalf("snapshot %q: %v", name, err)
	}
	return s
}

func TestSnapshotSecondIsLikeAnew(t *testing.T) {
	r := testRig(t, smallCDC(), tiny())
	v := r.v
	d := mustCreate(t, v, meta.Root, "d", syscall.S_IFDIR|0o755)
	f := mustCreate(t, v, d, "f", syscall.S_IFREG|0o644)
	mustWrite(t, v, f, 0, noise(1, 100_000))
	one := mustSnapshot(t, v, "one")
	if one.Totals.Files != 1 || one.Totals.Dirs != 2 || one.Totals.Logical != 100_000 || one.Totals.Written != 100_000 {
		t.Errorf("%+v", one.Totals)
	}
	two := mustSnapshot(t, v, "two")
	if two.Root.Link != one.Root.Link || two.Parents[0] != one.ID {
		t.Errorf("nothing changed, and the tree is another: %+v", two)
	}
	mustWrite(t, v, f, 50_000, []byte("changed"))
	three := mustSnapshot(t, v, "three")
	if three.Root.Link == two.Root.Link || three.Totals.Written != 100_000 {
		t.Errorf("%+v", three)
	}
}
