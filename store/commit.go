package store

import (
	"errors"
	"fmt"
	"time"

	"github.com/quarxtor/quarxfs/store/db"
	"github.com/quarxtor/quarxfs/tiering"
)

// A change is what happened to a block since the last cut. Index rows are
// written by the committer alone, which adds the changes up; so counting a
// reference costs no look-up, and rows need no lock.
type change struct {
	delta int64
	fresh bool        // Put stored it
	dead  *Entry      // the sweep took it; its last row
	move  *relocation // a copy of its record is to be used instead
}

// Update runs fn as one indivisible change: a commit holds either all rows and
// references that fn changed, or none. fn must not call Update or Commit and
// must not wait for anybody who does.
func (s *Store) Update(fn func() error) error {
	s.updateLock.RLock()
	defer s.updateLock.RUnlock()
	return fn()
}

// Change is Update for what a user asks for. It refuses what could only stay in memory, as Accepts
// says; upkeep and what was accepted before do not ask. It is called with no lock that a commit
// takes.
func (s *Store) Change(fn func() error) error {
	if err := s.Accepts(); err != nil {
		return err
	}
	return s.Update(fn)
}

// Removal is Change for what gives room back in the end, as the removal of a name does. On a full
// disk it may use what is set aside for that, when other changes are refused.
func (s *Store) Removal(fn func() error) error {
	if err := s.AcceptsRemoval(); err != nil {
		return err
	}
	return s.Update(fn)
}

// stuck says that commits fail.
type stuck struct {
	err error // the last one's
	at  time.Time
}

const (
	// stuckRetry is how long after a failed commit a change is refused without trying one.
	stuckRetry = 100 * time.Millisecond
	// changeRoom bounds what the changes under way and the inodes that wait add to a commit, in
	// bytes of rows.
	changeRoom = 512 << 10
	// indexRoom bounds what one block's change adds: its row, and the one that says that nothing
	// refers to it.
	indexRoom = 256
)

// Accepts reports whether what is changed now can be made durable: nil, ErrReadOnly, ErrFull, or
// the error that commits have had since the last good one. A commit is tried first then, so that
// changes pass as soon as the cause is gone.
func (s *Store) Accepts() error { return s.accepts(false) }

// AcceptsRemoval is Accepts for a Removal.
func (s *Store) AcceptsRemoval() error { return s.accepts(true) }

func (s *Store) accepts(removal bool) error {
	if s.opts.ReadOnly {
		return ErrReadOnly
	}
	f := s.stuck.Load()
	if s.failed.Load() {
		if f != nil {
			return fmt.Errorf("%w: %w", ErrFailed, f.err)
		}
		return ErrFailed
	}
	if f != nil {
		if s.opts.Now().Sub(f.at).Abs() < stuckRetry {
			return f.err
		}
		if err := s.Commit(); err != nil {
			return err
		}
	}
	if s.roomToChange(removal) == nil {
		return nil
	}
	// What waits may be all that is too much, and a commit may end that.
	if err := s.Commit(); err != nil {
		return err
	}
	return s.roomToChange(removal)
}

// roomToChange reports whether what waits for a commit and one change more can be committed.
func (s *Store) roomToChange(removal bool) error {
	s.pend.Lock()
	blocks := len(s.pend.changes)
	s.pend.Unlock()
	return s.db.Accepts(int64(blocks)*indexRoom+changeRoom, removal)
}

// Ref adds delta references to the block. Call it inside Update, together with
// the rows that make the reference. (I4)
func (s *Store) Ref(id ID, delta int64) {
	s.pend.Lock()
	defer s.pend.Unlock()
	s.ref(id, delta)
}

// ref does so; the caller holds pend.
func (s *Store) ref(id ID, delta int64) {
	if delta < 0 {
		s.pend.dropped++
	}
	c := s.pend.changes[id]
	c.delta += delta
	s.pend.changes[id] = c
}

