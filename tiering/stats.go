package tiering

import (
	"sync/atomic"

	"github.com/quarxtor/quarxfs/tiering/latency"
)

// Stats are counts since Open, and what is held now.
type Stats struct {
	RAM  RAMStats
	Hot  TierStats
	Cold TierStats
}

// RAMStats are the RAM cache's. Bytes and Limit count what entries cost besides
// their bytes as well.
type RAMStats struct {
	Hits, Misses    uint64 // of Get and Cached; a block that Cached lacks is no miss
	Prefetched      uint64 // blocks that Prefetch and Preload brought
	PrefetchDropped uint64 // requests dropped since the readers were busy
	PrefetchQueue   int    // requests that wait for a reader
	Evictions       uint64 // blocks that made room for others
	BytesEvicted    uint64
	Bytes, Limit    int64
	Entries         int
	Curve           []CurvePoint // what other sizes would have hit; nil: not known
}

// TierStats are a tier's on disk. Reads are records read, whoever asked; what failed
// is not among them.
type TierStats struct {
	Reads, BytesRead     uint64
	Writes, BytesWritten uint64
	ReadTime, WriteTime  latency.Summary // of these, from the disk and to it
	Bytes                int64
	Segments             int
	Unsealed             int          // of the segments, those that are full and wait for their footer, or to be uploaded
	Curve                []CurvePoint // of the hot tier, see WatchHot; nil: not known
}

// HitRatio returns the share of lookups that RAM answered, 0 for none.
func (s RAMStats) HitRatio() float64 {
	if s.Hits+s.Misses == 0 {
		return 0
	}
	return float64(s.Hits) / float64(s.Hits+s.Misses)
}

type counters struct {
	ramHits, ramMisses          atomic.Uint64
	prefetched, prefetchDropped atomic.Uint64
	fills                       atomic.Uint64 // blocks that were read because RAM had none
	tiers                       [tierCount]struct {
		reads, bytesRead, writes, bytesWritten atomic.Uint64
		readTime, writeTime                    latency.Timer
	}
}

// Stats returns the counts. They are read one after another, so they may be
// apart by what happens meanwhile.
func (s *Set) Stats() Stats {
	c := &s.counters
	ram := RAMStats{
		Hits: c.ramHits.Load(), Misses: c.ramMisses.Load(),
		Prefetched: c.prefetched.Load(), PrefetchDropped: c.prefetchDropped.Load(),
		PrefetchQueue: s.ahead.waiting(),
	}
	s.cache.stats(&ram)
	ram.Curve = s.ramCurve.points(s.opts.CacheBytes)
	hot := s.tierStats(Hot)
	hot.Curve = s.hotCurve.points(s.hotSize.Load())
	return Stats{RAM: ram, Hot: hot, Cold: s.tierStats(Cold)}
}

// Bytes returns what the segments of all tiers take.
func (s *Set) Bytes() (sum int64) {
	for id := range uint8(tierCount) {
		if t, err := s.tier(id); err == nil {
			bytes, _ := t.table.totals()
			sum += bytes
		}
	}
	return sum
}

func (s *Set) tierStats(id uint8) TierStats {
	c := &s.counters.tiers[id]
	st := TierStats{
		Reads: c.reads.Load(), BytesRead: c.bytesRead.Load(),
		Writes: c.writes.Load(), BytesWritten: c.bytesWritten.Load(),
		ReadTime: c.readTime.Summary(), WriteTime: c.writeTime.Summary(),
	}
	if t, err := s.tier(id); err == nil {
		st.Bytes, st.Segments = t.table.totals()
		st.Unsealed = t.toSeal()
	}
	return st
}
