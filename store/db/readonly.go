package db

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/pb"
	"github.com/dgraph-io/badger/v4/table"
)

// ErrReadOnly says that a database which is open for reading only would have to be written to.
var ErrReadOnly = errors.New("the store is mounted read-only")

// openReadOnly opens the instance in use without a change to any file. What a crash left in the
// memtables' logs and in the commit log is kept in memory, as an overlay of the tables.
func (d *DB) openReadOnly() error {
	in, err := d.opt.inspect()
	if err == nil {
		err = in.verify()
	}
	if err != nil {
		return err
	}
	if in.list == nil && len(in.tables)+len(in.mems) == 0 {
		return fmt.Errorf("%w, and was not begun yet: it must be opened for writing once", ErrReadOnly)
	}
	kv, err := in.openTables(d.opt)
	if err != nil {
		return err
	}
	b := &instance{dir: in.dir, kv: kv, idle: make(chan struct{})}
	// No writer and no log of Badger's: a version is all that is needed of them.
	b.refs.Store(1)
	b.writer.ts = kv.MaxVersion()
	d.mu.instance, d.mu.ts = b, b.writer.ts
	d.clog = &commitLog{id: in.log, seq: in.next}
	d.commits.Store(in.Commits())
	d.maxRows, d.maxBytes = int(kv.MaxBatchCount()), kv.MaxBatchSize()
	rows, err := in.unsettled(b)
	if err == nil {
		d.mu.logged = []*overlay{rows}
	}
	if err != nil {
		_ = kv.Close() // nothing was written
	}
	return err
}

// openTables has Badger read the tables. It opens all files of a directory, and wants those that
// are not whole repaired; so it gets a directory of its own, which has links to the tables and a
// list of them, and can go once they are open.
func (in *Inspection) openTables(o Options) (_ *badger.DB, err error) {
	dir, err := os.MkdirTemp("", "quarxfs-tables-")
	if err != nil {
		return nil, fmt.Errorf("a directory for links to the tables: %w", err)
	}
	// Once Badger has mapped the tables it needs no names.
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	// Links are read from their own directory.
	from, err := filepath.Abs(in.dir)
	if err != nil {
		return nil, err
	}
	for _, id := range in.tables {
		if err := os.Symlink(table.NewFilename(id, from), table.NewFilename(id, dir)); err != nil {
			return nil, err
		}
	}
	// A list of our own: the store's may name what a crash kept from being made.
	list, err := in.manifest()
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, badger.ManifestFilename), list, 0o600)
	}
	if err != nil {
		return nil, err
	}
	if err := o.limits(in.dir); err != nil {
		return nil, err
	}
	if names, size := tables(in.dir); size > o.readAround {
		warmTables(names)
	}
	return o.openBadger(in.dir, o.badger(dir).WithReadOnly(true))
}

// manifest is Badger's list of the tables that are read, each as the instance's list has it.
func (in *Inspection) manifest() ([]byte, error) {
	list, err := readRegular(filepath.Join(in.dir, badger.ManifestFilename), math.MaxInt32)
	if err != nil {
		return nil, err
	}
	sets, _ := readSets(list)
	live := liveTables(sets)
	added := new(pb.ManifestChangeSet)
	for _, id := range in.tables {
		for _, c := range sets[live[id]].changes {
			if c.Id == id && c.Op == pb.ManifestChange_CREATE {
				added.Changes = append(added.Changes, c)
			}
		}
	}
	set, err := encodeSet(added)
	return append(list[:manifestHeader:manifestHeader], set...), err
}

// unsettled returns the rows that the tables lack.
func (in *Inspection) unsettled(b *instance) (*overlay, error) {
	rows, versions := new(overlay), make(map[string]uint64)
	for _, name := range in.mems {
		err := readMem(name, func(r versionedRow) {
			if key := asString(r.key); r.version >= versions[key] {
				rows.set(key, r.value)
				versions[key] = r.version
			}
		})
		if err != nil {
			return nil, err
		}
	}
	for key, version := range versions {
		if version > b.writer.ts {
			continue
		}
		// The log of a memtable outlives its table for a moment, or where it could not be removed.
		newer, err := b.isNewer(asBytes(key), version)
		if err != nil {
			return nil, err
		}
		if newer {
			rows.rows.Delete(key)
		}
	}
	for _, r := range in.tail {
		rows.set(asString(r.key), r.value)
	}
	return rows, nil
}

// isNewer tells whether a row of the instance, or its deletion, is of a later version than this.
func (b *instance) isNewer(key []byte, version uint64) (newer bool, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer catchFault(&err)
	txn := b.kv.NewTransactionAt(latest, false)
	defer txn.Discard()
	it := txn.NewKeyIterator(key, badger.IteratorOptions{AllVersions: true, SinceTs: version})
	defer it.Close()
	it.Rewind()
	return it.Valid(), nil
}

// closeReadOnly lets go of the tables. The caller has closed d to others.
func (d *DB) closeReadOnly(b *instance) error {
	b.leave()
	<-b.idle
	_ = b.kv.Close() // it misses its directory; nothing was written
	return d.lock.Close()
}
