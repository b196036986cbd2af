package db

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/table"
	"golang.org/x/sys/unix"
)

// An instance is one Badger database, in a directory of its own. One is in use; a compaction makes
// another, which takes its place:
//
//	being made [build] -> opened [openInstance] -> compared [compare] -> written to, too [join]
//	  -> caught up [catchUp] -> in use [end] -> retired [retire] -> removed [discard]
//
// Badger never compacts it, so what it holds at a version stays what it is.
type instance struct {
	dir string
	kv  *badger.DB
	wal *wal
	// writer is used by one goroutine: that of Open, then the applier's; before
	// the instance is in use, that of the compaction.
	writer writer
	// list is the one on the disk, or nil; used by the same.
	list *fileList

	// refs counts the calls that read Badger's mapped files, which closing unmaps, and the DB whose
	// instance it is. It grows only under DB.mu, while the instance is in use.
	refs atomic.Int64
	idle chan struct{} // closed when refs is 0, which is final
}

// openInstance opens the instance in dir. What d keeps besides is not touched.
func (d *DB) openInstance(dir string) (*instance, error) {
	// Both mend what a crash or a failing disk leaves and Badger refuses; the inspection has found
	// that nothing is lost by it.
	if err := removeEmptyLogs(dir); err != nil {
		return nil, err
	}
	if err := d.repairManifest(dir); err != nil {
		return nil, err
	}
	if err := d.opt.limits(dir); err != nil {
		return nil, err
	}
	// Before Badger maps them, or its page faults read around each index.
	if names, size := tables(dir); size > d.opt.readAround {
		warmTables(names)
	}
	kv, err := d.opt.openBadger(dir, d.opt.badger(dir))
	if err != nil {
		return nil, err
	}
	b := &instance{dir: dir, kv: kv, idle: make(chan struct{})}
	// One reference is the DB's, until another instance takes its place or Close.
	b.refs.Store(1)
	b.writer = writer{d: d, b: b, ts: kv.MaxVersion()}
	if b.wal, err = openWAL(dir); err != nil {
		return nil, errors.Join(err, kv.Close())
	}
	return b, nil
}

// openBadger opens the files in dir, by links in another directory, as bo says.
func (o Options) openBadger(dir string, bo badger.Options) (*badger.DB, error) {
	kv, err := badger.OpenManaged(bo)
	if err == nil {
		return kv, nil
	}
	err = badgerError(dir, bo.Dir, err, func() error { return o.openable(dir) })
	if !errors.Is(err, ErrCorrupt) {
		return nil, err
	}
	// Not for what went wrong once: all that Badger needs can be had, as was just found.
	// What the first try has begun is in the way of the second. One that only reads begins nothing.
	if !o.ReadOnly {
		if err := removeEmptyLogs(dir); err != nil {
			return nil, err
		}
	}
	if kv, again := badger.OpenManaged(bo); again == nil {
		return kv, nil
	}
	return nil, err
}

// badgerError tells what the system says from what Badger does not like about its files, which are
// in dir though Badger may have opened them by links in another directory.
func badgerError(dir, links string, err error, look func() error) error {
	text := strings.ReplaceAll(err.Error(), links, dir)
	if no, ok := errors.AsType[syscall.Errno](err); ok {
		err = fmt.Errorf("%s: %w", strings.TrimSuffix(text, ": "+no.Error()), no)
	} else {
		err = errors.New(text)
	}
	return unsound(dir, "opened", err, look)
}

// openable does what Badger does as it opens dir: all files are read, the directory is
// synced, and a file is made as a memtable's log is.
func (o Options) openable(dir string) error {
	if err := o.limits(dir); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		if e.IsDir() {
			continue
		}
		if err := readThrough(name); err != nil {
			return err
		}
	}
	if err := syncDir(dir); err != nil || o.ReadOnly {
		return err
	}
	return tryLog(filepath.Join(dir, tryName), 2*o.MemTable)
}

// tryName is the file that tryLog makes. What a crash leaves of it is overwritten and removed by
// the next one; Badger does not look at such names.
const tryName = "TRY" + tmpExt

