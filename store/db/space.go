package db

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dustin/go-humanize"

	"golang.org/x/sys/unix"
)

const (
	askInterval = 50 * time.Millisecond
	// How much may be admitted on one answer: what is more than enough to ask again, but a share of
	// the room where there is plenty, since callers count again what waits to be written.
	askBytes = 16 << 20
	askShare = 16
)

// spaceGuard watches the free space of a filesystem. Badger writes through sparse
// mappings, and the kernel kills a process whose mapping finds no room, so
// refusing has to happen well before.
type spaceGuard struct {
	path    string
	reserve int64
	statfs  func(path string) (space, error)

	mu     sync.Mutex             // one asks at a time
	answer atomic.Pointer[answer] // the last; every write of a mount looks at it, so by no lock
}

// An answer is what a filesystem said it has.
type answer struct {
	space
	at    time.Time
	taken atomic.Int64 // admitted since
}

func (a *answer) old() bool { return time.Since(a.at) > askInterval }

// plenty reports whether less than half of the room was taken, and that a multiple of what is asked
// for at a time.
func (a *answer) plenty(reserve int64) bool {
	room := a.free - reserve
	return room > askShare*askBytes && a.taken.Load() < room/2
}

// take admits n bytes, unless that would leave less than the reserve.
func (a *answer) take(n, reserve int64) bool {
	for {
		taken := a.taken.Load()
		if a.free-taken-n < reserve {
			return false
		}
		if a.taken.CompareAndSwap(taken, taken+n) {
			return true
		}
	}
}

// space is what may still be written of a filesystem, in bytes.
type space struct {
	free int64 // by ordinary users, and so by ours
	last int64 // by this process, for commits: root also has the blocks that are kept for root
}

func newSpaceGuard(path string, reserve int64) *spaceGuard {
	ask := askSpace
	if !mayUseLast() {
		ask = func(path string) (space, error) {
			s, err := askSpace(path)
			s.last = s.free
			return s, err
		}
	}
	g := &spaceGuard{path: path, reserve: reserve, statfs: ask}
	g.answer.Store(&answer{}) // which is old
	return g
}

func askSpace(path string) (space, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return space{}, err
	}
	// ext4 keeps a few of the blocks that it reports as free for itself.
	own := min(st.Blocks/50, 4096)
	last := max(st.Bavail, st.Bfree-min(st.Bfree, own))
	return space{free: int64(st.Bavail) * st.Frsize, last: int64(last) * st.Frsize}, nil
}

// mayUseLast tells whether this process is the root that filesystems keep blocks for: not one
// inside of a user namespace, and not one that acts with the rights of a store's owner.
func mayUseLast() bool {
	ids, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && unix.Geteuid() == 0 && slices.Equal(strings.Fields(string(ids)), []string{"0", "0", "4294967295"})
}

// admit refuses n bytes that would cut into the reserve. Bytes admitted count
// as used until the filesystem is asked again, so that many callers in a short
// time do not share one answer.
func (g *spaceGuard) admit(n int64) error {
	a := g.answer.Load()
	// Asking costs a system call, and each write of the filesystem comes by here.
	if a.old() || a.taken.Load()+n > max(askBytes, (a.free-g.reserve)/askShare) {
		a = g.ask(a)
	}
	if !a.take(n, g.reserve) {
		return fmt.Errorf("%w: %s asked, %s free, %s reserved", ErrFull, size(n), size(a.free-a.taken.Load()), size(g.reserve))
	}
	return nil
}

// refresh asks the filesystem now, for users.
func (g *spaceGuard) refresh() int64 { return g.ask(nil).free }

// rest asks the filesystem now, for a commit.
func (g *spaceGuard) rest() int64 { return g.ask(nil).last }

// recent is the last answer, for a commit, unless that is old.
func (g *spaceGuard) recent() int64 {
	a := g.answer.Load()
	if a.old() {
		a = g.ask(a)
	}
	return a.last - a.taken.Load()
}

