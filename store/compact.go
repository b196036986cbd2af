package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/quarxtor/quarxfs/store/db"
	"github.com/quarxtor/quarxfs/store/routine"
	"github.com/quarxtor/quarxfs/tiering"
)

// A relocator copies the records of blocks: out of segments with little in use, and between tiers.
type relocator struct {
	*base
	index    *index
	commits  *committer
	appender *appender
	blocks   *blocks
	sweeper  *sweeper

	optimizing sync.Mutex

	arrived [2]struct{ blocks, bytes atomic.Uint64 } // by tier: what moves brought
}

// CompactOptions say what a compaction does; zero values mean the defaults
// given.
type CompactOptions struct {
	// MinLive is the share of a segment's payload that must be in use for the
	// segment to be left alone, above 0 and up to 0.95; 0.5.
	MinLive float64
	// Rate limits the bytes copied a second; none.
	Rate int64
	// All has the segment that is being written looked at as well, and the
	// database give back what its deleted rows take.
	All bool
	// Progress, if set, is called now and then.
	Progress func(Compacted)

	seal   bool        // have the segment that is being written looked at, as All does
	enough func() bool // if set, ends the compaction after a segment
}

// maxMinLive leaves room for a segment's own header and footer: one that is full
// of live records must not be copied again and again.
const maxMinLive = 0.95

// A Compacted says what a compaction did, or has done so far.
type Compacted struct {
	Blocks       int64 `json:"blocks"`         // copied
	Copied       int64 `json:"copied_bytes"`   // of their records
	Segments     int64 `json:"segments"`       // removed
	SegmentBytes int64 `json:"segment_bytes"`  // of the files removed
	Todo         int64 `json:"todo_bytes"`     // of records still to be copied
	Unreadable   int64 `json:"unreadable"`     // blocks that cannot be copied, and keep their segments
	Database     int64 `json:"database_bytes"` // that the database gave back
	NoRoom       bool  `json:"no_room"`        // more could be given back with more room for copies
}

// A relocation says that a copy of a block's record is to be used from now on,
// unless the block has gone elsewhere meanwhile.
type relocation struct {
	from        tiering.Location
	to          location
	restores    bool   // the record at from is bad
	placeholder *Entry // what the block is, if its row was a placeholder
}

// compactBatch is how many bytes are copied before their blocks are noted as
// moved; compactCommit how many before these moves are committed and the
// segments that became empty removed.
const (
	compactBatch  = 4 << 20
	compactCommit = 32 << 20
)

// Compact empties segments of which little is in use: their live records are
// copied, as they are, to the end of the same tier, and the segments removed when
// the copies are durable and committed (I1, I6). A crash at any point leaves
// every block at one place or the other. Writers go on meanwhile. Blocks that
// nothing refers to are the Sweep's; call that before. On a full disk it does what it finds room
// for, and says so. Errors: ErrConfig; those of the disk.
func (rl *relocator) Compact(ctx context.Context, o CompactOptions) (Compacted, error) {
	if rl.readOnly {
		return Compacted{}, ErrReadOnly
	}
	if o.MinLive == 0 {
		o.MinLive = 0.5
	}
	if o.MinLive < 0 || o.MinLive > maxMinLive || o.Rate < 0 {
		return Compacted{}, fmt.Errorf("compact below a live share of %v at %s a second: %w", o.MinLive, humanize.IBytes(uint64(max(0, o.Rate))), ErrConfig)
	}
	c := compactor{s: rl, o: o, pace: newPacer(o.Rate)}
	err := c.run(ctx)
	if err != nil {
		err = fmt.Errorf("compact: %w", err)
	}
	return c.sum, err
}

type compactor struct {
	s           *relocator
	o           CompactOptions
	pace        *pacer
	sum         Compacted
	uncommitted int64
	recode      *Optimized // if set, what was compressed quickly is compressed well, and counted here
}

