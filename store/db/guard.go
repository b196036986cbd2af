package db

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// A guard makes a compaction of Badger, which can lose rows when the disk fails
// (ADR 4), a step that is taken as a whole or not at all. The directory keep,
// below the database's, has a link to every table and memtable log, and a copy
// of the list of tables:
//
//	absent -> keep.tmp -> keep [begin] -> Badger compacts -> compared -> absent [release]
//
// As long as keep has its list of tables, Open goes back to it [restore]. No
// commit is made meanwhile, so nothing acknowledged is given up by that.
//
// Badger truncates the files that it removes, and the links with them. An
// iterator that is open since before keeps it from removing any, and shows the
// rows as they were.
type guard struct {
	d   *DB
	txn *badger.Txn
	old *badger.Iterator
}

const (
	keepName = "keep"
	sstExt   = ".sst"
)

// begin must be called with writing held and the log drained, and so must
// release. After an error nothing is guarded.
func (d *DB) begin() (*guard, error) {
	if err := d.settled(); err != nil {
		return nil, err
	}
	g := &guard{d: d, txn: d.kv.NewTransactionAt(latest, false)}
	g.old = g.txn.NewIterator(badger.IteratorOptions{})
	if err := keepFiles(d.opt.Dir); err != nil {
		g.close()
		return nil, errors.Join(err, dropKeep(d.opt.Dir))
	}
	return g, nil
}

func (g *guard) close() {
	g.old.Close()
	g.txn.Discard()
}

// release compares what Badger has now with what it had, and ends the guard.
// After an error the database takes no more commits; opening it again goes
// back. The iterator then stays open, so that the files do.
func (g *guard) release() error {
	err := g.compare()
	if err == nil {
		err = g.d.settled()
	}
	if err == nil {
		err = dropKeep(g.d.opt.Dir)
	}
	if err != nil {
		return err
	}
	g.close()
	return nil
}

// settled tells whether the list of tables is what Badger works with. A table
// that is just being added makes a difference for a moment.
func (d *DB) settled() (err error) {
	for range 200 {
		if err = listsTables(d.opt.Dir, d.kv.Tables(), d.opt.badger()); err == nil {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return err
}

// compare tells whether all rows are there in the versions that they had.
func (g *guard) compare() (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer catchFault(&err)
	txn := g.d.kv.NewTransactionAt(latest, false)
	defer txn.Discard()
	now := txn.NewIterator(badger.IteratorOptions{})
	defer now.Close()
	now.Rewind()
	g.old.Rewind()
	for {
		skipFlushKey(now)
		skipFlushKey(g.old)
		switch {
		case !g.old.Valid() && !now.Valid():
			return nil
		case !g.old.Valid():
			return fmt.Errorf("%w: row %x appeared in a compaction", ErrCorrupt, now.Item().Key())
		case !now.Valid() || !bytes.Equal(g.old.Item().Key(), now.Item().Key()) || g.old.Item().Version() != now.Item().Version():
			return fmt.Errorf("%w: row %x was lost in a compaction", ErrCorrupt, g.old.Item().Key())
		}
		now.Next()
		g.old.Next()
	}
}

func skipFlushKey(it *badger.Iterator) {
	for it.Valid() && bytes.Equal(it.Item().Key(), flushKey) {
		it.Next()
	}
}

// keepFiles makes keep durable. The memtable logs come first: a table made of
// one meanwhile is then there twice, rather than not at all.
func keepFiles(dir string) error {
	keep, tmp := filepath.Join(dir, keepName), filepath.Join(dir, keepName+".tmp")
	if err := errors.Join(os.RemoveAll(tmp), os.Mkdir(tmp, 0o700)); err != nil {
		return err
	}
	logs, err := filepath.Glob(filepath.Join(dir, "*"+memExt))
	if err != nil {
		return err
	}
	if err := linkAll(logs, tmp); err != nil {
		return err
	}
	if err := copyManifest(dir, tmp); err != nil {
		return err
	}
	names, _ := tables(dir)
	if err := linkAll(names, tmp); err != nil {
		return err
	}
	if err := syncDir(tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, keep); err != nil {
		return err
	}
	return syncDir(dir)
}

// copyManifest takes the list of tables from one directory to another, and makes all
// names in that durable.
func copyManifest(from, to string) error {
	list, err := os.ReadFile(filepath.Join(from, badger.ManifestFilename))
	if err != nil {
		return err
	}
	return replaceFile(filepath.Join(to, badger.ManifestFilename), list)
}

func linkAll(names []string, dir string) error {
	for _, name := range names {
		if err := os.Link(name, filepath.Join(dir, filepath.Base(name))); err != nil {
			return err
		}
	}
	return nil
}

// dropKeep ends what keep stands for, durably, and removes it. That the links
// are gone matters to nobody but the disk's free space.
func dropKeep(dir string) error {
	keep := filepath.Join(dir, keepName)
	err := os.Remove(filepath.Join(keep, badger.ManifestFilename))
	if err == nil {
		err = syncDir(keep)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	_ = os.RemoveAll(keep)
	_ = os.RemoveAll(keep + ".tmp")
	return nil
}

// restore goes back to keep, if a compaction was not ended. It may be repeated
// when it was interrupted itself.
func (d *DB) restore() error {
	dir, keep := d.opt.Dir, filepath.Join(d.opt.Dir, keepName)
	_, err := os.Stat(filepath.Join(keep, badger.ManifestFilename))
	if errors.Is(err, fs.ErrNotExist) {
		return dropKeep(dir)
	}
	if err != nil {
		return err
	}
	d.log.Warn("going back to before an unfinished compaction of the database", "dir", dir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if isTableOrLog(e.Name()) {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	kept, err := filepath.Glob(filepath.Join(keep, "*"))
	if err != nil {
		return err
	}
	for _, name := range kept {
		if isTableOrLog(name) {
			if err := os.Link(name, filepath.Join(dir, filepath.Base(name))); err != nil {
				return err
			}
		}
	}
	if err := copyManifest(keep, dir); err != nil {
		return err
	}
	return dropKeep(dir)
}

func isTableOrLog(name string) bool {
	return strings.HasSuffix(name, sstExt) || strings.HasSuffix(name, memExt)
}
