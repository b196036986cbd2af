package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/quarxtor/quarxfs/store/config"
	"github.com/quarxtor/quarxfs/store/durable"
	"github.com/quarxtor/quarxfs/store/routine"
	"github.com/quarxtor/quarxfs/tiering"
)

// A TierPolicy says when blocks move between tiers by themselves.
type TierPolicy = tiering.Policy

// A TierPlan says what a policy would have moved, and why.
type TierPlan = tiering.Plan

// Pins calls fn for the blocks that must stay hot, vertices standing for all that
// is below them.
type Pins func(ctx context.Context, fn func(ID) error) error

// TierManagerOptions are what a tier manager needs from around the store.
type TierManagerOptions struct {
	Pins Pins          // nil: nothing is pinned
	Busy func() string // why the machine has no time for moving now; "": it has. nil: it always has
	// Every is the time between two looks at the tiers; 5 s.
	Every time.Duration
}

// A TierManagerState says what the tier manager does.
type TierManagerState struct {
	State    string   `json:"state"` // off, idle, moving, waiting
	Why      []string `json:"why"`   // of the last plan, or of waiting
	Demoted  Moved    `json:"demoted"`
	Promoted Moved    `json:"promoted"`
	Wanted   int      `json:"wanted_blocks"` // cold ones that were used again and wait for their move
	Fault    string   `json:"fault,omitempty"`
}

// maxWanted bounds the blocks that wait to come back; what is used again later
// asks again.
const maxWanted = 1 << 14

// A hotTier is what requests and the tier manager share. heat is nil and limit
// 0 while no tierManager runs or there is no policy.
type hotTier struct {
	*base
	heat  atomic.Pointer[heatClock]
	limit atomic.Int64
	short atomic.Bool // over the limit, and no more can leave
	kick  chan struct{}
	files struct {
		sync.Mutex
		bytes int64
		at    time.Time
	}
	mu struct {
		sync.Mutex
		wanted map[ID]struct{}
		state  TierManagerState
	}
}

// tierManagement moves blocks between tiers as the policy says.
type tierManagement struct {
	*base
	index     *index
	commits   *committer
	blocks    *blocks
	sweeper   *sweeper
	relocator *relocator
	hot       *hotTier
	settings  *config.Current
}

type heatClock struct {
	heat   *tiering.Heat
	window uint32
}

// used notes that a block was read, from the cold tier or from anywhere else.
func (ht *hotTier) used(id ID, cold bool) {
	h := ht.heat.Load()
	if h == nil || !h.heat.Touch(id, uint32(ht.now().Unix()), h.window) || !cold {
		return
	}
	ht.mu.Lock()
	defer ht.mu.Unlock()
	// Full means that the manager is behind: what is read again asks again.
	if len(ht.mu.wanted) < maxWanted {
		ht.mu.wanted[id] = struct{}{}
	}
}

// Times that writers wait when the hot tier is over its limit: most for each
// request, and between two looks.
const (
	slowest    = time.Second
	slowStep   = 10 * time.Millisecond
	filesFresh = 20 * time.Millisecond
)

// hotFiles returns the bytes of the hot tier's segments, a moment old at most.
func (ht *hotTier) hotFiles() int64 {
	f := &ht.files
	f.Lock()
	defer f.Unlock()
	if time.Since(f.at) > filesFresh {
		f.bytes, f.at = ht.tiers.Stats().Hot.Bytes, time.Now()
	}
	return f.bytes
}

// throttleHot makes a writer wait for the tierManager while the hot tier is over its limit.
// ErrFull: no more can leave it.
func (ht *hotTier) throttleHot() error {
	limit := ht.limit.Load()
	if limit == 0 || ht.hotFiles() < limit {
		return nil
	}
	routine.Kick(ht.kick)
	// Polled, as files go in the background; the wait is bounded, so that a writer is slowed and
	// never stopped.
	for begun := time.Now(); time.Since(begun) < slowest; time.Sleep(slowStep) {
		if ht.limit.Load() == 0 || ht.hotFiles() < limit {
			return nil
		}
		if ht.short.Load() {
			return fmt.Errorf("%w: the hot tier is at its limit of %s, and nothing can move to a cold tier", ErrFull, humanize.IBytes(uint64(limit)))
		}
	}
	return nil
}

