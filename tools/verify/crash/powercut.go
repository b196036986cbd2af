package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/quarxtor/quarxfs/tools/serve"
	"github.com/quarxtor/quarxfs/tools/verify/crash/history"
)

// A powerCut is how a driver that has one ends its rounds: by images of the disk
// under the store, taken while all runs, each judged by itself.
type powerCut struct {
	disk    *disk
	images  int // per round
	judged  int
	longest time.Duration // of the copying
	image   string        // the one in the place of the disk
}

// powerCut lets the workers work, copies the disk at random moments, and goes on
// from the last of the copies.
func (d *driver) powerCut(ctx context.Context, round int) error {
	cuts, err := d.takeImages(ctx, round)
	if err != nil {
		return err
	}
	workers := d.workers
	for n, cut := range cuts {
		d.workers = make([]worker, len(workers))
		for i, w := range workers {
			// A copy, with what this image may be held to; the histories themselves serve the
			// images that follow.
			d.workers[i] = w.at(cut)
		}
		p := d.power
		// Noted before it is used: should it fail, it is the one to keep.
		p.image = p.disk.copyName(n)
		if err := p.disk.replace(p.image); err != nil {
			return fmt.Errorf("image %d: %w", n+1, err)
		}
		if err := d.runCheck(ctx); err != nil {
			return fmt.Errorf("image %d: %w", n+1, err)
		}
		p.judged++
		if n == len(cuts)-1 {
			break // mounted and judged as the next round's beginning
		}
		if err := d.judgeImage(ctx, round+1); err != nil {
			return fmt.Errorf("image %d: %w", n+1, err)
		}
	}
	return nil
}

// takeImages leaves the place killed.
func (d *driver) takeImages(ctx context.Context, round int) ([]history.Cut, error) {
	pid, err := d.place.PID(ctx)
	if err != nil {
		return nil, err
	}
	workCtx, stop := context.WithCancel(ctx)
	defer stop()
	var killed atomic.Bool
	// The workers go on through all copies, which are taken from a running disk as a power cut
	// would find it.
	begun := time.Now()
	ended := d.start(workCtx, &killed)
	cuts := make([]history.Cut, 0, d.power.images)
	for n := range d.power.images {
		if err := ended.pause(ctx, d.moment(d.longest/time.Duration(d.power.images))); err != nil {
			stop()
			return nil, errors.Join(err, ended.wait())
		}
		// Every second copy as the kernel left it, when most of what was not synced is missing.
		if d.rng.IntN(2) > 0 {
			d.power.disk.stir(d.rng)
		}
		cut, err := d.power.disk.copyTo(d.power.disk.copyName(n))
		if err != nil {
			stop()
			return nil, errors.Join(err, ended.wait())
		}
		cuts = append(cuts, cut)
		d.power.longest = max(d.power.longest, time.Duration(cut.Ended-cut.Began))
	}
	// From here on errors are expected.
	killed.Store(true)
	lasted := time.Since(begun)
	if pid > 0 {
		err = serve.KillProcess(pid)
	}
	stop()
	if err := errors.Join(err, d.place.Kill(ctx), ended.wait()); err != nil {
		return nil, err
	}
	ops, fsyncs := d.count()
	// The copies were taken; the judging of them is in powerCut.
	fmt.Fprintf(d.out, "round %d: %d images within %d ms, %d operations, %d fsyncs acknowledged\n", round, len(cuts), lasted.Milliseconds(), ops, fsyncs)
	return cuts, nil
}

// judgeImage mounts the store on the disk, judges it, and kills the daemon.
func (d *driver) judgeImage(ctx context.Context, round int) error {
	if err := d.mountAfterCrash(ctx); err != nil {
		return err
	}
	if err := d.judge(round); err != nil {
		return err
	}
	return d.place.Kill(ctx)
}
