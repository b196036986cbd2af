package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// zones is how the machines of a cluster are spread: each in one of its own.
func zone(index int) string { return fmt.Sprintf("rack%d", index) }

// found makes a cluster of these machines. The first three vote.
func (r *rig) found(ctx context.Context, names ...string) error {
	for i, name := range names {
		n, err := r.node(ctx, name)
		if err != nil {
			return err
		}
		if i == 0 {
			_, err = n.quarxfs(ctx, "cluster", "init", "--name", "lab", "--zone", zone(n.index))
		} else {
			err = r.join(ctx, r.nodes[names[0]], n)
		}
		if err != nil {
			return err
		}
	}
	return r.await(ctx, time.Minute, "all nodes up", func() error {
		s, _, err := r.nodes[names[0]].status(ctx)
		if err != nil {
			return err
		}
		for _, n := range s.Nodes {
			if n.Version == nil {
				return fmt.Errorf("%s does not answer", n.Name)
			}
		}
		if want := min(3, len(names)); s.Control.Voters != want || len(s.Nodes) != len(names) {
			return fmt.Errorf("%d of %d nodes vote", s.Control.Voters, len(s.Nodes))
		}
		return nil
	})
}

// join makes a machine a node, with a token that another one gives.
func (r *rig) join(ctx context.Context, by, n *node) error {
	token, err := by.quarxfs(ctx, "cluster", "token")
	if err != nil {
		return err
	}
	_, err = n.quarxfsWith(ctx, token, "cluster", "join", "-", "--zone", zone(n.index))
	return err
}

// replace gives a machine that was killed an empty disk and makes it a node anew.
func (r *rig) replace(ctx context.Context, by, n *node) error {
	if err := n.kill(); err != nil {
		return err
	}
	if err := n.newDisk(ctx); err != nil {
		return err
	}
	if err := n.start(ctx); err != nil {
		return err
	}
	if _, err := by.quarxfs(ctx, "cluster", "leave", n.name); err != nil {
		return err
	}
	return r.join(ctx, by, n)
}

// others are all machines but some.
func (r *rig) others(but ...*node) (found []*node) {
	for _, n := range r.nodes {
		if !slices.Contains(but, n) {
			found = append(found, n)
		}
	}
	return found
}

const pollEvery = 50 * time.Millisecond

// await asks again until done has no objection, and returns the last one after the limit.
func (r *rig) await(ctx context.Context, limit time.Duration, what string, done func() error) error {
	for deadline := time.Now().Add(limit); ; {
		err := done()
		if err == nil || ctx.Err() != nil {
			return errors.Join(ctx.Err(), err)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: not in %v: %w", what, limit, err)
		}
		select {
		case <-time.After(pollEvery):
		case <-ctx.Done():
		}
	}
}

// takeOver makes the machine a volume's home, mounted at /srv/home, and returns the snapshot that
// it begins with, as the program has named it.
func (n *node) takeOver(ctx context.Context, volume string, flags ...string) (string, error) {
	_, err := n.quarxfs(ctx, append([]string{"cluster", "volume", "takeover", volume}, flags...)...)
	var failed *commandError
	if !errors.As(err, &failed) {
		return "", fmt.Errorf("a takeover that nobody has confirmed: %w", err)
	}
	_, name, ok := strings.Cut(failed.said, ": --snapshot ")
	if !ok {
		return "", err
	}
	args := []string{"cluster", "volume", "takeover", volume, "--snapshot", name, "--mount", mountpoint}
	_, err = n.quarxfs(ctx, append(args, flags...)...)
	return name, err
}

const (
	mountpoint = "/srv/home"
	volumeName = "home"
)
