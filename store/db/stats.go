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

// Latency is a distribution in brief.
type Latency struct {
	P50 time.Duration `json:"p50"`
	P95 time.Duration `json:"p95"`
	P99 time.Duration `json:"p99"`
	Max time.Duration `json:"max"`
}

// meter counts commits.
type meter struct {
	mu      sync.Mutex
	stats   Stats
	latency *hdrhistogram.Histogram
}

// init sets the range of the histogram: 1 us to 100 s at two digits, 20 KiB.
func (m *meter) init() {
	m.latency = hdrhistogram.New(1, (100 * time.Second).Microseconds(), 2)
}

func (m *meter) committed(rows int, bytes int64, took time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stats.Commits++
	m.stats.RowsWritten += uint64(rows)
	m.stats.BytesWritten += uint64(bytes - int64(rows)*rowOverhead)
	_ = m.latency.RecordValue(min(took.Microseconds(), m.latency.HighestTrackableValue()))
}

func (m *meter) failed() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stats.FailedCommits++
}

func (m *meter) read() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := func(q float64) time.Duration {
		return time.Duration(m.latency.ValueAtQuantile(q)) * time.Microsecond
	}
	s := m.stats
	s.CommitLatency = Latency{P50: at(50), P95: at(95), P99: at(99), Max: at(100)}
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
