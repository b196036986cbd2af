// Command tierbench reads blocks of a data set four times the hot tier's limit, in
// the order of a trace, and tells how many reads the hot tier answered, with the
// tier manager and as LRU would have, and how long they took. The cold tier is
// a directory whose reads are slowed down, or with --cold one as it is, on a disk that is
// slow by itself and whose pages are dropped after each read; slowdisk.sh makes such a disk.
// Each read moves the store's clock on by a second.
package main

import (
	"bytes"
	"container/list"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/config"
	"github.com/quarxtor/quarxfs/tiering/disk"
	"github.com/quarxtor/quarxfs/tools/cli"
)

const (
	limit    = 64 << 20
	objects  = 6 * limit >> 20 // of 1 MiB, which s2 makes about two thirds of
	reads    = 20_000
	coldWait = time.Millisecond // for each read of the cold tier
)

// slowFS is a disk whose reads take longer.
type slowFS struct{ disk.FS }

type slowFile struct{ disk.File }

func (s slowFS) Open(path string) (disk.File, error) {
	f, err := s.FS.Open(path)
	return slowFile{f}, err
}

func (s slowFS) Create(path string) (disk.File, error) {
	f, err := s.FS.Create(path)
	return slowFile{f}, err
}

func (f slowFile) ReadAt(p []byte, off int64) (int, error) {
	time.Sleep(coldWait)
	return f.File.ReadAt(p, off)
}

// coldFS is a disk whose files do not stay in the page cache.
type coldFS struct{ disk.FS }

type coldFile struct {
	disk.File
	pages *os.File
}

func (c coldFS) Open(path string) (disk.File, error) { return uncached(path, c.FS.Open) }

func (c coldFS) Create(path string) (disk.File, error) { return uncached(path, c.FS.Create) }

func uncached(path string, open func(string) (disk.File, error)) (disk.File, error) {
	f, err := open(path)
	if err != nil {
		return nil, err
	}
	pages, err := os.Open(path)
	return coldFile{f, pages}, err
}

func (f coldFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(p, off)
	_ = unix.Fadvise(int(f.pages.Fd()), 0, 0, unix.FADV_DONTNEED) // the next read is faster otherwise
	return n, err
}

func (f coldFile) Close() error { return errors.Join(f.pages.Close(), f.File.Close()) }

func main() { cli.Main(newCommand()) }

func newCommand() *cobra.Command {
	var work, cold string
	cmd := &cobra.Command{
		Use:   "tierbench",
		Short: "Measure how often and how fast the hot tier answers, beside LRU",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return run(cmd.Context(), work, cold) },
	}
	cmd.Flags().StringVar(&work, "work", "/var/tmp/quarxfs-tierbench", "`directory` for the store; it must be missing and is removed at the end")
	cmd.Flags().StringVar(&cold, "cold", "", "`directory` for the cold tier, on a disk that is slow by itself")
	return cmd
}

