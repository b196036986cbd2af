package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/quarxtor/quarxfs/store/db"
	"github.com/quarxtor/quarxfs/store/vertex"
	"github.com/quarxtor/quarxfs/tiering"
)

// scrubs reads all that is stored, one scrub at a time.
type scrubs struct {
	*base
	index   *index
	commits *committer
	blocks  *blocks
	bad     *badBlocks

	scrubbing sync.Mutex
}

// ScrubOptions say how a scrub goes about.
type ScrubOptions struct {
	Rate     int64          // most bytes read a second; 0: no limit
	Restart  bool           // do not go on where an interrupted one stopped
	Progress func(Scrubbed) // if set, called now and then
}

// A Scrubbed says what a scrub found, or has found so far.
type Scrubbed struct {
	Started  time.Time `json:"started"`
	Finished time.Time `json:"finished,omitzero"`
	Resumed  bool      `json:"resumed"` // it went on where an interrupted one stopped
	Blocks   int64     `json:"blocks"`
	Bytes    int64     `json:"stored_bytes"` // read
	Total    int64     `json:"total_bytes"`  // to be read, as far as is known
	Bad      int64     `json:"bad_blocks"`   // found and not healed
	Healed   int64     `json:"healed_blocks"`
	Hidden   int64     `json:"unreachable_blocks,omitempty"` // in a cold tier that could not be reached
	// Segments says what besides blocks is damaged. No bytes are lost by that.
	Segments []string `json:"damaged_segments,omitempty"`
}

// A scrubCursor is the row of the scrub that runs, was interrupted or ended
// last.
type scrubCursor struct {
	Scrubbed
	Next uint64 `json:"next_segment"`
}

// saveEvery is how often a scrub notes how far it came.
const saveEvery = 2 * time.Second

// Scrub reads every block from the disk and checks it (I2, I6), beside all other
// work, in the order of segments. What cannot be read is marked as bad, and written
// anew at once if its bytes are in memory. An interrupted scrub is gone on
// with by the next. Bad blocks are no error; ErrLocked: another one is under way.
func (sc *scrubs) Scrub(ctx context.Context, o ScrubOptions) (Scrubbed, error) {
	if !sc.scrubbing.TryLock() {
		return Scrubbed{}, fmt.Errorf("a scrub is under way: %w", ErrLocked)
	}
	defer sc.scrubbing.Unlock()
	c := scrubber{s: sc, o: o, pace: newPacer(o.Rate), saved: time.Now()}
	err := c.run(ctx)
	if err != nil {
		err = fmt.Errorf("scrub: %w", err)
	}
	return c.cursor.Scrubbed, err
}

