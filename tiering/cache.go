package tiering

import (
	"sync/atomic"

	"github.com/maypok86/otter/v2"
	"github.com/maypok86/otter/v2/stats"
)

// A cache holds plain blocks by ID, weighed by the bytes that they take. The
// zero value holds nothing.
type cache struct {
	otter   *otter.Cache[[32]byte, []byte]
	limit   *atomic.Int64 // bytes
	evicted *evictions
}

// cacheOverhead is about what an entry costs besides its bytes, so that a limit
// holds for vertices of a few bytes as well.
const cacheOverhead = 160

func newCache(limit int64) cache {
	if limit <= 0 {
		return cache{}
	}
	gone := &evictions{}
	c := cache{limit: new(atomic.Int64), evicted: gone, otter: otter.Must(&otter.Options[[32]byte, []byte]{
		MaximumWeight: uint64(limit),
		Weigher:       func(_ [32]byte, plain []byte) uint32 { return weight(plain) },
		StatsRecorder: gone,
		// A goroutine for what each write leaves to do would wake an idle processor
		// every time, which costs more than doing it.
		Executor: func(task func()) { task() },
	})}
	c.limit.Store(limit)
	return c
}

// resize changes the limit, and drops at once what is over it.
func (c *cache) resize(limit int64) {
	if c.otter != nil && c.limit.Swap(limit) != limit {
		c.otter.SetMaximum(uint64(limit))
	}
}

func weight(plain []byte) uint32 { return uint32(cap(plain)) + cacheOverhead }

// evictions count what had to make room.
type evictions struct {
	stats.NoopRecorder
	blocks, bytes atomic.Uint64
}

// RecordEviction implements stats.Recorder.
func (e *evictions) RecordEviction(weight uint32) {
	e.blocks.Add(1)
	e.bytes.Add(uint64(weight))
}

func (c *cache) get(id [32]byte) ([]byte, bool) {
	if c.otter == nil {
		return nil, false
	}
	return c.otter.GetIfPresent(id)
}

// has does not count as a use.
func (c *cache) has(id [32]byte) bool {
	if c.otter == nil {
		return false
	}
	_, ok := c.otter.GetEntryQuietly(id)
	return ok
}

func (c *cache) set(id [32]byte, plain []byte) {
	if c.otter != nil {
		c.otter.Set(id, plain)
	}
}

// stats fills in what the cache itself knows.
func (c *cache) stats(s *RAMStats) {
	if c.otter == nil {
		return
	}
	s.Bytes, s.Entries, s.Limit = int64(c.otter.WeightedSize()), c.otter.EstimatedSize(), c.limit.Load()
	s.Evictions, s.BytesEvicted = c.evicted.blocks.Load(), c.evicted.bytes.Load()
}

func (c *cache) close() {
	if c.otter != nil {
		c.otter.InvalidateAll()
		c.otter.StopAllGoroutines()
	}
}
