package db

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/badger/v4/y"
	"github.com/dgraph-io/ristretto/v2/z"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// An Inspection is what a database's files are found to be before any of them is changed.
// Badger makes a table that it misses into one that never was, and so a database with a lost file
// into a smaller one; whoever gives it a directory must know first that all is there.
type Inspection struct {
	opt    Options
	dir    string // of the instance; "" before there is one
	log    logID
	next   uint64 // sequence that the next commit gets
	list   *fileList
	tables []uint64       // that are there and that Badger will read
	mems   []string       // memtable logs likewise
	torn   bool           // Badger's list of tables has what is no entry
	unmade bool           // a file of the log is still to be made
	drop   []string       // files that hold nothing, or nothing of this database, and would be in the way
	tail   []versionedRow // changes in the log, which win over all others
}

// Inspect looks at the database in dir, made with Uncompressed or not, and changes nothing. A
// database that lacks what it once made durable, or has files of another one, is ErrCorrupt, with
// the file as a *FileError. A directory without a database gives an Inspection without rows.
func Inspect(dir string, uncompressed bool) (*Inspection, error) {
	return Options{Dir: dir, Uncompressed: uncompressed, ReadOnly: true}.withDefaults().inspect()
}

// ID names the database; it is "" before its first commit.
func (in *Inspection) ID() string { return in.log.name() }

// Commits is how many commits the database knows of.
func (in *Inspection) Commits() uint64 { return in.next - 1 }

// Unmade reports whether nothing was ever committed: the log is not complete, as after a crash in
// the first opening.
func (in *Inspection) Unmade() bool { return in.unmade }

func (id logID) name() string {
	if id == (logID{}) {
		return ""
	}
	return fmt.Sprintf("%x", id[:])
}

func (o Options) inspect() (*Inspection, error) {
	in := &Inspection{opt: o, next: 1}
	// Kinds of files before any is opened: a link or a pipe in the place of one is not followed.
	if err := regularFiles(o.Dir); err != nil {
		return nil, err
	}
	current, err := readCurrent(o.Dir)
	if err != nil {
		return nil, err
	}
	if current == "" {
		return in, nil
	}
	in.dir = filepath.Join(o.Dir, current)
	if in.list, err = readList(in.dir); err != nil {
		return nil, err
	}
	// The log before the files: it says which versions they must have.
	needed, err := in.readLog(o)
	if err != nil {
		return nil, err
	}
	if err := regularFiles(in.dir); err != nil {
		return nil, err
	}
	if err := in.files(needed); err != nil {
		return nil, err
	}
	if err := in.logged(o); err != nil {
		return nil, err
	}
	return in, in.idle()
}

// logged reports a log that is missing although there are rows, whose commits were in it first.
func (in *Inspection) logged(o Options) error {
	if in.log != (logID{}) {
		return nil
	}
	rows, err := in.Rows(nil)
	if err == nil && len(rows) > 0 {
		err = damaged(filepath.Join(o.Dir, logName(0)), "is missing")
	}
	return err
}

// regularFiles reports what is no file of the names that have to be one in dir.
func regularFiles(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		// The two directories are the only ones. What else is there by other names is nobody's.
		if slices.Contains(instanceDirs[:], e.Name()) {
			if !e.IsDir() {
				return damaged(name, "is no directory")
			}
			continue
		}
		if !e.Type().IsRegular() && isOurs(e.Name()) {
			return Irregular(name, e.Type())
		}
	}
	return nil
}

// isOurs tells whether a file of this name is opened, made or removed by this package or Badger.
func isOurs(name string) bool {
	return leftover(name) || strings.HasPrefix(name, logPrefix) || strings.HasPrefix(name, ballastName) ||
		slices.Contains([]string{sstExt, memExt, vlogExt}, filepath.Ext(name)) ||
		slices.Contains([]string{currentName, listName, listName + tmpExt, "KEYREGISTRY", "DISCARD", "LOCK"}, name)
}

// readLog reads the commits that Badger may lack, and returns the version that it must have.
func (in *Inspection) readLog(o Options) (needed uint64, err error) {
	l := &commitLog{dir: o.logs, seq: 1}
	defer func() { err = errors.Join(err, l.close()) }()
	missing, err := l.findFiles()
	if err != nil {
		return 0, err
	}
	in.log = l.id
	// An older copy of a log file has commits that are in the instance long since.
	if in.list != nil {
		l.least = max(l.least, in.list.seq)
		if len(missing) == 0 && in.list.log != l.id {
			return 0, damaged(filepath.Join(in.dir, listName), "is of another database than %s", filepath.Join(o.Dir, logName(0)))
		}
	}
	if len(missing) == 1 {
		if err := l.neverUsed(missing[0]); err != nil {
			return 0, err
		}
	}
	if in.unmade = len(missing) > 0; in.unmade {
		if in.list != nil {
			return 0, damaged(filepath.Join(o.Dir, missing[0].name), "is missing")
		}
		return 0, nil
	}
	// Gaps and damage in the log are found by the same code that repeats it.
	records, err := l.recover()
	if err != nil {
		return 0, err
	}
	in.next = l.seq
	for _, r := range records {
		payload, err := r.payload()
		if err == nil {
			err = eachChange(payload, func(key, value []byte) error {
				in.tail = append(in.tail, versionedRow{key: key, value: value})
				return nil
			})
		}
		if err != nil {
			return 0, err
		}
	}
	return l.version(), nil
}

