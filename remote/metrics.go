package remote

import (
	"log/slog"
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/quarxtor/quarxfs/store"
)

// MetricsHandler answers with a node's Stats, and what is known of this process, as
// Prometheus reads it.
func MetricsHandler(n Node, log *slog.Logger) http.Handler {
	process := prometheus.NewRegistry()
	process.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	list := metrics()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		st, err := n.Stats(r.Context())
		if err != nil {
			Fail(w, r, log, err)
			return
		}
		// Made for each reading, as the collector has the node's Stats of this moment.
		own := prometheus.NewRegistry()
		own.MustRegister(figures{list, &st})
		promhttp.HandlerFor(prometheus.Gatherers{own, process}, promhttp.HandlerOpts{
			ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelError),
		}).ServeHTTP(w, r)
	})
}

// figures collect one reading of a node.
type figures struct {
	list []metric
	of   *Stats
}

// Describe implements prometheus.Collector.
func (f figures) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range f.list {
		ch <- m.desc()
	}
}

// Collect implements prometheus.Collector.
func (f figures) Collect(ch chan<- prometheus.Metric) {
	for _, m := range f.list {
		for _, s := range m.read(f.of) {
			ch <- m.show(s)
		}
	}
}

// A metric is one name in /metrics. label is the name of its only label, or empty.
type metric struct {
	kind  kindOfMetric
	name  string
	help  string
	label string
	read  func(*Stats) []sample
}

const hotTier, coldTier = "hot", "cold"

type kindOfMetric int

const (
	gauge kindOfMetric = iota
	counter
	histogram
)

// A sample is a value of a metric; of a histogram it is took.
type sample struct {
	label string
	value float64
	took  store.Latency
}

func (m *metric) desc() *prometheus.Desc {
	var names []string
	if m.label != "" {
		names = []string{m.label}
	}
	return prometheus.NewDesc("quarxfs_"+m.name, m.help, names, nil)
}

func (m *metric) show(s sample) prometheus.Metric {
	var values []string
	if m.label != "" {
		values = []string{s.label}
	}
	switch m.kind {
	case counter:
		return prometheus.MustNewConstMetric(m.desc(), prometheus.CounterValue, s.value, values...)
	case histogram:
		h := s.took.Histogram
		upTo, count := h.Cumulative()
		return prometheus.MustNewConstHistogram(m.desc(), count, h.Sum.Seconds(), upTo, values...)
	}
	return prometheus.MustNewConstMetric(m.desc(), prometheus.GaugeValue, s.value, values...)
}

type integer interface {
	~int | ~int64 | ~uint64
}

func one[F integer](of func(*Stats) F) func(*Stats) []sample {
	return func(s *Stats) []sample { return []sample{{value: float64(of(s))}} }
}

func oneTime(of func(*Stats) store.Latency) func(*Stats) []sample {
	return func(s *Stats) []sample { return []sample{{took: of(s)}} }
}

func eachKind(of func(BlockSum) int64) func(*Stats) []sample {
	return func(s *Stats) (list []sample) {
		for kind, sum := range s.Blocks {
			list = append(list, sample{label: kind, value: float64(of(sum))})
		}
		return list
	}
}

func eachTier[F integer](of func(*store.Tier) F) func(*Stats) []sample {
	return func(s *Stats) (list []sample) {
		for i := range s.Tiers {
			list = append(list, sample{label: s.Tiers[i].Name, value: float64(of(&s.Tiers[i]))})
		}
		return list
	}
}

func eachTierTime(of func(*store.Tier) store.Latency) func(*Stats) []sample {
	return func(s *Stats) (list []sample) {
		for i := range s.Tiers {
			list = append(list, sample{label: s.Tiers[i].Name, took: of(&s.Tiers[i])})
		}
		return list
	}
}

// inTier reads a number of one tier; it is 0 without that tier.
func inTier(name string, of func(*store.Tier) uint64) func(*Stats) []sample {
	return one(func(s *Stats) uint64 {
		for i := range s.Tiers {
			if s.Tiers[i].Name == name {
				return of(&s.Tiers[i])
			}
		}
		return 0
	})
}

// eachSize shows a curve by the bytes of the sizes that it tells of.
func eachSize(of func(*Stats) []store.CurvePoint) func(*Stats) []sample {
	return func(s *Stats) (list []sample) {
		for _, p := range of(s) {
			list = append(list, sample{label: strconv.FormatInt(p.Bytes, 10), value: p.HitRatio})
		}
		return list
	}
}

func hotCurve(s *Stats) []store.CurvePoint {
	for i := range s.Tiers {
		if s.Tiers[i].Name == hotTier {
			return s.Tiers[i].Curve
		}
	}
	return nil
}

