package db

import (
	"errors"
	"fmt"
	"io/fs"
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
type wal struct {
	dir   string
	seq   int
	file  *os.File
	dirty bool // file has commits that are not synced
}

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

// follow must be called after each commit. If Badger has begun a new log, what
// was in the one before is synced first, so that no commit is durable before
// an earlier one.
func (w *wal) follow() error {
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
	return nil
}

func (w *wal) turn(next *os.File) error {
	err := w.sync()
	if closed := w.file.Close(); err == nil {
		err = closed
	}
	w.file = next
	w.seq++
	if err != nil {
		return err
	}
	return syncDir(w.dir)
}

func (w *wal) sync() error {
	if !w.dirty {
		return nil
	}
	if err := unix.Fdatasync(int(w.file.Fd())); err != nil {
		return &fs.PathError{Op: "fdatasync", Path: w.file.Name(), Err: err}
	}
	w.dirty = false
	return nil
}

func (w *wal) close() error {
	if w == nil || w.file == nil {
		return nil
	}
	return w.file.Close()
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
