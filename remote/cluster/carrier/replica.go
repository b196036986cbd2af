package carrier

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/remote/cluster/mirror"
	"github.com/quarxtor/quarxfs/store/db"
	"github.com/quarxtor/quarxfs/store/durable"
	"github.com/quarxtor/quarxfs/tiering/disk"
)

var (
	// ErrRefused: the other side does not go on; the text says why.
	ErrRefused = errors.New("the other node refuses")
	// ErrMayNot: the copy may not become the writer; the text says why.
	ErrMayNot = errors.New("this copy may not become the writer")
	// ErrClosed: it was asked for something after its end.
	ErrClosed = errors.New("it is closed")
)

const (
	stateName = "mirror.json"
	dbName    = "db"
	freshName = "db.seed"
	stateForm = 1
	greetTime = 10 * time.Second
	seedBatch = 4 << 20
	mostDirty = 64 // files that are written to at a time
	// answerTime is how long what a copy says may take to be taken: its lock is held meanwhile.
	answerTime = 10 * time.Second
	// quietTime is after which a writer that says nothing is gone; it pings much more often.
	quietTime = 30 * time.Second
)

// positionKey is the row by which a copy knows its log.
var positionKey = []byte{'p'}

// Dirs are those of a store that have segments.
var segmentDirs = []string{"hot"}

// roots are the small files that a seed brings: what else a store has is in its rows.
var roots = []string{"quarxfs.json"}

// A state is what a copy keeps beside its rows, durable before anybody is told of it.
type state struct {
	Format      int          `json:"format"`
	Node        string       `json:"node"`
	Incarnation uint64       `json:"incarnation"`
	Volume      string       `json:"volume"`
	Agent       string       `json:"agent"` // the directory of the node, where who writes asks
	Promised    mirror.Epoch `json:"promised"`
	Seen        mirror.Stamp `json:"seen"`
	Seeding     bool         `json:"seeding"` // what is there is no copy of anything, until a seed's end
}

// A Replica is a node's copy of a volume while another node writes it: the store's directory, which
// nobody has open as a store.
//
// Lock: mu, held over what is written to the disk; sessions take it frame by frame.
type Replica struct {
	dir string
	opt ReplicaOptions

	mu      sync.Mutex
	state   state
	log     mirror.Log
	vow     mirror.Vow
	session uint64 // the newest
	conn    net.Conn
	db      *db.DB
	whole   *os.File
	dirty   map[string]*written // since the last commit, by path
	names   map[string]bool     // directories with other names since then
	closed  bool
}

// ReplicaOptions are what a copy is opened with.
type ReplicaOptions struct {
	Node     string
	Volume   string               // its ID
	Agent    string               // the node's directory; empty: as it was
	Disk     disk.FS              // nil: the operating system's
	MemTable int64                // of the database
	Clock    func() time.Duration // that goes on while the machine sleeps; nil: CLOCK_BOOTTIME
	Log      *slog.Logger
	Patience time.Duration // with a writer that takes no answer; 0: answerTime
}

// Boottime is a clock that goes on while the machine sleeps.
func Boottime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic(err) // Linux has it since 2.6.39
	}
	return time.Duration(t.Nano())
}

