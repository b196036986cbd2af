package carrier

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/quarxtor/quarxfs/remote/cluster/mirror"
	"github.com/quarxtor/quarxfs/store/db"
	"github.com/quarxtor/quarxfs/tiering/disk"
)

// A Register has the volume's record. ErrChanged: what was to be replaced is not there any more.
type Register interface {
	Read(ctx context.Context) (mirror.Record, error)
	// Swap replaces the record that has next's stamp, and returns what is there then.
	Swap(ctx context.Context, next mirror.Record) (mirror.Record, error)
}

// ErrChanged: somebody else has changed the record.
var ErrChanged = errors.New("the record was changed meanwhile")

// ErrFenced: another node writes the volume, or may.
var ErrFenced = errors.New("another node writes the volume now")

const (
	// sealedExt is that of segments which do not change any more. A copy gives it by renaming
	// alone, which makes the file durable first.
	sealedExt = ".seg"
	// partExt is added while a file is sent whole. A copy that comes back removes what has it.
	partExt = ".part"
)

const (
	degradeAfter = 5 * time.Second // how long a commit waits for a copy before that is left behind
	swapTime     = 2 * time.Second
	retryTime    = 200 * time.Millisecond
	pingEvery    = 2 * time.Second
	seedTime     = time.Minute // for a copy to make durable what it was sent of a seed
	pingTime     = 5 * time.Second
)

// WriterOptions are what a writer is given.
type WriterOptions struct {
	Register Register
	// Dial reaches the copy of a node, which Serves the connection.
	Dial    func(ctx context.Context, node string) (net.Conn, error)
	Mirrors []string      // the nodes that are to have copies
	Degrade time.Duration // 0: degradeAfter
	Strict  bool          // no copy is ever left behind: commits wait
	Log     *slog.Logger
}

// A Writer has the commits of the store on this node in all copies that count. It is given to the
// store twice: as its Follower, and by Disk.
//
// Locks: swapping, and under it mu.
type Writer struct {
	*Capture
	opt    WriterOptions
	dir    string
	volume string
	clock  func() time.Duration
	log    *slog.Logger
	ctx    context.Context
	stop   context.CancelFunc
	tends  sync.WaitGroup

	swapping sync.Mutex // one change of the record at a time

	mu      sync.Mutex
	changed chan struct{} // closed when anything below is another
	rules   mirror.Writer
	now     *shipment // the commit that is on its way; nil: none
	sending int       // links that it was handed to, and that are not done
	waiting map[*link]bool
	links   map[string]*link // of those who follow, by node
	store   Source
	nudges  struct {
		asked bool // a copy waits for a commit that has not begun
		begun bool // such commits are being made
	}
}

// A Source is the store that new copies are seeded from.
type Source interface {
	DB() *db.DB
	CommitsRow() (key, value []byte)
	Update(func() error) error
	Commit() error
}

// A shipment is a commit on its way.
type shipment struct {
	end     commitEnd
	log     mirror.Log
	changes iter.Seq2[[]byte, []byte]
}

// Promote makes the node of the copy the writer, in a new epoch: ErrMayNot. The copy is closed, and
// its directory can be opened as a store with the Writer; whoever cannot goes on as before.
func (r *Replica) Promote(ctx context.Context, opt WriterOptions) (*Writer, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, ErrClosed
	}
	if r.state.Seeding || r.db == nil {
		return nil, fmt.Errorf("%w: it is not complete", ErrMayNot)
	}
	record, err := opt.Register.Read(ctx)
	if err != nil {
		return nil, err
	}
	c := r.copy()
	vow := r.vow
	if c.Seen == (mirror.Stamp{}) && record.Writer == "" {
		c.Seen, vow = record.Stamp, mirror.Vow{} // a new volume: nothing was decided or vowed before
	}
	c, next, why := mirror.Promote(c, record, vow, r.opt.Clock())
	if why != "" {
		return nil, fmt.Errorf("%w: %w", ErrMayNot, why)
	}
	// Durable before the swap, which may be done after nobody waits for it any more (R4).
	promised := r.state
	promised.Promised, promised.Seen = c.Promised, c.Seen
	if err := r.keep(promised); err != nil {
		return nil, err
	}
	swapped, err := opt.Register.Swap(ctx, next)
	if err != nil {
		return nil, err
	}
	w, ok := mirror.Begin(r.copy(), swapped)
	if !ok {
		return nil, fmt.Errorf("%w: the register has gone on", ErrMayNot)
	}
	seen := r.state
	seen.Seen = r.copy().Saw(swapped).Seen
	if err := r.keep(seen); err != nil {
		return nil, err
	}
	if err := r.close(); err != nil {
		return nil, err
	}
	return newWriter(r, w, opt), nil
}