// files compares the instance's files with the list and with Badger's.
func (in *Inspection) files(needed uint64) error {
	name := filepath.Join(in.dir, badger.ManifestFilename)
	sets, torn, err := readManifest(in.dir)
	if errors.Is(err, fs.ErrNotExist) {
		if in.list == nil && in.log == (logID{}) {
			return nil // Badger was to make it when the first opening was interrupted
		}
		return damaged(name, "is missing")
	}
	if err != nil {
		return err
	}
	if in.list == nil && needed > 0 {
		return damaged(filepath.Join(in.dir, listName), "is missing")
	}
	in.torn = torn
	live := liveTables(sets)
	if in.list != nil {
		needed = max(needed, in.list.needed)
		for _, t := range in.list.tables {
			if _, ok := live[t.id]; !ok {
				return damaged(name, "is an older one, or of another store: it lacks %s", table.IDToFilename(t.id))
			}
			now, err := tableOf(in.dir, t.id)
			if errors.Is(err, fs.ErrNotExist) {
				return damaged(table.NewFilename(t.id, in.dir), "is missing")
			}
			if err != nil {
				return err
			}
			if now != t {
				return damaged(table.NewFilename(t.id, in.dir), "is not the one that was made here")
			}
		}
	}
	return in.rest(sets, live, needed)
}

// rest looks at the tables and memtable logs that no list has: what was made since it was
// written, and all of a database without one. Together they must have all versions that are
// needed.
func (in *Inspection) rest(sets []changeSet, live map[uint64]int, needed uint64) error {
	var lacking error  // the first file that may be why versions are
	var unlogged error // the table of the last flush, if it is not there
	lacks := func(err error) {
		if lacking == nil {
			lacking = err
		}
	}
	var fresh []uint64
	for id, set := range live {
		if in.list != nil {
			if _, ok := in.list.table(id); ok {
				in.tables = append(in.tables, id)
				continue
			}
		}
		_, err := tableOf(in.dir, id)
		switch _, flushed := sets[set].flushed(); {
		case err == nil:
			in.tables = append(in.tables, id)
			fresh = append(fresh, id)
		case !errors.Is(err, fs.ErrNotExist):
			return err
		// A table that a compaction made was durable before its list: it is lost.
		case !flushed:
			return damaged(table.NewFilename(id, in.dir), "is missing")
		default:
			// One that a failing disk had Badger take back, or one that was lost.
			missing := damaged(table.NewFilename(id, in.dir), "is missing")
			if lacks(missing); set == lastFlush(sets) {
				unlogged = missing
			}
		}
	}
	slices.Sort(in.tables)
	if err := in.ownMems(lacks); err != nil {
		return err
	}
	// Badger keeps the log of what it has taken back. Without one, repairManifest leaves the list
	// as it is, and Badger refuses, when it has changed things already.
	if unlogged != nil && len(in.mems) == 0 {
		return unlogged
	}
	settled := uint64(0)
	if in.list != nil {
		settled = in.list.settled
	} else if lacking == nil {
		return in.unlisted(live)
	}
	return in.versions(fresh, settled, needed, lacking)
}

// ownMems finds the memtable logs that are the instance's.
func (in *Inspection) ownMems(lacks func(error)) error {
	mems, err := memLogs(in.dir)
	if err != nil {
		return err
	}
	there := make(map[memLog]bool)
	for _, m := range mems {
		name := memName(in.dir, m.seq)
		there[m] = true
		if in.list != nil && !slices.Contains(in.list.mems, m) {
			// Begun since the list was written: the log has all of it. Or another's.
			lacks(damaged(name, "is not the one that was made here"))
			in.drop = append(in.drop, name)
			continue
		}
		in.mems = append(in.mems, name)
	}
	if in.list == nil {
		return nil
	}
	for _, m := range in.list.mems {
		if !there[m] {
			lacks(damaged(memName(in.dir, m.seq), "is missing, or not the one that was made here"))
		} else {
			lacks(damaged(memName(in.dir, m.seq), "was cut, or is an older one"))
		}
	}
	return nil
}

