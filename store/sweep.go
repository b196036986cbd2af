package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/quarxtor/quarxfs/store/db"
	"github.com/quarxtor/quarxfs/store/vertex"
	"github.com/quarxtor/quarxfs/tiering"
)

const sweepBatch = 512

// A Swept says what a sweep reclaimed.
type Swept struct {
	Blocks       int64 `json:"blocks"`
	StoredBytes  int64 `json:"stored_bytes"` // of the blocks' records
	Segments     int64 `json:"segments"`
	SegmentBytes int64 `json:"segment_bytes"` // of the files removed
}

// sweepUncommitted is how many blocks a sweep takes before it commits, so that
// one which takes millions needs little memory. On a full disk it commits earlier.
const sweepUncommitted = 32 << 10

// Sweep removes blocks that nothing refers to, releases what removed vertices
// link to (top-down, I5), and removes segments in which nothing is left. It
// works in short steps; writers go on meanwhile.
func (s *Store) Sweep(ctx context.Context) (Swept, error) {
	if s.opts.ReadOnly {
		return Swept{}, ErrReadOnly
	}
	var total Swept
	if err := s.endExpired(ctx); err != nil {
		return total, fmt.Errorf("sweep: %w", err)
	}
	for {
		n, err := s.sweepRound(ctx, &total)
		if err != nil {
			return total, fmt.Errorf("sweep: %w", err)
		}
		if n == 0 {
			break
		}
		// The links that a vertex released reach zero with the next commit.
		if err := s.Commit(); err != nil {
			return total, err
		}
	}
	err := s.removeEmptySegments(&total)
	if err != nil {
		err = fmt.Errorf("sweep: %w", err)
	}
	return total, err
}

// sweepRound goes once over all zero blocks and returns how many it took.
func (s *Store) sweepRound(ctx context.Context, total *Swept) (int64, error) {
	before := total.Blocks
	committed := before
	from := []byte{keyZero}
	for {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		ids, err := s.zeroBlocks(from)
		if err != nil || len(ids) == 0 {
			return total.Blocks - before, err
		}
		links, err := s.linksOf(ctx, ids)
		if err != nil {
			return 0, err
		}
		if err := s.sweepStep(ids, links, total); err != nil {
			return 0, err
		}
		if n := total.Blocks - committed; n >= sweepUncommitted || n > 0 && s.roomToChange(true) != nil {
			if err := s.Commit(); err != nil {
				return 0, err
			}
			committed = total.Blocks
		}
		// Behind the last: blocks that are held or busy keep their rows and must not be met again.
		from = append(blockKey(keyZero, ids[len(ids)-1]), 0)
	}
}

func (s *Store) zeroBlocks(from []byte) ([]ID, error) {
	var ids []ID
	err := s.db.Scan(from, []byte{keyZero + 1}, func(key, _ []byte) error {
		if len(key) != 1+len(ID{}) {
			return fmt.Errorf("zero row with a key of %d bytes: %w", len(key), ErrCorrupt)
		}
		ids = append(ids, ID(key[1:]))
		if len(ids) == sweepBatch {
			return db.ErrStop
		}
		return nil
	})
	return ids, err
}

// linksOf reads the links of those ids that are vertices. A vertex that cannot
// be read is left out, and so is not swept: its links would leak unnoticed.
func (s *Store) linksOf(ctx context.Context, ids []ID) (map[ID][]ID, error) {
	links := make(map[ID][]ID)
	for _, id := range ids {
		e, err := s.Lookup(id)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if e.Kind == tiering.Data {
			continue
		}
		plain, err := s.Get(ctx, id)
		if err == nil {
			links[id], err = vertex.Links(plain)
		}
		if err != nil {
			s.log.Error("a vertex to be swept cannot be read", "vertex", id, "err", err)
			delete(links, id)
		}
	}
	return links, nil
}