func (c *compactor) run(ctx context.Context) error {
	// Live bytes are counted by commits; without one, what was just dropped would be copied.
	if err := c.s.commits.Commit(); err != nil {
		return err
	}
	if c.o.All || c.o.seal {
		if err := c.sealActive(ctx); err != nil {
			return err
		}
	}
	sparse, err := c.sparse() // once: segments that copies fill must not be looked at again
	if err != nil {
		return err
	}
	if err := c.emptyAll(ctx, sparse); err != nil {
		return err
	}
	if err := c.commitMoves(); err != nil {
		return err
	}
	if !c.o.All {
		return nil
	}
	c.sum.Database, err = c.compactDB()
	return err
}

// emptyAll copies what is live in the segments, in this order.
func (c *compactor) emptyAll(ctx context.Context, list []sparseSegment) error {
	for _, seg := range list {
		c.sum.Todo += seg.live
	}
	for _, seg := range list {
		// Reckoned before, since copying counts down what it copies and not what it finds dead.
		left := c.sum.Todo - seg.live
		err := c.empty(ctx, seg.number)
		if errors.Is(err, ErrFull) || isFull(err) {
			c.sum.NoRoom = true // the segments to come need as much, or more
			break
		}
		if err != nil && !errors.Is(err, ErrUnavailable) { // later, when it is there again
			return err
		}
		c.sum.Todo = left
		// Only a committed move frees anything that enough could see.
		if c.o.enough == nil {
			continue
		}
		if err := c.commitMoves(); err != nil {
			return err
		}
		if c.o.enough() {
			return nil
		}
	}
	return nil
}

// compactDB compacts the database if there is room for another one beside it.
func (c *compactor) compactDB() (freed int64, err error) {
	freed, err = c.s.db.Compact()
	if errors.Is(err, ErrFull) {
		c.sum.NoRoom, err = true, nil
	}
	return freed, err
}

// sealActive makes the segments that are being written ones that can be emptied,
// if they should be.
func (c *compactor) sealActive(ctx context.Context) error {
	for _, tier := range []uint8{tiering.Hot, tiering.Cold} {
		number, ok := c.s.tiers.Active(tier)
		if !ok {
			continue
		}
		if err := c.sealSparse(ctx, number); err != nil {
			return err
		}
	}
	return nil
}

func (c *compactor) sealSparse(ctx context.Context, number uint64) error {
	for _, seg := range c.s.tiers.Segments() {
		if seg.Number != number {
			continue
		}
		live, err := c.s.index.liveBytes(number)
		if err != nil {
			return err
		}
		// Sealing has a cost: the next append opens another file.
		if float64(live) >= c.o.MinLive*float64(seg.Payload()) {
			return nil
		}
		return c.s.tiers.Seal(ctx, number)
	}
	return nil
}

type sparseSegment struct {
	number uint64
	live   int64
}

// sparse returns the segments to be emptied, the emptiest first: they give back
// most for what is copied.
func (c *compactor) sparse() ([]sparseSegment, error) {
	var list []sparseSegment
	for _, seg := range c.s.tiers.Segments() {
		if !seg.Sealed {
			continue
		}
		live, err := c.s.index.liveBytes(seg.Number)
		if err != nil {
			return nil, err
		}
		if live > 0 && float64(live) < c.o.MinLive*float64(seg.Payload()) {
			list = append(list, sparseSegment{seg.Number, live})
		}
	}
	slices.SortFunc(list, func(a, b sparseSegment) int { return cmp.Compare(a.live, b.live) })
	return list, nil
}

