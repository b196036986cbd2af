package volume

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/fs/meta"
)

// replacements are the ways in which a name comes to lead to other bytes at one instant. Each
// leaves fresh under the name f, which led to something else.
var replacements = []struct {
	name string
	do   func(t *testing.T, v *Volume, fresh []byte)
}{
	{"rename", func(t *testing.T, v *Volume, fresh []byte) {
		makeTemporary(t, v, fresh)
		must(t, v.Rename(meta.Root, "t", meta.Root, "f", 0))
	}},
	{"exchange", func(t *testing.T, v *Volume, fresh []byte) {
		makeTemporary(t, v, fresh)
		must(t, v.Rename(meta.Root, "t", meta.Root, "f", unix.RENAME_EXCHANGE))
		must(t, v.Unlink(meta.Root, "t"))
	}},
	{"link and rename", func(t *testing.T, v *Volume, fresh []byte) {
		a, err := v.CreateNameless(meta.Root, CreateOptions{Mode: 0o100644})
		must(t, err)
		mustWrite(t, v, a.Ino, 0, fresh)
		_, err = v.Link(a.Ino, meta.Root, "t")
		must(t, err)
		v.Forget(a.Ino, 1)
		must(t, v.Rename(meta.Root, "t", meta.Root, "f", 0))
	}},
	{"restore", func(t *testing.T, v *Volume, fresh []byte) {
		makeTemporary(t, v, fresh)
		mustSnapshot(t, v, "of the new")
		must(t, v.Unlink(meta.Root, "t"))
		must(t, v.Restore(t.Context(), SnapshotPath{"of the new", "t"}, "f"))
		must(t, v.RemoveSnapshot("of the new"))
	}},
}

func makeTemporary(t *testing.T, v *Volume, p []byte) {
	t.Helper()
	mustWrite(t, v, mustCreate(t, v, meta.Root, "t", 0o100644), 0, p)
}

// meanwhile are the things that go on while a name is replaced. Each runs replace, and returns the
// rig to look at then; durable says that the replacement cannot be undone any more.
var meanwhile = []struct {
	name    string
	durable bool
	run     func(t *testing.T, r *rig, replace func()) *rig
}{
	{"idle", true, func(_ *testing.T, r *rig, replace func()) *rig { replace(); return r }},
	{"writing", true, func(t *testing.T, r *rig, replace func()) *rig {
		log := mustCreate(t, r.v, meta.Root, "log", 0o100644)
		return beside(r, replace, func(i int) error {
			return r.v.Write(log, int64(i)*5000, noise(uint64(i), 5000), WriteMode{})
		})
	}},
	{"umount", true, func(t *testing.T, r *rig, replace func()) *rig {
		replace()
		r.close(t)
		r.open(t)
		return r
	}},
	{"gc", true, func(t *testing.T, r *rig, replace func()) *rig {
		return beside(r, replace, func(int) error { _, err := r.st.Sweep(t.Context()); return err })
	}},
	{"snapshot", true, func(t *testing.T, r *rig, replace func()) *rig {
		return beside(r, replace, func(i int) error {
			_, err := r.v.CreateSnapshot(context.Background(), SnapshotOptions{Name: fmt.Sprint(i)})
			return err
		})
	}},
	{"fsync", true, func(t *testing.T, r *rig, replace func()) *rig {
		replace()
		mustSync(t, r.v)
		return killed(t, r)
	}},
	{"kill", false, func(t *testing.T, r *rig, replace func()) *rig {
		replace()
		return killed(t, r)
	}},
}

// beside runs replace while fn is called again and again, once at least.
func beside(r *rig, replace func(), fn func(i int) error) *rig {
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var err error
	wg.Go(func() {
		for i := 0; err == nil; i++ {
			err = fn(i)
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	replace()
	close(stop)
	wg.Wait()
	if err != nil {
		panic(err)
	}
	return r
}

// killed opens the store as a kill at this moment leaves it.
func killed(t *testing.T, r *rig) *rig {
	t.Helper()
	crashed(t, r)
	r.open(t)
	return r
}

// TestReplaceMeanwhile replaces a file in each way while each other thing goes on: its name leads
// to the old bytes or to the new ones, as a whole, here and in every snapshot; and who has the old
// file open reads the old bytes.
func TestReplaceMeanwhile(t *testing.T) {
	t.Parallel()
	old, fresh := noise(1, 20_000), noise(2, 30_001)
	whole := func(b []byte) bool { return bytes.Equal(b, old) || bytes.Equal(b, fresh) }
	for _, how := range replacements {
		for _, m := range meanwhile {
			t.Run(how.name+", "+m.name, func(t *testing.T) {
				r := newRig(t, t.TempDir()+"/store", smallCDC(), Options{DirtyBytes: 64 << 10})
				defer func() { r.close(t) }()
				ino := mustCreate(t, r.v, meta.Root, "f", 0o100644)
				mustWrite(t, r.v, ino, 0, old)
				mustSync(t, r.v)
				r = m.run(t, r, func() {
					r.v.Known(ino)
					how.do(t, r.v, fresh)
					if got := read(t, r.v, ino, 0, len(old)+1); !bytes.Equal(got, old) {
						t.Errorf("who has the old file open reads %d other bytes", len(got))
					}
					r.v.Forget(ino, 1)
				})
				now := contentsOf(t, r.v)
				if got := []byte(now["f"]); !whole(got) || m.durable && !bytes.Equal(got, fresh) {
					t.Errorf("f has %d bytes, neither the old %d nor the new %d", len(got), len(old), len(fresh))
				}
				if _, ok := now["t"]; ok && m.durable {
					t.Error("t is still there")
				}
				for _, s := range mustSnapshots(t, r.v) {
					top, err := r.v.Lookup(SnapshotsDir, s.Name)
					must(t, err)
					a, err := r.v.Lookup(top.Ino, "f")
					must(t, err)
					if !whole(read(t, r.v, a.Ino, 0, 100_000)) {
						t.Errorf("snapshot %s: f is neither the old nor the new file", s.Name)
					}
				}
				r.check(t)
			})
		}
	}
}

func mustSnapshots(t *testing.T, v *Volume) []Snapshot {
	t.Helper()
	list, err := v.Snapshots(t.Context())
	must(t, err)
	return list
}
