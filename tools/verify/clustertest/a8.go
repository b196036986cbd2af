package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/remote/cluster/client"
)

const holdTime = 10 * time.Minute

// runA8 kills voters: one, all of them for a while, and all of them for good.
func runA8(ctx context.Context, t *trial) error {
	// The volume is on machines that do not vote, which lose nothing but who decides.
	home, _, err := t.homeAndSpare(ctx)
	if err != nil {
		return err
	}
	if _, err := home.quarxfs(ctx, "cluster", "volume", "vault", volumeName, "--add", "n5", "--remove", "n1"); err != nil {
		return err
	}
	l := &load{seed: t.result.Seed}
	writing, stop := context.WithCancel(ctx)
	defer stop()
	wait := l.run(writing, home.path(mountpoint), 1)
	for t.result.Rounds < t.rounds {
		if err := t.killOneVoter(ctx, l); err != nil {
			return err
		}
		if err := t.killAllVoters(ctx, l); err != nil {
			return err
		}
		if err := t.destroyRegister(ctx, l); err != nil {
			return err
		}
		t.result.Rounds++
	}
	stop()
	if err := wait(); err != nil {
		t.fail("the load ended with %v", err)
	}
	t.measured("acknowledged fsyncs", l.lastBegun())
	return nil
}

// killOneVoter kills each of them in turn, and has decisions made without it.
func (t *trial) killOneVoter(ctx context.Context, l *load) error {
	var decided []float64
	for _, name := range []string{"n1", "n2", "n3"} {
		n := t.rig.nodes[name]
		begun := time.Now()
		if err := n.signalAgent(unix.SIGKILL); err != nil {
			return err
		}
		for _, other := range t.rig.others(n, t.rig.nodes["n4"], t.rig.nodes["n5"]) {
			// A new leader is chosen within some heartbeats; a command waits for that.
			if _, err := other.quarxfs(ctx, "cluster", "token"); err != nil {
				t.fail("without %s, %s cannot decide: %v", name, other.name, err)
			}
			decided = append(decided, time.Since(begun).Seconds())
		}
		if err := t.watchVolume(ctx, l, 5*time.Second, name+" is dead"); err != nil {
			return err
		}
		if _, err := n.quarxfs(ctx, "cluster", "start"); err != nil {
			return err
		}
	}
	t.measured("a decision without one voter, s", spread(decided))
	return nil
}

// killAllVoters has the volume go on while nothing can be decided.
func (t *trial) killAllVoters(ctx context.Context, l *load) error {
	hold := t.hold
	if hold == 0 {
		hold = holdTime
	}
	before := l.latency(time.Now().Add(-30 * time.Second))
	var starts []func() error
	for _, name := range []string{"n1", "n2", "n3"} {
		n := t.rig.nodes[name]
		if err := n.signalAgent(unix.SIGKILL); err != nil {
			return err
		}
		starts = append(starts, func() error {
			_, err := n.quarxfs(ctx, "cluster", "start")
			return err
		})
	}
	killed := time.Now()
	if err := t.watchVolume(ctx, l, hold, "all voters are dead"); err != nil {
		return err
	}
	t.measured("without voters, s", time.Since(killed).Seconds())
	t.measured("fsync with voters, ms", before)
	t.measured("fsync without voters, ms", l.latency(killed))
	if hold < holdTime {
		t.skip("all voters were down for %v, and not for %v", hold, holdTime)
	}
	if err := together(starts...); err != nil {
		return err
	}
	return t.rig.await(ctx, time.Minute, "the cluster decides again", func() error {
		s, _, err := t.rig.nodes["n1"].status(ctx)
		if err == nil && (!s.Control.Decides || s.Control.Up != 3) {
			err = fmt.Errorf("%d voters are up", s.Control.Up)
		}
		return err
	})
}

