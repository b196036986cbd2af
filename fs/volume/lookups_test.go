package volume

import (
	"math/rand/v2"
	"testing"

	"github.com/quarxtor/quarxfs/fs/meta"
)

// TestLookups compares counts with those of a map, below and above what a byte
// holds, and expects nothing left at the end.
func TestLookups(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	l := newLookups()
	want := make(map[meta.Ino]uint64)
	for range 20000 {
		ino := meta.Ino(rnd.IntN(300))
		n := rnd.Uint64N(3) * rnd.Uint64N(260)
		l.set(ino, n)
		if want[ino] = n; n == 0 {
			delete(want, ino)
		}
		for _, ino := range []meta.Ino{ino, meta.Ino(rnd.IntN(400))} {
			if got := l.get(ino); got != want[ino] {
				t.Fatalf("inode %d counts %d, want %d", ino, got, want[ino])
			}
		}
		if l.known != len(want) {
			t.Fatalf("%d inodes known, want %d", l.known, len(want))
		}
	}
	for ino := range want {
		l.set(ino, 0)
	}
	if len(l.pages)+len(l.many)+l.known != 0 {
		t.Errorf("%d pages, %d large counts, %d known are left", len(l.pages), len(l.many), l.known)
	}
}
