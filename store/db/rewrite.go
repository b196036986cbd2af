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

// A rewrite is a compaction: it copies the instance in use as it was at a version into
// a new one, and compares the two. Then the applier writes to both, while what has come in between
// is copied too. With that the new one has all rows, is made what the next opening finds, and is
// read. Until then it means nothing, and whatever fails, it is removed.
//
// The tables are not made by Badger, which writes them through mappings and
// panics when it cannot (StreamWriter), but with its table.Builder.
type rewrite struct {
	d        *DB
	from, to *instance
	// at is the version of from that the tables of to were made of, joined that since
	// which the applier writes to both.
	at, joined uint64
	upto       uint64 // a version that both have, later than what was copied
	seq        uint64 // commits below are in both
	// unsure says that the new instance may be found in use by the next opening, though it is not
	// in use now.
	unsure  bool
	dropped time.Time // when what was read of the tables was last dropped
}

const (
	// checkRows is how often a compaction looks whether to go on, and how much it gives the
	// applier to write at once.
	checkRows = 4096
	// dropPagesEvery is how long what is read of tables may stay mapped.
	dropPagesEvery = 100 * time.Millisecond
)

// rewriteInstance makes a copy of the instance in use take its place, and returns by how many bytes
// it is smaller. The caller uses from.
func (d *DB) rewriteInstance(from *instance) (int64, error) {
	// Damage would pass for the end of a table.
	if err := from.verify(); err != nil {
		return 0, err
	}
	// Measured before the copy is begun, since commits go on.
	before, err := from.tableBytes()
	if err != nil {
		return 0, err
	}
	if err := d.roomToRewrite(from); err != nil {
		return 0, err
	}
	r := &rewrite{d: d, from: from, at: d.version()}
	dir := otherDir(from.dir)
	if err := r.build(dir); err != nil {
		d.removeAll(dir)
		return 0, err
	}
	after, err := r.to.tableBytes()
	if err == nil {
		err = r.follow()
	}
	switch {
	// Neither may be removed: the next opening finds the one or the other.
	case r.unsure:
		err = errors.Join(err, r.to.close())
	case err != nil:
		d.discard(r.to)
	}
	return before - after, err
}

// roomToRewrite tells whether there is room for a copy of an instance beside it.
func (d *DB) roomToRewrite(from *instance) error {
	size, err := from.size()
	if err != nil {
		return err
	}
	return fits(size+2*d.opt.MemTable, d.space.refresh())
}

// build makes the new instance and opens it.
func (r *rewrite) build(dir string) error {
	disk := r.d.opt.disk
	// What an attempt of before left there means nothing.
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
	// Only for its header, which has Badger's version of the format.
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
	// The directory's own name must be durable before MANIFEST can lead to it.
	if err := disk.syncDir(filepath.Dir(dir)); err != nil {
		return err
	}
	if err := r.goOn(); err != nil {
		return err
	}
	r.to, err = r.d.openInstance(dir)
	return err
}

// goOn tells whether there is a reason not to.
func (r *rewrite) goOn() error {
	r.dropTablePages()
	if r.d.compactor.stopped() {
		return ErrClosed
	}
	if err := r.d.applier.failure(); err != nil {
		return err
	}
	// The reserve, asked for again and again: users fill the disk meanwhile.
	return fits(2*r.d.opt.MemTable, r.d.space.refresh())
}

// dropTablePages keeps the tables that are read from front to back from filling the process's
// memory.
func (r *rewrite) dropTablePages() {
	if time.Since(r.dropped) < dropPagesEvery {
		return
	}
	r.dropped = time.Now()
	r.from.dropPages()
	if r.to != nil {
		r.to.dropPages()
	}
}

