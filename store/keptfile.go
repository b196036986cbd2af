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

// restoreFromOld has a rebuild use what the database that it replaces can still say: without the
// list of tiers, what is in the cold one would be lost.
func (s *Store) restoreFromOld() error {
	found, err := db.Inspect(s.dir.Join(dbDir), !s.conf.Compressed)
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
