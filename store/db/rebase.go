package db

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/pb"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/badger/v4/y"
)

// A rebase is a compaction: it copies the base in use as it was at a version into
// a new one, compares the two, copies what has come meanwhile, in rounds, and lets the applier
// do the last of them and change over. Until then the new base means nothing,
// and whatever fails, it is removed.
//
// The tables are not made by Badger, which writes them through mappings and
// panics when it cannot (StreamWriter), but with its table.Builder.
type rebase struct {
	d        *DB
	from, to *base
	// at is the version of from up to which to has all.
	at uint64
	// unsure says that either base may be found in use by the next opening.
	unsure bool
	letGo  time.Time // when what was read of the tables was last let go
}

const (
	// lastRows is what is left for the applier to copy, about.
	lastRows = 4096
	// maxRounds bounds how often that is tried to reach.
	maxRounds = 20
	// checkRows is how often a compaction looks whether to go on.
	checkRows = 4096
	// letGoEvery is how long what is read of tables may stay mapped.
	letGoEvery = 100 * time.Millisecond
)

// replaceBase makes a copy of the base in use take its place, and returns by how many bytes
// it is smaller. The caller uses from.
func (d *DB) replaceBase(from *base) (int64, error) {
	// Damage would pass for the end of a table.
	if err := from.verify(); err != nil {
		return 0, err
	}
	before, err := from.size()
	if err != nil {
		return 0, err
	}
	if err := fits(before+2*d.opt.MemTable, d.gate.refresh()); err != nil {
		return 0, err
	}
	r := &rebase{d: d, from: from, at: d.version()}
	dir := otherBase(from.dir)
	if err := r.build(dir); err != nil {
		d.removeAll(dir)
		return 0, err
	}
	after, err := r.to.size()
	if err == nil {
		err = r.follow()
	}
	switch {
	case r.unsure:
		err = errors.Join(err, r.to.close())
	case err != nil:
		d.discard(r.to)
	}
	return before - after, err
}

// build makes the new base and opens it.
func (r *rebase) build(dir string) error {
	disk := r.d.opt.disk
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	ids, err := r.copyTables(dir)
	if err != nil {
		return err
	}
	list, err := os.ReadFile(filepath.Join(r.from.dir, badger.ManifestFilename))
	if err != nil {
		return err
	}
	set, err := encodeSet(newTables(ids, r.d.opt.badger(dir)))
	if err != nil {
		return err
	}
	if err := disk.replace(filepath.Join(dir, badger.ManifestFilename), append(list[:manifestHeader:manifestHeader], set...)); err != nil {
		return err
	}
	if err := disk.syncDir(filepath.Dir(dir)); err != nil {
		return err
	}
	if err := r.goOn(); err != nil {
		return err
	}
	r.to, err = r.d.openBase(dir)
	return err
}

// goOn tells whether there is a reason not to.
func (r *rebase) goOn() error {
	r.letGoOfTables()
	if r.d.compactor.stopped() {
		return ErrClosed
	}
	if err := r.d.applier.failure(); err != nil {
		return err
	}
	return fits(2*r.d.opt.MemTable, r.d.gate.refresh())
}

// letGoOfTables keeps the tables that are read from front to back from filling the process's
// memory.
func (r *rebase) letGoOfTables() {
	if time.Since(r.letGo) < letGoEvery {
		return
	}
	r.letGo = time.Now()
	r.from.letGo()
	if r.to != nil {
		r.to.letGo()
	}
}

// eachRow calls fn with each row of b at a version, until it returns an error.
func (b *base) eachRow(version uint64, opt badger.IteratorOptions, fn func(item *badger.Item) error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer catchFault(&err)
	txn := b.kv.NewTransactionAt(version, false)
	defer txn.Discard()
	it := txn.NewIterator(opt)
	defer it.Close()
	for it.Rewind(); it.Valid(); it.Next() {
		if err := fn(it.Item()); err != nil {
			return err
		}
	}
	return nil
}

// copyTables writes all rows into tables of dir, and returns their numbers.
func (r *rebase) copyTables(dir string) (ids []uint64, err error) {
	o := r.d.opt.badger(dir)
	opt := table.Options{
		TableSize: uint64(o.BaseTableSize), BlockSize: o.BlockSize, BloomFalsePositive: o.BloomFalsePositive,
		ChkMode: o.ChecksumVerificationMode, Compression: o.Compression,
	}
	b := table.NewTableBuilder(opt)
	defer func() { b.Close() }()
	end := func() error {
		ids = append(ids, uint64(len(ids)+1))
		if err := r.goOn(); err != nil {
			return err
		}
		return r.d.opt.disk.write(table.NewFilename(ids[len(ids)-1], dir), b.Finish())
	}
	err = r.from.eachRow(r.at, badger.IteratorOptions{}, func(item *badger.Item) error {
		if b.ReachedCapacity() {
			if err := end(); err != nil {
				return err
			}
			b.Close()
			b = table.NewTableBuilder(opt)
		}
		return item.Value(func(value []byte) error {
			b.Add(y.KeyWithTs(item.Key(), item.Version()), y.ValueStruct{Value: value}, 0)
			return nil
		})
	})
	if err == nil && !b.Empty() {
		err = end()
	}
	return ids, err
}