func newWriter(r *Replica, w mirror.Writer, opt WriterOptions) *Writer {
	if opt.Degrade == 0 {
		opt.Degrade = degradeAfter
	}
	s := &Writer{
		Capture: NewCapture(r.opt.Disk, r.dir), opt: opt, dir: r.dir, volume: r.state.Volume,
		clock: r.opt.Clock, log: r.opt.Log,
		rules: w, changed: make(chan struct{}), links: map[string]*link{}, waiting: map[*link]bool{},
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	for _, node := range opt.Mirrors {
		s.tends.Go(func() { s.maintain(node) })
	}
	return s
}

// Attach gives the writer the store that was opened with it: new copies are seeded from there, and
// a copy joins with the next commit, which the store makes if nobody writes.
func (s *Writer) Attach(from Source) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.store = from
	s.wake()
	s.makeCommits() // for those that came while there was no store
}

// nudge has a commit be made for a copy that waits for one, while nobody writes. next has to
// follow: the commit may be handed over at once.
func (l *link) nudge() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting[l], l.nudges.asked = true, true
	l.makeCommits()
}

// makeCommits begins to make what was asked for. The caller holds mu.
func (s *Writer) makeCommits() {
	if s.nudges.begun || s.store == nil {
		return
	}
	s.nudges.begun = true
	from := s.store
	// Something has to change, or there is no commit. What it is Row says.
	change := func() error { from.DB().Set(positionKey, nil); return nil }
	s.tends.Go(func() {
		for s.takeNudge() {
			if err := errors.Join(from.Update(change), from.Commit()); err != nil {
				s.log.Info("a commit for a copy that joins", "err", err)
			}
		}
	})
}

// takeNudge tells whether one more commit is to be made: who asks during one may be too late for
// it.
func (s *Writer) takeNudge() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nudges.begun = s.nudges.asked && !s.rules.Fenced && s.ctx.Err() == nil
	s.nudges.asked = false
	return s.nudges.begun
}

// Close ends it. Commits fail from then on.
func (s *Writer) Close() {
	s.stop()
	s.tends.Wait()
}

// wake has all look again. The caller holds mu.
func (s *Writer) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// State is what the writer knows.
func (s *Writer) State() mirror.Writer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rules
}

// MayServe reports whether reads may be answered now (R5).
func (s *Writer) MayServe() bool { return s.State().MayServe(s.clock()) }

// change replaces what is known by what fn makes of it.
func (s *Writer) change(fn func(mirror.Writer) mirror.Writer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rules = fn(s.rules)
	s.wake()
}

// Row is the row by which copies know their log.
func (s *Writer) Row() (key, value []byte, err error) {
	w := s.State()
	if w.Fenced {
		return nil, nil, ErrFenced
	}
	return positionKey, encodeLog(w.Log.Append(w.Epoch)), nil
}

