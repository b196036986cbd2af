package tiering

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/quarxtor/quarxfs/tiering/disk/faultdisk"
	"github.com/quarxtor/quarxfs/tiering/segment"
	"github.com/zeebo/blake3"
)

// A disk that takes no file is asked for the same one at each try: no number is used up by that.
func TestNoFileTakesNoNumber(t *testing.T) {
	d := faultdisk.New()
	s := open(t, Options{HotDir: "/hot", SegmentSize: 16 << 10, FS: d})
	first := mustAppend(t, s, record(segment.Data, segment.Zstd, content(0, 3000)))
	d.Fail(func(faultdisk.Op) error { return syscall.EIO })
	for i := range uint64(20) {
		if _, err := s.Append(record(segment.Data, segment.Zstd, content(i, 3000))); !errors.Is(err, syscall.EIO) {
			t.Fatalf("append: %v", err)
		}
	}
	d.Fail(nil)
	last := mustAppend(t, s, record(segment.Data, segment.Zstd, content(1, 3000)))
	if n := last.Segment - first.Segment; n == 0 || n > 2 { // one may have been there already
		t.Errorf("the segment after %d is %d", first.Segment, last.Segment)
	}
}

// A model knows what a Set has acknowledged.
type model struct {
	mu     sync.Mutex
	stored []stored
	synced int // of stored, those that a successful Sync covers
}

type stored struct {
	plain []byte
	loc   Location
}

func (m *model) append(s *Set, r Record, plain []byte) error {
	loc, err := s.Append(r)
	if err == nil {
		m.mu.Lock()
		m.stored = append(m.stored, stored{plain, loc})
		m.mu.Unlock()
	}
	return err
}

func (m *model) sync(s *Set) error {
	m.mu.Lock()
	n := len(m.stored)
	m.mu.Unlock()
	err := s.Sync()
	if err == nil {
		m.mu.Lock()
		m.synced = max(m.synced, n)
		m.mu.Unlock()
	}
	return err
}

// check compares a Set with the first n records of the model: each is there,
// and whatever else a scan finds is whole.
func (m *model) check(t *testing.T, s *Set, n int) {
	t.Helper()
	for _, st := range m.stored[:n] {
		got, err := s.Get(context.Background(), blake3.Sum256(st.plain), st.loc)
		if err != nil || !bytes.Equal(got, st.plain) {
			t.Fatalf("%+v: %v", st.loc, err)
		}
	}
	found := map[Location]bool{}
	_, err := s.Scan(func(loc Location, h segment.Header) error {
		found[loc] = true
		_, _, err := s.Read(loc)
		return err
	})
	if err != nil {
		t.Fatalf("scan: %v", err)
	}
	for _, st := range m.stored[:n] {
		if !found[st.loc] {
			t.Fatalf("scan lacks %+v", st.loc)
		}
	}
}

func reopenAndCheck(t *testing.T, d *faultdisk.Disk, m *model) {
	t.Helper()
	s, err := Open(faultOptions(d))
	if err != nil {
		t.Fatalf("reopen: %v", err)
	}
	m.check(t, s, m.synced)
	if err := s.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
}

func faultOptions(d *faultdisk.Disk) Options {
	return Options{HotDir: "/hot", SegmentSize: 6000, Verify: verify, FS: d, OpenFiles: 2}
}

// crashRun lets several goroutines append and sync until the power fails at
// operation n, and returns the disk after that.
func crashRun(t *testing.T, d *faultdisk.Disk, m *model, rng *rand.Rand, n int) *faultdisk.Disk {
	var off atomic.Bool
	stop := d.Ops() + n
	d.Fail(func(op faultdisk.Op) error {
		if op.N >= stop {
			off.Store(true)
			return syscall.EIO
		}
		return nil
	})
	s, err := Open(faultOptions(d))
	if err != nil {
		if !off.Load() {
			t.Fatalf("open: %v", err)
		}
		return d.Crash(rng)
	}
	var wg sync.WaitGroup
	for range 3 {
		seed := rng.Uint64()
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, 1))
			for !off.Load() {
				plain := content(rng.Uint64(), rng.IntN(1500))
				if m.append(s, record(segment.Kind(1+rng.IntN(4)), segment.Codec(rng.IntN(3)), plain), plain) != nil && !off.Load() {
					t.Error("append failed with the power on")
					return
				}
				if rng.IntN(6) == 0 && m.sync(s) != nil && !off.Load() {
					t.Error("sync failed with the power on")
					return
				}
			}
		})
	}
	wg.Wait()
	image := d.Crash(rng)
	s.Close() // the power is off: it can only fail
	return image
}

