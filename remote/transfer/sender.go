package transfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/store"
)

const (
	batchBlocks   = 32              // data blocks in a request
	maxBatches    = 8192            // requests that the walk may be ahead: 16 MiB of IDs
	chunkSize     = remote.MaxBatch // vertices that are looked at, and asked for, together
	maxChunks     = 64              // of these, waiting for the blocks below them
	keepVertices  = 64 << 20        // bytes of vertices that are kept from the walk until they are sent
	maxSent       = 1 << 20         // IDs that are known to be under way
	maxLevels     = 1 << 16         // levels of a graph; a directory may be very deep
	vertexBatch   = 128             // vertices in a request
	vertexStreams = 16

	joinedVertices = 512 // of several chunks in a request
	leastStreams   = 4
)

// streamsFor says how many streams a round trip needs: on a long way a lost packet
// costs its connection more time.
func streamsFor(trip time.Duration) int {
	return int(min(remote.MaxStreams, max(leastStreams, trip/(4*time.Millisecond))))
}

// A sender is one try of a transfer. A walker goes down the source's graph and
// asks the destination what it lacks. Data blocks go out in batches, several at a time. A
// vertex goes when all below it has arrived: the sequencer waits for the batches
// that were sent before it. (I5)
type sender struct {
	t        *Transfer
	c        *counters
	leases   *leasePair
	sent     map[store.ID]struct{}
	batch    []store.ID
	pending  []*batch // since the last chunk
	batches  chan *batch
	sequence chan step
	kept     atomic.Int64 // bytes of vertices in memory
}

// A batch is data blocks that are sent in one request.
type batch struct {
	ids     []store.ID
	arrived chan struct{}
}

// A step is what happens after some batches have arrived: vertices are sent, or a
// snapshot gets its name.
type step struct {
	after    []*batch
	chunk    []vertex
	snapshot *SnapshotRef
}

// A vertex is one that the destination lacks.
type vertex struct {
	id     store.ID
	record *store.Record // nil: to be read again
}

func newSender(t *Transfer, leases *leasePair, c *counters) *sender {
	return &sender{
		t: t, c: c, leases: leases, sent: make(map[store.ID]struct{}),
		batches: make(chan *batch, maxBatches), sequence: make(chan step, maxChunks),
	}
}

func (s *sender) run(ctx context.Context) error {
	begun := time.Now()
	roots := make([]store.ID, len(s.t.Snapshots))
	for i, snapshot := range s.t.Snapshots {
		roots[i] = snapshot.ID
	}
	// One question for all; how long it takes also says how many streams the way needs.
	missing, err := s.ask(ctx, append(roots, s.t.Base...))
	if err != nil {
		return err
	}
	lacks := make(map[store.ID]bool, len(missing))
	for _, id := range missing {
		lacks[id] = true
	}
	streams := s.t.Streams
	if streams <= 0 {
		streams = streamsFor(time.Since(begun))
	}
	// From here on the first error ends all: workers, sequencer and walk.
	g, ctx := errgroup.WithContext(ctx)
	for range streams {
		g.Go(func() error { return s.sendWorker(ctx) })
	}
	g.Go(func() error { return s.sendInOrder(ctx) })
	g.Go(func() error {
		// Deferred calls run in reverse: batches end first, and the sequencer waits for those it
		// needs.
		defer close(s.sequence)
		defer close(s.batches)
		// Only a base that the destination has saves questions.
		base := slices.DeleteFunc(slices.Clone(s.t.Base), func(id store.ID) bool { return lacks[id] })
		for i := range s.t.Snapshots {
			if lacks[roots[i]] {
				if err := s.walk(ctx, roots[i:i+1], base, 0); err != nil {
					return err
				}
			}
			// The snapshot just sent is the best base for the next one.
			if len(s.t.Base) > 0 {
				base = roots[i : i+1]
			}
			// In the queue behind its vertices, so its name comes when all of it is there.
			if err := s.enqueue(ctx, step{snapshot: &s.t.Snapshots[i]}); err != nil {
				return err
			}
		}
		return nil
	})
	return g.Wait()
}

// ask returns those of ids that the destination lacks, and has the lease keep the
// others.
func (s *sender) ask(ctx context.Context, ids []store.ID) (missing []store.ID, err error) {
	for len(ids) > 0 {
		n := min(len(ids), remote.MaxBatch)
		has, err := s.t.To.Keep(ctx, s.leases.to, ids[:n])
		if err != nil {
			return nil, err
		}
		for i, ok := range has {
			if !ok {
				missing = append(missing, ids[i])
			}
		}
		// Counted up at once and corrected below, so that progress moves with each answer.
		s.c.skipped.Add(int64(n))
		ids = ids[n:]
	}
	s.c.skipped.Add(int64(-len(missing)))
	s.c.found.Add(int64(len(missing)))
	return missing, nil
}