// Follow returns when all copies that count have the commit: ErrFenced.
func (s *Writer) Follow(changes iter.Seq2[[]byte, []byte]) error {
	s.mu.Lock()
	next := s.rules.Log.Append(s.rules.Epoch)
	one := &shipment{commitEnd{s.rules.Log.End(), next.End()}, next, changes}
	s.rules = s.rules.Appended(next)
	s.now = one
	// Handed over, so that also those who do not count yet have it: they join with it.
	for l := range s.waiting {
		s.hand(l)
	}
	s.wake()
	s.mu.Unlock()
	err := s.acknowledged(next.Last)
	// Nobody may look at the changes when this returns.
	s.mu.Lock()
	s.now = nil
	s.wake()
	for s.sending > 0 {
		changed := s.changed
		s.mu.Unlock()
		<-changed
		s.mu.Lock()
	}
	s.mu.Unlock()
	s.trim()
	return err
}

// hand has a link send the commit that is on its way, if it is to. The caller holds mu.
func (s *Writer) hand(l *link) {
	p, _ := s.rules.Find(l.member)
	// A copy that is seeded needs the store, which the first commit of an opening is before.
	if s.now == nil || s.now.end.Commit == l.last || s.store == nil && !p.Counted {
		return
	}
	l.job = s.now
	s.sending++
	delete(s.waiting, l)
}

// acknowledged waits until a commit is, and leaves those behind that do not answer.
func (s *Writer) acknowledged(index mirror.Index) error {
	patience := time.NewTimer(s.opt.Degrade)
	defer patience.Stop()
	late := false
	for {
		s.mu.Lock()
		w, changed := s.rules, s.changed
		s.mu.Unlock()
		switch {
		case w.Fenced:
			return ErrFenced
		case w.Acked >= index:
			return nil
		case s.ctx.Err() != nil:
			return ErrClosed
		}
		if late && !s.opt.Strict {
			for _, p := range w.Peers {
				if p.Counted && p.Answered < index {
					s.leave(p.Member)
				}
			}
			patience.Reset(retryTime)
			late = false
			continue
		}
		select {
		case <-changed:
		case <-patience.C:
			late = true
		case <-s.ctx.Done():
		}
	}
}

// leave takes a copy out of the record, and counts it no more when that is done (R3).
func (s *Writer) leave(m mirror.Member) {
	s.swap(func(w mirror.Writer) (mirror.Record, bool) { return w.Leave(m) })
	s.mu.Lock()
	p, _ := s.rules.Find(m)
	l := s.links[m.Node]
	s.mu.Unlock()
	if p.Counted {
		return
	}
	s.log.Warn("a copy is left behind", "node", m.Node)
	if l != nil {
		_ = l.Conn.Close() // whoever sends there holds the commit
	}
}

// swap has the register take a change, and learns what it says then.
func (s *Writer) swap(change func(mirror.Writer) (mirror.Record, bool)) {
	s.swapping.Lock()
	defer s.swapping.Unlock()
	next, ok := change(s.State())
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(s.ctx, swapTime)
	defer cancel()
	is, err := s.opt.Register.Swap(ctx, next)
	if err != nil {
		// Whether it was done is not known: only what the register shows counts.
		if is, err = s.opt.Register.Read(ctx); err != nil {
			s.log.Warn("the register does not answer", "err", err)
			return
		}
	}
	s.change(func(w mirror.Writer) mirror.Writer { return w.Learn(is) })
}

// trim forgets the changes of files that all copies have.
func (s *Writer) trim() {
	oldest := s.Capture.mark()
	s.mu.Lock()
	for _, l := range s.links {
		oldest = min(oldest, l.mark)
	}
	s.mu.Unlock()
	s.Capture.forget(oldest)
}

// maintain keeps one copy up to date until the writer ends.
func (s *Writer) maintain(node string) {
	for s.ctx.Err() == nil {
		err := s.attend(node)
		if s.ctx.Err() != nil {
			return
		}
		if s.State().Fenced {
			return
		}
		s.log.Info("a copy is not followed", "node", node, "err", err)
		select {
		case <-time.After(retryTime):
		case <-s.ctx.Done():
		}
	}
}

// A link is a connection to a copy.
type link struct {
	*Writer
	*stream
	node    string
	member  mirror.Member
	session uint64
	last    mirror.Position // that it has
	fits    bool            // last is a commit of ours
	mark    uint64          // what is noted before it the copy has; Writer.mu guards it
	job     *shipment       // that it is to send; Writer.mu guards it
}

