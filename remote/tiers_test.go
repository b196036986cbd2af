package remote_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quarxtor/quarxfs/graph/export"
	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/tiering"
)

func TestTiers(t *testing.T) {
	eachNodeBehind(t, remote.ControlHandler, func(t *testing.T, n remote.Node) {
		ctx := context.Background()
		none := func(remote.Shift) error { return nil }
		if err := n.RemoveCold(ctx); !errors.Is(err, store.ErrNoTier) {
			t.Errorf("remove no tier: %v", err)
		}
		if err := n.RelocateCold(ctx, t.TempDir(), nil); !errors.Is(err, store.ErrNoTier) {
			t.Errorf("relocate no tier: %v", err)
		}
		if err := n.Shift(ctx, remote.ShiftRequest{To: "hot", Drain: true}, none); !errors.Is(err, store.ErrNoTier) {
			t.Errorf("drain no tier: %v", err)
		}
		for _, bad := range []remote.ShiftRequest{{To: "warm", Paths: []string{"a"}}, {To: "cold"}, {To: "cold", Drain: true}, {To: "hot", Drain: true, Paths: []string{"a"}}} {
			if err := n.Shift(ctx, bad, none); !errors.Is(err, remote.ErrRequest) && !errors.Is(err, store.ErrConfig) {
				t.Errorf("%+v: %v", bad, err)
			}
		}
		if err := n.AddCold(ctx, "not/absolute", nil); !errors.Is(err, store.ErrConfig) {
			t.Errorf("a relative directory: %v", err)
		}
		dir := filepath.Join(t.TempDir(), "cold")
		if err := n.AddCold(ctx, dir, nil); err != nil {
			t.Fatal(err)
		}
		if err := n.AddCold(ctx, dir+"2", nil); !errors.Is(err, store.ErrHasTier) {
			t.Errorf("a second cold tier: %v", err)
		}
		if err := n.RelocateCold(ctx, dir+"2", nil); !errors.Is(err, store.ErrNotCold) {
			t.Errorf("relocated to nothing: %v", err)
		}
		if err := os.Rename(dir, dir+"3"); err != nil {
			t.Fatal(err)
		}
		dir += "3"
		if err := n.RelocateCold(ctx, dir, nil); err != nil {
			t.Errorf("relocate: %v", err)
		}
		if _, err := n.Put(ctx, "a", strings.NewReader(strings.Repeat("some text ", 1000))); err != nil {
			t.Fatal(err)
		}
		list, err := n.Tiers(ctx)
		if err != nil || len(list) != 2 || list[0].Name != "hot" || list[0].Live == 0 || list[1].Name != "cold" || list[1].Dir != dir || list[1].Fault != "" {
			t.Errorf("tiers: %+v, %v", list, err)
		}
		var last remote.Shift
		dry := remote.ShiftRequest{To: "hot", Drain: true, DryRun: true}
		if err := n.Shift(ctx, dry, func(s remote.Shift) error { last = s; return nil }); err != nil || !last.Done || last.Plan.Blocks != 0 {
			t.Errorf("plan of a drain: %+v, %v", last, err)
		}
		err = n.Shift(ctx, remote.ShiftRequest{To: "hot", Drain: true}, func(s remote.Shift) error { last = s; return nil })
		if err != nil || !last.Done || last.Moved.Blocks != 0 {
			t.Errorf("drain: %+v, %v", last, err)
		}
		if err := n.RemoveCold(ctx); err != nil {
			t.Errorf("remove: %v", err)
		}
	})
}

// A losingTree is one in which a file goes between the listing of its directory
// and its own.
type losingTree struct {
	*liveTree
	lost string
}

func (l losingTree) LiveEdges(ctx context.Context, f export.LiveFile, fn func(export.LiveEdge) error) error {
	if l.paths[f.Ino-1] == l.lost {
		return store.ErrNotFound
	}
	return l.liveTree.LiveEdges(ctx, f, fn)
}

func TestShiftPassesOverWhatHasGone(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	if err := store.Init(dir+"/store", store.DefaultConfig()); err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(dir+"/store", store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	tree := &liveTree{paths: []string{"", "d/", "d/a", "d/b", "d/c"}, blocks: make(map[string][]store.ID)}
	for _, file := range tree.paths[2:] {
		id, err := st.Put(tiering.Data, []byte(file))
		if err != nil {
			t.Fatal(err)
		}
		tree.blocks[file] = []store.ID{id}
	}
	n := remote.NewLocal(st, remote.Environment{Live: losingTree{tree, "d/b"}, Rows: tree})
	if err := n.AddCold(ctx, dir+"/cold", nil); err != nil {
		t.Fatal(err)
	}
	var last remote.Shift
	err = n.Shift(ctx, remote.ShiftRequest{To: "cold", Paths: []string{"d"}, DryRun: true}, func(s remote.Shift) error { last = s; return nil })
	if err != nil || last.Plan.Blocks != 2 {
		t.Errorf("%+v, %v; want two blocks", last, err)
	}
	if err := n.Shift(ctx, remote.ShiftRequest{To: "cold", Paths: []string{"d/x"}}, func(remote.Shift) error { return nil }); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a path that is not there: %v", err)
	}
}

func TestTierPolicy(t *testing.T) {
	eachNodeBehind(t, remote.ControlHandler, func(t *testing.T, n remote.Node) {
		ctx := context.Background()
		if now, err := n.TierPolicy(ctx); err != nil || now.Policy.On() || now.Manager.State != "off" {
			t.Errorf("at first: %+v, %v", now, err)
		}
		for _, bad := range []store.TierPolicy{{Limit: -1}, {Limit: 1 << 40, Low: 95}, {Limit: 1}, {Limit: 1 << 40, Hours: "x"}} {
			if err := n.SetTierPolicy(ctx, bad); !errors.Is(err, store.ErrConfig) {
				t.Errorf("%+v: %v", bad, err)
			}
		}
		if err := n.SetTierPolicy(ctx, store.TierPolicy{Limit: 1 << 40}); err != nil {
			t.Fatal(err)
		}
		now, err := n.TierPolicy(ctx)
		if err != nil || now.Policy != (store.TierPolicy{Limit: 1 << 40}).WithDefaults() {
			t.Errorf("set: %+v, %v", now, err)
		}
		if plan, err := n.PlanTiers(ctx, now.Policy); err != nil || plan.Demote != 0 || len(plan.Why) == 0 {
			t.Errorf("plan: %+v, %v", plan, err)
		}
		if _, err := n.PlanTiers(ctx, store.TierPolicy{Limit: -1}); !errors.Is(err, store.ErrConfig) {
			t.Errorf("plan of a bad policy: %v", err)
		}
		if err := n.Pin(ctx, remote.PinRequest{Paths: []string{"a"}}); err == nil {
			t.Error("pinned a file where there are none")
		}
		if err := n.SetTierPolicy(ctx, store.TierPolicy{}); err != nil {
			t.Fatal(err)
		}
	})
}