// A tierManager moves blocks between tiers as the policy says.
type tierManager struct {
	s       *tierManagement
	o       TierManagerOptions
	p       TierPolicy
	usage   tiering.Usage // as last looked at
	counted time.Time     // when its census was taken
	pinned  *blockFilter  // as of the census
	urgent  bool
}

// ManageTiers moves blocks as the policy in the settings says, and follows its
// changes, until ctx ends. Requests and commits go on meanwhile. One at a time.
func (tm *tierManagement) ManageTiers(ctx context.Context, o TierManagerOptions) {
	if o.Every == 0 {
		o.Every = 5 * time.Second
	}
	if o.Busy == nil {
		o.Busy = func() string { return "" }
	}
	k := &tierManager{s: tm, o: o}
	heat := tiering.NewHeat(tm.commits.totalsNow().Blocks[tiering.Data])
	tm.loadHeat(heat)
	defer tm.saveHeat(heat)
	// Runs when it ends, so that requests no longer note what nobody reads.
	defer k.follow(TierPolicy{}, nil)
	saved := time.Now()
	for ctx.Err() == nil {
		set, changed, _ := tm.settings.Settings() // what is wrong with them was logged
		k.follow(set.Tiers.WithDefaults(), heat)
		k.watched(ctx, changed)
		if time.Since(saved) > heatSaved {
			tm.saveHeat(heat)
			saved = time.Now()
		}
		wait := time.After(o.Every)
		if !k.p.On() { // a nil channel is never ready: only new settings wake it
			wait = nil
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-wait:
		case <-tm.hot.kick:
		}
	}
}

// follow makes a policy count.
func (k *tierManager) follow(p TierPolicy, heat *tiering.Heat) {
	k.p = p
	shared := k.s.hot
	if !p.On() {
		shared.heat.Store(nil)
		shared.limit.Store(0)
		k.s.tiers.WatchHot(0)
		shared.short.Store(false)
		k.report("off")
		return
	}
	shared.heat.Store(&heatClock{heat, uint32(p.Window)})
	shared.limit.Store(p.Limit)
	k.s.tiers.WatchHot(p.Limit)
}

func (k *tierManager) report(state string, why ...string) {
	shared := k.s.hot
	shared.mu.Lock()
	defer shared.mu.Unlock()
	shared.mu.state.State = state
	if why != nil || state == "off" {
		shared.mu.state.Why = why
	}
}

// TierManager returns what the tier manager does.
func (tm *tierManagement) TierManager() TierManagerState {
	k := tm.hot
	// Before mu, under which nothing else is taken.
	set, _, _ := tm.settings.Settings()
	k.mu.Lock()
	defer k.mu.Unlock()
	st := k.mu.state
	switch {
	case st.State == "":
		st.State = "off" // nobody manages the tiers
	case st.State == "off" && set.Tiers.On():
		// It was set a moment ago, and the manager has not got to it.
		st.State, st.Why = "idle", []string{"the policy was just set"}
	}
	st.Wanted = len(k.mu.wanted)
	return st
}

// watched does a round, and breaks it off when the settings change.
func (k *tierManager) watched(ctx context.Context, changed <-chan struct{}) {
	if !k.p.On() {
		return
	}
	round, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-changed:
			cancel()
		case <-round.Done():
		}
	}()
	// A round may take hours; a policy that was changed must not wait for its end.
	err := k.round(round)
	if round.Err() != nil {
		// Broken off by a change of settings, which is no fault.
		err = nil
	}
	shared := k.s.hot
	shared.mu.Lock()
	fault := ""
	if err != nil {
		fault = err.Error()
	}
	// Told once, not at each look, as long as it stays the same.
	news := fault != shared.mu.state.Fault
	shared.mu.state.Fault = fault
	shared.mu.Unlock()
	if err != nil && news {
		k.s.log.Error("the tiers cannot be kept as the policy says; it will be tried again", "err", err)
	}
}

