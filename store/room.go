package store

import (
	"context"
	"errors"
	"time"

	"github.com/quarxtor/quarxfs/store/db"
)

// room is the space that is left for what comes in. It knows of the others only what it asks them
// for, so that its decisions can be tried without a disk that is full.
type room struct {
	*base
	pending *pending
	disk    reserve // set with open
	commits interface {
		Accepts() error
		Commit() error
	}
	sweeper interface {
		Sweep(context.Context) (Swept, error)
	}
	relocator interface {
		Compact(context.Context, CompactOptions) (Compacted, error)
	}
	hot interface{ throttleHot() error }

	sweepInterval time.Duration
	reclaim       db.Group  // sweeps on a full disk
	swept         time.Time // when one of these last found nothing; used inside reclaim
	roomDropped   uint64    // pending.dropped at the last of these; used inside reclaim
}

// A reserve says how much of the disk may still be taken, and can give a little back. It is the
// database, which keeps room for its commits.
type reserve interface {
	Admit(n int64) error
	Free() int64
	Compact() (int64, error)
}

// Admit is asked before n bytes are taken in, outside of Update. It sweeps when
// that can make room, and waits a little while the hot tier is over its limit. It reports ErrFull
// when they would too little free space, and what Accepts says when commits fail, so that memory
// does not fill with what cannot be kept.
func (rm *room) Admit(n int64) error {
	if err := rm.commits.Accepts(); err != nil {
		return err
	}
	err := rm.disk.Admit(n)
	if errors.Is(err, ErrFull) && rm.sweepInterval > 0 {
		// Once: what a sweep did not find is not there.
		rm.makeRoom(n)
		err = rm.disk.Admit(n)
	}
	if err == nil {
		err = rm.hot.throttleHot()
	}
	return err
}

// roomRetry is how long a full disk is left alone after a sweep that found
// nothing, unless references are dropped meanwhile.
const roomRetry = 200 * time.Millisecond

// roomAhead is what a sweep on a full disk tries to gain beyond what is asked.
const roomAhead = 16 << 20

// makeRoom sweeps and compacts at once, since the disk has no room for n bytes. Callers that come
// meanwhile share the next sweep, or go without when one has just found nothing.
func (rm *room) makeRoom(n int64) {
	err := rm.reclaim.Do(func() error {
		rm.pending.mu.Lock()
		dropped := rm.pending.dropped
		rm.pending.mu.Unlock()
		// Nothing was deleted since the last one found nothing: writers shall fail at once, not
		// sweep one after the other.
		if dropped == rm.roomDropped && rm.now().Sub(rm.swept) < roomRetry {
			return nil
		}
		rm.roomDropped = dropped
		before := rm.disk.Free()
		defer func() {
			if rm.disk.Free() < before+1<<20 {
				rm.swept = rm.now()
			}
		}()
		// What was deleted a moment ago counts only once it is committed.
		if err := rm.commits.Commit(); err != nil {
			return err
		}
		if _, err := rm.sweeper.Sweep(context.Background()); err != nil {
			return err
		}
		return rm.squeeze(n + roomAhead)
	})
	if err != nil {
		rm.log.Error("sweep on a full disk failed", "err", err)
	}
}

// squeeze compacts until n bytes are free: the segments that give most first, and
// in the end those that have only a little garbage.
func (rm *room) squeeze(n int64) error {
	enough := func() bool { return rm.disk.Free() >= n }
	for _, live := range []float64{0.5, 0.8, maxMinLive} {
		if enough() {
			return nil
		}
		if _, err := rm.relocator.Compact(context.Background(), CompactOptions{MinLive: live, seal: true, enough: enough}); err != nil {
			return err
		}
	}
	if enough() {
		return nil
	}
	if _, err := rm.disk.Compact(); !errors.Is(err, ErrFull) {
		return err
	}
	return nil // there is no room for another database beside this one
}

// Space returns how much the store takes, in all tiers and in the database's tables,
// and how much may still be written, in bytes.
func (rm *room) Space() (used, free int64) {
	return rm.tiers.Bytes() + rm.db.TableBytes(), rm.disk.Free()
}
