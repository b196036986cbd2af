package store

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"

	"github.com/quarxtor/quarxfs/store/db"
	"github.com/quarxtor/quarxfs/store/durable"
)

// The settings, the tokens and the list of tiers are files, for rebuilds and for people, and rows
// as well: a file that was lost would else be taken for settings that nobody made. The row counts.
// It is durable before the file is written, so that after a crash between the two the file follows.

// jsonFiles are the names of all small files of a store's directory.
func jsonFiles() []string {
	return []string{superblockFile.name, settingsKind.name, tokensKind.name, tiersKind.name, lastCommitName}
}

func keptFiles() map[string]checkedFile {
	return map[string]checkedFile{settingsKind.name: new(settingsFile), tokensKind.name: new(tokensFile), tiersKind.name: new(tiersFile)}
}

func fileKey(name string) []byte { return append([]byte{keyFile}, name...) }

// keepFile makes new contents of a file durable, in its row and then in itself. The caller
// holds the file's lock.
func (s *Store) keepFile(k fileKind, f checkedFile) error {
	b, err := k.bytes(f)
	if err != nil {
		return err
	}
	old, err := s.db.Get(fileKey(k.name))
	if err != nil && !errors.Is(err, db.ErrNotFound) {
		return err
	}
	set := func(b []byte) error {
		return s.Update(func() error {
			if b == nil {
				s.db.Delete(fileKey(k.name))
			} else {
				s.db.Set(fileKey(k.name), b)
			}
			return nil
		})
	}
	if err := errors.Join(set(b), s.Commit()); err != nil {
		return errors.Join(err, set(old)) // the next commit shall not make it so after all
	}
	return durable.Write(s.dir.Join(k.name), b)
}

// restoreFiles makes files as their rows say, and rows of the files of a store of before. What a
// newer program wrote is left to it.
func (s *Store) restoreFiles() error {
	if s.opts.ReadOnly {
		return nil
	}
	for name, f := range keptFiles() {
		k := kindOf(name)
		row, err := s.db.Get(fileKey(name))
		if err != nil && !errors.Is(err, db.ErrNotFound) {
			return err
		}
		raw, ferr := k.raw(s.dir.Join())
		if ferr == nil {
			ferr = k.decode(raw, f)
		}
		switch {
		case errors.Is(ferr, ErrNewer), row == nil && ferr != nil, ferr == nil && bytes.Equal(raw, row):
		case row == nil:
			s.db.Set(fileKey(name), raw)
		default:
			s.log.Warn("a file of the store was lost or changed, and is written anew", "file", name, "err", ferr)
			if err := durable.Write(s.dir.Join(name), row); err != nil {
				return fmt.Errorf("restore %s: %w", name, err)
			}
		}
	}
	return nil
}

// readKept reads a file as restoreFiles left it, or would: a store that is open for reading only
// has the row count without a change to the file. Errors: as fileKind.read.
func (s *Store) readKept(k fileKind, f checkedFile) error {
	if s.opts.ReadOnly && !errors.Is(k.read(s.dir.Join(), keptFiles()[k.name]), ErrNewer) {
		row, err := s.db.Get(fileKey(k.name))
		if err == nil {
			return k.decode(row, f)
		}
		if !errors.Is(err, db.ErrNotFound) {
			return err
		}
	}
	return k.read(s.dir.Join(), f)
}

func kindOf(name string) fileKind {
	for _, k := range []fileKind{settingsKind, tokensKind, tiersKind} {
		if k.name == name {
			return k
		}
	}
	panic("no such file: " + name)
}

// tiersOf returns the list of tiers as it will be when the store is open: that of the row if there
// is one, else the file's.
func tiersOf(dir string, kept map[string][]byte) (tiersFile, error) {
	row, ok := kept[string(fileKey(tiersKind.name))]
	f, err := readTiers(dir)
	if !ok || errors.Is(err, ErrNewer) {
		return f, err
	}
	var was tiersFile
	if err := tiersKind.decode(row, &was); err != nil {
		return f, err
	}
	return was, was.check()
}

// restoreFromOld has a rebuild use what the database that it replaces can still say: without the
// list of tiers, what is in the cold one would be lost.
func (s *Store) restoreFromOld() error {
	found, err := db.Inspect(s.dir.Join(dbDir))
	if err != nil {
		return nil // it says nothing
	}
	kept, err := found.Rows([]byte{keyFile})
	if err != nil {
		return nil
	}
	for name, f := range keptFiles() {
		row, ok := kept[string(fileKey(name))]
		err := kindOf(name).read(s.dir.Join(), f)
		if ok && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrDamaged)) {
			if err := durable.Write(s.dir.Join(name), row); err != nil {
				return err
			}
		}
	}
	return nil
}
