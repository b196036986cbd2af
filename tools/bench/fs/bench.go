package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/tools/serve"
)

// An amount is what one run of a workload got done. One of the two is zero
// where it does not apply.
type amount struct {
	Bytes int64
	Ops   int64 // calls, or files
}

// A workload is one row of the table.
type workload struct {
	name string
	doc  string
	// setup makes what run needs; untimed.
	setup func(*env) error
	// run is timed; whatever writes ends in fsync or sync.
	run func(*env) (amount, error)
	// check proves, untimed, that run did what it should; may be nil.
	check func(*env) error
	// aim is the ratio to the loopback that QuarXFS is to reach, 0 for none.
	aim float64
	// aimMessages is the most FUSE messages per operation, 0 for none.
	aimMessages float64
	// heavy workloads run only when they are asked for.
	heavy bool
}

// An env is one target as a workload sees it, for one round.
type env struct {
	ctx   context.Context
	place *serve.Target
	dir   string // where the workload's files go
	input *input
	round int
	have  map[string]bool // what has been made this round
}

func (e *env) path(name string) string { return filepath.Join(e.dir, name) }

// syncAll makes everything written durable, whatever the filesystem: sync(2)
// takes the kernel's dirty pages to the daemon and the disk, and the fsync that
// follows makes a daemon that commits by itself do so now.
func (e *env) syncAll() error {
	unix.Sync()
	f, err := os.OpenFile(e.path("syncAll"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	_, werr := f.WriteString("x")
	return errors.Join(werr, f.Sync(), f.Close())
}

// steps makes one set-up of several; the first error ends it.
func steps(todo ...func(*env) error) func(*env) error {
	return func(e *env) error {
		for _, step := range todo {
			if err := step(e); err != nil {
				return err
			}
		}
		return nil
	}
}

// A skip is the reason why a workload cannot run on a target.
type skip string

func (s skip) Error() string { return string(s) }

// needMount skips targets that nothing of ours serves.
func (e *env) needMount() error {
	on, err := serve.Mounted(e.place.Dir)
	if err == nil && !on {
		err = skip("a plain directory has no mount")
	}
	return err
}

// cold remounts the target and drops the kernel's caches.
func (e *env) cold() error {
	if err := e.syncAll(); err != nil {
		return err
	}
	if err := e.place.Unmount(e.ctx); err != nil {
		return err
	}
	err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0)
	if errors.Is(err, os.ErrPermission) {
		err = skip("dropping the kernel's caches needs root")
	}
	return errors.Join(err, e.place.Mount(e.ctx))
}

// A sample is one run of one workload on one target.
type sample struct {
	Workload string           `json:"workload"`
	Target   string           `json:"target"`
	Round    int              `json:"round"`
	Seconds  float64          `json:"seconds"`
	Bytes    int64            `json:"bytes,omitempty"`
	Ops      int64            `json:"ops,omitempty"`
	CPU      float64          `json:"daemon_cpu_seconds,omitempty"`
	PeakRSS  int64            `json:"daemon_peak_rss_bytes,omitempty"`
	Messages map[string]int64 `json:"fuse_messages,omitempty"` // nil: not counted
	Skipped  string           `json:"skipped,omitempty"`
}

// A bench runs workloads on targets.
type bench struct {
	workloads []workload
	places    []*serve.Target
	input     *input
	rounds    int
	trace     *tracer // nil: count by the daemon's own figures, where it has them
	verify    bool
	log       *slog.Logger
	peak      map[string]int64 // highest resident memory seen by target, set-up included
}

// run calls the workloads round by round, and in a round each workload on every
// target before the next workload, so that the targets meet the same weather. Every
// second round takes the targets in reverse. Each round starts on a new, empty
// filesystem: data of the round before would be there to deduplicate against.
func (b *bench) run(ctx context.Context, each func(sample)) error {
	for round := range b.rounds {
		envs := make([]*env, len(b.places))
		for i, p := range b.places {
			if err := p.Reset(ctx); err != nil {
				return err
			}
			envs[i] = &env{ctx: ctx, place: p, dir: filepath.Join(p.Dir, "bench"), input: b.input, round: round, have: map[string]bool{}}
			if err := os.Mkdir(envs[i].dir, 0o755); err != nil {
				return err
			}
		}
		for _, w := range b.workloads {
			for i := range envs {
				e := envs[i]
				// Else the same target would always come first after the one before and its dirty
				// pages.
				if round%2 == 1 {
					e = envs[len(envs)-1-i]
				}
				s, err := b.one(e, w)
				if err != nil {
					return fmt.Errorf("%s on %s: %w", w.name, e.place.Name, err)
				}
				each(s)
			}
		}
	}
	return nil
}

func (b *bench) one(e *env, w workload) (sample, error) {
	s := sample{Workload: w.name, Target: e.place.Name, Round: e.round}
	b.log.Debug("set up", "workload", w.name, "target", e.place.Name, "round", e.round)
	if err := w.setup(e); err != nil {
		var why skip
		if errors.As(err, &why) {
			s.Skipped = string(why)
			return s, nil
		}
		return s, fmt.Errorf("set-up: %w", err)
	}
	unix.Sync() // nobody else's dirty pages in our time
	// After the set-up, which must not count, and as late as can be.
	m, err := b.meter(e)
	if err != nil {
		return s, err
	}
	start := time.Now()
	did, err := w.run(e)
	// Before the meter is read: asking a daemon for its figures takes time.
	s.Seconds = time.Since(start).Seconds()
	if err != nil {
		return s, err
	}
	s.Bytes, s.Ops = did.Bytes, did.Ops
	if err := m.read(&s); err != nil {
		return s, err
	}
	// After everything is measured; it reads and so changes what is cached.
	if w.check != nil && b.verify {
		if err := w.check(e); err != nil {
			return s, fmt.Errorf("wrong result: %w", err)
		}
	}
	return s, e.ctx.Err()
}

// A meter reads what a run costs its daemon.
type meter struct {
	b       *bench
	e       *env
	pid     int
	cpu     float64
	counter serve.Counter
	before  map[string]int64
	tracing bool
}

func (b *bench) meter(e *env) (*meter, error) {
	pid, err := e.place.PID(e.ctx)
	m := &meter{b: b, e: e, pid: pid}
	// A plain directory has nobody to measure.
	if err != nil || pid == 0 {
		return m, err
	}
	// Noted before it is set back, so that the peak of the whole run keeps the set-up's.
	if err := m.notePeak(); err != nil {
		return nil, err
	}
	// One round of counting is enough for a figure that does not vary, and
	// leaves the other rounds free of what it costs.
	switch counter, ok := e.place.Server.(serve.Counter); {
	case e.round > 0:
	case b.trace != nil:
		m.tracing, err = true, b.trace.start(e.dir)
	case ok:
		m.counter = counter
		m.before, err = counter.Messages(e.ctx)
	}
	if err != nil {
		return nil, err
	}
	if err := resetPeak(m.pid); err != nil {
		return nil, err
	}
	m.cpu, err = cpuSeconds(m.pid)
	return m, err
}

func (m *meter) notePeak() error {
	peak, err := peakRSS(m.pid)
	m.b.peak[m.e.place.Name] = max(m.b.peak[m.e.place.Name], peak)
	return err
}

func (m *meter) read(s *sample) error {
	if m.pid == 0 {
		return nil
	}
	cpu, err := cpuSeconds(m.pid)
	if err != nil {
		return err
	}
	// The kernel counts in ticks; more digits would be made up.
	s.CPU = math.Round((cpu-m.cpu)*cpuTicks) / cpuTicks
	switch {
	case m.tracing:
		s.Messages, err = m.b.trace.stop()
	case m.counter != nil:
		var after map[string]int64
		after, err = m.counter.Messages(m.e.ctx)
		s.Messages = minus(after, m.before)
	}
	if err != nil {
		return err
	}
	s.PeakRSS, err = peakRSS(m.pid)
	return errors.Join(err, m.notePeak())
}

func minus(after, before map[string]int64) map[string]int64 {
	d := make(map[string]int64)
	for op, n := range after {
		if n != before[op] {
			d[op] = n - before[op]
		}
	}
	return d
}
