package db

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	memExt  = ".mem"
	vlogExt = ".vlog"
)

// wal makes Badger's commits durable. Badger logs each memtable in a mapped
// file of its own, numbered upwards; a commit is in the newest as a whole. The
// package is the only writer, so after a commit returns the newest file is the
// one that holds it. Badger's own sync misses the directory entry of a new
// file, and costs one more flush for the value log.
//
// A log is sparse at first. That a commit needs room on the disk is found out
// by [reserve], not by the kernel killing the process, and blocks that hold
// zeroes already [prepare] save a small commit the filesystem's own journal.
type wal struct {
	dir   string
	seq   int
	file  *os.File
	dirty bool // file has commits that are not synced

	// Offsets in file. Badger has written less than used; below backed nothing
	// needs a new block; below zeroed blocks need no change but their content.
	used   int64
	backed int64
	zeroed int64
}

const (
	// logStep is how much of a log is prepared at a time.
	logStep = 1 << 20
	// smallCommit is the largest for which preparing pays: zeroes double what is written.
	smallCommit = 64 << 10
	// commitOverhead covers the entry that ends a transaction in the log.
	commitOverhead = 128
)

// openWAL finds the newest log. Badger must be open.
func openWAL(dir string) (*wal, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*"+memExt))
	if err != nil {
		return nil, err
	}
	w := &wal{dir: dir, seq: -1}
	for _, name := range names {
		n, err := strconv.Atoi(strings.TrimSuffix(filepath.Base(name), memExt))
		if err == nil {
			w.seq = max(w.seq, n)
		}
	}
	if w.seq < 0 {
		return nil, errors.New("no memtable log")
	}
	if w.file, err = w.open(w.seq); err != nil {
		return nil, err
	}
	return w, syncDir(dir)
}

func (w *wal) open(seq int) (*os.File, error) {
	return os.OpenFile(filepath.Join(w.dir, fmt.Sprintf("%05d%s", seq, memExt)), os.O_RDWR, 0)
}

// reserve makes sure that the newest log has blocks for a commit of so many
// bytes. ErrFull means that nothing was changed. A filesystem that cannot tell
// is taken at the gate's word.
func (w *wal) reserve(bytes int64) error {
	need := w.used + bytes + commitOverhead
	if need <= w.backed {
		return nil
	}
	size, err := w.file.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	need = min((need+logStep-1)/logStep*logStep, size)
	if need <= w.backed {
		return nil
	}
	err = unix.Fallocate(int(w.file.Fd()), unix.FALLOC_FL_KEEP_SIZE, w.backed, need-w.backed)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	w.backed = need
	return nil
}

// follow must be called after each commit, with its size. If Badger has begun
// a new log, what was in the one before is synced first, so that no commit is
// durable before an earlier one.
func (w *wal) follow(bytes int64) error {
	for {
		next, err := w.open(w.seq + 1)
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return err
		}
		if err := w.turn(next); err != nil {
			return err
		}
	}
	w.dirty = true
	w.used += bytes + commitOverhead
	return nil
}

func (w *wal) turn(next *os.File) error {
	err := w.flush()
	if closed := w.file.Close(); err == nil {
		err = closed
	}
	w.file = next
	w.seq++
	w.used, w.backed, w.zeroed = 0, 0, 0
	if err != nil {
		return err
	}
	return syncDir(w.dir)
}

// sync makes all commits so far durable.
func (w *wal) sync() error {
	if !w.dirty {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(w.file.Fd()), &st); err != nil {
		return err
	}
	if st.Nlink == 0 {
		// Badger removes a log only when a newer one takes the commits.
		return fmt.Errorf("log %s is gone and %d is not there", w.file.Name(), w.seq+1)
	}
	return w.flush()
}

func (w *wal) flush() error {
	if !w.dirty {
		return nil
	}
	if err := unix.Fdatasync(int(w.file.Fd())); err != nil {
		return &fs.PathError{Op: "fdatasync", Path: w.file.Name(), Err: err}
	}
	w.dirty = false
	return nil
}

// prepare writes zeroes ahead of small commits. It must be called after sync,
// with no commit under way: then all that Badger has written has blocks, and
// everything from the first hole on is untouched, so it cannot be overwritten
// whatever used says. Failure costs only speed.
func (w *wal) prepare(bytes int64) {
	if bytes > smallCommit || w.dirty || w.used+4*smallCommit < w.zeroed {
		return
	}
	fd := int(w.file.Fd())
	size, err := w.file.Seek(0, io.SeekEnd)
	if err != nil {
		return
	}
	hole, err := unix.Seek(fd, 0, unix.SEEK_HOLE)
	if err != nil || hole >= size {
		w.zeroed = math.MaxInt64
		return
	}
	end := min(max(hole, w.used)+logStep, size)
	w.zeroed = end
	zeroes := make([]byte, end-hole)
	if _, err := unix.Pwrite(fd, zeroes, hole); err != nil {
		return
	}
	w.backed = max(w.backed, end)
	// Not fdatasync, which would take the report of an error from the next sync.
	_ = unix.SyncFileRange(fd, hole, end-hole, unix.SYNC_FILE_RANGE_WRITE)
}

func (w *wal) close() error {
	if w == nil || w.file == nil {
		return nil
	}
	return w.file.Close()
}

// logBytes returns what the logs in dir take on the disk.
func logBytes(dir string) (int64, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*"+memExt))
	if err != nil {
		return 0, err
	}
	var sum int64
	for _, name := range names {
		var st unix.Stat_t
		if err := unix.Stat(name, &st); err != nil {
			return 0, &fs.PathError{Op: "stat", Path: name, Err: err}
		}
		sum += st.Blocks * 512
	}
	return sum, nil
}

// removeEmptyLogs removes logs of no length, which Badger refuses to open. It
// leaves one when the machine stops between the truncation and the removal of a
// log that is no longer needed, or between the creation and the sizing of a new one.
func removeEmptyLogs(dir string) error {
	lock, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	// The lock that Badger takes: another process may be about to size a new log.
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("database is in use: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		ext := filepath.Ext(e.Name())
		info, err := e.Info()
		if err != nil {
			return err
		}
		if info.Size() > 0 || (ext != memExt && ext != vlogExt) {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}
