package remote

import (
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/quarxtor/quarxfs/store"
)

// Stats is what `quarxfs stats --json` and /v1/stats tell.
type Stats struct {
	Store      StoreInfo `json:"store"`
	Daemon     Daemon    `json:"daemon"`
	Mountpoint string    `json:"mountpoint"` // "" when not mounted
	Volume     any       `json:"volume"`
	FUSE       FUSE      `json:"fuse"`
	Memory     Memory    `json:"memory"`
	Disk       Disk      `json:"disk"`
}

// StoreInfo is what was fixed when the store was made.
type StoreInfo struct {
	Dir string `json:"dir"`
	store.Config
}

// Daemon is the process that holds the store; PID is 0 when there is none.
type Daemon struct {
	PID      int     `json:"pid"`
	RSSBytes int64   `json:"rss_bytes"`
	Uptime   float64 `json:"uptime_seconds"`
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

// Disk is the filesystem under the store. Free is what may still be written
// before writes are refused.
type Disk struct {
	Total int64 `json:"total_bytes"`
	Free  int64 `json:"free_bytes"`
}

// Surroundings are what only the process around a store knows; what is nil or
// empty is left out.
type Surroundings struct {
	Started    time.Time
	Mountpoint string
	Volume     func() any
	FUSE       func() FUSE
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