// unlisted tells, for a base that has no list, whether a table that Badger's list does not name has
// rows that nothing else has: then that list is an older one, or was cut. What a crash leaves
// beside it was made of what it names, or replaced by that, and its newest row is never newer. Only
// a list that is torn was being added to, so what it does not name yet must be elsewhere row by
// row.
func (in *Inspection) unlisted(live map[uint64]int) error {
	there, err := tablesIn(in.dir)
	if err != nil {
		return err
	}
	var others []uint64
	for id := range there {
		if _, named := live[id]; !named {
			others = append(others, id)
		}
	}
	slices.Sort(others)
	if len(others) == 0 {
		return nil
	}
	have, known := make(map[uint64]bool), uint64(0)
	note := func(r versionedRow) { have[r.version], known = true, max(known, r.version) }
	for _, id := range in.tables {
		if err := in.readTable(id, nil, note); err != nil {
			return err
		}
	}
	for _, name := range in.mems {
		if err := readMem(name, note); err != nil {
			return err
		}
	}
	for _, id := range others {
		newest := uint64(0)
		// One that a crash cut while it was made is nobody's.
		_ = in.readTable(id, nil, func(r versionedRow) { newest = max(newest, r.version) })
		if newest > known || in.torn && newest > 0 && !have[newest] {
			return damaged(filepath.Join(in.dir, badger.ManifestFilename), "was cut, or is an older one: it lacks %s", table.IDToFilename(id))
		}
	}
	return nil
}

// versions tells whether the tables and the memtable logs have all versions above settled up to
// needed. Without a list, that is up to the newest there is, from what a compaction made on.
func (in *Inspection) versions(fresh []uint64, settled, needed uint64, lacking error) error {
	if in.list != nil && needed <= settled {
		return nil
	}
	have := make(map[uint64]bool)
	note := func(r versionedRow) {
		have[r.version] = true
		if in.list == nil {
			needed = max(needed, r.version)
		}
	}
	for _, id := range fresh {
		if err := in.readTable(id, nil, note); err != nil {
			return err
		}
	}
	inTables := len(have)
	for _, name := range in.mems {
		if err := readMem(name, note); err != nil {
			return err
		}
	}
	if in.list == nil && len(have) == inTables {
		// A table that Badger took back is still in a memtable log. Where there is none, the newest
		// versions may be the ones that are missing, and nothing else says so.
		return lacking
	}
	for v := settled + 1; v <= needed; v++ {
		if have[v] {
			continue
		}
		if lacking == nil {
			lacking = damaged(filepath.Join(in.dir, badger.ManifestFilename), "is an older one")
		}
		return lacking
	}
	return nil
}

// idle finds files that Badger wants to be sound though they never hold anything here.
func (in *Inspection) idle() error {
	entries, err := os.ReadDir(in.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := filepath.Join(in.dir, e.Name())
		info, err := e.Info()
		if err != nil {
			return err
		}
		if !e.IsDir() {
			// Badger ends the process, or leaves half of its work, for one that it may not read.
			if err := unix.Faccessat(unix.AT_FDCWD, name, unix.R_OK, unix.AT_EACCESS); err != nil {
				return Unreadable(name, err)
			}
		}
		switch ext := filepath.Ext(name); {
		case info.Size() == 0 && ext == memExt:
			in.drop = append(in.drop, name)
		case ext == vlogExt && info.Size() < memHeader,
			e.Name() == "DISCARD" && info.Size() < discardBytes:
			in.drop = append(in.drop, name)
		case e.Name() == "KEYREGISTRY":
			sound, err := soundRegistry(name)
			if err != nil {
				return err
			}
			if !sound {
				in.drop = append(in.drop, name)
			}
		}
	}
	return nil
}

const (
	discardBytes = 1 << 20
	registryText = "Hello Badger"
)

// soundRegistry reports whether a list of keys is the empty one: 16 random bytes, a text, and no
// key.
func soundRegistry(name string) (bool, error) {
	b, err := readRegular(name, 1<<10)
	if errors.Is(err, ErrCorrupt) {
		return false, nil // too long
	}
	return err == nil && bytes.HasSuffix(b, []byte(registryText)) && len(b) < 64, err
}

// verify reads all tables and compares their checksums. Badger takes a row in a rotten block
// for one that there is not, both in Get and in iterators: files would read as zeroes.
func (in *Inspection) verify() error {
	var group errgroup.Group
	group.SetLimit(verifiers)
	for _, id := range in.tables {
		group.Go(func() error {
			err := in.withTable(id, options.OnTableRead, func(*table.Table) {})
			if errors.Is(err, ErrCorrupt) {
				err = damaged(table.NewFilename(id, in.dir), "does not match its checksums")
			}
			return err
		})
	}
	return group.Wait()
}

