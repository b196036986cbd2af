package db

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
)

var (
	// ErrNotFound says that no row has the key.
	ErrNotFound = errors.New("row not found")
	// ErrStop, returned by the function given to Scan, ends the scan without error.
	ErrStop = errors.New("stop scanning")
	// ErrFull says that the filesystem is too full for what was asked. Nothing
	// was written; the same call succeeds once there is room.
	ErrFull = errors.New("filesystem is full")
	// ErrCorrupt says that a journal does not hold what its marker promises, or
	// that a stored row does not match its checksum.
	ErrCorrupt = errors.New("database is corrupt")
	// ErrClosed is returned by every call after Close.
	ErrClosed = errors.New("database is closed")
	// ErrFailed is returned by Write after a commit failed in the disk: what
	// the disk then holds is unknown until the database is opened again.
	ErrFailed = errors.New("an earlier commit failed; reopen the database")

	errAborted = errors.New("the shared run panicked")
)

const (
	defaultMemTable = 64 << 20
	// minMemTable lets the largest journal chunk fit in one transaction, which
	// is 15 % of a memtable.
	minMemTable = 8 << 20
	// latest makes Badger return the newest version of a row.
	latest = math.MaxUint64
)

// Options say where a database is and what it may use. Sizes are in bytes.
type Options struct {
	// Dir holds the database's files and nothing else. It is created.
	Dir string
	// MemTable is the size of Badger's memtables, 64 MiB if zero and at least
	// 8 MiB. There are up to three, each taking 1.3 times its size in memory.
	MemTable int64
	// MinFree is what Admit leaves free on the filesystem; at least two memtables.
	MinFree int64
	// Ballast is the size of a file that only takes room, to be given up when
	// the filesystem is too full to open the database or to commit; two
	// memtables are enough. Zero: none.
	Ballast int64
	// Logger is slog.Default if nil.
	Logger *slog.Logger
}

// DB is an open database. Its methods may be called concurrently, except that
// no change may be made while Freeze runs if it is to belong to one side of it
// for certain.
type DB struct {
	opt     Options
	log     *slog.Logger
	kv      *badger.DB
	gate    *gate
	ballast *ballast

	// writing serializes commits and guards the fields below it.
	writing   sync.Mutex
	wal       *wal
	failed    error
	maxRows   int
	maxBytes  int64
	restoreAt time.Time

	mu struct {
		sync.RWMutex
		active *overlay
		frozen *overlay // never nil; empty when nothing waits for Write
		ts     uint64   // of the last commit in Badger
		closed bool
	}
	// users counts the calls that read Badger's mapped files, which Close unmaps.
	// It grows only under mu, while mu.closed is false.
	users   sync.WaitGroup
	readers readers
	meter   meter

	// committed, if set, is called after each Badger transaction and each sync.
	committed func()
}

// Open opens the database in opt.Dir, or makes one, and finishes or undoes a
// commit that a crash interrupted. A filesystem too full to open it safely,
// even without the ballast, gives ErrFull.
func Open(opt Options) (*DB, error) {
	opt = opt.withDefaults()
	d := &DB{opt: opt, log: opt.Logger}
	d.mu.active, d.mu.frozen = new(overlay), new(overlay)
	d.readers.at = make(map[uint64]int)
	if err := makeDir(opt.Dir); err != nil {
		return nil, fmt.Errorf("open database %s: %w", opt.Dir, err)
	}
	d.gate = newGate(opt.Dir, opt.reserve())
	d.ballast = newBallast(filepath.Join(opt.Dir, ballastName), opt.Ballast, opt.Logger)
	if err := d.open(); err != nil {
		return nil, fmt.Errorf("open database %s: %w", opt.Dir, err)
	}
	return d, nil
}

func (d *DB) open() error {
	if err := d.roomToOpen(); err != nil {
		return err
	}
	if err := removeEmptyLogs(d.opt.Dir); err != nil {
		return err
	}
	kv, err := badger.OpenManaged(d.opt.badger())
	if err != nil {
		return err
	}
	d.kv = kv
	d.mu.ts = kv.MaxVersion()
	kv.SetDiscardTs(d.mu.ts)
	d.maxRows = int(kv.MaxBatchCount()) - 2
	d.maxBytes = kv.MaxBatchSize() - 1024
	if d.wal, err = openWAL(d.opt.Dir); err == nil {
		err = d.recoverJournal()
	}
	if err != nil {
		return errors.Join(err, d.wal.close(), kv.Close())
	}
	d.restoreBallast()
	return nil
}

