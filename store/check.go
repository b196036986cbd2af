package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/quarxtor/quarxfs/store/db"
	"github.com/quarxtor/quarxfs/store/vertex"
	"github.com/quarxtor/quarxfs/tiering"
)

// CheckOptions say how thorough a check is and what the store cannot know.
type CheckOptions struct {
	// Data has every record read and hashed (I2), not only those of vertices.
	Data bool
	// Holders call ref for every reference that their rows make to a block:
	// the volume's extents. They may read the database and must not write.
	Holders []func(ctx context.Context, ref func(ID)) error
	// LostDirectory makes the vertex of a snapshot of the directory that has a tree, for a Repair.
	// ErrCorrupt, ErrNotFound: it is none, or cannot be read. nil: what is below becomes objects.
	LostDirectory func(ctx context.Context, tree ID) ([]byte, error)
}

// A Problem is a broken invariant.
type Problem struct {
	Invariant string `json:"invariant"` // as in docs/design.md, such as I4
	Subject   string `json:"subject"`
	Text      string `json:"text"`
}

func (p Problem) String() string { return p.Invariant + ": " + p.Subject + ": " + p.Text }

// maxProblems is how many problems a Report lists; the rest is counted.
const maxProblems = 1000

// A Report is what a check found.
type Report struct {
	Blocks    int64     `json:"blocks"` // vertices among them
	Vertices  int64     `json:"vertices"`
	Objects   int64     `json:"objects"`
	Snapshots int64     `json:"snapshots"`
	Segments  int64     `json:"segments"`
	Hidden    int64     `json:"unreachable_blocks"` // in a cold tier that could not be reached: their bytes were not looked at
	Count     int64     `json:"problem_count"`
	Problems  []Problem `json:"problems"`
}

func (r *Report) add(invariant, subject, format string, args ...any) {
	if r.Count++; r.Count <= maxProblems {
		r.Problems = append(r.Problems, Problem{invariant, subject, fmt.Sprintf(format, args...)})
	}
}

// checkShard is about how many blocks' references are counted at a time: 48
// bytes of memory each.
const checkShard = 4 << 20

// Check commits, and then compares all that the store keeps twice: the index
// with the segments (I1, I2, I6), reference counts with references (I4, I5), and
// the rows of sums with what they sum up. Problems are reported and not mended;
// the error is for a check that could not be finished. Writers wait while it
// runs.
func (s *Store) Check(ctx context.Context, o CheckOptions) (Report, error) {
	c := checker{s: s, o: o, segments: make(map[uint64]int64), bad: make(map[ID]bool), unreadable: make(map[ID]bool)}
	err := s.standstill(func() error { return c.run(ctx) })
	if errors.Is(err, db.ErrRemoved) || errors.Is(err, ErrDamaged) {
		// Nothing is committed any more, so what rows say means little: which files are missing or
		// cut does.
		why := err
		if err = c.files(ctx); err == nil && c.report.Count == 0 {
			c.report.add("files", s.dir.Path(), "%v", why)
		}
	}
	if err != nil {
		err = fmt.Errorf("check: %w", err)
	}
	return c.report, err
}

// standstill runs fn when all is committed and while nothing changes.
func (cm *committer) standstill(fn func() error) error {
	cm.commitMu.Lock()
	defer cm.commitMu.Unlock()
	if err := cm.flush(); err != nil {
		return err
	}
	cm.updateLock.Lock()
	defer cm.updateLock.Unlock()
	if err := cm.cut(); err != nil {
		return err
	}
	// Held until fn ends: Put does not take updateLock, and would add rows meanwhile.
	cm.pending.mu.Lock()
	defer cm.pending.mu.Unlock()
	cm.freeze() // once more: what was Put since the cut
	if err := cm.writeCut(); err != nil {
		return err
	}
	return fn()
}

type checker struct {
	s        *Store
	o        CheckOptions
	report   Report
	totals   Totals
	segments map[uint64]int64 // live bytes
	bad      map[ID]bool      // vertices that cannot be read
	cold     int64            // blocks in the cold tier
	hidden   bool             // the cold tier was out of reach

	unreadable map[ID]bool // of which it was reported
}

