package tiering

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/quarxtor/quarxfs/tiering/disk"
	"github.com/quarxtor/quarxfs/tiering/segment"
)

// ColdOptions say where a cold tier is.
type ColdOptions struct {
	// Dir is its directory, or what stands for one on FS.
	Dir string
	// ID is what MakeCold has written into Dir.
	ID string
	// Timeout is how long an operation may take before the tier counts as out
	// of reach; 0 means 20 s. Syncs may take four times that. A disk.Remote has its
	// own.
	Timeout time.Duration
	// Retry is how often a tier that is out of reach is looked for; 0 means 2 s.
	Retry time.Duration
	// Owner is the store that opens the tier. A tier that is another's is only read.
	Owner Owner
	// Take makes the tier the Owner's, whosever it was.
	Take bool
	// FS; nil means what Connect makes, or else that of the hot tier.
	FS disk.FS
	// Connect makes the FS. It is called until it succeeds.
	Connect func() (disk.FS, error)
}

const (
	defaultTimeout = 20 * time.Second
	defaultRetry   = 2 * time.Second
	// sealRetries is after how many retries a segment is sealed again that could not
	// be.
	sealRetries = 5
)

// A coldTier is a tier that comes and goes: its directory may be on a disk that
// is unplugged, or that hangs.
//
//	in reach (tier set) -> out of reach    [lose, when the marker does not read]
//	out of reach        -> in reach        [find: idle, marker reads, recovered]
//
// On a disk.Remote it may also be an object store. There, segments wait in a local
// directory until they are sealed, and sealing one is what uploads it.
//
// Coming back is an Open like the first. It waits until no operation of before
// is under way any more, so that none can write into what was recovered.
type coldTier struct {
	opts Options
	cold ColdOptions
	log  *slog.Logger
	quit chan struct{} // closed by stop
	stop func()        // may be called twice: a tier that was relocated is closed once more
	lost chan struct{} // has room for one
	done sync.WaitGroup
	mu   struct {
		sync.Mutex
		tier  *tier  // nil: out of reach
		old   *tier  // the one before, still to be let go
		guard *guard // of tier or old
		err   error  // why it is out of reach
		fs    disk.FS
	}
}

// openCold never fails: a tier that cannot be reached may come.
func openCold(o Options, cold ColdOptions) *coldTier {
	c := newCold(o, cold)
	if err := c.find(); err != nil {
		c.log.Error("until the cold tier is back, what is in it cannot be read", "dir", cold.Dir, "err", err)
	}
	c.done.Go(c.watch)
	return c
}

func newCold(o Options, cold ColdOptions) *coldTier {
	if cold.FS == nil && cold.Connect == nil {
		cold.FS = o.FS
	}
	if cold.Timeout == 0 {
		cold.Timeout = defaultTimeout
	}
	if cold.Retry == 0 {
		cold.Retry = defaultRetry
	}
	c := &coldTier{opts: o, cold: cold, log: o.Logger, quit: make(chan struct{}), lost: make(chan struct{}, 1)}
	c.stop = sync.OnceFunc(func() { close(c.quit) })
	return c
}

func (c *coldTier) get() (*tier, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.tier == nil {
		return nil, c.mu.err
	}
	return c.mu.tier, nil
}