// walk sends what is below vertices that the destination lacks, and then these. base
// are vertices of about the same level that it has: what they link to needs no
// question. Below, those of their links take their place that are not in the new
// vertices too, so that the base is looked at where something has changed and
// nowhere else.
func (s *sender) walk(ctx context.Context, ids, base []store.ID, depth int) error {
	if depth > maxLevels {
		return fmt.Errorf("a graph of more than %d levels: %w", maxLevels, store.ErrCorrupt)
	}
	// One level of the base beside one of the new graph: they have the same shape where nothing
	// changed.
	known, err := s.openBase(ctx, base)
	if err != nil {
		return err
	}
	for len(ids) > 0 {
		n := min(len(ids), chunkSize)
		chunk := s.unsent(ids[:n])
		ids = ids[n:]
		vertices, links, err := s.open(ctx, chunk)
		if err != nil {
			return err
		}
		kinds := make(map[store.ID]store.Kind, len(links))
		var unknown []store.ID
		common := make(map[store.ID]bool)
		for _, l := range links {
			if _, ok := known[l.ID]; ok {
				common[l.ID] = true
				continue
			}
			// Asked about in this chunk, or on its way: the sequencer sends it before what links to
			// it.
			if _, ok := kinds[l.ID]; ok || s.isSent(l.ID) {
				continue
			}
			kinds[l.ID] = l.Kind
			unknown = append(unknown, l.ID)
		}
		var baseBelow []store.ID
		for id, kind := range known {
			// What both have in common did not change, so that nothing below it can be new.
			if kind != store.KindData && !common[id] {
				baseBelow = append(baseBelow, id)
			}
		}
		missing, err := s.ask(ctx, unknown)
		if err != nil {
			return err
		}
		var below []store.ID
		for _, id := range missing {
			if kinds[id] != store.KindData {
				below = append(below, id)
			} else if err := s.send(ctx, id); err != nil {
				return err
			}
		}
		// Depth first, and the chunk itself last: a vertex may be stored only when all that it
		// links to is. (I5)
		if err := s.walk(ctx, below, baseBelow, depth+1); err != nil {
			return err
		}
		if err := s.enqueue(ctx, step{chunk: vertices}); err != nil {
			return err
		}
	}
	return nil
}

// open reads vertices of the source and returns what they link to.
func (s *sender) open(ctx context.Context, ids []store.ID) (vertices []vertex, links []graph.Link, err error) {
	vertices = make([]vertex, 0, len(ids))
	err = s.t.From.Records(ctx, ids, func(r store.Record) error {
		plain, err := store.Unpack(&r)
		if err != nil {
			return err
		}
		more, err := graph.Links(r.Kind, plain)
		if err != nil {
			return fmt.Errorf("block %s: %w", store.ID(r.ID).Short(), err)
		}
		links = append(links, more...)
		v := vertex{id: r.ID}
		// Beyond the bound it is read again when its turn comes; the payload is the source's until
		// this returns.
		if n := int64(len(r.Payload)); s.kept.Add(n) > keepVertices {
			s.kept.Add(-n)
		} else {
			r.Payload = bytes.Clone(r.Payload)
			v.record = &r
		}
		vertices = append(vertices, v)
		return nil
	})
	return vertices, links, sourceError(err)
}

// openBase returns what vertices that both sides have link to. Beyond a chunk they
// are left out, which costs questions.
func (s *sender) openBase(ctx context.Context, ids []store.ID) (map[store.ID]store.Kind, error) {
	known := make(map[store.ID]store.Kind)
	// From the source: it has the base as well, and on a push that costs no round trip.
	err := s.t.From.Records(ctx, ids[:min(len(ids), chunkSize)], func(r store.Record) error {
		plain, err := store.Unpack(&r)
		if err != nil {
			return err
		}
		links, err := graph.Links(r.Kind, plain)
		for _, l := range links {
			known[l.ID] = l.Kind
		}
		return err
	})
	return known, sourceError(err)
}

// sourceError marks what another try cannot mend.
func sourceError(err error) error {
	if _, ok := errors.AsType[*destinationError](err); ok {
		return err
	}
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrCorrupt) {
		return fmt.Errorf("%w: %w", errSource, err)
	}
	return err
}

func (s *sender) isSent(id store.ID) bool { _, ok := s.sent[id]; return ok }

func (s *sender) unsent(ids []store.ID) []store.ID {
	left := make([]store.ID, 0, len(ids))
	for _, id := range ids {
		if !s.isSent(id) {
			left = append(left, id)
		}
	}
	return left
}

// mark notes that a block is under way. What is forgotten may travel twice, which
// does no harm.
func (s *sender) mark(id store.ID) {
	if len(s.sent) >= maxSent {
		clear(s.sent)
	}
	s.sent[id] = struct{}{}
}

// send puts a data block into the next batch.
func (s *sender) send(ctx context.Context, id store.ID) error {
	s.mark(id)
	if s.batch = append(s.batch, id); len(s.batch) < batchBlocks {
		return nil
	}
	return s.close(ctx)
}

