package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quarxtor/quarxfs/store/db"
	"github.com/quarxtor/quarxfs/store/handle"
	"github.com/quarxtor/quarxfs/store/vertex"
	"github.com/quarxtor/quarxfs/tiering"
)

// The parts of a store, each by itself: no test here opens one.

// aBase is what parts have in common, with a database and a hot tier, and a clock that a test
// moves.
func aBase(t *testing.T) (*base, *time.Time) {
	t.Helper()
	d, err := db.Open(db.Options{Dir: t.TempDir(), MemTable: 8 << 20, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	tiers, err := tiering.Open(tiering.Options{HotDir: t.TempDir(), SegmentSize: 16 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tiers.Close() })
	now := time.Date(2026, 1, 2, 12, 0, 0, 0, time.Local)
	dir, err := handle.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dir.Close() })
	return &base{dir: dir, db: d, tiers: tiers, memory: new(memory), log: slog.New(slog.DiscardHandler), now: func() time.Time { return now }}, &now
}

func aCommitter(b *base) *committer {
	ix, pd := &index{base: b}, new(pending)
	*pd = newPending()
	return &committer{
		base: b, index: ix, pending: pd, appender: &appender{base: b},
		bad:     &badBlocks{base: b, blocks: make(map[ID]BadBlock), changed: make(map[ID]struct{})},
		history: &history{base: b, index: ix}, kick: make(chan struct{}, 1),
	}
}

func idOf(name string) ID { return vertex.Sum(tiering.Data, []byte(name)) }

func TestSweepDecides(t *testing.T) {
	b, _ := aBase(t)
	cm := aCommitter(b)
	sw := &sweeper{base: b, index: cm.index, pending: cm.pending, commits: cm, history: cm.history}
	child := idOf("child")
	nothing := func() {}
	for name, tc := range map[string]struct {
		kind    tiering.Kind
		refs    uint64
		links   []ID
		noRow   bool
		arrange func(id ID) (undo func())
		taken   bool
	}{
		"nothing refers to it": {kind: tiering.Data, taken: true},
		"something refers":     {kind: tiering.Data, refs: 1},
		"a reference is not committed": {kind: tiering.Data, arrange: func(id ID) func() {
			cm.pending.Ref(id, 1)
			return nothing
		}},
		"a reference is being committed": {kind: tiering.Data, arrange: func(id ID) func() {
			cm.frozen = map[ID]change{id: {delta: 1}}
			return func() { cm.frozen = nil }
		}},
		"held": {kind: tiering.Data, arrange: func(id ID) func() {
			release := cm.pending.Hold()
			cm.pending.note(id)
			return release
		}},
		"no longer held": {kind: tiering.Data, taken: true, arrange: func(id ID) func() {
			release := cm.pending.Hold()
			cm.pending.note(id)
			release()
			return nothing
		}},
		"pinned twice, let go once": {kind: tiering.Data, arrange: func(id ID) func() {
			pin := cm.pending.NewPin()
			pin.Add(id, id)
			pin.Drop(id)
			return pin.Release
		}},
		"the sweep is paused": {kind: tiering.Data, arrange: func(ID) func() { return cm.pending.PauseSweep() }},
		"the database is an older one": {kind: tiering.Data, arrange: func(ID) func() {
			cm.history.behind = 1
			return func() { cm.history.behind = 0 }
		}},
		"a vertex":                        {kind: tiering.File, links: []ID{child, child}, taken: true},
		"a vertex that could not be read": {kind: tiering.File},
		"a stray row":                     {noRow: true},
	} {
		t.Run(name, func(t *testing.T) {
			id := idOf(name)
			if !tc.noRow {
				b.db.Set(blockKey(keyBlock, id), Entry{Kind: tc.kind, Raw: 1, Refs: tc.refs, Loc: tiering.Location{Segment: 1, Length: 57}}.encode())
			}
			b.db.Set(blockKey(keyZero, id), nil)
			if tc.arrange != nil {
				defer tc.arrange(id)()
			}
			links := make(map[ID][]ID)
			if tc.links != nil {
				links[id] = tc.links
			}
			before := cm.pending.changes[child].delta
			var total Swept
			if err := sw.sweepStep([]ID{id}, links, &total); err != nil {
				t.Fatal(err)
			}
			_, row := b.db.Get(blockKey(keyBlock, id))
			_, zero := b.db.Get(blockKey(keyZero, id))
			if gone := errors.Is(row, db.ErrNotFound); gone != (tc.taken || tc.noRow) || total.Blocks == 1 != tc.taken {
				t.Errorf("row: %v; %+v", row, total)
			}
			if gone := errors.Is(zero, db.ErrNotFound); gone != (tc.taken || tc.noRow) {
				t.Errorf("row of the sweep: %v", zero)
			}
			if got := cm.pending.changes[child].delta - before; got != -int64(len(tc.links)) {
				t.Errorf("what it links to has %d references", got)
			}
		})
	}
}

