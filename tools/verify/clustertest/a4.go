package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/quarxtor/quarxfs/remote/cluster/health"
)

const (
	mostUntilDown = 12 * time.Second
	repairAfter   = 20 * time.Second // instead of the ten minutes that are the default
	mostWire      = 1.1              // bytes on the wire, as a share of those that are stored
	repairBytes   = 96 << 20
	heldFor       = repairAfter + 20*time.Second // that two dead nodes of five are watched
)

// runA4 kills a volume's vault: it is noticed, and another node gets a copy. Then it kills two
// nodes of five, which may be a network that is cut, so that nothing is made.
func runA4(ctx context.Context, t *trial) error {
	if err := t.newCluster(ctx, "n1", "n2", "n3", "n4", "n5"); err != nil {
		return err
	}
	home := t.rig.nodes["n4"]
	for _, args := range [][]string{
		{"cluster", "settings", "--repair-after", repairAfter.String()},
		{"cluster", "volume", "create", volumeName, "--rpo", shownRPO.String(), "--vault", "n5", "--mount", mountpoint},
	} {
		if _, err := home.quarxfs(ctx, args...); err != nil {
			return err
		}
	}
	l := &load{seed: t.result.Seed}
	if err := l.bulk(home.path(filepath.Join(mountpoint, "bulk")), repairBytes); err != nil {
		return err
	}
	var noticed, repaired, wire []float64
	for t.result.Rounds < t.rounds {
		if err := t.oneVault(ctx); err != nil {
			return err
		}
		d, err := t.killVault(ctx)
		if err != nil {
			return fmt.Errorf("round %d: %w", t.result.Rounds+1, err)
		}
		noticed, repaired, wire = append(noticed, d.noticed.Seconds()), append(repaired, d.repaired.Seconds()), append(wire, d.wire)
		if err := t.oneVault(ctx); err != nil {
			return err
		}
		if err := t.killTwo(ctx); err != nil {
			return fmt.Errorf("round %d: %w", t.result.Rounds+1, err)
		}
		t.result.Rounds++
	}
	t.measured("until NODE_DOWN, s", spread(noticed))
	t.measured("until the copy was elsewhere, s", spread(repaired))
	t.measured("repair-after, s", repairAfter.Seconds())
	t.measured("bytes on the wire to those stored", spread(wire))
	return nil
}

// bulk writes so many bytes that nothing else has.
func (l *load) bulk(path string, bytes int) error {
	all := make([]byte, 0, bytes)
	for i := 1; len(all) < bytes; i++ {
		all = append(all, l.record(-i)...)
	}
	return writeSynced(path, all)
}

// oneVault waits until all nodes are up and the volume has as many vaults as it is to have.
func (t *trial) oneVault(ctx context.Context) error {
	return t.rig.await(ctx, 5*time.Minute, "the volume has one vault, and all is well", func() error {
		v, s, err := t.rig.nodes["n1"].volume(ctx, volumeName)
		if err == nil && (len(v.Vaults) != 1 || s.State != health.OK) {
			err = fmt.Errorf("vaults %v, %+v", vaultsOf(v), s.Checks)
		}
		return err
	})
}

func vaultsOf(v health.Volume) (names []string) {
	for _, c := range v.Vaults {
		names = append(names, c.Node)
	}
	return names
}

// A repaired is how the death of a vault went.
type repaired struct {
	noticed, repaired time.Duration
	wire              float64
}

