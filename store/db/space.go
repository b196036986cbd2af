package db

import (
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	askInterval = 50 * time.Millisecond
	askBytes    = 16 << 20
)

// spaceGuard watches the free space of a filesystem. Badger writes through sparse
// mappings, and the kernel kills a process whose mapping finds no room, so
// refusing has to happen well before.
type spaceGuard struct {
	path    string
	reserve int64
	statfs  func(path string) (int64, error)

	mu    sync.Mutex
	free  int64
	at    time.Time
	taken int64 // admitted since at
}

func newSpaceGuard(path string, reserve int64) *spaceGuard {
	return &spaceGuard{path: path, reserve: reserve, statfs: freeBytes}
}

// freeBytes is what ordinary users may still write.
func freeBytes(path string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * st.Frsize, nil
}

// admit refuses n bytes that would cut into the reserve. Bytes admitted count
// as used until the filesystem is asked again, so that many callers in a short
// time do not share one answer.
func (g *spaceGuard) admit(n int64) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	// Asking costs a system call, and each write of the filesystem comes by here.
	if g.taken+n > askBytes || time.Since(g.at) > askInterval {
		g.refreshLocked()
	}
	if left := g.free - g.taken - n; left < g.reserve {
		return fmt.Errorf("%w: %d bytes asked, %d free, %d reserved",
			ErrFull, n, g.free-g.taken, g.reserve)
	}
	g.taken += n
	return nil
}

// refresh asks the filesystem now.
func (g *spaceGuard) refresh() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.refreshLocked()
	return g.free
}

// refreshLocked keeps the last answer if there is none: a filesystem that
// cannot be asked reports its trouble to whoever writes.
func (g *spaceGuard) refreshLocked() {
	if free, err := g.statfs(g.path); err == nil {
		g.free = free
	}
	g.at, g.taken = time.Now(), 0
}

// Admit returns ErrFull if taking n more bytes of the filesystem would leave
// less than the reserve. It rarely makes a system call. What was admitted but
// is written only much later is forgotten meanwhile: callers bound how much
// they hold back, and MinFree should exceed it.
func (d *DB) Admit(n int64) error { return d.space.admit(n) }

// Free returns the bytes that Admit would let pass at this moment.
func (d *DB) Free() int64 { return max(0, d.space.refresh()-d.space.reserve) }

// roomToOpen drops the ballast if Badger could run out of room while it turns
// the logs it finds into tables, which it does before it can be asked anything.
func (d *DB) roomToOpen(current string) error {
	logs, err := logBytes(filepath.Join(d.opt.Dir, current))
	if err != nil {
		return err
	}
	return d.room(logs + d.opt.MemTable/2)
}

// roomToCommit asks for what the commit will need in Badger, together with the
// ones that wait already, and in the log if that has to grow. Without that room a
// commit can still wait in the log.
func (d *DB) roomToCommit(bytes int64) error {
	need := d.roomToApply(bytes + d.unapplied())
	if room := recordRoom(bytes); d.clog.oversize(room) {
		need += room
	}
	// Whether room gives up the ballast is seen by what is left of it.
	held := d.ballast.bytes()
	err := d.room(need)
	if d.ballast.bytes() < held {
		// While there is room: what the log has is applied now, so that it can take the commits to
		// come.
		d.clog.seal()
		d.applier.wake()
	}
	if err != nil && d.mayWaitInLog(bytes) {
		return nil
	}
	return err
}

// mayWaitInLog tells whether a commit can be durable in the log, which has its blocks, until there
// is room to apply it. The next opening, which may use the spare, must be able to repeat all
// that is in the log by then.
func (d *DB) mayWaitInLog(bytes int64) bool {
	room := recordRoom(bytes)
	if !d.clog.fits(room) && (d.clog.oversize(room) || !d.clog.free()) {
		return false
	}
	return d.space.refresh()+d.spare.bytes() >= d.roomToApply(d.clog.held()+bytes)
}

// roomToApply is what so many bytes of rows need in Badger: its log, the table
// made of that, and the memtable that may have to be flushed to make way.
func (d *DB) roomToApply(bytes int64) int64 { return 2*bytes + d.opt.MemTable }

func (d *DB) unapplied() int64 {
	d.mu.RLock()
	defer d.mu.RUnlock()
	var sum int64
	for _, o := range d.mu.logged {
		sum += o.bytes
	}
	return sum
}

// room drops the ballast if less than need is free, and gives ErrFull if that
// is not enough.
func (d *DB) room(need int64) error {
	free := d.space.refresh()
	for free < need && d.dropBallast() {
		free = d.space.refresh()
	}
	return fits(need, free)
}

func fits(need, free int64) error {
	if free < need {
		return fmt.Errorf("%w: %d bytes needed, %d free", ErrFull, need, free)
	}
	return nil
}