// find opens the tier, if all that was under way before has ended.
func (c *coldTier) find() error {
	c.mu.Lock()
	old, g := c.mu.old, c.mu.guard
	c.mu.old = nil
	c.mu.Unlock()
	if old != nil {
		old.abandon()
	}
	// A write of before that hangs could still land in what is recovered now.
	if g != nil && !g.idle() {
		return g.reason()
	}
	base, err := c.connect()
	if _, remote := base.(disk.Remote); err == nil && !remote {
		base = markedFS{base, c.cold.Dir, c.cold.ID}
	}
	g = newGuard(base, c.cold.Timeout)
	var t *tier
	if err == nil {
		err = checkMarker(g, c.cold.Dir, c.cold.ID)
	}
	// Not before the marker and the owner: opening cuts tails off, and the directory may be another
	// tier's, or another store's by now.
	opts := c.opts
	if err == nil {
		err = c.claim(g)
	}
	if errors.Is(err, ErrForeign) {
		c.log.Warn("nothing is moved to the cold tier or removed there", "dir", c.cold.Dir, "why", err)
		opts.refuse, err = err, nil
	}
	if err == nil {
		t, err = openTier(opts, Cold, g, c.cold.Dir)
	}
	if err != nil && !errors.Is(err, ErrUnavailable) {
		err = fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if err != nil {
		g.close(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.tier, c.mu.guard, c.mu.err = t, g, err
	return err
}

// connect returns the tier's disk, made if it is not yet.
func (c *coldTier) connect() (disk.FS, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.fs != nil || c.cold.FS != nil {
		if c.mu.fs == nil {
			c.mu.fs = c.cold.FS
		}
		return c.mu.fs, nil
	}
	fs, err := c.cold.Connect()
	if err == nil {
		c.mu.fs = fs
	}
	return fs, err
}

// watch brings the tier back when it is lost, and tries again to seal what could
// not be sealed.
func (c *coldTier) watch() {
	retry := time.NewTicker(c.cold.Retry)
	defer retry.Stop()
	for n := 0; ; n++ {
		select {
		case <-c.quit:
			return
		case <-c.lost:
		case <-retry.C:
		}
		// In reach: the ticker serves to try once more what could not be sealed, and to notice a
		// marker that is gone.
		if t, err := c.get(); err == nil {
			_ = c.judge(t, t.unsealed(n%sealRetries == 0))
			continue
		}
		if err := c.find(); err == nil {
			c.log.Info("the cold tier is back", "dir", c.cold.Dir)
		}
	}
}

// judge returns the error of an operation on t, having found out whether it is
// the operation's own or the tier has gone.
func (c *coldTier) judge(t *tier, err error) error {
	if err == nil || errors.Is(err, ErrCorrupt) || errors.Is(err, ErrOpen) {
		return err
	}
	c.mu.Lock()
	g, now, closed := c.mu.guard, c.mu.tier == t, errors.Is(c.mu.err, ErrClosed)
	c.mu.Unlock()
	switch {
	case closed:
		return err
	case !now:
		return fmt.Errorf("%w: %v", ErrUnavailable, err)
	case errors.Is(err, ErrClosed):
		return err
	}
	// The guard knows of an operation that hangs; the marker of a disk that was pulled.
	why := g.reason()
	if why == nil && errors.Is(err, disk.ErrUnreachable) {
		why = err
	}
	if why == nil {
		why = checkMarker(g, c.cold.Dir, c.cold.ID)
	}
	if why == nil {
		if errors.Is(err, fs.ErrNotExist) { // an object that was removed while it was read
			err = fmt.Errorf("%w: %w", ErrNotFound, err)
		}
		return err
	}
	c.lose(t, why)
	return fmt.Errorf("%w: %v", ErrUnavailable, err)
}

// lose takes the tier out of use.
func (c *coldTier) lose(t *tier, why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.tier != t {
		return
	}
	// Shut first: operations under way end with the reason, and none begins.
	c.mu.guard.close(why)
	c.mu.tier, c.mu.old, c.mu.err = nil, t, c.mu.guard.reason()
	c.log.Error("the cold tier is out of reach", "dir", c.cold.Dir, "err", why)
	select {
	case c.lost <- struct{}{}:
	default:
	}
}

// interrupt breaks off what may take long, for good.
func (c *coldTier) interrupt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r, ok := c.mu.fs.(disk.Remote); ok {
		r.Interrupt()
	}
}

// close closes the tier for good. From then on operations on it end with why.
func (c *coldTier) close(why error) error {
	c.stop()
	c.interrupt()
	c.done.Wait()
	c.mu.Lock()
	// Out of mu's reach before closing, which takes long.
	t, old := c.mu.tier, c.mu.old
	c.mu.tier, c.mu.old, c.mu.err = nil, nil, why
	c.mu.Unlock()
	if old != nil {
		old.abandon()
	}
	if t == nil {
		return nil
	}
	// What a move needed was synced before the move was noted, so a tier that
	// goes now takes nothing with it.
	if err := t.close(); err != nil {
		c.log.Warn("the cold tier did not close well; the next opening recovers it", "err", err)
	}
	return nil
}

// MarkerName is the file that tells a tier's directory from the empty one that
// is left where its disk was mounted, and from another store's.
const MarkerName = "quarxfs-tier"

const markerMost = 256

func marker(id string) string { return "quarxfs cold tier, version 1\n" + id + "\n" }

// MakeCold makes dir, which must be empty or missing, the cold tier with the given ID: 32
// hex digits. fs.ErrExist: there is something in it.
func MakeCold(d disk.FS, dir, id string) error { return outOfReach(makeEmptyCold(d, dir, id)) }

// outOfReach makes ErrUnavailable of an error that says that nobody answers for a directory.
func outOfReach(err error) error {
	if errors.Is(err, disk.ErrUnreachable) {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}

func makeEmptyCold(d disk.FS, dir, id string) error {
	if err := d.MkdirAll(dir); err != nil {
		return err
	}
	files, err := d.List(dir)
	if err != nil {
		return err
	}
	// Files that are there are somebody's, perhaps another store's tier.
	if len(files) > 0 {
		return fmt.Errorf("%s has files in it, such as %s: %w", dir, files[0].Name, fs.ErrExist)
	}
	if err := writeWhole(d, dir, MarkerName, []byte(marker(id))); err != nil {
		return err
	}
	// Its own name as well: without both a power cut leaves a tier that is not found.
	return d.SyncDir(filepath.Dir(filepath.Clean(dir)))
}

// writeWhole makes a file durable, under another name until all of it is: one that reads is whole.
func writeWhole(d disk.FS, dir, name string, content []byte) error {
	path := filepath.Join(dir, name)
	making := path + ".new"
	f, err := d.Create(making)
	if err != nil {
		return madeAs(path, err)
	}
	_, err = f.WriteAt(content, 0)
	if err == nil {
		err = f.Datasync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = d.Rename(making, path)
	}
	if err != nil {
		return errors.Join(madeAs(path, err), d.Remove(making))
	}
	return d.SyncDir(dir)
}

// madeAs has an error of a file that has another name until it is whole say the one that it is to
// have.
func madeAs(name string, err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return &fs.PathError{Op: "create", Path: name, Err: p.Err}
	}
	if l, ok := errors.AsType[*os.LinkError](err); ok {
		return &fs.PathError{Op: "create", Path: name, Err: l.Err}
	}
	return err
}

// UnmakeCold removes what MakeCold has made and the segments, in which nothing may
// be that the store needs; the directory stays.
func UnmakeCold(d disk.FS, dir, id string) error {
	err := checkMarker(d, dir, id)
	if err == nil {
		err = removeSegments(d, dir)
	}
	// The marker last: without it nobody could tell whose the rest is.
	for _, name := range []string{OwnerName, MarkerName} {
		if err == nil {
			err = d.Remove(filepath.Join(dir, name))
		}
		if name == OwnerName && errors.Is(err, fs.ErrNotExist) { // nobody's
			err = nil
		}
	}
	if err == nil {
		err = d.SyncDir(dir)
	}
	return outOfReach(err)
}

// removeSegments removes the files that have a segment's name. They go before the marker:
// without it nobody could tell whose they are.
func removeSegments(d disk.FS, dir string) error {
	files, err := d.List(dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		if _, _, ok := segment.ParseName(f.Name); !ok {
			continue
		}
		if err := d.Remove(filepath.Join(dir, f.Name)); err != nil {
			return err
		}
	}
	return nil
}

// CheckCold reports whether dir is the cold tier id, and can be read.
func CheckCold(d disk.FS, dir, id string) error { return checkMarker(d, dir, id) }

// checkMarker reports whether dir is the tier id.
func checkMarker(d disk.FS, dir, id string) error {
	f, err := d.Open(filepath.Join(dir, MarkerName))
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return err
	}
	// The size is what the disk or the bucket says: no more memory than a marker needs.
	if size > markerMost {
		return fmt.Errorf("%s: %d bytes are no marker of a tier", filepath.Join(dir, MarkerName), size)
	}
	text := make([]byte, size)
	if _, err := f.ReadAt(text, 0); err != nil {
		return err
	}
	if string(text) != marker(id) {
		// Quoted: what is there may be anything, and not text.
		first, rest, _ := strings.Cut(string(text), "\n")
		return fmt.Errorf("%s: it says %q, %q, and not tier %s", filepath.Join(dir, MarkerName), first, strings.TrimSpace(rest), id)
	}
	return nil
}

// A markedFS uses names in a cold tier's directory only while that has the tier's marker: the
// directory may have been moved away beneath its daemon, and another one have its path. What is
// open already stays the tier's own.
type markedFS struct {
	disk.FS
	dir, id string
}

func (m markedFS) Create(path string) (disk.File, error) {
	if err := checkMarker(m.FS, m.dir, m.id); err != nil {
		return nil, err
	}
	return m.FS.Create(path)
}

func (m markedFS) Open(path string) (disk.File, error) {
	if err := checkMarker(m.FS, m.dir, m.id); err != nil {
		return nil, err
	}
	return m.FS.Open(path)
}

func (m markedFS) Rename(from, to string) error {
	if err := checkMarker(m.FS, m.dir, m.id); err != nil {
		return err
	}
	return m.FS.Rename(from, to)
}

func (m markedFS) Remove(path string) error {
	if err := checkMarker(m.FS, m.dir, m.id); err != nil {
		return err
	}
	return m.FS.Remove(path)
}

// tier returns a tier: ErrNoTier, ErrUnavailable.
func (s *Set) tier(id uint8) (*tier, error) {
	switch c := s.cold.Load(); {
	case id == Hot:
		return s.hot, nil
	case id == Cold && c != nil:
		return c.get()
	}
	name := "cold tier"
	if id != Cold {
		name = fmt.Sprintf("tier %d", id)
	}
	return nil, fmt.Errorf("%s: %w", name, ErrNoTier)
}

// holder returns the tier that a segment is in. ErrNotFound: no tier could have
// it.
func (s *Set) holder(number uint64) (*tier, error) {
	t, err := s.tier(tierOf(number))
	if errors.Is(err, ErrNoTier) {
		err = fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return t, err
}

// reached returns the error of an operation on t, which is ErrUnavailable if t
// turns out to be out of reach.
func (s *Set) reached(t *tier, err error) error {
	c := s.cold.Load()
	if err == nil || t.id == Hot || c == nil {
		return err
	}
	return c.judge(t, err)
}

// Reach says whether a tier can be used: nil, ErrNoTier or ErrUnavailable with
// the reason.
func (s *Set) Reach(id uint8) error {
	_, err := s.tier(id)
	return err
}

// Foreign is nil, or says that the cold tier is another store's: ErrForeign.
func (s *Set) Foreign() error {
	t, err := s.tier(Cold)
	if err != nil {
		return nil
	}
	return t.refuse
}

// AddCold adds a cold tier to a Set that has none. The error says why it cannot
// be reached; then it is not added.
func (s *Set) AddCold(cold ColdOptions) error {
	c := openCold(s.opts, cold)
	if _, err := c.get(); err != nil {
		return errors.Join(err, c.close(ErrClosed))
	}
	if !s.cold.CompareAndSwap(nil, c) {
		return errors.Join(errors.New("there is a cold tier already"), c.close(ErrClosed))
	}
	return nil
}

// DropCold takes the cold tier out of the Set. The caller knows that nothing refers
// to it.
func (s *Set) DropCold() error {
	c := s.cold.Swap(nil)
	if c == nil {
		return ErrNoTier
	}
	return c.close(ErrClosed)
}

// RelocateCold has the cold tier be in another directory or bucket, to which it was moved or
// copied: InspectCold has found it there. The caller sees to it that nothing is appended or removed
// meanwhile. Reads from the tier that come meanwhile get ErrUnavailable. When it cannot be opened
// there, it stays where it was. ErrNoTier; ErrUnavailable.
func (s *Set) RelocateCold(cold ColdOptions) error {
	old := s.cold.Load()
	if old == nil {
		return ErrNoTier
	}
	// A write that hangs could still land there: both may be one disk, by two paths.
	if !old.idle() {
		return fmt.Errorf("%w: operations on %s have not ended; unmount the store first", ErrUnavailable, old.cold.Dir)
	}
	// Closed before the other is opened, for the same reason: two that write to one directory.
	if err := old.close(fmt.Errorf("%w: it is being relocated", ErrUnavailable)); err != nil {
		return err
	}
	c := openCold(s.opts, cold)
	_, err := c.get()
	if err != nil {
		err = errors.Join(err, c.close(ErrClosed))
		// Where it was, so that a wrong path costs a moment without the tier and not the tier.
		c = openCold(s.opts, old.cold)
	}
	s.cold.Store(c)
	return err
}

// idle reports that the tier is in reach, or that nothing is under way any more of when it was.
func (c *coldTier) idle() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.tier != nil || c.mu.guard == nil || c.mu.guard.idle()
}

// InspectCold looks whether a cold tier is where the options say, and the segments of the claims
// in it, without changing anything. The error says why it is not there, or cannot be looked at.
func InspectCold(o Options, cold ColdOptions, claims []Claim) ([]Fault, error) {
	c := newCold(o, cold)
	base, err := c.connect()
	if err != nil {
		return nil, err
	}
	defer c.interrupt() // the connection of a bucket is this look's own
	g := newGuard(base, c.cold.Timeout)
	if err := checkMarker(g, cold.Dir, cold.ID); err != nil {
		return nil, err
	}
	_, remote := base.(disk.Remote)
	return inspectFaults(g, cold.Dir, claims, remote)
}

// SyncCold makes durable what AppendTo has stored in the cold tier before the
// call. When it fails, none of what was stored since the last success may be relied
// on, and later calls do not vouch for it.
func (s *Set) SyncCold() error {
	t, err := s.tier(Cold)
	if err != nil {
		return err
	}
	err = t.sync()
	// Whoever asked is told now and takes nothing for durable; the next call begins afresh.
	t.forsake(t.lost())
	return s.reached(t, err)
}
