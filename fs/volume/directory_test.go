package volume

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/quarxtor/quarxfs/fs/meta"
)

// TestDirectoryPositions adds and removes names, through many compactions, and
// compares every listing from every position with a plain list.
func TestDirectoryPositions(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 9))
	d := newDirectory()
	var want []position // ascending
	next := uint64(firstIno)
	compactions := 0
	for step := range 4000 {
		grow := 60
		if step/500%2 == 1 {
			grow = 20
		}
		if len(want) == 0 || rnd.IntN(100) < grow {
			next += 1 + rnd.Uint64N(3)
			p := position{next, fmt.Sprint("name", next)}
			d.add(p.name, place{pos: p.pos, ino: meta.Ino(p.pos)})
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
		after := firstIno + rnd.Uint64N(next-firstIno+3)
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
