package simulate

import (
	"io"
	"sync"
	"sync/atomic"

	"github.com/quarxtor/quarxfs/tiering"
)

// A batch is bytes of one or more streams: many small files, or a part of a big
// one.
type batch struct {
	buf   []byte
	used  int
	spans []span
}

// A span is buf[from:to], at byte off of its file. ends: the stream ends there.
// Only the last span of a batch may go on, in the next.
type span struct {
	from, to int
	off      int64
	ends     bool
}

// minBatch keeps the cores busy for some milliseconds.
const minBatch = 8 << 20

// A feeder reads streams into batches and gives each batch to all plans: it is
// cut at once, and hashed and compressed while the next is read.
type feeder struct {
	plans    []*plan
	batches  [2]*batch // [0] is being filled
	rooms    [][]byte  // one for each worker, to compress into
	parts    []part    // of the batch that is being counted
	counting sync.WaitGroup
}

func newFeeder(plans []*plan, o Options) *feeder {
	longest := 0
	for _, p := range plans {
		longest = max(longest, p.chunker.Max())
	}
	size := o.buffer
	if size == 0 {
		size = minBatch
	}
	size = max(size, 2*longest)
	f := &feeder{plans: plans, batches: [2]*batch{{buf: make([]byte, size)}, {buf: make([]byte, size)}}}
	for range workers() {
		f.rooms = append(f.rooms, make([]byte, tiering.MaxCompressed(longest)))
	}
	return f
}

// stream feeds what r gives, the bytes from off on of a file. It returns how
// many there were; the error is r's, and what came before it counts.
func (f *feeder) stream(r io.Reader, off int64) (int64, error) {
	b := f.batches[0]
	b.spans = append(b.spans, span{from: b.used, to: b.used, off: off})
	var total int64
	for {
		// Straight into the batch, so that nothing is copied.
		n, err := r.Read(b.buf[b.used:])
		b.used += n
		total += int64(n)
		last := &b.spans[len(b.spans)-1]
		last.to = b.used
		// Also after an error: what was read is cut as if the file ended here.
		if err != nil {
			last.ends = true
		}
		if b.used == len(b.buf) {
			f.turn()
			b = f.batches[0]
		}
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// turn gives the batch to the plans and goes on with the other. What of an
// unfinished stream some plan has not cut yet is copied there.
func (f *feeder) turn() {
	b := f.batches[0]
	// Cut while the batch before is still being counted, then wait for that.
	f.cut(b)
	f.counting.Wait()
	f.parts = f.parts[:0]
	for _, p := range f.plans {
		f.parts = append(f.parts, p.parts...)
	}
	f.count()

	next := f.batches[1]
	f.batches[0], f.batches[1] = next, b
	next.used, next.spans = 0, next.spans[:0]
	if len(b.spans) == 0 {
		return
	}
	last := b.spans[len(b.spans)-1]
	// The plan that is farthest behind decides what is copied.
	from := last.to
	for _, p := range f.plans {
		from = min(from, p.at)
	}
	for _, p := range f.plans {
		// The others skip what they have cut already.
		p.ahead = p.at - from
	}
	if !last.ends {
		next.used = copy(next.buf, b.buf[from:last.to])
		next.spans = append(next.spans, span{to: next.used, off: last.off + int64(from-last.from)})
	}
}

// cut lets every plan cut the batch, side by side.
func (f *feeder) cut(b *batch) {
	var all sync.WaitGroup
	for _, p := range f.plans {
		all.Go(func() { p.cut(b) })
	}
	all.Wait()
}

// count starts counting f.parts. Their bytes and f.parts stay as they are
// until counting is done.
func (f *feeder) count() {
	var taken atomic.Int64
	const some = 8 // parts at a time
	for _, room := range f.rooms {
		f.counting.Go(func() {
			for {
				end := int(taken.Add(some))
				if end-some >= len(f.parts) {
					return
				}
				for _, p := range f.parts[end-some : min(end, len(f.parts))] {
					p.plan.count(p.bytes, room)
				}
			}
		})
	}
}

// finish counts what has been read.
func (f *feeder) finish() {
	f.turn()
	f.counting.Wait()
}
