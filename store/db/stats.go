package db

import (
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Stats describe a database since it was opened.
type Stats struct {
	LSMBytes      int64  `json:"lsm_bytes"`      // of all tables
	PendingRows   int    `json:"pending_rows"`   // active and frozen
	PendingBytes  int64  `json:"pending_bytes"`  //
	Commits       uint64 `json:"commits"`        // that succeeded and wrote something
	FailedCommits uint64 `json:"failed_commits"` //
	RowsWritten   uint64 `json:"rows_written"`
	BytesWritten  uint64 `json:"bytes_written"` // keys and values, each counted once
	Ballast       int64  `json:"ballast"`       // bytes held
	Free          int64  `json:"free"`          // as DB.Free

	// CommitLatency is that of the commits that succeeded.
	CommitLatency Latency `json:"commit_latency"`
}

// A Latency summarizes how long something took, in milliseconds.
type Latency struct {
	Count int64   `json:"count"`
	P50   float64 `json:"p50_ms"`
	P95   float64 `json:"p95_ms"`
	P99   float64 `json:"p99_ms"`
	Max   float64 `json:"max_ms"`
}

// Summarize reads a histogram of microseconds; nil is an empty one.
func Summarize(h *hdrhistogram.Histogram) Latency {
	if h == nil {
		return Latency{}
	}
	ms := func(us int64) float64 { return float64(us) / 1000 }
	return Latency{h.TotalCount(), ms(h.ValueAtQuantile(50)), ms(h.ValueAtQuantile(95)), ms(h.ValueAtQuantile(99)), ms(h.Max())}
}

// A Timer keeps a histogram of durations from 1 us to 100 s at two digits, in
// 20 KiB once it is used; longer ones count as 100 s. The zero Timer is empty.
type Timer struct {
	mu sync.Mutex
	h  *hdrhistogram.Histogram
}

// Add notes a duration.
func (t *Timer) Add(took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.h == nil {
		t.h = hdrhistogram.New(1, (100 * time.Second).Microseconds(), 2)
	}
	_ = t.h.RecordValue(min(took.Microseconds(), t.h.HighestTrackableValue()))
}

// Latency summarizes what was noted.
func (t *Timer) Latency() Latency {
	t.mu.Lock()
	defer t.mu.Unlock()
	return Summarize(t.h)
}

// meter counts commits.
type meter struct {
	latency Timer
	mu      sync.Mutex
	stats   Stats
}

func (m *meter) committed(rows int, bytes int64, took time.Duration) {
	m.latency.Add(took)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stats.Commits++
	m.stats.RowsWritten += uint64(rows)
	m.stats.BytesWritten += uint64(bytes - int64(rows)*rowOverhead)
}

func (m *meter) failed() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stats.FailedCommits++
}

func (m *meter) read() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.stats
	s.CommitLatency = m.latency.Latency()
	return s
}

// Stats returns the figures of this moment. They cost a walk over the table
// list, not over the rows.
func (d *DB) Stats() Stats {
	s := d.meter.read()
	d.mu.RLock()
	s.PendingRows = d.mu.active.rows.Len() + d.mu.frozen.rows.Len()
	s.PendingBytes = d.mu.active.bytes + d.mu.frozen.bytes
	d.mu.RUnlock()
	s.Ballast = d.ballast.bytes()
	s.Free = d.Free()
	if d.use() != nil {
		return s
	}
	defer d.users.Done()
	for _, t := range d.kv.Tables() {
		s.LSMBytes += int64(t.OnDiskSize)
	}
	return s
}