// OpenReplica opens the copy in dir, or begins an empty one there: an error that names what to do,
// or db.ErrLocked, where the store is open.
func OpenReplica(dir string, opt ReplicaOptions) (r *Replica, err error) {
	if opt.Disk == nil {
		opt.Disk = disk.OS()
	}
	if opt.Clock == nil {
		opt.Clock = Boottime
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Patience == 0 {
		opt.Patience = answerTime
	}
	r = &Replica{dir: dir, opt: opt, dirty: map[string]*written{}, names: map[string]bool{}}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if r.whole, err = db.LockDir(dir, false); err != nil {
		return nil, err
	}
	if err := r.open(); err != nil {
		return nil, errors.Join(err, r.whole.Close())
	}
	return r, nil
}

func (r *Replica) open() error {
	for _, d := range segmentDirs {
		if err := r.beginDir(filepath.Join(r.dir, d)); err != nil {
			return err
		}
	}
	var err error
	if r.state, err = readState(r.dir); errors.Is(err, fs.ErrNotExist) {
		err = r.beginState()
	}
	if err != nil {
		return err
	}
	if r.state.Volume != r.opt.Volume || r.state.Node != r.opt.Node {
		return fmt.Errorf("%s is %s's copy of volume %s: give another directory", r.dir, r.state.Node, r.state.Volume)
	}
	if next := r.state; r.opt.Agent != "" && r.opt.Agent != next.Agent {
		next.Agent = r.opt.Agent
		if err := r.keep(next); err != nil {
			return err
		}
	}
	// It may have vowed before it was stopped, and forgotten that.
	r.vow = mirror.Begun(r.opt.Clock())
	if r.state.Seeding {
		return nil
	}
	return r.openRows()
}

// beginDir makes a directory of segments, and removes what was begun to be sent. Who was killed has
// not told which names are durable, so all of them are made so with the next commit.
func (r *Replica) beginDir(dir string) error {
	if err := r.opt.Disk.MkdirAll(dir); err != nil {
		return err
	}
	infos, err := r.opt.Disk.List(dir)
	if err != nil {
		return err
	}
	for _, i := range infos {
		if filepath.Ext(i.Name) == partExt {
			if err := r.opt.Disk.Remove(filepath.Join(dir, i.Name)); err != nil {
				return err
			}
		}
	}
	r.names[dir] = true
	return nil
}

// beginState is for a directory that is no copy yet; one that is a store becomes the first copy.
func (r *Replica) beginState() error {
	var b [8]byte
	rand.Read(b[:])
	r.state = state{
		Format: stateForm, Node: r.opt.Node, Volume: r.opt.Volume,
		Incarnation: binary.BigEndian.Uint64(b[:])>>12 | 1, // JSON numbers are exact up to 2^53
	}
	return r.keep(r.state)
}

// keep makes a state durable, and then the copy's.
func (r *Replica) keep(s state) error {
	b, err := json.MarshalIndent(s, "", "\t")
	if err == nil {
		err = durable.Write(filepath.Join(r.dir, stateName), b)
	}
	if err == nil {
		r.state = s
	}
	return err
}

func readState(dir string) (s state, err error) {
	b, err := os.ReadFile(filepath.Join(dir, stateName))
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err == nil && (s.Format != stateForm || s.Incarnation == 0) {
		err = fmt.Errorf("format %d is not known", s.Format)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%s: %w: remove the copy, and it is made anew", filepath.Join(dir, stateName), err)
	}
	return s, err
}

// openRows opens the rows and reads which commits they have.
func (r *Replica) openRows() (err error) {
	if r.db, err = db.Open(r.dbOptions(dbName)); err != nil {
		return err
	}
	b, err := r.db.Get(positionKey)
	switch {
	case errors.Is(err, db.ErrNotFound):
		r.log = mirror.Log{}
		return nil
	case err != nil:
		return err
	}
	r.log, err = decodeLog(b)
	return err
}

func (r *Replica) dbOptions(name string) db.Options {
	return db.Options{Dir: filepath.Join(r.dir, name), MemTable: r.opt.MemTable, Logger: r.opt.Log}
}

// An Origin says whose copy a directory has.
type Origin struct {
	Node   string // whose it is
	Volume string // its ID
	Agent  string // the node's directory
}

// OriginOf reads it: fs.ErrNotExist, if there is no copy.
func OriginOf(dir string) (Origin, error) {
	s, err := readState(dir)
	return Origin{s.Node, s.Volume, s.Agent}, err
}

// EndSession breaks the connection of the writer off. The vow that it was given holds on.
func (r *Replica) EndSession() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conn != nil {
		_ = r.conn.Close()
	}
}

// Self names the copy.
func (r *Replica) Self() mirror.Member {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.self()
}

func (r *Replica) self() mirror.Member {
	return mirror.Member{Node: r.state.Node, Incarnation: r.state.Incarnation}
}

