package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/config"
)

// SnapshotOptions say what a new snapshot is to be called and to say of itself.
type SnapshotOptions struct {
	Name    string // empty: made from the time
	Message string
	Tags    []string
	Host    string
	Marks   []store.SnapshotMark

	Progress func(looked int64) // if set, called now and then: how many files and directories were looked at
}

// A Snapshot is a named snapshot.
type Snapshot struct {
	store.SnapshotRef
	graph.Snapshot
}

// A snapshotter makes snapshots, one at a time.
type snapshotter struct {
	v          *Volume
	mu         sync.Mutex                 // held while a snapshot, clone or rollback is made
	checkpoint atomic.Pointer[checkpoint] // the one that the next commit takes
	marks      int64                      // of bad blocks, when the last snapshot was made that relies on no older one
}

// CreateSnapshot makes a snapshot of the whole volume as it is at one instant
// after the call, while everything goes on. What the kernel has not yet handed
// over is not in it. It returns when the snapshot is durable. Errors:
// store.ErrNameTaken, store.ErrConfig for names, tags and messages that cannot
// be, those of the disk; then no snapshot has been made.
func (v *Volume) CreateSnapshot(ctx context.Context, o SnapshotOptions) (Snapshot, error) {
	v.snapshots.mu.Lock()
	defer v.snapshots.mu.Unlock()
	var s Snapshot
	err := v.snapshots.snapshotName(&o)
	if err == nil {
		err = v.snapshots.withCheckpoint(ctx, true, func(ctx context.Context, c *checkpoint) (err error) {
			s, err = v.snapshots.snapshotOf(ctx, c, o)
			return err
		})
	}
	if err != nil {
		return s, fmt.Errorf("create snapshot: %w", err)
	}
	v.known.snapshotsChanged(s.Name)
	return s, nil
}

// snapshotName checks or makes a name, so that a long walk is not in vain.
func (ss *snapshotter) snapshotName(o *SnapshotOptions) error {
	if o.Name != "" {
		if err := config.ValidSnapshotName(o.Name); err != nil {
			return err
		}
		if _, err := ss.v.store.Snapshot(o.Name); err == nil {
			return fmt.Errorf("snapshot %q: %w", o.Name, store.ErrNameTaken)
		} else if !errors.Is(err, store.ErrNotFound) {
			return err
		}
		return nil
	}
	// Two in a second get numbers.
	stem := ss.v.opts.Now().UTC().Format("2006-01-02_15-04-05")
	for i := 1; ; i++ {
		o.Name = stem
		if i > 1 {
			o.Name = fmt.Sprintf("%s.%d", stem, i)
		}
		if _, err := ss.v.store.Snapshot(o.Name); err != nil {
			if errors.Is(err, store.ErrNotFound) {
				err = nil
			}
			return err
		}
	}
}

// A checkpoint is the volume at the cut of a commit.
type checkpoint struct {
	advance bool // begin a new epoch
	flushed bool // a flush for it has begun
	taken   chan struct{}
	view    *meta.View
	before  meta.Tracking // the state up to here
	next    uint64        // numbers from here on are newer
	when    meta.Time
}

// withCheckpoint commits, and calls fn with the volume as it was at the commit's cut, with
// all dirty bytes in blocks. The sweep stands still meanwhile. v.snapshots.mu is
// held.
func (ss *snapshotter) withCheckpoint(ctx context.Context, advance bool, fn func(context.Context, *checkpoint) error) error {
	// Nothing is kept of a look at the live tree, so it can be had where nothing can be written.
	commit := ss.v.store.Commit
	if ss.v.store.ReadOnly() && !advance {
		commit = ss.v.store.CutInMemory
	} else if err := ss.v.store.Accepts(); err != nil {
		return err
	}
	// Until fn has ended: blocks of the view may lose their last reference meanwhile.
	defer ss.v.store.PauseSweep()()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ss.v.life.closing, cancel)()
	c := &checkpoint{advance: advance, taken: make(chan struct{})}
	// Before the commit, which flushes all dirty bytes into blocks when it sees one.
	ss.checkpoint.Store(c)
	err := commit()
	// The commit failed before its cut: nobody will take the checkpoint any more.
	if ss.checkpoint.CompareAndSwap(c, nil) {
		return orErr(err, errNoCheckpoint)
	}
	// A cut that has begun ends, even where the commit then fails.
	<-c.taken
	if c.view != nil {
		defer c.view.Close()
	}
	if err != nil || c.view == nil {
		return orErr(err, errNoCheckpoint)
	}
	return fn(ctx, c)
}

// errNoCheckpoint cannot be: each commit flushes and cuts.
var errNoCheckpoint = errors.New("the commit made no cut")