func (t *trial) killVault(ctx context.Context) (d repaired, err error) {
	asks := t.rig.nodes["n4"] // the home, which is not killed here
	v, _, err := asks.volume(ctx, volumeName)
	if err != nil {
		return d, err
	}
	dead := t.rig.nodes[v.Vaults[0].Node]
	before := make(map[string]int64)
	for _, n := range t.rig.nodes {
		if before[n.name], err = n.received(); err != nil {
			return d, err
		}
	}
	killed := time.Now()
	if err := dead.kill(); err != nil {
		return d, err
	}
	if err := t.awaitDown(ctx, asks); err != nil {
		return d, err
	}
	d.noticed = time.Since(killed)
	t.require(d.noticed <= mostUntilDown, "NODE_DOWN after %v", d.noticed)
	var fresh string
	err = t.rig.await(ctx, 5*time.Minute, "another node has a copy", func() error {
		v, _, err := asks.volume(ctx, volumeName)
		if err != nil {
			return err
		}
		for _, c := range v.Vaults {
			if c.Node == dead.name {
				continue
			}
			if begun := time.Since(killed); begun < repairAfter-time.Second {
				t.fail("a copy is made %v after the death", begun)
			}
			if c.Newest != nil {
				fresh = c.Node
				return nil
			}
		}
		return fmt.Errorf("the vaults are %v", vaultsOf(v))
	})
	if err != nil {
		return d, err
	}
	d.repaired = time.Since(killed)
	after, err := t.rig.nodes[fresh].received()
	if err != nil {
		return d, err
	}
	if v, _, err = asks.volume(ctx, volumeName); err != nil {
		return d, err
	}
	if v.Bytes == nil {
		return d, errors.New("the home does not say how large the volume is")
	}
	d.wire = float64(after-before[fresh]) / float64(*v.Bytes)
	t.require(d.wire <= mostWire, "%s received %.3f times what is stored (%d bytes)", fresh, d.wire, *v.Bytes)
	t.say("round %d: %s is dead, noticed after %.1f s, %s has a copy after %.1f s, %.3f times the bytes stored came there",
		t.result.Rounds+1, dead.name, d.noticed.Seconds(), fresh, d.repaired.Seconds(), d.wire)
	return d, t.revive(ctx, dead)
}

// awaitDown returns when a status says that a node is down. While that node does not answer a
// status takes two seconds, so several are asked for at a time.
func (t *trial) awaitDown(ctx context.Context, asks *node) error {
	const askers = 5
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	said := make(chan error, askers)
	for i := range askers {
		go func() {
			for ctx.Err() == nil {
				s, _, err := asks.status(ctx)
				if err == nil && slices.ContainsFunc(s.Checks, func(c health.Check) bool { return c.Code == "NODE_DOWN" }) {
					said <- nil
					return
				}
				_ = sleep(ctx, time.Duration(i+1)*pollEvery)
			}
			said <- fmt.Errorf("no node counts as down: %w", ctx.Err())
		}()
	}
	return <-said
}

// revive boots a machine and starts its node.
func (t *trial) revive(ctx context.Context, n *node) error {
	if err := n.start(ctx); err != nil {
		return err
	}
	_, err := n.quarxfs(ctx, "cluster", "start")
	return err
}

// killTwo kills the vault and one more node, such that decisions can be made still, and requires
// that no copy is made.
func (t *trial) killTwo(ctx context.Context) error {
	asks := t.rig.nodes["n4"]
	v, _, err := asks.volume(ctx, volumeName)
	if err != nil {
		return err
	}
	vault := t.rig.nodes[v.Vaults[0].Node]
	var other *node
	for _, name := range []string{"n5", "n3"} { // n5 does not vote; if it is the vault, one voter may go
		if n := t.rig.nodes[name]; other == nil && n != vault {
			other = n
		}
	}
	for _, n := range []*node{vault, other} {
		if err := n.kill(); err != nil {
			return err
		}
	}
	begun, said := time.Now(), ""
	for time.Since(begun) < heldFor {
		now, s, err := asks.volume(ctx, volumeName)
		if err != nil {
			return err
		}
		if !slices.Equal(vaultsOf(now), []string{vault.name}) {
			t.fail("with %s and %s down the vaults are %v", vault.name, other.name, vaultsOf(now))
			break
		}
		for _, c := range s.Checks {
			if c.Code == "COPIES_MISSING" {
				said = c.Text
			}
		}
		if err := sleep(ctx, time.Second); err != nil {
			return err
		}
	}
	t.say("round %d: %s and %s are dead, and no copy is made; the status says %q", t.result.Rounds+1, vault.name, other.name, said)
	return together(func() error { return t.revive(ctx, vault) }, func() error { return t.revive(ctx, other) })
}

// received is how many bytes have come to the machine over the network since it was started.
func (n *node) received() (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", n.space.pid()))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		name, figures, ok := strings.Cut(strings.TrimSpace(line), ":")
		if ok && name == "eth0" {
			return strconv.ParseInt(strings.Fields(figures)[0], 10, 64)
		}
	}
	return 0, fmt.Errorf("%s has no network", n.name)
}