// Holds that overlap without end must still let go of what the oldest have kept.
func TestHoldsLetGo(t *testing.T) {
	pd := newPending()
	first := pd.Hold()
	for i := range generationSize {
		pd.note(idOf(fmt.Sprint(i)))
	}
	second := pd.Hold()
	pd.note(idOf("later"))
	if old, later := idOf("0"), idOf("later"); !pd.holds.has(old) || !pd.holds.has(later) {
		t.Error("a block that is held is not")
	}
	first()
	if old, later := idOf("0"), idOf("later"); pd.holds.has(old) || !pd.holds.has(later) {
		t.Error("the second hold keeps what only the first did, or not its own")
	}
	second()
	if len(pd.holds.generations) > 0 {
		t.Errorf("%d generations without a holder", len(pd.holds.generations))
	}
}

// A commit adds up what happened to a block and makes rows of it that agree.
func TestCommitterResolves(t *testing.T) {
	b, _ := aBase(t)
	cm := aCommitter(b)
	id := idOf("block")
	here, there := tiering.Location{Segment: 5, Offset: 32, Length: 100}, tiering.Location{Segment: 6, Offset: 64, Length: 90}
	b.db.Set(blockKey(keyBlock, id), Entry{Kind: tiering.Data, Raw: 200, Loc: here}.encode())
	for _, step := range []struct {
		what   string
		change change
		refs   uint64
		loc    tiering.Location
	}{
		{"stored and referred to", change{fresh: true, delta: 2}, 2, here},
		{"let go", change{delta: -2}, 0, here},
		{"let go once too often", change{delta: -1}, 0, here},
		{"referred to again", change{delta: 1}, 1, here},
		{"copied from where it is not", change{move: &relocation{from: there, to: location{here, tiering.Zstd}}}, 1, here},
		{"copied", change{move: &relocation{from: here, to: location{there, tiering.Zstd}}}, 1, there},
	} {
		cm.pending.changes[id] = step.change
		if err := cm.Commit(); err != nil {
			t.Fatalf("%s: %v", step.what, err)
		}
		e, err := cm.index.Lookup(id)
		if err != nil || e.Refs != step.refs || e.Loc != step.loc {
			t.Errorf("%s: %+v, %v", step.what, e, err)
		}
		_, err = b.db.Get(blockKey(keyZero, id))
		if isZero := err == nil; isZero != (step.refs == 0) {
			t.Errorf("%s: the sweep's row: %v", step.what, err)
		}
		var live [2]int64
		for i, n := range []uint64{here.Segment, there.Segment} {
			if live[i], err = cm.index.liveBytes(n); err != nil {
				t.Fatal(err)
			}
		}
		if want := map[bool][2]int64{true: {100, 0}, false: {0, 90}}[step.loc == here]; live != want {
			t.Errorf("%s: segments have %v in use, want %v", step.what, live, want)
		}
		got := cm.totalsNow()
		if got.Blocks[tiering.Data] != 1 || got.Raw[tiering.Data] != 200 || (got.Zero == 1) != (step.refs == 0) || got.Appended.Blocks != 1 {
			t.Errorf("%s: totals %+v", step.what, got)
		}
		if len(cm.pending.changes)+len(cm.pending.fresh)+len(cm.frozen) > 0 {
			t.Errorf("%s: something is left to commit", step.what)
		}
	}
}

// failing is a participant whose part of a commit fails until it is told not to.
type failing struct{ err error }

func (f *failing) Flush() error { return nil }
func (f *failing) Cut() error   { return f.err }

