package db

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
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
	// ErrCorrupt says that the log does not hold what it must, or that a stored
	// row does not match its checksum.
	ErrCorrupt = errors.New("the store is damaged")
	// ErrOlder says that the database has a layout that is not read any more.
	ErrOlder = errors.New("made by a version before ad6b980, which is not read any more: open it once with that version")
	// ErrLocked says that another process has the database open.
	ErrLocked = errors.New("database is in use")
	// ErrClosed is returned by every call after Close.
	ErrClosed = errors.New("database is closed")
	// ErrRemoved says that the files of the open database have no names any more: what is written
	// to them is gone when they are closed.
	ErrRemoved = errors.New("the store was removed while it was in use")
	// ErrFailed is returned by Write after commits could not be carried from the
	// log into Badger. None is lost: opening the database again repeats it.
	ErrFailed = errors.New("applying an earlier commit failed; reopen the database")

	errAborted = errors.New("the shared run panicked")
)

const (
	defaultMemTable = 64 << 20
	// minMemTable lets a value of valueThreshold fit in one transaction, which is
	// 15 % of a memtable.
	minMemTable = 8 << 20
	// latest makes Badger return the newest version of a row.
	latest = math.MaxUint64
)

// Options say where a database is and what it may use. Sizes are in bytes.
type Options struct {
	// Dir holds the database's files and nothing else. It is created.
	Dir string
	// MemTable is the size of Badger's memtables, 64 MiB if zero and at least
	// 8 MiB. There are up to three, each taking 1.3 times its size in memory, and a
	// quarter of one is kept of what was read of tables.
	MemTable int64
	// MinFree is what Admit leaves free on the filesystem; at least two
	// memtables and a half.
	MinFree int64
	// Ballast is the size of a file that only takes room, to be given up when
	// the filesystem is too full to open the database or to commit; two
	// memtables are enough. Zero: none.
	Ballast int64
	// Spare is the size of a second such file, which only opening and closing may
	// give up: the ballast may be gone when other programs fill the filesystem
	// up. Two memtables and the log files are enough. Zero: none.
	Spare int64
	// BallastBelow is the free space, in bytes, from which on neither is
	// made; 0 for always.
	BallastBelow int64
	// ReadOnly leaves all files as they are, which may be on a disk that cannot be written to:
	// others may have the database open in the same way. Changes stay in memory.
	ReadOnly bool
	// Uncompressed leaves tables as they are, which are compressed by Snappy otherwise. A database
	// has all its tables of one kind, as it was made.
	Uncompressed bool
	// Follower has each commit before anybody is told of it; nil: there is none.
	Follower Follower
	// Logger is slog.Default if nil.
	Logger *slog.Logger

	disk       disk
	logs       logDir            // nil: Dir
	logFile    int64             // size of a log file, if not 0
	leastMem   int64             // the least MemTable, if not 0
	readAround int64             // see the constant of this name, if not 0
	step       func(what string) // if set, called after each transaction, checkpoint and release
}

// DB is an open database. Its methods may be called concurrently, except that
// no change may be made while Freeze runs if it is to belong to one side of it
// for certain.
type DB struct {
	opt     Options
	log     *slog.Logger
	lock    *os.File
	space   *spaceGuard
	ballast *ballast
	spare   *ballast
	ending  atomic.Bool // opening or closing: the spare may be used
	named   bool        // the filesystem counts the names of files: none means removed

	// writing serializes commits and guards what follows, but for the states of the log's files.
	writing    sync.Mutex
	clog       *commitLog
	restoreAt  time.Time
	unfollowed error // what the follower failed with; nil: it has not

	applier   *applier
	compactor *compactor
	commits   atomic.Uint64
	advised   time.Time // when adviseTables last ran; the applier's
	maxRows   int
	maxBytes  int64

	mu struct {
		sync.RWMutex
		active   *overlay
		frozen   *overlay   // never nil; empty when nothing waits for Write
		logged   []*overlay // in the log, but not in Badger; the oldest first
		applying bool       // Badger may have part of logged[0]
		instance *instance
		ts       uint64 // of the last layer in the instance
		closed   bool
	}
	meter meter
}

