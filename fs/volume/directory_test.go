package volume

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"

	"github.com/quarxtor/quarxfs/fs/meta"
)

// TestDirectoryPositions adds and removes names, through many compactions, and
// compares every listing from every position with a plain list.
func TestDirectoryPositions(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 9))
	d := newDirectory()
	var want []position // ascending
	next := uint64(meta.FirstIno)
	compactions := 0
	for step := range 4000 {
		grow := 60
		if step/500%2 == 1 {
			grow = 20
		}
		if len(want) == 0 || rnd.IntN(100) < grow {
			next += 1 + rnd.Uint64N(3)
			p := position{next, fmt.Sprint("name", next)}
			d.add(p.name, dentry{pos: p.pos, ino: meta.Ino(p.pos)})
			want = append(want, p)
		} else {
			i := rnd.IntN(len(want))
			before := len(d.order)
			d.remove(want[i].name)
			if len(d.order) < before {
				compactions++
			}
			want = slices.Delete(want, i, i+1)
		}
		if step%10 != 0 {
			continue
		}
		after := meta.FirstIno + rnd.Uint64N(next-meta.FirstIno+3)
		var got []position
		for _, p := range d.order[d.from(after+1):] {
			if p.name != "" {
				got = append(got, p)
			}
		}
		i := slices.IndexFunc(want, func(p position) bool { return p.pos > after })
		if i < 0 {
			i = len(want)
		}
		if !slices.Equal(got, want[i:]) {
			t.Fatalf("step %d: after position %d come %v, want %v", step, after, got, want[i:])
		}
		if len(d.names) != len(want) {
			t.Fatalf("step %d: %d names, want %d", step, len(d.names), len(want))
		}
	}
	if compactions == 0 {
		t.Error("the list was never compacted")
	}
}

// TestPositionAfterRemoval reads a part of a directory and removes it: the position to
// go on from is then one that a new listing has too.
func TestPositionAfterRemoval(t *testing.T) {
	for _, names := range []int{0, 64} { // all in memory; none
		for _, part := range []int{1, 2, dirBatchSize - 1, dirBatchSize, dirBatchSize + 1, 2*dirBatchSize - 1, 2 * dirBatchSize} {
			r := testRig(t, fixed4K(), Options{NoAtime: true, Names: names})
			const all = 2 * dirBatchSize
			for i := range all {
				mustCreate(t, r.v, meta.Root, fmt.Sprint(i), 0o100644)
			}
			list := func(from uint64, most int) (got []Entry) {
				err := r.v.ReadDir(meta.Root, from, func(e Entry) bool {
					if len(got) < most {
						got = append(got, e)
					}
					return len(got) < most
				})
				if err != nil {
					t.Fatal(err)
				}
				return got
			}
			read := list(posDotDot, part)
			for i, e := range read {
				if e.Name != fmt.Sprint(i) {
					t.Fatalf("entry %d is %q", i, e.Name)
				}
				if err := r.v.Unlink(meta.Root, e.Name); err != nil {
					t.Fatal(err)
				}
			}
			pos := read[part-1].Pos
			if rest := list(pos, all); len(rest) != all-part || part < all && rest[0].Name != fmt.Sprint(part) {
				t.Errorf("after %d of %d come %d", part, all, len(rest))
			}
			if again := list(0, all); again[1].Name != ".." || again[1].Pos != pos {
				t.Errorf("after %d were removed %q ends at %d, want %d", part, again[1].Name, again[1].Pos, pos)
			}
		}
	}
}

// TestNamesInMemory: directories that together are too large for memory take
// turns; each is asked by its rows until bringing it in is worth it.
func TestNamesInMemory(t *testing.T) {
	const dirs, files = 8, 100
	r := testRig(t, fixed4K(), Options{NoAtime: true, Names: 300})
	inos := make([]meta.Ino, dirs)
	for d := range inos {
		inos[d] = mustCreate(t, r.v, meta.Root, fmt.Sprint(d), syscall.S_IFDIR|0o755)
		for i := range files {
			mustCreate(t, r.v, inos[d], fmt.Sprint(i), 0o100644)
		}
		r.checkNames(t)
	}
	loaded := func(ino meta.Ino) bool {
		n, err := r.v.get(ino)
		if err != nil {
			t.Fatal(err)
		}
		defer n.release()
		return n.dir != nil
	}
	for d := range inos {
		was, now, asked := loaded(inos[d]), false, 0
		for i := range files {
			if _, err := r.v.Lookup(inos[d], fmt.Sprint(i)); err != nil {
				t.Fatalf("file %d of directory %d: %v", i, d, err)
			}
			if _, err := r.v.Lookup(inos[d], fmt.Sprint("no", i)); err != syscall.ENOENT {
				t.Fatalf("an absent file: %v", err)
			}
			if now = loaded(inos[d]); now {
				break
			}
			asked += 2
		}
		if !now || !was && asked < (files-loadShare*loadShare)/loadShare-2 {
			t.Errorf("directory %d, in memory before: %v, after: %v, was asked %d times", d, was, now, asked)
		}
		r.checkNames(t)
	}
}
