// Package store is QuarXCore: a directory that keeps blocks and objects, each
// distinct block once, and gives back only bytes that hash to their ID. It is
// usable as a library and knows nothing of mounts, commands or networks.
//
// Lock order (an inner lock is taken while holding the outer ones):
//
//	config.Current       what is set; held over the writing of settings.json
//	config.Access        who may come in over the network; held over the writing of tokens.json
//	tierList.mu          which tiers there are; held over the writing of tiers.json
//	sweeper.maintenance  of one tier: from copying records into it to noting that; held over I/O, so that
//	                     no copy's segment is removed
//	committer.commitMu   one commit or sweep step at a time; held across fsync by design
//	  committer.updateLock  read: every Update; write: the instant of a commit's cut
//	    nameTable.mu     rows of names
//	    leaseTable.mu    rows of leases
//	      blocks.puts    per-ID single flight of Put
//	      pending.mu     reference changes since the last cut, and what the sweep leaves alone
//	        badBlocks.mu marks of bad blocks
//	        committer.totals, db's locks
//	hotTier.mu           what the tier manager shares with requests; nothing is taken inside
package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gofrs/flock"

	"github.com/quarxtor/quarxfs/store/chunk"
	"github.com/quarxtor/quarxfs/store/config"
	"github.com/quarxtor/quarxfs/store/db"
	"github.com/quarxtor/quarxfs/store/errs"
	"github.com/quarxtor/quarxfs/store/handle"
	"github.com/quarxtor/quarxfs/store/routine"
	"github.com/quarxtor/quarxfs/store/vertex"
	"github.com/quarxtor/quarxfs/tiering"
	"github.com/quarxtor/quarxfs/tiering/disk"
)

const (
	dbDir    = "db"
	hotDir   = "hot"
	spoolDir = "spool" // of a cold tier in a bucket
	lockName = "lock"
)

// Options are the settings of one opening of a store; zero values mean the
// defaults given.
type Options struct {
	CacheBytes     int64         // RAM tier, in bytes of plain blocks; 64 MiB
	CommitInterval time.Duration // longest time that a change stays uncommitted; 5 s
	SweepInterval  time.Duration // time between automatic sweeps; 30 s, negative: none
	// Ballast is set aside, when the disk fills up, to get out of a full one: bytes; 16 MiB, on a
	// small disk 1/16 of it, negative: none. Opening has a spare one besides.
	Ballast     int64
	MinFree     int64            // free bytes below which writes get ErrFull; 1 % of the disk, at most 1 GiB, at least twice MemTable
	ReadOnly    bool             // no file is changed, nor need it be possible: whatever would gives ErrReadOnly. Others may open the store so, too
	Salvage     bool             // open although segments are lost or the database is an older one: for Repair, which keeps what there is
	LockWait    time.Duration    // how long to wait for a store that is in use; 0: not at all
	Logger      *slog.Logger     // nothing is logged when nil
	MemTable    int64            // of the database, in bytes; 64 MiB, on a small disk 1/32 of it. Up to three times 1.3 of it are in memory
	Now         func() time.Time // the clock; time.Now
	Disk        disk.FS          // the segments' files; nil: those of the operating system
	ColdDisk    disk.FS          // of the cold tier; nil: as Disk
	Follower    db.Follower      // has each commit before it is acknowledged; nil: nobody
	ColdTimeout time.Duration    // after which an operation of the cold tier is given up; 20 s
	ColdRetry   time.Duration    // how often a cold tier that is out of reach is looked for; 2 s
}

