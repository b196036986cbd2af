package db

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
)

// TestApplyFails: when Badger's files cannot be synced, commits end, reads stay
// right, and opening the database again finds everything.
func TestApplyFails(t *testing.T) {
	opt := testOptions(t.TempDir())
	d, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	d.Set([]byte("a"), []byte("1"))
	commit(t, d)
	wal := d.inUse().wal
	good := wal.file
	r, w, err := os.Pipe() // cannot be allocated to, or synced
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	wal.file = w
	wal.backed = 1 << 40
	d.clog.seal()
	d.applier.wake()
	if err := d.applier.wait(func() bool { return false }); !errors.Is(err, ErrFailed) {
		t.Fatal(err)
	}
	d.Set([]byte("b"), []byte("1"))
	d.Freeze()
	if err := d.Write(nil); !errors.Is(err, ErrFailed) {
		t.Fatal(err)
	}
	if got := dump(t, d, nil, nil); got != "a=1 b=1 " {
		t.Fatal(got)
	}
	wal.file = good
	w.Close()
	if err := d.Close(); !errors.Is(err, ErrFailed) {
		t.Fatal(err)
	}
	if got := dump(t, openTest(t, opt), nil, nil); got != "a=1 " {
		t.Fatal(got)
	}
}

// TestApplyWaitsForRoom: what is in the log already stays there, and readable,
// until Badger may take it; also over Close.
func TestApplyWaitsForRoom(t *testing.T) {
	opt := testOptions(t.TempDir())
	d := openTest(t, opt)
	var full atomic.Bool
	setFree(d, func(string) (int64, error) {
		if full.Load() {
			return 0, nil
		}
		return 1 << 40, nil
	})
	write := func(d *DB, n int) {
		t.Helper()
		for k := range crashKeys {
			d.Set(crashKey(k), binary.BigEndian.AppendUint64(make([]byte, 0, 1500), uint64(n))[:1500])
		}
		commit(t, d)
	}
	write(d, 1)
	full.Store(true)
	d.clog.seal()
	if err := d.applier.wait(func() bool { return d.clog.sealed() == nil }); !errors.Is(err, ErrFull) {
		t.Fatal(err)
	}
	if n, err := crashState(d); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	full.Store(false)
	write(d, 2)
	write(d, 3)
	full.Store(true)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = openTest(t, opt)
	if n, err := crashState(d); err != nil || n != 3 {
		t.Fatal(n, err)
	}
}

// TestCloseLeavesNothing: a database that was closed repeats no commit.
func TestCloseLeavesNothing(t *testing.T) {
	opt := testOptions(t.TempDir())
	m := newMemDir()
	opt.logs = m
	d := openTest(t, opt)
	for n := range 100 {
		d.Set(fmt.Appendf(nil, "%d", n), bytes.Repeat([]byte{1}, n*n*5))
		commit(t, d)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := openLog(m, opt.logFile)
	if err != nil {
		t.Fatal(err)
	}
	if records, err := l.recover(); err != nil || len(records) != 0 {
		t.Fatal(records, err)
	}
}

// TestGetWhileApplied reads rows of which Badger has a part, again and again.
func TestGetWhileApplied(t *testing.T) {
	d := openTest(t, testOptions(t.TempDir()))
	d.maxRows = 10
	stop := make(chan struct{})
	done := make(chan error, 2)
	for range 2 {
		go func() {
			last := 0
			for {
				select {
				case <-stop:
					done <- nil
					return
				default:
				}
				n, err := crashState(d)
				if err == nil && n < last {
					err = fmt.Errorf("%d after %d", n, last)
				}
				last = n
				for k := 0; k < crashKeys && err == nil && last > 0; k += 37 {
					var v []byte
					if v, err = d.Get(crashKey(k)); err == nil && int(binary.BigEndian.Uint64(v)) < last {
						err = fmt.Errorf("row %d is older than %d", k, last)
					}
				}
				if err != nil {
					done <- err
					return
				}
			}
		}()
	}
	for n := 1; n <= 60; n++ {
		var b Batch
		for k := range crashKeys {
			b.Set(crashKey(k), binary.BigEndian.AppendUint64(make([]byte, 0, 500), uint64(n))[:500])
		}
		d.Apply(&b)
		commit(t, d)
	}
	close(stop)
	if err := errors.Join(<-done, <-done); err != nil {
		t.Fatal(err)
	}
}