func eachRequest(s *Stats) (list []sample) {
	for op, n := range s.FUSE.Requests {
		list = append(list, sample{label: op, value: float64(n)})
	}
	return list
}

func eachRequestTime(s *Stats) (list []sample) {
	for op, l := range s.FUSE.Latencies {
		list = append(list, sample{label: op, took: l})
	}
	return list
}

func flag(is bool) int {
	if is {
		return 1
	}
	return 0
}

// metrics are all that /metrics shows of a store. docs/operations.md shows some.
func metrics() []metric {
	arrived := func(t *store.Tier) uint64 { return t.Arrived }
	bytesArrived := func(t *store.Tier) uint64 { return t.BytesArrived }
	return []metric{
		{gauge, "objects", "Objects in the store.", "", one(func(s *Stats) int64 { return s.Objects })},
		{gauge, "logical_bytes", "Bytes in files and objects, without holes.", "", one(func(s *Stats) int64 { return s.Logical })},
		{gauge, "referenced_bytes", "Bytes that files, snapshots and objects refer to.", "", one(func(s *Stats) int64 { return s.Referenced })},
		{gauge, "unique_bytes", "The same, each distinct block counted once.", "", one(func(s *Stats) int64 { return s.Unique })},
		{gauge, "stored_bytes", "Bytes of the records in use, compressed.", "", one(func(s *Stats) int64 { return s.Stored })},
		{gauge, "blocks", "Blocks by kind.", "kind", eachKind(func(b BlockSum) int64 { return b.Count })},
		{gauge, "blocks_plain_bytes", "Bytes of blocks by kind, decompressed.", "kind", eachKind(func(b BlockSum) int64 { return b.Raw })},
		{gauge, "blocks_stored_bytes", "Bytes of blocks by kind, as stored.", "kind", eachKind(func(b BlockSum) int64 { return b.Stored })},
		{gauge, "unreferenced_blocks", "Blocks that nothing refers to and the sweep will reclaim.", "", one(func(s *Stats) int64 { return s.Unreferenced.Count })},
		{gauge, "unreferenced_bytes", "Bytes of these blocks, as stored.", "", one(func(s *Stats) int64 { return s.Unreferenced.Stored })},
		{gauge, "disk_size_bytes", "Size of the filesystem that the store is on.", "", one(func(s *Stats) int64 { return s.Disk.Total })},
		{gauge, "disk_free_bytes", "Bytes that may be written before writes fail.", "", one(func(s *Stats) int64 { return s.Disk.Free })},
		{histogram, "commit_duration_seconds", "Whole commits: flush, segments, database.", "", oneTime(func(s *Stats) store.Latency { return s.Commits })},

		{gauge, "database_bytes", "Bytes of the database's tables.", "", one(func(s *Stats) int64 { return s.DB.LSMBytes })},
		{gauge, "database_pending_rows", "Rows that are not yet in the database.", "", one(func(s *Stats) int { return s.DB.PendingRows })},
		{gauge, "database_pending_bytes", "Bytes of these rows.", "", one(func(s *Stats) int64 { return s.DB.PendingBytes })},
		{gauge, "database_ballast_bytes", "Disk space held in reserve.", "", one(func(s *Stats) int64 { return s.DB.Ballast })},
		{counter, "database_failed_commits_total", "Commits of the database that failed.", "", one(func(s *Stats) uint64 { return s.DB.FailedCommits })},
		{counter, "database_written_rows_total", "Rows committed.", "", one(func(s *Stats) uint64 { return s.DB.RowsWritten })},
		{counter, "database_written_bytes_total", "Bytes of keys and values committed.", "", one(func(s *Stats) uint64 { return s.DB.BytesWritten })},
		{histogram, "database_commit_duration_seconds", "Commits of the database that succeeded.", "", oneTime(func(s *Stats) store.Latency { return s.DB.CommitLatency })},

		{gauge, "cache_bytes", "Memory of the blocks in RAM.", "", one(func(s *Stats) int64 { return s.Cache.Bytes })},
		{gauge, "cache_limit_bytes", "Memory that they may take.", "", one(func(s *Stats) int64 { return s.Cache.Limit })},
		{gauge, "cache_blocks", "Blocks in RAM.", "", one(func(s *Stats) int { return s.Cache.Entries })},
		{counter, "cache_hits_total", "Reads of blocks that were in RAM.", "", one(func(s *Stats) uint64 { return s.Cache.Hits })},
		{counter, "cache_misses_total", "Reads of blocks that were not.", "", one(func(s *Stats) uint64 { return s.Cache.Misses })},
		{gauge, "cache_estimated_hit_ratio", "Share of reads that RAM of other sizes would have answered, at the least.", "size_bytes", eachSize(func(s *Stats) []store.CurvePoint { return s.Cache.Curve })},
		{counter, "cache_evicted_blocks_total", "Blocks in RAM that made room for others.", "", one(func(s *Stats) uint64 { return s.Cache.Evictions })},
		{counter, "cache_evicted_bytes_total", "Memory of these blocks.", "", one(func(s *Stats) uint64 { return s.Cache.BytesEvicted })},
		{counter, "prefetched_blocks_total", "Blocks read into RAM before they were asked for.", "", one(func(s *Stats) uint64 { return s.Cache.Prefetched })},
		{counter, "prefetch_dropped_total", "Requests to do so that were dropped since the readers were busy.", "", one(func(s *Stats) uint64 { return s.Cache.PrefetchDropped })},
		{gauge, "prefetch_queue", "Requests to do so that wait.", "", one(func(s *Stats) int { return s.Cache.PrefetchQueue })},

		{gauge, "tier_reachable", "Whether a tier can be reached: 1 or 0.", "tier", eachTier(func(t *store.Tier) int { return flag(t.Reachable) })},
		{gauge, "tier_bytes", "Bytes of a tier's segments, dead records among them.", "tier", eachTier(func(t *store.Tier) int64 { return t.Bytes })},
		{gauge, "tier_segments", "Segments of a tier.", "tier", eachTier(func(t *store.Tier) int { return t.Segments })},
		{gauge, "tier_unsealed_segments", "Of these, full ones that wait for their footer, or to be uploaded.", "tier", eachTier(func(t *store.Tier) int { return t.Unsealed })},
		{counter, "tier_read_bytes_total", "Bytes of records read from a tier.", "tier", eachTier(func(t *store.Tier) uint64 { return t.BytesRead })},
		{counter, "tier_written_bytes_total", "Bytes of records written to a tier.", "tier", eachTier(func(t *store.Tier) uint64 { return t.BytesWritten })},
		{histogram, "tier_read_duration_seconds", "Reads of records from a tier, whoever asked.", "tier", eachTierTime(func(t *store.Tier) store.Latency { return t.ReadTime })},
		{histogram, "tier_write_duration_seconds", "Writes of records to a tier.", "tier", eachTierTime(func(t *store.Tier) store.Latency { return t.WriteTime })},
		{gauge, "hot_estimated_hit_ratio", "Share of the reads that RAM had not that hot tiers of other sizes would have answered; only under a policy.", "size_bytes", eachSize(hotCurve)},
		{counter, "promoted_blocks_total", "Blocks moved to the hot tier.", "", inTier(hotTier, arrived)},
		{counter, "promoted_bytes_total", "Bytes of these blocks, as stored there.", "", inTier(hotTier, bytesArrived)},
		{counter, "demoted_blocks_total", "Blocks moved to the cold tier.", "", inTier(coldTier, arrived)},
		{counter, "demoted_bytes_total", "Bytes of these blocks, as stored there.", "", inTier(coldTier, bytesArrived)},
		{gauge, "promotion_queue", "Cold blocks that were used again and wait for their move.", "", one(func(s *Stats) int { return s.Wanted })},

		{gauge, "inodes", "Inodes of the live filesystem.", "", one(func(s *Stats) int64 { return s.Volume.Inodes })},
		{gauge, "files_bytes", "Sizes of all its regular files.", "", one(func(s *Stats) int64 { return s.Volume.LogicalBytes })},
		{gauge, "staged_bytes", "Written bytes kept in the database until they grow to blocks.", "", one(func(s *Stats) int64 { return s.Volume.StagedBytes })},
		{gauge, "dirty_bytes", "Memory of written bytes that are not yet stored.", "", one(func(s *Stats) int64 { return s.Volume.DirtyBytes })},
		{gauge, "dirty_limit_bytes", "Memory that they may take.", "", one(func(s *Stats) int64 { return s.Volume.DirtyLimit })},
		{gauge, "cached_inodes", "Inodes in memory.", "", one(func(s *Stats) int { return s.Volume.CachedNodes })},
		{gauge, "kernel_inodes", "Inodes that the kernel knows.", "", one(func(s *Stats) int { return s.Volume.KnownNodes })},
		{gauge, "orphan_inodes", "Inodes that have no name and are still open.", "", one(func(s *Stats) int { return s.Volume.Orphans })},
		{counter, "fuse_requests_total", "Requests of the kernel by kind.", "op", eachRequest},
		{histogram, "fuse_request_duration_seconds", "Requests of the kernel by kind; not all kinds are timed.", "op", eachRequestTime},

		{gauge, "memory_anonymous_bytes", "Resident memory that is no file's.", "", one(func(s *Stats) int64 { return s.Memory.RSSAnon })},
		{gauge, "memory_mapped_bytes", "Resident memory of mapped files: the database's log and tables.", "", one(func(s *Stats) int64 { return s.Memory.RSSFile })},
	}
}