// eachRow calls fn with each row of b at a version, until it returns an error.
func (b *instance) eachRow(version uint64, opt badger.IteratorOptions, fn func(item *badger.Item) error) (err error) {
	// A page of a table that cannot be read is a signal; here it becomes an error of the
	// compaction.
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
func (r *rewrite) copyTables(dir string) (ids []uint64, err error) {
	o := r.d.opt.badger(dir)
	opt := table.Options{
		TableSize: uint64(o.BaseTableSize), BlockSize: o.BlockSize, BloomFalsePositive: o.BloomFalsePositive,
		ChkMode: o.ChecksumVerificationMode, Compression: o.Compression,
	}
	b := table.NewTableBuilder(opt)
	finished := false
	defer func() {
		if !finished {
			b.Done() // it ends the goroutines that compress
		}
		b.Close()
	}()
	end := func() error {
		finished = true
		rows := b.Finish()
		// A table at a time is a good moment to give up: nothing refers to what is written yet.
		ids = append(ids, uint64(len(ids)+1))
		if err := r.goOn(); err != nil {
			return err
		}
		return r.d.opt.disk.write(table.NewFilename(ids[len(ids)-1], dir), rows)
	}
	err = r.from.eachRow(r.at, badger.IteratorOptions{}, func(item *badger.Item) error {
		// Before the row is added, so that no table is left empty.
		if b.ReachedCapacity() {
			if err := end(); err != nil {
				return err
			}
			b.Close()
			b, finished = table.NewTableBuilder(opt), false
		}
		return item.Value(func(value []byte) error {
			// With the version that it had, or compare could not tell it from another.
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

// follow brings the new instance up to date and into use.
func (r *rewrite) follow() error {
	if err := r.compare(); err != nil {
		return err
	}
	a := r.d.applier
	if err := a.do(r.join); err != nil {
		return err
	}
	// From here on the applier writes to both, so what catchUp copies ends at joined.
	err := r.catchUp()
	if err == nil {
		err = a.do(r.need)
	}
	// From need on a failure of the new instance counts, and what is applied is synced with both;
	// what came before is synced here.
	if err == nil {
		err = syncLogs(r.to.dir)
	}
	r.d.step(stepFollowed)
	if err == nil {
		err = r.writeList()
	}
	// The list before the name: an instance that may be found in use has to say what it needs.
	if err == nil {
		err = r.point()
	}
	return a.do(func() error { return r.end(err) })
}

// compare tells whether the new instance has the rows of the other, in the versions that they had.
func (r *rewrite) compare() (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer catchFault(&err)
	txn := r.to.kv.NewTransactionAt(latest, false)
	defer txn.Discard()
	// Both in the order of keys, so one pass is enough.
	to := txn.NewIterator(badger.IteratorOptions{})
	defer to.Close()
	to.Rewind()
	n := 0
	err = r.from.eachRow(r.at, badger.IteratorOptions{}, func(item *badger.Item) error {
		// Comparing reads the whole database: Close and a full disk must not wait for its end.
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
		// In step: the first row that differs ends it, so neither side is ever ahead.
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

// join makes the new instance the dual writer. It is the applier's to do, as the next ones are.
func (r *rewrite) join() error {
	if err := r.d.applier.failure(); err != nil {
		return err
	}
	r.joined = r.d.version()
	r.d.applier.dual = &dualWriter{b: r.to}
	return nil
}

// write writes rows to the new instance that it would have got before it was the dual writer. All
// get the last version of then, and the dual writer has later ones.
func (r *rewrite) write(rows []row) error {
	m := r.d.applier.dual
	if m.ended != nil {
		return m.ended
	}
	w := &m.b.writer
	defer w.discard()
	// The applier's next layer goes on at the version that it had.
	defer func(ts uint64) { w.ts, w.still = ts, false }(w.ts)
	w.ts, w.still = r.joined, true
	for _, row := range rows {
		if err := w.put(row.key, row.value); err != nil {
			return err
		}
	}
	return w.commit()
}

// need says that the dual writer is going to be what the next opening finds. A row of no meaning is
// the first that both get then: the rows copied meanwhile have a version that others share, so
// that the next one alone shows that all of them are there.
func (r *rewrite) need() error {
	m := r.d.applier.dual
	m.needed = m.ended == nil
	if m.ended != nil {
		return m.ended
	}
	// It goes through the applier's own way, and so gets a version of its own in both.
	var rows rowMap
	rows.Set(asString(rewrittenKey), []byte{})
	if err := r.d.writeBoth(&rows, rowSize(len(rewrittenKey), 0)); err != nil {
		if !errors.Is(err, ErrFull) {
			return r.d.applier.fail(err)
		}
		return err
	}
	// Views that begin now may read the row's version; it has no meaning to them.
	r.d.mu.Lock()
	r.d.mu.ts = r.from.writer.ts
	r.d.mu.Unlock()
	r.upto = r.from.writer.ts
	if l := r.from.list; l != nil {
		r.seq = l.seq
	}
	return nil
}

// writeList writes the new instance's list, before it may be found in use. Its own tables have what
// from had at at, and the versions from there to joined became one.
func (r *rewrite) writeList() error { return r.to.updateList(r.d, r.seq, r.joined, r.upto, true) }

// end puts the new instance into use, unless there is an error, and ends the dual writer.
func (r *rewrite) end(err error) error {
	d := r.d
	d.applier.dual = nil
	if err != nil {
		return err
	}
	if err := d.applier.failure(); err != nil {
		r.unsure = true
		return err
	}
	// The next layer's version must be later than any that the new one has.
	r.to.writer.ts = r.from.writer.ts
	d.mu.Lock()
	d.mu.instance = r.to
	d.mu.Unlock()
	// Views of before keep it open until they end.
	r.from.leave()
	d.adviseTables()
	d.step(stepChangedOver)
	return nil
}

// catchUp copies what has come between at and joined, deletions too.
func (r *rewrite) catchUp() error {
	if r.joined == r.at {
		return nil
	}
	var b Batch
	give := func() error {
		err := r.goOn()
		if err == nil {
			err = r.d.applier.do(func() error { return r.write(b.rows) })
		}
		b.Reset()
		return err
	}
	var last []byte
	// All versions, since without them a deletion would not be seen.
	opt := badger.IteratorOptions{AllVersions: true, SinceTs: r.at}
	err := r.from.eachRow(r.joined, opt, func(item *badger.Item) error {
		if last != nil && bytes.Equal(item.Key(), last) {
			return nil // an older version
		}
		last = item.KeyCopy(nil)
		var value []byte
		if !item.IsDeletedOrExpired() {
			var err error
			if value, err = item.ValueCopy([]byte{}); err != nil {
				return err
			}
		}
		b.put(last, value)
		if b.Len() >= checkRows || b.Bytes() >= applyBytes {
			return give()
		}
		return nil
	})
	if err == nil {
		err = give()
	}
	return err
}

// point makes the new instance the one of the next opening. When that cannot be told for certain,
// the other is made it again. When that cannot either, no log file may be
// released any more: both instances have all that were.
func (r *rewrite) point() error {
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
