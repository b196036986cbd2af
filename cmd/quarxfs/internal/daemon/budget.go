package daemon

import (
	"context"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/quarxtor/quarxfs/store/routine"
	"github.com/quarxtor/quarxfs/tiering/pressure"
)

// A budget shares the memory of a daemon out. docs/operations.md explains the
// shares.
type budget struct {
	total    int64 // as asked for, or 3/4 of what the cgroup allows when that is less
	cache    int64 // RAM tier
	dirty    int64 // written bytes that are not yet stored
	memTable int64 // of the database, which has two and seldom three
}

const (
	MinMemory   = 64 << 20
	minMemTable = 8 << 20
	perInode    = 4096     // bytes of all for one: some 1,200 with its extents and two names, and garbage
	maxMemTable = 64 << 20 // a larger one only makes opening after a crash slower
)

func newBudget(asked, cgroup int64) budget {
	total := asked
	if cgroup > 0 {
		// A quarter stays for the page cache, which the group is charged for as well.
		total = min(total, cgroup/4*3)
	}
	total = max(total, MinMemory)
	return budget{total: total, cache: total / 4, dirty: total / 8, memTable: min(max(total/16, minMemTable), maxMemTable)}
}

// inodes is how many are kept in memory. It stays what it was when the volume was opened.
func (b budget) inodes() int { return int(b.total / perInode) }

// squeezed leaves the cache and the buffers only a share of theirs, and gives the rest
// back. The database keeps the memtables that it was opened with.
func (b budget) squeezed(share float64, memTable int64) budget {
	s := b
	s.cache, s.dirty = int64(share*float64(b.cache)), int64(share*float64(b.dirty))
	s.total = max(b.total-(b.cache-s.cache)-(b.dirty-s.dirty), 5*memTable)
	s.memTable = memTable
	return s
}

// apply tells the Go runtime. The collector runs earlier than by default, so
// that garbage takes half of what is alive and not as much again.
func (b budget) apply() {
	debug.SetGCPercent(50)
	debug.SetMemoryLimit(b.total)
}

// From these on memory is short, and up to those there is enough of it.
const (
	shortStall, enoughStall = 10.0, 2.0  // per cent of the last 10 s in which some task waited
	shortUsed, enoughUsed   = 0.90, 0.80 // of the control group's limit
	shortFree, enoughFree   = 0.05, 0.08 // of the machine's memory
)

const (
	leastShare = 1.0 / 8
	shrinkBy   = 3.0 / 4  // each look
	growBy     = 1.0 / 64 // of all, each look: back in two minutes
	budgetLook = 2 * time.Second
)

// nextShare returns what share of theirs the cache and the buffers may use from now
// on: quickly less when memory is short, slowly more when there is enough.
func nextShare(share float64, m pressure.Memory) float64 {
	switch {
	case m.Stalled > shortStall, m.Used > shortUsed, m.Free < shortFree:
		return max(share*shrinkBy, leastShare)
	case m.Stalled <= enoughStall && m.Used <= enoughUsed && m.Free >= enoughFree:
		return min(share+growBy, 1)
	}
	return share
}

// A budgeter keeps a daemon to its budget while limits and pressure change.
type budgeter struct {
	asked int64
	now   budget
	share float64 // of the cache and the buffers
	look  func() pressure.Memory
	cache func(bytes int64) // sets its limit
	dirty func(bytes int64) // likewise
	log   *slog.Logger
}

// startBudget looks every so often.
func startBudget(b budgeter, every time.Duration) *routine.Routine {
	b.share = 1
	return routine.Start(func(ctx context.Context) { routine.Each(ctx, every, every, nil, b.step) })
}

func (b *budgeter) step() {
	m := b.look()
	before, share := b.now, b.share
	b.share = nextShare(share, m)
	// From what was asked and not from the last step, or the shares would drift.
	b.now = newBudget(b.asked, m.Limit).squeezed(b.share, before.memTable)
	if b.now == before {
		return
	}
	// Before the limit of the runtime falls, or it would collect garbage without end.
	b.cache(b.now.cache)
	b.dirty(b.now.dirty)
	debug.SetMemoryLimit(b.now.total)
	switch {
	case b.now.total < before.total:
		debug.FreeOSMemory() // or the kernel learns of it when the collector runs next
		if share == 1 || b.share == share {
			b.log.Info("memory is short: the cache and the buffers shrink", "total", b.now.total, "group_limit", m.Limit,
				"group_used", m.Used, "machine_free", m.Free, "stalled_percent", m.Stalled)
		}
	case b.share == 1 && share < 1:
		b.log.Info("the cache and the buffers have all their memory again", "total", b.now.total)
	}
}
