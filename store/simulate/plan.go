package simulate

import (
	"encoding/binary"
	"sync"
	"time"

	"github.com/quarxtor/quarxfs/store/chunk"
	"github.com/quarxtor/quarxfs/tiering"
)

// maxCodecs is how many codecs can be tried at once: there are three.
const maxCodecs = 3

// recordHeader is what a record takes besides its payload.
const recordHeader = 56

// A plan is one way to cut.
type plan struct {
	chunker *chunk.Chunker
	codecs  []tiering.Codec
	blocks  *blockSet

	parts []part // of the batch, in order
	ahead int    // bytes of the batch's first span that are cut already
	at    int    // where cutting stopped in the batch's last span, if that goes on

	cutting     stopwatch
	hashing     stopwatch
	compressing [maxCodecs]stopwatch
}

// A part is a block of a batch.
type part struct {
	plan  *plan
	bytes []byte
}

// cut finds the blocks of a batch. What is left at its end is cut with the next.
func (p *plan) cut(b *batch) {
	defer p.cutting.since(time.Now())
	p.parts = p.parts[:0]
	for i, s := range b.spans {
		at := s.from
		if i == 0 {
			at += p.ahead
		}
		for at < s.to {
			n, final := p.chunker.Cut(s.off+int64(at-s.from), b.buf[at:s.to])
			if !final && !s.ends {
				break
			}
			p.parts = append(p.parts, part{p, b.buf[at : at+n]})
			at += n
		}
		p.at = at
	}
}

// count hashes a block and, when it is new, compresses it; room is where to.
func (p *plan) count(block, room []byte) {
	begun := time.Now()
	if chunk.IsZero(block) {
		p.blocks.addZeroes(len(block))
		return
	}
	id := chunk.Sum(block)
	// A part of the hash: it is as random as the whole and an eighth of the memory.
	key := binary.LittleEndian.Uint64(id[:])
	fresh := p.blocks.add(key, len(block))
	p.hashing.since(begun)
	if !fresh {
		return
	}
	// Compressed once for each codec, and only when it is new: this is where the time goes.
	s := sizes{raw: uint32(len(block))}
	for i, c := range p.codecs {
		begun := time.Now()
		_, out := tiering.Compress(c, room, block)
		p.compressing[i].since(begun)
		s.stored[i] = recordHeader + uint32(len(out))
	}
	p.blocks.set(key, s)
}

func (p *plan) results(codecs []tiering.Codec) []Result {
	b := p.blocks
	oneIn := int64(1) << b.level
	var blocks, unique int64
	var stored [maxCodecs]int64
	for _, s := range b.sizes {
		blocks += oneIn
		unique += int64(s.raw) * oneIn
		for i := range stored {
			stored[i] += int64(s.stored[i]) * oneIn
		}
	}
	config := p.chunker.Config()
	config.Key = nil // it may be a secret of a store
	var all []Result
	for i, c := range codecs {
		seconds := p.cutting.seconds() + p.hashing.seconds() + p.compressing[i].seconds()*float64(oneIn)
		all = append(all, Result{
			Chunker: config, Codec: c.String(),
			Logical: b.logical, Zeroes: b.zeroes, Unique: unique, Stored: stored[i], Blocks: blocks, Uses: b.uses,
			DedupRatio: ratio(b.logical, unique), CompressionRatio: ratio(unique, stored[i]), Ratio: ratio(b.logical, stored[i]),
			Index:        Index{Rows: blocks, Bytes: blocks * bytesPerRow, Extents: b.uses * bytesPerExtent, Memory: blocks * memoryPerRow},
			Speed:        float64(b.logical+b.zeroes) / max(seconds, 1e-9),
			SampledOneIn: oneIn,
		})
	}
	return all
}

// sizes are the plain bytes of a block and what its record takes by codec.
type sizes struct {
	raw    uint32
	stored [maxCodecs]uint32
}

// A blockSet knows blocks again. When there are more than it may hold, it keeps
// those whose key ends in one zero bit, then in two, and so on; keys are parts
// of hashes, so what is kept is a fair sample, and everything about distinct
// blocks is estimated from it: adaptive sampling, Flajolet, Computing 43 (1990).
//
// Keys have 64 bits: of ten million blocks, two are taken for one with a
// probability of 3 in a million.
type blockSet struct {
	limit int // of len(sizes)

	mu      sync.Mutex
	sizes   map[uint64]sizes
	level   uint // keys in sizes end in so many zero bits
	uses    int64
	logical int64
	zeroes  int64
}

func newBlockSet(limit int) *blockSet {
	return &blockSet{limit: limit, sizes: make(map[uint64]sizes)}
}

func (b *blockSet) addZeroes(n int) {
	b.mu.Lock()
	b.zeroes += int64(n)
	b.mu.Unlock()
}

// add counts a use of a block and reports whether its sizes are wanted.
func (b *blockSet) add(key uint64, length int) (fresh bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.uses++
	b.logical += int64(length)
	if !b.sampled(key) {
		return false
	}
	if _, ok := b.sizes[key]; ok {
		return false
	}
	// Entered before it is compressed, or another worker would compress it as well.
	b.sizes[key] = sizes{}
	// Half of what is known goes with each level, and what follows is sampled likewise.
	for len(b.sizes) > b.limit {
		b.level++
		for k := range b.sizes {
			if !b.sampled(k) {
				delete(b.sizes, k)
			}
		}
	}
	return b.sampled(key)
}

func (b *blockSet) set(key uint64, s sizes) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.sampled(key) {
		b.sizes[key] = s
	}
}

func (b *blockSet) sampled(key uint64) bool { return key&(1<<b.level-1) == 0 }