// Open opens the database in opt.Dir, or makes one, and repeats the commits
// that a crash kept from being carried into Badger. A filesystem too full to open it safely,
// even without the ballast, gives ErrFull.
func Open(opt Options) (*DB, error) {
	opt = opt.withDefaults()
	d := &DB{opt: opt, log: opt.Logger}
	d.mu.active, d.mu.frozen = new(overlay), new(overlay)
	if !opt.ReadOnly {
		if err := makeDir(opt.Dir); err != nil {
			return nil, fmt.Errorf("open database %s: %w", opt.Dir, err)
		}
	}
	d.space = newSpaceGuard(opt.Dir, opt.reserve())
	d.ballast = newBallast(filepath.Join(opt.Dir, ballastName), opt.Ballast, opt.Logger)
	d.spare = newBallast(filepath.Join(opt.Dir, spareName), opt.Spare, opt.Logger)
	if err := d.open(); err != nil {
		return nil, fmt.Errorf("open database %s: %w", opt.Dir, err)
	}
	return d, nil
}

func (d *DB) open() error {
	d.ending.Store(true)
	defer d.ending.Store(false)
	// Nothing is looked at without the lock: another process may be changing it.
	lock, err := LockDir(d.opt.Dir, d.opt.ReadOnly)
	if err != nil {
		return err
	}
	d.lock = lock
	openRows := d.openRows
	if d.opt.ReadOnly {
		openRows = d.openReadOnly
	}
	if err := openRows(); err != nil {
		return errors.Join(err, lock.Close())
	}
	// Before any read: what Badger touched as it opened is let go, and look-ups do not read around.
	d.adviseTables()
	if d.opt.ReadOnly {
		return nil
	}
	d.named = !d.clog.unnamed()
	d.applier = newApplier()
	go d.runApplier()
	d.compactor = newCompactor()
	go d.runCompactor()
	d.considerCompacting()
	d.restoreBallast()
	return nil
}

// openRows opens the instance in use and brings it up to the last commit.
func (d *DB) openRows() error {
	in, err := d.opt.inspect()
	if err == nil {
		err = in.verify()
	}
	if err != nil {
		return err
	}
	// After the inspection, which tells a damaged name from one that was never written.
	current, err := readCurrent(d.opt.Dir)
	if err != nil {
		return err
	}
	// A name that could not be synced when it was given may not be the one on the disk.
	if err := d.opt.disk.syncDir(d.opt.Dir); err != nil {
		return err
	}
	if err := d.removeUnused(current); err != nil { // gives room
		return err
	}
	if err := d.roomToOpen(current); err != nil {
		return err
	}
	if current == "" {
		if current, err = d.makeFirst(); err != nil {
			return err
		}
		if err := d.removeUnused(current); err != nil {
			return err
		}
	}
	// Before Badger opens: it would read the tables that only wait to be removed.
	if err := in.removeIdle(d); err != nil {
		return err
	}
	b, err := d.openInstance(filepath.Join(d.opt.Dir, current))
	if err != nil {
		return err
	}
	b.list = in.list
	d.mu.instance = b
	// Two rows and a kilobyte less than Badger takes, for what it adds itself.
	d.maxRows = int(b.kv.MaxBatchCount()) - 2
	d.maxBytes = b.kv.MaxBatchSize() - 1024
	if err := d.recover(); err != nil {
		return errors.Join(err, b.close(), d.clog.close())
	}
	d.mu.ts = b.writer.ts
	d.commits.Store(d.clog.seq - 1)
	return nil
}

// recover brings the instance up to the last commit.
func (d *DB) recover() (err error) {
	d.clog, err = openLog(d.opt.logs, d.opt.logFile)
	// A missing log file is made anew, which a full disk may have no room for.
	for errors.Is(err, ErrFull) && d.giveBallast() {
		d.clog, err = openLog(d.opt.logs, d.opt.logFile)
	}
	if err != nil {
		return err
	}
	if b := d.mu.instance; b.list != nil {
		d.clog.least = max(d.clog.least, b.list.seq)
	}
	return d.replay()
}

