package store

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quarxtor/quarxfs/store/db"
	"github.com/quarxtor/quarxfs/store/handle"
	"github.com/quarxtor/quarxfs/store/routine"
	"github.com/quarxtor/quarxfs/tiering"
)

// A committer makes rows of changes, and these durable.
type committer struct {
	*base
	index    *index
	pending  *pending
	appender *appender
	bad      *badBlocks
	history  *history

	group       db.Group
	kick        chan struct{} // asks for a commit in the background
	commitMu    sync.Mutex
	updateLock  sync.RWMutex
	participant Participant

	unfinished // guarded by commitMu

	totals struct {
		sync.Mutex
		Totals
	}
	lastCommit lastCommit
	took       Timer
	version    atomic.Uint64 // of the rows: commits that changed some
	failed     atomic.Bool
	stuck      atomic.Pointer[stuck] // nil: the last commit succeeded
	committed  atomic.Int64          // when the last good commit's cut was, in ns since 1970
}

// unfinished is what of a commit has not been written.
type unfinished struct {
	frozen        map[ID]change
	frozenObjects objects
	moved         map[ID]location // where fresh blocks of frozen are instead
	unwritten     bool            // rows could not be written and wait for the next commit
}

// Join makes p take part in every commit from now on; nil ends that.
func (cm *committer) Join(p Participant) {
	cm.commitMu.Lock()
	defer cm.commitMu.Unlock()
	cm.participant = p
}

// Update runs fn as one indivisible change: a commit holds either all rows and
// references that fn changed, or none. fn must not call Update or Commit and
// must not wait for anybody who does.
func (cm *committer) Update(fn func() error) error {
	cm.updateLock.RLock()
	defer cm.updateLock.RUnlock()
	return fn()
}

// Change is Update for what a user asks for. It refuses what could only stay in memory, as Accepts
// says; maintenance and what was accepted before do not ask. It is called with no lock that a
// commit takes.
func (cm *committer) Change(fn func() error) error {
	if err := cm.Accepts(); err != nil {
		return err
	}
	return cm.Update(fn)
}

// Removal is Change for what gives room back in the end, as the removal of a name does. On a full
// disk it may use what is set aside for that, when other changes are refused.
func (cm *committer) Removal(fn func() error) error {
	if err := cm.AcceptsRemoval(); err != nil {
		return err
	}
	return cm.Update(fn)
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
func (cm *committer) Accepts() error { return cm.accepts(false) }

// AcceptsRemoval is Accepts for a Removal.
func (cm *committer) AcceptsRemoval() error { return cm.accepts(true) }

func (cm *committer) accepts(removal bool) error {
	if cm.readOnly {
		return ErrReadOnly
	}
	f := cm.stuck.Load()
	if cm.failed.Load() {
		if f != nil {
			return fmt.Errorf("%w: %w", ErrFailed, f.err)
		}
		return ErrFailed
	}
	// Before the room is looked at, of which a disk error says nothing.
	if f != nil {
		if cm.now().Sub(f.at).Abs() < stuckRetry {
			return f.err
		}
		if err := cm.Commit(); err != nil {
			return err
		}
	}
	if cm.roomToChange(removal) == nil {
		return nil
	}
	// What waits may be all that is too much, and a commit may end that.
	if err := cm.Commit(); err != nil {
		return err
	}
	return cm.roomToChange(removal)
}

// roomToChange reports whether what waits for a commit and one change more can be committed.
func (cm *committer) roomToChange(removal bool) error {
	cm.pending.mu.Lock()
	blocks := len(cm.pending.changes)
	cm.pending.mu.Unlock()
	return cm.db.Accepts(int64(blocks)*indexRoom+changeRoom, removal)
}

// MaybeCommit starts a commit when much is pending, and waits for one when so much is
// that memory would fill while commits are slow. Call it now and then outside Update.
func (cm *committer) MaybeCommit() {
	rows, bytes := cm.db.Pending()
	// The limit is what the database takes in one transaction: a quarter starts a commit early,
	// four times it is where memory would suffer.
	maxRows, maxBytes := cm.db.Limit()
	switch {
	// On a full disk commits have to be small, to fit into the room that is set aside.
	case rows >= 4*maxRows || bytes >= 4*maxBytes || cm.stuck.Load() == nil && cm.roomToChange(true) != nil:
		_ = cm.Commit() // what fails is tried again, and told, by the one in the background
	case rows >= maxRows/4 || bytes >= maxBytes/4:
		routine.Kick(cm.kick)
	}
}

// Commit makes durable all that was done before the call. Callers that arrive
// during a commit share the next one.
func (cm *committer) Commit() error { return cm.group.Do(cm.commit) }

// Version is another number after each commit that changed something.
func (cm *committer) Version() uint64 { return cm.version.Load() }

func (cm *committer) commit() error {
	if cm.readOnly {
		return nil // all that there is are rows that spell out others, such as those of a clone
	}
	cm.commitMu.Lock()
	defer cm.commitMu.Unlock()
	start := time.Now()
	var cutAt time.Time
	// Most of the work is done here, while Updates go on, so that the cut keeps them waiting
	// briefly.
	err := cm.flush()
	if err == nil {
		// Just before the cut: what was done by then is in it, and LastCommit may not promise more.
		cutAt = cm.now()
		err = cm.cutExclusive()
	}
	if err == nil {
		err = cm.writeCut()
	}
	if err != nil {
		err = fmt.Errorf("commit: %w", err)
		// The cut's changes stay frozen, or pending in db: the next commit has them as well.
		cm.stuck.Store(&stuck{err, cm.now()})
		return err
	}
	cm.committed.Store(cutAt.UnixNano())
	cm.took.Add(time.Since(start))
	// Only now: what could be saved is durable. But who asks shall know that something of before is
	// gone, and changes are refused, or nobody would notice before it is read.
	if err := cm.harmed(); err != nil {
		cm.stuck.Store(&stuck{err, cm.now()})
		return err
	}
	cm.stuck.Store(nil)
	return nil
}

// harmed is ErrDamaged when segments that are written to were cut, removed or replaced beneath the
// store.
func (cm *committer) harmed() error {
	return handle.ShownError(segmentDamage(cm.dir.Join(hotDir), cm.tiers.Harmed(), false))
}

// LastCommit returns the instant that the last commit stands for; zero: none since the store was
// opened.
func (cm *committer) LastCommit() time.Time {
	n := cm.committed.Load()
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n)
}

func (cm *committer) flush() error {
	if cm.participant == nil {
		return nil
	}
	return cm.participant.Flush()
}

func (cm *committer) cutExclusive() error {
	cm.updateLock.Lock()
	defer cm.updateLock.Unlock()
	return cm.cut()
}

// cut ends the epoch of pending changes at one instant. The caller holds
// commitMu, and updateLock for writing.
func (cm *committer) cut() error {
	if cm.participant != nil {
		if err := cm.participant.Cut(); err != nil {
			return err
		}
	}
	// After the participant, whose last blocks and references belong to this cut.
	cm.pending.mu.Lock()
	defer cm.pending.mu.Unlock()
	cm.freeze()
	return nil
}

// freeze makes what is pending that of the commit. The caller holds pending, since
// Put sets a row and notes the change outside of updateLock: both must fall on
// the same side of the cut.
func (cm *committer) freeze() {
	if rows, _ := cm.db.Pending(); rows > 0 {
		cm.version.Add(1)
	}
	cm.db.Freeze()
	// What a failed commit left is older and goes first.
	cm.frozen = merge(cm.frozen, cm.pending.changes)
	cm.pending.changes = make(map[ID]change)
	cm.frozenObjects.Count += cm.pending.objects.Count
	cm.frozenObjects.Bytes += cm.pending.objects.Bytes
	cm.pending.objects = objects{}
	// From here on frozen says that segments have blocks without rows.
	clear(cm.pending.fresh)
}

// writeCut makes durable what was cut.
func (cm *committer) writeCut() error {
	// I1: what rows refer to is durable before the rows are.
	if err := cm.syncSegments(); err != nil {
		if harm := cm.harmed(); harm != nil {
			err = harm // whatever else failed, failed because of that
		}
		return err
	}
	extra, err := cm.resolve()
	if err != nil {
		return err
	}
	if cm.readOnly {
		cm.db.Apply(extra) // which is in memory, as is all that was cut
		return nil
	}
	err = cm.db.Write(extra)
	// Until they are written, removeIfEmpty must not believe what the rows of segments say.
	cm.unwritten = err != nil
	// A full disk passes. After any other error nobody knows what of the log is there, and fsync
	// would not say it twice.
	if err != nil && !errors.Is(err, ErrFull) {
		cm.failed.Store(true)
	}
	if err == nil {
		cm.noteCommit()
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
		// Fresh until it was committed once, whatever came after.
		if n.fresh {
			o.fresh, o.came = true, n.came
		}
		if n.move != nil {
			o.move = n.move
		}
		older[id] = o
	}
	return older
}

// resolve turns the frozen changes into index rows. When the write of these
// rows fails they stay pending in db, so the changes count as settled here.
func (cm *committer) resolve() (*db.Batch, error) {
	r := resolver{s: cm, segments: make(map[uint64]segmentRow), totals: cm.totalsNow()}
	for id, c := range cm.frozen {
		if err := r.change(id, c); err != nil {
			return nil, err
		}
	}
	// After the changes, which take marks away; marks alone make a commit, too.
	cm.bad.rows(&r.batch)
	if len(cm.frozen) == 0 {
		return &r.batch, nil
	}
	for n, row := range r.segments {
		r.batch.Set(segmentKey(n), row.encode())
	}
	r.totals.Objects.Count += cm.frozenObjects.Count
	r.totals.Objects.Bytes += cm.frozenObjects.Bytes
	r.batch.Set([]byte{keyTotals}, r.totals.encode())
	cm.totals.Lock()
	cm.totals.Totals = r.totals
	cm.totals.Unlock()
	// Only now, as an error above leaves all to the next commit.
	cm.frozen, cm.moved, cm.frozenObjects = nil, nil, objects{}
	return &r.batch, nil
}

type resolver struct {
	s        *committer
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
		// Unless it was put again within the same commit: then a new record has a row.
		if !c.fresh {
			return nil
		}
	}
	if c.delta == 0 && !c.fresh && c.move == nil {
		return nil
	}
	e, err := r.s.index.Lookup(id)
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
		// A fresh block has no earlier row in the totals to be taken out.
		if !c.came {
			r.totals.Appended.add(e)
		}
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
			// Read once, with the first record: by it the file is known at the next opening.
			row.Salt = r.s.tiers.Salt(n)
		}
	}
	r.segments[n] = row
	return nil
}