// ask asks the filesystem, unless somebody else has since it gave the answer known. It keeps the
// last one if there is none: a filesystem that cannot be asked reports its trouble to whoever
// writes.
func (g *spaceGuard) ask(known *answer) *answer {
	if !g.mu.TryLock() {
		// Somebody asks at this moment. Where there is plenty the last answer does until then.
		if known != nil && known.plenty(g.reserve) {
			return known
		}
		g.mu.Lock()
	}
	defer g.mu.Unlock()
	last := g.answer.Load()
	if known != nil && last != known {
		return last
	}
	a := &answer{space: last.space}
	if now, err := g.statfs(g.path); err == nil {
		a.space = now
	}
	a.at = time.Now()
	g.answer.Store(a)
	return a
}

// Admit returns ErrFull if taking n more bytes of the filesystem would leave
// less than the reserve. It rarely makes a system call. What was admitted but
// is written only much later is forgotten meanwhile: callers bound how much
// they hold back, and MinFree should exceed it.
func (d *DB) Admit(n int64) error { return d.space.admit(n) }

// Free returns the bytes that Admit would let pass at this moment.
func (d *DB) Free() int64 { return max(0, d.space.refresh()-d.space.reserve) }

// roomSlack covers what Badger and the file list write besides rows: lists of tables, new logs'
// headers, directories; and a step of a log.
const roomSlack = 1<<20 + logStep

// roundSlack is what logs may take beyond what is written to them, each log and its table: it is
// asked for ahead of a step, and in the step itself it may be used up already.
const roundSlack = 2 * logStep

// Accepts reports whether a change of about n bytes more would be committed, however full other
// programs make the disk: nil, or ErrFull. What waits for a commit already counts. A removal may
// count on all that is set aside; other changes only on the ballast, so that the spare is left to
// removals. It rarely makes a system call while there is room.
func (d *DB) Accepts(n int64, removal bool) error {
	free := d.space.recent()
	// With the reserve untouched there is room for any commit.
	if free >= d.space.reserve {
		return nil
	}
	free += d.ballast.bytes()
	if removal {
		free += d.spare.bytes()
	}
	// The way that always works, if there is room: all that waits is applied first.
	bytes := d.unwritten() + n
	return fits(d.needs(bytes, d.logBytes()), free)
}

// unwritten is the bytes that wait for a Write.
func (d *DB) unwritten() int64 {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.mu.active.bytes + d.mu.frozen.bytes
}

// GiveRoom gives up as much of the ballast as n bytes need that were admitted and then taken by
// other programs, and reports whether there is room for them now. The spare stays.
func (d *DB) GiveRoom(n int64) bool {
	if d.opt.ReadOnly {
		return false
	}
	// What the log has must still be repeatable, and some commits be possible.
	commits := d.roomToApply(d.clog.held()+d.unwritten()) + roundSlack
	if fits(n+commits, d.inReach()) != nil {
		return false
	}
	return d.room(n+roomSlack) == nil
}

// roomToOpen gives up ballast if Badger could run out of room while it turns
// the logs it finds into tables, which it does before it can be asked anything.
func (d *DB) roomToOpen(current string) error {
	logs, err := logBytes(filepath.Join(d.opt.Dir, current))
	if err != nil {
		return err
	}
	return d.room(logs + roomSlack)
}

// roomToCommit sees to it that a commit can be made and applied, in one of three ways:
//  1. There is room in Badger for it, together with the ones that wait already, and for the log if
//     that has to grow.
//  2. It can wait in the log, which has its blocks.
//  3. The ballast, and then the spare, give room to apply what waits, which empties the log.
func (d *DB) roomToCommit(bytes int64) error {
	free := d.space.rest()
	// Most disks have so much that the logs need not be looked at, which takes a commit longer the
	// more tables there are.
	if d.needs(bytes, mostLogs*d.opt.MemTable) <= free {
		return nil
	}
	need := d.needs(bytes, d.logBytes())
	if need <= free || d.mayWaitInLog(bytes) {
		return nil
	}
	return d.emptyLog(need)
}

