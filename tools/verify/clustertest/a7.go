package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/remote/cluster/client"
	"github.com/quarxtor/quarxfs/remote/cluster/health"
)

const (
	mostAnswer   = 2500 * time.Millisecond // that a status takes while a node hangs
	nemesisTime  = 10 * time.Second
	statusEvery  = 300 * time.Millisecond
	calmTime     = 90 * time.Second
	detectedLate = shownRPO + 4*time.Second // of what shows only when a snapshot is overdue
)

// A nemesis is something bad that is done to a cluster, and what a status must say of it.
type nemesis struct {
	name string
	do   func(context.Context) error
	undo func(context.Context) error
	asks []string      // who is asked meanwhile
	late time.Duration // how long nobody can know of it
	// wrong says what a status says that is not so, or that nobody can know; empty: nothing.
	wrong func(health.Status) string
}

// runA7 does bad things to a cluster, one after the other, and asks how it is all the time.
func runA7(ctx context.Context, t *trial) error {
	if err := t.newCluster(ctx, "n1", "n2", "n3", "n4"); err != nil {
		return err
	}
	home := t.rig.nodes["n4"]
	_, err := home.quarxfs(ctx, "cluster", "volume", "create", volumeName, "--rpo", shownRPO.String(), "--vault", "n3", "--mount", mountpoint)
	if err != nil {
		return err
	}
	// A vault without anything new would be as good after a cut as before.
	l := &load{seed: t.result.Seed}
	var answers []float64
	worst, hung, asked := time.Duration(0), time.Duration(0), 0
	for t.result.Rounds < t.rounds {
		all := t.nemeses()
		t.rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		for _, n := range all {
			if err := t.calm(ctx); err != nil {
				return fmt.Errorf("before %s: %w", n.name, err)
			}
			writing, stop := context.WithCancel(ctx)
			l.run(writing, home.path(mountpoint), l.lastBegun()+1)
			seen, err := t.suffer(ctx, n)
			stop()
			if err != nil {
				return fmt.Errorf("%s: %w", n.name, err)
			}
			asked += len(seen.took)
			for _, d := range seen.took {
				answers = append(answers, d.Seconds())
				worst = max(worst, d)
				if strings.Contains(n.name, "hangs") {
					hung = max(hung, d)
				}
			}
			t.say("%s: asked %d times, answered in %v at most, said %v", n.name, len(seen.took), slices.Max(append(seen.took, 0)).Round(time.Millisecond), seen.codes())
		}
		t.result.Rounds++
	}
	t.measured("nemeses", len(t.nemeses()))
	t.measured("statuses", asked)
	t.measured("longest answer while a node hangs, s", hung.Seconds())
	t.measured("longest answer, s", worst.Seconds())
	t.measured("answers, s", spread(answers))
	return nil
}

// calm returns when all is well again.
func (t *trial) calm(ctx context.Context) error {
	return t.rig.await(ctx, calmTime, "all is well", func() error {
		for _, name := range []string{"n1", "n2"} {
			s, _, err := t.rig.nodes[name].status(ctx)
			if err != nil {
				return err
			}
			if s.State != health.OK {
				return fmt.Errorf("%s says %+v", name, s.Checks)
			}
		}
		return nil
	})
}

// A seen is what the statuses said during a nemesis.
type seen struct {
	mu   sync.Mutex
	took []time.Duration
	said map[string]bool // the checks' codes
}

func (s *seen) codes() (all []string) {
	for code := range s.said {
		all = append(all, code)
	}
	slices.Sort(all)
	return all
}

// suffer does it, asks how the cluster is from several nodes at the same time, and undoes it.
func (t *trial) suffer(ctx context.Context, n nemesis) (*seen, error) {
	s := &seen{said: make(map[string]bool)}
	if err := n.do(ctx); err != nil {
		return s, errors.Join(err, n.undo(ctx))
	}
	done := time.Now()
	ends := done.Add(nemesisTime + n.late)
	var failures []string
	var group sync.WaitGroup
	for _, name := range n.asks {
		group.Go(func() {
			for time.Now().Before(ends) && ctx.Err() == nil {
				begun := time.Now()
				status, took, err := t.rig.nodes[name].status(ctx)
				s.mu.Lock()
				s.took = append(s.took, took)
				for _, c := range status.Checks {
					s.said[c.Code] = true
				}
				switch {
				case err != nil:
					failures = append(failures, fmt.Sprintf("%s gives no status: %v", name, err))
				case begun.Sub(done) < n.late:
				case status.State == health.OK:
					failures = append(failures, fmt.Sprintf("%s says OK %.1f s after it", name, begun.Sub(done).Seconds()))
				case n.wrong != nil && n.wrong(status) != "":
					failures = append(failures, fmt.Sprintf("%s says that %s", name, n.wrong(status)))
				}
				if strings.Contains(n.name, "hangs") && took > mostAnswer {
					failures = append(failures, fmt.Sprintf("%s took %v to answer", name, took.Round(time.Millisecond)))
				}
				s.mu.Unlock()
				_ = sleep(ctx, statusEvery)
			}
		})
	}
	group.Wait()
	if len(failures) > 0 {
		t.fail("%s: %d of %d statuses, such as: %s", n.name, len(failures), len(s.took), failures[0])
	}
	return s, n.undo(ctx)
}

// nodeUnknown has a status that tells something of a node which only that node can know.
func nodeUnknown(name string) func(health.Status) string {
	return func(s health.Status) string {
		for _, n := range s.Nodes {
			if n.Name == name && (n.Version != nil || n.Free != nil || n.Used != nil) {
				return fmt.Sprintf("%s has version %s", name, *n.Version)
			}
		}
		for _, v := range s.Volumes {
			if v.Home == name && v.Online != nil && *v.Online {
				return fmt.Sprintf("%s is online on %s", v.Name, name)
			}
			for _, c := range v.Vaults {
				if c.Node == name && (c.Answered || c.Newest != nil) {
					return fmt.Sprintf("%s has %v", name, c.Newest)
				}
				if c.Node == name && v.Protected != nil && *v.Protected {
					return fmt.Sprintf("%s is protected by %s", v.Name, name)
				}
			}
		}
		return ""
	}
}

func isOnline(s health.Status) string {
	for _, v := range s.Volumes {
		if v.Online != nil && *v.Online {
			return v.Name + " is online"
		}
	}
	return ""
}

// isSure has a status that says whether the volume is online, which nobody knows.
func isSure(s health.Status) string {
	for _, v := range s.Volumes {
		if v.Online != nil {
			return fmt.Sprintf("%s is online: %v", v.Name, *v.Online)
		}
	}
	return ""
}

func decides(s health.Status) string {
	if s.Control.Decides {
		return "the cluster decides"
	}
	return ""
}

func isProtected(s health.Status) string {
	for _, v := range s.Volumes {
		if v.Protected != nil && *v.Protected {
			return v.Name + " is protected"
		}
	}
	return ""
}

