package latency

import (
	"testing"
	"time"
)

func TestTimer(t *testing.T) {
	var timer Timer
	if got := timer.Summary(); got != (Summary{}) {
		t.Errorf("empty: %+v", got)
	}
	sum := time.Duration(0)
	for _, took := range []time.Duration{0, 10 * time.Microsecond, 11 * time.Microsecond, time.Millisecond, 10 * time.Second, time.Hour} {
		timer.Add(took)
		sum += took
	}
	got := timer.Summary()
	if got.Count != 6 || got.Histogram.Sum != sum || got.P50 >= 1 || got.Max < 99_000 || got.Max > 101_000 {
		t.Errorf("%+v", got)
	}
	want := Histogram{Sum: sum}
	want.Counts[0] = 1
	want.Counts[2] = 1 // the bound is within
	want.Counts[3] = 1
	want.Counts[8] = 1
	want.Counts[len(Bounds)-1] = 1
	want.Counts[len(Bounds)] = 1
	if got.Histogram != want {
		t.Errorf("%v, want %v", got.Histogram, want)
	}
	if upTo, all := got.Histogram.Cumulative(); all != 6 || upTo[10e-6] != 2 || upTo[25e-6] != 3 || upTo[0.5] != 4 || upTo[10] != 5 {
		t.Errorf("%v of %d", upTo, all)
	}
	for i := range Bounds[1:] {
		if Bounds[i] >= Bounds[i+1] {
			t.Errorf("bounds %v and %v", Bounds[i], Bounds[i+1])
		}
	}
}