// MaybeCommit starts a commit when much is pending, and waits for one when so much is
// that memory would fill while commits are slow. Call it now and then outside Update.
func (s *Store) MaybeCommit() {
	rows, bytes := s.db.Pending()
	maxRows, maxBytes := s.db.Limit()
	switch {
	// On a full disk commits have to be small, to fit into the room that is set aside.
	case rows >= 4*maxRows || bytes >= 4*maxBytes || s.stuck.Load() == nil && s.roomToChange(true) != nil:
		_ = s.Commit() // what fails is tried again, and told, by the one in the background
	case rows >= maxRows/4 || bytes >= maxBytes/4:
		select {
		case s.kick <- struct{}{}:
		default:
		}
	}
}

// Commit makes durable all that was done before the call. Callers that arrive
// during a commit share the next one.
func (s *Store) Commit() error { return s.group.Do(s.commit) }

// Version is another number after each commit that changed something.
func (s *Store) Version() uint64 { return s.version.Load() }

func (s *Store) commit() error {
	if s.opts.ReadOnly {
		return nil // all that there is are rows that spell out others, such as those of a clone
	}
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	start := time.Now()
	var cutAt time.Time
	// Most of the work is done here, while Updates go on, so that the cut keeps them waiting
	// briefly.
	err := s.flush()
	if err == nil {
		cutAt = s.opts.Now()
		err = s.cutExclusive()
	}
	if err == nil {
		err = s.writeCut()
	}
	if err != nil {
		err = fmt.Errorf("commit: %w", err)
		s.stuck.Store(&stuck{err, s.opts.Now()})
		return err
	}
	s.stuck.Store(nil)
	s.committed.Store(cutAt.UnixNano())
	s.commits.Add(time.Since(start))
	return nil
}

// LastCommit returns the instant that the last commit stands for; zero: none since the store was
// opened.
func (s *Store) LastCommit() time.Time {
	n := s.committed.Load()
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n)
}

func (s *Store) flush() error {
	if s.participant == nil {
		return nil
	}
	return s.participant.Flush()
}

func (s *Store) cutExclusive() error {
	s.updateLock.Lock()
	defer s.updateLock.Unlock()
	return s.cut()
}

// cut ends the epoch of pending changes at one instant. The caller holds
// commitMu, and updateLock for writing.
func (s *Store) cut() error {
	if s.participant != nil {
		if err := s.participant.Cut(); err != nil {
			return err
		}
	}
	s.pend.Lock()
	defer s.pend.Unlock()
	s.freeze()
	return nil
}

// freeze makes what is pending that of the commit. The caller holds pend, since
// Put sets a row and notes the change outside of updateLock: both must fall on
// the same side of the cut.
func (s *Store) freeze() {
	if rows, _ := s.db.Pending(); rows > 0 {
		s.version.Add(1)
	}
	s.db.Freeze()
	s.frozen = merge(s.frozen, s.pend.changes)
	s.pend.changes = make(map[ID]change)
	s.frozenObjects.Count += s.pend.objects.Count
	s.frozenObjects.Bytes += s.pend.objects.Bytes
	s.pend.objects = objects{}
	clear(s.pend.fresh)
}

// writeCut makes durable what was cut.
func (s *Store) writeCut() error {
	// I1: what rows refer to is durable before the rows are.
	if err := s.syncSegments(); err != nil {
		return err
	}
	extra, err := s.resolve()
	if err != nil {
		return err
	}
	if s.opts.ReadOnly {
		s.db.Apply(extra) // which is in memory, as is all that was cut
		return nil
	}
	err = s.db.Write(extra)
	// Until they are written, removeIfEmpty must not believe what the rows of segments say.
	s.unwritten = err != nil
	if err != nil && !errors.Is(err, ErrFull) {
		s.failed.Store(true)
	}
	if err == nil {
		s.noteCommit()
	}
	return err
}

// merge adds newer changes to those of a commit that failed.
func merge(older, newer map[ID]change) map[ID]change {
	if len(older) == 0 {
		return newer
	}
	for id, n := range newer {
		o := older[id]
		o.delta += n.delta
		if n.dead != nil {
			// The sweep takes only committed blocks that nothing refers to.
			o = change{delta: n.delta, dead: n.dead}
		}
		o.fresh = o.fresh || n.fresh
		if n.move != nil {
			o.move = n.move
		}
		older[id] = o
	}
	return older
}