// takeCheckpoint takes the view. All is saved, and nobody changes anything.
func (ss *snapshotter) takeCheckpoint(c *checkpoint) (err error) {
	defer close(c.taken)
	c.before, c.next, c.when = ss.v.tracker.state, ss.v.numbers.next.Load(), ss.v.Now()
	if c.advance {
		// In the same commit as the view: a change is in the one or in the new epoch, never in
		// neither.
		ss.v.tracker.state.Epoch = c.next
		ss.v.db.Set(meta.TrackKey(), ss.v.tracker.state.Encode())
	}
	c.view, err = ss.v.db.View()
	return err
}

// enqueueStaged puts all nodes with staged bytes on the list, so that these become
// blocks.
func (fl *flusher) enqueueStaged() {
	for _, n := range fl.dirty.all(fl.dirty.staged) {
		n.mu.Lock()
		fl.enqueueDirty(n)
		n.mu.Unlock()
	}
}

// snapshotOf makes a snapshot of a cut.
func (ss *snapshotter) snapshotOf(ctx context.Context, c *checkpoint, o SnapshotOptions) (Snapshot, error) {
	var s Snapshot
	b, out, err := ss.build(snapBuilder{ctx: ctx, view: c.view, last: c.before, keep: true, progress: o.Progress})
	if err != nil {
		return s, err
	}
	// After the vertices were stored: what the snapshot itself takes counts as well.
	appended := ss.v.store.Stats().Totals.Appended
	s.Snapshot = ss.describe(out, b, c, o, appended)
	plain, err := s.Encode()
	if err != nil {
		return s, err
	}
	id, err := ss.v.store.Put(store.KindSnapshot, plain)
	if err != nil {
		return s, err
	}
	// The name and the state that the next snapshot builds on in one step: a crash leaves both or
	// none.
	err = ss.v.store.Change(func() error {
		if err := ss.v.store.NameSnapshot(o.Name, id, o.Marks...); err != nil {
			return err
		}
		ss.v.tracker.state.Base = c.next
		ss.v.tracker.state.Snapshot, ss.v.tracker.state.Links, ss.v.tracker.state.Table = meta.BlockID(id), meta.BlockID(out.table), out.inTab
		ss.v.tracker.state.Appended = [4]int64{appended.Blocks, appended.Raw, appended.Stored, appended.Entropy}
		ss.v.db.Set(meta.TrackKey(), ss.v.tracker.state.Encode())
		// Their rows would be kept for ever: nothing leads to them.
		for _, dir := range b.gone {
			ss.v.db.Delete(meta.TreeKey(dir))
		}
		return nil
	})
	if err == nil {
		err = ss.v.store.Commit()
	}
	if err == nil && (b.anew || b.base == 0) {
		ss.marks = b.seen // what is bad since then may be a part of it
	}
	if err == nil {
		s.SnapshotRef, err = ss.v.store.Snapshot(o.Name)
	}
	if err != nil {
		return s, err
	}
	// Too many marks do no harm: the next snapshot looks at those names again.
	if err := ss.forgetChanges(ctx, c.view, c.next); err != nil {
		ss.v.log.Warn("rows of changes that a snapshot has taken up are left to the next one", "err", err)
	}
	return s, nil
}

// build makes the vertices of a snapshot. It takes over those of the last one that nothing below
// has changed, without a look at them; where some of them may be unreadable, all are made anew from
// the rows, which stores the bytes of bad ones again. snapshots.mu is held.
func (ss *snapshotter) build(from snapBuilder) (*snapBuilder, built, error) {
	from.v, from.base, from.seen = ss.v, from.last.Base, ss.v.store.BadMarks()
	from.anew = from.base != 0 && from.seen != ss.marks
	b := from
	out, err := b.build()
	if errors.Is(err, store.ErrCorrupt) && !b.anew && b.base != 0 {
		// One was met that nobody has tried to read before.
		ss.v.log.Warn("the last snapshot cannot be built upon; all of the next one is made anew", "err", err)
		b = from
		b.anew, b.seen = true, ss.v.store.BadMarks()
		out, err = b.build()
	}
	return &b, out, err
}

