package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quarxtor/quarxfs/store/chunk"
	"github.com/quarxtor/quarxfs/store/config"
	"github.com/quarxtor/quarxfs/tiering"
)

// openKept opens a store of small segments with a clock that tests move, a policy
// and, if it is to have one, a cold tier.
func openKept(t *testing.T, cold bool, p TierPolicy) (*Store, *atomic.Int64) {
	t.Helper()
	root := t.TempDir()
	c := smallConfig()
	c.Chunker = chunk.Default()
	c.SegmentSize = 1 << 20
	dir := filepath.Join(root, "store")
	if err := Init(dir, c); err != nil {
		t.Fatal(err)
	}
	clock := new(atomic.Int64)
	clock.Store(time.Now().Unix())
	s, err := Open(dir, Options{SweepInterval: -1, Ballast: -1, MemTable: 8 << 20, CacheBytes: 1, Now: func() time.Time { return time.Unix(clock.Load(), 0).UTC() }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if cold {
		if err := s.AddCold(filepath.Join(root, "cold")); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.ChangeSettings(func(set *config.Settings) error { set.Tiers = p; return nil }); err != nil {
		t.Fatal(err)
	}
	return s, clock
}

func keep(t *testing.T, s *Store, o TierManagerOptions) (stop func()) {
	t.Helper()
	o.Every = 10 * time.Millisecond
	kctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { s.ManageTiers(kctx, o); close(done) }()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

// await waits for what a goroutine brings about.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s does not happen", what)
		}
	}
}

func liveHot(t *testing.T, s *Store) int64 {
	t.Helper()
	use, err := s.tierUse()
	if err != nil {
		t.Fatal(err)
	}
	return use[tiering.Hot].live
}

func TestTierManagerDemotesWhatIsCold(t *testing.T) {
	s, clock := openKept(t, true, TierPolicy{Limit: 8 << 20, High: 50, Low: 30})
	kept := ingestWords(t, s, "a", "b", "c", "d", "e", "f", "g", "h")
	before := liveHot(t, s)
	if before < 4<<20 {
		t.Fatalf("only %d bytes", before)
	}
	keep(t, s, TierManagerOptions{})
	// Everything is younger than an hour, so nothing may move yet.
	await(t, "a plan", func() bool { return len(s.TierManager().Why) > 0 })
	if k := s.TierManager(); k.Demoted.Blocks != 0 {
		t.Errorf("young blocks were moved: %+v", k)
	}
	// "a" is used often, the others are not.
	for range 3 {
		clock.Add(600)
		var b bytes.Buffer
		if err := s.Fetch(ctx, "a", 0, -1, &b); err != nil {
			t.Fatal(err)
		}
	}
	if c := s.Stats().Tiers[0].Curve; len(c) != 5 || c[1].Bytes != 8<<20 {
		t.Errorf("the hot tier's curve: %v", c)
	}
	clock.Add(3600)
	await(t, "demotion", func() bool { return liveHot(t, s) <= 8<<20*30/100+200<<10 })
	for _, name := range []string{"a", "b"} {
		hot := hotShare(t, s, name)
		if name == "a" && hot < 0.99 || name == "b" && hot > 0.01 {
			t.Errorf("%s: %.0f %% is hot", name, 100*hot)
		}
	}
	requireObjects(t, s, kept)
	// The first reading was a scan's; after the second "b" comes back.
	clock.Add(60)
	for range 2 {
		clock.Add(60)
		var b bytes.Buffer
		if err := s.Fetch(ctx, "b", 0, -1, &b); err != nil {
			t.Fatal(err)
		}
	}
	await(t, "promotion", func() bool { return s.TierManager().Promoted.Blocks > 0 })
	requireObjects(t, s, kept)
	requireSound(t, s)
}

// objectID returns the vertex or block of an object.
func objectID(t *testing.T, s *Store, name string) (id ID) {
	t.Helper()
	err := s.Objects(ctx, "", func(o ObjectInfo) error {
		if o.Name == name {
			id = o.ID
		}
		return nil
	})
	if err != nil || id == (ID{}) {
		t.Fatalf("no object %s: %v", name, err)
	}
	return id
}

// hotShare returns how much of an object's blocks is in the hot tier.
func hotShare(t *testing.T, s *Store, name string) float64 {
	t.Helper()
	var hot, all int
	err := s.EachBelow(ctx, objectID(t, s, name), func(id ID) bool {
		if e, err := s.Lookup(id); err != nil {
			t.Fatal(err)
		} else if e.Kind == tiering.Data {
			all++
			if e.Loc.Tier == tiering.Hot {
				hot++
			}
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return float64(hot) / float64(all)
}

func TestTierManagerLeavesPinsAlone(t *testing.T) {
	s, clock := openKept(t, true, TierPolicy{Limit: 8 << 20, High: 30, Low: 10, MinAge: -1})
	kept := ingestWords(t, s, "a", "b", "c", "d", "e", "f")
	a := objectID(t, s, "a")
	pins := func(_ context.Context, fn func(ID) error) error { return fn(a) }
	clock.Add(10)
	plan, err := s.PlanTiers(ctx, TierPolicy{Limit: 8 << 20, High: 30, Low: 10, MinAge: -1}, pins)
	if err != nil || plan.Demote == 0 {
		t.Fatalf("plan %+v, %v", plan, err)
	}
	keep(t, s, TierManagerOptions{Pins: pins})
	await(t, "demotion", func() bool { return s.TierManager().Demoted.Blocks > 0 && s.TierManager().State == "idle" })
	if hot := hotShare(t, s, "a"); hot < 1 {
		t.Errorf("%.0f %% of what is pinned is hot", 100*hot)
	}
	ids, _ := dataBlocks(t, s)
	free, err := s.Unpinned(ctx, tiering.Cold, ids, pins)
	if err != nil || len(free) == len(ids) {
		t.Errorf("%d of %d blocks are not pinned, %v", len(free), len(ids), err)
	}
	if _, err := s.Move(ctx, tiering.Cold, free, MoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if a, b := hotShare(t, s, "a"), hotShare(t, s, "b"); a < 1 || b > 0 {
		t.Errorf("after a move %.0f %% of what is pinned, %.0f %% of what is not are hot", 100*a, 100*b)
	}
	requireObjects(t, s, kept)
	requireSound(t, s)
}

// Over the limit writers are slowed and get through.
func TestWritersOverTheLimit(t *testing.T) {
	s, _ := openKept(t, true, TierPolicy{Limit: 4 << 20, Hours: "00:00-00:01"})
	keep(t, s, TierManagerOptions{Busy: func() string { return "" }})
	await(t, "the limit", func() bool { return s.hot.limit.Load() > 0 })
	kept := make(map[string][]byte)
	for i := range 12 {
		name := fmt.Sprint(i)
		kept[name] = randomBytes(uint64(i), 1<<20)
		if err := s.Admit(1 << 20); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Ingest(ctx, bytes.NewReader(kept[name]), name); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	await(t, "room", func() bool { return s.hot.hotFiles() < 4<<20 })
	requireObjects(t, s, kept)
	requireSound(t, s)
}

// Without a cold tier the limit is the end, and removing makes room again.
func TestLimitWithoutColdTier(t *testing.T) {
	s, _ := openKept(t, false, TierPolicy{Limit: 4 << 20})
	keep(t, s, TierManagerOptions{})
	await(t, "the limit", func() bool { return s.hot.limit.Load() > 0 })
	kept := make(map[string][]byte)
	var err error
	for i := range 60 {
		name := fmt.Sprint(i)
		data := randomBytes(uint64(i), 256<<10)
		if _, err = s.Ingest(ctx, bytes.NewReader(data), name); err != nil {
			break
		}
		kept[name] = data
	}
	if !errors.Is(err, ErrFull) {
		t.Fatalf("after %d objects: %v", len(kept), err)
	}
	requireObjects(t, s, kept)
	for name := range kept {
		if err := s.Delete(ctx, name); err != nil {
			t.Fatal(err)
		}
		delete(kept, name)
	}
	await(t, "room", func() bool { return s.Admit(1<<20) == nil && s.hot.hotFiles() < 4<<20 })
	requireSound(t, s)
}

// A busy machine, a pause and the hours keep blocks where they are; settings are
// followed at once.
func TestTierManagerWaits(t *testing.T) {
	p := TierPolicy{Limit: 64 << 20, High: 4, Low: 2, MinAge: -1, Paused: true}
	s, _ := openKept(t, true, p)
	ingestWords(t, s, "a", "b", "c", "d", "e", "f")
	var busy atomic.Bool
	busy.Store(true)
	keep(t, s, TierManagerOptions{Busy: func() string {
		if busy.Load() {
			return "the disk is slow"
		}
		return ""
	}})
	await(t, "a plan", func() bool { return len(s.TierManager().Why) > 0 })
	if k := s.TierManager(); k.State != "idle" || k.Demoted.Blocks > 0 {
		t.Errorf("paused: %+v", k)
	}
	p.Paused = false
	if err := s.ChangeSettings(func(set *config.Settings) error { set.Tiers = p; return nil }); err != nil {
		t.Fatal(err)
	}
	await(t, "waiting", func() bool { return s.TierManager().State == "waiting" })
	if k := s.TierManager(); k.Demoted.Blocks > 0 {
		t.Errorf("busy: %+v", k)
	}
	busy.Store(false)
	await(t, "demotion", func() bool { return s.TierManager().Demoted.Blocks > 0 })
	if err := s.ChangeSettings(func(set *config.Settings) error { set.Tiers = TierPolicy{}; return nil }); err != nil {
		t.Fatal(err)
	}
	await(t, "its end", func() bool { return s.TierManager().State == "off" })
	requireSound(t, s)
}

func TestHeatIsKept(t *testing.T) {
	s, clock := openKept(t, true, TierPolicy{Limit: 1 << 40})
	ingestWords(t, s, "a")
	stop := keep(t, s, TierManagerOptions{})
	await(t, "heat", func() bool { return s.hot.heat.Load() != nil })
	for range 2 {
		clock.Add(60)
		if err := s.Fetch(ctx, "a", 0, -1, &bytes.Buffer{}); err != nil {
			t.Fatal(err)
		}
	}
	ids, _ := dataBlocks(t, s)
	stop()
	h := tiering.NewHeat(0)
	s.loadHeat(h)
	for _, id := range ids {
		if _, warm := h.Of(id); warm == 0 {
			t.Fatalf("block %s is not warm", id.Short())
		}
	}
}