// mostLogs is more memtables than Badger's logs ever take: there are up to five, of which one is
// being removed, one made a table of, two wait for that and one is in use, and each takes less than
// two.
const mostLogs = 10

// needs is what a commit of so many bytes needs, with the ones that wait already, when Badger's
// logs take so many.
func (d *DB) needs(bytes, logs int64) int64 {
	return roomToApply(bytes+d.unapplied(), logs) + d.growth(bytes) + roundSlack
}

// inReach is what is free, with all that is set aside.
func (d *DB) inReach() int64 { return d.space.rest() + d.ballast.bytes() + d.spare.bytes() }

// growth is what the log needs to take a record of a commit that no file of it takes as it is.
func (d *DB) growth(bytes int64) int64 {
	if room := recordRoom(bytes); d.clog.oversize(room) {
		return room
	}
	return 0
}

// mayWaitInLog tells whether a commit can be durable in the log, which has its blocks, until there
// is room to apply it. The next opening, which may use all that is set aside, must be able to
// repeat what is in the log by then.
func (d *DB) mayWaitInLog(bytes int64) bool {
	room := recordRoom(bytes)
	if !d.clog.fits(room) && (d.clog.oversize(room) || !d.clog.free()) {
		return false
	}
	return fits(d.roomToApply(d.clog.held()+bytes)+roundSlack, d.inReach()) == nil
}

// emptyLog applies all that the log has, with the room of the ballast and of the spare, so that it
// can take a commit, all of which needs so many bytes. ErrFull: there is not as much, and nothing
// was given up.
func (d *DB) emptyLog(need int64) error {
	// Before anything is given up: a commit that is too large must not use up what smaller ones
	// can still be made with.
	if err := fits(need, d.inReach()); err != nil {
		return err
	}
	if err := d.giveUntil(need, d.ballast, d.spare); err != nil {
		return err
	}
	// Sealed so that the applier empties it; a current file is never released.
	d.clog.seal()
	err := d.applier.wait(func() bool { return d.clog.sealed() == nil })
	// At once: until the spare is there again, other programs may take its room.
	d.restoreAt = time.Time{}
	return err
}

// roomToApply is what so many bytes of rows need in Badger: its log and the table made of that,
// and the table of what its logs have already.
func (d *DB) roomToApply(bytes int64) int64 { return roomToApply(bytes, d.logBytes()) }

func roomToApply(bytes, logs int64) int64 { return 2*bytes + logs + roomSlack }

// logBytes is what Badger's logs take. The directory is read for that.
func (d *DB) logBytes() int64 {
	logs, err := logBytes(d.inUse().dir)
	if err != nil {
		return d.opt.MemTable // the most that one takes
	}
	return logs
}

func (d *DB) unapplied() int64 {
	d.mu.RLock()
	defer d.mu.RUnlock()
	var sum int64
	for _, o := range d.mu.logged {
		sum += o.bytes
	}
	return sum
}

// room gives up ballast if less than need is free, and gives ErrFull if that is not enough. The
// spare is only for opening and closing, and for emptyLog.
func (d *DB) room(need int64) error {
	if d.ending.Load() {
		return d.giveUntil(need, d.ballast, d.spare)
	}
	return d.giveUntil(need, d.ballast)
}

// giveUntil gives up what is set aside, the first of from first, until need is free.
func (d *DB) giveUntil(need int64, from ...*ballast) error {
	free := d.space.rest()
	for _, b := range from {
		// No more than what is missing: what is left is still out of reach of others.
		for free < need && b.give(need-free) {
			free = d.space.rest()
		}
	}
	return fits(need, free)
}

func fits(need, free int64) error {
	if free < need {
		return fmt.Errorf("%w: %s needed, %s free", ErrFull, size(need), size(free))
	}
	return nil
}

// size shows an amount of bytes.
func size(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }
