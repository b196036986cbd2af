package store

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/store/config"
	"github.com/quarxtor/quarxfs/store/errs"

	"github.com/quarxtor/quarxfs/tiering"
	"github.com/quarxtor/quarxfs/tiering/disk"
	"github.com/quarxtor/quarxfs/tiering/s3"
)

// A tierList says which tiers there are besides the hot one, and where.
type tierList struct {
	*base
	options *Options
	index   *index
	commits *committer
	sweeper *sweeper
	files   *config.Files

	mu   sync.Mutex // held over the writing of tiers.json
	file tiersFile
}

// A ColdTier is where a store's cold tier is.
type ColdTier struct {
	ID    string    `json:"id"` // 32 hex digits, also in the directory itself
	Dir   string    `json:"dir"`
	Added time.Time `json:"added"`
	S3    *S3Server `json:"s3,omitempty"` // Dir is s3://bucket/prefix there
}

// An S3Server says on what server a bucket is.
type S3Server = s3.Server

// tiersFile is the content of tiers.json, which says which tiers a store has
// besides the hot one. It is no row of the database: a rebuild has to know them
// when that is lost. docs/format/tiers.md describes it.
type tiersFile struct {
	config.Head
	Cold *ColdTier `json:"cold"` // nil: none
	config.Sum
}

var tiersKind = config.File{Name: "tiers.json", Magic: "quarxfs tiers", Version: 1, Strange: ErrDamaged, Next: errs.NextRestore}

func keptTiers() config.Kept {
	return config.Kept{File: tiersKind, New: func() config.Content { return new(tiersFile) }}
}

// check reports a tier that cannot be: ErrDamaged.
func (f *tiersFile) check() error {
	if c := f.Cold; c != nil {
		if err := c.check(); err != nil {
			return tiersKind.Damaged("has a cold tier %q at %q that cannot be (%v)", c.ID, c.Dir, err)
		}
	}
	return nil
}

func (c *ColdTier) check() error {
	if id, err := hex.DecodeString(c.ID); err != nil || len(id) != 16 {
		return errors.New("no ID")
	}
	if c.S3 != nil {
		_, _, err := s3.ParseURL(c.Dir)
		return errors.Join(err, c.S3.Check())
	}
	if !filepath.IsAbs(c.Dir) {
		return errors.New("no absolute path")
	}
	return nil
}

// readTiers returns what tiers.json says.
func readTiers(dir string) (tiersFile, error) {
	return tiersBy(func(f *tiersFile) error { return tiersKind.Read(dir, f) })
}

// tiersOf returns the list of tiers as it will be when the store is open, with the rows of its
// files.
func tiersOf(dir string, kept map[string][]byte) (tiersFile, error) {
	return tiersBy(func(f *tiersFile) error {
		return keptTiers().ReadWith(kept[string(config.Key(tiersKind.Name))], dir, f)
	})
}

// loadTiers returns the list of tiers of the open store.
func (tl *tierList) loadTiers() (tiersFile, error) {
	return tiersBy(func(f *tiersFile) error { return tl.files.Read(keptTiers(), f) })
}

// tiersBy returns the list of tiers that read finds; without a file there are no other tiers.
func tiersBy(read func(*tiersFile) error) (f tiersFile, err error) {
	err = read(&f)
	if errors.Is(err, os.ErrNotExist) {
		return tiersFile{}, nil
	}
	if err == nil {
		err = f.check()
	}
	return f, err
}

// writeTiers replaces tiers.json durably. The caller holds mu.
func (tl *tierList) writeTiers(f tiersFile) error {
	if err := tl.files.Keep(tiersKind, &f); err != nil {
		return err
	}
	tl.file = f
	return nil
}

// coldOptions are for tiering; nil: there is no cold tier.
func (tl *tierList) coldOptions(c *ColdTier) *tiering.ColdOptions {
	if c == nil {
		return nil
	}
	o := &tiering.ColdOptions{Dir: c.Dir, ID: c.ID, Owner: tl.owner(), Timeout: tl.options.ColdTimeout, Retry: tl.options.ColdRetry, FS: tl.options.ColdDisk}
	if c.S3 != nil {
		o.FS, o.Connect = nil, func() (disk.FS, error) { return tl.bucket(c) }
	}
	return o
}