// attend brings a copy up to date and has it follow until the connection ends.
func (s *Writer) attend(node string) error {
	ctx, cancel := context.WithTimeout(s.ctx, greetTime)
	c, err := s.opt.Dial(ctx, node)
	cancel()
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(s.ctx, func() { _ = c.Close() })()
	l := &link{Writer: s, stream: newStream(c, s.opt.Degrade), node: node}
	if err := l.greet(); err != nil {
		return err
	}
	defer l.drop()
	// Files first, while commits go on: what changes meanwhile is noted behind the mark.
	l.hold(s.Capture.mark())
	if !l.fits {
		if err := l.giveUp(); err != nil {
			return err
		}
	}
	if err := l.sendFiles(); err != nil {
		return err
	}
	if !l.counts() {
		l.nudge() // it joins with the next commit
	}
	for {
		one, err := l.next()
		if err != nil {
			return err
		}
		if one == nil {
			if err := l.ping(); err != nil {
				return err
			}
			if l.counts() {
				l.join()
			} else {
				l.nudge()
			}
			continue
		}
		err = l.ship(one)
		l.done()
		if err != nil {
			return err
		}
	}
}

// hold keeps what is noted from a mark on.
func (l *link) hold(mark uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mark = mark
	l.links[l.node] = l
}

func (l *link) drop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.links, l.node)
}

func (l *link) greet() error {
	w := l.State()
	if err := l.await(greetTime); err != nil {
		return err
	}
	sent := l.clock()
	err := l.sendJSON(kindGreet, greeting{Format: wireFormat, Volume: l.volume, Epoch: w.Epoch, Record: w.Record})
	if err != nil {
		return err
	}
	var answered welcome
	if err := l.expect(kindWelcome, &answered); err != nil {
		return err
	}
	if answered.Member.Node != l.node {
		return fmt.Errorf("%w: it is %s", ErrRefused, answered.Member.Node)
	}
	l.member, l.session, l.last = answered.Member, answered.Session, answered.Log.End()
	var what mirror.Greeting
	l.change(func(w mirror.Writer) mirror.Writer {
		w, what = w.Welcome(answered.Member, answered.Session, answered.Log)
		return w.Granted(answered.Member, w.Epoch, sent)
	})
	// Of an empty log nothing is known: the rows of before the first commit may be there or not.
	l.fits = what == mirror.CatchUp && l.last != mirror.Position{}
	switch what {
	case mirror.GiveWay:
		return ErrFenced
	case mirror.Expel:
		l.leave(l.member)
	}
	return nil
}

// giveUp has a copy that is to be seeded be none from now on, before any file is changed. One that
// counts has to leave before that.
func (l *link) giveUp() error {
	if l.counts() {
		if l.leave(l.member); l.counts() {
			return fmt.Errorf("%s counts, and lacks more than a commit", l.node)
		}
	}
	b, err := json.Marshal(seedMark{l.State().Log})
	if err != nil {
		return err
	}
	return l.send(kindSeed, b)
}

func (l *link) counts() bool {
	p, _ := l.State().Find(l.member)
	return p.Counted
}

// mostListed bounds what a copy may say of its files: a million of segments has less.
const mostListed = 64 << 20

// listed receives which files the copy has.
func (l *link) listed() (map[string]copyFile, error) {
	has := make(map[string]copyFile)
	for bytes := 0; bytes < mostListed; {
		if err := l.await(l.opt.Degrade); err != nil {
			return nil, err
		}
		k, b, err := l.receive()
		switch {
		case err != nil:
			return nil, err
		case k == kindRefuse:
			return nil, refused(b)
		case k != kindListed:
			return nil, fmt.Errorf("%w: kind %d in a list", errFrame, k)
		case len(b) == 0:
			return has, nil
		}
		p, size, tail, err := decodeListed(b)
		if err != nil {
			return nil, err
		}
		has[p] = copyFile{size, sha256.Sum256(tail)}
		bytes += len(p) + sha256.Size
	}
	return nil, fmt.Errorf("%w: %s lists files without end", errFrame, l.node)
}