// resolve turns the frozen changes into index rows. When the write of these
// rows fails they stay pending in db, so the changes count as settled here.
func (s *Store) resolve() (*db.Batch, error) {
	r := resolver{s: s, segments: make(map[uint64]segmentRow), totals: s.totalsNow()}
	for id, c := range s.frozen {
		if err := r.change(id, c); err != nil {
			return nil, err
		}
	}
	s.bad.rows(&r.batch)
	if len(s.frozen) == 0 {
		return &r.batch, nil
	}
	for n, row := range r.segments {
		r.batch.Set(segmentKey(n), row.encode())
	}
	r.totals.Objects.Count += s.frozenObjects.Count
	r.totals.Objects.Bytes += s.frozenObjects.Bytes
	r.batch.Set([]byte{keyTotals}, r.totals.encode())
	s.totals.Lock()
	s.totals.Totals = r.totals
	s.totals.Unlock()
	s.frozen, s.moved, s.frozenObjects = nil, nil, objects{}
	return &r.batch, nil
}

type resolver struct {
	s        *Store
	batch    db.Batch
	segments map[uint64]segmentRow
	totals   Totals
}

func (r *resolver) change(id ID, c change) error {
	if c.dead != nil {
		r.totals.count(*c.dead, -1)
		r.s.bad.clear(id)
		if err := r.segment(c.dead.Loc, 0, -c.dead.Stored()); err != nil {
			return err
		}
		if !c.fresh {
			return nil
		}
	}
	if c.delta == 0 && !c.fresh && c.move == nil {
		return nil
	}
	e, err := r.s.Lookup(id)
	if errors.Is(err, ErrNotFound) {
		// Only a damaged index gets here. The reference is kept by its holder,
		// reading it gives an error, and fsck names it.
		r.s.log.Error("a reference to a block that the index does not have", "block", id)
		return nil
	}
	if err != nil {
		return err
	}
	old := e
	// A count that fell below zero would wrap, and the block never be swept.
	if int64(e.Refs)+c.delta < 0 {
		r.s.log.Error("more references dropped than were counted", "block", id, "refs", e.Refs, "delta", c.delta)
		c.delta = -int64(e.Refs)
	}
	e.Refs = uint64(int64(e.Refs) + c.delta)
	if c.fresh {
		if p, ok := r.s.moved[id]; ok {
			e.Loc, e.Codec = p.loc, p.codec
		}
		if err := r.segment(e.Loc, e.Stored(), e.Stored()); err != nil {
			return err
		}
		r.totals.Appended.add(e)
	} else {
		r.totals.count(old, -1)
		if err := r.relocate(id, &e, c.move); err != nil {
			return err
		}
	}
	r.totals.count(e, 1)
	r.batch.Set(blockKey(keyBlock, id), e.encode())
	switch wasZero := old.Refs == 0 && !c.fresh; {
	case e.Refs == 0 && !wasZero:
		r.batch.Set(blockKey(keyZero, id), []byte{})
	case e.Refs != 0 && wasZero:
		r.batch.Delete(blockKey(keyZero, id))
	}
	return nil
}

// segment counts a record in its segment's row.
func (r *resolver) segment(loc tiering.Location, written, live int64) error {
	n := loc.Segment
	if n == 0 { // of a placeholder
		return nil
	}
	row, ok := r.segments[n]
	if !ok {
		b, err := r.s.db.Get(segmentKey(n))
		if err == nil {
			row, err = decodeSegmentRow(b)
		}
		if err != nil && !errors.Is(err, db.ErrNotFound) {
			return err
		}
	}
	row.Written += written
	row.Live += live
	if written > 0 {
		row.End = max(row.End, int64(loc.Offset)+int64(loc.Length))
		if row.Salt == 0 {
			row.Salt = r.s.tiers.Salt(n)
		}
	}
	r.segments[n] = row
	return nil
}
