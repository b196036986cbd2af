package db

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	ballastName  = "BALLAST"
	spareName    = "BALLAST.SPARE"
	ballastRetry = time.Second
	ballastUnit  = 64 << 10 // both files are whole multiples, but for their full size
)

// ballast is a file that holds room on the filesystem for the day when there is
// none left: [restore] allocates it, [give] gives the room to the database.
type ballast struct {
	path string
	size int64
	log  *slog.Logger

	mu   sync.Mutex
	held int64
}

func newBallast(path string, size int64, log *slog.Logger) *ballast {
	b := &ballast{path: path, size: size, log: log}
	if info, err := os.Stat(path); err == nil {
		b.held = info.Size()
	}
	return b
}

// give makes the file shorter by at least n bytes, or removes it, and reports whether it gave any.
// What is left stays out of reach of the other users of the disk.
func (b *ballast) give(n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.held == 0 {
		return false
	}
	left := max(0, b.held-n) / ballastUnit * ballastUnit
	if err := b.shrink(left); err != nil {
		b.log.Error("cannot give up ballast", "path", b.path, "err", err)
		return false
	}
	b.log.Warn("filesystem is full: ballast given up", "file", filepath.Base(b.path), "bytes", b.held-left, "left", left)
	b.held = left
	return true
}

// shrink makes the file so long, or removes it, and syncs that: some filesystems hand out freed
// blocks only after a journal commit.
func (b *ballast) shrink(left int64) error {
	if left == 0 {
		if err := os.Remove(b.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return syncDir(filepath.Dir(b.path))
	}
	f, err := os.OpenFile(b.path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(left), f.Sync(), f.Close())
}

// missing tells whether the file is not there at its full size.
func (b *ballast) missing() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.held != b.size
}

// restore makes the file, or makes it at least so large, of what it may be at most, or as large as
// free bytes allow.
func (b *ballast) restore(least, free int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	size := min(b.size, max(least, b.held))
	// Shrinking needs no room, growing only as much as is free.
	if size > b.held {
		size = min(size, b.held+max(0, free)/ballastUnit*ballastUnit)
	}
	if size == b.held {
		return
	}
	if err := b.allocate(size); err != nil {
		// Back to what is known to be there: blocks of half an allocation count for nothing.
		if b.shrink(b.held) != nil {
			b.held = 0
		}
		b.log.Warn("no ballast", "bytes", size, "err", err)
		return
	}
	b.held = size
}

func (b *ballast) allocate(size int64) error {
	if size < b.held {
		return b.shrink(size)
	}
	f, err := os.OpenFile(b.path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	// Allocated and not written: no time, and no wear.
	if err := unix.Fallocate(int(f.Fd()), 0, 0, size); err != nil {
		return errors.Join(err, f.Close())
	}
	return errors.Join(f.Sync(), f.Close())
}

// giveBallast gives up the ballast, or the spare if it may be used, for what needs little, and
// reports whether there was one.
func (d *DB) giveBallast() bool {
	return d.ballast.give(2*roomSlack) || d.ending.Load() && d.spare.give(2*roomSlack)
}

// restoreBallast makes the spare and the ballast, or makes them again. The spare comes first and
// takes all that it can get, also of what Admit would still give to writers: without it nothing
// could be removed. The ballast comes when there is room for it beyond what Admit keeps free.
// Where there is so much room that all this would only be a waste, there is the least spare.
func (d *DB) restoreBallast() {
	if !d.spare.missing() && !d.ballast.missing() || time.Now().Before(d.restoreAt) {
		return
	}
	d.restoreAt = time.Now().Add(ballastRetry)
	free := d.space.rest()
	// Others may fill the disk while nobody has the database open.
	if d.opt.BallastBelow > 0 && free >= d.opt.BallastBelow {
		d.spare.restore(leastSpare, free)
		return
	}
	// A commit's own needs are left: what is given back in one moment is not asked for in the next.
	if d.spare.missing() {
		d.spare.restore(d.opt.Spare, free-roomSlack)
		free = d.space.rest()
	}
	if d.ballast.missing() && free >= d.opt.reserve()+2*d.opt.Ballast {
		d.ballast.restore(d.opt.Ballast, free)
	}
}

// leastSpare is how much of the spare is there on the largest disk: with it a database that was
// closed can be opened and thousands of names be removed.
const leastSpare = 16 << 20

// bytes is the size of the file as it is.
func (b *ballast) bytes() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.held
}