// describe makes the snapshot's vertex but for its bytes.
func (ss *snapshotter) describe(out built, b *snapBuilder, c *checkpoint, o SnapshotOptions, appended store.Appended) graph.Snapshot {
	below := out.root.Below
	totals := ss.v.store.Stats().Totals
	fresh := appended.Since(store.Appended{
		Blocks: c.before.Appended[0], Raw: c.before.Appended[1], Stored: c.before.Appended[2], Entropy: c.before.Appended[3],
	})
	s := graph.Snapshot{
		Root: out.root, Table: out.table, Created: graph.Time(c.when), Volume: ss.v.store.Config().VolumeID,
		Host: o.Host, Message: o.Message, Tags: slices.Compact(slices.Sorted(slices.Values(o.Tags))),
		Totals: graph.Totals{
			Files: below.Files + out.inTab.Files, Dirs: below.Dirs + 1, Others: below.Others + out.inTab.Others,
			Logical: below.Bytes + out.inTab.Bytes, Data: below.Data + out.inTab.Data,
			Referenced: totals.Referenced, Unique: totals.Raw[store.KindData],
			Written: b.written, New: fresh.Raw, NewStored: fresh.Stored, Entropy: fresh.EntropyMilli(),
		},
	}
	if parent := store.ID(c.before.Snapshot); parent != (store.ID{}) {
		s.Parents = []graph.ID{parent}
	}
	return s
}

// forgetBatch is how many rows of changes are removed at a time.
const forgetBatch = 4096

// forgetChanges removes the rows of changes before an epoch.
func (ss *snapshotter) forgetChanges(ctx context.Context, view *meta.View, end uint64) error {
	var keys [][]byte
	remove := func() error {
		err := ss.v.store.Removal(func() error {
			for _, key := range keys {
				ss.v.db.Delete(key)
			}
			return nil
		})
		keys = keys[:0]
		ss.v.store.MaybeCommit()
		return orErr(ctx.Err(), err)
	}
	// From the view: marks of the new epoch are being written meanwhile.
	for _, bounds := range []func(first, end uint64) (from, to []byte){meta.TouchedRange, meta.GoneRange} {
		from, to := bounds(0, end)
		err := view.Scan(from, to, func(key, _ []byte) error {
			if keys = append(keys, bytes.Clone(key)); len(keys) < forgetBatch {
				return nil
			}
			return remove()
		})
		if err != nil {
			return err
		}
	}
	return remove()
}

// Snapshots returns all snapshots, the oldest first.
func (v *Volume) Snapshots(ctx context.Context) ([]Snapshot, error) {
	var list []Snapshot
	err := v.store.Snapshots(ctx, func(r store.SnapshotRef) error {
		s, err := v.snapshots.loadSnapshot(ctx, r)
		list = append(list, s)
		return err
	})
	slices.SortStableFunc(list, func(a, b Snapshot) int { return a.When().Compare(b.When()) })
	return list, err
}

// Snapshot returns a snapshot by its name. store.ErrNotFound: there is none.
func (v *Volume) Snapshot(ctx context.Context, name string) (Snapshot, error) {
	r, err := v.store.Snapshot(name)
	if err != nil {
		return Snapshot{}, err
	}
	return v.snapshots.loadSnapshot(ctx, r)
}

// RemoveSnapshot removes a snapshot, durably. The sweep reclaims what nothing else
// holds. Errors: store.ErrNotFound, store.ErrHeld.
func (v *Volume) RemoveSnapshot(name string) error {
	s, err := v.store.Snapshot(name)
	if err != nil {
		return err
	}
	if err := v.store.RemoveSnapshot(name); err != nil {
		return err
	}
	// After the name is gone, or a look-up could open a view anew.
	v.views.forgetSnapshot(s.ID)
	v.known.snapshotsChanged(name)
	return nil
}

// LinkSnapshot gives a name to a snapshot that a sync has brought; see
// store.LinkSnapshot.
func (v *Volume) LinkSnapshot(name string, id store.ID, by store.Actor) error {
	err := v.store.LinkSnapshot(name, id, by)
	if err == nil {
		v.known.snapshotsChanged(name)
	}
	return err
}

// RenameSnapshot gives a snapshot another name, durably. Errors:
// store.ErrNotFound, store.ErrNameTaken, store.ErrConfig.
func (v *Volume) RenameSnapshot(name, to string) error {
	if err := v.store.RenameSnapshot(name, to); err != nil {
		return err
	}
	v.known.snapshotsChanged(name, to)
	return nil
}

func (ss *snapshotter) loadSnapshot(ctx context.Context, r store.SnapshotRef) (Snapshot, error) {
	s := Snapshot{SnapshotRef: r}
	b, err := ss.v.store.Get(ctx, r.ID)
	if err == nil {
		s.Snapshot, err = graph.DecodeSnapshot(b)
	}
	if err != nil {
		err = fmt.Errorf("snapshot %q: %w", r.Name, err)
	}
	return s, err
}

// When returns the instant of which the snapshot is.
func (s *Snapshot) When() time.Time { return time.Unix(s.Created.Sec, int64(s.Created.Nsec)) }