// nemeses are all of them. The volume is on n4, its vault on n3.
func (t *trial) nemeses() []nemesis {
	r := t.rig
	n1, n2, n3, n4 := r.nodes["n1"], r.nodes["n2"], r.nodes["n3"], r.nodes["n4"]
	start := func(n *node) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := n.quarxfs(ctx, "cluster", "start")
			return err
		}
	}
	mount := func(ctx context.Context) error {
		store := filepath.Join(client.DefaultDir, "volumes", volumeName)
		// What a daemon that was killed has left in the table of mounts.
		_ = n4.space.in(ctx, "umount", "-l", mountpoint).Run()
		_, err := n4.quarxfs(ctx, "mount", store, mountpoint)
		return err
	}
	boot := func(n *node) func(context.Context) error {
		return func(ctx context.Context) error {
			if err := n.start(ctx); err != nil {
				return err
			}
			err := start(n)(ctx)
			if err == nil && n == n4 {
				err = mount(ctx)
			}
			return err
		}
	}
	signal := func(n *node, sig unix.Signal) func(context.Context) error {
		return func(context.Context) error { return n.signalAgent(sig) }
	}
	daemon := func(sig unix.Signal) func(context.Context) error {
		return func(context.Context) error { return n4.signal(sig, "quarxfs", "mount") }
	}
	kill := func(n *node) func(context.Context) error {
		return func(context.Context) error { return n.kill() }
	}
	// A machine has other paths after each start.
	ballast := func() string { return n3.path(filepath.Join(client.DefaultDir, "ballast")) }
	voters, all := []string{"n1", "n2"}, []string{"n1", "n2", "n3"}
	return []nemesis{
		{name: "the agent of the home is killed", do: signal(n4, unix.SIGKILL), undo: start(n4), asks: all, wrong: nodeUnknown("n4")},
		{name: "the agent of the home hangs", do: signal(n4, unix.SIGSTOP), undo: signal(n4, unix.SIGCONT), asks: all, wrong: nodeUnknown("n4")},
		{name: "the agent of the vault hangs", do: signal(n3, unix.SIGSTOP), undo: signal(n3, unix.SIGCONT), asks: []string{"n1", "n2", "n4"}, wrong: nodeUnknown("n3")},
		{name: "the first voter hangs", do: signal(n1, unix.SIGSTOP), undo: signal(n1, unix.SIGCONT), asks: []string{"n2", "n3", "n4"}, wrong: nodeUnknown("n1")},
		{name: "the second voter hangs", do: signal(n2, unix.SIGSTOP), undo: signal(n2, unix.SIGCONT), asks: []string{"n1", "n3", "n4"}, wrong: nodeUnknown("n2")},
		{name: "the home's machine is killed", do: kill(n4), undo: boot(n4), asks: all, wrong: nodeUnknown("n4")},
		{name: "the vault's machine is killed", do: kill(n3), undo: boot(n3), asks: voters, wrong: nodeUnknown("n3")},
		{
			name: "the home is cut off", asks: all, wrong: nodeUnknown("n4"),
			do:   func(ctx context.Context) error { return cut(ctx, n4, n1, n2, n3) },
			undo: func(ctx context.Context) error { return reconnect(ctx, n4, n1, n2, n3) },
		},
		{
			name: "nothing that the home sends arrives", asks: all, wrong: nodeUnknown("n4"),
			do:   func(ctx context.Context) error { return n4.setLinks(ctx, false, n1, n2, n3) },
			undo: func(ctx context.Context) error { return n4.setLinks(ctx, true, n1, n2, n3) },
		},
		{
			name: "nothing that is sent to the home arrives", asks: all, wrong: nodeUnknown("n4"),
			do: func(ctx context.Context) error {
				return errors.Join(n1.setLinks(ctx, false, n4), n2.setLinks(ctx, false, n4), n3.setLinks(ctx, false, n4))
			},
			undo: func(ctx context.Context) error {
				return errors.Join(n1.setLinks(ctx, true, n4), n2.setLinks(ctx, true, n4), n3.setLinks(ctx, true, n4))
			},
		},
		{
			name: "home and vault are cut from each other", asks: voters, late: detectedLate, wrong: isProtected,
			do:   func(ctx context.Context) error { return cut(ctx, n4, n3) },
			undo: func(ctx context.Context) error { return reconnect(ctx, n4, n3) },
		},
		{name: "the volume's daemon is killed", do: daemon(unix.SIGKILL), undo: mount, asks: all, wrong: isOnline},
		{name: "the volume's daemon hangs", do: daemon(unix.SIGSTOP), undo: daemon(unix.SIGCONT), asks: all, wrong: isSure},
		{
			name: "the volume is unmounted by force", asks: all, wrong: isOnline, undo: mount,
			do: func(ctx context.Context) error {
				_, err := n4.quarxfs(ctx, "umount", "--force", mountpoint)
				return err
			},
		},
		{
			name: "the vault's disk is full", asks: all,
			do:   func(context.Context) error { return fill(ballast()) },
			undo: func(context.Context) error { return os.Remove(ballast()) },
		},
		{
			name: "two of three voters are killed", asks: []string{"n1", "n4"}, wrong: decides,
			do: func(context.Context) error {
				return errors.Join(n2.signalAgent(unix.SIGKILL), n3.signalAgent(unix.SIGKILL))
			},
			undo: func(ctx context.Context) error {
				return together(func() error { return start(n2)(ctx) }, func() error { return start(n3)(ctx) })
			},
		},
	}
}

// together does what can only succeed when it is done at the same time.
func together(do ...func() error) error {
	errs := make([]error, len(do))
	var group sync.WaitGroup
	for i, fn := range do {
		group.Go(func() { errs[i] = fn() })
	}
	group.Wait()
	return errors.Join(errs...)
}

// fill writes a file until the disk has no room.
func fill(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	block := make([]byte, 1<<20)
	for {
		if _, err := f.Write(block); errors.Is(err, unix.ENOSPC) {
			return nil
		} else if err != nil {
			return err
		}
	}
}