// Log is which commits the copy has durably.
func (r *Replica) Log() mirror.Log {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log
}

// copy is what the rules judge by. The caller holds mu.
func (r *Replica) copy() mirror.Copy {
	return mirror.Copy{Self: r.self(), Promised: r.state.Promised, Seen: r.state.Seen, Log: r.log}
}

// Close ends the copy's part; its session ends, too.
func (r *Replica) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.close()
}

func (r *Replica) close() error {
	if r.closed {
		return nil
	}
	r.closed = true
	if r.conn != nil {
		_ = r.conn.Close() // its session may hang in a read
	}
	var err error
	for _, f := range r.dirty {
		err = errors.Join(err, f.Close())
	}
	if r.db != nil {
		err = errors.Join(err, r.db.Close())
	}
	return errors.Join(err, r.whole.Close())
}

// Serve follows a writer on a connection until that ends. A newer session ends it as well.
func (r *Replica) Serve(ctx context.Context, c net.Conn) error {
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	s := newStream(c, r.opt.Patience)
	if err := s.await(greetTime); err != nil {
		return err
	}
	var g greeting
	if err := s.expect(kindGreet, &g); err != nil {
		return err
	}
	session, w, err := r.welcome(g, c)
	if err != nil {
		return errors.Join(err, s.refuse(err))
	}
	if err := s.sendJSON(kindWelcome, w); err != nil {
		return err
	}
	f := &following{Replica: r, s: s, epoch: g.Epoch, session: session}
	defer f.end()
	for {
		if err := s.await(quietTime); err != nil {
			return err
		}
		k, b, err := s.receive()
		if err != nil {
			return err
		}
		if err := f.frame(k, b); err != nil {
			return errors.Join(err, s.refuse(err))
		}
	}
}

func (s *stream) refuse(why error) error {
	text := why.Error()
	return errors.Join(s.send(kindRefuse, []byte(text[:min(len(text), 500)])), s.flush())
}

// welcome promises the writer's epoch, durably, and begins a session.
func (r *Replica) welcome(g greeting, c net.Conn) (uint64, welcome, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.closed:
		return 0, welcome{}, ErrClosed
	case g.Format != wireFormat:
		return 0, welcome{}, fmt.Errorf("%w: format %d", errFrame, g.Format)
	case g.Volume != r.state.Volume:
		return 0, welcome{}, fmt.Errorf("%w: this is a copy of volume %s", errFrame, r.state.Volume)
	case g.Epoch == 0 || g.Record.Epoch != g.Epoch:
		return 0, welcome{}, fmt.Errorf("%w: epoch %d", errFrame, g.Epoch)
	}
	promised, ok := r.copy().Promise(g.Epoch)
	if !ok {
		return 0, welcome{}, fmt.Errorf("epoch %d has begun", r.state.Promised)
	}
	promised = promised.Saw(g.Record)
	next := r.state
	next.Promised, next.Seen = promised.Promised, promised.Seen
	if next.Seen == (mirror.Stamp{}) {
		next.Seen = g.Record.Stamp // a new copy has seen no register before
	}
	if next != r.state {
		if err := r.keep(next); err != nil {
			return 0, welcome{}, err
		}
	}
	if r.db == nil && !r.state.Seeding { // a commit has failed
		if err := r.openRows(); err != nil {
			return 0, welcome{}, err
		}
	}
	if r.conn != nil {
		_ = r.conn.Close() // the older session's
	}
	r.conn = c
	r.session++
	r.vow = r.vow.Renewed(r.opt.Clock())
	return r.session, welcome{Member: r.self(), Session: r.session, Log: r.log}, nil
}

// A following is one session of a copy.
type following struct {
	*Replica
	s       *stream
	epoch   mirror.Epoch
	session uint64
	batch   db.Batch // rows of the commit that is coming
	seed    *db.DB   // nil: rows are not those of a seed
}

// end gives up what was not completed.
func (f *following) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.seed != nil {
		_ = f.seed.Close() // it is removed by the next one
	}
	if f.conn == f.s.Conn {
		f.conn = nil
	}
}

