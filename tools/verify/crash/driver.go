package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/tools/serve"
	"github.com/quarxtor/quarxfs/tools/verify/crash/history"
)

// A driver does rounds of: mount, judge, work, kill.
type driver struct {
	place   *serve.Target
	workers []worker
	rng     *rand.Rand
	rounds  int
	longest time.Duration // of a round's work
	term    bool          // the daemon leaves on SIGTERM though files are open
	check   string        // shell command on the unmounted filesystem; may be ""
	during  string        // shell command again and again on the mounted one; may be ""
	out     io.Writer
	totals  struct{ ops, fsyncs int }
	mounts  []time.Duration // how long each mount after a crash took
	power   *powerCut       // nil: rounds end by a signal
	store   string          // for check
}

// hangTime is how long calls may wait after the daemon has died.
const hangTime = 20 * time.Second

func newWorkers(mount string, seed uint64, log *ackLog) []worker {
	return []worker{
		newFileWorker("ordered", 1, mount, seed, log),
		newFileWorker("ordered", 2, mount, seed, log),
		newFileWorker("paged", 3, mount, seed, log),
		newFileWorker("paged", 4, mount, seed, log),
		&saver{common: newCommon("saver", 5, mount, seed, log)},
		&database{common: newCommon("database", 6, mount, seed, log)},
	}
}

// run ends with the first failure, at which the place is as the crash left it.
func (d *driver) run(ctx context.Context) error {
	if err := d.place.Mount(ctx); err != nil {
		return err
	}
	for _, w := range d.workers {
		// All of them before the first round: what they make is durable and no crash may excuse its
		// absence.
		if err := w.prepare(); err != nil {
			return fmt.Errorf("prepare %s: %w", w.name(), err)
		}
	}
	for round := 1; round <= d.rounds; round++ {
		// Also before the first crash, when it finds little wrong and begins everyone's history.
		if err := d.judge(round); err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
		crash := d.crash
		if d.power != nil {
			crash = d.powerCut
		}
		if err := crash(ctx, round); err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
		if err := d.mountAfterCrash(ctx); err != nil {
			return fmt.Errorf("after round %d: %w", round, err)
		}
	}
	// The last crash has not been judged in the loop.
	if err := d.judge(d.rounds + 1); err != nil {
		return fmt.Errorf("after round %d: %w", d.rounds, err)
	}
	return d.afterCleanStop(ctx)
}

func (d *driver) mountAfterCrash(ctx context.Context) error {
	start := time.Now()
	if err := d.place.Mount(ctx); err != nil {
		return fmt.Errorf("the mount refuses: %w", err)
	}
	d.mounts = append(d.mounts, time.Since(start))
	return nil
}

// afterCleanStop judges once more after an orderly unmount, when nothing may
// have changed.
func (d *driver) afterCleanStop(ctx context.Context) error {
	if err := d.place.Unmount(ctx); err != nil {
		return err
	}
	if err := d.place.Mount(ctx); err != nil {
		return fmt.Errorf("after an orderly unmount: %w", err)
	}
	if err := d.judge(d.rounds + 2); err != nil {
		return fmt.Errorf("after an orderly unmount: %w", err)
	}
	return nil
}

func (d *driver) judge(round int) error {
	var timelines []history.Timeline
	var failed error
	for _, w := range d.workers {
		if err := w.judge(round); err != nil {
			// All are judged even though one has failed: which others have is the first clue.
			failed = errors.Join(failed, fmt.Errorf("%s: %w", w.name(), err))
		}
		if f, ok := w.(*fileWorker); ok && f.ordered && len(f.ops) > 0 {
			timelines = append(timelines, f.timeline())
		}
	}
	// Only of workers that are each right by themselves is it worth asking whether they agree on
	// one instant.
	if failed == nil {
		failed = history.Consistent(timelines)
	}
	if failed != nil {
		return failed
	}
	for _, w := range d.workers {
		if f, ok := w.(*fileWorker); ok {
			// Not in judge: Consistent above needs the histories that this throws away.
			f.begin(round)
		}
	}
	return nil
}

// crash lets the workers work and then kills the daemon under them.
func (d *driver) crash(ctx context.Context, round int) error {
	pid, err := d.place.PID(ctx)
	if err != nil {
		return err
	}
	// Drawn before the workers start, so that a seed's times do not depend on their speed.
	lasted := d.moment(d.longest)
	workCtx, stop := context.WithCancel(ctx)
	defer stop()
	var killed atomic.Bool
	ended := d.start(workCtx, &killed)
	// An error now has no crash to explain it.
	if err := ended.pause(ctx, lasted); err != nil {
		stop()
		return errors.Join(err, ended.wait())
	}
	// The daemon first and the workers after it: it is to die with calls in flight, not after the
	// last has returned.
	how := d.signal(&killed, pid)
	stop()
	if how.err != nil {
		return how.err
	}
	// Detaches what the dead daemon served, which also ends calls that still wait for it.
	if err := d.place.Kill(ctx); err != nil {
		return err
	}
	if err := ended.wait(); err != nil {
		return err
	}
	ops, fsyncs := d.count()
	fmt.Fprintf(d.out, "round %d: %s after %d ms, %d operations, %d fsyncs acknowledged\n", round, how.what, lasted.Milliseconds(), ops, fsyncs)
	return d.runCheck(ctx)
}

