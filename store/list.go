package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/quarxtor/quarxfs/store/db"
	"github.com/quarxtor/quarxfs/tiering"
)

// BlockInfo is what the index says about a block.
type BlockInfo struct {
	ID      ID      `json:"id"`
	Kind    string  `json:"kind"`  // data, file, tree or snapshot
	Codec   string  `json:"codec"` // raw, s2 or zstd
	Raw     int64   `json:"raw_bytes"`
	Stored  int64   `json:"stored_bytes"` // of the record, with its header
	Refs    uint64  `json:"refs"`
	Entropy float64 `json:"entropy"` // bits a byte, 0 to 8
	Tier    string  `json:"tier"`
	Segment uint64  `json:"segment"`
	Offset  int64   `json:"offset"`
}

// A BlockFilter chooses blocks; its zero value chooses all.
type BlockFilter struct {
	Kind    tiering.Kind // 0: any
	MinRefs uint64
	MaxRefs uint64 // 0: any
	Unused  bool   // only blocks that nothing refers to; MinRefs and MaxRefs are not looked at
	Prefix  string // hex digits that the ID starts with
	After   ID     // only blocks whose ID is greater, unless zero
}

func (f *BlockFilter) matches(e Entry) bool {
	switch {
	case f.Kind != 0 && e.Kind != f.Kind:
		return false
	case f.Unused:
		return e.Refs == 0
	}
	return e.Refs >= f.MinRefs && (f.MaxRefs == 0 || e.Refs <= f.MaxRefs)
}

// tierName is the name of a Location's tier.
func tierName(tier uint8) string {
	switch tier {
	case tiering.Hot:
		return "hot"
	case tiering.Cold:
		return "cold"
	}
	return fmt.Sprintf("tier %d", tier)
}

// Blocks calls fn for every block that the filter chooses, in order of ID, as
// the index was when it was called; references that are not committed yet are
// not counted. ErrStop of fn ends the walk; any other error of fn does too, and
// is returned. Errors: ErrConfig for a prefix that is not one.
func (ix *index) Blocks(ctx context.Context, filter BlockFilter, fn func(BlockInfo) error) error {
	lo, hi, ok := PrefixRange(filter.Prefix)
	if !ok {
		return fmt.Errorf("ID prefix %q is not up to %d hex digits: %w", filter.Prefix, 2*len(lo), ErrConfig)
	}
	from := prefixKey(keyBlock, lo)
	if filter.After != (ID{}) {
		// After may lie before the prefix or inside of it.
		from = slices.MaxFunc([][]byte{from, prefixEnd(keyBlock, filter.After)}, bytes.Compare)
	}
	return ix.db.Scan(from, prefixEnd(keyBlock, hi), func(key, value []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		id, e, err := decodeBlockRow(key, value)
		if err != nil {
			return err
		}
		if !filter.matches(e) {
			return nil
		}
		return fn(e.Info(id))
	})
}

// Info says what a block's row says.
func (e Entry) Info(id ID) BlockInfo {
	return BlockInfo{
		ID: id, Kind: e.Kind.String(), Codec: e.Codec.String(), Raw: int64(e.Raw), Stored: e.Stored(), Refs: e.Refs,
		Entropy: e.EntropyBits(), Tier: tierName(e.Loc.Tier), Segment: e.Loc.Segment, Offset: int64(e.Loc.Offset),
	}
}

func decodeBlockRow(key, value []byte) (ID, Entry, error) {
	id, err := idInKey(key)
	if err != nil {
		return id, Entry{}, err
	}
	e, err := decodeEntry(value)
	if err != nil {
		err = fmt.Errorf("block %s: %w", id, err)
	}
	return id, e, err
}

// Stats tells what is inside the store and what it did since it was opened.
type Stats struct {
	Totals  Totals     `json:"totals"`  // as of the last commit
	Commits Latency    `json:"commits"` // whole ones: flush, segments, database
	Cache   CacheStats `json:"cache"`
	Tiers   []Tier     `json:"tiers"`
	Wanted  int        `json:"wanted_blocks"` // cold ones that were used again and wait for their move
	DB      DBStats    `json:"database"`
	Disk    Disk       `json:"disk"`
}

// DBStats are the database's.
type DBStats = db.Stats