func (k *tierManager) round(ctx context.Context) error {
	plan, err := k.look(ctx, k.p)
	if err != nil {
		return err
	}
	k.urgent = plan.Urgent
	// Before the moves: writers shall know at once that waiting is of no use.
	k.s.hot.short.Store(plan.Short)
	k.report("idle", plan.Why...)
	// Demote before the sweep: what it moves leaves segments sparse, which the compaction then
	// gives back.
	if plan.Demote > 0 {
		if err := k.demote(ctx, plan); err != nil {
			return err
		}
	}
	if plan.Compact {
		if _, err := k.s.sweeper.Sweep(ctx); err != nil {
			return err
		}
		if _, err := k.s.relocator.Compact(ctx, CompactOptions{MinLive: 0.8, Rate: k.rate(), seal: k.urgent}); err != nil && !errors.Is(err, ErrFull) {
			return err
		}
	}
	// Last, into the room that demoting has made.
	return k.promote(ctx)
}

// rate is the most bytes a second; 0: no limit.
func (k *tierManager) rate() int64 {
	if k.urgent {
		return 0
	}
	return k.p.Rate
}

// look finds out how full the hot tier is, and what is to leave it.
func (k *tierManager) look(ctx context.Context, p TierPolicy) (plan TierPlan, err error) {
	if err := k.measure(); err != nil {
		return plan, err
	}
	if p.WithDefaults().Due(k.usage.Live, k.usage.Files) {
		// The census goes by committed rows, and takes a while: only when something is due.
		if err := k.s.commits.Commit(); err != nil {
			return plan, err
		}
		if err := k.count(ctx, p); err != nil {
			return plan, err
		}
	}
	return p.Plan(k.usage), nil
}

func (k *tierManager) measure() error {
	use, err := k.s.index.tierUse()
	if err != nil {
		return err
	}
	k.usage.Now = k.s.now()
	k.usage.Live, k.usage.Files = use[tiering.Hot].live, k.s.tiers.Stats().Hot.Bytes
	k.usage.Cold = ""
	if err := k.s.tiers.Reach(tiering.Cold); err != nil {
		k.usage.Cold = err.Error()
	}
	return nil
}

// count takes the census anew.
func (k *tierManager) count(ctx context.Context, p TierPolicy) error {
	// Emptied first: an error leaves no census rather than half of one.
	k.usage.Census = tiering.Census{}
	k.counted = k.usage.Now
	var err error
	if k.pinned, err = k.s.blocks.pinnedBlocks(ctx, k.o.Pins); err != nil {
		return err
	}
	return k.eachMovable(ctx, p, func(list []movable) error {
		for _, b := range list {
			if b.pinned {
				k.usage.Census.Pinned += b.bytes
			} else {
				k.usage.Census.Add(b.class, b.young, b.bytes)
			}
		}
		return nil
	})
}

// A movable is a data block in the hot tier.
type movable struct {
	id            ID
	bytes         int64
	class         int
	young, pinned bool
}

// eachMovable calls fn for the data blocks of each hot segment, in the order in
// which they lie there: blocks of one file are mostly together. It needs memory for
// one segment, and gives way to requests in between. The census comes before.
func (k *tierManager) eachMovable(ctx context.Context, p TierPolicy, fn func([]movable) error) error {
	written, err := k.s.tiers.Written()
	if err != nil {
		return err
	}
	for _, seg := range k.s.tiers.Segments() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if seg.Tier != tiering.Hot {
			continue
		}
		stored := uint32(max(0, written[seg.Number].Unix()))
		if err := k.eachInSegment(p, seg.Number, stored, fn); err != nil {
			return err
		}
		// The look-ups of one segment take the database's time from readers.
		time.Sleep(time.Millisecond)
	}
	return nil
}