func TestCommitterGoesOnAfterAFailure(t *testing.T) {
	b, now := aBase(t)
	cm := aCommitter(b)
	id, broken := idOf("block"), errors.New("broken")
	b.db.Set(blockKey(keyBlock, id), Entry{Kind: tiering.Data, Raw: 1, Loc: tiering.Location{Segment: 1, Length: 57}}.encode())
	p := &failing{broken}
	cm.Join(p)
	cm.pending.Ref(id, 1)
	if err := cm.Commit(); !errors.Is(err, broken) || !cm.LastCommit().IsZero() {
		t.Errorf("%v, last commit %v", err, cm.LastCommit())
	}
	p.err = nil
	// Refused without a try at first, so that a broken disk is not asked by every change.
	if err := cm.Accepts(); !errors.Is(err, broken) {
		t.Errorf("a change right after: %v", err)
	}
	*now = now.Add(stuckRetry)
	if err := cm.Accepts(); err != nil || !cm.LastCommit().Equal(*now) {
		t.Errorf("a change later: %v, last commit %v", err, cm.LastCommit())
	}
	if e, err := cm.index.Lookup(id); err != nil || e.Refs != 1 {
		t.Errorf("what the failed commit had: %+v, %v", e, err)
	}
}

func TestMergeOfChanges(t *testing.T) {
	dead, move := &Entry{Raw: 1}, &relocation{}
	for name, tc := range map[string]struct{ older, newer, want change }{
		"references add up":          {change{delta: 2}, change{delta: -1}, change{delta: 1}},
		"new stays new":              {change{fresh: true, delta: 1}, change{delta: 1}, change{fresh: true, delta: 2}},
		"moved later":                {change{delta: 1}, change{move: move}, change{delta: 1, move: move}},
		"swept forgets what was":     {change{delta: 3, move: move}, change{dead: dead}, change{dead: dead}},
		"swept, then put once again": {change{dead: dead}, change{fresh: true, delta: 1}, change{dead: dead, fresh: true, delta: 1}},
	} {
		id := idOf(name)
		if got := merge(map[ID]change{id: tc.older}, map[ID]change{id: tc.newer})[id]; got != tc.want {
			t.Errorf("%s: %+v, want %+v", name, got, tc.want)
		}
	}
}

func TestTierManagerWants(t *testing.T) {
	b, now := aBase(t)
	ht := &hotTier{base: b}
	ht.mu.wanted = make(map[ID]struct{})
	ht.heat.Store(&heatClock{tiering.NewHeat(0), 3600})
	for _, tc := range []struct {
		what  string
		after time.Duration
		cold  bool
		want  bool
	}{
		{"cold, twice within the window", time.Minute, true, true},
		{"cold, twice in one read", time.Second, true, false},
		{"cold, once a day", 24 * time.Hour, true, false},
		{"hot", time.Minute, false, false},
	} {
		id := idOf(tc.what)
		ht.used(id, tc.cold)
		if _, ok := ht.mu.wanted[id]; ok {
			t.Errorf("%s: it is wanted back after one use", tc.what)
		}
		*now = now.Add(tc.after)
		ht.used(id, tc.cold)
		if _, ok := ht.mu.wanted[id]; ok != tc.want {
			t.Errorf("%s: wanted %v", tc.what, ok)
		}
	}
	for i := range maxWanted + 10 {
		ht.mu.wanted[idOf(fmt.Sprint(i))] = struct{}{}
		if len(ht.mu.wanted) == maxWanted {
			break
		}
	}
	late := idOf("late")
	ht.used(late, true)
	*now = now.Add(time.Minute)
	if ht.used(late, true); len(ht.mu.wanted) != maxWanted {
		t.Errorf("%d blocks wait", len(ht.mu.wanted))
	}
}

// Of a segment, what is asked for comes back, and near it what was used as well.
func TestTierManagerBringsNeighbours(t *testing.T) {
	b, now := aBase(t)
	ht := &hotTier{base: b}
	heat := &heatClock{tiering.NewHeat(0), 3600}
	ht.heat.Store(heat)
	k := &tierManager{s: &tierManagement{base: b, hot: ht}, usage: tiering.Usage{Now: *now}}
	offsets := make(map[string]uint32)
	var segment uint64
	for _, r := range []struct {
		name string
		size int
		used bool
	}{{"wanted", 10, true}, {"near and used", 10, true}, {"near", 10, false}, {"gap", neighbours, true}, {"far and used", 10, true}} {
		plain := []byte(strings.Repeat("x", r.size))
		loc, err := b.tiers.Append(tiering.Record{ID: idOf(r.name), Kind: tiering.Data, Codec: tiering.Raw, RawLen: uint32(len(plain)), Payload: plain})
		if err != nil {
			t.Fatal(err)
		}
		segment, offsets[r.name] = loc.Segment, loc.Offset
		if r.used {
			heat.heat.Touch(idOf(r.name), uint32(now.Unix()), heat.window)
		}
	}
	got, err := k.around(segment, []uint32{offsets["wanted"]}, heat)
	if want := []ID{idOf("wanted"), idOf("near and used"), idOf("gap")}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, want %v, %v", got, want, err)
	}
}

