package db

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const someRows = 2000

func rowKey(n int) []byte { return fmt.Appendf(nil, "row%05d", n) }

// filled opens a database in dir and writes rows; half are in tables, half in the memtable.
func filled(t *testing.T, dir string) *DB {
	t.Helper()
	return fillHalves(t, testOptions(dir))
}

func fillHalves(t *testing.T, opt Options) *DB {
	t.Helper()
	d, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	for half := range 2 {
		for n := half; n < someRows; n += 2 {
			d.Set(rowKey(n), []byte(strings.Repeat("v", 50)))
		}
		d.Freeze()
		if err := d.Write(nil); err != nil {
			t.Fatal(err)
		}
		if half == 0 {
			if _, err := d.Compact(); err != nil {
				t.Fatal(err)
			}
		}
	}
	return d
}

func countRows(t *testing.T, dir string) int {
	t.Helper()
	d, err := Open(testOptions(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	n := 0
	if err := d.Scan(nil, nil, func(_, _ []byte) error { n++; return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestCompactsByItself(t *testing.T) {
	dir := t.TempDir()
	d, err := Open(smallOptions(dir))
	if err != nil {
		t.Fatal(err)
	}
	const each = 100
	value := strings.Repeat("v", 4000)
	commits := 0
	for !compactedOnce(d) && !d.crowded() {
		if commits++; commits > 1000 {
			t.Fatalf("not compacted after %d MB: %v", commits*each*len(value)/1e6, d.inUse().kv.Levels())
		}
		for n := range each {
			d.Set(rowKey(commits*each+n), []byte(value))
		}
		d.Freeze()
		if err := d.Write(nil); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(20 * time.Second); !compactedOnce(d); time.Sleep(time.Millisecond) {
		d.considerCompacting() // as the next commits would
		if time.Now().After(deadline) {
			t.Fatalf("not compacted when level 0 was crowded: %v", d.inUse().kv.Levels())
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if n := countRows(t, dir); n != commits*each {
		t.Errorf("%d rows of %d", n, commits*each)
	}
}

// compactedOnce tells whether anything is below level 0.
func compactedOnce(d *DB) bool {
	b, err := d.use()
	if err != nil {
		return false
	}
	defer b.leave()
	for _, l := range b.kv.Levels() {
		if l.Level > 0 && l.NumTables > 0 {
			return true
		}
	}
	return false
}

func TestUnreadableTable(t *testing.T) {
	for _, uncompressed := range []bool{false, true} {
		t.Run(fmt.Sprintf("uncompressed %v", uncompressed), func(t *testing.T) { testUnreadableTable(t, uncompressed) })
	}
}

func testUnreadableTable(t *testing.T, uncompressed bool) {
	opt := testOptions(t.TempDir())
	opt.Uncompressed = uncompressed
	d := fillHalves(t, opt)
	if _, err := d.Compact(); err != nil {
		t.Fatal(err)
	}
	// What the compaction has read is cached.
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	names, _ := tables(d.inUse().dir)
	for _, name := range names {
		if err := os.Truncate(name, 0); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.Get(rowKey(7)); !errors.Is(err, ErrUnreadable) {
		t.Errorf("get: %v", err)
	}
	err = d.Scan(nil, nil, func(_, _ []byte) error { return nil })
	if !errors.Is(err, ErrUnreadable) {
		t.Errorf("scan: %v", err)
	}
	d.Set([]byte("more"), []byte("x"))
	d.Freeze()
	if err := d.Write(nil); err != nil {
		t.Errorf("a commit: %v", err)
	}
	_ = d.Close()
}

// present are the rows of a database by key.
func present(t testing.TB, d *DB) map[string]string {
	t.Helper()
	rows := make(map[string]string)
	if err := d.Scan(nil, nil, func(k, v []byte) error { rows[string(k)] = string(v); return nil }); err != nil {
		t.Fatal(err)
	}
	return rows
}

// a worked database is one whose rows are known.
type worked struct {
	t    *testing.T
	opt  Options
	d    *DB
	rows map[string]string
	n    int
}

func openWorked(t *testing.T, opt Options) *worked {
	t.Helper()
	d, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	return &worked{t: t, opt: opt, d: d, rows: make(map[string]string)}
}

// change commits new rows, other values and deletions; unless that fails, the rows are those of it.
func (w *worked) change(rows int) error {
	w.n++
	after := maps.Clone(w.rows)
	for i := range rows {
		k := rowKey((w.n*7919 + i*31) % 20000)
		if (w.n+i)%5 == 0 {
			w.d.Delete(k)
			delete(after, string(k))
			continue
		}
		v := fmt.Sprintf("%d.%d %s", w.n, i, strings.Repeat("v", i%900))
		w.d.Set(k, []byte(v))
		after[string(k)] = v
	}
	w.d.Freeze()
	err := w.d.Write(nil)
	if err == nil {
		w.rows = after
	}
	return err
}

func (w *worked) must(rows int) {
	w.t.Helper()
	if err := w.change(rows); err != nil {
		w.t.Fatal(err)
	}
}

// reopened crashes the database and finds its rows again.
func (w *worked) reopened(what string) {
	w.t.Helper()
	if err := crash(w.d); err != nil {
		w.t.Fatal(what, err)
	}
	w.opt.disk.before = nil
	d, err := Open(w.opt)
	if err != nil {
		w.t.Fatal(what, err)
	}
	w.d = d
	w.check(what)
	if err := d.Close(); err != nil {
		w.t.Fatal(what, err)
	}
	if left := leftovers(w.t, w.opt.Dir); len(left) > 0 {
		w.t.Fatalf("%s: left over: %v", what, left)
	}
}

func (w *worked) check(what string) {
	w.t.Helper()
	if got := present(w.t, w.d); !maps.Equal(got, w.rows) {
		w.t.Fatalf("%s: %d rows, not the %d of the model", what, len(got), len(w.rows))
	}
}

// leftovers are names in a closed database's directory that belong to nothing.
func leftovers(t *testing.T, dir string) (left []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	used := filepath.Base(usedDir(dir))
	for _, e := range entries {
		if name := e.Name(); name != used && name != currentName && name != logName(0) && name != logName(1) {
			left = append(left, name)
		}
	}
	return left
}

// TestCompactionFaults fails each operation of a compaction, once or from then on: the rows stay
// what they are, also after a crash; commits go on, unless which instance counts cannot be told.
func TestCompactionFaults(t *testing.T) {
	step := 1
	if testing.Short() {
		step = 4
	}
	for _, lasting := range []bool{false, true} {
		ended := false
		for nth := 0; !ended; nth += step {
			what := fmt.Sprintf("operation %d, lasting %v", nth, lasting)
			var at, fired atomic.Int64
			opt := smallOptions(fastDir(t))
			w := openWorked(t, opt)
			w.must(6000)
			w.must(2000)
			drain(t, w.d)
			at.Store(int64(nth))
			w.d.opt.disk.before = func(op, name string) error {
				if left := at.Add(-1); left == -1 || lasting && left < 0 {
					fired.Add(1)
					return fmt.Errorf("%s %s: %w", op, name, errDisk)
				}
				return nil
			}
			_, err := w.d.Compact()
			ended = fired.Load() == 0
			if ended != (err == nil) || !ended && !errors.Is(err, errDisk) {
				t.Fatalf("%s: %v after %d faults", what, err, fired.Load())
			}
			w.check(what)
			failed := w.change(100)
			if failed != nil && !(lasting && errors.Is(failed, ErrFailed)) {
				t.Fatalf("%s: then a commit: %v", what, failed)
			}
			if failed == nil {
				w.d.opt.disk.before = nil
				if _, err := w.d.Compact(); err != nil {
					t.Fatalf("%s: then again: %v", what, err)
				}
				w.must(100)
			}
			w.reopened(what)
			if nth > 200 {
				t.Fatal("no end of operations")
			}
		}
	}
}

// TestCrashInCompaction copies the database before each operation of a compaction, and when it has
// changed over; commits go on between. Each copy has all that was committed.
func TestCrashInCompaction(t *testing.T) {
	opt := smallOptions(fastDir(t))
	w := openWorked(t, opt)
	w.must(9000)
	drain(t, w.d)
	rng := rand.New(rand.NewPCG(5, 6))
	unsynced := make(map[string]bool)
	type copied struct {
		dir  string
		what string
		rows map[string]string
	}
	var copies []copied
	keep := func(what string) {
		// The log is copied as it is, after the commit; the rest as a power cut would leave it.
		w.must(20)
		w.d.writing.Lock()
		defer w.d.writing.Unlock()
		copies = append(copies, copied{image(t, opt.Dir, readDir(t, opt.Dir), unsynced, rng), what, w.rows})
	}
	w.d.opt.disk.before = func(op, name string) error {
		keep(op + " " + name)
		short := strings.TrimPrefix(name, opt.Dir+"/")
		switch op {
		case "write":
			unsynced[short] = true
		case "sync":
			delete(unsynced, short)
		}
		return nil
	}
	w.d.opt.step = func(what string) {
		if what == stepChangedOver {
			w.d.opt.step = nil // only the applier looks
			keep(what)
		}
	}
	for range 2 { // from rows.0 to rows.1 and back
		if _, err := w.d.Compact(); err != nil {
			t.Fatal(err)
		}
	}
	keep("the end")
	w.d.opt.disk.before = nil
	if err := w.d.Close(); err != nil {
		t.Fatal(err)
	}
	if len(copies) < 20 {
		t.Fatalf("%d copies", len(copies))
	}
	for _, c := range copies {
		opt.Dir = c.dir
		w := openWorked(t, opt)
		w.rows = c.rows
		w.check(c.what)
		w.must(10)
		w.reopened(c.what)
	}
}

// TestCompactWhileWorking compacts again and again beside commits, deletions and readers.
func TestCompactWhileWorking(t *testing.T) {
	opt := smallOptions(fastDir(t))
	w := openWorked(t, opt)
	w.must(9000)
	stop := make(chan struct{})
	var work sync.WaitGroup
	stopped := func() bool {
		select {
		case <-stop:
			return true
		default:
			return false
		}
	}
	for range 2 {
		work.Go(func() { // a view does not change
			for !stopped() {
				v, err := w.d.View()
				if err != nil {
					t.Error(err)
					return
				}
				var seen [2][]byte
				for i := range seen {
					h := new(bytes.Buffer)
					if err := v.Scan(nil, nil, func(k, v []byte) error {
						fmt.Fprintf(h, "%s=%d,", k, len(v))
						return nil
					}); err != nil {
						t.Error(err)
					}
					seen[i] = h.Bytes()
				}
				v.Close()
				if !bytes.Equal(seen[0], seen[1]) {
					t.Error("a view has changed")
				}
			}
		})
	}
	work.Go(func() {
		for i := 0; !stopped(); i++ {
			if _, err := w.d.Get(rowKey(i % 20000)); err != nil && !errors.Is(err, ErrNotFound) {
				t.Error(err)
			}
		}
	})
	changed := 0
	work.Go(func() {
		for !stopped() {
			if _, err := w.d.Compact(); err != nil {
				t.Error(err)
			}
		}
	})
	used := w.d.inUse()
	for n := 0; n < 150 || changed < 4 && n < 20000; n++ {
		w.must(1 + n*37%400)
		if b := w.d.inUse(); b != used {
			used = b
			changed++
		}
		if n%10 == 0 {
			w.check(fmt.Sprintf("commit %d", n))
		}
	}
	close(stop)
	work.Wait()
	w.check("the end")
	w.reopened("reopened")
	if changed < 4 {
		t.Errorf("the instance changed %d times", changed)
	}
}

// breakLog makes the new instance's log one that cannot be allocated to, or synced.
func breakLog(t *testing.T, b *instance) {
	r, w, err := os.Pipe()
	if err == nil {
		err = errors.Join(r.Close(), b.wal.file.Close())
	}
	if err != nil {
		t.Error(err)
	}
	b.wal.file = w
}

// TestDualWriterFails: what goes wrong with the new instance ends the compaction, and
// commits too only when the next opening may find it in use.
func TestDualWriterFails(t *testing.T) {
	for _, needed := range []bool{false, true} {
		w := openWorked(t, smallOptions(fastDir(t)))
		w.must(9000)
		drain(t, w.d)
		broken := false
		w.d.opt.step = func(what string) { // the applier's
			if m := w.d.applier.dual; m != nil && !needed && !broken {
				broken = true
				breakLog(t, m.b)
			}
		}
		w.d.opt.disk.before = func(op, name string) error {
			if op == "write" && !broken {
				w.must(2000)
			}
			if op != "rename" {
				return nil
			}
			if err := w.d.drainLog(); err != nil {
				t.Error(err)
			}
			if needed && filepath.Dir(name) == w.opt.Dir {
				broken = true
				_ = w.d.applier.do(func() error { breakLog(t, w.d.applier.dual.b); return nil })
				w.must(10)
				if err := w.d.drainLog(); !errors.Is(err, ErrFailed) {
					t.Error(err)
				}
			}
			return nil
		}
		_, err := w.d.Compact()
		if err == nil || !broken || errors.Is(err, ErrFailed) != needed {
			t.Errorf("needed %v, broken %v: %v", needed, broken, err)
		}
		w.d.opt.disk.before = nil
		w.check("after the failure")
		if err := w.change(100); errors.Is(err, ErrFailed) != needed || !needed && err != nil {
			t.Errorf("needed %v: a commit: %v", needed, err)
		}
		if needed {
			w.reopened("reopened")
			continue
		}
		if _, err := w.d.Compact(); err != nil {
			t.Error(err)
		}
		w.reopened("reopened")
	}
}

// TestCompactedValues: empty ones are not taken for absent, deletions not for empty ones.
func TestCompactedValues(t *testing.T) {
	w := openWorked(t, testOptions(t.TempDir()))
	w.d.Set([]byte("empty"), nil)
	w.d.Set([]byte("gone"), nil)
	w.d.Set([]byte("late"), []byte("x"))
	commit(t, w.d)
	w.d.opt.disk.before = func(op, _ string) error {
		if op == "rename" {
			w.d.Delete([]byte("gone"))
			w.d.Set([]byte("late"), nil)
			commit(t, w.d)
			return w.d.drainLog()
		}
		return nil
	}
	for range 2 {
		if _, err := w.d.Compact(); err != nil {
			t.Fatal(err)
		}
		w.d.opt.disk.before = nil
		for _, key := range []string{"empty", "late"} {
			if v, err := w.d.Get([]byte(key)); err != nil || v == nil || len(v) != 0 {
				t.Errorf("%s: %q, %v", key, v, err)
			}
		}
		if _, err := w.d.Get([]byte("gone")); !errors.Is(err, ErrNotFound) {
			t.Error(err)
		}
		if got := dump(t, w.d, nil, nil); got != "empty= late= " {
			t.Error(got)
		}
	}
	if err := w.d.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestCompactionThatLosesRows: when the new tables do not have all rows, they are not used.
func TestCompactionThatLosesRows(t *testing.T) {
	opt := testOptions(t.TempDir())
	w := openWorked(t, opt)
	w.must(9000)
	drain(t, w.d)
	lists := 0
	w.d.opt.disk.before = func(op, name string) error {
		if op != "rename" || filepath.Base(filepath.Dir(name)) != instanceDirs[1] {
			return nil
		}
		lists++
		list, err := os.ReadFile(name + ".tmp")
		if err != nil {
			return err
		}
		sets, _ := readSets(list)
		changes := sets[0].changes
		short := append(list[:manifestHeader:manifestHeader], encoded(t, changes[:len(changes)-1]...)...)
		return os.WriteFile(name+".tmp", short, 0o600)
	}
	_, err := w.d.Compact()
	if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "lost in a compaction") || lists != 1 {
		t.Fatalf("%v, %d lists", err, lists)
	}
	w.check("after the loss")
	w.must(100)
	w.reopened("reopened")
}

// TestDamageIsNotCompacted: a damaged block would end its table for the copying and for the
// comparison.
func TestDamageIsNotCompacted(t *testing.T) {
	opt := testOptions(t.TempDir())
	if err := filled(t, opt.Dir).Close(); err != nil {
		t.Fatal(err)
	}
	d := openTest(t, opt)
	damage(t, usedDir(opt.Dir), false)
	dir := d.inUse().dir
	if _, err := d.Compact(); !errors.Is(err, ErrCorrupt) {
		t.Errorf("compact: %v", err)
	}
	if d.inUse().dir != dir {
		t.Error("the instance was changed")
	}
}

// TestCompactionBesideView: a view keeps its tables, and another compaction waits for its end.
func TestCompactionBesideView(t *testing.T) {
	opt := testOptions(t.TempDir())
	w := openWorked(t, opt)
	w.must(9000)
	v, err := w.d.View()
	if err != nil {
		t.Fatal(err)
	}
	rows, first := w.rows, w.d.inUse().dir
	for range 3 {
		if _, err := w.d.Compact(); err != nil {
			t.Fatal(err)
		}
		w.must(3000)
	}
	if _, err := os.Stat(first); err != nil || w.d.inUse().dir == first {
		t.Fatalf("%s in use, %v", w.d.inUse().dir, err)
	}
	seen := make(map[string]string)
	if err := v.Scan(nil, nil, func(k, v []byte) error { seen[string(k)] = string(v); return nil }); err != nil || !maps.Equal(seen, rows) {
		t.Errorf("%d rows of %d: %v", len(seen), len(rows), err)
	}
	v.Close()
	w.d.compactor.retired.Wait()
	if _, err := os.Stat(first); !os.IsNotExist(err) {
		t.Errorf("the old tables: %v", err)
	}
	if _, err := w.d.Compact(); err != nil || w.d.inUse().dir != first {
		t.Errorf("then %s in use, %v", w.d.inUse().dir, err)
	}
	w.check("the end")
	w.reopened("reopened")
}

// TestCloseEndsCompaction at any operation.
func TestCloseEndsCompaction(t *testing.T) {
	for nth := range 12 {
		opt := smallOptions(fastDir(t))
		w := openWorked(t, opt)
		w.must(9000)
		drain(t, w.d)
		var at atomic.Int64
		at.Store(int64(nth))
		closed := make(chan error, 1)
		w.d.opt.disk.before = func(string, string) error {
			if at.Add(-1) == -1 {
				go func() { closed <- w.d.Close() }()
				<-w.d.compactor.stop
			}
			return nil
		}
		_, err := w.d.Compact()
		if err != nil && !errors.Is(err, ErrClosed) {
			t.Errorf("operation %d: %v", nth, err)
		}
		if err := <-closed; err != nil {
			t.Errorf("close at operation %d: %v", nth, err)
		}
		if _, err := w.d.Compact(); !errors.Is(err, ErrClosed) {
			t.Errorf("compact a closed database: %v", err)
		}
		if left := leftovers(t, opt.Dir); len(left) > 0 {
			t.Errorf("left over: %v", left)
		}
		opt.disk.before = nil
		if w.d, err = Open(opt); err != nil {
			t.Fatal(err)
		}
		w.check("reopened")
		if err := w.d.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestCompactionWithoutRoom goes on as if nothing was.
func TestCompactionWithoutRoom(t *testing.T) {
	opt := smallOptions(fastDir(t))
	w := openWorked(t, opt)
	w.must(9000)
	drain(t, w.d)
	for _, after := range []int64{0, 1, 3} { // questions until the disk is full
		var asked atomic.Int64
		setFree(w.d, func(string) (int64, error) {
			if asked.Add(1) > after {
				return opt.MemTable, nil
			}
			return 1 << 40, nil
		})
		if _, err := w.d.Compact(); !errors.Is(err, ErrFull) {
			t.Errorf("full after %d questions: %v", after, err)
		}
		setFree(w.d, freeBytes)
		w.check("full")
		w.must(100)
	}
	if _, err := w.d.Compact(); err != nil {
		t.Error(err)
	}
	w.check("the end")
	w.reopened("reopened")
}
