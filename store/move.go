package store

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/quarxtor/quarxfs/tiering"
)

// A Moved says what a move between tiers did, or has done so far.
type Moved struct {
	Blocks     int64 `json:"blocks"`
	From       int64 `json:"from_bytes"` // of their records before
	To         int64 `json:"to_bytes"`   // and after
	Segments   int64 `json:"segments"`   // that this emptied and removed
	Skipped    int64 `json:"skipped"`    // blocks that changed meanwhile, or are there already
	Unreadable int64 `json:"unreadable"` // blocks that could not be read and stay
	Todo       int64 `json:"todo_bytes"` // of records still to be moved, as far as is known
}

// MoveOptions say how blocks are moved between tiers.
type MoveOptions struct {
	Rate     int64       // most bytes of records read a second; 0: no limit
	Progress func(Moved) // if set, called now and then

	waitIdle func(context.Context) error // if set, each batch waits for it
}

// Move brings data blocks into another tier, in the order given: what is read
// together should be given together. Vertices and blocks that are there already
// are passed over. It works in batches, and in each
//
//  1. reads the blocks and checks them (I2),
//  2. appends copies in the other tier, as zstd in the cold one,
//  3. syncs them if they are in the cold tier, which no commit does (I1),
//  4. notes that the blocks are there; the next commit makes that durable,
//  5. and after this commit removes segments in which nothing is left.
//
// A crash leaves each block where it was before 4 or where it is after; copies
// that nothing points at are bytes of a segment that a compaction takes. Writers
// go on meanwhile. Errors: ErrNoTier; ErrUnavailable: the cold tier went
// away, and what was not noted stays where it was; ErrFull; those of the disks.
func (rl *relocator) Move(ctx context.Context, to uint8, ids []ID, o MoveOptions) (Moved, error) {
	if rl.readOnly {
		return Moved{}, ErrReadOnly
	}
	m := rl.newMover(to, o)
	err := m.move(ctx, ids)
	if err == nil {
		err = m.commitMoves()
	}
	return m.sum, err
}

// A mover moves blocks into one tier.
type mover struct {
	s           *relocator
	to          uint8
	o           MoveOptions
	pace        *pacer
	sum         Moved
	uncommitted int64
}

func (rl *relocator) newMover(to uint8, o MoveOptions) *mover {
	return &mover{s: rl, to: to, o: o, pace: newPacer(o.Rate)}
}

func (m *mover) move(ctx context.Context, ids []ID) error {
	var batch []tiering.Placed
	size := int64(0)
	for _, id := range ids {
		// Looked up here and again when it is noted: only the second counts, this one saves
		// reading.
		e, err := m.s.index.Lookup(id)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		if err != nil || e.Kind != tiering.Data || e.Loc.Tier == m.to || e.isPlaceholder() {
			m.sum.Skipped++
			continue
		}
		batch = append(batch, tiering.Placed{Location: e.Loc, Header: tiering.Header{ID: id, Kind: e.Kind}})
		if size += e.Stored(); size >= compactBatch {
			if err := m.batch(ctx, batch, size); err != nil {
				return err
			}
			// The array may be used again: batch has noted its moves by value.
			batch, size = batch[:0], 0
		}
	}
	return m.batch(ctx, batch, size)
}

// batch moves some blocks of so many bytes.
func (m *mover) batch(ctx context.Context, batch []tiering.Placed, size int64) error {
	if err := ctx.Err(); err != nil || len(batch) == 0 {
		return err
	}
	if m.o.waitIdle != nil {
		if err := m.o.waitIdle(ctx); err != nil {
			return err
		}
	}
	if err := m.copy(batch); err != nil {
		// The cold disk is not the one that db watches, so nothing else makes ErrFull of it.
		if errors.Is(err, syscall.ENOSPC) && !errors.Is(err, ErrFull) {
			err = fmt.Errorf("%w: %w", ErrFull, err)
		}
		return fmt.Errorf("move to the %s tier: %w", tierName(m.to), err)
	}
	m.sum.Todo = max(0, m.sum.Todo-size)
	if m.uncommitted += size; m.uncommitted >= compactCommit {
		if err := m.commitMoves(); err != nil {
			return err
		}
	}
	if m.o.Progress != nil {
		m.o.Progress(m.sum)
	}
	return m.pace.wait(ctx, size)
}

