package daemon

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"time"

	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/config"
)

// A schedule makes snapshots at an interval and removes old ones, as the
// settings of the store say.
type schedule struct {
	settings func() (config.Settings, <-chan struct{}, error)
	every    *time.Duration // in the place of the interval that is set; nil: that counts
	node     remote.Node
	host     string
	log      *slog.Logger
}

// run goes on until ctx ends; a snapshot under way gives up.
func (s *schedule) run(ctx context.Context) {
	var every time.Duration // that next was reckoned with
	var next time.Time
	for {
		set, changed, _ := s.settings() // what is wrong with them was logged
		// A change of anything else must not put off the next snapshot.
		if now := s.interval(set); now != every {
			every, next = now, time.Now().Add(s.untilDue(ctx, now))
		}
		var due <-chan time.Time
		if every > 0 {
			due = time.After(time.Until(next))
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
			continue
		case <-due:
		}
		if err := s.once(ctx, set.Snapshots.Keep); err != nil && ctx.Err() == nil {
			s.log.Error("the scheduled snapshot failed; the next one is made in its turn", "err", err)
		}
		// From the end of this one, also if it failed: an hour's interval is no reason to try all
		// the time.
		next = time.Now().Add(every)
	}
}

func (s *schedule) interval(set config.Settings) time.Duration {
	if s.every != nil {
		return *s.every
	}
	return set.Snapshots.Every()
}

// settling is how long a daemon that has missed a snapshot waits for the system
// to come up.
const settling = 10 * time.Second

// untilDue returns how long it is to the next snapshot: an interval after the
// last one that a schedule made.
func (s *schedule) untilDue(ctx context.Context, every time.Duration) time.Duration {
	wait := every
	err := s.node.ListSnapshots(ctx, func(old remote.Snapshot) error {
		// Those made by hand do not count. The last one listed is the newest.
		if old.Scheduled {
			wait = min(every, max(min(settling, every), every-time.Since(old.Created)))
		}
		return nil
	})
	if err != nil {
		s.log.Error("the snapshots cannot be listed", "err", err)
	}
	return wait
}

func (s *schedule) once(ctx context.Context, keep config.Retention) error {
	name := remote.ScheduledName(time.Now())
	create := func() (remote.Snapshot, error) {
		return s.node.CreateSnapshot(ctx, remote.NewSnapshot{
			Name: name, Tags: []string{remote.ScheduleTag}, Host: s.host, Marks: []store.SnapshotMark{store.Scheduled},
		})
	}
	made, err := create()
	if errors.Is(err, store.ErrNameTaken) {
		// Two mounts, or a clock that was set back: there is a snapshot of that second already.
		if there, err := s.node.GetSnapshot(ctx, name); err != nil || there.Scheduled {
			return err
		}
		// Whoever may push could take the names of all seconds to come.
		name += "_" + rand.Text()
		made, err = create()
	}
	if err != nil {
		return err
	}
	s.log.Info("made a snapshot", "name", made.Name, "files", made.Totals.Files, "new_bytes", made.Totals.New)
	if keep.Empty() {
		return nil
	}
	// Own: of those that a schedule made. By hand made ones are removed by hand.
	verdicts, err := s.node.Prune(ctx, remote.PruneRequest{Policy: keep, Own: true})
	for _, v := range verdicts {
		if !v.Keep {
			s.log.Info("removed a snapshot", "name", v.Name)
		}
	}
	return err
}
