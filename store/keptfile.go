package store

import (
	"errors"
	"io/fs"

	"github.com/quarxtor/quarxfs/store/config"
	"github.com/quarxtor/quarxfs/store/db"
	"github.com/quarxtor/quarxfs/store/durable"
)

// keptFiles are the files that are rows, too.
func keptFiles() []config.Kept {
	return []config.Kept{config.KeptSettings(), config.KeptTokens(), keptTiers()}
}

// jsonFiles are the names of all small files of a store's directory.
func jsonFiles() []string {
	names := []string{superblockFile.Name, lastCommitName}
	for _, k := range keptFiles() {
		names = append(names, k.Name)
	}
	return names
}

// tiersOf returns the list of tiers as it will be when the store is open: that of the row if there
// is one, else the file's.
func tiersOf(dir string, kept map[string][]byte) (tiersFile, error) {
	row, ok := kept[string(config.Key(tiersKind.Name))]
	f, err := readTiers(dir)
	if !ok || errors.Is(err, ErrNewer) {
		return f, err
	}
	var was tiersFile
	if err := tiersKind.Decode(row, &was); err != nil {
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
	kept, err := found.Rows([]byte{config.RowPrefix})
	if err != nil {
		return nil
	}
	for _, k := range keptFiles() {
		row, ok := kept[string(config.Key(k.Name))]
		err := k.Read(s.dir.Join(), k.New())
		if ok && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrDamaged)) {
			if err := durable.Write(s.dir.Join(k.Name), row); err != nil {
				return err
			}
		}
	}
	return nil
}
