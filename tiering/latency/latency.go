// Package latency keeps how long things took.
package latency

import (
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// A Summary says how long something took, in milliseconds.
type Summary struct {
	Count int64   `json:"count"`
	P50   float64 `json:"p50_ms"`
	P95   float64 `json:"p95_ms"`
	P99   float64 `json:"p99_ms"`
	Max   float64 `json:"max_ms"`

	// Histogram stays in the process: it is for /metrics.
	Histogram Histogram `json:"-"`
}

// Bounds are the upper bounds of a Histogram's buckets, in ascending order.
var Bounds = [...]time.Duration{
	2500 * time.Nanosecond, 5 * time.Microsecond,
	10 * time.Microsecond, 25 * time.Microsecond, 50 * time.Microsecond,
	100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
	1 * time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond,
	10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	1 * time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second,
}

// A Histogram counts durations: Counts[i] those of at most Bounds[i] and over the
// bound before, and the last those over all bounds.
type Histogram struct {
	Sum    time.Duration
	Counts [len(Bounds) + 1]uint64
}

// Cumulative returns how many durations were at most so many seconds, for each
// bound, and how many there are in all.
func (h *Histogram) Cumulative() (upTo map[float64]uint64, all uint64) {
	upTo = make(map[float64]uint64, len(Bounds))
	for i, bound := range Bounds {
		all += h.Counts[i]
		upTo[bound.Seconds()] = all
	}
	return upTo, all + h.Counts[len(Bounds)]
}

func (h *Histogram) add(took time.Duration) {
	i := 0
	for i < len(Bounds) && took > Bounds[i] {
		i++
	}
	h.Counts[i]++
	h.Sum += took
}

// A Timer notes durations. Its percentiles are from 1 us to 100 s at two digits, in
// 20 KiB once it is used; longer ones count there as 100 s. The zero Timer is
// empty. Any number of goroutines may use it.
type Timer struct {
	mu   sync.Mutex
	h    *hdrhistogram.Histogram // microseconds
	hist Histogram
}

// Add notes a duration.
func (t *Timer) Add(took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.h == nil {
		t.h = hdrhistogram.New(1, (100 * time.Second).Microseconds(), 2)
	}
	_ = t.h.RecordValue(min(took.Microseconds(), t.h.HighestTrackableValue()))
	t.hist.add(took)
}

// Summary summarizes what was noted.
func (t *Timer) Summary() Summary {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.h == nil {
		return Summary{}
	}
	ms := func(us int64) float64 { return float64(us) / 1000 }
	return Summary{
		Count: t.h.TotalCount(), P50: ms(t.h.ValueAtQuantile(50)), P95: ms(t.h.ValueAtQuantile(95)), P99: ms(t.h.ValueAtQuantile(99)),
		Max: ms(t.h.Max()), Histogram: t.hist,
	}
}
