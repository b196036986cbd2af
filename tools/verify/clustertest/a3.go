package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/remote/cluster"
	"github.com/quarxtor/quarxfs/remote/cluster/client"
	"github.com/quarxtor/quarxfs/store"
)

const mostAlone = 4 * time.Second // that a home writes on while it is cut off

// runA3 cuts a volume's home off, has another machine take over while the home writes on, and
// reconnects it.
func runA3(ctx context.Context, t *trial) error {
	home, spare, err := t.homeAndSpare(ctx)
	if err != nil {
		return err
	}
	l := &load{seed: t.result.Seed}
	acked, alone, last := 0, 0, 0
	for t.result.Rounds < t.rounds {
		s, err := t.staleWriter(ctx, l, home, spare, last+1)
		if err != nil {
			return fmt.Errorf("round %d: %w", t.result.Rounds+1, err)
		}
		t.result.Rounds++
		acked, alone = acked+s.acked, alone+s.alone
		t.say("round %d: %s acknowledged %d, of which the new home lacks %d; all are in %s", t.result.Rounds, home.name, s.acked, s.alone, s.saved)
		last = s.state
		l.rewind(last)
		home, spare = spare, home
	}
	t.measured("acknowledged fsyncs", acked)
	t.measured("of them not at the new home", alone)
	return nil
}

// A stale is what became of a home that was cut off.
type stale struct {
	acked, alone int    // operations in the round, and those that the new home lacks
	saved        string // the snapshot of the former home's state
	state        int    // the last operation that the new home has
}

func (t *trial) staleWriter(ctx context.Context, l *load, home, spare *node, from int) (s stale, err error) {
	vault := t.rig.nodes["n1"]
	writing, stop := context.WithCancel(ctx)
	defer stop()
	begun := time.Now()
	wait := l.run(writing, home.path(mountpoint), from)
	if err := t.awaitSnapshotAfter(ctx, vault, begun); err != nil {
		return s, err
	}
	before, _, err := vault.volume(ctx, volumeName)
	if err != nil {
		return s, err
	}
	if err := cut(ctx, home, t.rig.others(home)...); err != nil {
		return s, err
	}
	if err := sleep(ctx, time.Duration(t.rng.Int64N(int64(mostAlone)))); err != nil {
		return s, err
	}
	name, err := spare.takeOver(ctx, volumeName, "--force")
	if err != nil {
		return s, err
	}
	if err := sleep(ctx, time.Duration(t.rng.Int64N(int64(mostAlone)))); err != nil {
		return s, err
	}
	if s.state, err = l.state(spare.path(mountpoint)); err != nil {
		t.fail("round %d: what %s has of %s is no state of the volume: %v", t.result.Rounds+1, spare.name, name, err)
	}
	stop()
	if err := wait(); err != nil {
		return s, fmt.Errorf("%s was cut off, and its mount must go on: %w", home.name, err)
	}
	end := l.lastBegun()
	s.acked, s.alone = end-from+1, end-s.state
	if err := reconnect(ctx, home, t.rig.others(home)...); err != nil {
		return s, err
	}
	if err := t.pushIsRefused(ctx, home, before.ID, before.Epoch); err != nil {
		return s, err
	}
	s.saved = cluster.DivergedName(before.Epoch)
	err = t.rig.await(ctx, 2*time.Minute, "the former home's state is saved", func() error {
		status, _, err := vault.status(ctx)
		if err != nil {
			return err
		}
		for _, c := range status.Checks {
			if c.Code == "VOLUME_FENCED" && strings.Contains(c.Text, s.saved) {
				return nil
			}
		}
		return fmt.Errorf("the checks are %+v", status.Checks)
	})
	if err != nil {
		return s, err
	}
	if err := t.compareAtVault(ctx, vault, s.saved, l, end); err != nil {
		return s, err
	}
	for _, args := range [][]string{{"umount", mountpoint}, {"cluster", "volume", "forget", volumeName}} {
		if _, err := home.quarxfs(ctx, args...); err != nil {
			return s, err
		}
	}
	// A later takeover begins with an empty directory, as on a machine that is new.
	return s, os.RemoveAll(home.path(filepath.Join(client.DefaultDir, "volumes", volumeName)))
}

// pushIsRefused has the former home say what its pushes say, in the epoch in which it wrote.
func (t *trial) pushIsRefused(ctx context.Context, home *node, volume string, epoch int64) error {
	return t.rig.await(ctx, time.Minute, "an answer to the former home", func() error {
		a := home.agent()
		defer a.Close()
		vault := a.Vault("n1", volume, epoch)
		defer vault.Close()
		err := vault.LinkSnapshot(ctx, cluster.SnapshotName(epoch, 1<<40), store.ID{})
		if errors.Is(err, remote.ErrBusy) || errors.Is(err, remote.ErrNoAnswer) || errors.Is(err, client.ErrNoAgent) {
			return err // the cut is not over for the connections that were open
		}
		t.require(errors.Is(err, remote.ErrFenced), "round %d: a push of epoch %d was not refused as fenced: %v", t.result.Rounds+1, epoch, err)
		return nil
	})
}

// compareAtVault looks into a snapshot of the vault's store, which its agent must not have open
// then.
func (t *trial) compareAtVault(ctx context.Context, vault *node, snapshot string, l *load, end int) (err error) {
	const at = "/srv/vault"
	if _, err := vault.quarxfs(ctx, "cluster", "stop"); err != nil {
		return err
	}
	defer func() {
		_, serr := vault.quarxfs(ctx, "cluster", "start")
		err = errors.Join(err, serr)
	}()
	if err := os.MkdirAll(vault.path(at), 0o755); err != nil {
		return err
	}
	if _, err := vault.quarxfs(ctx, "mount", filepath.Join(client.DefaultDir, "vaults", "default"), at); err != nil {
		return err
	}
	last, err := l.state(vault.path(filepath.Join(at, ".snapshots", volumeName+"@"+snapshot)))
	if err != nil {
		t.fail("round %d: %s is no state of the volume: %v", t.result.Rounds+1, snapshot, err)
	}
	t.require(last >= end, "round %d: %s ends with operation %d, and %d was acknowledged", t.result.Rounds+1, snapshot, last, end)
	_, err = vault.quarxfs(ctx, "umount", at)
	return err
}

// sleep waits, or returns why the run is over.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