// CacheStats are the RAM tier's. Bytes and Limit are of plain blocks.
type CacheStats struct {
	Hits            uint64  `json:"hits"`
	Misses          uint64  `json:"misses"`
	HitRatio        float64 `json:"hit_ratio"` // 0 to 1
	Prefetched      uint64  `json:"prefetched"`
	PrefetchDropped uint64  `json:"prefetch_dropped"`
	PrefetchQueue   int     `json:"prefetch_queue"`
	Evictions       uint64  `json:"evictions"`
	BytesEvicted    uint64  `json:"bytes_evicted"`
	Entries         int     `json:"entries"`
	Bytes           int64   `json:"bytes"`
	Limit           int64   `json:"limit_bytes"`

	// Curve says what RAM of half to eight times the size would have hit, by LRU.
	Curve []CurvePoint `json:"curve,omitempty"`
}

// A CurvePoint says what share of reads a size would have answered.
type CurvePoint = tiering.CurvePoint

// Tier is one tier on disk.
type Tier struct {
	Name         string  `json:"name"`
	Reachable    bool    `json:"reachable"`
	Fault        string  `json:"fault,omitempty"` // why it is not
	Segments     int     `json:"segments"`
	Unsealed     int     `json:"unsealed_segments"` // full ones that wait for their footer, or to be uploaded
	Bytes        int64   `json:"bytes"`             // of the segments, dead records among them
	Reads        uint64  `json:"reads"`
	BytesRead    uint64  `json:"bytes_read"`
	ReadTime     Latency `json:"read_latency"`
	Writes       uint64  `json:"writes"`
	BytesWritten uint64  `json:"bytes_written"`
	WriteTime    Latency `json:"write_latency"`
	Arrived      uint64  `json:"arrived_blocks"` // that came from the other tier: promotions, or demotions
	BytesArrived uint64  `json:"bytes_arrived"`

	// Curve says what hot tiers of half to eight times the policy's limit would have had
	// of the reads that RAM had not, by LRU.
	Curve []CurvePoint `json:"curve,omitempty"`
}

// Disk is the filesystem that the store is on. Free is what may still be
// written before writes get ErrFull.
type Disk struct {
	Total int64 `json:"total_bytes"`
	Used  int64 `json:"used_bytes"` // by the store: segments in all tiers, and the database's tables
	Free  int64 `json:"free_bytes"`
}

// Stats returns the figures of this moment. It is cheap enough to be called
// every second.
func (s *Store) Stats() Stats {
	t := s.tiers.Stats()
	st := Stats{
		Totals:  s.totalsNow(),
		Commits: s.took.Summary(),
		Cache: CacheStats{
			Hits: t.RAM.Hits, Misses: t.RAM.Misses, HitRatio: t.RAM.HitRatio(),
			Prefetched: t.RAM.Prefetched, PrefetchDropped: t.RAM.PrefetchDropped, PrefetchQueue: t.RAM.PrefetchQueue,
			Evictions: t.RAM.Evictions, BytesEvicted: t.RAM.BytesEvicted,
			Entries: t.RAM.Entries, Bytes: t.RAM.Bytes, Limit: t.RAM.Limit,
			Curve: t.RAM.Curve,
		},
		Tiers:  []Tier{s.tierStats(tiering.Hot, t.Hot)},
		Wanted: s.TierManager().Wanted,
		DB:     s.db.Stats(),
	}
	if err := s.tiers.Reach(tiering.Cold); !errors.Is(err, tiering.ErrNoTier) {
		st.Tiers = append(st.Tiers, s.tierStats(tiering.Cold, t.Cold))
	}
	st.Disk.Total, _ = diskSize(s.dir.Join()) // no figures are better than no stats
	st.Disk.Used, st.Disk.Free = s.Space()
	return st
}

// ResizeCache changes the limit of the RAM tier, in bytes; what is over it is dropped.
func (s *Store) ResizeCache(bytes int64) { s.tiers.ResizeRAM(bytes) }

func (s *Store) tierStats(tier uint8, t tiering.TierStats) Tier {
	arrived, fault := &s.arrived[tier], ""
	away := s.tiers.Reach(tier)
	if away != nil {
		fault = away.Error()
	}
	return Tier{
		Name: tierName(tier), Reachable: away == nil, Fault: fault,
		Segments: t.Segments, Unsealed: t.Unsealed, Bytes: t.Bytes,
		Reads: t.Reads, BytesRead: t.BytesRead, ReadTime: t.ReadTime,
		Writes: t.Writes, BytesWritten: t.BytesWritten, WriteTime: t.WriteTime,
		Arrived: arrived.blocks.Load(), BytesArrived: arrived.bytes.Load(),
		Curve: t.Curve,
	}
}