func TestTierManagerKeepsHours(t *testing.T) {
	b, _ := aBase(t)
	ht := &hotTier{base: b}
	night := TierPolicy{Limit: 1, Hours: "22:00-06:00"}
	busy := func() string { t.Error("asked whether the machine is busy"); return "it is" }
	idle := func() string { return "" }
	for _, tc := range []struct {
		what   string
		p      TierPolicy
		urgent bool
		busy   func() string
		want   error
	}{
		{"at noon, with hours at night", night, false, busy, errClosingTime},
		{"at noon, and over the limit", night, true, busy, nil},
		{"at any time", TierPolicy{Limit: 1}, false, idle, nil},
		{"though it may be busy", TierPolicy{Limit: 1, Busy: true}, false, busy, nil},
	} {
		k := &tierManager{s: &tierManagement{base: b, hot: ht}, p: tc.p.WithDefaults(), urgent: tc.urgent, o: TierManagerOptions{Busy: tc.busy}}
		if err := k.waitIdle(context.Background()); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v", tc.what, err)
		}
	}
}

// A fakeDisk is what room asks: a disk with so much room, and what gives some back.
type fakeDisk struct {
	free              int64
	swept, compaction int64     // what a sweep and a compaction give back
	refused, hot      error     // of commits and of the hot tier
	sweeps, commits   int       // how often it was asked
	compactions       []float64 // with which share
	database          int       // how often the database was compacted
}

func (d *fakeDisk) Admit(n int64) error {
	if d.free < n {
		return ErrFull
	}
	return nil
}
func (d *fakeDisk) Free() int64             { return d.free }
func (d *fakeDisk) Compact() (int64, error) { d.database++; return 0, ErrFull }
func (d *fakeDisk) Accepts() error          { return d.refused }
func (d *fakeDisk) Commit() error           { d.commits++; return nil }
func (d *fakeDisk) throttleHot() error      { return d.hot }
func (d *fakeDisk) Sweep(context.Context) (Swept, error) {
	d.sweeps++
	d.free += d.swept
	return Swept{}, nil
}

type fakeRelocator struct{ *fakeDisk }

func (d fakeRelocator) Compact(_ context.Context, o CompactOptions) (Compacted, error) {
	d.compactions = append(d.compactions, o.MinLive)
	d.free += d.compaction
	return Compacted{}, nil
}

func aRoom(d *fakeDisk, now *time.Time) *room {
	pd := new(pending)
	*pd = newPending()
	return &room{
		base:    &base{log: slog.New(slog.DiscardHandler), now: func() time.Time { return *now }},
		pending: pd, disk: d, commits: d, sweeper: d, relocator: fakeRelocator{d}, hot: d, sweepInterval: time.Second,
	}
}

func TestRoomAdmits(t *testing.T) {
	refused := errors.New("refused")
	const n, all = 1 << 20, 1<<20 + roomAhead
	for name, tc := range map[string]struct {
		disk        fakeDisk
		interval    time.Duration
		want        error
		sweeps      int
		compactions []float64
		database    int
	}{
		"there is room":           {disk: fakeDisk{free: n}, interval: 1},
		"commits fail":            {disk: fakeDisk{free: n, refused: refused}, interval: 1, want: refused},
		"the hot tier is full":    {disk: fakeDisk{free: n, hot: ErrFull}, interval: 1, want: ErrFull},
		"a sweep gives all":       {disk: fakeDisk{swept: all}, interval: 1, sweeps: 1},
		"a sweep gives a little":  {disk: fakeDisk{swept: n, compaction: roomAhead}, interval: 1, sweeps: 1, compactions: []float64{0.5}},
		"nothing gives any":       {disk: fakeDisk{}, interval: 1, want: ErrFull, sweeps: 1, compactions: []float64{0.5, 0.8, maxMinLive}, database: 1},
		"sweeps are the caller's": {disk: fakeDisk{swept: all}, interval: -1, want: ErrFull},
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Now()
			d := tc.disk
			rm := aRoom(&d, &now)
			rm.sweepInterval = tc.interval
			if err := rm.Admit(n); !errors.Is(err, tc.want) {
				t.Errorf("%v, want %v", err, tc.want)
			}
			if d.sweeps != tc.sweeps || d.commits != tc.sweeps || !slices.Equal(d.compactions, tc.compactions) || d.database != tc.database {
				t.Errorf("%d sweeps, %d commits, compactions %v, of the database %d", d.sweeps, d.commits, d.compactions, d.database)
			}
		})
	}
}

