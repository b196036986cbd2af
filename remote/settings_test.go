package remote_test

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/config"
)

func TestSettings(t *testing.T) {
	eachNodeBehind(t, remote.ControlHandler, func(t *testing.T, n remote.Node) {
		ctx := context.Background()
		check := func(want config.SnapshotSchedule) {
			t.Helper()
			got, err := n.Settings(ctx)
			if diff := cmp.Diff(config.Settings{Snapshots: want}, got); diff != "" || err != nil {
				t.Errorf("settings: %v\n%s", err, diff)
			}
		}
		check(config.SnapshotSchedule{})
		want := config.SnapshotSchedule{Seconds: 3600, Keep: config.Retention{Hourly: 24, Tags: []string{"gold"}}}
		if err := n.SetSchedule(ctx, want); err != nil {
			t.Fatal(err)
		}
		check(want)
		for _, bad := range []config.SnapshotSchedule{{Seconds: -1}, {Seconds: 1 << 40}, {Keep: config.Retention{Last: 1}},
			{Seconds: 1, Keep: config.Retention{Tags: []string{""}}}} {
			if err := n.SetSchedule(ctx, bad); !errors.Is(err, store.ErrConfig) {
				t.Errorf("%+v: %v", bad, err)
			}
		}
		check(want)
		if err := n.SetSchedule(ctx, config.SnapshotSchedule{}); err != nil {
			t.Fatal(err)
		}
		check(config.SnapshotSchedule{})
	})
}
