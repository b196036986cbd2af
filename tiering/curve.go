package tiering

import (
	"encoding/binary"
	"math/bits"
	"sync"
	"sync/atomic"
)

// A CurvePoint says what share of uses a cache of so many bytes would have answered.
type CurvePoint struct {
	Bytes    int64   `json:"bytes"`
	HitRatio float64 `json:"hit_ratio"` // 0 to 1
}

// A curve estimates what share of uses a cache of any size would have answered, if it
// kept the blocks that were used last (LRU), in bounded memory: the miss-ratio
// curve of SHARDS (Waldspurger et al., FAST 2015).
//
// A block is in the sample if its ID, which is a hash, starts with so many zero bits;
// so a use of any other costs a look at its ID. For a block of the sample that is
// used again, the sample's bytes that were used since, divided by the share that the
// sample is of all, are about what a cache must hold to have the block still. When
// the sample gets larger than maxSample, every second block leaves it. So does what
// was used so long ago that only a cache larger than the cut has it.
//
// By chance the sample has more uses or fewer than its share. The difference is taken
// for uses that a cache of any size answers, since it is mostly a few blocks that are
// used very often (SHARDS-adj). Uses count half after every curveLife of them.
type curve struct {
	zeros atomic.Uint32 // that an ID starts with
	total func() uint64 // uses of all blocks until now
	mu    struct {
		sync.Mutex
		cut     int64               // bytes of the largest cache of interest
		slots   map[uint64]int      // the start of a block's ID -> its place in order
		order   []lastUse           // in order of time; those without bytes are free
		sums    []int64             // Fenwick tree over order's bytes
		oldest  int                 // in order, or before it
		bytes   int64               // in order
		hits    [curveSteps]float64 // uses that need a cache of just that size
		sampled float64             // uses that those of the sample stand for
		uses    float64             // of all blocks
		counted uint64              // of total; these are in uses
	}
}

type lastUse struct {
	id    uint64 // its start
	bytes int64
}

const (
	maxSample    = 8 << 10 // blocks: some 1.5 MiB
	maxOrder     = 4 * maxSample
	firstZeros   = 0  // of a new curve: while there are few blocks, all are the sample
	noZeros      = 65 // no ID starts with so many
	curveLife    = 1 << 20
	curveBits    = 3  // eight sizes are told apart for each doubling
	largestCurve = 8  // times the size that there is
	curveLeast   = 12 // log2 of the least size, in bytes
	curveSteps   = (50-curveLeast)<<curveBits + 1
)

// newCurve returns a curve that begins with limit.
func newCurve(total func() uint64) *curve {
	c := &curve{total: total}
	c.zeros.Store(noZeros)
	return c
}

// limit says how large a cache is of interest, in bytes; 0: none is.
func (c *curve) limit(bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.cut = bytes
	switch off := c.zeros.Load() == noZeros; {
	case bytes <= 0:
		c.zeros.Store(noZeros)
		c.mu.slots, c.mu.order, c.mu.sums = nil, nil, nil
	case off:
		c.zeros.Store(firstZeros)
		c.mu.slots, c.mu.order, c.mu.sums = make(map[uint64]int), make([]lastUse, 0, maxOrder), make([]int64, maxOrder+1)
		c.mu.oldest, c.mu.bytes = 0, 0
		clear(c.mu.hits[:])
		c.mu.sampled, c.mu.uses, c.mu.counted = 0, 0, c.total()
	}
}

// use notes a use of a block that takes so many bytes of a cache.
func (c *curve) use(id *[32]byte, bytes int64) {
	start := binary.BigEndian.Uint64(id[:])
	if uint32(bits.LeadingZeros64(start)) < c.zeros.Load() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	zeros := c.zeros.Load()
	if uint32(bits.LeadingZeros64(start)) < zeros || bytes <= 0 {
		return
	}
	each := float64(uint64(1) << zeros) // uses that one of the sample stands for
	if c.mu.sampled += each; c.mu.sampled >= curveLife {
		c.age()
	}
	if i, ok := c.mu.slots[start]; ok {
		since := c.mu.bytes - c.upTo(i)
		c.mu.hits[curveStep(since<<zeros+bytes)] += each
		if i == len(c.mu.order)-1 {
			return
		}
		c.free(i)
	}
	c.append(start, bytes)
	c.trim()
}

