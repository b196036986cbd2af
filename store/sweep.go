package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/quarxtor/quarxfs/store/db"
	"github.com/quarxtor/quarxfs/store/vertex"
	"github.com/quarxtor/quarxfs/tiering"
)

const sweepBatch = 512

// A sweeper gives back what nothing refers to.
type sweeper struct {
	*base
	index   *index
	pending *pending
	commits *committer
	blocks  *blocks
	leases  *leaseTable
	history *history

	maintenance [2]sync.Mutex // by tier
}

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
func (sw *sweeper) Sweep(ctx context.Context) (Swept, error) {
	if sw.readOnly {
		return Swept{}, ErrReadOnly
	}
	var total Swept
	// First, as what they kept may be all that there is to take.
	if err := sw.leases.endExpired(ctx); err != nil {
		return total, fmt.Errorf("sweep: %w", err)
	}
	for {
		n, err := sw.sweepRound(ctx, &total)
		if err != nil {
			return total, fmt.Errorf("sweep: %w", err)
		}
		if n == 0 {
			break
		}
		// The links that a vertex released reach zero with the next commit.
		if err := sw.commits.Commit(); err != nil {
			return total, err
		}
	}
	// At the end once: a segment is emptied by many steps.
	err := sw.removeEmptySegments(&total)
	if err != nil {
		err = fmt.Errorf("sweep: %w", err)
	}
	return total, err
}

// sweepRound goes once over all zero blocks and returns how many it took.
func (sw *sweeper) sweepRound(ctx context.Context, total *Swept) (int64, error) {
	before := total.Blocks
	committed := before
	from := []byte{keyZero}
	for {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		ids, err := sw.index.zeroBlocks(from)
		if err != nil || len(ids) == 0 {
			return total.Blocks - before, err
		}
		// Without a lock, as it reads; what has changed meanwhile is left out below.
		links, err := sw.blocks.linksOf(ctx, ids)
		if err != nil {
			return 0, err
		}
		if err := sw.sweepStep(ids, links, total); err != nil {
			return 0, err
		}
		if n := total.Blocks - committed; n >= sweepUncommitted || n > 0 && sw.commits.roomToChange(true) != nil {
			if err := sw.commits.Commit(); err != nil {
				return 0, err
			}
			committed = total.Blocks
		}
		// Behind the last: blocks that are held or busy keep their rows and must not be met again.
		from = append(blockKey(keyZero, ids[len(ids)-1]), 0)
	}
}

