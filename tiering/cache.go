package tiering

import (
	"github.com/maypok86/otter/v2"
)

// A cache holds plain blocks by ID, weighed by the bytes that they take. The
// zero value holds nothing.
type cache struct {
	otter *otter.Cache[[32]byte, []byte]
	limit int64
}

// cacheOverhead is about what an entry costs besides its bytes, so that a limit
// holds for vertices of a few bytes as well.
const cacheOverhead = 160

func newCache(limit int64) cache {
	if limit <= 0 {
		return cache{}
	}
	return cache{limit: limit, otter: otter.Must(&otter.Options[[32]byte, []byte]{
		MaximumWeight: uint64(limit),
		Weigher:       func(_ [32]byte, plain []byte) uint32 { return uint32(cap(plain)) + cacheOverhead },
	})}
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

func (c *cache) usage() (bytes int64, entries int) {
	if c.otter == nil {
		return 0, 0
	}
	return int64(c.otter.WeightedSize()), c.otter.EstimatedSize()
}

func (c *cache) close() {
	if c.otter != nil {
		c.otter.InvalidateAll()
		c.otter.StopAllGoroutines()
	}
}
