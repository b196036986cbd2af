package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/store/db"
	"github.com/quarxtor/quarxfs/store/durable"
	"github.com/quarxtor/quarxfs/store/handle"
	"github.com/quarxtor/quarxfs/store/vertex"
	"github.com/quarxtor/quarxfs/tiering"
)

// RebuildOptions say how a database is made anew.
type RebuildOptions struct {
	// DropLoose leaves blocks that belong to no named object to the sweep. By
	// default each gets a name, its ID: what was the live filesystem's can still
	// be looked at.
	DropLoose bool
	Logger    *slog.Logger
	Progress  func(Rebuilt) // if set, called now and then
}

// A Rebuilt says what a rebuild found.
type Rebuilt struct {
	Segments  int    `json:"segments"`
	Records   int64  `json:"records"`
	Bytes     int64  `json:"bytes"`       // of records, read so far
	Total     int64  `json:"total_bytes"` // of segments
	Blocks    int64  `json:"blocks"`      // distinct sound ones
	Bad       int64  `json:"bad_records"`
	Objects   int64  `json:"objects"` // with the names that they had
	Snapshots int64  `json:"snapshots"`
	Held      int64  `json:"held_snapshots"` // of them, made by a schedule, and held now
	Loose     int64  `json:"loose"`          // blocks that belong to no named object
	Missing   int64  `json:"missing"`        // blocks that vertices link to, and that no segment has
	Old       string `json:"old_database,omitempty"`
	Damage    string `json:"damage,omitempty"` // what of the segments cannot be read
	Unclaimed int64  `json:"unclaimed"`        // tree and snapshot vertices that nothing refers to
}

const rebuildDir = "db.rebuild"

// Rebuild makes a store's database from its segments alone (I9): the index, the
// reference counts, and the objects with their names. The store must not be
// open. The old database is kept beside the new one under the name in Old, and
// takes its place until the new one is whole and durable. A name that was taken over
// or removed, and whose record is still there, may come back; of several
// objects with a name the latest has it. Errors: those of Open, and of the disk.
func Rebuild(ctx context.Context, dir string, o RebuildOptions) (done Rebuilt, err error) {
	s, err := hold(dir, Options{Logger: o.Logger, Ballast: -1})
	if err != nil {
		return done, err
	}
	// Beside the old one, which stays in use by its name until the end.
	s.dbDir = rebuildDir
	fresh := s.dir.Join(rebuildDir)
	err = regularFiles(s.dir.Join())
	if err == nil {
		err = os.RemoveAll(fresh)
	}
	if err == nil {
		err = s.restoreFromOld()
	}
	if err == nil {
		err = s.countCommits()
	}
	if err != nil {
		return done, errors.Join(handle.ShownError(err), s.unlock(), s.dir.Close())
	}
	b := rebuilder{repairer: repairer{s: s, rows: make(map[ID]Entry), counts: make(map[ID]uint64), names: make(map[string]ObjectInfo), snaps: make(map[string]SnapshotRef)}, o: o}
	if err = s.open(); err == nil {
		err = b.run(ctx)
	}
	if err == nil {
		b.holdScheduled()
	}
	// The lock stays until the new database is in its place.
	if err = errors.Join(err, s.shut()); err == nil {
		b.found.Old, err = s.exchange(fresh)
	}
	if err = errors.Join(err, s.unlock()); err != nil {
		err = handle.ShownError(fmt.Errorf("rebuild %s: %w", dir, err))
	}
	b.found.Old, b.found.Damage = handle.Shown(b.found.Old), handle.Shown(b.found.Damage)
	return b.found, errors.Join(err, s.dir.Close())
}

// holdScheduled keeps the snapshots that a schedule made. It would go on at the next mount, with
// the empty tree, and remove the good ones before anybody has gone back to one.
func (b *rebuilder) holdScheduled() {
	for name, r := range b.snaps {
		if !r.Scheduled || r.Held {
			continue
		}
		if err := b.s.HoldSnapshot(name, true); err != nil {
			b.s.log.Error("a snapshot is not held, and the schedule may remove it", "snapshot", name, "err", err)
			continue
		}
		b.found.Held++
	}
}