// owner is what tells this store from its copies, which have the same IDs: the number of its
// directory and when that was made. A filesystem that does not say the latter may give a directory
// another number each time; then nobody is told apart.
func (tl *tierList) owner() tiering.Owner {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, tl.dir.Join(), 0, unix.STATX_INO|unix.STATX_BTIME, &st)
	if err != nil || st.Mask&unix.STATX_BTIME == 0 || tl.options.Disk != nil { // a simulated disk is nobody else's
		return tiering.Owner{}
	}
	return tiering.Owner{ID: fmt.Sprintf("%x-%x-%x", st.Ino, st.Btime.Sec, st.Btime.Nsec), Path: tl.dir.Path()}
}

// bucket returns the disk of a cold tier in a bucket.
func (tl *tierList) bucket(c *ColdTier) (*s3.FS, error) {
	return s3.New(s3.Config{Server: *c.S3, URL: c.Dir, Spool: tl.spool(), Local: tl.hotFS(), ReadOnly: tl.readOnly, Timeout: tl.options.ColdTimeout})
}

// spool is where segments are until they are uploaded.
func (tl *tierList) spool() string { return tl.segments(spoolDir) }

func (tl *tierList) coldFS() disk.FS {
	if tl.options.ColdDisk != nil {
		return tl.options.ColdDisk
	}
	return tl.hotFS()
}

func (tl *tierList) hotFS() disk.FS {
	switch {
	case tl.options.Disk != nil:
		return tl.options.Disk
	case tl.readOnly:
		return disk.ReadOnly()
	}
	return disk.OS()
}

// AddCold makes the directory the store's cold tier; it must be missing or
// empty, and should be on another disk. ErrHasTier: there is a cold tier
// already; ErrNotEmpty; ErrConfig.
func (tl *tierList) AddCold(dir string) error {
	if tl.readOnly {
		return ErrReadOnly
	}
	tl.mu.Lock()
	defer tl.mu.Unlock()
	if err := tl.checkColdDir(dir); err != nil {
		return fmt.Errorf("add cold tier %s: %w", dir, err)
	}
	return tl.addCold(&ColdTier{Dir: filepath.Clean(dir)}, tl.coldFS())
}

// checkColdDir reports a path that can be no cold tier's: ErrConfig.
func (tl *tierList) checkColdDir(dir string) error {
	if !filepath.IsAbs(dir) {
		return fmt.Errorf("%w: give a path that starts with /", ErrConfig)
	}
	if within(tl.dir.Path(), filepath.Clean(dir)) {
		return fmt.Errorf("%w: it is inside the store's own directory", ErrConfig)
	}
	return nil
}

// AddBucket makes a bucket's prefix, s3://bucket/prefix, the store's cold tier; it must
// have no objects, and the bucket must exist. Errors: as AddCold's.
func (tl *tierList) AddBucket(url string, server S3Server) error {
	if tl.readOnly {
		return ErrReadOnly
	}
	tl.mu.Lock()
	defer tl.mu.Unlock()
	cold := &ColdTier{Dir: strings.TrimSuffix(url, "/"), S3: &server}
	fs, err := tl.bucket(cold)
	if err != nil {
		return fmt.Errorf("add cold tier: %w: %v", ErrConfig, err)
	}
	if tl.file.Cold == nil {
		// Without a cold tier nothing in the spool is in use.
		if err := os.RemoveAll(tl.spool()); err != nil {
			return fmt.Errorf("add cold tier: %w", err)
		}
	}
	return tl.addCold(cold, fs)
}

