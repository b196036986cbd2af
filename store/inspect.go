package store

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/quarxtor/quarxfs/store/db"
	"github.com/quarxtor/quarxfs/store/errs"
	"github.com/quarxtor/quarxfs/store/handle"
	"github.com/quarxtor/quarxfs/tiering"
	"github.com/quarxtor/quarxfs/tiering/disk"
)

// What to do about a file that is not what it must be.
const (
	nextOlder = "put the newer one back, or have quarxfs fsck --repair go on with this one" +
		" (newer snapshots and named objects come back from the segments, the live tree is as it was then)"
	nextSegment = "put it back from a copy of the store, or have quarxfs fsck --repair keep all that the others have"
	nextForeign = "move it away, and put the store's own there from a copy"
)

// regularFiles reports what is not the kind of file in a store's directory that it must be. Links
// are not followed: they would have the store read and write elsewhere.
func regularFiles(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		switch {
		// Of others nothing is opened, so that it does not matter what they are.
		case slices.Contains([]string{dbDir, hotDir, spoolDir, rebuildDir}, e.Name()):
			if !e.IsDir() {
				return errs.Damaged(name, "put the directory itself there", "is no directory")
			}
		case e.Name() == lockName || e.Name() == heatFile || slices.Contains(jsonFiles(), strings.TrimSuffix(e.Name(), ".tmp")):
			if !e.Type().IsRegular() {
				return errs.Irregular(name, e.Type())
			}
		}
	}
	for _, sub := range []string{hotDir, spoolDir} {
		if err := regularSegments(filepath.Join(dir, sub)); err != nil {
			return err
		}
	}
	return nil
}

// regularSegments does so for a directory of segments.
func regularSegments(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if !e.Type().IsRegular() && tiering.IsSegment(e.Name()) {
			return errs.Irregular(filepath.Join(dir, e.Name()), e.Type())
		}
	}
	return err
}

// A Damage is all that an inspection found to be wrong with a store's files, at least one thing.
// It is ErrDamaged.
type Damage struct {
	Files []*db.FileError
}

// Error names the first file. Who wants all of them asks for Files.
func (d *Damage) Error() string {
	text := fmt.Sprintf("%v: %v", ErrDamaged, d.Files[0])
	if more := len(d.Files) - 1; more > 0 {
		text += fmt.Sprintf(" (and %d more files: see quarxfs fsck)", more)
	}
	return text
}

// Unwrap gives ErrDamaged and the files.
func (d *Damage) Unwrap() []error {
	errs := []error{ErrDamaged}
	for _, f := range d.Files {
		errs = append(errs, f)
	}
	return errs
}

// DamagedFiles are the files that an error of Open is about; none, when it is another error.
func DamagedFiles(err error) []*db.FileError {
	var d Damage
	_ = d.add(err) // it is not about files
	return d.Files
}

// add notes what err says of a file, and returns an error that is about no file.
func (d *Damage) add(err error) error {
	if list, ok := errors.AsType[*Damage](err); ok {
		d.Files = append(d.Files, list.Files...)
		return nil
	}
	if f, ok := errors.AsType[*db.FileError](err); ok && errors.Is(err, ErrDamaged) {
		d.Files = append(d.Files, f)
		return nil
	}
	return err
}

// err is nil when nothing was found.
func (d *Damage) err() error {
	if len(d.Files) == 0 {
		return nil
	}
	return d
}

// An inspected is what a store's files are found to be.
type inspected struct {
	claims  tierClaims
	cold    *ColdTier       // nil: there is none
	news    []tiering.Claim // what is new about segments
	commits uint64          // that the database knows of
	newest  uint64          // commits that there were, as what is beside the database says
	proof   string          // the file that says so
}

// proves notes how many commits there were, as a file says.
func (in *inspected) proves(file string, commits uint64) {
	if commits > in.newest {
		in.newest, in.proof = commits, file
	}
}

// behind is how many commits the database lacks.
func (in *inspected) behind() uint64 { return max(in.newest, in.commits) - in.commits }

// tier notes what was found in a directory of segments.
func (in *inspected) tier(dir string, found *tiering.Inspection) {
	in.news = append(in.news, found.News...)
	in.proves(filepath.Join(dir, found.Newest), found.Commits)
}