// count adds the round's operations to the totals.
func (d *driver) count() (ops, fsyncs int) {
	for _, w := range d.workers {
		o, f := w.counts()
		ops, fsyncs = ops+o, fsyncs+f
	}
	d.totals.ops, d.totals.fsyncs = d.totals.ops+ops, d.totals.fsyncs+fsyncs
	return ops, fsyncs
}

// moment is a random time, the short ones as likely as the long ones.
func (d *driver) moment(longest time.Duration) time.Duration {
	t := 20 * time.Millisecond
	// Doubled in two cases of three: opening, the first commit and a long run each get their share
	// of crashes.
	for t < longest && d.rng.IntN(3) > 0 {
		t *= 2
	}
	return min(longest, t/2+time.Duration(d.rng.Int64N(int64(t))))
}

type ending struct {
	what string
	err  error
}

// signal ends the daemon: SIGKILL in most rounds, and in one of eight SIGTERM,
// on which it is to leave by itself though files are open.
func (d *driver) signal(killed *atomic.Bool, pid int) ending {
	// Before the signal: a worker may see its first error before Kill returns.
	killed.Store(true)
	// A plain directory has no daemon to kill; its round tests the judge.
	if pid == 0 {
		return ending{what: "stopped"}
	}
	if d.rng.IntN(8) > 0 || !d.term {
		return ending{"SIGKILL", serve.KillProcess(pid)}
	}
	if err := unix.Kill(pid, unix.SIGTERM); err != nil {
		return ending{err: err}
	}
	if !serve.WaitGone(pid, hangTime) {
		return ending{err: fmt.Errorf("the daemon is still there %v after SIGTERM", hangTime)}
	}
	return ending{what: "SIGTERM"}
}

// A running set of workers.
type running struct {
	early chan error // errors that no crash explains
	all   sync.WaitGroup
}

func (d *driver) start(ctx context.Context, killed *atomic.Bool) *running {
	// Room for one error each, so that nobody has to be there to take it.
	r := &running{early: make(chan error, len(d.workers)+1)}
	if d.during != "" {
		r.all.Go(func() {
			// Ends with the daemon, when the command fails as it should.
			for err := error(nil); err == nil && ctx.Err() == nil; {
				if err = d.shell(ctx, d.during); err != nil && !killed.Load() {
					r.early <- err
				}
			}
		})
	}
	for _, w := range d.workers {
		r.all.Go(func() {
			err := w.work(ctx)
			// Any error is expected of a dead filesystem, except wrong bytes, which were read while
			// it lived.
			var wrong *wrongBytes
			if err != nil && (!killed.Load() || errors.As(err, &wrong)) {
				r.early <- fmt.Errorf("%s: %w", w.name(), err)
			}
		})
	}
	return r
}

// pause fails where a worker did before the crash.
func (r *running) pause(ctx context.Context, t time.Duration) error {
	select {
	case <-time.After(t):
		return nil
	case err := <-r.early:
		return fmt.Errorf("before the crash: %w", err)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// wait fails where a call hangs although its daemon is gone, or where there was
// an error that the crash does not explain.
func (r *running) wait() error {
	done := make(chan struct{})
	go func() { r.all.Wait(); close(done) }()
	select {
	case <-done:
	// The workers' goroutines are left behind: they wait in the kernel, and nothing ends them.
	case <-time.After(hangTime):
		return fmt.Errorf("system calls still wait %v after the daemon died", hangTime)
	}
	// A worker reports at most one error; the first is as good as any.
	select {
	case err := <-r.early:
		return err
	default:
		return nil
	}
}

// runCheck runs the user's command on the filesystem as the crash left it.
func (d *driver) runCheck(ctx context.Context) error {
	if d.check == "" {
		return nil
	}
	// An interrupt must not make a check look failed.
	return d.shell(context.WithoutCancel(ctx), d.check)
}

func (d *driver) shell(ctx context.Context, line string) error {
	cmd := exec.CommandContext(ctx, "sh", "-c", line)
	cmd.Env = append(os.Environ(), "STORE="+d.store, "MNT="+d.place.Dir)
	cmd.WaitDelay = time.Second // a child of the shell may keep the pipe
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", line, err, out)
	}
	return nil
}

// keepEvidence writes each worker's history beside the kept store.
func (d *driver) keepEvidence(dir string) error {
	var errs error
	for _, w := range d.workers {
		b, err := json.MarshalIndent(w.evidence(), "", " ")
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, w.name()+".json"), b, 0o644)
		}
		errs = errors.Join(errs, err)
	}
	return errs
}
