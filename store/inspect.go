package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/quarxtor/quarxfs/store/db"
	"github.com/quarxtor/quarxfs/tiering"
	"github.com/quarxtor/quarxfs/tiering/disk"
)

// What to do about a file that is not what it must be.
const (
	nextRestore  = "put it back from a copy of the store"
	nextDatabase = "put it back from a copy of the store, or make the database anew with quarxfs rebuild"
	nextSegment  = "put it back from a copy of the store, or have quarxfs rebuild save what is left"
	nextLink     = "put the file itself there"
)

// damagedFile is the error for a file of the store.
func damagedFile(file, next, format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrDamaged, &db.FileError{File: file, What: fmt.Sprintf(format, args...), Next: next})
}

// explain makes what the database says of its files the store's error.
func explain(err error) error {
	f, ok := errors.AsType[*db.FileError](err)
	if !ok {
		if errors.Is(err, db.ErrCorrupt) {
			err = fmt.Errorf("%w: %s", err, "make the database anew with quarxfs rebuild")
		}
		return err
	}
	if f.Next == "" {
		f = &db.FileError{File: f.File, What: f.What, Next: nextDatabase}
	}
	return fmt.Errorf("%w: %w", ErrDamaged, f)
}

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
		case slices.Contains([]string{dbDir, hotDir, spoolDir, rebuildDir}, e.Name()):
			if !e.IsDir() {
				return damagedFile(name, "put the directory itself there", "is no directory")
			}
		case e.Name() == lockName || e.Name() == heatFile || slices.Contains(jsonFiles(), strings.TrimSuffix(e.Name(), ".tmp")):
			if !e.Type().IsRegular() {
				return irregular(name, e.Type())
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
			return irregular(filepath.Join(dir, e.Name()), e.Type())
		}
	}
	return err
}

func irregular(name string, mode fs.FileMode) error {
	f, _ := errors.AsType[*db.FileError](db.Irregular(name, mode))
	return damagedFile(f.File, nextLink, "%s", f.What)
}

// inspect looks at all that the store is made of, before anything of it is changed, and returns
// what is new about segments. ErrDamaged, with the file as a *db.FileError: something is missing,
// cut, an older copy, or another store's. It is the same each time, until that is mended.
func (s *Store) inspect() ([]tiering.Claim, error) {
	lost, err := needsRebuild(s.dir.Join())
	if lost {
		err = damagedFile(s.dir.Join(dbDir), nextDatabase, "has no database")
	}
	if err != nil {
		return nil, err
	}
	found, err := db.Inspect(s.dir.Join(dbDir))
	if err != nil {
		return nil, explain(err)
	}
	if err := s.lastCommit.compare(s.dir.Join(), s.conf.VolumeID, found); err != nil {
		return nil, err
	}
	kept, err := found.Rows([]byte{keyFile})
	if err != nil {
		return nil, explain(err)
	}
	tiers, err := tiersOf(s.dir.Join(), kept)
	if err != nil {
		return nil, err
	}
	rows, err := found.Rows([]byte{keySegment})
	if err != nil {
		return nil, explain(err)
	}
	return s.inspectSegments(rows, tiers.Cold)
}

// inspectSegments compares the segments with the rows that say what is in them.
func (s *Store) inspectSegments(rows map[string][]byte, cold *ColdTier) ([]tiering.Claim, error) {
	var claims [2][]tiering.Claim
	for key, value := range rows {
		n, row, err := decodeSegmentKeyRow([]byte(key), value)
		if t := tiering.TierOf(n); err == nil && row.Live > 0 && int(t) < len(claims) { // else the check's to report
			claims[t] = append(claims[t], row.claim(n))
		}
	}
	if len(claims[tiering.Cold]) > 0 && cold == nil {
		return nil, damagedFile(s.dir.Join(tiersKind.name), nextRestore, "names no cold tier, and there are blocks in one")
	}
	news, err := s.inspectTier(s.hotFS(), s.segments(hotDir), claims[tiering.Hot])
	if err != nil || cold == nil || cold.S3 != nil {
		return news, err // what a bucket has is found when it is reached
	}
	if marker := tiering.CheckCold(s.coldFS(), cold.Dir, cold.ID); marker != nil {
		return news, s.inspectMarker(cold, claims[tiering.Cold], marker)
	}
	if s.opts.Disk == nil && s.opts.ColdDisk == nil {
		if err := regularSegments(cold.Dir); err != nil {
			return nil, err
		}
	}
	more, err := s.inspectTier(s.coldFS(), cold.Dir, claims[tiering.Cold])
	return append(news, more...), err
}

// inspectMarker tells a cold tier whose marker alone is not right from one that is not there, and
// may come: then its segments are not there either.
func (s *Store) inspectMarker(cold *ColdTier, claims []tiering.Claim, why error) error {
	_, fault, err := tiering.Inspect(s.coldFS(), cold.Dir, claims)
	if len(claims) == 0 || fault != nil || err != nil {
		return nil
	}
	next := fmt.Sprintf("put it back from a copy, or write it anew with printf 'quarxfs cold tier, version 1\n%s\n'", cold.ID)
	return damagedFile(filepath.Join(cold.Dir, tiering.MarkerName), next, "is not the tier's marker, though its segments are there (%v)", why)
}

func (s *Store) inspectTier(d disk.FS, dir string, claims []tiering.Claim) ([]tiering.Claim, error) {
	news, fault, err := tiering.Inspect(d, dir, claims)
	if err != nil {
		return nil, fmt.Errorf("look at %s: %w", dir, explain(db.Unreadable(dir, err)))
	}
	if fault != nil {
		return nil, damagedFile(filepath.Join(dir, fault.File), nextSegment, "%s", fault.What)
	}
	return news, nil
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
	sizes := make(map[uint64]int64)
	for _, seg := range s.tiers.Segments() {
		sizes[seg.Number] = seg.Bytes
	}
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
