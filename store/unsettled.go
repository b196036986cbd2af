package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/quarxtor/quarxfs/store/db"
	"github.com/quarxtor/quarxfs/tiering"
)

// What a segment has and the database does not know of is what a crash left, or what a newer
// database referred to. A crash leaves nothing behind a stamp that says more than the database
// knows. Of segments without stamps, which older programs made, only names tell: they are
// the last to be stored of whatever somebody wanted to keep.

// history is what there was of commits and segments that the database may not know of: it may be an
// older one than the store had, and what is in its segments must not be removed then.
type history struct {
	*base
	index  *index
	volume [16]byte // the store's

	earlier atomic.Uint64 // commits before those that the database counts
	behind  uint64        // commits that the database lacks; more than 0 only for a Repair

	// Guarded by committer.commitMu.
	lost map[uint64]int64 // segments that are lost, and where each ended

	leftAlone sync.Map // numbers of segments that the log has told of
}

// unsettled says why a segment may have more than the database knows of, or "". It is not to be
// removed, then.
func (hi *history) unsettled(n uint64) (why string, err error) {
	if why := hi.withheld(n); why != "" {
		return why, nil
	}
	return hi.unknown(n)
}

// withheld says why a segment is not to be removed whatever is in it, or "". The caller holds
// commitMu.
func (hi *history) withheld(n uint64) (why string) {
	_, lost := hi.lost[n]
	switch {
	case lost && slices.Contains(hi.returned(), n):
		return "it was lost, and not all of it can be read"
	case hi.behind > 0:
		return "the database is an older one"
	}
	return ""
}

// unknown says why a segment may have more than the database knows of, or "". It reads the segment.
func (hi *history) unknown(n uint64) (why string, err error) {
	if tiering.TierOf(n) == tiering.Cold && hi.tiers.Foreign() != nil {
		return "", nil // what another store has put there; and nobody here removes it
	}
	stamp, err := hi.tiers.LastStamp(n)
	switch {
	case errors.Is(err, tiering.ErrNotFound), errors.Is(err, ErrUnavailable):
		return "", nil // nobody removes it now
	case err != nil && !errors.Is(err, tiering.ErrCorrupt): // a damaged header, which scrub reports
		return fmt.Sprintf("it cannot be read (%v)", err), nil
	case stamp == tiering.Stamp{}:
		return hi.unknownNames(n)
	case stamp.Volume != hi.volume:
		return "it is of another store", nil
	case stamp.Commits > hi.commitsEver():
		return fmt.Sprintf("it was written after commit %d, and the database knows of %d", stamp.Commits, hi.commitsEver()), nil
	}
	return "", nil
}

// unknownNames looks for names and snapshots in a segment that the database has never had.
func (hi *history) unknownNames(n uint64) (why string, err error) {
	end, known, err := hi.indexedEnd(n)
	if err != nil || known && end == 0 {
		return "", err // a row of before ends were noted
	}
	records, err := hi.tiers.Records(n)
	switch {
	case errors.Is(err, tiering.ErrNotFound), errors.Is(err, ErrUnavailable):
		return "", nil // nobody removes it now
	case err != nil && !errors.Is(err, tiering.ErrCorrupt): // with which there are those that are whole
		return fmt.Sprintf("it cannot be read (%v)", err), nil
	}
	unknown := 0
	for _, r := range records {
		// Others belong to something that has a name, if anybody wanted to keep it.
		if r.Kind != tiering.Named && r.Kind != tiering.Snapshot || int64(r.Offset) < end {
			continue
		}
		if _, err := hi.index.Lookup(r.ID); errors.Is(err, ErrNotFound) {
			unknown++
		} else if err != nil {
			return "", err
		}
	}
	if unknown == 0 {
		return "", nil
	}
	return fmt.Sprintf("it has %d names and snapshots that the database does not know of", unknown), nil
}

