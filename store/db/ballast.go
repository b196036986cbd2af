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
	ballastRetry = 10 * time.Second
)

// ballast is a file that holds room on the filesystem for the day when there is
// none left: [restore] allocates it, [drop] gives the room to the database.
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

// drop removes the file and reports whether there was one.
func (b *ballast) drop() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.held == 0 {
		return false
	}
	if err := os.Remove(b.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		b.log.Error("cannot drop the ballast", "path", b.path, "err", err)
		return false
	}
	// Some filesystems hand out freed blocks only after a journal commit.
	if err := syncDir(filepath.Dir(b.path)); err != nil {
		b.log.Warn("cannot sync after dropping the ballast", "err", err)
	}
	b.log.Warn("filesystem is nearly full: ballast dropped", "bytes", b.held)
	b.held = 0
	return true
}

// missing tells whether the file is not there at its full size.
func (b *ballast) missing() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.held != b.size
}

// restore makes the file, or makes it as large as it should be.
func (b *ballast) restore() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.allocate(); err != nil {
		_ = os.Remove(b.path)
		b.held = 0
		b.log.Warn("no ballast", "bytes", b.size, "err", err)
		return
	}
	b.held = b.size
}

func (b *ballast) allocate() error {
	if b.size == 0 {
		return os.Remove(b.path)
	}
	f, err := os.OpenFile(b.path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if err := unix.Fallocate(int(f.Fd()), 0, 0, b.size); err != nil {
		return errors.Join(err, f.Close())
	}
	return errors.Join(f.Sync(), f.Close())
}

// dropBallast gives up the ballast, or the spare if it may be used, and reports
// whether there was one.
func (d *DB) dropBallast() bool {
	return d.ballast.drop() || d.ending.Load() && d.spare.drop()
}

// restoreBallast makes the spare and the ballast, or makes them again, once there is room for them
// beyond what Admit keeps free, so that they never cause a refusal themselves, and
// not so much that they would only be a waste.
func (d *DB) restoreBallast() {
	if !d.spare.missing() && !d.ballast.missing() || time.Now().Before(d.restoreAt) {
		return
	}
	d.restoreAt = time.Now().Add(ballastRetry)
	for _, b := range []*ballast{d.spare, d.ballast} {
		free := d.space.refresh()
		plenty := d.opt.BallastBelow > 0 && free >= d.opt.BallastBelow
		if b.missing() && free >= d.opt.reserve()+2*b.size && !plenty {
			b.restore()
		}
	}
}

// held is the size of the file as it is.
func (b *ballast) bytes() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.held
}
