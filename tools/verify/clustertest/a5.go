package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/quarxtor/quarxfs/remote/cluster/health"
)

const sampleEvery = 100 * time.Millisecond

// runA5 drains a volume's vault while the volume is written to, and looks each tenth of a second
// how many nodes have a copy.
func runA5(ctx context.Context, t *trial) error {
	if err := t.newCluster(ctx, "n1", "n2", "n3", "n4", "n5"); err != nil {
		return err
	}
	home := t.rig.nodes["n4"]
	_, err := home.quarxfs(ctx, "cluster", "volume", "create", volumeName, "--rpo", shownRPO.String(), "--vault", "n5,n3", "--mount", mountpoint)
	if err != nil {
		return err
	}
	l := &load{seed: t.result.Seed}
	writing, stop := context.WithCancel(ctx)
	defer stop()
	begun := time.Now()
	wait := l.run(writing, home.path(mountpoint), 1)
	if err := t.awaitSnapshotAfter(ctx, t.rig.nodes["n1"], begun); err != nil {
		return err
	}
	var took []float64
	c := &copies{}
	for t.result.Rounds < t.rounds {
		if err := t.allWhole(ctx, 2); err != nil {
			return err
		}
		v, _, err := home.volume(ctx, volumeName)
		if err != nil {
			return err
		}
		leaves := v.Vaults[t.rng.IntN(len(v.Vaults))].Node
		// The home is asked, which is never drained: what it says is what the register says.
		sampling, done := context.WithCancel(ctx)
		ended := make(chan error, 1)
		go func() { ended <- c.sample(sampling, home, 2) }()
		began := time.Now()
		_, err = t.rig.nodes["n1"].quarxfs(ctx, "cluster", "drain", leaves, "--wait")
		took = append(took, time.Since(began).Seconds())
		if err == nil {
			err = sleep(ctx, 2*time.Second)
		}
		done()
		if serr := <-ended; err == nil {
			err = serr
		}
		if err != nil {
			return fmt.Errorf("round %d: drain %s: %w", t.result.Rounds+1, leaves, err)
		}
		after, _, err := home.volume(ctx, volumeName)
		if err != nil {
			return err
		}
		t.require(!slices.Contains(vaultsOf(after), leaves), "%s is a vault after it was drained", leaves)
		t.say("round %d: %s was drained in %.1f s: %v, then %v", t.result.Rounds+1, leaves, took[len(took)-1], vaultsOf(v), vaultsOf(after))
		if _, err := t.rig.nodes["n1"].quarxfs(ctx, "cluster", "undrain", leaves); err != nil {
			return err
		}
		t.result.Rounds++
	}
	stop()
	if err := wait(); err != nil {
		t.fail("the load ended with %v", err)
	}
	for _, what := range c.few {
		t.fail("%s", what)
	}
	t.measured("samples", c.samples)
	t.measured("of them without a known number of copies", c.unknown)
	t.measured("fewest copies at vaults", c.fewest)
	t.measured("draining, s", spread(took))
	t.measured("acknowledged fsyncs", l.lastBegun())
	return nil
}

// allWhole returns when so many vaults have a snapshot, and no others are being made.
func (t *trial) allWhole(ctx context.Context, vaults int) error {
	return t.rig.await(ctx, 3*time.Minute, "all copies are whole", func() error {
		v, s, err := t.rig.nodes["n1"].volume(ctx, volumeName)
		if err != nil {
			return err
		}
		if len(v.Vaults) != vaults || whole(v) != vaults || s.State != health.OK {
			return fmt.Errorf("%+v, %+v", v.Vaults, s.Checks)
		}
		return nil
	})
}

// whole counts the vaults that have a snapshot.
func whole(v health.Volume) (count int) {
	for _, c := range v.Vaults {
		if c.Answered && c.Newest != nil {
			count++
		}
	}
	return count
}

// copies are what was seen of a volume's copies.
type copies struct {
	samples, unknown int
	fewest           int // at vaults
	few              []string
}

// sample looks until ctx ends.
func (c *copies) sample(ctx context.Context, n *node, wanted int) error {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		v, _, err := n.volume(ctx, volumeName)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		silent := slices.ContainsFunc(v.Vaults, func(c health.VolumeCopy) bool { return !c.Answered })
		has := whole(v)
		switch {
		case len(v.Vaults) < wanted:
			c.few = append(c.few, fmt.Sprintf("the register has %d vaults of %d", len(v.Vaults), wanted))
		case silent && has < wanted:
			c.unknown++
		case has < wanted:
			c.few = append(c.few, fmt.Sprintf("%d vaults of %d have a snapshot: %+v", has, wanted, v.Vaults))
		}
		if c.samples++; c.samples == 1 || has < c.fewest {
			c.fewest = has
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	return nil
}
