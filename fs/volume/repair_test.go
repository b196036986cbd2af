package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/quarxtor/quarxfs/fs/fsck"
	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/store"
)

func texts(done []store.Repaired) []string {
	list := make([]string, len(done))
	for i, d := range done {
		list[i] = d.Text
	}
	return list
}

// repair runs both repairs on a store without a volume, as fsck does.
func repair(t tb, st *store.Store) []string {
	t.Helper()
	ctx := context.Background()
	done, err := fsck.Repair(ctx, st)
	if err != nil {
		t.Fatalf("%v", err)
	}
	holder := func(ctx context.Context, ref func(store.ID)) error { return fsck.References(ctx, st, ref) }
	more, err := st.Repair(ctx, store.CheckOptions{Holders: []func(context.Context, func(store.ID)) error{holder}})
	if err != nil {
		t.Fatalf("%v", err)
	}
	return texts(append(done, more...))
}

// contentsOf reads all files, by path; a file that cannot be read is "EIO".
func contentsOf(t tb, v *Volume) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := v.Walk(meta.Root, "", func(path string, a Attr) error {
		if a.Mode&syscall.S_IFMT != syscall.S_IFREG {
			return nil
		}
		data, err := v.Read(context.Background(), a.Ino, 0, int(min(a.Size, 1<<20)))
		if err != nil {
			all[path] = "EIO"
			return nil
		}
		all[path] = string(bytes.Join(data.Slices, nil))
		return nil
	})
	if err != nil {
		t.Fatalf("%v", err)
	}
	return all
}

func fillForRepair(t tb, r *rig, rng *rand.Rand) {
	dirs := []meta.Ino{meta.Root}
	for i := range 40 {
		dir := dirs[rng.IntN(len(dirs))]
		if i%4 == 0 {
			a, err := r.v.Create(dir, fmt.Sprintf("d%d", i), CreateOptions{Mode: syscall.S_IFDIR | 0o755})
			if err != nil {
				t.Fatalf("%v", err)
			}
			dirs = append(dirs, a.Ino)
			continue
		}
		ino := mustCreate(t, r.v, dir, fmt.Sprintf("f%d", i), syscall.S_IFREG|0o644)
		data := bytes.Repeat([]byte(fmt.Sprintf("file %d, ", i)), rng.IntN(3000)+1)
		mustWrite(t, r.v, ino, int64(rng.IntN(3))*10_000, data)
		if i%5 == 0 {
			if err := r.v.SetXattr(ino, "user.x", []byte("y"), 0, false); err != nil {
				t.Fatalf("%v", err)
			}
		}
	}
	mustSync(t, r.v)
}

// A store of which rows are missing or damaged is whole again after a repair,
// but for what reads as EIO, and no bytes are lost.
func TestRepairAtRandom(t *testing.T) {
	t.Parallel()
	for seed := range uint64(24) {
		rng := rand.New(rand.NewPCG(seed, 9))
		r := newRig(t, filepath.Join(t.TempDir(), "store"), smallCDC(), Options{})
		fillForRepair(t, r, rng)
		before := contentsOf(t, r.v)
		if err := r.v.Close(); err != nil {
			t.Fatalf("%v", err)
		}
		damaged := damageRows(t, r.st, rng, 1+rng.IntN(6))
		if err := r.st.Close(); err != nil {
			t.Fatalf("%v", err)
		}
		var err error
		if r.st, err = store.Open(r.dir, store.Options{SweepInterval: -1, MinFree: 1, MemTable: 8 << 20}); err != nil {
			t.Fatalf("seed %d, %q: open: %v", seed, damaged, err)
		}
		done := repair(t, r.st)
		if again := repair(t, r.st); len(again) > 0 && !strings.Contains(strings.Join(again, ""), "are damaged, and reading there fails") {
			t.Errorf("seed %d, %q: repaired %q and then %q", seed, damaged, done, again)
		}
		if r.v, err = Open(r.st, r.options); err != nil {
			t.Fatalf("seed %d, %q: open volume: %v", seed, damaged, err)
		}
		checkRepaired(t, r, fmt.Sprintf("seed %d, %q, repairs %q", seed, damaged, done))
		after := contentsOf(t, r.v)
		for path, want := range before {
			if got, ok := after[path]; ok && got != want && got != "EIO" && !strings.HasPrefix(path, fsck.LostFound) {
				if len(got) != len(want) { // the damage was to its size or its map
					continue
				}
				if strings.Count(got, "\x00") == strings.Count(want, "\x00") {
					t.Errorf("seed %d, %q: %s has other bytes", seed, damaged, path)
				}
			}
		}
		r.close(t)
	}
}