func (c *checker) run(ctx context.Context) error {
	steps := []func(context.Context) error{c.files, c.index, c.zeroRows, c.objectRows, c.snapshotRows, c.segmentRows, c.unsettled, c.records, c.references}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	if c.hidden {
		c.report.Hidden = c.cold
	}
	stored := c.s.totalsNow()
	c.totals.Appended = stored.Appended // nothing else says it
	if stored != c.totals {
		said, are := stored.brief(), c.totals.brief()
		if said == are {
			said, are = "other sizes, counts and entropies of the same blocks", "what is shown"
		}
		c.report.add("totals", "index", "the totals say %s, and the rows add up to %s", said, are)
	}
	return nil
}

// files looks at the files as an opening would, and at the tiers as they are now: what was opened
// before somebody took it away can still be read, and would seem to be there.
func (c *checker) files(ctx context.Context) error {
	err := c.reinspect(ctx)
	d := new(Damage)
	if err = d.add(err); isLimit(err) {
		return err // of this process, and no fault of the store
	}
	if err != nil {
		c.report.add("files", c.s.dir.Path(), "%v", err)
	}
	// Of a segment that was written to, the daemon knows better how long it was.
	written := new(Damage)
	_ = written.add(c.s.harmed()) // it is about files
	d.Files = slices.DeleteFunc(d.Files, func(f *db.FileError) bool {
		return slices.ContainsFunc(written.Files, func(w *db.FileError) bool { return w.File == f.File })
	})
	for _, f := range append(d.Files, written.Files...) {
		c.report.add("files", f.File, "%s", f.What)
	}
	cold, _ := c.s.Cold()
	faults, err := c.s.inspectBucket()
	for _, f := range faults {
		c.report.add("files", cold.Dir+"/"+f.File, "%s", f.What)
	}
	return err
}

// isLimit tells whether an error is of what this process may open or have in memory.
func isLimit(err error) bool {
	for _, no := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EINTR} {
		if errors.Is(err, no) {
			return true
		}
	}
	return false
}

// reinspect looks until two looks find the same: the database makes and removes files of its own
// while it is open, and a segment that is being sealed changes its name.
func (c *checker) reinspect(ctx context.Context) error {
	last := c.s.reinspect()
	for range reinspections {
		if last == nil {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(reinspectPause):
		}
		now := c.s.reinspect()
		if now != nil && now.Error() == last.Error() {
			break
		}
		last = now
	}
	return last
}

const (
	reinspections  = 10
	reinspectPause = 50 * time.Millisecond
)

// scan walks over all rows of one kind.
func (c *checker) scan(ctx context.Context, prefix byte, fn func(key, value []byte) error) error {
	return c.s.db.ScanPrefix([]byte{prefix}, func(key, value []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return fn(key, value)
	})
}

// index adds the rows up, and sees that a row of an unreferenced block has a
// zero row.
func (c *checker) index(ctx context.Context) error {
	return c.scan(ctx, keyBlock, func(key, value []byte) error {
		id, e, err := decodeBlockRow(key, value)
		if err != nil {
			c.report.add("row", fmt.Sprintf("%x", key), "%v", err)
			return nil
		}
		c.report.Blocks++
		if e.Kind != tiering.Data {
			c.report.Vertices++
		}
		c.totals.count(e, 1)
		if !e.isPlaceholder() { // which is in no segment
			c.segments[e.Loc.Segment] += e.Stored()
			if e.Loc.Tier == tiering.Cold {
				c.cold++
			}
		}
		_, err = c.s.db.Get(blockKey(keyZero, id))
		if isZero := err == nil; isZero != (e.Refs == 0) {
			c.report.add("I4", id.String(), "%d references, and a zero row: %v", e.Refs, isZero)
		}
		return nil
	})
}

func (c *checker) zeroRows(ctx context.Context) error {
	return c.scan(ctx, keyZero, func(key, _ []byte) error {
		id, err := idInKey(key)
		if err == nil {
			_, err = c.s.Lookup(id)
		}
		if err != nil {
			c.report.add("I4", fmt.Sprintf("%x", key), "zero row: %v", err)
		}
		return nil
	})
}