// indexedEnd is where the last record of a segment ends that was ever indexed; 0: nowhere, or that
// is not noted.
func (hi *history) indexedEnd(n uint64) (end int64, known bool, err error) {
	b, err := hi.db.Get(segmentKey(n))
	if errors.Is(err, db.ErrNotFound) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	row, err := decodeSegmentRow(b)
	return row.End, true, err
}

// setAside takes segments out of use for appends that may have more than the database knows of:
// what is appended behind would make that look like what was swept.
func (hi *history) setAside() error {
	for _, seg := range hi.tiers.Segments() {
		if seg.Sealed {
			continue
		}
		why, err := hi.unsettled(seg.Number)
		if err != nil {
			return err
		}
		if why != "" {
			hi.log.Warn("a segment is left alone until fsck --repair has taken in what it has", "segment", segmentName(seg.Number), "why", why)
			hi.tiers.Retire(seg.Number)
		}
	}
	return nil
}

// indexUnsettled takes in what unsettled segments have that the database does not know of. It
// counts as referred to, so that keepLost gives a name to what has none.
func (r *repairer) indexUnsettled(ctx context.Context) error {
	newest := r.s.commitsEver() + r.s.behind
	from := make(map[uint64]int64) // where in which segments is what may be unknown
	for _, seg := range r.s.tiers.Segments() {
		why, err := r.s.unsettled(seg.Number)
		if err != nil {
			return err
		}
		// One that does not read says nothing, and what can be read is taken in all the same.
		stamp, _ := r.s.tiers.LastStamp(seg.Number)
		if why == "" || stamp != (tiering.Stamp{}) && stamp.Volume != r.s.conf.volume() {
			continue
		}
		newest = max(newest, stamp.Commits)
		if from[seg.Number], _, err = r.s.indexedEnd(seg.Number); err != nil {
			return err
		}
	}
	err := r.eachRecord(ctx, func(loc tiering.Location, h tiering.Header) {
		first, ok := from[loc.Segment]
		if _, known := r.rows[h.ID]; known || !ok || int64(loc.Offset) < first {
			return
		}
		h, plain, err := r.s.tiers.Read(loc)
		if err != nil {
			return // nobody refers to it, as far as is known
		}
		e := rowOf(loc, h, plain)
		// One, until references are counted: with none, keepLost would take it for the sweep's.
		e.Refs = 1
		r.rows[h.ID] = e
		r.indexed[h.ID] = true
		if h.Kind == tiering.Named {
			r.named(plain)
		}
	})
	if len(r.indexed) > 0 {
		r.did("%d blocks that the database did not know of were taken in", len(r.indexed))
	}
	// With the rows: from the commit on that has them, the database knows as much as the segments.
	if newest > r.s.commitsEver() {
		r.s.setEarlier(newest - r.s.db.Commits())
	}
	r.newest = newest
	return err
}

// settled is called when what was taken in is durable.
func (r *repairer) settled() {
	s := r.s
	if r.newest <= s.commitsEver() && s.behind == 0 {
		return
	}
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	if err := s.loadEarlier(); err != nil {
		s.log.Error("what the last commit was is known from the next opening on", "err", err)
		return
	}
	s.behind = 0
	s.noteCommit()
}

// named lets the latest object or snapshot have a name.
func (r *repairer) named(plain []byte) {
	if ref, err := decodeSnapshotName(plain); err == nil {
		old, ok := r.snaps[ref.Name]
		// The later one by its own time; of two at one time the greater ID, so that every repair
		// chooses alike.
		if !ok || ref.Set.After(old.Set) || ref.Set.Equal(old.Set) && ref.ID.String() > old.ID.String() {
			r.snaps[ref.Name] = ref
		}
		return
	}
	o, err := decodeNameVertex(plain)
	if err != nil {
		return
	}
	old, ok := r.names[o.Name]
	if !ok || o.Created.After(old.Created) || o.Created.Equal(old.Created) && o.ID.String() > old.ID.String() {
		r.names[o.Name] = o
	}
}
