package meta

import "testing"

// TestRanges compares what is done to ranges with the same on a table of blocks, for all
// bounds among a few.
func TestRanges(t *testing.T) {
	const most = 7
	for set := range 1 << most {
		var r Ranges
		for i := range int64(most) {
			if set>>i&1 == 1 {
				r = r.With(i, i+1)
			}
		}
		is := func(what string, r Ranges, lo, hi int64, want func(i int64) bool) {
			t.Helper()
			for i := range int64(most) {
				if (r.Covered(i, i+1) == 1) != want(i) {
					t.Errorf("%s %d to %d of %b: %v", what, lo, hi, set, r)
				}
			}
			for i := 1; i < len(r); i++ {
				if r[i-1].Hi >= r[i].Lo {
					t.Errorf("%s %d to %d of %b: %v touch", what, lo, hi, set, r)
				}
			}
		}
		has := func(i int64) bool { return set>>i&1 == 1 }
		for lo := range int64(most + 1) {
			for hi := range int64(most + 1) {
				in := func(i int64) bool { return lo <= i && i < hi }
				is("with", r.With(lo, hi), lo, hi, func(i int64) bool { return has(i) || in(i) })
				is("without", r.Without(lo, hi), lo, hi, func(i int64) bool { return has(i) && !in(i) })
				is("missing", r.Missing(lo, hi), lo, hi, func(i int64) bool { return in(i) && !has(i) })
			}
		}
		if len(r) > 1 {
			gap := r.NarrowestGap()
			for i := 1; i < len(r); i++ {
				if r[i].Lo-r[i-1].Hi < gap.Hi-gap.Lo {
					t.Errorf("the narrowest gap of %v is not %v", r, gap)
				}
			}
		}
	}
}