// addCold makes cold, which lacks an ID, the cold tier. The caller holds mu.
func (tl *tierList) addCold(cold *ColdTier, fs disk.FS) error {
	dir := cold.Dir
	// Followers get the segments of the hot tier alone.
	if tl.options.Follower != nil {
		return fmt.Errorf("add cold tier %s: %w: a mirrored volume cannot have one yet", dir, ErrConfig)
	}
	if c := tl.file.Cold; c != nil {
		return fmt.Errorf("add cold tier %s: %w: the store has the cold tier %s: if that is there now, say so with quarxfs tier relocate;"+
			" else drain and remove it first", dir, ErrHasTier, c.Dir)
	}
	var id [16]byte
	rand.Read(id[:])
	cold.ID, cold.Added = hex.EncodeToString(id[:]), tl.now().UTC()
	if err := tiering.MakeCold(fs, dir, cold.ID); err != nil {
		if errors.Is(err, os.ErrExist) {
			err = fmt.Errorf("%w: %v", ErrNotEmpty, err)
		}
		return fmt.Errorf("add cold tier: %w", err)
	}
	if err := tl.tiers.AddCold(*tl.coldOptions(cold)); err != nil {
		return fmt.Errorf("add cold tier %s: %w", dir, err)
	}
	// Nothing is moved before this is durable: the mover takes mu first.
	f := tl.file
	f.Cold = cold
	if err := tl.writeTiers(f); err != nil {
		return fmt.Errorf("add cold tier %s: %w", dir, errors.Join(err, tl.tiers.DropCold()))
	}
	return nil
}

// within reports whether path is dir or below it.
func within(dir, path string) bool {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return false
	}
	rel, err := filepath.Rel(abs, path)
	return err == nil && filepath.IsLocal(rel)
}

// RemoveCold takes the cold tier out of the store, and its marker out of its
// directory. ErrNoTier; ErrHasTier: there are blocks in it, see Drain.
func (tl *tierList) RemoveCold() error {
	if tl.readOnly {
		return ErrReadOnly
	}
	tl.mu.Lock()
	defer tl.mu.Unlock()
	cold := tl.file.Cold
	if cold == nil {
		return fmt.Errorf("remove cold tier: %w", ErrNoTier)
	}
	// Rows of segments with nothing in them would count as the tier being in use.
	var sw Swept
	if err := tl.sweeper.removeEmptySegments(&sw); err != nil {
		return fmt.Errorf("remove cold tier: %w", err)
	}
	use, err := tl.index.tierUse()
	if err != nil {
		return err
	}
	if live := use[tiering.Cold].live; live > 0 {
		return fmt.Errorf("remove cold tier %s: %w: %s of the store's blocks are in it: bring them back first with quarxfs tier drain STORE cold",
			cold.Dir, ErrHasTier, humanize.IBytes(uint64(live)))
	}
	if err := tl.tiers.Reach(tiering.Cold); err != nil {
		return fmt.Errorf("remove cold tier %s: %w", cold.Dir, err)
	}
	// The list first: after a crash here the directory is merely left over, where the other way
	// round the list would name a tier without a marker.
	f := tl.file
	f.Cold = nil
	foreign := tl.tiers.Foreign()
	if err := tl.writeTiers(f); err != nil {
		return fmt.Errorf("remove cold tier: %w", err)
	}
	err = tl.tiers.DropCold()
	if err == nil {
		// The next cold tier begins with the same numbers: by rows that stayed, its segments
		// would be another store's.
		err = tl.commits.Update(func() error { return tl.sweeper.dropStaleSegmentRows(tiering.Cold) })
	}
	if err == nil {
		err = tl.commits.Commit()
	}
	if foreign != nil { // the other one goes on with it
		return errors.Join(err, os.RemoveAll(tl.spool()))
	}
	if cold.S3 == nil {
		return errors.Join(err, tiering.UnmakeCold(tl.coldFS(), cold.Dir, cold.ID))
	}
	fs, cerr := tl.bucket(cold)
	if cerr == nil {
		cerr = tiering.UnmakeCold(fs, cold.Dir, cold.ID)
	}
	return errors.Join(err, cerr, os.RemoveAll(tl.spool()))
}

// Cold returns the cold tier; ok is false when there is none.
func (tl *tierList) Cold() (c ColdTier, ok bool) {
	tl.mu.Lock()
	defer tl.mu.Unlock()
	if tl.file.Cold == nil {
		return c, false
	}
	return *tl.file.Cold, true
}

// tierUse is what the rows of segments add up to, by tier.
type tierUse struct{ live, segments int64 }

func (ix *index) tierUse() (use [2]tierUse, err error) {
	err = ix.db.ScanPrefix([]byte{keySegment}, func(key, value []byte) error {
		n, row, err := decodeSegmentKeyRow(key, value)
		if err != nil {
			return nil // the check's to report
		}
		if t := tiering.TierOf(n); int(t) < len(use) {
			use[t].live += row.Live
			use[t].segments++
		}
		return nil
	})
	return use, err
}