// replay applies what the log has, all of it, since which part of it Badger had
// made durable is unknown.
func (d *DB) replay() error {
	records, err := d.clog.recover()
	if err != nil {
		return err
	}
	// All room is asked for before anything is applied: a replay that stops half-way would have
	// used up what the next opening needs.
	var bytes int64
	for _, r := range records {
		bytes += int64(r.size)
	}
	if len(records) > 0 {
		d.log.Info("repeating commits from the log", "commits", len(records), "bytes", bytes)
		if err := d.room(d.roomToApply(bytes)); err != nil {
			return err
		}
	}
	// In the order of commits and from the first on: rows that the instance has already get the
	// same values again.
	w := &d.mu.instance.writer
	defer w.discard()
	for _, r := range records {
		payload, err := r.payload()
		if err == nil {
			err = eachChange(payload, w.put)
		}
		if err != nil {
			return fmt.Errorf("repeat commit %d: %w", r.seq, err)
		}
	}
	// Durable before the list says so, and the list before the log files are released.
	if len(records) > 0 {
		if err := w.flush(); err != nil {
			return err
		}
		d.step(stepSynced)
	}
	based, err := d.listFiles(d.mu.instance.inTables(), true)
	if err != nil {
		return err
	}
	return d.clog.reset(based)
}

// listFiles has the instance's list say what its files are now that all commits are in it, and
// returns the version that the instance has; 0 when there is no room for a list, and never was.
func (d *DB) listFiles(settled uint64, always bool) (based uint64, err error) {
	b := d.mu.instance
	update := func() error { return b.updateList(d, d.clog.seq, settled, b.writer.ts, always) }
	err = update()
	for errors.Is(err, ErrFull) && d.giveBallast() {
		err = update()
	}
	switch {
	case err == nil:
		return b.writer.ts, nil
	case errors.Is(err, ErrFull):
		// The list of before stays true: the next opening looks at what was made since.
		d.log.Warn("the list of the database's files is not brought up to date", "err", err)
		if b.list == nil {
			return 0, nil
		}
		return b.writer.ts, nil
	}
	return 0, err
}

// Close has a compaction give up, waits for the calls under way, carries all commits into Badger,
// and closes the database. Changes that no Write has committed are dropped. It must not be called
// from within a Scan.
func (d *DB) Close() error {
	if !d.opt.ReadOnly {
		d.compactor.end()
	}
	d.writing.Lock()
	defer d.writing.Unlock()
	d.mu.Lock()
	if d.mu.closed {
		d.mu.Unlock()
		return nil
	}
	d.mu.closed = true
	d.ending.Store(true)
	dropped := d.mu.active.rows.Len() + d.mu.frozen.rows.Len()
	b := d.mu.instance
	d.mu.Unlock()
	if d.opt.ReadOnly {
		return d.closeReadOnly(b)
	}
	// The database's own reference; idle is closed when the last view has left, too.
	b.leave()
	<-b.idle
	d.compactor.retired.Wait()
	if dropped > 0 {
		d.log.Warn("database closed with changes not committed", "rows", dropped)
	}
	if d.removed() {
		close(d.applier.stop)
		<-d.applier.done
		// With its directory gone Badger stays open: it would try for ever to make a table there.
		var closed error
		if _, err := os.Stat(b.dir); err == nil {
			closed = b.close()
		}
		return errors.Join(ErrRemoved, closed, d.clog.close(), d.lock.Close())
	}
	// All layers, not only those whose file is sealed: the log is to be empty.
	applied := d.applier.wait(func() bool { return d.layers() == 0 })
	close(d.applier.stop)
	<-d.applier.done
	if applied == nil {
		applied = d.applier.failure()
	}
	// Badger flushes its memtable as it closes, through a mapping that kills
	// the process if the disk is full.
	_ = d.room(d.roomToApply(0))
	err := b.close()
	switch {
	case err == nil && applied == nil:
		// Badger has made tables of everything.
		d.clog.seal()
		var based uint64
		if based, err = d.listFiles(b.writer.ts, true); err == nil {
			err = d.clog.reset(based)
		}
	case errors.Is(applied, ErrFull):
		d.log.Warn("no room to apply the last commits; the log keeps them", "err", applied)
	default:
		err = errors.Join(applied, err)
	}
	// For the next opening, before other programs take the room that this one has given back.
	d.restoreAt = time.Time{}
	d.restoreBallast()
	return errors.Join(err, d.clog.close(), d.lock.Close())
}

func (o Options) withDefaults() Options {
	if o.MemTable == 0 {
		o.MemTable = defaultMemTable
	}
	o.MemTable = max(o.MemTable, cmp.Or(o.leastMem, minMemTable))
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.logFile == 0 {
		o.logFile = min(maxLogFile, o.MemTable/2)
	}
	if o.readAround == 0 {
		o.readAround = readAround
	}
	if o.logs == nil && o.ReadOnly {
		o.logs = readOnlyDir{osDir(o.Dir)}
	} else if o.logs == nil {
		o.logs = osDir(o.Dir)
	}
	return o
}

