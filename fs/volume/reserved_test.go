package volume

import (
	"bytes"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/fs/meta"
)

// TestReservedBlocks does random writes, reservations, punches and truncations to a file and
// compares its blocks, at once, after a commit, when overlays have become blocks, and after another
// opening, with those of a table. All
// starts and ends are at bounds of blocks, or a byte beside, but those of writes.
func TestReservedBlocks(t *testing.T) {
	t.Parallel()
	r := newRig(t, filepath.Join(t.TempDir(), "store"), fixed4K(), Options{})
	rng := rand.New(rand.NewPCG(7, 7))
	const most = 40
	var counted [most + 1]bool // blocks that are reserved or have data
	ino := mustCreate(t, r.v, meta.Root, "f", 0o100644)
	size := int64(0)
	for step := range 150 {
		lo := rng.Int64N(most-1) * 4096
		hi := lo + (1+rng.Int64N(min(8, most-lo/4096)))*4096
		from, to := lo+rng.Int64N(2), hi-rng.Int64N(2)
		mark := func(lo, hi int64, as bool) {
			for i := range counted {
				if lo <= int64(i)*4096 && int64(i)*4096 < hi {
					counted[i] = as
				}
			}
		}
		what := rng.IntN(6)
		switch what {
		case 0:
			mustWrite(t, r.v, ino, lo, bytes.Repeat([]byte{byte(step), 1}, int(hi-lo)/2))
			mark(lo, hi, true)
			size = max(size, hi)
		case 1:
			must(t, r.v.Fallocate(ino, from, to-from, 0))
			mark(lo, hi, true)
			size = max(size, to)
		case 2:
			must(t, r.v.Fallocate(ino, from, to-from, unix.FALLOC_FL_KEEP_SIZE))
			mark(lo, hi, true)
		case 3:
			must(t, r.v.Fallocate(ino, from, to-from, unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE))
			mark(lo, hi, true)
		case 4:
			must(t, r.v.Fallocate(ino, from, to-from, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE))
			if end := min(to, size); from < end { // nothing is punched behind the end
				if end == size {
					end = ceilBlock(end)
				}
				mark(ceilBlock(from), floorBlock(end), false)
			}
		case 5:
			if rng.IntN(3) == 0 {
				_, err := r.v.SetAttr(ino, Change{Size: &from})
				must(t, err)
				if from <= size {
					mark(ceilBlock(from), most*4096, false)
				}
				size = from
			}
		}
		switch rng.IntN(6) {
		case 0, 1:
			mustSync(t, r.v)
		case 2, 3:
			mustSync(t, r.v)
			r.clock.advance(time.Minute)
			mustSync(t, r.v)
		case 4:
			r.close(t)
			r.open(t)
		}
		want := int64(0)
		for _, c := range counted {
			if c {
				want += 8
			}
		}
		a, err := r.v.Attr(ino)
		must(t, err)
		if a.Blocks != want {
			t.Fatalf("step %d (%d, %d to %d): %d blocks, want %d; size %d, reserved %v, %d of it without data", step, what, from, to, a.Blocks, want, size, a.Reserved, a.Unwritten)
		}
	}
	r.check(t)
	r.close(t)
}