func (ix *index) zeroBlocks(from []byte) ([]ID, error) {
	var ids []ID
	err := ix.db.Scan(from, []byte{keyZero + 1}, func(key, _ []byte) error {
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
func (bs *blocks) linksOf(ctx context.Context, ids []ID) (map[ID][]ID, error) {
	links := make(map[ID][]ID)
	for _, id := range ids {
		e, err := bs.index.Lookup(id)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if e.Kind == tiering.Data {
			continue
		}
		// Read here, outside of all locks; sweepStep sees that the block is still the same.
		plain, err := bs.Get(ctx, id)
		if err == nil {
			links[id], err = vertex.Links(plain)
		}
		if err != nil {
			bs.log.Error("a vertex to be swept cannot be read", "vertex", id, "err", err)
			delete(links, id)
		}
	}
	return links, nil
}

// sweepStep takes those of ids that nothing refers to or holds. Only a commit
// changes references, so under commitMu the rows can be read ahead of the lock
// that Put and Ref need.
func (sw *sweeper) sweepStep(ids []ID, links map[ID][]ID, total *Swept) error {
	sw.commits.commitMu.Lock()
	defer sw.commits.commitMu.Unlock()
	rows := make([]Entry, len(ids))
	for i, id := range ids {
		var err error
		if rows[i], err = sw.index.Lookup(id); err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	sw.commits.updateLock.RLock()
	defer sw.commits.updateLock.RUnlock()
	sw.pending.mu.Lock()
	defer sw.pending.mu.Unlock()
	// Under pending.mu, and for each step: a pause that begins now is seen before more goes. An
	// older database does not know what newer names refer to.
	if sw.pending.sweepPauses > 0 || sw.history.behind > 0 {
		return nil
	}
	for i, id := range ids {
		if sw.busy(id) {
			continue
		}
		e := rows[i]
		if e.Kind == 0 {
			sw.db.Delete(blockKey(keyZero, id)) // a stray row
			continue
		}
		children, isVertex := links[id]
		// A zero row whose block was referred to since goes with the commit that counts that. A
		// vertex that could not be read has no links here.
		if e.Refs != 0 || (e.Kind != tiering.Data && !isVertex) {
			continue
		}
		// Rows and change under one hold of pending: a Put of the same bytes comes before, and the
		// block is busy, or after, and stores it anew.
		sw.db.Delete(blockKey(keyBlock, id))
		sw.db.Delete(blockKey(keyZero, id))
		sw.pending.changes[id] = change{dead: &e}
		for _, child := range children {
			sw.pending.ref(child, -1)
		}
		total.Blocks++
		total.StoredBytes += e.Stored()
	}
	return nil
}

// busy reports whether the block has changes that are not committed, or is
// held. The caller holds commitMu and pending.mu.
func (sw *sweeper) busy(id ID) bool {
	if _, touched := sw.pending.changes[id]; touched {
		return true
	}
	if _, touched := sw.commits.frozen[id]; touched {
		return true
	}
	return sw.pending.holds.has(id)
}

func (sw *sweeper) removeEmptySegments(total *Swept) error {
	if err := sw.commits.Commit(); err != nil {
		return err
	}
	for _, seg := range sw.tiers.Segments() {
		if !seg.Sealed { // appends may be under way
			continue
		}
		removed, err := sw.removeIfEmpty(seg.Number)
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
func (sw *sweeper) removeIfEmpty(n uint64) (removed bool, err error) {
	maintenance := &sw.maintenance[tiering.TierOf(n)]
	maintenance.Lock()
	defer maintenance.Unlock()
	if empty, err := sw.segmentEmpty(n); err != nil || !empty {
		return false, err
	}
	// The file first: a crash in between leaves a row without a file, which the next opening drops;
	// the other way round a file without a row would stay.
	if err := sw.tiers.Remove(n); err != nil {
		if errors.Is(err, tiering.ErrNotFound) || errors.Is(err, ErrUnavailable) {
			return false, nil // gone, or for later
		}
		return false, err
	}
	return true, sw.commits.Update(func() error { sw.db.Delete(segmentKey(n)); return nil })
}

// segmentEmpty reports whether the sealed segment n has nothing that is used, nor anything that the
// database may not know of. The tier's maintenance is held.
func (sw *sweeper) segmentEmpty(n uint64) (bool, error) {
	// Cheap, by rows, before anything is read.
	unused, why, err := sw.segmentUnused(n)
	if err != nil || !unused {
		return false, err
	}
	// Without commitMu: a cold tier may take seconds to answer, and commits would wait for it.
	if why == "" {
		why, err = sw.history.unknown(n)
	}
	if why != "" {
		sw.logLeftAlone(n, why)
	}
	if err != nil || why != "" {
		return false, err
	}
	// Once more: a repair may have taken in meanwhile what was unknown.
	unused, why, err = sw.segmentUnused(n)
	return unused && why == "", err
}

// segmentUnused reports whether no row, committed or pending, points into the sealed segment n, and
// why it is withheld all the same, or "". A sealed segment gets no new records, so it stays unused
// but for a repair.
func (sw *sweeper) segmentUnused(n uint64) (unused bool, why string, err error) {
	// Before commitMu, so that no commit waits for a Put that waits for its disk.
	sw.blocks.awaitPuts()
	sw.commits.commitMu.Lock()
	defer sw.commits.commitMu.Unlock()
	// What is not written may say empty where the database still refers.
	if len(sw.commits.frozen) > 0 || sw.commits.unwritten {
		return false, "", nil
	}
	sw.pending.mu.Lock()
	fresh := sw.pending.fresh[n]
	sw.pending.mu.Unlock()
	if fresh > 0 {
		return false, "", nil
	}
	live, err := sw.index.liveBytes(n)
	return err == nil && live == 0, sw.history.withheld(n), err
}

// logLeftAlone says why a segment is left alone: once, not at each sweep.
func (sw *sweeper) logLeftAlone(n uint64, why string) {
	if _, logged := sw.history.leftAlone.LoadOrStore(n, true); !logged {
		sw.log.Warn("a segment without anything that is used is left alone; see fsck", "segment", segmentName(n), "why", why)
	}
}

// awaitPuts waits for the Puts under way: they may have appended to a segment
// and not yet made the row that says so.
func (bs *blocks) awaitPuts() {
	bs.puts.mu.Lock()
	// Those that begin later append to another segment, since this one is sealed.
	pending := slices.Collect(maps.Values(bs.puts.inflight))
	bs.puts.mu.Unlock()
	for _, done := range pending {
		<-done
	}
}

// dropStaleSegmentRows removes the rows of segments of the tiers that are gone: a crash can
// come between removing a segment and committing that its row is gone, and a tier goes whole.
func (sw *sweeper) dropStaleSegmentRows(of ...uint8) error {
	hidden := errors.Is(sw.tiers.Reach(tiering.Cold), ErrUnavailable)
	there := make(map[uint64]bool)
	for _, seg := range sw.tiers.Segments() {
		there[seg.Number] = true
	}
	var stale []uint64
	err := sw.db.ScanPrefix([]byte{keySegment}, func(key, value []byte) error {
		n, row, err := decodeSegmentKeyRow(key, value)
		switch {
		case err != nil:
			sw.log.Error("a row is damaged; see fsck", "err", err)
		// Of a tier that does not answer nothing is known.
		case !slices.Contains(of, tiering.TierOf(n)), there[n], hidden && tiering.TierOf(n) == tiering.Cold:
		// A crash came between removing the file and the commit that says so.
		case row.Live == 0:
			stale = append(stale, n)
		default:
			sw.log.Error("a segment is missing", "segment", fmt.Sprintf("%016x", n), "bytes", row.Live)
		}
		return nil
	})
	for _, n := range stale {
		sw.db.Delete(segmentKey(n))
	}
	return err
}