// checkRepaired allows only for what cannot be repaired: blocks and maps that
// are lost.
func checkRepaired(t *testing.T, r *rig, what string) {
	t.Helper()
	holder := func(ctx context.Context, ref func(store.ID)) error {
		return fsck.Inspect(ctx, r.st, ref, func(f fsck.Finding) {
			lost := f.Rule == "I1" || f.Rule == fsck.RuleRecord || strings.Contains(f.What, "are said to be bytes")
			if !lost {
				t.Errorf("%s: %+v", what, f)
			}
		})
	}
	rep, err := r.st.Check(context.Background(), store.CheckOptions{Data: true, Holders: []func(context.Context, func(store.ID)) error{holder}})
	if err != nil {
		t.Fatalf("%v", err)
	}
	for _, p := range rep.Problems {
		if p.Invariant != "I1" { // a block that is lost
			t.Errorf("%s: %s", what, p)
		}
	}
}

// damageRows deletes or changes rows of the namespace and the index.
func damageRows(t tb, st *store.Store, rng *rand.Rand, n int) (damaged []string) {
	t.Helper()
	var keys, values [][]byte
	err := st.DB().Scan([]byte{0}, nil, func(key, value []byte) error {
		if bytes.IndexByte([]byte("INEXPSOCbzgt"), key[0]) >= 0 {
			keys, values = append(keys, bytes.Clone(key)), append(values, bytes.Clone(value))
		}
		return nil
	})
	if err != nil {
		t.Fatalf("%v", err)
	}
	err = st.Update(func() error {
		for range n {
			i := rng.IntN(len(keys))
			if rng.IntN(2) == 0 || len(values[i]) == 0 {
				damaged = append(damaged, fmt.Sprintf("%q deleted", keys[i][:min(9, len(keys[i]))]))
				st.DB().Delete(keys[i])
				continue
			}
			v := bytes.Clone(values[i])
			k := rng.IntN(len(v))
			v[k] ^= 1 << rng.IntN(8)
			if rng.IntN(3) == 0 {
				v = v[:k]
			}
			damaged = append(damaged, fmt.Sprintf("%q changed", keys[i][:min(9, len(keys[i]))]))
			st.DB().Set(keys[i], v)
		}
		return nil
	})
	if err := errors.Join(err, st.Commit()); err != nil {
		t.Fatalf("%v", err)
	}
	return damaged
}

// What no name leads to is found again, loops among it.
func TestRepairAttachesWhatIsLost(t *testing.T) {
	r := newRig(t, filepath.Join(t.TempDir(), "store"), smallCDC(), Options{})
	a, err := r.v.Create(meta.Root, "a", CreateOptions{Mode: syscall.S_IFDIR | 0o755})
	if err != nil {
		t.Fatalf("%v", err)
	}
	b, err := r.v.Create(a.Ino, "b", CreateOptions{Mode: syscall.S_IFDIR | 0o755})
	if err != nil {
		t.Fatalf("%v", err)
	}
	ino := mustCreate(t, r.v, b.Ino, "file", syscall.S_IFREG|0o644)
	mustWrite(t, r.v, ino, 0, []byte("precious"))
	mustSync(t, r.v)
	if err := r.v.Close(); err != nil {
		t.Fatalf("%v", err)
	}
	err = r.st.Update(func() error { // a/b becomes b/a, in the air
		db := r.st.DB()
		var pos uint64
		err := db.ScanPrefix(meta.Prefix(meta.KindEntry), func(key, value []byte) error {
			dir, p, err := meta.KeyNumbers(key)
			if dir == meta.Root {
				pos = p
			}
			return err
		})
		db.Delete(meta.EntryKey(meta.Root, pos))
		db.Set(meta.EntryKey(b.Ino, 1<<20), meta.AppendDirent(nil, meta.Dirent{Ino: a.Ino, Type: syscall.S_IFDIR, Name: "a"}))
		return err
	})
	if err := errors.Join(err, r.st.Commit()); err != nil {
		t.Fatalf("%v", err)
	}
	repair(t, r.st)
	if r.v, err = Open(r.st, r.options); err != nil {
		t.Fatalf("%v", err)
	}
	r.check(t)
	for path, data := range contentsOf(t, r.v) {
		if strings.HasPrefix(path, fsck.LostFound+"/") && strings.HasSuffix(path, "/b/file") && data == "precious" {
			r.close(t)
			return
		}
		t.Logf("%s: %q", path, data)
	}
	t.Error("the file is lost")
	r.close(t)
}
