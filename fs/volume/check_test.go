package volume

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quarxtor/quarxfs/fs/fsck"
	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/fs/rows"
	"github.com/quarxtor/quarxfs/store"
)

// TestCheckFinds damages one row at a time and wants it named.
func TestCheckFinds(t *testing.T) {
	type damage map[string]string // key -> value, "" to delete
	inode := func(r *rig, ino meta.Ino, change func(*meta.Inode)) damage {
		a, err := rows.Inode(r.v.db, ino)
		if err != nil {
			panic(err)
		}
		change(&a)
		return damage{string(meta.InodeKey(ino)): string(meta.AppendInode(nil, &a))}
	}
	var file, dir meta.Ino
	page := func(exts ...meta.Extent) damage {
		return damage{string(meta.ExtentsKey(file, 0)): string(meta.AppendExtents(nil, 0, exts))}
	}
	for _, c := range []struct {
		name, rule, path string
		damage           func(r *rig, e meta.Extent) damage
	}{
		{"links of a file", "I7", "dir/file", func(r *rig, _ meta.Extent) damage {
			return inode(r, file, func(a *meta.Inode) { a.Nlink = 2 })
		}},
		{"links of a directory", "I7", "dir", func(r *rig, _ meta.Extent) damage {
			return inode(r, dir, func(a *meta.Inode) { a.Nlink = 3 })
		}},
		{"parent", "I7", "dir", func(r *rig, _ meta.Extent) damage {
			return inode(r, dir, func(a *meta.Inode) { a.Parent = dir })
		}},
		{"entries", "I7", "dir", func(r *rig, _ meta.Extent) damage {
			return inode(r, dir, func(a *meta.Inode) { a.Entries = 0 })
		}},
		{"type", "I7", "dir/file", func(r *rig, _ meta.Extent) damage {
			return inode(r, file, func(a *meta.Inode) { a.Mode = 0o010644 })
		}},
		{"size", "I3", "dir/file", func(r *rig, _ meta.Extent) damage {
			return inode(r, file, func(a *meta.Inode) { a.Size = 10 })
		}},
		{"allocated", "I3", "dir/file", func(r *rig, _ meta.Extent) damage {
			return inode(r, file, func(a *meta.Inode) { a.Alloc++ })
		}},
		{"reserved", "I3", "dir/file", func(r *rig, _ meta.Extent) damage {
			return inode(r, file, func(a *meta.Inode) { a.Reserved, a.Unwritten = meta.Ranges{{Lo: 0, Hi: 8192}}, 1 })
		}},
		{"attributes", "I7", "dir/file", func(r *rig, _ meta.Extent) damage {
			return inode(r, file, func(a *meta.Inode) { a.Xattrs++ })
		}},
		{"no inode", "I7", "dir/file", func(*rig, meta.Extent) damage { return damage{string(meta.InodeKey(file)): ""} }},
		{"bad inode", fsck.RuleRecord, "dir/file", func(*rig, meta.Extent) damage { return damage{string(meta.InodeKey(file)): "\xff"} }},
		{"no name", "I7", "dir", func(*rig, meta.Extent) damage { return damage{string(meta.NameKey(dir, "file")): ""} }},
		{"wrong name", "I7", "dir", func(*rig, meta.Extent) damage { return damage{string(meta.NameKey(dir, "fil")): "\x20"} }},
		{"orphan with a name", "I7", "dir/file", func(*rig, meta.Extent) damage { return damage{string(meta.OrphanKey(file)): "x"} }},
		{"counters", "I7", "", func(*rig, meta.Extent) damage {
			return damage{string(meta.CounterKey()): string(meta.Counters{Next: 17}.Encode())}
		}},
		{"too long", "I3", "dir/file", func(_ *rig, e meta.Extent) damage { e.Skip = 1; return page(e) }},
		{"no block", "I1", "dir/file", func(_ *rig, e meta.Extent) damage { e.ID[0]++; return page(e) }},
		{"bad page", fsck.RuleRecord, "dir/file", func(*rig, meta.Extent) damage { return damage{string(meta.ExtentsKey(file, 0)): "\x02\x00"} }},
		{"staged beyond the end", "I3", "dir/file", func(*rig, meta.Extent) damage {
			return damage{string(meta.StagedKey(file, 9)): string(meta.AppendStaged(nil, []meta.StagedPart{{Start: 0, Bytes: []byte("x")}}))}
		}},
		{"staged for nobody", "I7", "", func(*rig, meta.Extent) damage {
			return damage{string(meta.StagedKey(file+1, 0)): string(meta.AppendStaged(nil, []meta.StagedPart{{Start: 0, Bytes: []byte("x")}}))}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, filepath.Join(t.TempDir(), "store"), fixed4K(), tiny())
			defer r.close(t)
			dir = mustCreate(t, r.v, meta.Root, "dir", 0o40755)
			file = mustCreate(t, r.v, dir, "file", 0o100644)
			mustWrite(t, r.v, file, 0, noise(1, 4096))
			r.check(t)
			b, err := r.st.DB().Get(meta.ExtentsKey(file, 0))
			if err != nil {
				t.Fatal(err)
			}
			exts, err := meta.DecodeExtents(b, 0, r.v.files.span)
			if err != nil {
				t.Fatal(err)
			}
			for key, value := range c.damage(r, exts[0]) {
				if value == "" {
					r.st.DB().Delete([]byte(key))
				} else {
					r.st.DB().Set([]byte(key), []byte(value))
				}
			}
			var found []fsck.Finding
			if err := checkCommitted(r.st, func(f fsck.Finding) { found = append(found, f) }); err != nil {
				t.Fatal(err)
			}
			named := func(f fsck.Finding) bool { return f.Rule == c.rule && f.Path == c.path && f.What != "" }
			if !slices.ContainsFunc(found, named) {
				t.Errorf("want %s for %q, found %+v", c.rule, c.path, found)
			}
		})
	}
}

// damageSegments flips a bit in every byte of every record's second half.
func damageSegments(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(dir, "hot"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.Contains(path, ".seg") && !strings.Contains(path, ".open") {
			return err
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		const from, length = 6000, 2000
		b := make([]byte, length)
		if _, err := f.ReadAt(b, from); err != nil {
			return err
		}
		for i := range b {
			b[i] ^= 0x10
		}
		_, err = f.WriteAt(b, from)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestUnreadableNeighbour: new data beside a damaged block is stored and read,
// and what is left of the damaged block gives an error, not bytes.
func TestUnreadableNeighbour(t *testing.T) {
	ck := smallCDC()
	ck.Min, ck.Avg, ck.Max = 16<<10, 64<<10, 256<<10
	r := newRig(t, filepath.Join(t.TempDir(), "store"), ck, tiny())
	defer func() { r.close(t) }()
	ino := mustCreate(t, r.v, meta.Root, "f", 0o100644)
	mustWrite(t, r.v, ino, 0, noise(1, 12_000))
	r.close(t)
	damageSegments(t, r.dir)
	r.open(t)
	want := noise(2, 3000)
	mustWrite(t, r.v, ino, 5000, want)
	r.clock.advance(time.Minute)
	mustSync(t, r.v)
	if err := r.v.flusher.flushAll(flushWhole); err != nil {
		t.Fatal(err)
	}
	r.checkVolume(t)
	if got := read(t, r.v, ino, 5000, 3000); !bytes.Equal(got, want) {
		t.Error("the new data differs")
	}
	for _, off := range []int64{0, 8000, 11_999} {
		if vec, err := r.v.Read(context.Background(), ino, off, 1); !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("byte %d: %v, %v", off, vec, err)
		}
	}
}
