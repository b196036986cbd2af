package db

import (
	"encoding/binary"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/tiering/latency"
)

const benchRows = 100_000

func benchKey(n uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte("bench-row-"), n*0x9e3779b97f4a7c15)
}

func fill(b *testing.B, d *DB) {
	b.Helper()
	for n := range uint64(benchRows) {
		d.Set(benchKey(n), make([]byte, 100))
	}
}

func benchGet(b *testing.B, d *DB, base uint64) {
	keys := make([][]byte, 1024)
	for i := range keys {
		keys[i] = benchKey(base + rand.Uint64N(benchRows))
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		_, _ = d.Get(keys[i%len(keys)])
	}
}

func BenchmarkGetOverlay(b *testing.B) {
	d := openTest(b, testOptions(b.TempDir()))
	fill(b, d)
	benchGet(b, d, 0)
}

// benchStored opens a database whose rows are in tables, as most are.
func benchStored(b *testing.B) *DB {
	opt := testOptions(b.TempDir())
	d := openTest(b, opt)
	fill(b, d)
	commit(b, d)
	if err := d.Close(); err != nil {
		b.Fatal(err)
	}
	return openTest(b, opt)
}

// BenchmarkOpen opens and closes a database with some 380 MB of tables, all of which are read: what
// an opening costs per byte of them. They are in the page cache.
func BenchmarkOpen(b *testing.B) {
	opt := testOptions(b.TempDir())
	opt.MemTable = 64 << 20
	d := openTest(b, opt)
	for n := range uint64(350_000) {
		row := make([]byte, 1000)
		binary.BigEndian.PutUint64(row, n)
		if d.Set(benchKey(n), row); n%20_000 == 0 {
			commit(b, d)
		}
	}
	commit(b, d)
	if err := d.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		d, err := Open(opt)
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(d.TableBytes())
		if err := d.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGetBadger(b *testing.B) { benchGet(b, benchStored(b), 0) }
func BenchmarkGetMiss(b *testing.B)   { benchGet(b, benchStored(b), benchRows) }

func BenchmarkSet(b *testing.B) {
	d := openTest(b, testOptions(b.TempDir()))
	value := make([]byte, 100)
	b.ReportAllocs()
	var n uint64
	for b.Loop() {
		d.Set(benchKey(n%benchRows), value)
		n++
	}
}

func BenchmarkScan100(b *testing.B) {
	d := benchStored(b)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		left := 100
		err := d.Scan(benchKey(uint64(i)), nil, func(_, _ []byte) error {
			if left--; left == 0 {
				return ErrStop
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCommit4K(b *testing.B) {
	opt := testOptions(b.TempDir())
	opt.MemTable, opt.logFile = 0, 0
	d := openTest(b, opt)
	var n uint64
	for b.Loop() {
		value := make([]byte, 4096)
		binary.BigEndian.PutUint64(value, n)
		d.Set(benchKey(n%benchRows), value)
		n++
		commit(b, d)
	}
	report(b, d.Stats().CommitLatency)
}

// BenchmarkCommit10k commits 10,000 rows at a time.
func BenchmarkCommit10k(b *testing.B) {
	opt := testOptions(b.TempDir())
	opt.MemTable, opt.logFile = 0, 0
	d := openTest(b, opt)
	var n uint64
	for b.Loop() {
		for range 10_000 {
			d.Set(benchKey(n%(1<<20)), make([]byte, 100))
			n++
		}
		commit(b, d)
	}
	report(b, d.Stats().CommitLatency)
}

// BenchmarkAppend4K is what BenchmarkCommit4K is measured against.
func BenchmarkAppend4K(b *testing.B) {
	f, err := os.Create(filepath.Join(b.TempDir(), "append"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	buf := make([]byte, 4096)
	var off int64
	var took latency.Timer
	for b.Loop() {
		begun := time.Now()
		binary.BigEndian.PutUint64(buf, uint64(off))
		if _, err := f.WriteAt(buf, off); err != nil {
			b.Fatal(err)
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			b.Fatal(err)
		}
		off += int64(len(buf))
		took.Add(time.Since(begun))
	}
	report(b, took.Summary())
}

func report(b *testing.B, l latency.Summary) {
	b.ReportMetric(l.P50*1000, "p50-us")
	b.ReportMetric(l.P99*1000, "p99-us")
}

// BenchmarkCommitWhileCompacting commits a row of 4 KiB every 5 ms while 300 MB of others are
// compacted; one time each: -benchtime 1x.
func BenchmarkCommitWhileCompacting(b *testing.B) {
	opt := testOptions(b.TempDir())
	opt.MemTable, opt.logFile = 16<<20, 0
	d := openTest(b, opt)
	const rows, each = 2_000_000, 50_000
	for n := uint64(0); n < rows; n += each {
		for k := range uint64(each) {
			d.Set(benchKey(n+k), make([]byte, 100))
		}
		commit(b, d)
	}
	drain(b, d)
	debug.FreeOSMemory()
	var took latency.Timer
	var compacting time.Duration
	n, before, peak := uint64(0), goMemory(), uint64(0)
	for b.Loop() {
		done := make(chan error, 1)
		begun := time.Now()
		go func() {
			_, err := d.Compact()
			done <- err
		}()
		for going := true; going; {
			select {
			case err := <-done:
				if err != nil {
					b.Fatal(err)
				}
				going = false
			case <-time.After(5 * time.Millisecond):
			}
			at := time.Now()
			d.Set(benchKey(rows+n), make([]byte, 4096))
			n++
			commit(b, d)
			took.Add(time.Since(at))
			peak = max(peak, goMemory())
		}
		compacting += time.Since(begun)
	}
	l := took.Summary()
	report(b, l)
	b.ReportMetric(l.Max, "max-ms")
	b.ReportMetric(compacting.Seconds()/float64(b.N), "compaction-s")
	b.ReportMetric(float64(before)/(1<<20), "before-MiB")
	b.ReportMetric(float64(peak)/(1<<20), "peak-MiB")
}

// goMemory is what Go holds of the machine's memory; mapped files are not in it.
func goMemory() uint64 {
	m := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(m)
	return m[0].Value.Uint64() - m[1].Value.Uint64()
}

// BenchmarkGetWhileCommitting reads stored rows while 2,000 others are committed
// at a time, without a pause.
func BenchmarkGetWhileCommitting(b *testing.B) {
	d := benchStored(b)
	stop, done := make(chan struct{}), make(chan struct{})
	var rows int
	go func() {
		defer close(done)
		for n := uint64(0); ; {
			select {
			case <-stop:
				return
			default:
			}
			for range 2000 {
				d.Set(benchKey(2*benchRows+n%benchRows), make([]byte, 100))
				n++
			}
			rows += 2000
			d.Freeze()
			if err := d.Write(nil); err != nil {
				b.Error(err)
				return
			}
		}
	}()
	var took latency.Timer
	begun := time.Now()
	for b.Loop() {
		at := time.Now()
		if _, err := d.Get(benchKey(rand.Uint64N(benchRows))); err != nil {
			b.Fatal(err)
		}
		took.Add(time.Since(at))
	}
	close(stop)
	<-done
	report(b, took.Summary())
	b.ReportMetric(float64(rows)/time.Since(begun).Seconds(), "rows/s")
}
