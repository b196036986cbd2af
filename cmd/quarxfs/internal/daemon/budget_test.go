package daemon

import (
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/quarxtor/quarxfs/fs/volume"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/tiering/pressure"
)

func TestBudget(t *testing.T) {
	for _, c := range []struct {
		asked, cgroup int64 // in MiB
		share         float64
		memTable      int64
		want          budget
	}{
		{256, 0, 1, 16, budget{256, 64, 32, 16}},
		{1024, 0, 1, 64, budget{1024, 256, 128, 64}},
		{256, 200, 1, 9, budget{150, 37, 18, 9}},
		{256, 10, 1, 8, budget{64, 16, 8, 8}},
		{256, 0, 0.25, 16, budget{184, 16, 8, 16}},
		{256, 0, leastShare, 16, budget{172, 8, 4, 16}},
		{8192, 100, leastShare, 64, budget{320, 2, 1, 64}}, // opened with 8 GiB, then the group shrank
	} {
		got := newBudget(c.asked<<20, c.cgroup<<20).squeezed(c.share, c.memTable<<20)
		if inMiB := (budget{got.total >> 20, got.cache >> 20, got.dirty >> 20, got.memTable >> 20}); inMiB != c.want {
			t.Errorf("%d MiB in a group of %d, share %v: %+v, want %+v", c.asked, c.cgroup, c.share, inMiB, c.want)
		}
		if got.cache+got.dirty > got.total/2 {
			t.Errorf("%+v: nothing is left for the rest", got)
		}
	}
}

func TestNextShare(t *testing.T) {
	for _, c := range []struct {
		name  string
		share float64
		m     pressure.Memory
		want  float64
	}{
		{"calm", 1, pressure.Memory{Free: 1}, 1},
		{"stalled", 1, pressure.Memory{Free: 1, Stalled: 11}, 0.75},
		{"the group is full", 1, pressure.Memory{Free: 1, GroupMemory: pressure.GroupMemory{Limit: 1, Used: 0.95}}, 0.75},
		{"the machine is full", 0.5, pressure.Memory{Free: 0.04}, 0.375},
		{"at the least", leastShare, pressure.Memory{Free: 0}, leastShare},
		{"nearly at the least", leastShare + 0.01, pressure.Memory{Free: 0}, leastShare},
		{"a little stalled", 0.5, pressure.Memory{Free: 1, Stalled: 5}, 0.5},
		{"the group is nearly full", 0.5, pressure.Memory{Free: 1, GroupMemory: pressure.GroupMemory{Limit: 1, Used: 0.85}}, 0.5},
		{"the machine is nearly full", 0.5, pressure.Memory{Free: 0.06}, 0.5},
		{"calm again", 0.5, pressure.Memory{Free: 0.5, Stalled: 1}, 0.5 + growBy},
		{"nearly back", 0.999, pressure.Memory{Free: 1}, 1},
	} {
		if got := nextShare(c.share, c.m); got != c.want {
			t.Errorf("%s: %v becomes %v, want %v", c.name, c.share, got, c.want)
		}
	}
}

// TestBudgetFollows has a real store and volume under the limits of control groups
// that are only files.
func TestBudgetFollows(t *testing.T) {
	percent, limit := debug.SetGCPercent(100), debug.SetMemoryLimit(math.MaxInt64)
	t.Cleanup(func() { debug.SetGCPercent(percent); debug.SetMemoryLimit(limit) })
	root := t.TempDir()
	put := func(path, text string) { // in one step: it is read meanwhile
		t.Helper()
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	const group = "sys/fs/cgroup/job/"
	put("proc/self/cgroup", "0::/job\n")
	put(group+"memory.max", "max\n")
	put(group+"memory.current", "104857600\n")

	gauge := pressure.At(root)
	look := func() pressure.Memory {
		m := gauge.Memory()
		m.Free = 1 // whatever else runs on this machine
		return m
	}
	const asked = 256 << 20
	b := newBudget(asked, look().Limit)
	b.apply()
	dir := filepath.Join(t.TempDir(), "store")
	if err := store.Init(dir, store.DefaultConfig()); err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(dir, store.Options{CacheBytes: b.cache, MemTable: b.memTable})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	vol, err := volume.Open(st, volume.Options{DirtyBytes: b.dirty})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { vol.Close() })
	var log strings.Builder
	f := startBudget(budgeter{
		asked: asked, now: b, look: look, cache: st.ResizeCache, dirty: vol.LimitDirty, log: slog.New(slog.NewTextHandler(&log, nil)),
	}, time.Millisecond)

	await := func(what string, want budget) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
			got := budget{debug.SetMemoryLimit(-1), st.Stats().Cache.Limit, vol.Stats().DirtyLimit, b.memTable}
			if got == want {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: %+v, want %+v", what, got, want)
			}
		}
	}
	await("at first", b)
	put(group+"memory.max", "209715200\n")
	await("a limit of 200 MiB", newBudget(asked, 200<<20).squeezed(1, b.memTable))
	put(group+"memory.current", "200000000\n")
	await("a full group", newBudget(asked, 200<<20).squeezed(leastShare, b.memTable))
	put(group+"memory.current", "104857600\n")
	await("room again", newBudget(asked, 200<<20).squeezed(1, b.memTable))
	put("proc/pressure/memory", "some avg10=30.00 avg60=0.00 avg300=0.00 total=1\n")
	await("pressure", newBudget(asked, 200<<20).squeezed(leastShare, b.memTable))
	put("proc/pressure/memory", "some avg10=0.00 avg60=0.00 avg300=0.00 total=1\n")
	put(group+"memory.max", "max\n")
	await("no limit any more", b)
	f.End()
	if n := strings.Count(log.String(), "memory is short"); n != 3 {
		t.Errorf("%d lines say so: %s", n, log.String())
	}
}
