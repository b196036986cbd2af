package db

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// flushKey is a row that is written only to be dropped again.
var flushKey = []byte{0xff, 0xff, 'f'}

// Compact gives back what deleted and replaced rows take on the disk, and
// returns how many bytes that is. Commits wait; readers go on, but for the moment
// in which the memtable is written out. Errors: ErrFull, ErrFailed, those of the
// disk.
func (d *DB) Compact() (int64, error) {
	if err := d.use(); err != nil {
		return 0, err
	}
	defer d.users.Done()
	d.writing.Lock()
	defer d.writing.Unlock()
	if err := d.drain(); err != nil {
		return 0, err
	}
	before, err := d.diskBytes()
	if err != nil {
		return 0, err
	}
	// Tables are written anew before the old ones go.
	if err := fits(before+2*d.opt.MemTable, d.gate.refresh()); err != nil {
		return 0, err
	}
	if err := d.flushMemTable(); err != nil {
		return 0, fmt.Errorf("compact database: %w", err)
	}
	if err := d.kv.Flatten(1); err != nil {
		d.log.Debug("database not compacted to the end", "err", err)
	}
	after, err := d.diskBytes()
	return max(0, before-after), err
}

// drain has all commits carried into Badger and all log files released. Until
// the caller, who holds writing, lets it go, the applier then has nothing to do
// and leaves its writer alone.
func (d *DB) drain() error {
	d.clog.seal()
	return d.applier.wait(func() bool { return d.clog.sealed() == nil })
}

// flushMemTable has Badger turn its memtable into a table. That is the first
// thing that DropPrefix does, and the only way to ask for it. The log must be
// drained.
func (d *DB) flushMemTable() error {
	w := &d.writer
	err := w.put(flushKey, []byte{})
	if err == nil {
		err = w.commit()
	}
	if err != nil {
		w.discard()
		if errors.Is(err, ErrFull) {
			return err
		}
		return d.applier.fail(err)
	}
	d.mu.Lock()
	d.mu.ts = w.ts
	d.mu.Unlock()
	d.kv.SetDiscardTs(d.readers.oldest(w.ts))
	err = d.kv.DropPrefix(flushKey)
	if err == nil {
		err = d.wal.follow(0) // the log has a successor now
	}
	if err == nil {
		err = d.wal.checkpoint()
	}
	if err != nil {
		return d.applier.fail(err)
	}
	return nil
}

// diskBytes returns what Badger's files take.
func (d *DB) diskBytes() (int64, error) {
	var sum int64
	names, err := filepath.Glob(filepath.Join(d.opt.Dir, "*"))
	for _, name := range names {
		var st unix.Stat_t
		switch serr := unix.Lstat(name, &st); {
		case filepath.Base(name) == ballastName, isLog(name), errors.Is(serr, fs.ErrNotExist):
		case serr != nil:
			return 0, &os.PathError{Op: "stat", Path: name, Err: serr}
		default:
			sum += st.Blocks * 512
		}
	}
	return sum, err
}

func isLog(name string) bool { return strings.HasPrefix(filepath.Base(name), logPrefix) }