// frame does what a frame says.
func (f *following) frame(k kind, b []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	// One that was begun later has promised more, or knows of more.
	if f.closed || f.session != f.Replica.session || f.epoch != f.state.Promised {
		return fmt.Errorf("%w: another session has begun", ErrClosed)
	}
	switch k {
	case kindMake, kindWrite, kindTruncate, kindRename, kindRemove, kindRoot:
		c, err := decodeChange(k, b)
		if err != nil {
			return err
		}
		return f.change(c)
	case kindRows:
		return eachRow(b, f.row)
	case kindCommit:
		var c commitEnd
		if err := decode(b, &c); err != nil {
			return err
		}
		return f.commit(c)
	case kindSeed:
		var m seedMark
		if err := decode(b, &m); err != nil {
			return err
		}
		return f.beginSeed(m)
	case kindSeedEnd:
		var m seedMark
		if err := decode(b, &m); err != nil {
			return err
		}
		return f.endSeed(m)
	case kindFiles:
		return f.sendNames()
	case kindPing:
		f.vow = f.vow.Renewed(f.opt.Clock())
		return errors.Join(f.s.send(kindPing), f.s.flush())
	}
	return fmt.Errorf("%w: kind %d", errFrame, k)
}

// path is that of a file of a segment's directory.
func (f *following) file(p string) (string, error) {
	dir, _, ok := strings.Cut(p, "/")
	if !ok || !slices.Contains(segmentDirs, dir) {
		return "", fmt.Errorf("%w: the path %q", errFrame, p)
	}
	return filepath.Join(f.dir, filepath.FromSlash(p)), nil
}

// A written file is not durable yet.
type written struct {
	disk.File
	// lost: why it could not be made durable. Nobody asks again: the system has forgotten by then.
	lost error
}

// opened is a file that is written to.
func (f *following) opened(p string) (disk.File, error) {
	if d := f.dirty[p]; d != nil {
		return d, nil
	}
	path, err := f.file(p)
	if err != nil {
		return nil, err
	}
	d, err := f.opt.Disk.Open(path)
	if err != nil {
		return nil, err
	}
	return d, f.hold(p, d)
}

// hold keeps a file open until it is durable. Of a seed there are more than a process may have
// open: then others are made durable now.
func (f *following) hold(p string, d disk.File) error {
	for other, o := range f.dirty {
		if len(f.dirty) < mostDirty {
			break
		}
		if o.lost != nil {
			continue // it waits for being sent whole, which others must not wait for
		}
		if err := f.clean(other); err != nil {
			return errors.Join(err, d.Close())
		}
	}
	f.dirty[p] = &written{File: d}
	return nil
}

// clean makes a file durable and lets go of it. One for which that has failed stays, and no commit
// is taken until another one has its place: the writer sends it whole when it greets the copy anew.
func (f *following) clean(p string) error {
	d := f.dirty[p]
	if d == nil {
		return nil
	}
	if d.lost == nil {
		d.lost = d.Datasync()
	}
	if d.lost != nil {
		return d.lost
	}
	delete(f.dirty, p)
	return d.Close()
}

// drop lets go of a file that is replaced or removed.
func (f *following) drop(p string) error {
	d := f.dirty[p]
	if d == nil {
		return nil
	}
	delete(f.dirty, p)
	return d.Close()
}

