package volume

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/store"
)

// coalesceAll coalesces what is due.
func coalesceAll(t tb, v *Volume) {
	t.Helper()
	for more := true; more; {
		var err error
		if more, err = v.flusher.coalesceSome(); err != nil {
			t.Fatalf("mend: %v", err)
		}
	}
}

func countExtents(t *testing.T, v *Volume, ino meta.Ino) (count int) {
	t.Helper()
	n, err := v.get(ino)
	if err != nil {
		t.Fatal(err)
	}
	defer n.release()
	n.mu.Lock()
	defer n.mu.Unlock()
	err = v.files.eachExtent(n, 0, n.attr.Size, func(meta.Extent) bool {
		count++
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return count
}

// TestOverlays: small writes all over a file become blocks of their own, and when the
// file is left alone it is as if it had been written at once.
func TestOverlays(t *testing.T) {
	t.Parallel()
	r := testRig(t, smallCDC(), Options{})
	rng := rand.New(rand.NewPCG(1, 2))
	want := noise(1, 12<<20)
	ino := mustCreate(t, r.v, meta.Root, "f", 0o100644)
	mustWrite(t, r.v, ino, 0, want)
	mustSync(t, r.v)
	whole := countExtents(t, r.v, ino)
	const writes = 3000 // more than are staged
	for i := range writes {
		off := rng.IntN(len(want)/4096) * 4096
		p := noise(uint64(i)+2, 700)
		copy(want[off:], p)
		mustWrite(t, r.v, ino, int64(off), p)
	}
	mustSync(t, r.v)
	overlaid := countExtents(t, r.v, ino)
	if overlaid < whole+whole/2 {
		t.Errorf("%d extents, %d after %d small writes: no patches", whole, overlaid, writes)
	}
	if !bytes.Equal(read(t, r.v, ino, 0, len(want)), want) {
		t.Fatal("the patched data differs")
	}
	coalesceAll(t, r.v)
	if got := countExtents(t, r.v, ino); got != overlaid {
		t.Errorf("mended from %d to %d extents at once", overlaid, got)
	}
	r.clock.advance(quietTime)
	coalesceAll(t, r.v)
	mustSync(t, r.v)
	if !bytes.Equal(read(t, r.v, ino, 0, len(want)), want) {
		t.Fatal("the mended data differs")
	}
	// The same bytes, written at once, are the same blocks but around some ends.
	twin := mustCreate(t, r.v, meta.Root, "twin", 0o100644)
	before := r.st.Stats().Totals.Blocks[store.KindData]
	mustWrite(t, r.v, twin, 0, want)
	mustSync(t, r.v)
	blocks := countExtents(t, r.v, twin)
	if fresh := r.st.Stats().Totals.Blocks[store.KindData] - before; fresh > int64(blocks/10) {
		t.Errorf("%d of %d blocks are not those of the mended file", fresh, blocks)
	}
	if got := countExtents(t, r.v, ino); got > blocks+blocks/10 {
		t.Errorf("%d extents after mending, and %d when written at once", got, blocks)
	}
}

// TestOldBlocksAreReadAhead: blocks that are split again because much of them is new are asked for
// before their turn, and those that small writes are laid over are not.
func TestOldBlocksAreReadAhead(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		step, length int
		ahead        bool
	}{{4096, 3000, true}, {4096, 1500, false}, {64 << 10, 3000, false}} {
		r := testRig(t, smallCDC(), Options{})
		want := noise(1, 4<<20)
		ino := mustCreate(t, r.v, meta.Root, "f", 0o100644)
		mustWrite(t, r.v, ino, 0, want)
		mustSync(t, r.v)
		r.close(t)
		r.open(t)
		for off := 0; off < len(want); off += c.step {
			p := noise(uint64(off)+2, c.length)
			copy(want[off:], p)
			mustWrite(t, r.v, ino, int64(off), p)
		}
		mustSync(t, r.v)
		cache := r.st.Stats().Cache
		if asked := cache.Prefetched + cache.PrefetchDropped; asked > 0 != c.ahead {
			t.Errorf("%d new bytes in %d: %d blocks were asked for", c.length, c.step, asked)
		}
		if !bytes.Equal(read(t, r.v, ino, 0, len(want)), want) {
			t.Errorf("%d new bytes in %d: the data differs", c.length, c.step)
		}
	}
}

// TestWriteBlocksIsBounded: dirty ranges that lie far apart in a large file, and close enough to be
// cut with what is around them, do not bring all of it into memory.
func TestWriteBlocksIsBounded(t *testing.T) {
	r := testRig(t, smallCDC(), Options{})
	want := noise(3, 8<<20)
	ino := mustCreate(t, r.v, meta.Root, "f", 0o100644)
	mustWrite(t, r.v, ino, 0, want)
	mustSync(t, r.v)
	n, err := r.v.get(ino)
	if err != nil {
		t.Fatal(err)
	}
	defer n.release()
	f := &chunkWriter{v: r.v, n: n, tail: -1}
	for off := 0; off < len(want); off += 64 << 10 {
		f.ranges = append(f.ranges, &dirtyRange{off: int64(off), data: noise(uint64(off), 2000)})
	}
	for i := 0; i < len(f.ranges); {
		from := i
		if i, err = f.cutSome(i); err != nil {
			t.Fatal(err)
		}
		if i == from || len(f.windows) > maxWindows+1 {
			t.Fatalf("%d windows for dirtyRanges %d to %d", len(f.windows), from, i)
		}
		f.free()
	}
}

// TestTinyExtents: thousands of holes and shared parts of a byte each leave rows that the
// database takes.
func TestTinyExtents(t *testing.T) {
	r := testRig(t, smallCDC(), Options{})
	const size, pieces = 200_000, 30_000
	want := noise(1, size)
	other := noise(2, size)
	punched := mustCreate(t, r.v, meta.Root, "punched", 0o100644)
	mustWrite(t, r.v, punched, 0, want)
	source := mustCreate(t, r.v, meta.Root, "source", 0o100644)
	mustWrite(t, r.v, source, 0, other)
	copied := mustCreate(t, r.v, meta.Root, "copied", 0o100644)
	mustWrite(t, r.v, copied, 0, want)
	mustSync(t, r.v)
	holes, mixed := bytes.Clone(want), bytes.Clone(want)
	for i := range int64(pieces) {
		off := 2 * i
		if err := r.v.Fallocate(punched, off, 1, 3); err != nil {
			t.Fatal(err)
		}
		holes[off] = 0
		if _, err := r.v.CopyRange(source, off, copied, off, 1); err != nil {
			t.Fatal(err)
		}
		mixed[off] = other[off]
	}
	mustSync(t, r.v)
	r.clock.advance(time.Minute)
	mustSync(t, r.v)
	r.close(t)
	r.open(t)
	if !bytes.Equal(read(t, r.v, punched, 0, size), holes) {
		t.Error("the file with holes differs")
	}
	if !bytes.Equal(read(t, r.v, copied, 0, size), mixed) {
		t.Error("the file of shared pieces differs")
	}
}

// TestOverlaysAtRandom changes one file in small parts, without staging them, and
// compares it with bytes in memory; coalescing, commits and remounts come between.
func TestOverlaysAtRandom(t *testing.T) {
	t.Parallel()
	seeds := 12
	if testing.Short() {
		seeds = 3
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, filepath.Join(t.TempDir(), "store"), smallCDC(), Options{DirtyBytes: 32 << 10})
			rng := rand.New(rand.NewPCG(uint64(seed), 5))
			want := noise(uint64(seed), 200_000+rng.IntN(200_000))
			ino := mustCreate(t, r.v, meta.Root, "f", 0o100644)
			mustWrite(t, r.v, ino, 0, want)
			overlaid := 0
			for step := range 400 {
				off := rng.IntN(len(want))
				size := min(len(want)-off, 1+rng.IntN(900))
				switch k := rng.IntN(100); {
				case k < 80:
					p := noise(uint64(seed*1000+step), size)
					if k == 0 {
						clear(p)
					}
					copy(want[off:], p)
					mustWrite(t, r.v, ino, int64(off), p)
				case k < 84:
					clear(want[off : off+size])
					if err := r.v.Fallocate(ino, int64(off), int64(size), 3); err != nil {
						t.Fatal(err)
					}
				case k < 86:
					from := rng.IntN(len(want))
					if size = min(size, len(want)-from); from < off+size && off < from+size {
						continue
					}
					copy(want[off:off+size], want[from:])
					if _, err := r.v.CopyRange(ino, int64(from), ino, int64(off), int64(size)); err != nil {
						t.Fatal(err)
					}
				case k < 88:
					want = want[:len(want)-rng.IntN(2000)]
					if err := truncate(r.v, ino, int64(len(want))); err != nil {
						t.Fatal(err)
					}
				case k < 92:
					if err := r.v.flusher.flushAll(flushPartial); err != nil {
						t.Fatal(err)
					}
				case k < 95:
					mustSync(t, r.v)
				case k < 98:
					r.clock.advance(quietTime)
					r.v.flusher.dirty.Lock()
					overlaid += len(r.v.flusher.dirty.overlaid)
					r.v.flusher.dirty.Unlock()
					coalesceAll(t, r.v)
				default:
					r.close(t)
					r.open(t)
				}
				if step%20 == 0 && !bytes.Equal(read(t, r.v, ino, 0, len(want)+1), want) {
					t.Fatalf("seed %d: the data differs after step %d", seed, step)
				}
			}
			mustSync(t, r.v)
			if !bytes.Equal(read(t, r.v, ino, 0, len(want)+1), want) {
				t.Fatalf("seed %d: the data differs at the end", seed)
			}
			r.check(t)
			r.close(t)
			if overlaid == 0 {
				t.Errorf("seed %d: never was there anything to mend", seed)
			}
		})
	}
}