// verifiers is how many tables are read at the same time: a disk gives more to several readers.
const verifiers = 4

// withTable calls fn with a table, whose blocks are checked as mode says.
func (in *Inspection) withTable(id uint64, mode options.ChecksumVerificationMode, fn func(*table.Table)) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	name := table.NewFilename(id, in.dir)
	defer func() {
		if r := recover(); r != nil { // Badger panics on what it cannot read
			err = unsound(name, "read", fmt.Errorf("%.100s", fmt.Sprint(r)), func() error { return readThrough(name) })
		}
	}()
	t, err := in.opt.openTable(name, mode)
	if err != nil {
		err = unsound(name, "read", err, func() error { return readThrough(name) })
		if errors.Is(err, ErrCorrupt) {
			// Not for what went wrong once. If it does again, the first says what to do.
			if again, _ := in.opt.openTable(name, mode); again != nil {
				t, err = again, nil
			}
		}
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Close(-1)) }()
	fn(t)
	return nil
}

func (o Options) openTable(name string, mode options.ChecksumVerificationMode) (t *table.Table, err error) {
	mf, err := z.OpenMmapFile(name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	// Badger 4.9.6 dereferences nil as it makes the error for a block that does not decompress.
	defer func() {
		if r := recover(); r != nil {
			t, err = nil, errors.Join(fmt.Errorf("%.100s", fmt.Sprint(r)), mf.Close(-1))
		}
	}()
	b := o.badger(filepath.Dir(name))
	t, err = table.OpenTable(mf, table.Options{
		BlockSize: b.BlockSize, BloomFalsePositive: b.BloomFalsePositive, ChkMode: mode, Compression: b.Compression,
	})
	if err != nil {
		// Badger closes it after some errors. Twice would unmap what others have there by now.
		if _, closed := mf.Fd.Stat(); !errors.Is(closed, os.ErrClosed) {
			err = errors.Join(err, mf.Close(-1))
		}
		return nil, err
	}
	return t, nil
}

// readTable calls fn with the rows of a table whose keys begin with prefix. They are fn's only
// until it returns.
func (in *Inspection) readTable(id uint64, prefix []byte, fn func(versionedRow)) error {
	return in.withTable(id, options.OnBlockRead, func(t *table.Table) { rowsOf(t, prefix, fn) })
}

func rowsOf(t *table.Table, prefix []byte, fn func(versionedRow)) {
	if !bytes.HasPrefix(y.ParseKey(t.Biggest()), prefix) && bytes.Compare(y.ParseKey(t.Biggest()), prefix) < 0 {
		return
	}
	it := t.NewIterator(table.NOCACHE)
	defer it.Close()
	for it.Seek(y.KeyWithTs(prefix, math.MaxUint64)); it.Valid(); it.Next() {
		key := y.ParseKey(it.Key())
		if !bytes.HasPrefix(key, prefix) {
			break
		}
		v := it.Value()
		row := versionedRow{key: key, value: v.Value, version: y.ParseTs(it.Key())}
		if v.Meta&memDelete != 0 {
			row.value = nil
		}
		fn(row)
	}
}

// Rows returns the rows whose keys begin with one of some prefixes, as they will be when the
// database is open. Whoever needs several asks once: the logs are read as a whole.
func (in *Inspection) Rows(prefixes ...[]byte) (map[string][]byte, error) {
	newest := make(map[string]versionedRow)
	note := func(r versionedRow) {
		if !slices.ContainsFunc(prefixes, func(p []byte) bool { return bytes.HasPrefix(r.key, p) }) {
			return
		}
		// Tables are read in no order of versions. Of equal ones the later read wins: those copied
		// by a compaction are the same rows.
		if old, ok := newest[string(r.key)]; !ok || r.version >= old.version {
			if r.value != nil {
				r.value = append([]byte{}, r.value...)
			}
			newest[string(r.key)] = r
		}
	}
	for _, id := range in.tables {
		err := in.withTable(id, options.OnBlockRead, func(t *table.Table) {
			for _, prefix := range prefixes {
				rowsOf(t, prefix, note)
			}
		})
		if err != nil {
			return nil, err
		}
	}
	for _, name := range in.mems {
		if err := readMem(name, note); err != nil {
			return nil, err
		}
	}
	// What is in the log is newer than all in the tables, and has no version yet.
	for _, r := range in.tail {
		r.version = math.MaxUint64
		note(r)
	}
	rows := make(map[string][]byte)
	for key, r := range newest {
		if r.value != nil {
			rows[key] = r.value
		}
	}
	return rows, nil
}

// removeIdle removes what would be in Badger's way. The inspection has found that nothing of it is
// needed.
func (in *Inspection) removeIdle(d *DB) error {
	for _, name := range in.drop {
		d.log.Info("removing a file of the database that holds nothing", "file", name)
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