// liveBytes returns how much of a segment the index points at, as of the last
// commit.
func (ix *index) liveBytes(number uint64) (int64, error) {
	b, err := ix.db.Get(segmentKey(number))
	if errors.Is(err, db.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	row, err := decodeSegmentRow(b)
	return row.Live, err
}

// empty copies what is live in a segment.
func (c *compactor) empty(ctx context.Context, number uint64) error {
	records, err := c.s.tiers.Records(number)
	if errors.Is(err, tiering.ErrNotFound) {
		return nil // the sweep was faster
	}
	// With a damaged list come the records that are whole; what is not listed keeps the segment.
	if err != nil && !errors.Is(err, tiering.ErrCorrupt) {
		return err
	}
	for len(records) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		var batch []tiering.Placed
		batch, records, err = c.batch(records)
		if err != nil {
			return err
		}
		n, err := c.copy(batch)
		if err != nil {
			return err
		}
		if c.uncommitted += n; c.uncommitted >= compactCommit {
			if err := c.commitMoves(); err != nil {
				return err
			}
		}
		c.sum.Todo = max(0, c.sum.Todo-n)
		if c.o.Progress != nil {
			c.o.Progress(c.sum)
		}
		if err := c.pace.wait(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

// batch takes the next live records off a segment's list.
func (c *compactor) batch(records []tiering.Placed) (batch, rest []tiering.Placed, err error) {
	size := int64(0)
	for i, r := range records {
		e, err := c.s.index.Lookup(r.ID)
		// Dead, or a copy of what lives elsewhere.
		if errors.Is(err, ErrNotFound) || err == nil && e.Loc != r.Location {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		batch = append(batch, r)
		if size += e.Stored(); size >= compactBatch {
			return batch, records[i+1:], nil
		}
	}
	return batch, nil, nil
}

// copy appends the records anew and notes their blocks as moved.
func (c *compactor) copy(batch []tiering.Placed) (copied int64, err error) {
	s := c.s
	if len(batch) == 0 {
		return 0, nil
	}
	for _, r := range batch {
		copied += int64(r.Location.Length)
	}
	tier := batch[0].Tier // they are of one segment
	if tier == tiering.Hot {
		if err := s.roomToCopy(copied); err != nil {
			return 0, err
		}
	}
	// A segment with copies that are not yet noted would seem empty.
	s.sweeper.maintenance[tier].Lock()
	defer s.sweeper.maintenance[tier].Unlock()
	moves := make([]move, 0, len(batch))
	for _, r := range batch {
		rec, err := c.record(r)
		if errors.Is(err, tiering.ErrCorrupt) || err == nil && rec.ID != r.ID {
			c.sum.Unreadable++
			s.log.Debug("a block that cannot be read keeps its segment", "block", ID(r.ID), "err", err)
			continue
		}
		if err != nil {
			return copied, err
		}
		loc, err := s.tiers.AppendTo(tier, rec)
		if err != nil {
			return copied, err
		}
		moves = append(moves, move{r.ID, relocation{from: r.Location, to: location{loc, rec.Codec}}})
		if c.recode != nil && rec.Codec != r.Codec {
			c.recode.Blocks++
			c.recode.From += int64(r.Location.Length)
			c.recode.To += int64(loc.Length)
		}
	}
	if tier == tiering.Cold {
		if err := s.tiers.SyncCold(); err != nil { // no commit does it (I1)
			return copied, err
		}
	}
	noted, err := s.commits.relocate(moves)
	c.sum.Blocks += noted
	c.sum.Copied += copied
	return copied, err
}

// record returns a block's record as it is to be appended.
func (c *compactor) record(r tiering.Placed) (tiering.Record, error) {
	if c.recode != nil {
		return c.s.recoded(r.Location)
	}
	// As it is stored, without decompressing; its checksum is seen to, its ID at the next read.
	return c.s.tiers.Stored(r.Location)
}

// roomToCopy lets copies use some of the room that is kept from users, and the ballast, since they
// are made to gain more. The rest is for commits.
func (rl *relocator) roomToCopy(n int64) error {
	err := rl.db.Admit(n)
	if !errors.Is(err, ErrFull) {
		return err
	}
	if rl.db.GiveRoom(n) {
		return nil
	}
	return err
}

// commitMoves commits the moves and removes the segments that they emptied.
func (c *compactor) commitMoves() error {
	c.uncommitted = 0
	var swept Swept
	err := c.s.sweeper.removeEmptySegments(&swept)
	c.sum.Segments += swept.Segments
	c.sum.SegmentBytes += swept.SegmentBytes
	return err
}

// A move is the relocation of one block.
type move struct {
	id ID
	relocation
}

// relocate notes moves for the next commit. A block that has changed otherwise,
// has been swept or has moved by now stays as it is; its copy is waste.
func (cm *committer) relocate(moves []move) (noted int64, err error) {
	cm.commitMu.Lock()
	defer cm.commitMu.Unlock()
	// Only a commit moves a block: under commitMu rows can be read ahead of the lock of Put.
	here := make([]bool, len(moves))
	for i, m := range moves {
		e, err := cm.index.Lookup(m.id)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return 0, err
		}
		here[i] = err == nil && e.Loc == m.from
	}
	cm.updateLock.RLock()
	defer cm.updateLock.RUnlock()
	cm.pending.mu.Lock()
	defer cm.pending.mu.Unlock()
	for i, m := range moves {
		// Both sides of a cut: a change that is frozen is not yet in the row that was read above.
		c, f := cm.pending.changes[m.id], cm.frozen[m.id]
		if !here[i] || !c.settled() || !f.settled() {
			continue
		}
		c.move = &moves[i].relocation
		cm.pending.changes[m.id] = c
		// As with a new block: the segment must not seem empty until the row says where it is.
		cm.pending.fresh[m.to.loc.Segment]++
		noted++
	}
	return noted, nil
}

// relocate changes a row's location, if it is the one that was copied.
func (r *resolver) relocate(id ID, e *Entry, m *relocation) error {
	if m == nil || e.Loc != m.from {
		return nil
	}
	// The old segment loses, the new one gains, in one transaction.
	if err := r.segment(e.Loc, 0, -e.Stored()); err != nil {
		return err
	}
	e.Loc, e.Codec = m.to.loc, m.to.codec
	if m.placeholder != nil {
		e.Kind, e.Raw, e.Entropy = m.placeholder.Kind, m.placeholder.Raw, m.placeholder.Entropy
	}
	if m.restores {
		r.s.bad.clear(id)
	}
	return r.segment(e.Loc, e.Stored(), e.Stored())
}

// maintain sweeps and compacts now and then, beside the commits.
func (s *Store) maintain(ctx context.Context) {
	defer s.life.stopped.Done()
	if s.opts.SweepInterval <= 0 {
		return
	}
	// What the last opening left is taken soon: this one may be short as well.
	every := s.opts.SweepInterval
	routine.Each(ctx, min(every, firstSweep), every, nil, func() {
		_, err := s.Sweep(ctx)
		if err == nil {
			var c Compacted
			// After the sweep, which is what makes segments sparse.
			c, err = s.Compact(ctx, CompactOptions{Rate: maintainRate})
			if c.Segments > 0 {
				s.log.LogAttrs(ctx, slog.LevelDebug, "compacted", slog.Int64("segments", c.Segments), slog.Int64("copied", c.Copied))
			}
		}
		if err != nil && ctx.Err() == nil {
			s.log.Error("sweep failed", "err", err)
		}
	})
}

// firstSweep is how long after opening the first sweep comes.
const firstSweep = 5 * time.Second

// maintainRate is how fast a compaction that nobody asked for copies, in bytes a
// second.
const maintainRate = 16 << 20

// A pacer keeps work to so many bytes a second.
type pacer struct {
	rate  int64
	start time.Time
	done  int64
}

// newPacer returns a pacer; with a rate of 0 it never waits.
func newPacer(rate int64) *pacer { return &pacer{rate: rate, start: time.Now()} }

// wait counts n bytes that were done, and returns when that is no more than the
// rate allows. The error is the context's.
func (p *pacer) wait(ctx context.Context, n int64) error {
	if p.rate <= 0 {
		return ctx.Err()
	}
	p.done += n
	// By the total since the start, so that pauses elsewhere are made up for.
	due := p.start.Add(time.Duration(float64(p.done) / float64(p.rate) * float64(time.Second)))
	pause := time.Until(due)
	if pause <= 0 {
		return ctx.Err()
	}
	return routine.Sleep(ctx, pause)
}