// change does to a file what was done to the writer's. It may be done again, since a connection
// may end at any place.
func (f *following) change(c change) error {
	if c.kind == kindRoot {
		if !slices.Contains(roots, c.path) {
			return fmt.Errorf("%w: the file %q", errFrame, c.path)
		}
		return durable.Write(filepath.Join(f.dir, c.path), c.data)
	}
	path, err := f.file(c.path)
	if err != nil {
		return err
	}
	makes := c.kind == kindMake || c.kind == kindWrite || c.kind == kindTruncate
	if makes && filepath.Ext(c.path) == sealedExt {
		return fmt.Errorf("%w: bytes for %s, which does not change", errFrame, c.path)
	}
	if c.kind != kindWrite && c.kind != kindTruncate {
		f.names[filepath.Dir(path)] = true
	}
	switch c.kind {
	case kindMake:
		if err := f.drop(c.path); err != nil {
			return err
		}
		d, err := f.create(c.path, path)
		if err == nil {
			err = d.Truncate(0)
		}
		return err
	case kindWrite:
		d, err := f.opened(c.path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // its removal was done before, by a connection that has ended
		}
		if err == nil {
			_, err = d.WriteAt(c.data, c.offset)
		}
		return err
	case kindTruncate:
		d, err := f.opened(c.path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			err = d.Truncate(c.offset)
		}
		return err
	case kindRemove:
		err := errors.Join(f.drop(c.path), f.opt.Disk.Remove(path))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	return f.rename(c, path)
}

// create opens a file, which need not exist, to write to it.
func (f *following) create(p, path string) (disk.File, error) {
	d, err := f.opt.Disk.Create(path)
	if errors.Is(err, fs.ErrExist) {
		d, err = f.opt.Disk.Open(path)
	}
	if err != nil {
		return nil, err
	}
	return d, f.hold(p, d)
}

// rename makes the file durable first: under its new name it counts as whole, after a power cut as
// well.
func (f *following) rename(c change, from string) error {
	to, err := f.file(c.to)
	if err != nil {
		return err
	}
	f.names[filepath.Dir(to)] = true
	if err := errors.Join(f.clean(c.path), f.drop(c.to)); err != nil {
		return err
	}
	err = f.opt.Disk.Rename(from, to)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // done before
	}
	return err
}

// syncFiles makes all files durable (I1): what a commit refers to is, before the commit is.
func (f *following) syncFiles() error {
	for p := range f.dirty {
		if err := f.clean(p); err != nil {
			return err
		}
	}
	for dir := range f.names {
		if err := f.opt.Disk.SyncDir(dir); err != nil {
			return err
		}
		delete(f.names, dir)
	}
	return nil
}

func (f *following) row(key, value []byte) error {
	if len(key) == 0 || len(key) > db.MaxKey || len(value) > db.MaxValue || bytes.HasPrefix(key, []byte{0xff, 0xff}) {
		return fmt.Errorf("%w: a row of %d and %d bytes", errFrame, len(key), len(value))
	}
	if value == nil {
		f.batch.Delete(key)
	} else {
		f.batch.Set(key, value)
	}
	switch {
	case f.seed != nil && f.batch.Bytes() >= seedBatch:
		return f.flushSeed()
	case f.batch.Bytes() > maxRows:
		return fmt.Errorf("%w: a commit of more than %d bytes", errFrame, maxRows)
	}
	return nil
}

// commit takes a commit by the rules, and answers when it is durable.
func (f *following) commit(c commitEnd) error {
	defer f.batch.Reset()
	if f.state.Seeding || f.seed != nil || f.db == nil {
		return fmt.Errorf("%w: a commit amid a seed", errFrame)
	}
	switch v := f.copy().Take(f.epoch, c.Before, c.Commit); v {
	case mirror.Again:
		// What came with it is known; files may have changed behind it.
	case mirror.Add:
		next := f.log.Append(c.Commit.Epoch)
		if next.End() != c.Commit || f.batch.Len() == 0 {
			return fmt.Errorf("%w: commit %v behind %v", errFrame, c.Commit, f.log.End())
		}
		f.batch.Set(positionKey, encodeLog(next)) // the writer's row says the same
		if err := f.syncFiles(); err != nil {
			return err
		}
		// The rows of one commit are one write of the log: all of them or none.
		if err := f.db.Write(&f.batch); err != nil {
			// The database would have them in the next commit, too, which may be another writer's.
			_ = f.db.Close()
			f.db = nil
			return err
		}
		f.batch = db.Batch{} // the database has its slices
		f.log = next
	default:
		return fmt.Errorf("commit %v does not follow %v of epoch %d", c.Commit, f.log.End(), f.state.Promised)
	}
	f.vow = f.vow.Renewed(f.opt.Clock())
	return f.s.sendJSON(kindAnswer, answer{c.Commit})
}

