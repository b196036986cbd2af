package db

import (
	"sync"
	"time"

	"github.com/quarxtor/quarxfs/tiering/latency"
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
	CommitLatency latency.Summary `json:"commit_latency"`
}

// meter counts commits.
type meter struct {
	took  latency.Timer
	mu    sync.Mutex
	stats Stats
}

func (m *meter) committed(rows int, bytes int64, took time.Duration) {
	m.took.Add(took)
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
	s.CommitLatency = m.took.Summary()
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
	s.LSMBytes = d.TableBytes()
	return s
}

// TableBytes returns what all tables take on disk.
func (d *DB) TableBytes() (sum int64) {
	b, err := d.use()
	if err != nil {
		return 0
	}
	defer b.leave()
	for _, t := range b.kv.Tables() {
		sum += int64(t.OnDiskSize)
	}
	return sum
}