// countCommits finds out how many commits there were: the new database's come on top, or segments
// would say that it is an older one.
func (s *Store) countCommits() error {
	in := &inspected{}
	if m, ok, err := readLastCommit(s.dir.Join()); err == nil && ok {
		in.proves(lastCommitName, m.commits)
	}
	// What says nothing, because it is lost or damaged, is why there is a rebuild.
	if old, err := db.Inspect(s.dir.Join(dbDir), !s.conf.Compressed); err == nil {
		if rows, err := old.Rows([]byte{keyEarlier}); err == nil {
			in.proves(dbDir, commitsOf(old, rows))
		}
	}
	hot, err := s.inspectTier(s.hotFS(), s.segments(hotDir), nil)
	if err != nil {
		return err
	}
	in.tier(hotDir, hot)
	tiers, err := readTiers(s.dir.Join())
	if err != nil {
		return err
	}
	if cold, err := s.inspectCold(tiers.Cold, nil); err == nil {
		in.tier("", cold)
	}
	s.earlier.Store(in.newest)
	return nil
}

type rebuilder struct {
	repairer
	o     RebuildOptions
	found Rebuilt
	links map[ID][]ID
	shown time.Time
}

func (b *rebuilder) run(ctx context.Context) error {
	b.links = make(map[ID][]ID)
	for _, seg := range b.s.tiers.Segments() {
		b.found.Segments++
		b.found.Total += seg.Bytes
	}
	if err := b.records(ctx); err != nil {
		return err
	}
	b.found.Blocks = int64(len(b.rows))
	b.found.Objects = int64(len(b.names))
	b.found.Snapshots = int64(len(b.snaps))
	// All records are known only now: a link may lead to a later segment.
	for _, links := range b.links {
		for _, child := range links {
			b.counts[child]++
		}
	}
	for _, o := range b.names {
		b.counts[o.vertexID()]++
	}
	for _, n := range b.snaps {
		b.counts[n.vertexID()]++
	}
	if err := b.loose(); err != nil {
		return err
	}
	before := len(b.rows)
	if err := b.addPlaceholders(ctx); err != nil {
		return err
	}
	b.found.Missing = int64(len(b.rows) - before)
	for id, n := range b.counts {
		e := b.rows[id]
		e.Refs = n
		b.rows[id] = e
	}
	for _, step := range []func(context.Context) error{b.fixRows, b.fixZeroRows, b.fixNames, b.fixSnapshots, b.fixSums} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	// Records first, as rows must never refer to what a power cut can take. (I1)
	if err := b.s.syncAll(); err != nil {
		return err
	}
	b.s.setEarlier(b.s.earlier.Load())
	b.s.db.Freeze()
	var batch db.Batch
	b.s.bad.rows(&batch)
	return b.s.db.Write(&batch)
}

// records makes a row for the first sound record of every block.
func (b *rebuilder) records(ctx context.Context) error {
	hidden, err := b.s.tiers.Scan(func(loc tiering.Location, h tiering.Header) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		b.found.Records++
		b.found.Bytes += int64(loc.Length)
		b.show()
		if _, ok := b.rows[h.ID]; ok {
			return nil
		}
		// The first record counts: copies that a compaction or a crash left have the same bytes.
		return b.record(loc)
	})
	if hidden != nil {
		return fmt.Errorf("what is in the cold tier would be lost: %w", hidden)
	}
	if errors.Is(err, tiering.ErrCorrupt) {
		b.found.Damage = err.Error()
		err = nil
	}
	return err
}

func (b *rebuilder) record(loc tiering.Location) error {
	h, plain, err := b.s.tiers.Read(loc)
	if errors.Is(err, tiering.ErrCorrupt) {
		b.found.Bad++
		b.s.log.Warn("a record is left out", "segment", segmentName(loc.Segment), "offset", loc.Offset, "err", err)
		return nil
	}
	if err != nil {
		return err
	}
	id := ID(h.ID)
	if h.Kind != tiering.Data {
		// Kept apart, since all records have to be known before links are counted.
		links, err := vertex.Links(plain)
		if err != nil {
			b.found.Bad++
			return nil
		}
		b.links[id] = links
	}
	b.rows[id] = rowOf(loc, h, plain)
	if h.Kind == tiering.Named {
		b.named(plain)
	}
	return nil
}