// beginSeed gives up what the copy has: the writer seeds none that counts.
func (f *following) beginSeed(m seedMark) error {
	if v := f.copy().TakeSeed(f.epoch, m.Log); v == mirror.Refuse {
		return fmt.Errorf("epoch %d has begun", f.state.Promised)
	}
	next := f.state
	next.Seeding = true
	if err := f.keep(next); err != nil {
		return err
	}
	f.log, f.batch = mirror.Log{}, db.Batch{}
	if f.db != nil {
		err := f.db.Close()
		f.db = nil
		if err != nil {
			f.opt.Log.Warn("rows of a copy that is made anew", "err", err)
		}
	}
	if f.seed != nil {
		_ = f.seed.Close()
		f.seed = nil
	}
	fresh := filepath.Join(f.dir, freshName)
	if err := os.RemoveAll(fresh); err != nil {
		return err
	}
	seed, err := db.Open(f.dbOptions(freshName))
	f.seed = seed
	return err
}

func (f *following) flushSeed() error {
	defer func() { f.batch = db.Batch{} }()
	return f.seed.Write(&f.batch)
}

// endSeed makes what was seeded the copy.
func (f *following) endSeed(m seedMark) error {
	if f.seed == nil {
		return fmt.Errorf("%w: a seed's end without a seed", errFrame)
	}
	f.batch.Set(positionKey, encodeLog(m.Log))
	err := errors.Join(f.syncFiles(), f.flushSeed(), f.seed.Close())
	f.seed = nil
	if err != nil {
		return err
	}
	old, fresh := filepath.Join(f.dir, dbName), filepath.Join(f.dir, freshName)
	// Broken off between these, it is no copy yet: the state says so.
	err = errors.Join(os.RemoveAll(old), os.Remove(filepath.Join(f.dir, "commits")))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Rename(fresh, old); err != nil {
		return err
	}
	if err := disk.OS().SyncDir(f.dir); err != nil {
		return err
	}
	next := f.state
	next.Seeding = false
	if err := f.keep(next); err != nil {
		return err
	}
	if err := f.openRows(); err != nil {
		return err
	}
	if f.log.End() != m.Log.End() {
		return fmt.Errorf("%w: a seed up to %v says %v", errFrame, m.Log.End(), f.log.End())
	}
	f.vow = f.vow.Renewed(f.opt.Clock())
	return f.s.sendJSON(kindAnswer, answer{m.Log.End()})
}

// sendNames sends what files the copy has, by which the writer tells those that differ.
func (f *following) sendNames() error {
	for _, dir := range segmentDirs {
		infos, err := f.opt.Disk.List(filepath.Join(f.dir, dir))
		if err != nil {
			return err
		}
		for _, i := range infos {
			p := dir + "/" + i.Name
			path, err := f.file(p)
			if err != nil {
				return err
			}
			tail, err := tailOf(f.opt.Disk, path, i.Size)
			if err != nil {
				return err
			}
			if err := f.s.send(kindListed, encodeListed(p, i.Size, tail)); err != nil {
				return err
			}
		}
	}
	return errors.Join(f.s.send(kindListed), f.s.flush())
}

// tailSize is what is compared of a file: a sealed segment has checksums of all records in its end.
const tailSize = 4096

func tailOf(on disk.FS, path string, size int64) ([]byte, error) {
	d, err := on.Open(path)
	if err != nil {
		return nil, err
	}
	b := make([]byte, min(size, tailSize))
	n, err := d.ReadAt(b, size-int64(len(b)))
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return b[:n], errors.Join(err, d.Close())
}

func encodeListed(p string, size int64, tail []byte) []byte {
	return append(binary.AppendUvarint(appendText(nil, p), uint64(size)), tail...)
}

func decodeListed(b []byte) (p string, size int64, tail []byte, err error) {
	if p, b, err = cutPath(b); err != nil {
		return "", 0, nil, err
	}
	n, b, err := cutNumber(b)
	return p, int64(n), b, err
}
