package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/quarxtor/quarxfs/remote/cluster/health"
)

const (
	shownRPO   = 4 * time.Second
	ageMargin  = time.Second // beyond the age that the status had shown
	mostOfLoad = 8 * time.Second
)

// homeAndSpare are the two machines that a volume goes between; the three others decide, and n1
// has its snapshots.
func (t *trial) homeAndSpare(ctx context.Context) (home, spare *node, err error) {
	if err := t.newCluster(ctx, "n1", "n2", "n3", "n4", "n5"); err != nil {
		return nil, nil, err
	}
	home, spare = t.rig.nodes["n4"], t.rig.nodes["n5"]
	_, err = home.quarxfs(ctx, "cluster", "volume", "create", volumeName, "--rpo", shownRPO.String(), "--vault", "n1", "--mount", mountpoint)
	return home, spare, err
}

// runA2 destroys a volume's home again and again, machine and disk, and has the other machine take
// over.
func runA2(ctx context.Context, t *trial) error {
	home, spare, err := t.homeAndSpare(ctx)
	if err != nil {
		return err
	}
	l := &load{seed: t.result.Seed}
	var lost, shown []float64 // seconds
	acked, last := 0, 0
	for t.result.Rounds < t.rounds {
		round, err := t.destroyHome(ctx, l, home, spare, last+1)
		if err != nil {
			return fmt.Errorf("round %d: %w", t.result.Rounds+1, err)
		}
		t.result.Rounds++
		lost, shown = append(lost, round.lost.Seconds()), append(shown, round.shown.Seconds())
		acked += round.acked
		t.say("round %d: %s destroyed with %d acknowledged, age shown %.1f s, lost %.1f s, usable again after %.1f s",
			t.result.Rounds, home.name, round.acked, round.shown.Seconds(), round.lost.Seconds(), round.down.Seconds())
		last = round.state
		l.rewind(last)
		home, spare = spare, home
	}
	t.measured("acknowledged fsyncs", acked)
	t.measured("age shown, s", spread(shown))
	t.measured("lost, s", spread(lost))
	return nil
}

// A destroyed is what the end of a home has cost.
type destroyed struct {
	acked int           // operations in the round
	shown time.Duration // age of the newest snapshot, as the last status said
	lost  time.Duration // from the last operation that is there to the end
	down  time.Duration // until the volume was usable again
	state int           // the last operation that is there
}

func (t *trial) destroyHome(ctx context.Context, l *load, home, spare *node, from int) (d destroyed, err error) {
	witness := t.rig.nodes["n2"]
	// What the new home writes must reach the vault before it is destroyed: else nothing is asked.
	writing, stop := context.WithCancel(ctx)
	defer stop()
	begun := time.Now()
	wait := l.run(writing, home.path(mountpoint), from)
	if err := t.awaitSnapshotAfter(ctx, witness, begun); err != nil {
		return d, err
	}
	if err := sleep(ctx, time.Duration(t.rng.Int64N(int64(mostOfLoad)))); err != nil {
		return d, err
	}
	v, s, err := witness.volume(ctx, volumeName)
	if err != nil {
		return d, err
	}
	if v.Lag == nil {
		return d, fmt.Errorf("the status shows no age: %+v", v)
	}
	d.shown = time.Duration(*v.Lag * float64(time.Second))
	killed := time.Now()
	if err := home.kill(); err != nil {
		return d, err
	}
	stop()
	if werr := wait(); werr == nil {
		return d, fmt.Errorf("the load did not notice that %s is dead", home.name)
	}
	end := l.lastAck(killed.Add(time.Hour))
	d.acked = end - from + 1

	// An administrator who is sure does not wait until the node counts as down.
	flags := []string{"--force"}
	if t.rng.IntN(4) == 0 {
		flags = nil
		err = t.rig.await(ctx, time.Minute, home.name+" counts as down", func() error {
			s, _, err := witness.status(ctx)
			for _, n := range s.Nodes {
				if n.Name == home.name && n.Up {
					return fmt.Errorf("%s is up", n.Name)
				}
			}
			return err
		})
		if err != nil {
			return d, err
		}
	}
	name, err := spare.takeOver(ctx, volumeName, flags...)
	if err != nil {
		return d, err
	}
	d.down = time.Since(killed)
	if d.state, err = l.state(spare.path(mountpoint)); err != nil {
		t.fail("round %d: what %s has of %s is no state of the volume: %v", t.result.Rounds+1, spare.name, name, err)
	}
	promised := l.lastAck(s.AsOf.Add(-d.shown - ageMargin))
	t.require(d.state >= promised, "round %d: operation %d was older than the age shown, and only %d are there", t.result.Rounds+1, promised, d.state)
	t.require(d.state <= l.lastBegun(), "round %d: operation %d is there, and %d was the last", t.result.Rounds+1, d.state, l.lastBegun())
	d.lost = killed.Sub(l.timeOf(d.state))
	return d, t.rig.replace(ctx, t.rig.nodes["n1"], home)
}

// awaitSnapshotAfter returns when a vault has a snapshot that was made after a time.
func (t *trial) awaitSnapshotAfter(ctx context.Context, asks *node, after time.Time) error {
	return t.rig.await(ctx, time.Minute, "a new snapshot at a vault", func() error {
		v, _, err := asks.volume(ctx, volumeName)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(v.Vaults, func(c health.VolumeCopy) bool { return c.Newest != nil && c.Newest.Created.After(after) }) {
			return nil
		}
		return fmt.Errorf("none of after %s: %+v", after.Format(time.TimeOnly), v.Vaults)
	})
}

// spread is the least, the median and the greatest.
func spread(values []float64) map[string]float64 {
	if len(values) == 0 {
		return nil
	}
	values = slices.Sorted(slices.Values(values))
	return map[string]float64{"least": values[0], "median": values[len(values)/2], "most": values[len(values)-1]}
}