// commitMoves commits what was noted and gives back what it emptied.
func (m *mover) commitMoves() error {
	if m.uncommitted == 0 {
		return nil
	}
	// Before the attempt: what was noted stays pending, and an error ends the move.
	m.uncommitted = 0
	var swept Swept
	err := m.s.sweeper.removeEmptySegments(&swept)
	m.sum.Segments += swept.Segments
	return err
}

func (m *mover) copy(batch []tiering.Placed) error {
	s := m.s
	if m.to == tiering.Hot {
		size := int64(0)
		for _, p := range batch {
			size += int64(p.Location.Length)
		}
		// As what users write; unlike a compaction this gains nothing on the hot disk.
		if err := s.db.Admit(size); err != nil {
			return err
		}
	}
	// A segment with copies that are not yet noted would seem empty.
	s.sweeper.maintenance[m.to].Lock()
	defer s.sweeper.maintenance[m.to].Unlock()
	moves := make([]move, 0, len(batch))
	var from, to int64
	for _, p := range batch {
		_, plain, err := s.tiers.Read(p.Location)
		if errors.Is(err, tiering.ErrCorrupt) || errors.Is(err, tiering.ErrNotFound) {
			// It may have moved since it was looked up. Else it is the reader's or the
			// scrub's to report.
			m.sum.Unreadable++
			continue
		}
		if err != nil {
			return err
		}
		codec, loc, err := s.appender.appendTo(m.to, p.Kind, p.ID, plain)
		if err != nil {
			return err
		}
		moves = append(moves, move{p.ID, relocation{from: p.Location, to: location{loc, codec}}})
		from += int64(p.Location.Length)
		to += int64(loc.Length)
	}
	if m.to == tiering.Cold {
		if err := s.tiers.SyncCold(); err != nil { // I1
			return err
		}
	}
	noted, err := s.commits.relocate(moves)
	m.sum.Blocks += noted
	s.arrived[m.to].blocks.Add(uint64(noted))
	s.arrived[m.to].bytes.Add(uint64(to))
	m.sum.Skipped += int64(len(moves)) - noted
	m.sum.From += from
	m.sum.To += to
	return err
}

// Drain moves all that is in the cold tier back to the hot one, in the order in
// which it lies there. Errors: as Move's.
func (rl *relocator) Drain(ctx context.Context, o MoveOptions) (Moved, error) {
	if rl.readOnly {
		return Moved{}, ErrReadOnly
	}
	if err := rl.tiers.Reach(tiering.Cold); err != nil {
		return Moved{}, fmt.Errorf("drain the cold tier: %w", err)
	}
	m := rl.newMover(tiering.Hot, o)
	// tierUse goes by committed rows.
	if err := rl.commits.Commit(); err != nil {
		return m.sum, err
	}
	use, err := rl.index.tierUse()
	if err != nil {
		return m.sum, err
	}
	m.sum.Todo = use[tiering.Cold].live
	for _, seg := range rl.tiers.Segments() {
		if seg.Tier != tiering.Cold {
			continue
		}
		records, err := rl.tiers.Records(seg.Number)
		if errors.Is(err, tiering.ErrNotFound) {
			continue // it was empty, and the sweep was here
		}
		if err != nil && !errors.Is(err, tiering.ErrCorrupt) {
			return m.sum, err
		}
		var ids []ID
		for _, r := range records {
			// A segment lists dead records, too.
			e, err := rl.index.Lookup(r.ID)
			if err == nil && e.Loc == r.Location {
				ids = append(ids, r.ID)
			}
		}
		if err := m.move(ctx, ids); err != nil {
			return m.sum, err
		}
	}
	return m.sum, m.commitMoves()
}