// destroyRegister takes the register's data from all voters, makes it again, and requires that it
// says the same.
func (t *trial) destroyRegister(ctx context.Context, l *load) error {
	first := t.rig.nodes["n1"]
	before, err := decided(ctx, t.rig.nodes["n4"])
	if err != nil {
		return err
	}
	for _, name := range []string{"n1", "n2", "n3"} {
		n := t.rig.nodes[name]
		if err := n.signalAgent(unix.SIGKILL); err != nil {
			return err
		}
		if err := os.RemoveAll(n.path(filepath.Join(client.DefaultDir, "etcd"))); err != nil {
			return err
		}
	}
	for _, name := range []string{"n1", "n2", "n3"} {
		// cluster start would wait for the register.
		agent := filepath.Join(t.bin, "quarxfs-node") + " run --dir " + client.DefaultDir
		if _, err := output(t.rig.nodes[name].space.in(ctx, "sh", "-c", "setsid "+agent+" >/run/agent.log 2>&1 &")); err != nil {
			return err
		}
	}
	begun := time.Now()
	var revision string
	err = t.rig.await(ctx, 2*time.Minute, "what the register can be made of", func() error {
		var failed *commandError
		_, err := first.quarxfs(ctx, "cluster", "rebuild")
		if !errors.As(err, &failed) {
			return fmt.Errorf("a rebuild that nobody has confirmed: %w", err)
		}
		var ok bool
		if _, revision, ok = strings.Cut(failed.said, ": --revision "); !ok {
			return err
		}
		return nil
	})
	if err != nil {
		return err
	}
	if _, err := first.quarxfs(ctx, "cluster", "rebuild", "--revision", revision); err != nil {
		return err
	}
	err = t.rig.await(ctx, 3*time.Minute, "the register says what it said", func() error {
		after, err := decided(ctx, t.rig.nodes["n4"])
		if err == nil && after != before {
			err = fmt.Errorf("it was %s, and is %s", before, after)
		}
		return err
	})
	if err != nil {
		return err
	}
	t.measured("until the register was made again, s", time.Since(begun).Seconds())
	return t.watchVolume(ctx, l, 10*time.Second, "the register is made again")
}

// decided is what the register says of nodes and volumes; an error without one.
func decided(ctx context.Context, n *node) (string, error) {
	s, _, err := n.status(ctx)
	if err != nil {
		return "", err
	}
	if !s.Control.Decides {
		return "", errors.New("the cluster cannot decide")
	}
	var all []string
	for _, n := range s.Nodes {
		all = append(all, fmt.Sprint(n.Name, n.Zone, n.Roles, n.State, n.Address))
	}
	for _, v := range s.Volumes {
		all = append(all, fmt.Sprint(v.Name, v.ID, v.Domain, v.Epoch, v.Home, v.Store, v.RPO, v.Copies, vaultsOf(v)))
	}
	return strings.Join(all, "; "), nil
}

// watchVolume requires for a while that operations go on and that snapshots reach the vault in
// their time.
func (t *trial) watchVolume(ctx context.Context, l *load, while time.Duration, what string) error {
	var late []string
	oldest, asked := 0.0, 0
	for ends := time.Now().Add(while); time.Now().Before(ends); asked++ {
		from := l.lastBegun()
		if err := sleep(ctx, time.Second); err != nil {
			return err
		}
		if l.lastBegun() == from {
			late = append(late, "no operation ended within a second")
		}
		v, _, err := t.rig.nodes["n4"].volume(ctx, volumeName)
		if err != nil {
			return err
		}
		if v.Lag == nil {
			late = append(late, "no vault has a snapshot")
		} else if oldest = max(oldest, *v.Lag); *v.Lag > shownRPO.Seconds() {
			late = append(late, fmt.Sprintf("the newest snapshot is %.1f s old", *v.Lag))
		}
	}
	t.say("%s: looked %d times, the newest snapshot was %.1f s old at most", what, asked, oldest)
	if len(late) > 0 {
		t.fail("%s: %d of %d times the volume did not go on as it should, such as: %s", what, len(late), asked, late[0])
	}
	return nil
}

// latency says how long operations took that were acknowledged from a time on, in milliseconds.
func (l *load) latency(from time.Time) map[string]float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	var took []float64
	for _, a := range slices.Backward(l.acks) {
		if a.at.Before(from) {
			break
		}
		took = append(took, float64(a.took.Microseconds())/1000)
	}
	s := spread(took)
	if len(took) > 0 {
		slices.Sort(took)
		s["p99"] = took[len(took)*99/100]
	}
	return s
}
