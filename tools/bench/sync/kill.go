package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// kill pushes and pulls again and again and kills one side in the midst of each:
// the command, or the daemon of the other store.
func (b *bench) kill(ctx context.Context) error {
	fmt.Printf("%d rounds, seed %d\n", b.rounds, b.seed)
	rng := rand.New(rand.NewPCG(b.seed, 1))
	src, dst, err := b.pair(ctx, "127.0.0.1:0")
	if err != nil {
		return err
	}
	if _, err := output(ctx, b.quarxfs, "remote", "add", dst.store, "peer", src.relay.url()); err != nil {
		return err
	}
	const window = 160 * time.Millisecond // a push takes about as long
	counts := make(map[string]int)
	for round := range b.rounds {
		name := fmt.Sprintf("r%03d", round)
		if err := grow(rng, filepath.Join(src.mnt, "d"), round); err != nil {
			return err
		}
		if _, err := src.snapshot(ctx, name); err != nil {
			return err
		}
		args := []string{"sync", "push", src.store, "peer", name, "--json"}
		// Two pushes and a pull.
		if round%3 == 2 {
			args = []string{"sync", "pull", dst.store, "peer", name, "--json"}
		}
		whom := []string{"command", "destination", "source"}[rng.IntN(3)]
		victim := map[string]*node{"destination": dst, "source": src}[whom]
		// At any moment of the time that a sync takes, so also before it begins and after it ends.
		hit, err := b.interrupted(ctx, args, victim, time.Duration(rng.Int64N(int64(window))))
		if err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
		if hit {
			counts[whom]++
		}
		// The same sync again must end, whatever the kill has left.
		if _, err := output(ctx, b.quarxfs, args...); err != nil {
			return fmt.Errorf("round %d, after the kill of the %s: %w", round, whom, err)
		}
		for _, n := range []*node{src, dst} {
			if err := n.fsck(ctx); err != nil {
				return fmt.Errorf("round %d, after the kill of the %s: %w", round, whom, err)
			}
		}
		if err := sameTrees(ctx, src, dst, name); err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
	}
	fmt.Printf("%d rounds: fsck clean on both sides and trees equal after each; killed in the midst of a sync: %v\n", b.rounds, counts)
	return nil
}

// interrupted runs a sync and kills it, or a daemon, after a while. It tells
// whether the sync was still under way then.
func (b *bench) interrupted(ctx context.Context, args []string, victim *node, after time.Duration) (hit bool, err error) {
	pid := 0
	if victim != nil {
		// Asked before the sync begins, since it takes as long as one.
		if pid, err = victim.pid(ctx); err != nil {
			return false, err
		}
	}
	cmd := exec.CommandContext(ctx, b.quarxfs, args...)
	if err := cmd.Start(); err != nil {
		return false, err
	}
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(after):
		hit = true
	}
	if victim == nil {
		_ = cmd.Process.Kill() // it may have ended
	} else if err := victim.killAndMount(ctx, pid); err != nil {
		return hit, err
	}
	select {
	case <-done:
	// A sync whose other side has died must end by itself, too.
	case <-time.After(time.Minute):
		_ = cmd.Process.Kill()
		return hit, fmt.Errorf("%v does not end", args)
	}
	return hit, nil
}

// grow changes a tree: new files, some of them like old ones, and a removed one.
func grow(rng *rand.Rand, dir string, round int) error {
	sub := filepath.Join(dir, fmt.Sprint(round%5), fmt.Sprint(round))
	if err := os.MkdirAll(sub, 0o755); err != nil {
		return err
	}
	for i := range 120 {
		data := make([]byte, rng.IntN(400_000))
		// Two contents for each file: half of them were stored by another one before.
		r := rand.NewChaCha8([32]byte{byte(round), byte(i), byte(rng.IntN(2))})
		_, _ = r.Read(data)
		if err := os.WriteFile(filepath.Join(sub, fmt.Sprint(i)), data, 0o644); err != nil {
			return err
		}
	}
	// A directory of an earlier round goes: what a sync must not send is as important as what it
	// must.
	return os.RemoveAll(filepath.Join(dir, fmt.Sprint((round+3)%5), fmt.Sprint(round-2)))
}
