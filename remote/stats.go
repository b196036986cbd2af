package remote

import (
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/quarxtor/quarxfs/store"
)

// Stats is what `quarxfs stats --json` and /v1/stats tell. Blocks, sizes and
// histograms are as of the last commit.
type Stats struct {
	Store      StoreInfo   `json:"store"`
	Daemon     Daemon      `json:"daemon"`
	Mountpoint string      `json:"mountpoint"` // "" when not mounted
	Volume     VolumeStats `json:"volume"`
	Objects    int64       `json:"objects"`
	Amounts

	Blocks       map[string]BlockSum `json:"blocks"` // by kind
	Unreferenced BlockSum            `json:"unreferenced"`
	BlockSizes   []Bar               `json:"block_size_histogram"`
	Entropies    []Bar               `json:"entropy_histogram"`
	Refs         []Bar               `json:"refcount_histogram"`

	Cache   store.CacheStats `json:"cache"`
	Tiers   []store.Tier     `json:"tiers"`
	Commits store.Latency    `json:"commits"`
	Wanted  int              `json:"wanted_blocks"` // cold ones that were used again and wait for their move
	DB      store.DBStats    `json:"database"`
	FUSE    FUSE             `json:"fuse"`
	Memory  Memory           `json:"memory"`
	Disk    store.Disk       `json:"disk"`
}

// Amounts are how many bytes a store has. In JSON they are members of Stats.
type Amounts struct {
	// Logical is what is in the files and objects, without holes, each file and object for itself:
	// what a walk finds. Referenced counts data blocks once for each reference: of a file, an
	// object, or a snapshot's vertex; Unique each once, without compression; Stored what all
	// records take; the last two without what nothing refers to and the sweep will reclaim.
	Logical          int64   `json:"logical_bytes"`
	Referenced       int64   `json:"referenced_bytes"`
	Unique           int64   `json:"unique_bytes"`
	Stored           int64   `json:"stored_bytes"`
	DedupRatio       float64 `json:"dedup_ratio"`       // Referenced / Unique
	CompressionRatio float64 `json:"compression_ratio"` // of data blocks: plain / stored
}

// BlockSum adds blocks up.
type BlockSum struct {
	Count  int64 `json:"count"`
	Raw    int64 `json:"raw_bytes"`
	Stored int64 `json:"stored_bytes"`
}

// A Bar counts the data blocks whose value is in [From, To); an entropy of 8 is in
// the last bar.
type Bar struct {
	From  float64 `json:"from"`
	To    float64 `json:"to"`
	Count int64   `json:"count"`
}

// VolumeStats are the live filesystem's.
type VolumeStats struct {
	Inodes       int64 `json:"inodes"`        // with those in clones that nobody has looked into, and unlinked open ones
	LogicalBytes int64 `json:"logical_bytes"` // sizes of all regular files
	DataBytes    int64 `json:"data_bytes"`    // of these, what is in no hole, and in blocks
	StagedBytes  int64 `json:"staged_bytes"`  // kept in the database until they grow to blocks
	DirtyBytes   int64 `json:"dirty_bytes"`   // memory for what is not yet stored
	DirtyLimit   int64 `json:"dirty_limit_bytes"`
	CachedNodes  int   `json:"cached_inodes"`
	KnownNodes   int   `json:"inodes_known_to_kernel"`
	Orphans      int   `json:"unlinked_open_inodes"`
}

// summarize arranges the store's own figures.
func summarize(st store.Stats) Stats {
	t := &st.Totals
	s := Stats{
		Amounts: Amounts{
			Referenced: t.Referenced, Unique: t.Unique(), Stored: t.StoredBytes() - t.ZeroStored,
			DedupRatio: t.DedupRatio(), CompressionRatio: t.CompressionRatio(),
		},
		Blocks:       make(map[string]BlockSum),
		Unreferenced: BlockSum{Count: t.Zero, Raw: t.UnreferencedRaw(), Stored: t.ZeroStored},
		BlockSizes:   powers(t.Sizes[:]),
		Refs:         powers(t.Refs[:]),
		Cache:        st.Cache, Tiers: st.Tiers, Commits: st.Commits, Wanted: st.Wanted, DB: st.DB, Disk: st.Disk,
	}
	for i, kind := range blockKinds {
		s.Blocks[kind] = BlockSum{t.Blocks[i+1], t.Raw[i+1], t.Stored[i+1]}
	}
	full := len(t.Entropies) - 1 // 8 bits and no less: the last bar holds them too
	t.Entropies[full-1] += t.Entropies[full]
	for i, n := range t.Entropies[:full] {
		if n != 0 {
			s.Entropies = append(s.Entropies, Bar{float64(i) / 2, float64(i+1) / 2, n})
		}
	}
	return s
}

// powers makes bars of a histogram whose bucket i holds [2^(i-1), 2^i), and
// leaves empty ones out.
func powers(counts []int64) []Bar {
	var bars []Bar
	for i, n := range counts {
		if n != 0 {
			bars = append(bars, Bar{math.Floor(math.Ldexp(1, i-1)), math.Ldexp(1, i), n})
		}
	}
	return bars
}

// StoreInfo is what was fixed when the store was made.
type StoreInfo struct {
	Dir string `json:"dir"`
	store.Config
}

// Daemon is the process that holds the store, if there is one.
type Daemon struct {
	PID      PID     `json:"pid"`
	RSSBytes int64   `json:"rss_bytes"`
	Uptime   float64 `json:"uptime_seconds"`
	// SnapshotEvery is how often the mount makes snapshots, if it was told so, whatever the store's
	// settings say; 0: never.
	SnapshotEvery *int64 `json:"snapshot_every_seconds,omitempty"`
}

// A PID is the number of a process; 0, null in JSON, is none. A script that hands a
// number 0 to kill(1) would signal its own group.
type PID int

// MarshalJSON implements json.Marshaler.
func (p PID) MarshalJSON() ([]byte, error) {
	if p == 0 {
		return []byte("null"), nil
	}
	return strconv.AppendInt(nil, int64(p), 10), nil
}

// FUSE counts the kernel's requests since the mount.
type FUSE struct {
	Requests  map[string]uint64        `json:"requests"`
	Latencies map[string]store.Latency `json:"latencies"`
}

// Memory is what the process that answers uses, in bytes.
type Memory struct {
	RSS        int64  `json:"rss_bytes"`
	RSSAnon    int64  `json:"rss_anon_bytes"`
	RSSFile    int64  `json:"rss_file_bytes"` // mapped files: the database's log and tables
	PeakRSS    int64  `json:"peak_rss_bytes"`
	Heap       uint64 `json:"heap_bytes"`
	HeapIdle   uint64 `json:"heap_idle_bytes"`
	Limit      int64  `json:"go_limit_bytes"`
	Goroutines int    `json:"goroutines"`
	GCs        uint32 `json:"collections"`
}

func memory() Memory {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	rss := readStatus()
	return Memory{
		RSS: rss["VmRSS"], RSSAnon: rss["RssAnon"], RSSFile: rss["RssFile"], PeakRSS: rss["VmHWM"],
		Heap: m.HeapAlloc, HeapIdle: m.HeapIdle - m.HeapReleased, Limit: debug.SetMemoryLimit(-1),
		Goroutines: runtime.NumGoroutine(), GCs: m.NumGC,
	}
}

// readStatus returns the sizes in /proc/self/status, in bytes.
func readStatus() map[string]int64 {
	sizes := make(map[string]int64)
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return sizes
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) == 3 && f[2] == "kB" {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			sizes[strings.TrimSuffix(f[0], ":")] = n << 10
		}
	}
	return sizes
}