// PlanDrain says what Drain would do, as of now. It looks at every block's row.
// ErrNoTier; ErrUnavailable.
func (rl *relocator) PlanDrain(ctx context.Context) (p MovePlan, err error) {
	if err := rl.tiers.Reach(tiering.Cold); err != nil {
		return p, fmt.Errorf("drain the cold tier: %w", err)
	}
	// Rows say where blocks are as of the last commit; those being moved count where they go.
	if err := rl.commits.Commit(); err != nil {
		return p, err
	}
	err = rl.db.ScanPrefix([]byte{keyBlock}, func(key, value []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		_, e, err := decodeBlockRow(key, value)
		if err == nil && e.Kind == tiering.Data && e.Loc.Tier == tiering.Cold && !e.isPlaceholder() {
			p.Blocks++
			p.Bytes += e.Stored()
		}
		return err
	})
	return p, err
}

// A MovePlan says what a Move of some blocks would do, and what not and why.
type MovePlan struct {
	Blocks   int64 `json:"blocks"`   // that would be moved
	Bytes    int64 `json:"bytes"`    // of their records
	There    int64 `json:"there"`    // blocks that are in that tier already
	Vertices int64 `json:"vertices"` // stay in the hot tier, whatever is asked
	Missing  int64 `json:"missing"`  // blocks that the store has lost
	Pinned   int64 `json:"pinned"`   // blocks that Unpinned left out: for its caller to say
}

// Unpinned returns those of ids that may move into a tier. It looks at all that is
// pinned.
func (rl *relocator) Unpinned(ctx context.Context, to uint8, ids []ID, pins Pins) ([]ID, error) {
	if to == tiering.Hot || pins == nil {
		return ids, nil
	}
	pinned, err := rl.blocks.pinnedBlocks(ctx, pins)
	return slices.DeleteFunc(slices.Clone(ids), pinned.has), err
}

// PlanMove says what Move would do.
func (rl *relocator) PlanMove(to uint8, ids []ID) (p MovePlan, err error) {
	if err := rl.tiers.Reach(to); err != nil {
		return p, err
	}
	for _, id := range ids {
		e, err := rl.index.Lookup(id)
		switch {
		case err != nil && !errors.Is(err, ErrNotFound):
			return p, err
		// Unknown here, and known but lost: neither can be moved.
		case err != nil || e.isPlaceholder():
			p.Missing++
		case e.Kind != tiering.Data:
			p.Vertices++
		case e.Loc.Tier == to:
			p.There++
		default:
			p.Blocks++
			p.Bytes += e.Stored()
		}
	}
	return p, nil
}

// A TierState is what a tier holds now.
type TierState struct {
	Tier
	Dir  string `json:"dir"`
	Live int64  `json:"live_bytes"` // of records in use, as of the last commit
	// Pinned are the paths of files and directories that stay in it.
	Pinned []string `json:"pinned,omitempty"`
}

// TierStates returns the tiers on disk, the hot one first.
func (s *Store) TierStates() ([]TierState, error) {
	use, err := s.tierUse()
	if err != nil {
		return nil, err
	}
	t := s.tiers.Stats()
	list := []TierState{{Tier: s.tierStats(tiering.Hot, t.Hot), Dir: filepath.Join(s.dir.Path(), hotDir), Live: use[tiering.Hot].live}}
	if c, ok := s.Cold(); ok {
		list = append(list, TierState{Tier: s.tierStats(tiering.Cold, t.Cold), Dir: c.Dir, Live: use[tiering.Cold].live})
	}
	return list, nil
}

// ParseTier returns the tier of a name: hot or cold. ErrConfig.
func ParseTier(name string) (uint8, error) {
	for _, t := range []uint8{tiering.Hot, tiering.Cold} {
		if tierName(t) == name {
			return t, nil
		}
	}
	return 0, fmt.Errorf("tier %q: choose hot or cold: %w", name, ErrConfig)
}