// sweepStep takes those of ids that nothing refers to or holds. Only a commit
// changes references, so under commitMu the rows can be read ahead of the lock
// that Put and Ref need.
func (s *Store) sweepStep(ids []ID, links map[ID][]ID, total *Swept) error {
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	rows := make([]Entry, len(ids))
	for i, id := range ids {
		var err error
		if rows[i], err = s.Lookup(id); err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	s.updateLock.RLock()
	defer s.updateLock.RUnlock()
	s.pend.Lock()
	defer s.pend.Unlock()
	// Under pend, and for each step: a pause that begins now is seen before anything more goes. An
	// older database does not know what newer names refer to.
	if s.pend.sweepPauses > 0 || s.behind > 0 {
		return nil
	}
	for i, id := range ids {
		if s.busy(id) {
			continue
		}
		e := rows[i]
		if e.Kind == 0 {
			s.db.Delete(blockKey(keyZero, id)) // a stray row
			continue
		}
		children, isVertex := links[id]
		if e.Refs != 0 || (e.Kind != tiering.Data && !isVertex) {
			continue
		}
		// Rows and change under one hold of pend: a Put of the same bytes comes before, and the
		// block is busy, or after, and stores it anew.
		s.db.Delete(blockKey(keyBlock, id))
		s.db.Delete(blockKey(keyZero, id))
		s.pend.changes[id] = change{dead: &e}
		for _, child := range children {
			s.ref(child, -1)
		}
		total.Blocks++
		total.StoredBytes += e.Stored()
	}
	return nil
}

// busy reports whether the block has changes that are not committed, or is
// held. The caller holds commitMu and pend.
func (s *Store) busy(id ID) bool {
	if _, touched := s.pend.changes[id]; touched {
		return true
	}
	if _, touched := s.frozen[id]; touched {
		return true
	}
	return s.pend.holds.has(id)
}

func (s *Store) removeEmptySegments(total *Swept) error {
	if err := s.Commit(); err != nil {
		return err
	}
	for _, seg := range s.tiers.Segments() {
		if !seg.Sealed { // appends may be under way
			continue
		}
		removed, err := s.removeIfEmpty(seg.Number)
		if err != nil {
			return err
		}
		if removed {
			total.Segments++
			total.SegmentBytes += seg.Bytes
		}
	}
	return nil
}

// removeIfEmpty removes the sealed segment n when nothing in it is used, unless
// another sweep has done so.
func (s *Store) removeIfEmpty(n uint64) (removed bool, err error) {
	upkeep := &s.upkeep[tiering.TierOf(n)]
	upkeep.Lock()
	defer upkeep.Unlock()
	if empty, err := s.segmentEmpty(n); err != nil || !empty {
		return false, err
	}
	if err := s.tiers.Remove(n); err != nil {
		if errors.Is(err, tiering.ErrNotFound) || errors.Is(err, ErrUnavailable) {
			return false, nil // gone, or for later
		}
		return false, err
	}
	return true, s.Update(func() error { s.db.Delete(segmentKey(n)); return nil })
}

// segmentEmpty reports whether no row, committed or pending, points into the
// sealed segment n. A sealed segment gets no new records, so it stays empty.
// The tier's upkeep is held.
func (s *Store) segmentEmpty(n uint64) (bool, error) {
	s.awaitPuts()
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	// What is not written may say empty where the database still refers.
	if len(s.frozen) > 0 || s.unwritten {
		return false, nil
	}
	s.pend.Lock()
	fresh := s.pend.fresh[n]
	s.pend.Unlock()
	if fresh > 0 {
		return false, nil
	}
	if live, err := s.liveBytes(n); err != nil || live > 0 {
		return false, err
	}
	why, err := s.unsettled(n)
	if why != "" && !s.leftAlone[n] {
		s.leftAlone[n] = true // it is told once, not at each sweep
		s.log.Warn("a segment without anything that is used is left alone; see fsck", "segment", segmentName(n), "why", why)
	}
	return why == "" && err == nil, err
}

// awaitPuts waits for the Puts under way: they may have appended to a segment
// and not yet made the row that says so.
func (s *Store) awaitPuts() {
	s.puts.Lock()
	pending := slices.Collect(maps.Values(s.puts.inflight))
	s.puts.Unlock()
	for _, done := range pending {
		<-done
	}
}

// dropStaleSegmentRows removes the rows of segments of the tiers that are gone: a crash can
// come between removing a segment and committing that its row is gone, and a tier goes whole.
func (s *Store) dropStaleSegmentRows(of ...uint8) error {
	hidden := errors.Is(s.tiers.Reach(tiering.Cold), ErrUnavailable)
	there := make(map[uint64]bool)
	for _, seg := range s.tiers.Segments() {
		there[seg.Number] = true
	}
	var stale []uint64
	err := s.db.ScanPrefix([]byte{keySegment}, func(key, value []byte) error {
		n, row, err := decodeSegmentKeyRow(key, value)
		switch {
		case err != nil:
			s.log.Error("a row is damaged; see fsck", "err", err)
		case !slices.Contains(of, tiering.TierOf(n)), there[n], hidden && tiering.TierOf(n) == tiering.Cold:
		case row.Live == 0:
			stale = append(stale, n)
		default:
			s.log.Error("a segment is missing", "segment", fmt.Sprintf("%016x", n), "bytes", row.Live)
		}
		return nil
	})
	for _, n := range stale {
		s.db.Delete(segmentKey(n))
	}
	return err
}
