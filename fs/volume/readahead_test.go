package volume

import (
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/quarxtor/quarxfs/fs/meta"
)

func TestSpan(t *testing.T) {
	var r inodeReader
	for _, tc := range []struct{ ino, want meta.Ino }{
		{1000, 1},   // nothing was read before it
		{1001, 16},  // follows: up to 1016
		{1017, 32},  // up to 1048
		{1100, 64},  // a gap: up to 1163
		{1164, 128}, // up to 1291
		{1292, 256}, {1548, 256},
		{1869, 1}, // too far
		{10, 1},   // back
		{11, 16}, {5, 1},
	} {
		if got := r.span(tc.ino); got != tc.want {
			t.Errorf("%d: %d numbers, want %d", tc.ino, got, tc.want)
		}
	}
}

// A listing after a mount finds its inodes in the table, but for files with
// several names, and says of all of them what it said before.
func TestListingReadsAhead(t *testing.T) {
	t.Parallel()
	r := testRig(t, fixed4K(), Options{NoAtime: true})
	files := 0
	for i := range 10 {
		dir := mustCreate(t, r.v, meta.Root, fmt.Sprint("d", i), 0o40755)
		for j := range 30 {
			files++
			ino := mustCreate(t, r.v, dir, fmt.Sprint("f", j), 0o100600+uint32(j))
			if j == 7 {
				if _, err := r.v.Link(ino, dir, "another name"); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	list := func() (attrs []Attr) {
		t.Helper()
		if err := r.v.Walk(meta.Root, "", func(_ string, a Attr) error { attrs = append(attrs, a); return nil }); err != nil {
			t.Fatal(err)
		}
		return attrs
	}
	before := list()
	r.close(t)
	r.open(t)
	if after := list(); !reflect.DeepEqual(before, after) {
		t.Errorf("the listing differs:\n%+v\n%+v", before, after)
	}
	r.v.table.Lock()
	defer r.v.table.Unlock()
	if n := len(r.v.table.nodes); n < files*9/10 {
		t.Errorf("%d inodes are in the table, of %d", n, files)
	}
	for _, n := range r.v.table.nodes {
		if n.attr.Shared {
			t.Errorf("inode %d has several names and was read ahead", n.ino)
		}
	}
}

// An inode that was read before a change, and the change written and dropped
// from memory since, must not come back.
func TestReadAheadDeclinesOldInodes(t *testing.T) {
	r := testRig(t, fixed4K(), Options{NoAtime: true})
	ino := mustCreate(t, r.v, meta.Root, "f", 0o100600)
	mustSync(t, r.v)
	drop := func() {
		r.v.table.Lock()
		defer r.v.table.Unlock()
		if r.v.table.evict(); r.v.table.nodes[ino] != nil {
			t.Fatal("the inode is still in memory")
		}
	}
	drop()
	_, evictions := r.v.table.cached(ino)
	old := r.v.table.reader.nodes(ino, 1)
	mode := uint32(0o644)
	if _, err := r.v.SetAttr(ino, Change{Mode: &mode}); err != nil {
		t.Fatal(err)
	}
	mustSync(t, r.v)
	drop()
	if len(old) != 1 || r.v.table.insertAhead(old, evictions) {
		t.Errorf("%d inodes were read before the change and put into the table after it", len(old))
	}
	if a, err := r.v.Attr(ino); err != nil || a.Mode != 0o100644 {
		t.Errorf("mode %o, error %v", a.Mode, err)
	}
}

// What is read ahead is never older than what was changed meanwhile.
func TestReadAheadBesideChanges(t *testing.T) {
	const workers, each = 3, 60
	r := testRig(t, fixed4K(), Options{Nodes: 512, Names: 64, NoAtime: true})
	dirs := make([]meta.Ino, workers)
	for i := range dirs {
		dirs[i] = mustCreate(t, r.v, meta.Root, fmt.Sprint("d", i), 0o40755)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 700*time.Millisecond)
	defer cancel()
	var all sync.WaitGroup
	for w, dir := range dirs {
		all.Go(func() { changeModes(ctx, t, r.v, dir, each, rand.New(rand.NewPCG(uint64(w), 0))) })
	}
	all.Go(func() {
		for ctx.Err() == nil {
			if err := r.v.Walk(meta.Root, "", func(string, Attr) error { return nil }); err != nil {
				t.Error(err)
			}
		}
	})
	all.Go(func() {
		for ctx.Err() == nil {
			mustSync(t, r.v)
			r.v.table.Lock()
			r.v.table.evict()
			r.v.table.Unlock()
		}
	})
	all.Wait()
}

// changeModes makes, changes and unlinks files that are its own, and asks for
// their modes.
func changeModes(ctx context.Context, t *testing.T, v *Volume, dir meta.Ino, count int, rnd *rand.Rand) {
	type file struct {
		ino  meta.Ino
		mode uint32
	}
	files := make([]file, count)
	for ctx.Err() == nil {
		i := rnd.IntN(count)
		f, name := &files[i], fmt.Sprint(i)
		switch n := rnd.IntN(10); {
		case f.ino == 0:
			f.mode = rnd.Uint32N(0o1000)
			f.ino = mustCreate(t, v, dir, name, 0o100000|f.mode)
		case n == 0:
			if err := v.Unlink(dir, name); err != nil {
				t.Error(err)
				return
			}
			f.ino = 0
			continue
		case n < 5:
			f.mode = rnd.Uint32N(0o1000)
			if _, err := v.SetAttr(f.ino, Change{Mode: &f.mode}); err != nil {
				t.Error(err)
				return
			}
		}
		for what, ask := range map[string]func(meta.Ino) (Attr, error){"Attr": v.Attr, "Peek": v.Peek} {
			if a, err := ask(f.ino); err != nil || a.Mode&0o777 != f.mode {
				t.Errorf("%s of inode %d: mode %o, want %o, error %v", what, f.ino, a.Mode, f.mode, err)
				return
			}
		}
	}
}
