package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/quarxtor/quarxfs/tiering"
)

// OptimizeOptions say how blocks are compressed anew.
type OptimizeOptions struct {
	Rate     int64           // most bytes of records read a second; 0: no limit
	DryRun   bool            // only estimate, from a sample
	Progress func(Optimized) // if set, called now and then
}

// An Optimized says what an optimization did, has done so far, or would do.
type Optimized struct {
	Blocks     int64 `json:"blocks"`         // compressed anew
	From       int64 `json:"from_bytes"`     // of their records before
	To         int64 `json:"to_bytes"`       // and after
	Todo       int64 `json:"todo_bytes"`     // of records still to be read
	Segments   int64 `json:"segments"`       // that were replaced
	Unreadable int64 `json:"unreadable"`     // blocks that cannot be read, and keep their segments
	Database   int64 `json:"database_bytes"` // that the database gave back
	NoRoom     bool  `json:"no_room"`        // more could be done with more room for copies
}

// Saved returns the bytes given back.
func (o Optimized) Saved() int64 { return o.From - o.To + o.Database }

// worthRecoding is the share of a segment's live bytes, one in so many, that must be quickly
// compressed for the segment to be written anew: a few blocks that zstd does not make smaller stay
// as they are, and must not have it copied again and again.
const worthRecoding = 16

// Optimize compresses blocks of the hot tier by zstd that were written in a hurry, and has the
// database give back what its deleted rows take. Segments are written anew one by one, as by
// Compact, so each block is at one place or the other when it is interrupted, and the next call
// goes on with what is left. Writers go on meanwhile. Errors: ErrLocked: another one is under way;
// ErrConfig: the store does not compress; ErrReadOnly; those of the disk.
func (rl *relocator) Optimize(ctx context.Context, o OptimizeOptions) (sum Optimized, err error) {
	if rl.readOnly {
		return sum, ErrReadOnly
	}
	if rl.appender.compression == "none" {
		return sum, fmt.Errorf("optimize a store that does not compress: %w", ErrConfig)
	}
	if o.Rate < 0 {
		return sum, fmt.Errorf("optimize at a rate of %d: %w", o.Rate, ErrConfig)
	}
	// Two would copy the same blocks, and both count what they save.
	if !rl.optimizing.TryLock() {
		return sum, fmt.Errorf("an optimization is under way: %w", ErrLocked)
	}
	defer rl.optimizing.Unlock()
	// Rows say how blocks are stored as of the last commit.
	if err := rl.commits.Commit(); err != nil {
		return sum, err
	}
	p, err := rl.planRecoding(ctx)
	if err != nil {
		return sum, err
	}
	if o.DryRun {
		return rl.estimate(ctx, p)
	}
	c := compactor{s: rl, pace: newPacer(o.Rate), recode: &sum}
	if o.Progress != nil {
		c.o.Progress = func(Compacted) { o.Progress(c.optimized()) }
	}
	if err := c.sealOneOf(ctx, p.segments); err != nil {
		return sum, err
	}
	err = c.emptyAll(ctx, p.segments)
	if err == nil {
		err = c.commitMoves()
	}
	if err == nil {
		c.sum.Database, err = c.compactDB()
	}
	if err != nil {
		err = fmt.Errorf("optimize: %w", err)
	}
	return c.optimized(), err
}

// optimized is what has been done so far.
func (c *compactor) optimized() Optimized {
	o := *c.recode
	o.Todo, o.Segments, o.Unreadable = c.sum.Todo, c.sum.Segments, c.sum.Unreadable
	o.Database, o.NoRoom = c.sum.Database, c.sum.NoRoom
	return o
}

// A recodingPlan is what an optimization is about.
type recodingPlan struct {
	segments []sparseSegment    // the one with most to gain first
	sample   []tiering.Location // of their blocks that are to be compressed anew
	blocks   int64              // of these blocks, all
	bytes    int64              // of their records
}

// sampled is how many blocks an estimate reads at most. Blocks have some 64 KiB at most on average,
// so it takes about a second.
const sampled = 4096

// planRecoding looks at every block's row.
func (rl *relocator) planRecoding(ctx context.Context) (p recodingPlan, err error) {
	quick := make(map[uint64]int64)
	err = rl.db.ScanPrefix([]byte{keyBlock}, func(key, value []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		_, e, err := decodeBlockRow(key, value)
		if err != nil || e.Loc.Tier != tiering.Hot || e.Codec != tiering.S2 || e.isPlaceholder() {
			return err
		}
		quick[e.Loc.Segment] += e.Stored()
		p.blocks++
		p.bytes += e.Stored()
		// Each block has the same chance to be in the sample (Vitter's algorithm R).
		if len(p.sample) < sampled {
			p.sample = append(p.sample, e.Loc)
		} else if at := rand.Int64N(p.blocks); at < sampled {
			p.sample[at] = e.Loc
		}
		return nil
	})
	if err != nil {
		return p, err
	}
	for number, bytes := range quick {
		live, err := rl.index.liveBytes(number)
		if err != nil {
			return p, err
		}
		if bytes >= live/worthRecoding {
			p.segments = append(p.segments, sparseSegment{number, live})
		}
	}
	slices.SortFunc(p.segments, func(a, b sparseSegment) int {
		return cmp.Or(cmp.Compare(quick[b.number], quick[a.number]), cmp.Compare(a.number, b.number))
	})
	return p, nil
}

// estimate compresses a sample.
func (rl *relocator) estimate(ctx context.Context, p recodingPlan) (sum Optimized, err error) {
	var from, to int64
	for _, loc := range p.sample {
		if err := ctx.Err(); err != nil {
			return sum, err
		}
		rec, err := rl.recoded(loc)
		if errors.Is(err, tiering.ErrCorrupt) || errors.Is(err, tiering.ErrNotFound) {
			continue // it is the scrub's to report, or has moved
		}
		if err != nil {
			return sum, err
		}
		from += int64(loc.Length)
		to += rec.Length()
	}
	sum.Blocks, sum.From, sum.To = p.blocks, p.bytes, p.bytes
	if from > 0 {
		sum.To = int64(float64(p.bytes) * float64(to) / float64(from))
	}
	return sum, nil
}

// recoded returns a record as it is to be stored at rest: by zstd, where that is smaller.
func (rl *relocator) recoded(loc tiering.Location) (tiering.Record, error) {
	rec, err := rl.tiers.Stored(loc)
	if err != nil || rec.Codec != tiering.S2 {
		return rec, err
	}
	// Checked by its ID: what is damaged must not be given a new checksum.
	_, plain, err := rl.tiers.Read(loc)
	if err != nil {
		return rec, err
	}
	codec, payload := tiering.Compress(tiering.Zstd, nil, plain)
	if codec == tiering.Zstd && len(payload) < len(rec.Payload) {
		rec.Codec, rec.Payload = codec, payload
	}
	return rec, nil
}

// sealOneOf makes the segment that is being written one that can be emptied, if it is to be.
func (c *compactor) sealOneOf(ctx context.Context, list []sparseSegment) error {
	number, ok := c.s.tiers.Active(tiering.Hot)
	if !ok || !slices.ContainsFunc(list, func(s sparseSegment) bool { return s.number == number }) {
		return nil
	}
	return c.s.tiers.Seal(ctx, number)
}
