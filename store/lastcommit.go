package store

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/store/config"
	"github.com/quarxtor/quarxfs/store/db"
	"github.com/quarxtor/quarxfs/store/durable"
	"github.com/quarxtor/quarxfs/store/errs"
	"github.com/quarxtor/quarxfs/tiering"
)

// lastCommit is a file, commits, beside the database that says how many commits the store has had.
// It is how an older copy of the database, or of its log, is told from one after a crash; the
// stamps of segments tell it, too, where this file is an older copy as well. It is written after
// each commit and not synced, so it may say less than is true, never more. Of two slots, the one
// that is whole and says more counts:
//
//	+-----------------+--------------+----------------+--------------+-------------+
//	| "QXCOMMIT" (8B) | volume (16B) | database (16B) | commits (8B) | CRC32C (4B) |
//	+-----------------+--------------+----------------+--------------+-------------+
//
// Without the file, or with one that does not read, nothing is known. Its name comes before the
// database's, so that who copies a store that is in use, in order, copies what was true before.
type lastCommit struct {
	mu   sync.Mutex // held over the writing
	file *os.File   // nil: it cannot be written
	mark commitMark
	slot int64
}

type commitMark struct {
	volume, database string // hex
	commits          uint64
	slot             int64 // that it was read from
}

const (
	lastCommitName  = "commits"
	lastCommitMagic = "QXCOMMIT"
	lastCommitSize  = 52
	lastCommitStep  = 4096
)

func (m commitMark) encode() []byte {
	b := []byte(lastCommitMagic)
	for _, id := range []string{m.volume, m.database} {
		// An ID that is no hex becomes zeroes, and so matches no store.
		raw, _ := hex.DecodeString(id)
		b = append(b, append(raw, make([]byte, 16)...)[:16]...)
	}
	b = binary.BigEndian.AppendUint64(b, m.commits)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

func decodeCommitMark(b []byte) (m commitMark, ok bool) {
	if len(b) < lastCommitSize || string(b[:8]) != lastCommitMagic {
		return m, false
	}
	m = commitMark{volume: hex.EncodeToString(b[8:24]), database: hex.EncodeToString(b[24:40]), commits: binary.BigEndian.Uint64(b[40:])}
	return m, string(m.encode()) == string(b[:lastCommitSize])
}

// readLastCommit returns what the file says; ok is false when that is nothing.
func readLastCommit(dir string) (m commitMark, ok bool, err error) {
	b, err := config.File{Name: lastCommitName}.Raw(dir)
	if errors.Is(err, os.ErrNotExist) {
		return m, false, nil
	}
	if err != nil {
		return m, false, err
	}
	for at := range int64(2) {
		// A crash tears one slot at most; the other has the commit before.
		if now, whole := decodeCommitMark(b[min(int64(len(b)), at*lastCommitStep):]); whole && (!ok || now.commits > m.commits) {
			now.slot = at
			m, ok = now, true
		}
	}
	return m, ok, nil
}

// compare tells whether the database is the one that the store had last, and returns how many
// commits there were; 0: that is not known.
func (l *lastCommit) compare(dir, volume string, found *db.Inspection) (commits uint64, err error) {
	m, ok, err := readLastCommit(dir)
	if err != nil || !ok {
		return 0, err
	}
	switch {
	case m.database != found.ID() && m.volume != volume: // another store's: it says nothing
	case m.volume != volume:
		return 0, errs.Damaged(filepath.Join(dir, superblockFile.Name), errs.NextRestore, "is of another store")
	case m.database != found.ID():
		return 0, errs.Damaged(filepath.Join(dir, dbDir), errs.NextDatabase, "is not the database that the store had last")
	default:
		return m.commits, nil
	}
	return 0, nil
}

// open begins to write the file. A store works without it.
func (l *lastCommit) open(dir, volume, database string) error {
	name := filepath.Join(dir, lastCommitName)
	old, ok, err := readLastCommit(dir)
	if err != nil || !ok || old.volume != volume || old.database != database {
		old = commitMark{volume: volume, database: database}
		// Made whole and renamed: with a short file the second slot could not be read.
		if err := durable.Write(name, make([]byte, lastCommitStep+lastCommitSize)); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(name, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	// The slot that counts is not the next to be written: of a repair that is broken off, the file
	// shall say what it said before.
	l.file, l.mark, l.slot = f, old, old.slot
	return nil
}

// note says that there have been so many commits.
func (l *lastCommit) note(commits uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil || commits <= l.mark.commits {
		return nil
	}
	// The other slot: what is torn by a crash must not be the newest that is whole.
	l.mark.commits, l.slot = commits, 1-l.slot
	_, err := l.file.WriteAt(l.mark.encode(), l.slot*lastCommitStep)
	return err
}

// close makes durable what the file says.
func (l *lastCommit) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	err := errors.Join(l.file.Sync(), l.file.Close())
	l.file = nil
	return err
}

// commitsEver is how many commits the store has had: those of its database, and those of databases
// before that.
func (hi *history) commitsEver() uint64 { return hi.earlier.Load() + hi.db.Commits() }

// stamp is what segments are stamped with.
func (hi *history) stamp() tiering.Stamp {
	return tiering.Stamp{Volume: hi.volume, Commits: hi.commitsEver()}
}

// loadEarlier reads how many commits were made before the database counted.
func (hi *history) loadEarlier() error {
	b, err := hi.db.Get([]byte{keyEarlier})
	if errors.Is(err, db.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	n, err := decodeEarlier(b)
	if err != nil {
		hi.log.Error("a row is damaged; see fsck", "err", err)
	}
	hi.earlier.Store(n)
	return nil
}

func decodeEarlier(b []byte) (uint64, error) {
	n, size := binary.Uvarint(b)
	if size <= 0 || size != len(b) {
		return 0, fmt.Errorf("row of the commits before: %w", ErrCorrupt)
	}
	return n, nil
}

// CommitsRow is the row by which a copy of the database counts on from here, in place of the one
// that this database has: segments are stamped with that number, and would show the copy to be
// older.
func (hi *history) CommitsRow() (key, value []byte) {
	return []byte{keyEarlier}, binary.AppendUvarint(nil, hi.commitsEver())
}

// setEarlier has the store count as many commits as there were, by what commits it.
func (hi *history) setEarlier(n uint64) {
	hi.db.Set([]byte{keyEarlier}, binary.AppendUvarint(nil, n))
}

// openLastCommit begins to write the file and the stamps. A store works without them.
func (s *Store) openLastCommit() {
	if err := s.lastCommit.open(s.dir.Join(), s.conf.VolumeID, s.db.ID()); err != nil {
		s.log.Warn("what the last commit was is not kept beside the database", "err", err)
	}
	s.noteCommit()
}

// noteCommit says, beside the database, that a commit was made.
func (cm *committer) noteCommit() {
	if err := errors.Join(cm.lastCommit.note(cm.history.commitsEver()), cm.tiers.Stamp()); err != nil {
		cm.log.Warn("what the last commit was is not kept beside the database", "err", err)
	}
}
