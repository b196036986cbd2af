package db

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		os.Exit(child(dir))
	}
	// Opening a database takes milliseconds; ask for more with -rapid.checks.
	if err := flag.Set("rapid.checks", "60"); err != nil {
		panic(err)
	}
	// Badger leaves these two behind when it fails to open (TestDamage).
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/dgraph-io/ristretto/v2/z.(*AllocatorPool).freeupAllocators"),
		goleak.IgnoreAnyFunction("github.com/dgraph-io/badger/v4.(*DB).monitorCache"))
}

func testOptions(dir string) Options {
	return Options{Dir: dir, MemTable: minMemTable, logFile: 1 << 20, Logger: slog.New(slog.DiscardHandler)}
}

// smallOptions makes memtables, and with them Badger's logs, that are quickly made, read and full.
// No value may be larger than 256 KiB.
func smallOptions(dir string) Options {
	opt := testOptions(dir)
	opt.MemTable, opt.leastMem = 2<<20, 2<<20
	return opt
}

func openTest(t testing.TB, opt Options) *DB {
	t.Helper()
	d, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func commit(t testing.TB, d *DB) {
	t.Helper()
	d.Freeze()
	if err := d.Write(nil); err != nil {
		t.Fatal(err)
	}
}

func dump(t testing.TB, d *DB, from, to []byte) string {
	t.Helper()
	var b bytes.Buffer
	err := d.Scan(from, to, func(k, v []byte) error {
		fmt.Fprintf(&b, "%s=%s ", k, v)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestLayers(t *testing.T) {
	opt := testOptions(t.TempDir())
	d := openTest(t, opt)
	d.Set([]byte("a"), []byte("1"))
	d.Set([]byte("b"), []byte("1"))
	d.Set([]byte("c"), nil)
	d.Set([]byte("d"), []byte("1"))
	commit(t, d)
	d.Set([]byte("b"), []byte("2"))
	d.Delete([]byte("d"))
	d.Freeze()
	d.Set([]byte("bb"), []byte("3"))
	d.Delete([]byte("a"))
	const want = "b=2 bb=3 c= "
	if got := dump(t, d, []byte("a"), nil); got != want {
		t.Fatalf("scan %q, want %q", got, want)
	}
	if v, err := d.Get([]byte("c")); err != nil || v == nil || len(v) != 0 {
		t.Fatalf("empty value: %v %v", v, err)
	}
	for _, key := range []string{"a", "d", "x"} {
		if _, err := d.Get([]byte(key)); !errors.Is(err, ErrNotFound) {
			t.Fatalf("get %s: %v", key, err)
		}
	}
	var extra Batch
	extra.Set([]byte("b"), []byte("extra"))
	if err := d.Write(&extra); err != nil {
		t.Fatal(err)
	}
	commit(t, d)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = openTest(t, opt)
	if got, want := dump(t, d, nil, nil), "b=extra bb=3 c= "; got != want {
		t.Fatalf("after reopening %q, want %q", got, want)
	}
}

// drain waits until Badger has all commits.
func drain(t testing.TB, d *DB) {
	t.Helper()
	if err := d.drainLog(); err != nil {
		t.Fatal(err)
	}
}

// setFree replaces what tells the free space.
func setFree(d *DB, statfs func(string) (int64, error)) {
	d.space.mu.Lock()
	defer d.space.mu.Unlock()
	d.space.statfs = onlyFree(statfs)
}

// onlyFree is a disk that keeps no blocks for root.
func onlyFree(statfs func(string) (int64, error)) func(string) (space, error) {
	return func(path string) (space, error) {
		n, err := statfs(path)
		return space{free: n, last: n}, err
	}
}

// crash ends d as a kill would, with nothing carried into Badger on the way.
func crash(d *DB) error {
	d.mu.Lock()
	d.mu.closed = true
	d.mu.Unlock()
	d.compactor.end()
	d.compactor.retired.Wait()
	close(d.applier.stop)
	<-d.applier.done
	return errors.Join(d.inUse().close(), d.clog.close(), d.lock.Close())
}

// fastDir is a directory in memory, if there is one, for tests in which what
// reaches the disk does not matter: syncs take nothing there.
func fastDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "quarxfs-db")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// freeBytes is what ordinary users may still write.
func freeBytes(path string) (int64, error) {
	s, err := askSpace(path)
	return s.free, err
}