// inspect looks at all that the store is made of, before anything of it is changed. A *Damage says
// what is missing, cut, an older copy, or another store's. It is the same each time, until that is
// mended.
func (s *Store) inspect() (*inspected, error) {
	in, err := s.inspectDatabase()
	if err != nil {
		return nil, err // without rows nothing is known of segments
	}
	var d Damage
	if len(in.claims[tiering.Cold]) > 0 && in.cold == nil {
		err = d.add(errs.Damaged(s.dir.Join(tiersKind.Name), errs.NextRestore, "names no cold tier, and there are blocks in one"))
	}
	hot, herr := s.inspectTier(s.hotFS(), s.segments(hotDir), in.claims[tiering.Hot])
	in.tier(s.segments(hotDir), hot)
	if hot.Foreign != "" { // though the database knows it by its salt
		err = errors.Join(err, d.add(errs.Damaged(s.dir.Join(superblockFile.Name), errs.NextRestore, "is of another store, as %s says", filepath.Join(hotDir, hot.Foreign))))
	}
	// Looked at although the hot tier has faults: one message names all that is wrong.
	cold, cerr := s.inspectCold(in.cold, in.claims[tiering.Cold])
	if in.cold != nil {
		in.tier(in.cold.Dir, cold)
	}
	// Before what is lost: a newer database may not miss it.
	if lacks := in.behind(); lacks > 0 && !s.opts.Salvage {
		err = errors.Join(err, d.add(errs.Damaged(s.dir.Join(dbDir), nextOlder, "is an older copy, or has a log that is: it knows of %d commits, and there were %d, as %s says",
			in.commits, in.newest, handle.Shown(in.proof))))
	}
	if err = errors.Join(err, d.add(herr), d.add(cerr)); err == nil {
		err = d.err()
	}
	return in, err
}

// reinspect looks at the files again that have a path, when the store is shut or at a standstill:
// what was done to them beneath it would else be told by the next opening only.
func (s *Store) reinspect() error {
	conf, err := readConfig(s.dir)
	if err == nil && conf.VolumeID != s.conf.VolumeID {
		err = errs.Damaged(s.dir.Join(superblockFile.Name), errs.NextRestore, "is of another store")
	}
	if err == nil {
		err = regularFiles(s.dir.Join())
	}
	if err == nil {
		_, err = s.inspect()
	}
	return handle.ShownError(err)
}

// tierClaims are what must be there of each tier's segments.
type tierClaims [2][]tiering.Claim

// inspectDatabase looks at the database, and at what it says of segments and of the cold tier.
func (s *Store) inspectDatabase() (*inspected, error) {
	lost, err := needsRebuild(s.dir.Join())
	if lost {
		err = errs.Damaged(s.dir.Join(dbDir), errs.NextDatabase, "has no database")
	}
	if err != nil {
		return nil, err
	}
	found, err := db.Inspect(s.dir.Join(dbDir), !s.conf.Compressed)
	if err != nil {
		return nil, errs.Explain(err)
	}
	if found.Unmade() {
		// An empty database is right for a new store and a loss for one with blocks.
		used, err := hasRecords(s.dir.Join())
		if used {
			err = errs.Damaged(s.dir.Join(dbDir), errs.NextDatabase, "lacks a part of its log, and blocks were stored")
		}
		if err != nil {
			return nil, err
		}
	}
	in := &inspected{}
	noted, err := s.lastCommit.compare(s.dir.Join(), s.conf.VolumeID, found)
	if err != nil {
		return nil, err
	}
	in.proves(s.dir.Join(lastCommitName), noted)
	// All that is needed in one pass, as each opens every table.
	rows, err := found.Rows([]byte{keyFile}, []byte{keyEarlier}, []byte{keySegment})
	if err != nil {
		return nil, errs.Explain(err)
	}
	tiers, err := tiersOf(s.dir.Join(), rows)
	if err != nil {
		return nil, err
	}
	in.cold = tiers.Cold
	in.commits = commitsOf(found, rows)
	for key, value := range rows {
		if key[0] == keySegment {
			in.claims.add([]byte(key), value)
		}
	}
	return in, nil
}

// commitsOf is how many commits a database knows of, those before it among them, as its rows say.
func commitsOf(found *db.Inspection, rows map[string][]byte) uint64 {
	earlier, _ := decodeEarlier(rows[string(keyEarlier)]) // 0 without a row
	return earlier + found.Commits()
}

// add notes what a row says of a segment. A row that does not read is the check's to report.
func (c *tierClaims) add(key, value []byte) {
	n, row, err := decodeSegmentKeyRow(key, value)
	if t := tiering.TierOf(n); err == nil && row.Live > 0 && int(t) < len(c) {
		c[t] = append(c[t], row.claim(n))
	}
}

// inspectCold looks at a cold tier in a directory. One that does not answer is out of reach, which
// is no damage; and so is a bucket, of which inspectBucket tells.
func (s *Store) inspectCold(cold *ColdTier, claims []tiering.Claim) (*tiering.Inspection, error) {
	nothing := new(tiering.Inspection)
	if cold == nil || cold.S3 != nil {
		return nothing, nil
	}
	type found struct {
		*tiering.Inspection
		err error
	}
	done := make(chan found, 1) // has room: nobody may be there any more
	go func() {
		in, err := s.inspectColdDir(cold, claims)
		done <- found{in, err}
	}()
	late := time.NewTimer(cmp.Or(s.opts.ColdTimeout, inspectTimeout))
	defer late.Stop()
	select {
	case f := <-done:
		return f.Inspection, f.err
	case <-late.C:
		s.log.Warn("the cold tier does not answer", "dir", cold.Dir)
		return nothing, nil
	}
}

// inspectTimeout is how long a cold tier may take to be looked at.
const inspectTimeout = 20 * time.Second

