package volume

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// byteRanges is what dirtyRanges are, byte by byte.
type byteRanges struct {
	data  []byte
	dirty []bool
}

func (rs dirtyRanges) bytewise(n int) byteRanges {
	b := byteRanges{make([]byte, n), make([]bool, n)}
	rs.overlay(0, b.data, func(lo, hi int) {
		for i := lo; i < hi; i++ {
			b.dirty[i] = true
		}
	})
	return b
}

func (b byteRanges) equal(c byteRanges) bool {
	for i := range b.dirty {
		if b.dirty[i] != c.dirty[i] || b.dirty[i] && b.data[i] != c.data[i] {
			return false
		}
	}
	return true
}

func TestBytesIn(t *testing.T) {
	var rs dirtyRanges
	rs.write(2, []byte("ab"))
	rs.write(6, []byte("cde"))
	b := rs.bytewise(10)
	for lo := range 10 {
		for hi := lo; hi <= 10; hi++ {
			var want int64
			for _, dirty := range b.dirty[lo:hi] {
				if dirty {
					want++
				}
			}
			if got := rs.bytesIn(int64(lo), int64(hi)); got != want {
				t.Errorf("%d bytes in [%d, %d), want %d", got, lo, hi, want)
			}
		}
	}
}

// TestDirtyRanges does every pair of short changes to dirty ranges, and longer series at
// random, and compares with a walk byte by byte.
func TestDirtyRanges(t *testing.T) {
	const n = 9
	type change struct {
		kind   int // write, under, punch
		lo, hi int
	}
	var changes []change
	for kind := range 3 {
		for lo := range n {
			for hi := lo + 1; hi <= n; hi++ {
				changes = append(changes, change{kind, lo, hi})
			}
		}
	}
	series := func(list ...change) {
		t.Helper()
		var rs dirtyRanges
		want := byteRanges{make([]byte, n), make([]bool, n)}
		for k, c := range list {
			p := bytes.Repeat([]byte{byte(k + 1)}, c.hi-c.lo)
			for i := c.lo; i < c.hi; i++ {
				if c.kind == 1 && want.dirty[i] {
					continue
				}
				want.dirty[i], want.data[i] = c.kind != 2, byte(k+1)
			}
			switch c.kind {
			case 0:
				rs.write(int64(c.lo), p)
			case 1:
				rs.under(int64(c.lo), p)
			case 2:
				rs.punch(int64(c.lo), int64(c.hi))
			}
			checkRanges(t, rs)
		}
		if !want.equal(rs.bytewise(n)) {
			t.Fatalf("after %v: %v, want %v", list, rs.bytewise(n), want)
		}
		for lo := range n {
			for hi := lo + 1; hi <= n; hi++ {
				if got := rs.intersects(int64(lo), int64(hi)); got != bytes.Contains(boolBytes(want.dirty[lo:hi]), []byte{1}) {
					t.Fatalf("after %v: [%d, %d) intersects: %t", list, lo, hi, got)
				}
			}
		}
	}
	for _, a := range changes {
		for _, b := range changes {
			series(a, b)
		}
	}
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 3000 {
		var list []change
		for range 3 + rnd.IntN(8) {
			list = append(list, changes[rnd.IntN(len(changes))])
		}
		series(list...)
	}
}

func boolBytes(list []bool) []byte {
	b := make([]byte, len(list))
	for i, is := range list {
		if is {
			b[i] = 1
		}
	}
	return b
}

// checkRanges checks that dirty ranges are sorted, apart, not empty, and changed only
// within themselves.
func checkRanges(t *testing.T, rs dirtyRanges) {
	t.Helper()
	end := int64(-1)
	for _, r := range rs {
		if r.off < end || len(r.data) == 0 || len(r.data) > maxRange || r.lo < 0 || r.hi > len(r.data) {
			t.Fatalf("run of %d bytes at %d, changed from %d to %d, after %d", len(r.data), r.off, r.lo, r.hi, end)
		}
		end = r.end()
	}
}

// TestLongRanges crosses the limits of dirty ranges and of their buffers.
func TestLongRanges(t *testing.T) {
	const n = 3*maxRange + 5000
	rnd := rand.New(rand.NewPCG(5, 6))
	var rs dirtyRanges
	want := byteRanges{make([]byte, n), make([]bool, n)}
	changes := 60
	if testing.Short() {
		changes = 20
	}
	for k := range changes {
		lo := rnd.IntN(n)
		hi := min(n, lo+1+rnd.IntN(1<<(1+rnd.IntN(22))))
		if k%5 == 4 {
			rs.punch(int64(lo), int64(hi))
			clear(want.dirty[lo:hi])
		} else {
			p := noise(uint64(k), hi-lo)
			rs.write(int64(lo), p)
			copy(want.data[lo:], p)
			for i := lo; i < hi; i++ {
				want.dirty[i] = true
			}
		}
		checkRanges(t, rs)
		if !want.equal(rs.bytewise(n)) {
			t.Fatalf("change %d, from %d to %d, went wrong", k, lo, hi)
		}
	}
}

// TestTouched: whatever was written since the range was staged is within the
// changed bounds.
func TestTouched(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 8))
	for range 2000 {
		var rs dirtyRanges
		changed := make(map[int64]bool)
		for range 12 {
			lo, length := rnd.Int64N(200), 1+rnd.Int64N(60)
			switch rnd.IntN(4) {
			case 0:
				rs.punch(lo, lo+length)
			case 1:
				for _, r := range rs {
					r.lo, r.hi = 0, 0
				}
				clear(changed)
			default:
				rs.write(lo, make([]byte, length))
				for i := range length {
					changed[lo+i] = true
				}
			}
			for at := range changed {
				i := rs.after(at)
				if i == len(rs) || rs[i].off > at {
					continue // punched
				}
				if r := rs[i]; at < r.off+int64(r.lo) || at >= r.off+int64(r.hi) {
					t.Fatalf("byte %d was written, and the run at %d says %d to %d", at, r.off, r.lo, r.hi)
				}
			}
		}
	}
}
