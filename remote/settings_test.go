package remote_test

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/store"
)

func TestSettings(t *testing.T) {
	eachNodeBehind(t, remote.ControlHandler, func(t *testing.T, n remote.Node) {
		ctx := context.Background()
		check := func(want store.SnapshotSchedule) {
			t.Helper()
			got, err := n.Settings(ctx)
			if diff := cmp.Diff(store.Settings{Snapshots: want}, got); diff != "" || err != nil {
				t.Errorf("settings: %v\n%s", err, diff)
			}
		}
		check(store.SnapshotSchedule{})
		want := store.SnapshotSchedule{Seconds: 3600, Keep: store.Retention{Hourly: 24, Tags: []string{"gold"}}}
		if err := n.SetSchedule(ctx, want); err != nil {
			t.Fatal(err)
		}
		check(want)
		for _, bad := range []store.SnapshotSchedule{{Seconds: -1}, {Seconds: 1 << 40}, {Keep: store.Retention{Last: 1}}, {Seconds: 1, Keep: store.Retention{Tags: []string{""}}}} {
			if err := n.SetSchedule(ctx, bad); !errors.Is(err, store.ErrConfig) {
				t.Errorf("%+v: %v", bad, err)
			}
		}
		check(want)
		if err := n.SetSchedule(ctx, store.SnapshotSchedule{}); err != nil {
			t.Fatal(err)
		}
		check(store.SnapshotSchedule{})
	})
}