func (k *tierManager) eachInSegment(p TierPolicy, number uint64, stored uint32, fn func([]movable) error) error {
	records, err := k.s.tiers.Records(number)
	if err != nil && !errors.Is(err, tiering.ErrCorrupt) {
		if errors.Is(err, tiering.ErrNotFound) { // the sweep was here
			return nil
		}
		return err
	}
	now := uint32(k.usage.Now.Unix())
	heat := k.s.hot.heat.Load()
	list := make([]movable, 0, len(records))
	for _, r := range records {
		if r.Kind != tiering.Data {
			continue
		}
		e, err := k.s.index.Lookup(r.ID)
		if err != nil || e.Loc != r.Location || e.Refs == 0 {
			continue // gone, elsewhere, or the sweep's
		}
		var seen, warm uint32
		if heat != nil {
			seen, warm = heat.heat.Of(r.ID)
		}
		list = append(list, movable{
			id: r.ID, bytes: e.Stored(), class: tiering.Coldness(now, max(stored, warm)),
			young: tiering.Young(p, now, stored, seen, warm), pinned: k.pinned.has(r.ID),
		})
	}
	return fn(list)
}

// waitIdle lets a batch pass when the machine has time.
func (k *tierManager) waitIdle(ctx context.Context) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		why := ""
		// A tier that is about to be full cannot wait for the night.
		if !k.urgent {
			if !k.p.Open(k.s.now()) {
				return errClosingTime
			}
			if !k.p.Busy {
				why = k.o.Busy()
			}
		}
		if why == "" {
			k.report("moving")
			return nil
		}
		k.report("waiting", why)
		select {
		case <-ctx.Done():
		case <-time.After(busyWait):
		}
	}
}

const busyWait = time.Second

var errClosingTime = errors.New("the hours of moving are over")

func (k *tierManager) demote(ctx context.Context, plan TierPlan) error {
	m := k.newMover(tiering.Cold)
	left := plan.Demote
	err := k.eachMovable(ctx, k.p, func(list []movable) error {
		var ids []ID
		for _, b := range list {
			if left > 0 && b.class <= plan.Class && !b.pinned && (plan.Urgent || !b.young) {
				ids = append(ids, b.id)
				// By what the plan says and not by what was moved: the next look corrects it.
				left -= b.bytes
			}
		}
		return m.move(ctx, ids)
	})
	return k.finish(m, err, func(st *TierManagerState) *Moved { return &st.Demoted })
}

func (k *tierManager) newMover(to uint8) *mover {
	return k.s.relocator.newMover(to, MoveOptions{Rate: k.rate(), waitIdle: k.waitIdle})
}

// finish commits what was moved, and adds it up.
func (k *tierManager) finish(m *mover, err error, sum func(*TierManagerState) *Moved) error {
	// Also after an error: what was copied before it must be noted, or it is garbage.
	err = errors.Join(err, m.commitMoves())
	shared := k.s.hot
	shared.mu.Lock()
	total := sum(&shared.mu.state)
	total.Blocks += m.sum.Blocks
	total.From += m.sum.From
	total.To += m.sum.To
	total.Segments += m.sum.Segments
	total.Skipped += m.sum.Skipped
	total.Unreadable += m.sum.Unreadable
	shared.mu.state.State = "idle"
	shared.mu.Unlock()
	if errors.Is(err, errClosingTime) {
		return nil
	}
	return err
}

// neighbours is how far from a block that comes back others come with it, if they
// were used as well: a file that is read again is mostly in one stretch.
const neighbours = 4 << 20