// Close waits for the calls under way and closes the database. Changes that no
// Write has committed are dropped. It must not be called from within a Scan.
func (d *DB) Close() error {
	d.writing.Lock()
	defer d.writing.Unlock()
	d.mu.Lock()
	if d.mu.closed {
		d.mu.Unlock()
		return nil
	}
	d.mu.closed = true
	dropped := d.mu.active.rows.Len() + d.mu.frozen.rows.Len()
	d.mu.Unlock()
	d.users.Wait()
	if dropped > 0 {
		d.log.Warn("database closed with changes not committed", "rows", dropped)
	}
	// Badger flushes its memtable as it closes, through a mapping that kills
	// the process if the disk is full.
	if free := d.gate.refresh(); free < d.opt.MemTable {
		d.ballast.drop()
	}
	return errors.Join(d.wal.close(), d.kv.Close())
}

func (o Options) withDefaults() Options {
	if o.MemTable == 0 {
		o.MemTable = defaultMemTable
	}
	o.MemTable = max(o.MemTable, minMemTable)
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o
}

// reserve is kept free by Admit: room for the commits that follow a refusal,
// deletions among them, and for Badger's flushes and compactions.
func (o Options) reserve() int64 { return max(o.MinFree, 2*o.MemTable) }

// badger's options: everything in the LSM tree, uncompressed because rows are
// mostly hashes, and read through the page cache, so that Badger needs no block
// cache of its own. SyncWrites is off because it syncs the unused value log
// too, at the price of a second disk flush for each commit: wal does it.
func (o Options) badger() badger.Options {
	return badger.DefaultOptions(o.Dir).
		WithLogger(badgerLog{o.Logger}).
		WithMemTableSize(o.MemTable).
		WithNumMemtables(2).
		WithNumCompactors(2).
		WithNumVersionsToKeep(1).
		WithSyncWrites(false).
		WithDetectConflicts(false).
		WithMetricsEnabled(false).
		WithCompression(options.None).
		WithBlockCacheSize(0).
		WithIndexCacheSize(0).
		WithBloomFalsePositive(0.01).
		WithChecksumVerificationMode(options.OnBlockRead).
		WithValueThreshold(valueThreshold).
		WithValueLogFileSize(1 << 20)
}

// makeDir creates dir and makes its name durable.
func makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return syncDir(filepath.Dir(dir))
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Get returns the value of key, which the caller must not modify, or
// ErrNotFound. Changes are seen as soon as they are made.
func (d *DB) Get(key []byte) ([]byte, error) {
	d.mu.RLock()
	value, ok := d.mu.active.get(key)
	if !ok {
		value, ok = d.mu.frozen.get(key)
	}
	closed := d.mu.closed
	if !ok && !closed {
		d.users.Add(1)
	}
	d.mu.RUnlock()
	switch {
	case closed:
		return nil, ErrClosed
	case !ok:
		defer d.users.Done()
		return d.stored(key)
	case value == nil:
		return nil, ErrNotFound
	}
	return value, nil
}

// use keeps Badger open until users.Done, unless it is closed already.
func (d *DB) use() error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.mu.closed {
		return ErrClosed
	}
	d.users.Add(1)
	return nil
}

// stored reads a row that no overlay knows. Reading the newest version needs no
// timestamp: a commit under way shows only rows that the overlays still hold.
func (d *DB) stored(key []byte) ([]byte, error) {
	txn := d.kv.NewTransactionAt(latest, false)
	defer txn.Discard()
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

// Set stores value under key in the active overlay. It never does I/O and owns
// both slices from now on. It panics where Batch.Set does.
func (d *DB) Set(key, value []byte) {
	if value == nil {
		value = []byte{}
	}
	d.change(key, value)
}

// Delete removes key; otherwise as Set. Removing what is not there is no error.
func (d *DB) Delete(key []byte) { d.change(key, nil) }

func (d *DB) change(key, value []byte) {
	checkRow(key, value)
	d.mu.Lock()
	d.mu.active.set(asString(key), value)
	d.mu.Unlock()
}

// Apply makes all changes of b at once, the later ones winning. It owns their
// slices, but b itself can be reset and used again.
func (d *DB) Apply(b *Batch) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range b.rows {
		d.mu.active.set(asString(r.key), r.value)
	}
}

// Pending returns the size of the active overlay, in the units of Limit.
func (d *DB) Pending() (rows int, bytes int64) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.mu.active.rows.Len(), d.mu.active.bytes
}

// Limit returns what one Badger transaction takes. Write takes more, at the
// price of writing it twice.
func (d *DB) Limit() (rows int, bytes int64) { return d.maxRows, d.maxBytes }