func run(ctx context.Context, dir, cold string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	// A scan over everything is what an LRU falls for.
	for _, scans := range []bool{false, true} {
		name := "zipf"
		if scans {
			name = "scan"
		}
		p := location{dir: filepath.Join(dir, name), cold: filepath.Join(dir, name+".cold"), disk: slowFS{disk.OS()}}
		if cold != "" {
			p.cold, p.disk = filepath.Join(cold, name), coldFS{disk.OS()}
		}
		if err := bench(ctx, p, name, scans); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// text is of words, as zstd and s2 meet them.
func text(rng *rand.Rand, n int) []byte {
	var b bytes.Buffer
	for b.Len() < n {
		fmt.Fprintf(&b, "%x line of %d\n", rng.Uint32(), rng.IntN(1000))
	}
	return b.Bytes()[:n]
}

// A location is where the store and its cold tier are.
type location struct {
	dir, cold string
	disk      disk.FS // of the cold tier
}

func bench(ctx context.Context, at location, name string, scans bool) (err error) {
	conf := store.DefaultConfig()
	conf.SegmentSize = 4 << 20
	if err := store.Init(at.dir, conf); err != nil {
		return err
	}
	// Ages and windows are counted by this clock, so that hours pass in seconds.
	var clock atomic.Int64
	clock.Store(time.Now().Unix())
	st, err := store.Open(at.dir, store.Options{CacheBytes: 1 << 20, ColdDisk: at.disk, Now: func() time.Time { return time.Unix(clock.Load(), 0) }})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	cold, err := filepath.Abs(at.cold)
	if err != nil {
		return err
	}
	if err := st.AddCold(cold); err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range objects {
		if _, err := st.Ingest(ctx, bytes.NewReader(text(rng, 1<<20)), fmt.Sprint(i)); err != nil {
			return err
		}
	}
	// Data alone: the vertices of objects stay where they are.
	var blocks []store.ID
	err = st.Objects(ctx, "", func(o store.ObjectInfo) error {
		return st.EachBelow(ctx, o.ID, func(id store.ID) bool {
			if e, err := st.Lookup(id); err == nil && e.Kind == store.KindData {
				blocks = append(blocks, id)
			}
			return true
		})
	})
	if err != nil {
		return err
	}
	// Everything is old enough to be demoted.
	clock.Add(10_000)
	policy := store.TierPolicy{Limit: limit, MinAge: 600, Window: reads / 4, Rate: 1 << 30, Busy: true}
	if err := st.ChangeSettings(func(s *config.Settings) error { s.Tiers = policy; return nil }); err != nil {
		return err
	}
	kctx, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { st.ManageTiers(kctx, store.TierManagerOptions{Every: 200 * time.Millisecond}); close(done) }()
	defer func() { stop(); <-done }()
	// The trace begins with the hot tier at its limit.
	for st.TierManager().Demoted.Blocks == 0 || st.TierManager().State != "idle" {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		time.Sleep(50 * time.Millisecond)
	}
	k := st.TierManager()
	fmt.Printf("%s: %d blocks; demoting took %d bytes to %d (%.0f %% fewer)\n", name, len(blocks),
		k.Demoted.From, k.Demoted.To, 100-100*float64(k.Demoted.To)/float64(k.Demoted.From))
	trace := traceOf(rng, len(blocks), scans)
	// The first half only fills what the manager goes by; nothing of it is reported.
	if err := replay(ctx, st, &clock, blocks, trace[:reads]); err != nil {
		return err
	}
	if err := replayAndTell(ctx, st, &clock, blocks, trace, "tier manager at work"); err != nil {
		return err
	}
	// Settings without a limit: the blocks stay as the manager left them, to show what its moves
	// cost.
	if err := st.ChangeSettings(func(s *config.Settings) error { s.Tiers = store.TierPolicy{}; return nil }); err != nil {
		return err
	}
	return replayAndTell(ctx, st, &clock, blocks, trace, "no tier manager")
}

func traceOf(rng *rand.Rand, blocks int, scans bool) (trace []int) {
	z := rand.NewZipf(rng, 1.1, 20, uint64(blocks-1))
	// Popular blocks lie anywhere, not in the order in which they were stored.
	order := rng.Perm(blocks)
	for len(trace) < 2*reads {
		for range reads / 4 {
			trace = append(trace, order[z.Uint64()])
		}
		// Between two windows, so that each begins right after a scan.
		for i := 0; scans && i < blocks; i++ {
			trace = append(trace, i)
		}
	}
	return trace[:2*reads]
}

func replay(ctx context.Context, st *store.Store, clock *atomic.Int64, blocks []store.ID, trace []int) error {
	for _, i := range trace {
		clock.Add(1)
		if _, err := st.Get(ctx, blocks[i]); err != nil {
			return err
		}
	}
	return nil
}

// replayAndTell reads the second half of a trace and prints what came of it.
func replayAndTell(ctx context.Context, st *store.Store, clock *atomic.Int64, blocks []store.ID, trace []int, what string) error {
	var times [2][]time.Duration
	before, begun := st.TierManager(), time.Now()
	for _, i := range trace[reads:] {
		clock.Add(1)
		// Before the time: which tier answers is only known now, and Get may have the block moved.
		e, err := st.Lookup(blocks[i])
		if err != nil {
			return err
		}
		start := time.Now()
		if _, err := st.Get(ctx, blocks[i]); err != nil {
			return err
		}
		times[e.Loc.Tier] = append(times[e.Loc.Tier], time.Since(start))
	}
	took := time.Since(begun)
	all := st.Stats().Totals
	size := int(float64(len(blocks)) * 0.85 * limit / float64(all.Stored[store.KindData])) // between the watermarks
	after := st.TierManager()
	fmt.Printf("  %s: hot %.1f %% of %d reads, LRU %.1f %%; %.0f reads a second; %d blocks demoted, %d promoted\n", what,
		100*float64(len(times[0]))/reads, reads, 100*lru(trace, size), reads/took.Seconds(),
		after.Demoted.Blocks-before.Demoted.Blocks, after.Promoted.Blocks-before.Promoted.Blocks)
	for tier, d := range times {
		if slices.Sort(d); len(d) > 0 {
			fmt.Printf("  %s: p50 %v, p95 %v, p99 %v\n", [2]string{"hot", "cold"}[tier], d[len(d)/2], d[len(d)*95/100], d[len(d)*99/100])
		}
	}
	return nil
}

// lru is the share of the trace's second half that a tier of so many blocks hits
// that keeps what was used last.
func lru(trace []int, size int) float64 {
	order, at, hits := list.New(), make(map[int]*list.Element), 0
	for n, id := range trace {
		if e, ok := at[id]; ok {
			order.MoveToFront(e)
			// The first half fills it, as it filled the hot tier.
			if n >= reads {
				hits++
			}
			continue
		}
		at[id] = order.PushFront(id)
		if order.Len() > size {
			delete(at, order.Remove(order.Back()).(int))
		}
	}
	return float64(hits) / reads
}