func (ix *index) loadCursor(c *scrubCursor) (ok bool, err error) {
	b, err := ix.db.Get([]byte{keyScrub})
	if errors.Is(err, db.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := json.Unmarshal(b, c); err != nil {
		return false, fmt.Errorf("row of the last scrub: %w: %w", ErrCorrupt, err)
	}
	return true, nil
}

type scrubber struct {
	s      *scrubs
	o      ScrubOptions
	pace   *pacer
	cursor scrubCursor
	saved  time.Time
	shown  time.Time
}

func (c *scrubber) run(ctx context.Context) error {
	// A row that cannot be read must not keep the store from being checked.
	ok, err := c.s.index.loadCursor(&c.cursor)
	if err != nil && !errors.Is(err, ErrCorrupt) {
		return err
	}
	if !ok || c.o.Restart || !c.cursor.Finished.IsZero() {
		c.cursor = scrubCursor{Scrubbed: Scrubbed{Started: c.s.now()}}
	} else {
		c.cursor.Resumed = true
	}
	segments := c.s.tiers.Segments()
	if err := c.estimate(segments); err != nil {
		return err
	}
	complete := make(map[uint64]bool) // segments whose list of records has all that is live
	for _, seg := range segments {
		if seg.Number < c.cursor.Next {
			complete[seg.Number] = true
			continue
		}
		if complete[seg.Number], err = c.segment(ctx, seg.Number); err != nil {
			return errors.Join(err, c.save())
		}
		c.cursor.Next = seg.Number + 1
		if err := c.saveNowAndThen(); err != nil {
			return err
		}
	}
	if err := c.others(ctx, complete); err != nil {
		return err
	}
	c.cursor.Finished = c.s.now()
	c.show(true)
	if err := c.save(); err != nil {
		return err
	}
	return c.s.commits.Commit()
}

// estimate sums up what is still to be read.
func (c *scrubber) estimate(segments []tiering.SegmentInfo) error {
	c.cursor.Total = c.cursor.Bytes
	for _, seg := range segments {
		if seg.Number < c.cursor.Next {
			continue
		}
		live, err := c.s.index.liveBytes(seg.Number)
		if err != nil {
			return err
		}
		c.cursor.Total += live
	}
	return nil
}

// segment checks the live records that a segment lists, and reports whether the
// index knows of no more.
func (c *scrubber) segment(ctx context.Context, number uint64) (whole bool, err error) {
	records, err := c.s.tiers.Records(number)
	if errors.Is(err, tiering.ErrNotFound) {
		return true, nil // swept meanwhile
	}
	if errors.Is(err, ErrUnavailable) {
		return false, nil // its blocks are counted with others that no list led to
	}
	if err != nil {
		c.cursor.Segments = append(c.cursor.Segments, err.Error())
		c.s.log.Error("damaged segment", "segment", segmentName(number), "err", err)
	}
	seen := int64(0)
	for _, r := range records {
		e, err := c.s.index.Lookup(r.ID)
		if errors.Is(err, ErrNotFound) || err == nil && e.Loc != r.Location {
			continue
		}
		if err != nil {
			return false, err
		}
		if err := c.block(ctx, r.ID, e); err != nil {
			return false, err
		}
		seen += e.Stored()
	}
	// Less than what is live was listed: the rest is found by rows, in others.
	live, err := c.s.index.liveBytes(number)
	return seen >= live, err
}

// others checks the blocks that no list of records led to: the lists are damaged,
// or segments are missing.
func (c *scrubber) others(ctx context.Context, complete map[uint64]bool) error {
	known := make(map[tiering.Location]bool)
	for number, whole := range complete {
		if whole {
			continue
		}
		records, _ := c.s.tiers.Records(number) // its error has been told
		for _, r := range records {
			known[r.Location] = true
		}
	}
	return c.s.db.ScanPrefix([]byte{keyBlock}, func(key, value []byte) error {
		id, e, err := decodeBlockRow(key, value)
		if err != nil {
			c.cursor.Segments = append(c.cursor.Segments, err.Error())
			return nil
		}
		if complete[e.Loc.Segment] || known[e.Loc] {
			return nil
		}
		// The scan sees rows as they were when it began.
		now, err := c.s.index.Lookup(id)
		if err != nil || now.Loc != e.Loc {
			return nil // it has moved since
		}
		return c.block(ctx, id, e)
	})
}

// block checks one block.
func (c *scrubber) block(ctx context.Context, id ID, e Entry) error {
	kind := e.Kind
	err := c.s.blocks.verify(id, e)
	if err != nil {
		// It may have moved, or gone, since it was looked up.
		now, lookErr := c.s.index.Lookup(id)
		if lookErr != nil {
			return nil
		}
		if now.Loc != e.Loc {
			kind, err = now.Kind, c.s.blocks.verify(id, now)
		}
	}
	switch {
	case err == nil:
		// It reads now: what was marked may have been a cable or a controller.
		c.s.bad.clear(id)
	case errors.Is(err, ErrUnavailable):
		c.cursor.Hidden++
	case c.healFromRAM(kind, id):
		c.cursor.Healed++
	default:
		c.cursor.Bad++
		c.s.bad.mark(id, err)
	}
	c.cursor.Blocks++
	c.cursor.Bytes += e.Stored()
	c.cursor.Total = max(c.cursor.Total, c.cursor.Bytes)
	c.show(false)
	return c.pace.wait(ctx, e.Stored())
}

// verify reads a block past the cache.
func (bs *blocks) verify(id ID, e Entry) error {
	h, _, err := bs.tiers.Read(e.Loc)
	if err == nil && (h.ID != id || h.Kind != e.Kind) {
		err = fmt.Errorf("the record at %s, offset %d is %s %s: %w", segmentName(e.Loc.Segment), e.Loc.Offset, h.Kind, ID(h.ID).Short(), ErrCorrupt)
	}
	return err
}

func (c *scrubber) healFromRAM(kind tiering.Kind, id ID) bool {
	plain, ok := c.s.tiers.Cached(id)
	if !ok {
		return false
	}
	if err := c.s.blocks.restore(block{kind: kind, id: id, plain: plain}); err != nil {
		c.s.log.Error("a bad block could not be written anew", "block", id, "err", err)
		return false
	}
	return true
}

// show tells how far the scrub is, a few times a second.
func (c *scrubber) show(now bool) {
	if c.o.Progress == nil || !now && time.Since(c.shown) < 200*time.Millisecond {
		return
	}
	c.shown = time.Now()
	c.o.Progress(c.cursor.Scrubbed)
}

func (c *scrubber) saveNowAndThen() error {
	if time.Since(c.saved) < saveEvery {
		return nil
	}
	c.saved = time.Now()
	return c.save()
}

// save notes how far the scrub is; the next commit makes it durable.
func (c *scrubber) save() error {
	b, err := json.Marshal(c.cursor)
	if err != nil {
		return err
	}
	return c.s.commits.Update(func() error { c.s.db.Set([]byte{keyScrub}, b); return nil })
}

// ObjectsHolding calls fn for the names of all objects that have one of the
// chosen blocks in them, at any depth.
func (ob *objectStore) ObjectsHolding(ctx context.Context, chosen func(ID) bool, fn func(name string, block ID) error) error {
	h := holding{s: ob, ctx: ctx, chosen: chosen, free: make(map[ID]bool)}
	return ob.index.Objects(ctx, "", func(o ObjectInfo) error {
		var found []ID
		if err := h.walk(o.ID, &found); err != nil {
			return err
		}
		for _, id := range found {
			if err := fn(o.Name, id); err != nil {
				return err
			}
		}
		return nil
	})
}

type holding struct {
	s      *objectStore
	ctx    context.Context
	chosen func(ID) bool
	free   map[ID]bool // vertices with no chosen block below
}

func (h *holding) walk(id ID, found *[]ID) error {
	if err := h.ctx.Err(); err != nil {
		return err
	}
	if h.chosen(id) {
		*found = append(*found, id)
	}
	if h.free[id] {
		return nil
	}
	e, err := h.s.index.Lookup(id)
	if err != nil || e.Kind == tiering.Data {
		return nil // what is missing is chosen or not, and has nothing below
	}
	plain, err := h.s.blocks.Get(h.ctx, id)
	if err != nil {
		return h.ctx.Err()
	}
	links, err := vertex.Links(plain)
	if err != nil {
		return nil
	}
	before := len(*found)
	for _, child := range links {
		if err := h.walk(child, found); err != nil {
			return err
		}
	}
	if len(*found) == before {
		// Only of vertices without any: shared ones are met once for each object, and that is most
		// of the work.
		h.free[id] = true
	}
	return nil
}