// sendFiles makes the copy's files those of the store: those that differ are sent whole. Sealed
// segments do not change, and one that is equal in size and end is equal: a copy gives that name
// only to what is durable.
func (l *link) sendFiles() error {
	if err := errors.Join(l.send(kindFiles), l.flush()); err != nil {
		return err
	}
	has, err := l.listed()
	if err != nil {
		return err
	}
	for _, name := range roots {
		b, err := os.ReadFile(filepath.Join(l.dir, name))
		if err != nil {
			return err
		}
		if err := l.send(kindRoot, change{kind: kindRoot, path: name, data: b}.encode(nil)); err != nil {
			return err
		}
	}
	// A file that is renamed between the list and the look has to be found in another list, or
	// nobody would send it: that it was renamed is noted, which does nothing where it is not.
	err = os.ErrNotExist
	for tries := 0; errors.Is(err, os.ErrNotExist) && tries < mostLists; tries++ {
		err = l.sendListed(has)
	}
	if err != nil {
		return err
	}
	for p := range has {
		if err := l.send(kindRemove, change{kind: kindRemove, path: p}.encode(nil)); err != nil {
			return err
		}
	}
	return l.flush()
}

// A copyFile is one that a copy has.
type copyFile struct {
	size int64
	tail [sha256.Size]byte // the hash of its end
}

// mostLists is how often the files are listed anew.
const mostLists = 100