// curveStep returns the index of the least size told apart that is not below bytes.
func curveStep(bytes int64) int {
	if bytes <= 1<<curveLeast {
		return 0
	}
	octave := bits.Len64(uint64(bytes-1)) - 1
	part := int((bytes-1)>>(octave-curveBits)) & (1<<curveBits - 1)
	return min((octave-curveLeast)<<curveBits+part+1, curveSteps-1)
}

// stepSize is the size of a step, in bytes.
func stepSize(i int) int64 {
	return int64(1<<curveBits+i&(1<<curveBits-1)) << (curveLeast + i>>curveBits - curveBits)
}

// upTo returns the bytes of order[:i+1].
func (c *curve) upTo(i int) (sum int64) {
	if i == len(c.mu.order)-1 {
		return c.mu.bytes
	}
	for i++; i > 0; i &= i - 1 {
		sum += c.mu.sums[i]
	}
	return sum
}

func (c *curve) add(i int, bytes int64) {
	c.mu.bytes += bytes
	for i++; i < len(c.mu.sums); i += i & -i {
		c.mu.sums[i] += bytes
	}
}

func (c *curve) append(id uint64, bytes int64) {
	if len(c.mu.order) == maxOrder {
		c.compact()
	}
	i := len(c.mu.order)
	c.mu.order = append(c.mu.order, lastUse{id, bytes})
	c.mu.slots[id] = i
	c.add(i, bytes)
}

func (c *curve) free(i int) {
	c.add(i, -c.mu.order[i].bytes)
	c.mu.order[i].bytes = 0
}

func (c *curve) remove(i int) {
	delete(c.mu.slots, c.mu.order[i].id)
	c.free(i)
}

// compact closes the gaps in order.
func (c *curve) compact() {
	old := c.mu.order
	c.mu.order, c.mu.oldest, c.mu.bytes = c.mu.order[:0], 0, 0
	clear(c.mu.sums)
	for _, u := range old {
		if u.bytes > 0 {
			c.append(u.id, u.bytes) // behind no gap there is less than before
		}
	}
}

// trim takes out of the sample what is too old, or too much.
func (c *curve) trim() {
	for most := c.mu.cut >> c.zeros.Load(); c.mu.bytes > most && len(c.mu.slots) > 1; c.mu.oldest++ {
		if c.mu.order[c.mu.oldest].bytes > 0 {
			c.remove(c.mu.oldest)
		}
	}
	for len(c.mu.slots) > maxSample {
		zeros := c.zeros.Add(1)
		for id, i := range c.mu.slots {
			if uint32(bits.LeadingZeros64(id)) < zeros {
				c.remove(i)
			}
		}
	}
}

// age makes what was counted so far count half, and lets a sample that has become
// small grow.
func (c *curve) age() {
	c.count()
	for i := range c.mu.hits {
		c.mu.hits[i] /= 2
	}
	c.mu.sampled /= 2
	c.mu.uses /= 2
	if zeros := c.zeros.Load(); zeros > firstZeros && len(c.mu.slots) < maxSample/4 {
		c.zeros.Store(zeros - 1)
	}
}

func (c *curve) count() {
	now := c.total()
	c.mu.uses += float64(now - c.mu.counted)
	c.mu.counted = now
}

// points returns what caches of half, once, twice, four and eight times so many bytes
// would have answered; nil if there was no use, or none is of interest.
func (c *curve) points(bytes int64) (list []CurvePoint) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.zeros.Load() == noZeros || bytes <= 0 {
		return nil
	}
	c.count()
	if c.mu.uses == 0 || c.mu.sampled == 0 {
		return nil
	}
	for _, size := range []int64{bytes / 2, bytes, 2 * bytes, 4 * bytes, 8 * bytes} {
		list = append(list, CurvePoint{size, c.hitRatio(size)})
	}
	return list
}

func (c *curve) hitRatio(size int64) float64 {
	hits := c.mu.uses - c.mu.sampled
	for i, n := range c.mu.hits {
		if most := stepSize(i); most > size {
			if least := stepSize(i - 1); i > 0 && least < size {
				hits += n * float64(size-least) / float64(most-least)
			}
			break
		}
		hits += n
	}
	return min(max(hits/c.mu.uses, 0), 1)
}