func (o *Options) setDefaults() {
	if o.CacheBytes == 0 {
		o.CacheBytes = 64 << 20
	}
	if o.CommitInterval == 0 {
		o.CommitInterval = 5 * time.Second
	}
	if o.SweepInterval == 0 {
		o.SweepInterval = 30 * time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
}

// A Participant keeps state of its own that belongs into every commit: the
// volume's dirty buffers and inodes.
type Participant interface {
	// Flush turns as much as it can into blocks and rows while Updates go on,
	// so that little is left for Cut.
	Flush() error
	// Cut does so with all that is left; no Update runs meanwhile.
	Cut() error
}

// A Store is an open store. All methods are safe for concurrent use. It consists of parts, each with a
// purpose and mostly a lock of its own; what they have in common is in base, and what one needs of
// the others is in its fields. Most of what a caller may ask for are methods of the parts.
type Store struct {
	*base
	opening
	choices

	tierList                 // which tiers there are
	index                    // what the rows say
	pending                  // changes since the last cut
	bad            badBlocks // marks of bad blocks
	hot            hotTier   // how full the hot tier is, and how warm blocks are
	appender       appender  // from plain blocks to records
	blocks                   // blocks in and out
	committer                // from changes to rows
	nameTable                // names of objects and snapshots
	objectStore              // objects in and out
	leaseTable               // what syncs keep
	history                  // commits and segments that the database may not know of
	sweeper                  // gives back what nothing refers to
	relocator                // copies records, to compact segments and between tiers
	room                     // the space that is left
	tierManagement           // moves blocks as the policy says
	scrubs                   // reads everything
}

// base is what all parts have in common.
type base struct {
	dir      *handle.Dir
	db       *db.DB
	tiers    *tiering.Set
	memory   *memory // blocks of a store that is open for reading only
	log      *slog.Logger
	now      func() time.Time
	readOnly bool
}

// An opening is what is the same from the opening of a store to its end.
type opening struct {
	conf  Config
	opts  Options
	dbDir string // of the database, in the store's directory
	lock  *flock.Flock
	whole *os.File // the directory, locked as well: the file may be removed, and another one be locked then
	life  lifetime
}

// choices are what users may change of an open store.
type choices struct {
	*config.Current // what is set
	*config.Access  // who may come in over the network
}

// A lifetime is that of a store's goroutines.
type lifetime struct {
	stop    context.CancelFunc
	stopped sync.WaitGroup
	closed  atomic.Bool
}

// Open opens the store at dir and locks it. The errors are ErrNotStore,
// ErrNewer, ErrDamaged, ErrLocked, ErrMirrored, ErrFull, or what the disk says. No repair
// step is ever needed before: what a crash left is settled here.
func Open(dir string, o Options) (*Store, error) {
	s, err := reach(dir, o)
	if err != nil {
		return nil, err
	}
	if _, noLock := os.Lstat(s.dir.Join(lockName)); noLock != nil {
		// What is refused is left as it is, without a lock. If one has come meanwhile, so has
		// somebody who works here, and what was seen means nothing.
		_, err = s.inspect()
		if _, noLock = os.Lstat(s.dir.Join(lockName)); noLock == nil {
			err = nil
		}
	}
	if err == nil {
		err = s.acquire()
	}
	var found *inspected
	if err == nil {
		found, err = s.inspect()
	}
	if err == nil {
		s.behind = found.behind()
		err = s.open()
	}
	if err == nil {
		// Rows, so only after open; a store that is refused has had nothing written.
		err = s.noteSegments(found.news)
	}
	if err == nil && !o.ReadOnly {
		s.openLastCommit()
		err = s.takeBack()
	}
	if err != nil {
		err = handle.ShownError(fmt.Errorf("open store %s: %w", dir, err))
		return nil, errors.Join(err, s.release())
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.life.stop = cancel
	if !o.ReadOnly {
		s.life.stopped.Add(2)
		go s.background(ctx)
		go s.maintain(ctx)
	}
	return s, nil
}

// hold reaches for the store at dir and locks it.
func hold(dir string, o Options) (*Store, error) {
	s, err := reach(dir, o)
	if err != nil {
		return nil, err
	}
	if err := s.acquire(); err != nil {
		return nil, errors.Join(handle.ShownError(fmt.Errorf("%s: %w", dir, err)), s.dir.Close())
	}
	return s, nil
}

// reach keeps the directory of the store at dir in hand: from here on the path
// is not looked up again, since another directory may be there by then.
func reach(dir string, o Options) (*Store, error) {
	o.setDefaults()
	d, err := holdDir(dir)
	if err != nil {
		return nil, err
	}
	s := &Store{opening: opening{dbDir: dbDir, opts: o}}
	s.base = &base{dir: d, memory: new(memory), log: handle.Log(o.Logger), now: o.Now, readOnly: o.ReadOnly}
	if s.conf, err = readConfig(d); err == nil {
		err = regularFiles(d.Join()) // the lock is among them
	}
	if err == nil && !o.ReadOnly {
		err = writable(d)
	}
	// Whoever opens it to change it: a command, a repair, an agent that takes it for a vault.
	if err == nil && !o.ReadOnly && s.conf.Mirrored && o.Follower == nil {
		err = fmt.Errorf("%s: %w", d.Path(), ErrMirrored)
	}
	if err == nil {
		s.chunker, err = chunk.New(s.conf.Chunker)
	}
	if err != nil {
		return nil, errors.Join(handle.ShownError(err), d.Close())
	}
	s.wire()
	s.lock = flock.New(d.Join(lockName), s.lockFlags()...)
	return s, nil
}

// wire gives each part what it needs of the others. The database and the tiers come into base with
// open.
func (s *Store) wire() {
	b, ix, pd, cm := s.base, &s.index, &s.pending, &s.committer
	// Its database is set with open: what is kept there is read first thing after.
	files := &config.Files{Path: b.dir.Join, Update: cm.Update, Commit: cm.Commit, ReadOnly: b.readOnly, Log: b.log}
	s.tierList = tierList{base: b, options: &s.opts, index: ix, commits: cm, sweeper: &s.sweeper, files: files}
	s.index = index{base: b}
	s.pending = newPending()
	s.bad = badBlocks{base: b, blocks: make(map[ID]BadBlock), changed: make(map[ID]struct{})}
	s.hot = hotTier{base: b, kick: make(chan struct{}, 1)}
	s.hot.mu.wanted = make(map[ID]struct{})
	s.appender = appender{base: b, compression: s.conf.Compression}
	s.blocks = blocks{base: b, index: ix, pending: pd, appender: &s.appender, bad: &s.bad, hot: &s.hot}
	s.puts.inflight = make(map[ID]chan struct{})
	s.committer = committer{base: b, index: ix, pending: pd, appender: &s.appender, bad: &s.bad, history: &s.history, kick: make(chan struct{}, 1)}
	s.nameTable = nameTable{base: b, index: ix, pending: pd, blocks: &s.blocks, commits: cm}
	s.objectStore = objectStore{base: b, index: ix, pending: pd, blocks: &s.blocks, commits: cm, names: &s.nameTable, room: &s.room, chunker: s.chunker}
	s.batches.New = s.newBatch
	s.history = history{base: b, index: ix, volume: s.conf.volume()}
	s.leaseTable = leaseTable{base: b, index: ix, pending: pd, commits: cm, bad: &s.bad}
	s.sweeper = sweeper{base: b, index: ix, pending: pd, commits: cm, blocks: &s.blocks, leases: &s.leaseTable, history: &s.history}
	s.relocator = relocator{base: b, index: ix, commits: cm, appender: &s.appender, blocks: &s.blocks, sweeper: &s.sweeper}
	s.room = room{base: b, pending: pd, commits: cm, sweeper: &s.sweeper, relocator: &s.relocator, hot: &s.hot, sweepInterval: s.opts.SweepInterval}
	s.tierManagement = tierManagement{base: b, index: ix, commits: cm, blocks: &s.blocks, sweeper: &s.sweeper, relocator: &s.relocator, hot: &s.hot}
	s.scrubs = scrubs{base: b, index: ix, commits: cm, blocks: &s.blocks, bad: &s.bad}
}

// lockFlags are for opening the lock, which who only reads does not make.
func (s *Store) lockFlags() []flock.Option {
	if s.readOnly {
		return []flock.Option{flock.SetFlag(os.O_RDONLY)}
	}
	return []flock.Option{flock.SetPermissions(0o600)}
}

// acquire locks the store, for itself or with others who only read. A holder that was killed
// keeps its lock until the kernel has taken it down, so Open can wait a little.
func (s *Store) acquire() error {
	ctx, cancel := context.WithTimeout(context.Background(), s.opts.LockWait)
	defer cancel()
	try, wait := s.lock.TryLock, s.lock.TryLockContext
	if s.readOnly {
		try, wait = s.lock.TryRLock, s.lock.TryRLockContext
	}
	got, err := try()
	if err == nil && !got && s.opts.LockWait > 0 {
		got, err = wait(ctx, 20*time.Millisecond)
	}
	if s.readOnly && errors.Is(err, os.ErrNotExist) {
		got, err = true, nil // nobody can have it
	}
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("lock: %w", err)
	}
	if !got {
		return ErrLocked // the caller says of what
	}
	return s.acquireDir(ctx)
}

// acquireDir locks the directory itself. Who was killed gives both locks back, one after the other.
func (s *Store) acquireDir(ctx context.Context) (err error) {
	for {
		s.whole, err = db.LockDir(s.dir.Join(), s.readOnly)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, db.ErrLocked):
			return errors.Join(fmt.Errorf("lock: %w", err), s.lock.Unlock())
		}
		select {
		case <-ctx.Done():
			return errors.Join(ErrLocked, s.lock.Unlock())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// unlock gives both locks back.
func (s *Store) unlock() error {
	err := s.lock.Unlock()
	if s.whole != nil {
		err = errors.Join(err, s.whole.Close())
	}
	return err
}

func (s *Store) open() (err error) {
	spare, err := s.fitDisk()
	if err != nil {
		return err
	}
	s.db, err = db.Open(db.Options{
		Dir: s.dir.Join(s.dbDir), MinFree: s.opts.MinFree, MemTable: s.opts.MemTable, Logger: s.log,
		Uncompressed: !s.conf.Compressed, Ballast: max(0, s.opts.Ballast), Spare: spare, BallastBelow: ballastBelow, ReadOnly: s.readOnly, Follower: s.opts.Follower,
	})
	if errors.Is(err, db.ErrLocked) { // by somebody who found no lock to take
		err = fmt.Errorf("%w: %w", ErrLocked, err)
	}
	if err != nil {
		return errs.Explain(err)
	}
	s.files.DB, s.disk = s.db, s.db
	// Before the first of these files is read: the rows count, and a lost file is written anew.
	if err := s.files.Restore(keptFiles()); err != nil {
		return err
	}
	if err := errors.Join(s.loadEarlier(), s.loadLost()); err != nil {
		return err
	}
	// Before tiering opens, which gives out the next.
	numbers, err := s.lastNumbers()
	if err != nil {
		return err
	}
	if s.file, err = s.loadTiers(); err != nil {
		return err
	}
	s.Current = config.LoadSettings(s.files)
	s.Access = config.LoadTokens(s.files, s.now)
	// Only now, when the settings can be read; wire has left it open.
	s.settings = s.Current
	s.tiers, err = tiering.Open(tiering.Options{
		HotDir:      s.segments(hotDir),
		Cold:        s.coldOptions(s.file.Cold),
		SegmentSize: s.conf.SegmentSize,
		CacheBytes:  s.opts.CacheBytes,
		Logger:      s.log,
		FS:          s.hotFS(),
		ReadOnly:    s.readOnly,
		Stamp:       s.stamp,
		Numbers:     numbers,
		Verify:      func(k tiering.Kind, id [32]byte, plain []byte) bool { return vertex.Sum(k, plain) == id },
	})
	if err != nil {
		return err
	}
	if err := s.loadTotals(); err != nil {
		return err
	}
	if err := s.bad.load(); err != nil {
		return err
	}
	if err := s.loadLeases(); err != nil {
		return err
	}
	if err := s.setAside(); err != nil {
		return err
	}
	// Last, when it is known which segments there are and which are set aside.
	return s.dropStaleSegmentRows(tiering.Hot, tiering.Cold)
}

// ballastBelow is the free space under which the ballast is made; while there is
// more it would only be in the way.
const ballastBelow = 4 << 30

// fitDisk sets those sizes that were left open by the size of the disk: the
// database's write buffer, and the reserve and the ballast that go with it, must
// leave most of a small disk to data.
func (s *Store) fitDisk() (spare int64, err error) {
	const (
		leastMemTable = 8 << 20
		mostMemTable  = 64 << 20
		ballast       = 16 << 20
		spareLogs     = 8 << 20
	)
	total, err := diskSize(s.dir.Join())
	if err != nil {
		return 0, err
	}
	if s.opts.MemTable == 0 {
		s.opts.MemTable = mostMemTable
	}
	s.opts.MemTable = max(leastMemTable, min(s.opts.MemTable, total/32))
	if s.opts.Ballast == 0 {
		s.opts.Ballast = min(ballast, total/16)
	}
	// Two memtables: one that is written and one that is still being made a table of.
	if s.opts.Ballast > 0 {
		spare = min(2*s.opts.MemTable+spareLogs, total/16)
	}
	// What Admit keeps free has to hold a commit and what it is turned into tables with.
	if s.opts.MinFree == 0 {
		s.opts.MinFree = min(total/100, 1<<30)
	}
	return spare, nil
}

// segments names a directory of segments as the disk that they are on knows it.
func (tl *tierList) segments(name string) string {
	if tl.options.Disk != nil {
		return filepath.Join(tl.dir.Path(), name)
	}
	return tl.dir.Join(name)
}

// release undoes open and hold.
func (s *Store) release() error { return errors.Join(s.shut(), s.unlock(), s.dir.Close()) }

// shut closes what open opened, in reverse.
func (s *Store) shut() error {
	var errs []error
	if s.tiers != nil {
		errs = append(errs, s.tiers.Close())
	}
	errs = append(errs, s.lastCommit.close())
	if s.db != nil {
		errs = append(errs, s.db.Close())
	}
	return errors.Join(errs...)
}

// Close commits what is pending and unlocks the store. ErrDamaged, as the next Open would say:
// files were lost or changed beneath it.
func (s *Store) Close() error {
	if s.life.closed.Swap(true) {
		return os.ErrClosed
	}
	s.life.stop()
	// An upload may take minutes, and a background commit or compaction may wait for it.
	// Before the wait below, and after stop: nothing new begins.
	s.tiers.Interrupt()
	s.life.stopped.Wait()
	err := s.commit()
	if errors.Is(err, ErrDamaged) && s.harmed() == nil {
		err = s.commit() // a file of the commit log was cut beneath it: the other one takes the rows
	}
	shut := s.shut()
	// With all files closed and the lock still held, they are as the next opening finds them.
	found := s.reinspect()
	if err == nil && found == nil && errors.Is(shut, ErrDamaged) {
		// What the database could not note at its end the commit log has.
		s.log.Warn("a file was changed beneath the store; nothing of it is missed", "err", handle.ShownError(shut))
		shut = nil
	}
	switch {
	case err == nil || errors.Is(err, ErrDamaged):
		err = errors.Join(err, shut)
	case !errors.Is(found, ErrDamaged):
		// What else fails on such a disk says less than what the last commit failed with.
		if more := handle.ShownError(errors.Join(found, shut)); more != nil {
			s.log.Warn("closing after a failed commit", "err", more)
		}
		found = nil
	}
	switch {
	case !errors.Is(err, db.ErrRemoved):
		err = handle.ShownError(errors.Join(found, err))
	case errors.Is(found, ErrDamaged):
		err = found // a file is gone, and not the store: it can be mended
	default:
		err = fmt.Errorf("%s: %w", s.dir.Path(), db.ErrRemoved) // whatever else failed, failed because of that
	}
	return errors.Join(err, s.unlock(), s.dir.Close())
}

// Dir returns where the store's directory is, for people to read: it may be renamed
// at any time.
func (s *Store) Dir() string { return s.dir.Path() }

// Path names what is in the store's directory, wherever that is now, until Close.
func (s *Store) Path(elem ...string) string { return s.dir.Join(elem...) }

// ReadOnly returns whether the store was opened so.
func (s *Store) ReadOnly() bool { return s.readOnly }

// Config returns what was fixed when the store was made.
func (s *Store) Config() Config { return s.conf }

// Chunker cuts streams into blocks as this store does.
func (s *Store) Chunker() *chunk.Chunker { return s.chunker }

// DB is the store's database, for the rows of fs/meta. Rows change only inside
// Update.
func (s *Store) DB() *db.DB { return s.db }

// background commits at every interval or kick.
func (s *Store) background(ctx context.Context) {
	defer s.life.stopped.Done()
	every := s.opts.CommitInterval
	said := ""
	routine.Each(ctx, every, every, s.kick, func() {
		err := s.Commit()
		if err == nil {
			said = ""
			return
		}
		// Once, or a disk that stays full would fill the log.
		if text := err.Error(); text != said {
			s.log.Error("background commit failed; it will be tried again", "err", err)
			said = text
		}
	})
}

func diskSize(dir string) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return int64(st.Blocks) * st.Bsize, nil
}