// reserve is kept free by Admit: room for the commits that follow a refusal,
// deletions among them, for a log that they make grow, and for Badger's flushes
// and compactions. The log files themselves have their blocks.
func (o Options) reserve() int64 { return max(o.MinFree, 2*o.MemTable+o.logFile) }

// tableCache: of the size of a memtable, this part is kept of decompressed blocks.
const tableCache = 4

// bloomRate makes Badger's filters take 14 bits a key, of which a random absent
// key passes one in 700: Badger takes the number of hashes that the rate calls
// for as the number of bits. A dedup check that finds nothing asks every table of level 0
// and one of each other level; with the usual rate of 0.01, 7 bits, every third check
// read a block of some table.
const bloomRate = 0.0001

// badger's options: everything in the LSM tree. Snappy halves the tables, though half of a row may
// be a hash, and a look-up pays for that only when its block is not cached: Badger keeps blocks
// that it has decompressed, since nothing else would. Uncompressed ones are in the page cache.
// SyncWrites is off: commits are durable in our log first.
func (o Options) badger(dir string) badger.Options {
	compression, cache := options.Snappy, o.MemTable/tableCache
	if o.Uncompressed {
		compression, cache = options.None, 0
	}
	return badger.DefaultOptions(dir).
		WithLogger(badgerLog{o.Logger}).
		WithMemTableSize(o.MemTable).
		WithNumMemtables(2).
		WithNumCompactors(0). // see rewrite
		WithNumLevelZeroTablesStall(1 << 16).
		WithNumVersionsToKeep(1).
		WithSyncWrites(false).
		WithDetectConflicts(false).
		WithMetricsEnabled(false).
		WithCompression(compression).
		WithBlockCacheSize(cache).
		WithIndexCacheSize(0).
		WithBloomFalsePositive(bloomRate).
		WithChecksumVerificationMode(options.OnBlockRead).
		WithValueThreshold(min(valueThreshold, o.MemTable/8)). // what a transaction takes is 15 % of a memtable
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
	// Newest first. An overlay that knows the key has the last word, also with a deletion.
	value, ok := d.mu.active.get(key)
	if !ok {
		value, ok = d.mu.frozen.get(key)
	}
	for i := len(d.mu.logged) - 1; i >= 0 && !ok; i-- {
		value, ok = d.mu.logged[i].get(key)
	}
	closed, b := d.mu.closed, d.mu.instance
	// Counted under the lock that end takes to replace the instance, so that its files stay mapped.
	if !ok && !closed {
		b.refs.Add(1)
	}
	d.mu.RUnlock()
	switch {
	case closed:
		return nil, ErrClosed
	case !ok:
		defer b.leave()
		return b.get(key)
	case value == nil:
		return nil, ErrNotFound
	}
	return value, nil
}

// removed tells whether somebody has removed the files beneath the open database.
func (d *DB) removed() bool { return d.named && d.clog.unnamed() }

// use keeps the instance in use open until its leave, unless it is closed already.
func (d *DB) use() (*instance, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.mu.closed {
		return nil, ErrClosed
	}
	d.mu.instance.refs.Add(1)
	return d.mu.instance, nil
}

// inUse returns the instance in use. Only the applier changes it.
func (d *DB) inUse() *instance {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.mu.instance
}

// version is that of the last layer in the instance.
func (d *DB) version() uint64 {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.mu.ts
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

// Uncommitted calls fn with the keys of all changes that no Write has made durable.
func (d *DB) Uncommitted(fn func(key []byte)) {
	d.mu.Lock()
	// Copies that cost nothing until somebody changes a row, so that fn runs without the lock.
	sets := []*rowMap{d.mu.frozen.snapshot(), d.mu.active.snapshot()}
	d.mu.Unlock()
	for _, rows := range sets {
		rows.Scan(func(key string, _ []byte) bool {
			fn(asBytes(key))
			return true
		})
	}
}

// Limit returns what one Badger transaction takes. Write takes more.
func (d *DB) Limit() (rows int, bytes int64) { return d.maxRows, d.maxBytes }

// ID names the database: it is another one after a rebuild.
func (d *DB) ID() string { return d.clog.id.name() }

// Commits is how many commits there were.
func (d *DB) Commits() uint64 { return d.commits.Load() }