// On a full disk every write asks for room: one sweep that found nothing is enough for all of them,
// until something is deleted or some time has passed.
func TestRoomSweepsSeldom(t *testing.T) {
	now := time.Now()
	d := &fakeDisk{}
	rm := aRoom(d, &now)
	for _, step := range []struct {
		what   string
		before func()
		sweeps int
	}{
		{"the first", func() {}, 1},
		{"at once again", func() {}, 1},
		{"after something was let go", func() { rm.pending.Ref(idOf("a"), -1) }, 2},
		{"at once again", func() {}, 2},
		{"a while later", func() { now = now.Add(roomRetry) }, 3},
	} {
		step.before()
		if err := rm.Admit(1); !errors.Is(err, ErrFull) || d.sweeps != step.sweeps {
			t.Errorf("%s: %v, %d sweeps, want %d", step.what, err, d.sweeps, step.sweeps)
		}
	}
}

const aVolume, anotherVolume, aDatabase = "000102030405060708090a0b0c0d0e0f", "ff0102030405060708090a0b0c0d0e0f", "101112131415161718191a1b1c1d1e1f"

func TestLastCommitSurvives(t *testing.T) {
	dir := t.TempDir()
	says := func(what string, want uint64) {
		t.Helper()
		m, ok, err := readLastCommit(dir)
		if err != nil || ok != (want > 0) || m.commits != want {
			t.Errorf("%s: the file says %d (%v, %v), want %d", what, m.commits, ok, err, want)
		}
	}
	says("no file", 0)
	var l lastCommit
	open := func(volume, database string) {
		t.Helper()
		l = lastCommit{}
		if err := l.open(dir, volume, database); err != nil {
			t.Fatal(err)
		}
	}
	note := func(n uint64) {
		t.Helper()
		if err := l.note(n); err != nil {
			t.Fatal(err)
		}
	}
	open(aVolume, aDatabase)
	says("a new file", 0)
	note(1)
	note(2)
	note(3)
	note(2) // of an older database that is being repaired
	says("after three", 3)
	if err := l.close(); err != nil {
		t.Fatal(err)
	}

	name := filepath.Join(dir, lastCommitName)
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	// A crash may tear what is being written: the third commit, whichever slot it is in.
	at, _, _ := readLastCommit(dir)
	torn := slices.Clone(whole)
	torn[at.slot*lastCommitStep+lastCommitSize-1]++
	write := func(b []byte) {
		t.Helper()
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(torn)
	says("the newest slot is torn", 2)
	torn[(1-at.slot)*lastCommitStep]++
	write(torn)
	says("both slots are torn", 0)
	write(whole[:10])
	says("cut short", 0)

	write(whole)
	open(aVolume, aDatabase)
	says("opened again", 3)
	note(4)
	torn, err = os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	at, _, _ = readLastCommit(dir)
	torn[at.slot*lastCommitStep]++
	write(torn)
	says("the first commit since is torn", 3)
	_ = l.close()

	write(whole)
	open(aVolume, anotherVolume) // a rebuilt database has another name
	says("of another database", 0)
	_ = l.close()
}

func TestLastCommitTellsDatabases(t *testing.T) {
	dir := t.TempDir()
	d, err := db.Open(db.Options{Dir: filepath.Join(dir, dbDir), MemTable: 8 << 20, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	id := d.ID()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	found, err := db.Inspect(filepath.Join(dir, dbDir), false)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		what             string
		volume, database string
		commits          uint64
		damaged          bool
	}{
		{"this one", aVolume, id, 7, false},
		{"another database of this store", aVolume, aDatabase, 0, true},
		{"this database in another store", anotherVolume, id, 0, true},
		{"another store's file", anotherVolume, aDatabase, 0, false},
	} {
		var l lastCommit
		err := l.open(dir, tc.volume, tc.database)
		if err == nil {
			err = errors.Join(l.note(7), l.close())
		}
		if err != nil {
			t.Fatal(err)
		}
		commits, err := l.compare(dir, aVolume, found)
		if commits != tc.commits || errors.Is(err, ErrDamaged) != tc.damaged || !tc.damaged && err != nil {
			t.Errorf("%s: %d commits, %v", tc.what, commits, err)
		}
	}
}