// tryLog makes a file of a size, maps and removes it.
func tryLog(name string, size int64) (err error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return asFull(err)
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(name)) }()
	if err := f.Truncate(size); err != nil {
		return asFull(err)
	}
	b, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map %s: %w", name, err)
	}
	return errors.Join(unix.Munmap(b), f.Truncate(0))
}

// close has Badger make a table of its memtable and close its files. Badger tries that for ever
// where the disk takes nothing any more, so the disk is tried meanwhile. With the disk's error
// Badger is left open: the commit log has all its rows, and who wants the files must be another
// process.
func (b *instance) close() error {
	err := b.wal.close()
	done := make(chan error, 1)
	go func() { done <- b.kv.Close() }()
	for wait := closeWait; ; wait *= 2 {
		select {
		case closed := <-done:
			return errors.Join(err, closed)
		case <-time.After(wait):
		}
		if failed := tryWrite(filepath.Join(b.dir, tryName)); failed != nil {
			return errors.Join(err, failed)
		}
	}
}

// closeWait is how long a database may take to close before its disk is tried; then twice as long.
const closeWait = 250 * time.Millisecond

// tryWrite makes a file, durably, and removes it.
func tryWrite(name string) (err error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return asFull(err)
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(name)) }()
	if _, err := f.Write(make([]byte, os.Getpagesize())); err != nil {
		return asFull(err)
	}
	return asFull(f.Sync())
}

// leave ends a call that use has admitted, or that the instance is in use.
func (b *instance) leave() {
	if b.refs.Add(-1) == 0 {
		close(b.idle)
	}
}

// discard closes an instance that nobody reads any more, or ever has, and removes it.
func (d *DB) discard(b *instance) {
	if err := errors.Join(b.empty(), b.close()); err != nil {
		d.log.Warn("closing a database that is no longer used", "dir", b.dir, "err", err)
	}
	d.removeAll(b.dir)
}

// empty gives back what the tables take on the disk. Badger makes one more, of its memtable, as it
// closes, through a mapping that kills the process if there is no room.
func (b *instance) empty() (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer catchFault(&err)
	// Truncated and not removed: Badger has the files open, which keeps their room until it closes.
	for _, t := range b.kv.Tables() { // not one that is just being made
		err = errors.Join(err, os.Truncate(table.NewFilename(t.ID, b.dir), 0))
	}
	return err
}

// removeAll removes what the next opening would remove as well.
func (d *DB) removeAll(name string) {
	if err := os.RemoveAll(name); err != nil {
		d.log.Warn("cannot remove what is no longer used of the database", "path", name, "err", err)
	}
}

// get reads the newest version of a row. That needs no timestamp: a commit under
// way shows only rows that the overlays still hold.
func (b *instance) get(key []byte) ([]byte, error) {
	txn := b.kv.NewTransactionAt(latest, false)
	defer txn.Discard()
	return stored(txn, key)
}

func stored(txn *badger.Txn, key []byte) (_ []byte, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer catchFault(&err)
	item, err := txn.Get(key)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("get row %x: %w", key, err)
	}
	value, err := item.ValueCopy(nil)
	if err != nil {
		return nil, fmt.Errorf("get row %x: %w", key, err)
	}
	if value == nil {
		value = []byte{}
	}
	return value, nil
}

// verify reads every block of every table.
func (b *instance) verify() (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	// Badger 4.9.6 dereferences nil as it makes the error for a bad block.
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: a table does not match its checksums", ErrCorrupt)
		}
	}()
	if err := b.kv.VerifyChecksum(); err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return nil
}

// tableBytes returns what the tables take on the disk. What logs take depends on when one looks.
func (b *instance) tableBytes() (int64, error) {
	names, _ := tables(b.dir)
	return diskBytes(names)
}

// size returns what Badger's files take on the disk.
func (b *instance) size() (int64, error) {
	names, err := filepath.Glob(filepath.Join(b.dir, "*"))
	if err != nil {
		return 0, err
	}
	return diskBytes(names)
}
