package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/quarxtor/quarxfs/remote/cluster/health"
)

// runB1 destroys the home of a volume with a mirror again and again, machine and disk, and has the
// mirror take over: every fsync that has returned must be there. The machine that comes back empty
// becomes the mirror.
func runB1(ctx context.Context, t *trial) error {
	if err := t.newCluster(ctx, "n1", "n2", "n3", "n4", "n5"); err != nil {
		return err
	}
	home, spare := t.rig.nodes["n4"], t.rig.nodes["n5"]
	_, err := home.quarxfs(ctx, "cluster", "volume", "create", volumeName, "--mirror", spare.name, "--experimental",
		"--vault", "n1", "--mount", mountpoint)
	if err != nil {
		return err
	}
	l := &load{seed: t.result.Seed}
	var down []float64 // seconds
	acked, last := 0, 0
	for t.result.Rounds < t.rounds {
		before := last
		took, err := t.destroyMirrored(ctx, l, home, spare, &last)
		if err != nil {
			return fmt.Errorf("round %d: %w", t.result.Rounds+1, err)
		}
		t.result.Rounds++
		down = append(down, took.Seconds())
		acked += last - before
		t.say("round %d: %s destroyed, all of %d acknowledged fsyncs there, usable again after %.1f s",
			t.result.Rounds, home.name, last-before, took.Seconds())
		l.rewind(last)
		home, spare = spare, home
	}
	t.measured("acknowledged fsyncs", acked)
	t.measured("usable again after, s", spread(down))
	return nil
}

// destroyMirrored is a round. last is the last operation that is there, before and after it.
func (t *trial) destroyMirrored(ctx context.Context, l *load, home, mirror *node, last *int) (down time.Duration, err error) {
	witness := t.rig.nodes["n2"]
	// Under load: a copy that joins must not lose what is written meanwhile.
	writing, stop := context.WithCancel(ctx)
	defer stop()
	wait := l.run(writing, home.path(mountpoint), *last+1)
	err = t.rig.await(ctx, 2*time.Minute, mirror.name+" is in sync", func() error {
		v, _, err := witness.volume(ctx, volumeName)
		if err == nil && !slices.Contains(v.Mirrors, health.Mirror{Node: mirror.name, InSync: true}) {
			err = fmt.Errorf("%+v", v.Mirrors)
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	if err := sleep(ctx, time.Second+time.Duration(t.rng.Int64N(int64(mostOfLoad)))); err != nil {
		return 0, err
	}
	killed := time.Now()
	if err := home.kill(); err != nil {
		return 0, err
	}
	stop()
	if werr := wait(); werr == nil {
		return 0, fmt.Errorf("the load did not notice that %s is dead", home.name)
	}
	end := l.lastAck(killed.Add(time.Hour))
	if _, err := mirror.quarxfs(ctx, "cluster", "volume", "takeover", volumeName, "--mount", mountpoint); err != nil {
		return 0, err
	}
	down = time.Since(killed)
	state, err := l.state(mirror.path(mountpoint))
	if err != nil {
		t.fail("round %d: what %s has is no state of the volume: %v", t.result.Rounds+1, mirror.name, err)
	}
	t.require(state >= end, "round %d: operation %d was acknowledged, and only %d are there", t.result.Rounds+1, end, state)
	t.require(state <= l.lastBegun(), "round %d: operation %d is there, and %d was the last", t.result.Rounds+1, state, l.lastBegun())
	*last = state
	return down, t.rig.replace(ctx, t.rig.nodes["n1"], home)
}