func (s *Store) inspectColdDir(cold *ColdTier, claims []tiering.Claim) (*tiering.Inspection, error) {
	if marker := tiering.CheckCold(s.coldFS(), cold.Dir, cold.ID); marker != nil {
		return new(tiering.Inspection), s.inspectMarker(cold, claims, marker)
	}
	if s.opts.Disk == nil && s.opts.ColdDisk == nil {
		if err := regularSegments(cold.Dir); err != nil {
			return new(tiering.Inspection), err
		}
	}
	found, err := s.inspectTier(s.coldFS(), cold.Dir, claims)
	if o, oerr := tiering.OwnerOf(s.coldFS(), cold.Dir); oerr == nil && o.IsOther(s.owner()) {
		found.Commits, found.Newest = 0, "" // another one's, which went on with it
	}
	return found, err
}

// inspectMarker tells a cold tier whose marker alone is not right from one that is not there, and
// may come: then its segments are not there either.
func (s *Store) inspectMarker(cold *ColdTier, claims []tiering.Claim, why error) error {
	if db.Refused(why) {
		return nil // its disk fails: it is out of reach
	}
	in, err := tiering.Inspect(s.coldFS(), cold.Dir, s.conf.volume(), claims)
	if len(claims) == 0 || err != nil || len(in.Faults) > 0 {
		return nil
	}
	// As one types it in a shell: a message is one line.
	path := filepath.Join(cold.Dir, tiering.MarkerName)
	next := fmt.Sprintf(`put it back from a copy, or write it anew: printf 'quarxfs cold tier, version 1\n%s\n' > %q`, cold.ID, path)
	return errs.Damaged(path, next, "is not the tier's marker, though its segments are there (%v)", why)
}

func (s *Store) inspectTier(d disk.FS, dir string, claims []tiering.Claim) (*tiering.Inspection, error) {
	in, err := tiering.Inspect(d, dir, s.conf.volume(), claims)
	if err != nil {
		return new(tiering.Inspection), fmt.Errorf("look at %s: %w", dir, errs.Explain(db.Unreadable(dir, err)))
	}
	return in, segmentDamage(dir, in.Faults, s.opts.Salvage)
}

// segmentDamage is the error for segments that are not what they must be. To salvage a store, those
// that are lost are left to the repair, but not those that somebody has to move out of the way.
func segmentDamage(dir string, faults []tiering.Fault, salvage bool) error {
	var d Damage
	for _, f := range faults {
		switch {
		case !f.Lost:
			d.Files = append(d.Files, &db.FileError{File: handle.Shown(filepath.Join(dir, f.File)), What: f.What, Next: nextForeign})
		case !salvage:
			d.Files = append(d.Files, &db.FileError{File: handle.Shown(filepath.Join(dir, f.File)), What: f.What, Next: nextSegment})
		}
	}
	return d.err()
}

// inspectBucket looks at a cold tier in a bucket, through the connection that is there. One that is
// out of reach has no faults.
func (s *Store) inspectBucket() ([]tiering.Fault, error) {
	if c, ok := s.Cold(); !ok || c.S3 == nil {
		return nil, nil
	}
	claims, err := s.claims()
	if err != nil {
		return nil, err
	}
	faults, err := s.tiers.Inspect(tiering.Cold, claims[tiering.Cold])
	if errors.Is(err, ErrUnavailable) {
		err = nil
	}
	return faults, err
}

// claims are what must be there of each tier's segments, as of the last commit.
func (ix *index) claims() (claims tierClaims, err error) {
	err = ix.db.ScanPrefix([]byte{keySegment}, func(key, value []byte) error {
		claims.add(key, value)
		return nil
	})
	return claims, err
}

// noteSegments keeps what the inspection found out about segments.
func (s *Store) noteSegments(news []tiering.Claim) error {
	for _, c := range news {
		b, err := s.db.Get(segmentKey(c.Number))
		if errors.Is(err, db.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		if row, err := decodeSegmentRow(b); err == nil {
			row.End, row.Salt, row.Seen = max(row.End, c.End), c.Salt, c.Seen.UnixNano()
			if c.Seen.IsZero() {
				row.Seen = 0
			}
			s.db.Set(segmentKey(c.Number), row.encode())
		}
	}
	return s.noteCuts()
}

// noteCuts lowers the ends of segments that recovering has cut: a record that has rotted at the end
// of an open segment passes for one that a crash tore. Its block is bad, and the store shall open
// all the same.
func (s *Store) noteCuts() error {
	sizes := s.segmentSizes()
	cuts := make(map[uint64]segmentRow)
	err := s.db.ScanPrefix([]byte{keySegment}, func(key, value []byte) error {
		n, row, err := decodeSegmentKeyRow(key, value)
		if size, ok := sizes[n]; ok && err == nil && row.claim(n).End > size {
			row.End = size
			cuts[n] = row
		}
		return nil
	})
	for n, row := range cuts {
		s.log.Warn("the end of a segment was cut off", "segment", segmentName(n), "bytes", row.End)
		s.db.Set(segmentKey(n), row.encode())
	}
	return err
}