// promote brings back what was used again.
func (k *tierManager) promote(ctx context.Context) error {
	shared := k.s.hot
	shared.mu.Lock()
	// Taken as a whole: a block that is used again while it is moved asks again.
	wanted := shared.mu.wanted
	shared.mu.wanted = make(map[ID]struct{})
	shared.mu.Unlock()
	if len(wanted) == 0 || k.usage.Cold != "" {
		return nil
	}
	if err := k.measure(); err != nil {
		return err
	}
	// Welcome goes by the census; one that is a sixteenth of the window old will do.
	if k.usage.Now.Sub(k.counted) > max(time.Minute, time.Duration(k.p.Window)*time.Second/16) {
		if err := k.count(ctx, k.p); err != nil {
			return err
		}
	}
	places := make(map[uint64][]uint32)
	bytes := int64(0)
	heat := shared.heat.Load()
	for id := range wanted {
		e, err := k.s.index.Lookup(id)
		if err != nil || e.Kind != tiering.Data || e.Loc.Tier != tiering.Cold {
			continue
		}
		// In what order they come is the map's: Welcome bounds their sum.
		if _, warm := heat.heat.Of(id); k.p.Welcome(&k.usage, warm, bytes+e.Stored()) {
			places[e.Loc.Segment] = append(places[e.Loc.Segment], e.Loc.Offset)
			bytes += e.Stored()
		}
	}
	m := k.newMover(tiering.Hot)
	var err error
	for number, offsets := range places {
		var ids []ID
		if ids, err = k.around(number, offsets, heat); err == nil {
			err = m.move(ctx, ids)
		}
		if err != nil {
			break
		}
	}
	return k.finish(m, err, func(st *TierManagerState) *Moved { return &st.Promoted })
}

// around returns the blocks at offsets of a segment and, near them, those that were
// used within the window, in order.
func (k *tierManager) around(number uint64, offsets []uint32, heat *heatClock) (ids []ID, err error) {
	records, err := k.s.tiers.Records(number)
	if err != nil && !errors.Is(err, tiering.ErrCorrupt) {
		return nil, err
	}
	slices.Sort(offsets)
	now := uint32(k.usage.Now.Unix())
	for _, r := range records {
		i, exact := slices.BinarySearch(offsets, r.Offset)
		// The nearest wanted offsets on both sides, as offsets are sorted.
		near := i > 0 && r.Offset-offsets[i-1] < neighbours || i < len(offsets) && offsets[i]-r.Offset < neighbours
		seen, _ := heat.heat.Of(r.ID)
		if exact || near && seen+heat.window >= now {
			ids = append(ids, r.ID)
		}
	}
	return ids, nil
}

// PlanTiers says what a policy would have moved now, and why.
func (tm *tierManagement) PlanTiers(ctx context.Context, p TierPolicy, pins Pins) (TierPlan, error) {
	if err := config.ValidTiers(p); err != nil {
		return TierPlan{}, err
	}
	k := &tierManager{s: tm, o: TierManagerOptions{Pins: pins}}
	return k.look(ctx, p)
}

// heatSaved is how often the memory of heat is written; losing it costs nothing but
// warmth.
const (
	heatSaved = 10 * time.Minute
	heatFile  = "heat"
)

func (tm *tierManagement) loadHeat(h *tiering.Heat) {
	path := tm.dir.Join(heatFile)
	st, err := os.Stat(path)
	// The file is no part of what a store keeps: without it all blocks are cold.
	if err != nil || st.Size() > tiering.MaxHeatFile {
		return
	}
	b, err := os.ReadFile(path)
	if err == nil {
		err = h.Decode(b)
	}
	if err != nil {
		tm.log.Info("how warm blocks were is forgotten", "err", err)
	}
}

func (tm *tierManagement) saveHeat(h *tiering.Heat) {
	path := tm.dir.Join(heatFile)
	if h.Empty() {
		return
	}
	if err := durable.Write(path, h.Encode()); err != nil {
		tm.log.Warn("cannot write how warm blocks are", "err", err)
	}
}
