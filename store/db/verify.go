package db

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/dgraph-io/badger/v4"
)

// Verify reads every stored row's block and checks its sum; damage gives
// ErrCorrupt. It reads the whole database.
//
// It matters because Badger takes a damaged block for the end of its table: the
// rows in it are not found, without an error.
func (d *DB) Verify() (err error) {
	d.mu.RLock()
	closed := d.mu.closed
	d.mu.RUnlock()
	if closed {
		return ErrClosed
	}
	// Badger 4.9.6 dereferences nil as it makes the error for a bad block.
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: a table does not match its checksums", ErrCorrupt)
		}
	}()
	if err := d.kv.VerifyChecksum(); err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return nil
}

// manifest returns the numbers of the tables that Badger should have.
func manifest(opt badger.Options) (map[uint64]badger.TableManifest, error) {
	f, err := os.Open(filepath.Join(opt.Dir, badger.ManifestFilename))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	m, _, err := badger.ReplayManifestFile(f, opt.ExternalMagicVersion, opt)
	return m.Tables, err
}

// checkTables fails if Badger left out a table when it opened, which it does
// for one whose index is damaged, with no more than a line in its log. before
// is the manifest as it was; compaction may be changing it by now, and takes a
// table from the manifest before it takes it from the list.
func (d *DB) checkTables(before map[uint64]badger.TableManifest) error {
	var open []uint64
	for _, t := range d.kv.Tables() {
		open = append(open, t.ID)
	}
	slices.Sort(open)
	now, err := manifest(d.kv.Opts())
	if err != nil {
		return err
	}
	for id := range before {
		if _, still := now[id]; !still {
			continue
		}
		if _, ok := slices.BinarySearch(open, id); !ok {
			return fmt.Errorf("%w: table %06d.sst is damaged", ErrCorrupt, id)
		}
	}
	return nil
}
