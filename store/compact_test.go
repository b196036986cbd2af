package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/quarxtor/quarxfs/tiering/disk/faultdisk"
)

// raggedStore fills a store with objects of which most are then deleted, so
// that its segments are sparse, and returns what is left.
func raggedStore(t testing.TB, s *Store, objects, size int) map[string][]byte {
	t.Helper()
	left := make(map[string][]byte)
	for i := range objects {
		data := randomBytes(uint64(1000+i), size+i)
		mustIngest(t, s, fmt.Sprint(i), data)
		left[fmt.Sprint(i)] = data
	}
	for i := range objects {
		if i%5 == 0 {
			continue
		}
		if err := s.Delete(ctx, fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
		delete(left, fmt.Sprint(i))
	}
	if _, err := s.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	return left
}

func requireObjects(t testing.TB, s *Store, want map[string][]byte) {
	t.Helper()
	for name, data := range want {
		if got := fetch(t, s, name, 0, -1); !bytes.Equal(got, data) {
			t.Fatalf("object %s is not what it was", name)
		}
	}
}

func compactConfig() Config {
	c := smallConfig()
	c.Chunker.Min, c.Chunker.Avg, c.Chunker.Max = 1<<10, 4<<10, 16<<10
	return c
}

func TestCompactGivesSpaceBack(t *testing.T) {
	s := newStore(t, compactConfig())
	left := raggedStore(t, s, 60, 150_000)
	before := s.Stats().Tiers[0].Bytes
	c, err := s.Compact(ctx, CompactOptions{All: true, MinLive: 0.9})
	if err != nil {
		t.Fatal(err)
	}
	after := s.Stats().Tiers[0].Bytes
	t.Logf("%d -> %d bytes: %+v", before, after, c)
	totals := s.Stats().Totals
	if live := totals.StoredBytes(); after > live*5/4+(1<<20) {
		t.Errorf("%d bytes in segments for %d that are live", after, live)
	}
	mustCheck(t, s)
	requireObjects(t, s, left)
	again, err := s.Compact(ctx, CompactOptions{MinLive: 0.9})
	if err != nil || again.Copied > 2<<20 {
		t.Errorf("compacted again: %+v, %v", again, err)
	}
	for _, bad := range []CompactOptions{{MinLive: -1}, {MinLive: 1}, {Rate: -1}} {
		if _, err := s.Compact(ctx, bad); !errors.Is(err, ErrConfig) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// After everything is deleted next to nothing may be left, the database's
// files included.
func TestCompactOfAnEmptyStore(t *testing.T) {
	s := newStore(t, DefaultConfig())
	for i := range 24 {
		mustIngest(t, s, fmt.Sprint(i), randomBytes(uint64(i), 8<<20))
	}
	peak := diskUsage(t, s.Dir())
	for i := range 24 {
		if err := s.Delete(ctx, fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Compact(ctx, CompactOptions{All: true}); err != nil {
		t.Fatal(err)
	}
	online := diskUsage(t, s.Dir())
	t.Logf("peak %d, then %d: %.2f %%", peak, online, 100*float64(online)/float64(peak))
	// The next segment has 8 MiB reserved, and the log is written in steps of 1 MiB.
	if online > peak/50+(10<<20) {
		t.Errorf("%d bytes are left of %d", online, peak)
	}
	mustCheck(t, s)
}

func diskUsage(t testing.TB, dir string) (sum int64) {
	t.Helper()
	err := filepath.Walk(dir, func(_ string, fi os.FileInfo, err error) error {
		if err == nil {
			sum += fi.Sys().(*syscall.Stat_t).Blocks * 512
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// Readers and writers must not notice that blocks move.
func TestCompactBesideUse(t *testing.T) {
	s := newStore(t, compactConfig())
	left := raggedStore(t, s, 60, 100_000)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			for name, data := range left {
				if got := fetch(t, s, name, 0, -1); !bytes.Equal(got, data) {
					t.Errorf("object %s is not what it was", name)
				}
			}
		}
	})
	wg.Go(func() {
		for i := range 30 {
			data := randomBytes(uint64(1000+i), 100_000+i) // what was deleted comes back
			mustIngest(t, s, "new", data)
		}
	})
	wg.Go(func() {
		for range 5 {
			if _, err := s.Sweep(ctx); err != nil {
				t.Error(err)
			}
		}
	})
	for range 3 {
		if _, err := s.Compact(ctx, CompactOptions{All: true, MinLive: 0.9}); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
	mustCheck(t, s)
	requireObjects(t, s, left)
}

// The power goes after each operation of the segments' disk, or it fails once:
// every block is at its old or its new place.
func TestCompactSurvivesCrashesAndFaults(t *testing.T) {
	conf := compactConfig()
	base := initFaultStore(t, filepath.Join(fastDir(t), "base"), conf)
	left := raggedStore(t, base.Store, 40, 60_000)
	fault := errors.New("injected")
	rng := rand.New(rand.NewPCG(1, 2))
	total, step := -1, 2
	if testing.Short() {
		step = 1
	}
	for n := 0; total < 0 || n < total; n += 1 + n/step {
		f := base.crash(t, rng, filepath.Join(fastDir(t), "copy"))
		requireObjects(t, f.Store, left)
		start := f.disk.Ops()
		var seen atomic.Int64 // workers of the tiers use the disk as well
		f.disk.Fail(func(faultdisk.Op) error {
			if seen.Add(1)-1 == int64(n) {
				return fault
			}
			return nil
		})
		_, err := f.Compact(ctx, CompactOptions{All: true, MinLive: 0.9})
		if seen.Load() <= int64(n) {
			total = f.disk.Ops() - start
			if err != nil {
				t.Fatal(err)
			}
		}
		f.disk.Fail(nil)
		crashed := f.crash(t, rng, filepath.Join(fastDir(t), "crashed"))
		requireObjects(t, crashed.Store, left)
		mustCheck(t, crashed.Store)
		crashed.Close()
		// Without a crash it goes on where it failed.
		if _, err := f.Compact(ctx, CompactOptions{MinLive: 0.9}); err != nil {
			t.Fatalf("after fault %d: %v", n, err)
		}
		requireObjects(t, f.Store, left)
		mustCheck(t, f.Store)
		f.Close()
		if n > 5000 {
			t.Fatal("endless")
		}
	}
	base.Close()
}

func TestCompactHeedsItsContext(t *testing.T) {
	s := newStore(t, compactConfig())
	left := raggedStore(t, s, 30, 150_000)
	c, cancel := context.WithCancel(ctx)
	_, err := s.Compact(c, CompactOptions{MinLive: 0.9, Rate: 1, Progress: func(Compacted) { cancel() }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	requireObjects(t, s, left)
	mustCheck(t, s)
}