// loose names the blocks that nothing refers to. Kinds that come with a
// namespace of their own need a holder here before their names can come back.
func (b *rebuilder) loose() error {
	var loose []ID
	for id, e := range b.rows {
		if b.counts[id] > 0 {
			continue
		}
		switch e.Kind {
		case tiering.Data, tiering.File:
			loose = append(loose, id)
		case tiering.Named: // one that was taken over
		default:
			b.found.Unclaimed++
		}
	}
	b.found.Loose = int64(len(loose))
	if b.o.DropLoose {
		return nil
	}
	for _, id := range loose {
		if err := b.name(id.String(), id); err != nil {
			return err
		}
	}
	return nil
}

func (b *rebuilder) show() {
	if b.o.Progress == nil || time.Since(b.shown) < 200*time.Millisecond {
		return
	}
	b.shown = time.Now()
	b.o.Progress(b.found)
}

// exchange puts the new database in the place of the old one at one instant, and
// keeps the old one.
func (s *Store) exchange(fresh string) (old string, err error) {
	// It says what the old one had.
	if err := os.Remove(s.dir.Join(lastCommitName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	// Durable before the new database appears: with it the old count would seem one of another
	// database.
	if err := durable.SyncDir(s.dir.Join()); err != nil {
		return "", err
	}
	place := s.dir.Join(dbDir)
	if _, err := os.Stat(place); errors.Is(err, os.ErrNotExist) {
		if err := os.Rename(fresh, place); err != nil {
			return "", err
		}
		return "", durable.SyncDir(s.dir.Join())
	}
	kept, err := s.freeName(dbDir + ".old-" + s.now().UTC().Format("20060102-150405"))
	if err != nil {
		return "", err
	}
	// At one instant, so that a crash leaves the old database or the new one in place, never none.
	if err := unix.Renameat2(unix.AT_FDCWD, fresh, unix.AT_FDCWD, place, unix.RENAME_EXCHANGE); err != nil {
		return "", fmt.Errorf("exchange %s and %s: %w", fresh, place, err)
	}
	if err := durable.SyncDir(s.dir.Join()); err != nil {
		return "", err
	}
	if err := os.Rename(fresh, kept); err != nil {
		return fresh, err
	}
	return kept, durable.SyncDir(s.dir.Join())
}

// freeName returns the path of name in the store's directory, or of one like it that nothing has:
// there may be two rebuilds in a second.
func (s *Store) freeName(name string) (string, error) {
	path := s.dir.Join(name)
	for n := 2; ; n++ {
		_, err := os.Lstat(path)
		if errors.Is(err, os.ErrNotExist) {
			return path, nil
		}
		if err != nil {
			return "", err
		}
		path = s.dir.Join(fmt.Sprintf("%s-%d", name, n))
	}
}

// needsRebuild reports whether a store has segments and no database: a new one
// would take all its blocks for garbage.
func needsRebuild(dir string) (bool, error) {
	if _, err := os.Stat(filepath.Join(dir, dbDir, "MANIFEST")); !errors.Is(err, os.ErrNotExist) {
		return false, err
	}
	return hasRecords(dir)
}

// hasRecords reports whether there is a segment with something in it: the database was opened
// before that was stored.
func hasRecords(dir string) (bool, error) {
	sealed, err := filepath.Glob(filepath.Join(dir, hotDir, "*.seg"))
	if err != nil || len(sealed) > 0 {
		return len(sealed) > 0, err
	}
	open, err := filepath.Glob(filepath.Join(dir, hotDir, "*.open"))
	for _, name := range open {
		if fi, serr := os.Stat(name); serr == nil && fi.Size() > tiering.EmptySize {
			return true, nil
		}
	}
	return false, err
}
