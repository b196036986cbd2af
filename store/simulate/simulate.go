// Package simulate tells what a store would make of files that are not in it
// yet: every byte is read once, cut in several ways at the same time, and the
// blocks are counted as a store counts them, but kept nowhere.
package simulate

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/quarxtor/quarxfs/store/chunk"
	"github.com/quarxtor/quarxfs/tiering"
)

// ErrOptions is what errors about Options wrap.
var ErrOptions = errors.New("simulation")

// Options say what to try and with what.
type Options struct {
	Chunkers []chunk.Config  // at least one
	Codecs   []tiering.Codec // at least one; each is tried with each chunker

	// Memory bounds, in bytes, what is remembered of blocks to know them again;
	// 1 GiB if zero. With more blocks than fit, some are taken for all.
	Memory int64
	// OneFilesystem keeps the walk on the filesystems that it starts on.
	OneFilesystem bool
	// Skip is called for what cannot be read and is left out. It may be nil.
	Skip func(path string, err error)
	// Progress is called after every few MiB. It may be nil.
	Progress func(Input)

	buffer int // least length of a batch, if not 0
}

const (
	defaultMemory = 1 << 30
	// rowMemory is what a remembered block takes at most: 24 bytes in a map
	// that is half full after it has grown.
	rowMemory = 56
	minRows   = 1 << 10
)

// Input counts what was read.
type Input struct {
	Files       int64 `json:"files"`
	Directories int64 `json:"directories"`
	Others      int64 `json:"others"`     // symbolic links, devices and the like, which have no data
	Hardlinks   int64 `json:"hardlinks"`  // further names of files, not read again
	Skipped     int64 `json:"skipped"`    // could not be read
	Size        int64 `json:"size_bytes"` // of the files
	Holes       int64 `json:"hole_bytes"` // of these, in holes
	Read        int64 `json:"read_bytes"` // the others
}

// A Result is what one way to cut and compress would make of the data. Sizes
// mean what they mean in a store's statistics.
type Result struct {
	Chunker chunk.Config `json:"chunker"`
	Codec   string       `json:"codec"`

	Logical int64 `json:"logical_bytes"` // without holes and blocks of zeroes
	Zeroes  int64 `json:"zero_bytes"`    // read, in blocks of zeroes, which no store keeps
	Unique  int64 `json:"unique_bytes"`
	Stored  int64 `json:"stored_bytes"` // records of data blocks
	Blocks  int64 `json:"blocks"`
	Uses    int64 `json:"block_uses"` // how often files refer to one of them

	DedupRatio       float64 `json:"dedup_ratio"`       // Logical / Unique
	CompressionRatio float64 `json:"compression_ratio"` // Unique / Stored
	Ratio            float64 `json:"ratio"`             // Logical / Stored

	Index Index   `json:"index"`
	Speed float64 `json:"bytes_per_second"` // cut, hashed and compressed by one core

	// SampledOneIn is 1 when every block was counted; else Unique, Stored and
	// Blocks are estimates from one block in so many.
	SampledOneIn int64 `json:"sampled_one_in"`
}

// Index is what the database would hold for the blocks.
type Index struct {
	Rows    int64 `json:"rows"`         // one a block
	Bytes   int64 `json:"bytes"`        // of these rows on disk
	Extents int64 `json:"extent_bytes"` // of what says which file has which block where
	Memory  int64 `json:"memory_bytes"` // always in memory, for these rows
}

// A row and an extent as docs/format/database.md works them out, 47 and 36
// bytes, and to the row what tables add and compression saves (TestIndexSize). Of the
// tables, the filters and block indexes are always in memory.
const (
	bytesPerRow    = 58
	bytesPerExtent = 36
	memoryPerRow   = 2
)

// A Report is the outcome of a Run.
type Report struct {
	Input   Input    `json:"input"`
	Results []Result `json:"results"` // chunkers in the order given, with each the codecs
	Seconds float64  `json:"seconds"`
}

// Run reads all below the roots, files or directories, without following
// symbolic links, and every file with several names once. What cannot be read
// is reported to Skip and left out. Memory is bounded, whatever there is to
// read. Errors: ErrOptions, chunk.ErrConfig, those of a root that is not there,
// and of ctx.
func Run(ctx context.Context, roots []string, o Options) (Report, error) {
	begun := time.Now()
	plans, err := o.plans()
	if err != nil {
		return Report{}, err
	}
	if roots, err = cleanRoots(roots); err != nil {
		return Report{}, err
	}
	f := newFeeder(plans, o)
	w := walker{ctx: ctx, feeder: f, o: o, linked: make(map[inode]uint64)}
	err = w.roots(roots)
	// Also after an error: the workers still use the buffers.
	f.finish()
	if err != nil {
		return Report{}, err
	}
	r := Report{Input: w.in, Seconds: time.Since(begun).Seconds()}
	for _, p := range plans {
		r.Results = append(r.Results, p.results(o.Codecs)...)
	}
	return r, nil
}

func (o *Options) plans() ([]*plan, error) {
	if len(o.Chunkers) == 0 || len(o.Codecs) == 0 || len(o.Codecs) > maxCodecs {
		return nil, fmt.Errorf("%w: give chunkers, and 1 to %d codecs", ErrOptions, maxCodecs)
	}
	if o.Memory == 0 {
		o.Memory = defaultMemory
	}
	// Each chunker remembers its own blocks.
	limit := int(o.Memory / rowMemory / int64(len(o.Chunkers)))
	if limit < minRows {
		return nil, fmt.Errorf("%w: %s of memory are too few for %d chunkers; give at least %s",
			ErrOptions, humanize.IBytes(uint64(max(0, o.Memory))), len(o.Chunkers), humanize.IBytes(uint64(minRows*rowMemory*len(o.Chunkers))))
	}
	var plans []*plan
	for _, c := range o.Chunkers {
		chunker, err := chunk.New(c)
		if err != nil {
			return nil, err
		}
		plans = append(plans, &plan{chunker: chunker, codecs: o.Codecs, blocks: newBlockSet(limit)})
	}
	return plans, nil
}

// cleanRoots makes paths absolute, follows them where they are symbolic links,
// and drops those that others contain.
func cleanRoots(roots []string) ([]string, error) {
	var all []string
	for _, r := range roots {
		abs, err := filepath.Abs(r)
		if err != nil {
			return nil, err
		}
		if abs, err = filepath.EvalSymlinks(abs); err != nil {
			return nil, err
		}
		all = append(all, abs)
	}
	// One below another would be read and counted twice.
	var kept []string
	for i, r := range all {
		inside := func(top string) bool { return strings.HasPrefix(r, strings.TrimSuffix(top, "/")+"/") }
		if !slices.ContainsFunc(all, inside) && !slices.Contains(all[:i], r) {
			kept = append(kept, r)
		}
	}
	return kept, nil
}

func ratio(a, b int64) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}

// workers is how many goroutines hash and compress.
func workers() int { return runtime.GOMAXPROCS(0) }

// A stopwatch adds up what several goroutines take.
type stopwatch struct{ ns atomic.Int64 }

func (s *stopwatch) since(t time.Time) { s.ns.Add(int64(time.Since(t))) }

func (s *stopwatch) seconds() float64 { return float64(s.ns.Load()) / 1e9 }