// newTables is the change of a list of tables by which these are all there, in
// the last level.
func newTables(ids []uint64, opt badger.Options) *pb.ManifestChangeSet {
	set := new(pb.ManifestChangeSet)
	for _, id := range ids {
		set.Changes = append(set.Changes, &pb.ManifestChange{
			Id: id, Op: pb.ManifestChange_CREATE, Level: uint32(opt.MaxLevels - 1), Compression: uint32(opt.Compression),
		})
	}
	return set
}

// follow brings the new base up to date and into use.
func (r *rebase) follow() error {
	if err := r.compare(); err != nil {
		return err
	}
	for range maxRounds {
		rows, err := r.copySince(r.d.version())
		if err != nil {
			return err
		}
		if rows <= lastRows {
			break
		}
	}
	return r.d.applier.do(r.changeOver)
}

// compare tells whether the new base has the rows of the other, in the versions that they had.
func (r *rebase) compare() (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer catchFault(&err)
	txn := r.to.kv.NewTransactionAt(latest, false)
	defer txn.Discard()
	to := txn.NewIterator(badger.IteratorOptions{})
	defer to.Close()
	to.Rewind()
	n := 0
	err = r.from.eachRow(r.at, badger.IteratorOptions{}, func(item *badger.Item) error {
		if n++; n%checkRows == 0 {
			if err := r.goOn(); err != nil {
				return err
			}
		}
		if !to.Valid() {
			return fmt.Errorf("%w: row %x was lost in a compaction", ErrCorrupt, item.Key())
		}
		same, err := sameRow(item, to.Item())
		if err == nil && !same {
			err = fmt.Errorf("%w: row %x became %x in a compaction", ErrCorrupt, item.Key(), to.Item().Key())
		}
		to.Next()
		return err
	})
	if err == nil && to.Valid() {
		err = fmt.Errorf("%w: row %x appeared in a compaction", ErrCorrupt, to.Item().Key())
	}
	return err
}

func sameRow(a, b *badger.Item) (same bool, err error) {
	if !bytes.Equal(a.Key(), b.Key()) || a.Version() != b.Version() {
		return false, nil
	}
	err = a.Value(func(x []byte) error {
		return b.Value(func(y []byte) error {
			same = bytes.Equal(x, y)
			return nil
		})
	})
	return same, err
}

// copySince copies what has come after r.at up to a version, deletions too, and
// makes it durable. It is all of that version then. It returns the number of rows.
func (r *rebase) copySince(version uint64) (rows int, err error) {
	if version == r.at {
		return 0, nil
	}
	w := &r.to.writer
	defer w.discard()
	w.ts, w.still = version, true
	defer func() { w.still = false }()
	var last []byte
	opt := badger.IteratorOptions{AllVersions: true, SinceTs: r.at}
	err = r.from.eachRow(version, opt, func(item *badger.Item) error {
		if rows > 0 && bytes.Equal(item.Key(), last) {
			return nil // an older version
		}
		if rows%checkRows == 0 {
			if err := r.goOn(); err != nil {
				return err
			}
		}
		rows++
		last = item.KeyCopy(nil)
		var value []byte
		if !item.IsDeletedOrExpired() {
			value = []byte{}
			if err := item.Value(func(v []byte) error {
				value = append(value, v...)
				return nil
			}); err != nil {
				return err
			}
		}
		return w.put(last, value)
	})
	if err == nil {
		err = w.settle()
	}
	if err == nil {
		r.at = version
	}
	return rows, err
}

// changeOver puts the new base into use. Only the applier may, between two layers.
func (r *rebase) changeOver() error {
	d := r.d
	if err := d.applier.failure(); err != nil {
		return err
	}
	if _, err := r.copySince(d.version()); err != nil {
		return err
	}
	if err := r.point(); err != nil {
		return err
	}
	r.to.writer.ts = r.from.writer.ts
	d.mu.Lock()
	d.mu.base = r.to
	d.mu.Unlock()
	r.from.leave()
	d.adviseTables()
	d.step(stepChangedOver)
	return nil
}

// point makes the new base the one of the next opening. When that cannot be told for certain,
// the other is made it again. When that cannot either, no log file may be
// released any more: both bases have all that were.
func (r *rebase) point() error {
	err := r.d.point(filepath.Base(r.to.dir))
	if err == nil {
		return nil
	}
	if back := r.d.point(filepath.Base(r.from.dir)); back != nil {
		r.unsure = true
		return r.d.applier.fail(fmt.Errorf("%w; going back: %w", err, back))
	}
	return err
}
