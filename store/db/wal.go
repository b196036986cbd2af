package db

import (
	"errors"
	"fmt"
	"io"
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

// wal follows the files in which Badger logs its memtables, one file for each,
// numbered upwards; a transaction is in the newest as a whole. The package is
// the only writer, so after a transaction the newest file is the one that holds
// it. A checkpoint makes these files durable: Badger's own sync misses rotated
// ones and the directory entry of a new one.
//
// Badger writes to them through sparse mappings. That a transaction needs room
// on the disk is found out by [reserve], not by the kernel killing the process.
type wal struct {
	dir   string
	seq   int
	file  *os.File
	dirty bool // file has transactions that are not synced

	// Offsets in file. Badger has written less than used; below backed nothing
	// needs a new block; below started the kernel was told to begin writing.
	used    int64
	backed  int64
	started int64
}

const (
	// logStep is how much of a log is allocated at a time, and how much of it
	// is gathered before the kernel is told to write it.
	logStep = 1 << 20
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
	// Badger makes one as it opens.
	if w.seq < 0 {
		return nil, errors.New("no memtable log")
	}
	if w.file, err = w.open(w.seq); err != nil {
		return nil, err
	}
	// The newest log's name may not be durable yet; a checkpoint relies on it.
	return w, syncDir(dir)
}

func (w *wal) open(seq int) (*os.File, error) {
	return os.OpenFile(memName(w.dir, seq), os.O_RDWR, 0)
}

func memName(dir string, seq int) string {
	return filepath.Join(dir, fmt.Sprintf("%05d%s", seq, memExt))
}

// reserve makes sure that the newest log has blocks for a transaction of so many
// bytes. ErrFull means that nothing was changed. A filesystem that cannot tell
// is taken at the word of the space guard.
func (w *wal) reserve(bytes int64) error {
	need := w.used + bytes + commitOverhead
	if need <= w.backed {
		return nil
	}
	size, err := w.file.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	// A megabyte at a time, and never behind the file's end, where Badger begins another.
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

// follow must be called after each transaction, with its size. If Badger has
// begun a new log, the one before is synced first.
func (w *wal) follow(bytes int64) error {
	for {
		// Badger does not tell when it begins a log; the next name is there then.
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
	if n := w.used - w.started; n >= logStep {
		// So that a checkpoint finds little left to write. The error, if any,
		// is the checkpoint's to report.
		_ = unix.SyncFileRange(int(w.file.Fd()), w.started, n, unix.SYNC_FILE_RANGE_WRITE)
		w.started = w.used
	}
	return nil
}

func (w *wal) turn(next *os.File) error {
	err := w.flush()
	if closed := w.file.Close(); err == nil {
		err = closed
	}
	w.file = next
	w.seq++
	w.used, w.backed, w.started = 0, 0, 0
	return err
}

// checkpoint makes durable all transactions so far, the tables that Badger made
// of some, and the names of both.
func (w *wal) checkpoint() error {
	var st unix.Stat_t
	if err := unix.Fstat(int(w.file.Fd()), &st); err != nil {
		return err
	}
	if w.dirty && st.Nlink == 0 {
		// Badger removes a log only when a newer one takes the transactions.
		return fmt.Errorf("log %s is gone and %d is not there", w.file.Name(), w.seq+1)
	}
	if err := w.flush(); err != nil {
		return err
	}
	return syncDir(w.dir)
}

func (w *wal) flush() error {
	if !w.dirty {
		return nil
	}
	err := unix.Fdatasync(int(w.file.Fd()))
	// After an error it stays dirty, so that no checkpoint passes for one.
	w.dirty = err != nil
	return pathError("fdatasync", w.file.Name(), err)
}

// syncLogs makes durable what the logs in dir have, though transactions go on: a log that goes
// meanwhile has become a table, a new one holds nothing of before.
func syncLogs(dir string) error {
	names, err := filepath.Glob(filepath.Join(dir, "*"+memExt))
	if err != nil {
		return err
	}
	for _, name := range names {
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		err = pathError("fdatasync", name, unix.Fdatasync(int(f.Fd())))
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	// Their names last: a log without one is lost however well it was synced.
	return syncDir(dir)
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
		// One that has a length has transactions, and Badger reads it.
		if info.Size() > 0 || (ext != memExt && ext != vlogExt) {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}