// sendListed sends what differs from what the copy has, and takes out of that what is to stay.
func (l *link) sendListed(has map[string]copyFile) error {
	for _, dir := range segmentDirs {
		infos, err := l.Capture.FS.List(filepath.Join(l.dir, dir))
		if err != nil {
			return err
		}
		for _, i := range infos {
			p := dir + "/" + i.Name
			path := filepath.Join(l.dir, filepath.FromSlash(p))
			there, ok := has[p]
			delete(has, p)
			if ok && filepath.Ext(path) == sealedExt {
				tail, err := tailOf(l.Capture.FS, path, i.Size)
				if err != nil {
					return err
				}
				if there == (copyFile{i.Size, sha256.Sum256(tail)}) {
					continue
				}
			}
			if err := l.sendWhole(p, path); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *link) sendWhole(p, path string) error {
	d, err := l.Capture.FS.Open(path)
	if err != nil {
		return err
	}
	// Beside what is there: a copy that counts has to be whole at any time, and half a segment, or
	// one that is not durable, must not look like a whole one when the copy comes back.
	part := p + partExt
	size, err := d.Size()
	if err == nil {
		err = l.send(kindMake, change{kind: kindMake, path: part}.encode(nil))
	}
	if err == nil {
		err = sendBytes(l.stream, part, d, 0, size)
	}
	if err == nil {
		err = l.send(kindRename, change{kind: kindRename, path: part, to: p}.encode(nil))
	}
	return errors.Join(err, d.Close())
}

// next waits for a commit that the copy has not; nil: there was none for a while.
func (l *link) next() (*shipment, error) {
	idle := time.NewTimer(pingEvery)
	defer idle.Stop()
	for {
		l.mu.Lock()
		if l.job == nil {
			l.waiting[l] = true
			l.hand(l) // one may have begun meanwhile
		}
		one, changed, fenced := l.job, l.changed, l.rules.Fenced
		l.mu.Unlock()
		if one != nil {
			return one, nil
		}
		idles := false
		select {
		case <-changed:
		case <-idle.C:
			idles = true
		case <-l.ctx.Done():
			fenced = true
		}
		if !idles && !fenced {
			continue
		}
		// Unless it was handed one just now.
		l.mu.Lock()
		one = l.job
		delete(l.waiting, l)
		l.mu.Unlock()
		if one == nil && fenced {
			return nil, ErrFenced
		}
		return one, nil
	}
}

func (l *link) done() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sending--
	l.job = nil
	l.wake()
}

// ship has the copy have a commit, or all rows if it lacks more than that.
func (l *link) ship(one *shipment) error {
	sent := l.clock()
	noted, mark, err := l.Capture.since(l.mark)
	if err != nil {
		return err
	}
	for _, n := range noted {
		if err := l.Capture.send(l.stream, n); err != nil {
			return err
		}
	}
	limit := l.opt.Degrade
	if l.fits && l.last == one.end.Before {
		err = l.sendCommit(one)
	} else {
		err, limit = l.sendSeed(one), seedTime
	}
	if err != nil {
		return err
	}
	if err := l.await(limit); err != nil {
		return err
	}
	var got answer
	if err := l.expect(kindAnswer, &got); err != nil {
		return err
	}
	if got.Commit != one.end.Commit {
		return fmt.Errorf("%w: an answer to %v", errFrame, got.Commit)
	}
	l.last, l.fits = got.Commit, true
	l.hold(mark)
	l.change(func(w mirror.Writer) mirror.Writer {
		w = w.Answered(l.member, l.session, w.Epoch, got.Commit)
		w = w.Granted(l.member, w.Epoch, sent)
		w, _ = w.Count(l.member) // first counted, then named (R3)
		return w
	})
	l.join()
	return nil
}

// join has the register name a copy that counts. Nobody waits for it: the register may be away.
func (l *link) join() {
	w := l.State()
	if p, _ := w.Find(l.member); p.Counted && !w.Record.Names(l.member) {
		l.tends.Go(func() {
			l.swap(func(w mirror.Writer) (mirror.Record, bool) { return w.Join(l.member) })
		})
	}
}

// sendRows sends rows in frames.
func (l *link) sendRows(each func(yield func(key, value []byte) error) error) error {
	var buf []byte
	err := each(func(key, value []byte) error {
		buf = appendRow(buf, key, value)
		if len(buf) < maxPart {
			return nil
		}
		err := l.send(kindRows, buf)
		buf = buf[:0]
		return err
	})
	if err == nil && len(buf) > 0 {
		err = l.send(kindRows, buf)
	}
	return err
}

func (l *link) sendCommit(one *shipment) error {
	err := l.sendRows(func(yield func(key, value []byte) error) error {
		for key, value := range one.changes {
			if err := yield(key, value); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return l.sendJSON(kindCommit, one.end)
}

// sendSeed replaces all rows. Nobody commits meanwhile, so they are those of this commit; a copy
// that counts has to leave first, as it has nothing until the end.
func (l *link) sendSeed(one *shipment) error {
	if l.counts() {
		l.leave(l.member) // which ends the connection
		return fmt.Errorf("%s counted, and lacks more than a commit", l.node)
	}
	l.mu.Lock()
	from := l.store
	l.mu.Unlock()
	if from == nil {
		return errors.New("the store is not open yet")
	}
	b, err := json.Marshal(seedMark{one.log})
	if err != nil {
		return err
	}
	if err := l.send(kindSeed, b); err != nil {
		return err
	}
	v, err := from.DB().CommittedView()
	if err != nil {
		return err
	}
	defer v.Close()
	err = l.sendRows(func(yield func(key, value []byte) error) error {
		if err := v.Scan(nil, nil, yield); err != nil {
			return err
		}
		return yield(from.CommitsRow())
	})
	if err != nil {
		return err
	}
	return errors.Join(l.send(kindSeedEnd, b), l.flush())
}

// ping asks for a vow.
func (l *link) ping() error {
	sent := l.clock()
	if err := l.await(pingTime); err != nil {
		return err
	}
	if err := errors.Join(l.send(kindPing), l.flush()); err != nil {
		return err
	}
	if err := l.expect(kindPing, nil); err != nil {
		return err
	}
	l.change(func(w mirror.Writer) mirror.Writer { return w.Granted(l.member, w.Epoch, sent) })
	return nil
}

var _ disk.FS = (*Writer)(nil)
var _ db.Follower = (*Writer)(nil)
