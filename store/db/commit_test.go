package db

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestFullThenRoom: a refused Write loses nothing and is merged under what comes later.
func TestFullThenRoom(t *testing.T) {
	opt := testOptions(t.TempDir())
	d := openTest(t, opt)
	setFree(d, func(string) (int64, error) { return 0, nil })
	d.Set([]byte("a"), []byte("1"))
	d.Set([]byte("b"), []byte("1"))
	d.Freeze()
	var extra Batch
	extra.Set([]byte("c"), []byte("extra"))
	if err := d.Write(&extra); !errors.Is(err, ErrFull) {
		t.Fatal(err)
	}
	d.Set([]byte("b"), []byte("2"))
	const want = "a=1 b=2 c=extra "
	if got := dump(t, d, nil, nil); got != want {
		t.Fatalf("while full: %q", got)
	}
	setFree(d, freeBytes)
	commit(t, d)
	if s := d.Stats(); s.Commits != 1 || s.FailedCommits != 1 || s.PendingRows != 0 {
		t.Fatalf("%+v", s)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if got := dump(t, openTest(t, opt), nil, nil); got != want {
		t.Fatalf("after reopening: %q", got)
	}
}

func TestOversize(t *testing.T) {
	opt := testOptions(t.TempDir())
	d := openTest(t, opt)
	rows, limit := d.Limit()
	count := int(3 * limit / (MaxValue / 2))
	if count > rows {
		t.Fatal("meant to exceed the bytes, not the rows")
	}
	for n := range count {
		d.Set(fmt.Appendf(nil, "key%04d", n), bytes.Repeat([]byte{byte(n)}, MaxValue/2))
	}
	d.Set([]byte("largest"), make([]byte, MaxValue))
	commit(t, d)
	check := func() {
		t.Helper()
		n := 0
		err := d.ScanPrefix([]byte("key"), func(_, v []byte) error {
			if len(v) != MaxValue/2 || v[0] != byte(n) {
				return fmt.Errorf("row %d has %d bytes", n, len(v))
			}
			n++
			return nil
		})
		if err != nil || n != count {
			t.Fatal(n, err)
		}
		if v, err := d.Get([]byte("largest")); err != nil || len(v) != MaxValue {
			t.Fatal(len(v), err)
		}
	}
	check()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = openTest(t, opt)
	check()
}

// TestManyRows exceeds the number of rows of a transaction with small ones.
func TestManyRows(t *testing.T) {
	d := openTest(t, testOptions(t.TempDir()))
	rows, _ := d.Limit()
	for n := range 2 * rows {
		d.Set(binary.BigEndian.AppendUint32(nil, uint32(n)), nil)
	}
	commit(t, d)
	n := 0
	if err := d.Scan(nil, nil, func(_, _ []byte) error { n++; return nil }); err != nil || n != 2*rows {
		t.Fatal(n, err)
	}
}

// TestLimit fills transactions to the limit exactly: Badger must take them.
func TestLimit(t *testing.T) {
	var steps atomic.Int32
	opt := testOptions(t.TempDir())
	opt.step = func(what string) {
		if what == stepApplied {
			steps.Add(1)
		}
	}
	d := openTest(t, opt)
	rows, limit := d.Limit()
	for n := range rows {
		d.Set(binary.BigEndian.AppendUint32(nil, uint32(n)), nil)
	}
	commit(t, d)
	drain(t, d)
	for n := 0; ; n++ {
		size := min(MaxValue, limit-1000)
		if _, b := d.Pending(); b+size+100 > limit {
			d.Set([]byte("last"), make([]byte, limit-b-rowOverhead-4))
			break
		}
		d.Set(binary.BigEndian.AppendUint32(nil, uint32(n)), make([]byte, size))
	}
	if _, b := d.Pending(); b != limit {
		t.Fatal(b, limit)
	}
	before := steps.Load()
	commit(t, d)
	drain(t, d)
	if n := steps.Load() - before; n != 1 {
		t.Fatalf("%d transactions for a commit within the limit", n)
	}
}

// TestEmptyLogs: a machine that stops while Badger removes a log leaves it
// empty, and Badger alone then refuses to open.
func TestEmptyLogs(t *testing.T) {
	opt := testOptions(t.TempDir())
	d := openTest(t, opt)
	d.Set([]byte("a"), []byte("1"))
	commit(t, d)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"00900.mem", "000900.vlog"} {
		if err := os.WriteFile(filepath.Join(opt.Dir, instanceDirs[0], name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := dump(t, openTest(t, opt), nil, nil); got != "a=1 " {
		t.Fatal(got)
	}
	if _, err := Open(opt); err == nil {
		t.Fatal("opened twice")
	}
}

// TestDamage damages a table's index, then one of its blocks: beneath an open database, which finds
// it when it is asked to look, and does not open again.
func TestDamage(t *testing.T) {
	for _, fromEnd := range []bool{true, false} {
		opt := testOptions(t.TempDir())
		d := openTest(t, opt)
		for n := range 1000 {
			d.Set(fmt.Appendf(nil, "key%04d", n), make([]byte, 100))
		}
		commit(t, d)
		if err := errors.Join(d.Verify(), d.Close()); err != nil {
			t.Fatal(err)
		}
		d, err := Open(opt)
		if err != nil {
			t.Fatal(err)
		}
		damage(t, filepath.Join(opt.Dir, instanceDirs[0]), fromEnd)
		if !fromEnd { // the index was read when it was opened
			if err := d.Verify(); !errors.Is(err, ErrCorrupt) {
				t.Fatalf("damaged block: %v", err)
			}
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(opt); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("opened with damage, of the index: %t: %v", fromEnd, err)
		}
	}
}

func damage(t *testing.T, dir string, fromEnd bool) {
	t.Helper()
	names, err := fs.Glob(os.DirFS(dir), "*.sst")
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	name := filepath.Join(dir, names[0])
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	at := len(data) / 2
	if fromEnd {
		at = len(data) - 100
	}
	data[at] ^= 1
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestConcurrent has writers, readers, scans and commits at once. Two rows are
// always changed together, and every scan must see them equal.
func TestConcurrent(t *testing.T) {
	d := openTest(t, testOptions(t.TempDir()))
	d.maxRows = 20
	var workers, commits sync.WaitGroup
	var group Group
	stop := make(chan struct{})
	for w := range 2 {
		workers.Go(func() {
			for n := range 300 {
				var b Batch
				v := fmt.Appendf(nil, "%d", n)
				b.Set(fmt.Appendf(nil, "a%d", w), v)
				b.Set(fmt.Appendf(nil, "b%d", w), v)
				b.Set(fmt.Appendf(nil, "c%d-%d", w, n), v)
				d.Apply(&b)
				if got, err := d.Get(fmt.Appendf(nil, "a%d", w)); err != nil || !bytes.Equal(got, v) {
					t.Errorf("get: %s %v, want %s", got, err, v)
				}
			}
		})
		workers.Go(func() {
			for range 200 {
				seen := make(map[string]string)
				if err := d.Scan(nil, []byte("c"), func(k, v []byte) error {
					seen[string(k)] = string(v)
					return nil
				}); err != nil {
					t.Error(err)
				}
				if seen["a0"] != seen["b0"] || seen["a1"] != seen["b1"] {
					t.Errorf("scan saw half a batch: %v", seen)
				}
			}
		})
		commits.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := group.Do(func() error { d.Freeze(); return d.Write(nil) }); err != nil {
					t.Error(err)
				}
			}
		})
	}
	workers.Wait()
	close(stop)
	commits.Wait()
	commit(t, d)
	n := 0
	if err := d.ScanPrefix([]byte("c"), func(_, _ []byte) error { n++; return nil }); err != nil || n != 600 {
		t.Fatal(n, err)
	}
	if n := d.inUse().refs.Load(); n != 1 {
		t.Fatal("readers left:", n-1)
	}
}

func TestScanSeesOneCommit(t *testing.T) {
	d := openTest(t, testOptions(t.TempDir()))
	for n := range 10 {
		d.Set(fmt.Appendf(nil, "%d", n), []byte("old"))
	}
	commit(t, d)
	seen := 0
	err := d.Scan(nil, nil, func(k, v []byte) error {
		seen++
		if string(v) != "old" {
			return fmt.Errorf("%s=%s", k, v)
		}
		for n := range 10 {
			d.Set(fmt.Appendf(nil, "%d", n), []byte("new"))
		}
		d.Delete([]byte("5"))
		commit(t, d)
		return nil
	})
	if err != nil || seen != 10 {
		t.Fatal(seen, err)
	}
}

func TestClosed(t *testing.T) {
	d := openTest(t, testOptions(t.TempDir()))
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	_, get := d.Get([]byte("a"))
	scan := d.Scan(nil, nil, func(_, _ []byte) error { return nil })
	for _, err := range []error{get, scan, d.Write(nil), d.Verify()} {
		if !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	}
	d.Stats()
}

// TestCloseWaits: Close unmaps the files that readers look into.
func TestCloseWaits(t *testing.T) {
	opt := testOptions(t.TempDir())
	d := openTest(t, opt)
	for n := range 1000 {
		d.Set(fmt.Appendf(nil, "key%04d", n), make([]byte, 100))
	}
	commit(t, d)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = openTest(t, opt)
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				if _, err := d.Get([]byte("key0500")); err != nil {
					return
				}
				if err := d.Scan(nil, nil, func(_, _ []byte) error { return nil }); err != nil {
					return
				}
			}
		})
	}
	time.Sleep(5 * time.Millisecond)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	readers.Wait()
}

func TestRefusedRows(t *testing.T) {
	for name, key := range map[string][]byte{
		"empty": nil, "journal": {0xff, 0xff, 'j'}, "badger": []byte("!badger!x"), "long": make([]byte, MaxKey+1),
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s key was taken", name)
				}
			}()
			new(Batch).Set(key, nil)
		}()
	}
}