// close hands the batch on.
func (s *sender) close(ctx context.Context) error {
	if len(s.batch) == 0 {
		return nil
	}
	p := &batch{s.batch, make(chan struct{})}
	s.batch = nil
	s.pending = append(s.pending, p)
	select {
	case s.batches <- p:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// enqueue has a step happen when all batches before it have arrived.
func (s *sender) enqueue(ctx context.Context, next step) error {
	if err := s.close(ctx); err != nil {
		return err
	}
	// A vertex may have been met by two ways before either was sent.
	fresh := next.chunk[:0]
	for _, v := range next.chunk {
		if !s.isSent(v.id) {
			s.mark(v.id)
			fresh = append(fresh, v)
		} else {
			s.drop(v)
		}
	}
	next.chunk, next.after, s.pending = fresh, s.pending, nil
	select {
	case s.sequence <- next:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// drop forgets a vertex's bytes.
func (s *sender) drop(v vertex) {
	if v.record != nil {
		s.kept.Add(int64(-len(v.record.Payload)))
	}
}

// sendWorker sends batches.
func (s *sender) sendWorker(ctx context.Context) error {
	for p := range s.batches {
		if err := s.transfer(ctx, p.ids); err != nil {
			return err
		}
		close(p.arrived)
	}
	return nil
}

func (s *sender) transfer(ctx context.Context, ids []store.ID) error {
	return s.t.To.PutRecords(ctx, s.leases.to, func(put func(store.Record) error) error {
		// Only what the source says: counted has marked the destination's errors as such.
		return sourceError(s.t.From.Records(ctx, ids, s.counted(put)))
	})
}

func (s *sender) counted(put func(store.Record) error) func(store.Record) error {
	return func(r store.Record) error {
		n := int64(len(r.Payload))
		err := put(r)
		if err == nil {
			s.c.blocks.Add(1)
			s.c.bytes.Add(remote.RecordHeader + n)
		} else if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrCorrupt) {
			err = &destinationError{err}
		}
		return err
	}
}

// A destinationError is no error of the source, in which it comes wrapped.
type destinationError struct{ err error }

func (e *destinationError) Error() string { return e.err.Error() }
func (e *destinationError) Unwrap() error { return e.err }

// sendInOrder does one step after the other. Chunks that are ready together and small, as
// those of the upper levels are, share a stream: each would cost a round trip.
func (s *sender) sendInOrder(ctx context.Context) error {
	var small []vertex
	flush := func() error {
		err := s.sendVertices(ctx, small)
		s.dropAll(small)
		small = nil
		return err
	}
	for next := range s.sequence {
		// What has gathered goes out before this waits, so that the way is not idle meanwhile.
		if len(small) > 0 && (!next.ready() || len(small)+len(next.chunk) > joinedVertices) {
			if err := flush(); err != nil {
				return err
			}
		}
		// I5: blocks first. A batch that failed ends ctx, so that this does not wait for it.
		for _, p := range next.after {
			select {
			case <-p.arrived:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if len(next.chunk) > joinedVertices {
			if err := s.sendChunk(ctx, next.chunk); err != nil {
				return err
			}
			s.dropAll(next.chunk)
		} else {
			small = append(small, next.chunk...)
		}
		// A snapshot is named when all of it is there; an empty queue has nothing to wait for.
		if len(small) > 0 && (next.snapshot != nil || len(s.sequence) == 0) {
			if err := flush(); err != nil {
				return err
			}
		}
		if next.snapshot == nil {
			continue
		}
		// Last of all: whoever sees the name may read the whole snapshot.
		if err := s.t.To.LinkSnapshot(ctx, next.snapshot.Name, next.snapshot.ID); err != nil {
			return err
		}
		s.c.snapshots.Add(1)
		if s.t.Arrived != nil {
			s.t.Arrived(*next.snapshot)
		}
	}
	return nil
}

// ready tells whether all batches before a step have arrived.
func (n *step) ready() bool {
	for _, p := range n.after {
		select {
		case <-p.arrived:
		default:
			return false
		}
	}
	return true
}

func (s *sender) dropAll(list []vertex) {
	for _, v := range list {
		s.drop(v)
	}
}

// sendChunk sends a chunk, several batches at a time: no vertex of a chunk that is sent with
// it links to another, or it would have been sent from further down.
func (s *sender) sendChunk(ctx context.Context, chunk []vertex) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(vertexStreams)
	for part := range slices.Chunk(chunk, vertexBatch) {
		g.Go(func() error { return s.sendVertices(ctx, part) })
	}
	return g.Wait()
}

// sendVertices sends vertices in one stream.
func (s *sender) sendVertices(ctx context.Context, chunk []vertex) error {
	return s.t.To.PutRecords(ctx, s.leases.to, func(put func(store.Record) error) error {
		put = s.counted(put)
		for len(chunk) > 0 {
			n := 0
			// Those that memory had no room for are read again, as many as follow each other at
			// once.
			for n < len(chunk) && chunk[n].record == nil {
				n++
			}
			if n == 0 {
				if err := put(*chunk[0].record); err != nil {
					return err
				}
				n = 1
			} else {
				again := make([]store.ID, n)
				for i := range again {
					again[i] = chunk[i].id
				}
				if err := sourceError(s.t.From.Records(ctx, again, put)); err != nil {
					return err
				}
			}
			chunk = chunk[n:]
		}
		return nil
	})
}
