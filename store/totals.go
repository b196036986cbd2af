package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/quarxtor/quarxfs/store/db"
	"github.com/quarxtor/quarxfs/tiering/segment"
)

// Totals are sums over the index, kept up to date by every commit. Histogram
// buckets: Sizes and Refs by power of two (bucket i holds [2^(i-1), 2^i)),
// Entropies by half a bit a byte.
type Totals struct {
	Blocks     [5]int64  `json:"blocks"` // by segment.Kind
	Raw        [5]int64  `json:"raw_bytes"`
	Stored     [5]int64  `json:"stored_bytes"`
	Zero       int64     `json:"unreferenced_blocks"`
	ZeroStored int64     `json:"unreferenced_stored_bytes"`
	Referenced int64     `json:"referenced_bytes"` // raw bytes times references, of data blocks
	Sizes      [25]int64 `json:"size_histogram"`
	Refs       [33]int64 `json:"refcount_histogram"`
	Entropies  [17]int64 `json:"entropy_histogram"`
}

func (t *Totals) count(e Entry, sign int64) {
	k := min(int(e.Kind), len(t.Blocks)-1)
	t.Blocks[k] += sign
	t.Raw[k] += sign * int64(e.Raw)
	t.Stored[k] += sign * e.Stored()
	if e.Refs == 0 {
		t.Zero += sign
		t.ZeroStored += sign * e.Stored()
	}
	if e.Kind == segment.Data {
		t.Referenced += sign * int64(e.Raw) * int64(e.Refs)
		t.Sizes[min(bits.Len32(e.Raw), len(t.Sizes)-1)] += sign
		t.Refs[min(bits.Len64(e.Refs), len(t.Refs)-1)] += sign
		t.Entropies[int(e.EntropyBits()*2)] += sign
	}
}

func (t Totals) encode() []byte {
	b, err := binary.Append(nil, binary.LittleEndian, t)
	if err != nil {
		panic(err) // a fixed-size struct always encodes
	}
	return b
}

func (s *Store) totalsNow() Totals {
	s.totals.Lock()
	defer s.totals.Unlock()
	return s.totals.Totals
}

func (s *Store) loadTotals() error {
	b, err := s.db.Get([]byte{keyTotals})
	if errors.Is(err, db.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := binary.Decode(b, binary.LittleEndian, &s.totals.Totals); err != nil {
		return fmt.Errorf("totals row: %w", ErrCorrupt)
	}
	return nil
}

// commitStats times commits.
type commitStats struct {
	mu struct {
		sync.Mutex
		h *hdrhistogram.Histogram
	}
}

func (c *commitStats) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.h == nil {
		c.mu.h = hdrhistogram.New(1, int64(time.Hour/time.Microsecond), 2)
	}
	_ = c.mu.h.RecordValue(int64(d / time.Microsecond)) // longer than an hour is not recorded
}

// A Latency summarizes how long something took.
type Latency struct {
	Count int64   `json:"count"`
	P50   float64 `json:"p50_ms"`
	P95   float64 `json:"p95_ms"`
	P99   float64 `json:"p99_ms"`
	Max   float64 `json:"max_ms"`
}

// Summarize reads a histogram of microseconds.
func Summarize(h *hdrhistogram.Histogram) Latency {
	if h == nil {
		return Latency{}
	}
	ms := func(us int64) float64 { return float64(us) / 1000 }
	return Latency{h.TotalCount(), ms(h.ValueAtQuantile(50)), ms(h.ValueAtQuantile(95)), ms(h.ValueAtQuantile(99)), ms(h.Max())}
}

func (c *commitStats) latency() Latency {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Summarize(c.mu.h)
}

// Stats tells what is inside the store.
type Stats struct {
	Totals  Totals  `json:"totals"`
	Commits Latency `json:"commits"`
	Tiers   any     `json:"tiers"`
	DB      any     `json:"database"`
	Disk    int64   `json:"free_disk_bytes"`
}