const crashSeeds = 60

// TestCrashes loses power again and again, also during recovery: what a Sync
// acknowledged is always there, and the rest is whole or gone.
func TestCrashes(t *testing.T) {
	seeds := crashSeeds
	if testing.Short() {
		seeds = 10
	}
	for seed := range seeds {
		rng := rand.New(rand.NewPCG(uint64(seed), 99))
		d, m := faultdisk.New(), &model{}
		for range 4 {
			d = crashRun(t, d, m, rng, 1+rng.IntN(120))
			m.stored = m.stored[:m.synced]
			// Nothing is pending after a crash, so another one is a copy.
			reopenAndCheck(t, d.Crash(rng), m)
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
		s, err := Open(faultOptions(d))
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		plain := []byte("after all")
		if err := errors.Join(m.append(s, record(segment.Data, segment.Raw, plain), plain), m.sync(s)); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		m.check(t, s, m.synced)
		if err := s.Close(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

func changes(op faultdisk.Op) bool {
	return op.Name != "read" && op.Name != "list" && op.Name != "open"
}

// TestEveryFaultOnce fails each changing operation of a workload once: what was
// acknowledged is still read, before and after a crash, and the Set goes on
// unless it was a sync that failed.
func TestEveryFaultOnce(t *testing.T) {
	for _, cause := range []error{syscall.EIO, syscall.ENOSPC} {
		for n := 0; ; n++ {
			d, m := faultdisk.New(), &model{}
			fail, fired := faultdisk.FailNth(n, cause, changes)
			d.Fail(fail)
			appendErr, syncErr := faultWorkload(t, d, m)
			d.Fail(nil)
			if !fired() {
				if appendErr != nil || syncErr != nil {
					t.Errorf("fault %d did not come, but %v, %v", n, appendErr, syncErr)
				}
				break
			}
			for _, err := range []error{appendErr, syncErr} {
				if err != nil && !errors.Is(err, cause) {
					t.Errorf("fault %d became %v", n, err)
				}
			}
			for seed := range uint64(4) {
				image := d.Crash(rand.New(rand.NewPCG(seed, uint64(n))))
				reopenAndCheck(t, image, m)
			}
			if t.Failed() {
				t.Fatalf("fault %d, %v", n, cause)
			}
		}
	}
}

// faultWorkload returns the first errors of Append and of Sync.
func faultWorkload(t *testing.T, d *faultdisk.Disk, m *model) (appendErr, syncErr error) {
	s, err := Open(faultOptions(d))
	if err != nil {
		t.Fatal(err) // a fresh directory needs no changing operation
	}
	for i := range 24 {
		plain := content(uint64(i), 900)
		if err := m.append(s, record(segment.Data, segment.Raw, plain), plain); err != nil && appendErr == nil {
			appendErr = err
		}
		if i%5 == 4 {
			err := m.sync(s)
			if err == nil && syncErr != nil {
				t.Error("sync succeeded after one that failed")
			}
			if syncErr == nil {
				syncErr = err
			}
		}
	}
	m.check(t, s, len(m.stored))
	s.Close() // may be what fails; the crash image is checked
	return appendErr, syncErr
}

// A lost segment fails every Sync until it is forsaken, but does not keep the
// others from being synced.
func TestLostSegment(t *testing.T) {
	d, m := faultdisk.New(), &model{}
	s, err := Open(faultOptions(d))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	a, b := content(1, 700), content(2, 700)
	if err := m.append(s, record(segment.Data, segment.Raw, a), a); err != nil {
		t.Fatal(err)
	}
	first := m.stored[0].loc.Segment
	fail, _ := faultdisk.FailNth(0, syscall.EIO, func(op faultdisk.Op) bool {
		return op.Name == "datasync" && strings.Contains(op.Path, segment.Name(first, ""))
	})
	d.Fail(fail)
	for range 2 {
		if err := s.Sync(); !errors.Is(err, syscall.EIO) {
			t.Fatalf("sync: %v", err)
		}
	}
	if lost := s.Lost(); !slices.Equal(lost, []uint64{first}) {
		t.Fatalf("lost %x, want %x", lost, first)
	}
	if err := m.append(s, record(segment.Data, segment.Raw, b), b); err != nil {
		t.Fatal(err)
	}
	if m.stored[1].loc.Segment == first {
		t.Error("appended to a lost segment")
	}
	m.check(t, s, 2)
	if err := s.Sync(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("sync before the segment is forsaken: %v", err)
	}
	s.Forsake(s.Lost())
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	m.stored = m.stored[1:]
	m.synced = 1
	for seed := range uint64(4) {
		reopenAndCheck(t, d.Crash(rand.New(rand.NewPCG(seed, 1))), m)
	}
}

// After a failed append the next one uses another segment, and what was in the
// failed one stays readable.
func TestFailedAppendRetiresTheSegment(t *testing.T) {
	d, m := faultdisk.New(), &model{}
	s, err := Open(faultOptions(d))
	if err != nil {
		t.Fatal(err)
	}
	a, b := content(1, 700), content(2, 700)
	if err := m.append(s, record(segment.Data, segment.Raw, a), a); err != nil {
		t.Fatal(err)
	}
	first := m.stored[0].loc
	fail, _ := faultdisk.FailNth(0, syscall.ENOSPC, func(op faultdisk.Op) bool {
		return op.Name == "write" && strings.Contains(op.Path, segment.Name(first.Segment, ""))
	})
	d.Fail(fail)
	if err := m.append(s, record(segment.Data, segment.Raw, b), b); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("append on a full disk: %v", err)
	}
	if err := m.append(s, record(segment.Data, segment.Raw, b), b); err != nil {
		t.Fatal(err)
	}
	if m.stored[1].loc.Segment == first.Segment {
		t.Error("the failed segment was appended to")
	}
	if err := m.sync(s); err != nil {
		t.Fatal(err)
	}
	waitSealed(t, s, first.Segment)
	m.check(t, s, 2)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// The life of a segment, as the disk sees it.
func TestOrderOfOperations(t *testing.T) {
	d := faultdisk.New()
	var mu sync.Mutex
	var got []string
	name := strings.TrimSuffix(segment.Name(1, segment.Open), ".open")
	d.Trace(func(op faultdisk.Op) {
		if changes(op) && strings.Contains(op.Path, name) {
			mu.Lock()
			got = append(got, strings.ReplaceAll(op.String(), name, "1"))
			mu.Unlock()
		}
	})
	s, err := Open(faultOptions(d))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		mustAppend(t, s, record(segment.Data, segment.Raw, content(uint64(i), 2000-56)))
		if i == 0 {
			if err := s.Sync(); err != nil {
				t.Fatal(err)
			}
		}
	}
	waitSealed(t, s, 1)
	if err := s.Remove(1); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"create 1.open", "write 1.open 0+32", "datasync 1.open", // before it is used
		"write 1.open 32+2000", "datasync 1.open", // Sync
		"write 1.open 2032+2000",
		"write 1.open 4032+144", "truncate 1.open 4176", "datasync 1.open", "rename 1.open 1.seg", // sealed
		"rename 1.seg 1.trash", "remove 1.trash",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestCrashWhileRemoving(t *testing.T) {
	for seed := range uint64(20) {
		d, m := faultdisk.New(), &model{}
		s, err := Open(faultOptions(d))
		if err != nil {
			t.Fatal(err)
		}
		for i := range 8 {
			plain := content(uint64(i), 1500)
			if err := m.append(s, record(segment.Data, segment.Raw, plain), plain); err != nil {
				t.Fatal(err)
			}
		}
		if err := m.sync(s); err != nil {
			t.Fatal(err)
		}
		number := m.stored[0].loc.Segment
		waitSealed(t, s, number)
		fail, _ := faultdisk.FailNth(int(seed%2), syscall.EIO, func(op faultdisk.Op) bool { return op.Name == "rename" || op.Name == "remove" })
		if seed >= 10 {
			d.Fail(fail)
		}
		s.Remove(number)
		image := d.Crash(rand.New(rand.NewPCG(seed, 5)))
		d.Fail(nil)
		s.Close()
		var kept model
		for _, st := range m.stored {
			if st.loc.Segment != number {
				kept.stored = append(kept.stored, st)
			}
		}
		if s, err = Open(faultOptions(image)); err != nil {
			t.Fatal(err)
		}
		kept.check(t, s, len(kept.stored))
		for _, info := range s.Segments() {
			if info.Number == number && !info.Sealed {
				t.Error("the removed segment came back open")
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A sealed segment whose footer is damaged still gives its records, and says
// that it is damaged.
func TestScanSurvivesDamagedFooter(t *testing.T) {
	d, m := faultdisk.New(), &model{}
	s, err := Open(faultOptions(d))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 8 {
		plain := content(uint64(i), 1500)
		if err := m.append(s, record(segment.Data, segment.Raw, plain), plain); err != nil {
			t.Fatal(err)
		}
	}
	number := m.stored[0].loc.Segment
	waitSealed(t, s, number)
	f, err := d.Open("/hot/" + segment.Name(number, segment.Sealed))
	if err != nil {
		t.Fatal(err)
	}
	size, _ := f.Size()
	f.WriteAt([]byte{1, 2, 3}, size-50)
	found := map[Location]bool{}
	_, err = s.Scan(func(loc Location, _ segment.Header) error { found[loc] = true; return nil })
	if !errors.Is(err, ErrCorrupt) {
		t.Errorf("scan of a damaged footer: %v", err)
	}
	for _, st := range m.stored {
		if !found[st.loc] {
			t.Errorf("scan lacks %+v", st.loc)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	scan := func() (n int) {
		t.Helper()
		s, err := Open(faultOptions(d))
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Scan(func(Location, segment.Header) error { n++; return nil })
		if !errors.Is(err, ErrCorrupt) {
			t.Errorf("scan of a damaged segment: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		return n
	}
	f.WriteAt(make([]byte, 32), 0) // and now its file header, which the trailer repeats
	if n := scan(); n != len(m.stored) {
		t.Errorf("%d records without the file header, want %d", n, len(m.stored))
	}
	f.WriteAt(make([]byte, 40), size-40) // and the trailer: other segments are still found
	if n := scan(); n != len(m.stored)-3 {
		t.Errorf("%d records of the other segments, want %d", n, len(m.stored)-3)
	}
}

// A killed process leaves in the page cache what it appended. The next one
// finds it, and its Sync covers it.
func TestSyncCoversWhatAKilledProcessWrote(t *testing.T) {
	d, m := faultdisk.New(), &model{}
	killed, err := Open(faultOptions(d))
	if err != nil {
		t.Fatal(err)
	}
	plain := content(1, 1000)
	if err := m.append(killed, record(segment.Data, segment.S2, plain), plain); err != nil {
		t.Fatal(err)
	}
	s, err := Open(faultOptions(d))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.sync(s); err != nil {
		t.Fatal(err)
	}
	for seed := range uint64(8) {
		reopenAndCheck(t, d.Crash(rand.New(rand.NewPCG(seed, 1))), m)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// A killed process closes nothing; this one must only end its goroutines. The
	// empty segment that it kept for later is the other's by now, and may be gone.
	if err := killed.Close(); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
}

// Cut an open segment anywhere: Open keeps the whole records, drops the rest,
// and goes on behind them.
func TestTornTailAtEveryByte(t *testing.T) {
	d, m := faultdisk.New(), &model{}
	s, err := Open(faultOptions(d))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		plain := content(uint64(i), 150)
		if err := m.append(s, record(segment.Data, segment.Raw, plain), plain); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.sync(s); err != nil {
		t.Fatal(err)
	}
	name := "/hot/" + segment.Name(m.stored[0].loc.Segment, segment.Open)
	for size := int64(0); size <= int64(m.stored[2].loc.Offset+m.stored[2].loc.Length); size++ {
		image := d.Crash(rand.New(rand.NewPCG(0, 0)))
		f, err := image.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		whole, end := model{}, int64(segment.FileHeaderSize)
		for _, st := range m.stored {
			if e := int64(st.loc.Offset) + int64(st.loc.Length); e <= size {
				whole.stored, end = append(whole.stored, st), e
			}
		}
		s, err := Open(faultOptions(image))
		if err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		if got, _ := f.Size(); size >= segment.FileHeaderSize && got != end {
			t.Fatalf("%d bytes: %d left, want %d", size, got, end)
		}
		whole.check(t, s, len(whole.stored))
		loc := mustAppend(t, s, record(segment.Data, segment.Raw, []byte("next")))
		if len(whole.stored) > 0 && int64(loc.Offset) != end {
			t.Fatalf("%d bytes: appended at %d, want %d", size, loc.Offset, end)
		}
		requireGet(t, s, []byte("next"), loc)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