func (c *checker) objectRows(ctx context.Context) error {
	err := c.scan(ctx, keyName, func(key, value []byte) error {
		o, err := decodeObject(string(key[1:]), value)
		if err != nil {
			c.report.add("row", string(key), "%v", err)
			return nil
		}
		c.report.Objects++
		c.totals.Objects.add(o.Size, 1)
		if _, err := c.s.db.Get(objectKey(o.ID, o.Name)); err != nil {
			c.report.add("row", o.Name, "not found by its ID: %v", err)
		}
		// A vertex that is lost has no size to compare; that is one fault, not two.
		is, err := c.s.describe(o.ID)
		if errors.Is(err, ErrNotFound) || is.Size != o.Size && c.s.bad.has(o.ID) {
			err = errors.New("what it had is lost")
		}
		if err != nil {
			c.report.add("I5", o.Name, "%v", err)
		} else if is.Size != o.Size || is.Data != o.Data {
			c.report.add("row", o.Name, "says %d bytes, %d of data; the object has %d and %d", o.Size, o.Data, is.Size, is.Data)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return c.scan(ctx, keyObject, func(key, _ []byte) error {
		id, err := idInKey(key)
		if err == nil {
			var o ObjectInfo
			if o, err = c.s.named(string(key[1+len(id):])); err == nil && o.ID != id {
				err = errors.New("the name is another object's")
			}
		}
		if err != nil {
			c.report.add("row", fmt.Sprintf("%x", key), "%v", err)
		}
		return nil
	})
}

// snapshotRows sees that every snapshot's name leads to one.
func (c *checker) snapshotRows(ctx context.Context) error {
	return c.scan(ctx, keySnapshot, func(key, value []byte) error {
		r, err := decodeSnapshotRef(string(key[1:]), value)
		if err != nil {
			c.report.add("row", fmt.Sprintf("%x", key), "%v", err)
			return nil
		}
		c.report.Snapshots++
		if e, err := c.s.Lookup(r.ID); err != nil {
			c.report.add("I5", "snapshot "+r.Name, "%v", err)
		} else if e.Kind != tiering.Snapshot && !e.isPlaceholder() {
			c.report.add("I5", "snapshot "+r.Name, "it leads to a %s", e.Kind)
		}
		return nil
	})
}

func (c *checker) segmentRows(ctx context.Context) error {
	err := c.scan(ctx, keySegment, func(key, value []byte) error {
		n, row, err := decodeSegmentKeyRow(key, value)
		if err != nil {
			c.report.add("row", fmt.Sprintf("%x", key), "%v", err)
			return nil
		}
		if row.Live != c.segments[n] || row.Live > row.Written {
			c.report.add("row", segmentName(n), "says %d of %d bytes are live, the rows add up to %d", row.Live, row.Written, c.segments[n])
		}
		delete(c.segments, n)
		return nil
	})
	for n, live := range c.segments {
		c.report.add("row", segmentName(n), "has %d live bytes and no row", live)
	}
	return err
}

// unsettled reports segments that may have more than the database knows of.
func (c *checker) unsettled(context.Context) error {
	for _, seg := range c.s.tiers.Segments() {
		why, err := c.s.unsettled(seg.Number)
		if err != nil {
			return err
		}
		if why != "" {
			c.report.add("I9", segmentName(seg.Number), "%s: quarxfs fsck --repair takes it in", why)
		}
	}
	return nil
}

func segmentName(n uint64) string { return fmt.Sprintf("segment %016x", n) }

// records sees that every row points at the record of its block. (I1, I6) The
// segments are walked in their own order; only if that did not find all is
// every row looked at.
func (c *checker) records(ctx context.Context) error {
	c.report.Segments = int64(len(c.s.tiers.Segments()))
	var found int64
	hidden, err := c.s.tiers.Scan(func(loc tiering.Location, h tiering.Header) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		e, err := c.s.Lookup(h.ID)
		if err != nil || e.Loc != loc {
			return nil // no longer, or never, referred to
		}
		found++
		c.record(h.ID, e)
		return nil
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if hidden == nil && err == nil && found == c.report.Blocks {
		return nil
	}
	c.hidden = c.hidden || hidden != nil
	if err != nil {
		c.report.add("I6", "segments", "%v", err)
	}
	return c.scan(ctx, keyBlock, func(key, value []byte) error {
		id, e, err := decodeBlockRow(key, value)
		if err == nil && e.isPlaceholder() {
			// Once for each block: whatever else is wrong with it follows from that.
			if e.Refs > 0 {
				c.report.add("I1", id.String(), "lost, with %d references: it reads as an error until the same bytes are stored again, or its segment is put back", e.Refs)
			}
			return nil
		}
		if err == nil && !(c.hidden && e.Loc.Tier == tiering.Cold) {
			if _, err = c.s.tiers.Stored(e.Loc); err != nil {
				c.unread("I1", id, err)
			}
		}
		return nil
	})
}

// unread notes that a block's record could not be read. Of a tier that went away amid the check
// nothing is known, so that is no problem of the store.
func (c *checker) unread(invariant string, id ID, err error) {
	if errors.Is(err, ErrUnavailable) {
		c.hidden = true
		return
	}
	// The walk over segments and that over rows may both come to it; that is one fault, not two.
	if !c.unreadable[id] {
		c.unreadable[id] = true
		c.report.add(invariant, id.String(), "%v", err)
	}
}

func (c *checker) record(id ID, e Entry) {
	if !c.o.Data && e.Kind == tiering.Data {
		return
	}
	h, plain, err := c.s.tiers.Read(e.Loc)
	switch {
	case err != nil:
		c.unread("I2", id, err)
	case h.ID != id, h.Kind != e.Kind, h.Codec != e.Codec, h.RawLen != e.Raw:
		c.report.add("I6", id.String(), "the row says %s %s of %d bytes, the record %s %s %s of %d",
			e.Codec, e.Kind, e.Raw, ID(h.ID), h.Codec, h.Kind, h.RawLen)
	case e.Kind == tiering.File:
		if _, err := vertex.DecodeFile(plain); err != nil {
			c.report.add("I2", id.String(), "%v", err)
		}
	}
}

// references counts what refers to each block, for some of the blocks at a time.
func (c *checker) references(ctx context.Context) error {
	shards := min(256, int(c.report.Blocks/checkShard)+1)
	for i := range shards {
		lo, hi := i*256/shards, (i+1)*256/shards
		counts := make(map[ID]uint64)
		ref := func(id ID) {
			if int(id[0]) >= lo && int(id[0]) < hi {
				counts[id]++
			}
		}
		if err := c.count(ctx, ref); err != nil {
			return err
		}
		if err := c.compare(ctx, lo, hi, counts); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) count(ctx context.Context, ref func(ID)) error {
	for _, h := range c.o.Holders { // the volume's extents, of which the store knows nothing
		if err := h(ctx, ref); err != nil {
			return err
		}
	}
	err := c.scan(ctx, keyName, func(key, value []byte) error {
		if o, err := decodeObject(string(key[1:]), value); err == nil {
			ref(o.vertexID())
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = c.scan(ctx, keyLeased, countHeld(ref))
	if err != nil {
		return err
	}
	err = c.scan(ctx, keySnapshot, func(key, value []byte) error {
		if r, err := decodeSnapshotRef(string(key[1:]), value); err == nil {
			ref(r.vertexID())
		}
		return nil
	})
	if err != nil {
		return err
	}
	return c.scan(ctx, keyBlock, func(key, value []byte) error {
		id, e, err := decodeBlockRow(key, value)
		if err != nil || e.Kind == tiering.Data || c.bad[id] {
			return nil
		}
		_, plain, err := c.s.tiers.Read(e.Loc)
		if err == nil {
			var links []ID
			if links, err = vertex.Links(plain); err == nil {
				for _, child := range links {
					ref(child)
				}
				return nil
			}
		}
		c.bad[id] = true
		c.report.add("I5", id.String(), "its links cannot be read: %v", err)
		return nil
	})
}

// compare takes the counts of the blocks whose IDs start with a byte in
// [lo, hi).
func (c *checker) compare(ctx context.Context, lo, hi int, counts map[ID]uint64) error {
	to := []byte{keyBlock + 1}
	if hi < 256 {
		to = []byte{keyBlock, byte(hi)}
	}
	err := c.s.db.Scan([]byte{keyBlock, byte(lo)}, to, func(key, value []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		id, e, err := decodeBlockRow(key, value)
		if err != nil {
			return nil
		}
		if counts[id] != e.Refs {
			c.report.add("I4", id.String(), "%s has a count of %d, and %d references", e.Kind, e.Refs, counts[id])
		}
		// What is left in the end has references and no row.
		delete(counts, id)
		return nil
	})
	if err != nil {
		return err
	}
	missing := make([]ID, 0, len(counts))
	for id := range counts {
		missing = append(missing, id)
	}
	slices.SortFunc(missing, func(a, b ID) int { return bytes.Compare(a[:], b[:]) })
	for _, id := range missing {
		c.report.add("I5", id.String(), "missing, and has %d references", counts[id])
	}
	return nil
}
