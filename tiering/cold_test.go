package tiering

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/zeebo/blake3"

	"github.com/quarxtor/quarxfs/tiering/disk"
	"github.com/quarxtor/quarxfs/tiering/disk/faultdisk"
	"github.com/quarxtor/quarxfs/tiering/segment"
)

const coldID = "000102030405060708090a0b0c0d0e0f"

// coldSet opens a Set with a cold tier whose disk is d.
func coldSet(t *testing.T, dir string, d disk.FS, timeout time.Duration) *Set {
	t.Helper()
	return open(t, Options{HotDir: filepath.Join(dir, "hot"), SegmentSize: 16 << 10, OpenFiles: 1, Cold: &ColdOptions{
		Dir: filepath.Join(dir, "cold"), ID: coldID, FS: d, Timeout: timeout, Retry: 10 * time.Millisecond,
	}})
}

func makeCold(t *testing.T, dir string) {
	t.Helper()
	if err := MakeCold(disk.OS(), filepath.Join(dir, "cold"), coldID); err != nil {
		t.Fatal(err)
	}
}

func mustAppendTo(t *testing.T, s *Set, tier uint8, r Record) Location {
	t.Helper()
	loc, err := s.AppendTo(tier, r)
	if err != nil {
		t.Fatal(err)
	}
	return loc
}

func requireReach(t *testing.T, s *Set, want error) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		err := s.Reach(Cold)
		if errors.Is(err, want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("reach: %v, want %v", err, want)
		}
	}
}

func TestColdTierKeepsRecords(t *testing.T) {
	dir := t.TempDir()
	makeCold(t, dir)
	s := coldSet(t, dir, nil, 0)
	var locs []Location
	for i := range 40 {
		r := record(segment.Data, segment.Raw, content(uint64(i), 3000))
		loc := mustAppendTo(t, s, uint8(i%2), r)
		if loc.Tier != uint8(i%2) || TierOf(loc.Segment) != loc.Tier {
			t.Fatalf("record %d is at %+v", i, loc)
		}
		locs = append(locs, loc)
	}
	if err := errors.Join(s.Sync(), s.SyncCold(), s.Close()); err != nil {
		t.Fatal(err)
	}
	s = coldSet(t, dir, nil, 0)
	found := map[Location]bool{}
	if hidden, err := s.Scan(func(loc Location, _ segment.Header) error { found[loc] = true; return nil }); hidden != nil || err != nil {
		t.Fatal(err)
	}
	for i, loc := range locs {
		requireGet(t, s, content(uint64(i), 3000), loc)
		if !found[loc] {
			t.Errorf("the scan lacks %+v", loc)
		}
	}
	st := s.Stats()
	if st.Cold.Segments == 0 || st.Cold.Bytes == 0 || st.Cold.Reads != 20 || st.Hot.Reads != 20 {
		t.Errorf("stats: %+v", st)
	}
	waitSealed(t, s, locs[1].Segment)
	if err := s.Remove(locs[1].Segment); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Read(locs[1]); !errors.Is(err, ErrNotFound) {
		t.Errorf("a removed segment: %v", err)
	}
}

func TestNoColdTier(t *testing.T) {
	s := open(t, Options{})
	if _, err := s.AppendTo(Cold, record(segment.Data, segment.Raw, []byte("x"))); !errors.Is(err, ErrNoTier) {
		t.Errorf("append: %v", err)
	}
	if err := s.SyncCold(); !errors.Is(err, ErrNoTier) {
		t.Errorf("sync: %v", err)
	}
	if _, _, err := s.Read(Location{Tier: Cold, Segment: 1<<tierShift + 1, Length: 100}); !errors.Is(err, ErrNotFound) {
		t.Errorf("read: %v", err)
	}
}

// TestColdDirectoryGoesAndComes takes the directory away, and puts an empty one
// in its place, as when a disk is unmounted.
func TestColdDirectoryGoesAndComes(t *testing.T) {
	dir := t.TempDir()
	makeCold(t, dir)
	s := coldSet(t, dir, nil, 0)
	hot := mustAppend(t, s, record(segment.Data, segment.S2, content(1, 2000)))
	var cold []Location
	for i := range 30 {
		cold = append(cold, mustAppendTo(t, s, Cold, record(segment.Data, segment.Raw, content(uint64(i), 3000))))
	}
	if err := s.SyncCold(); err != nil {
		t.Fatal(err)
	}
	waitSealed(t, s, cold[0].Segment)
	there, away := filepath.Join(dir, "cold"), filepath.Join(dir, "away")
	if err := os.Rename(there, away); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(there, 0o700); err != nil {
		t.Fatal(err)
	}
	_, _, err := s.Read(cold[0]) // its file is not open yet
	if !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrNotFound) || errors.Is(err, ErrCorrupt) {
		t.Fatalf("read: %v", err)
	}
	requireReach(t, s, ErrUnavailable)
	if _, err := s.AppendTo(Cold, record(segment.Data, segment.Raw, []byte("x"))); !errors.Is(err, ErrUnavailable) {
		t.Errorf("append: %v", err)
	}
	if hidden, err := s.Scan(func(Location, segment.Header) error { return nil }); !errors.Is(hidden, ErrUnavailable) || err != nil {
		t.Errorf("scan: %v, %v", hidden, err)
	}
	requireGet(t, s, content(1, 2000), hot)
	if err := s.Sync(); err != nil {
		t.Errorf("sync of the hot tier: %v", err)
	}
	if names, err := os.ReadDir(there); err != nil || len(names) > 0 {
		t.Errorf("the wrong directory has %v in it, %v", names, err)
	}
	if err := errors.Join(os.Remove(there), os.Rename(away, there)); err != nil {
		t.Fatal(err)
	}
	requireReach(t, s, nil)
	for i, loc := range cold {
		requireGet(t, s, content(uint64(i), 3000), loc)
	}
	requireGet(t, s, content(99, 100), mustAppendTo(t, s, Cold, record(segment.Data, segment.Zstd, content(99, 100))))
}

func TestColdTierMissingAtOpen(t *testing.T) {
	dir := t.TempDir()
	s := coldSet(t, dir, nil, 0)
	requireReach(t, s, ErrUnavailable)
	if _, err := os.Stat(filepath.Join(dir, "cold")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory was made: %v", err)
	}
	other := strings.Repeat("f", 32)
	if err := MakeCold(disk.OS(), filepath.Join(dir, "cold"), other); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	requireReach(t, s, ErrUnavailable) // it is another store's
	if err := errors.Join(UnmakeCold(disk.OS(), filepath.Join(dir, "cold"), other), os.Remove(filepath.Join(dir, "cold"))); err != nil {
		t.Fatal(err)
	}
	makeCold(t, dir)
	requireReach(t, s, nil)
}

func TestMakeColdWantsAnEmptyDirectory(t *testing.T) {
	dir := t.TempDir()
	makeCold(t, dir)
	if err := MakeCold(disk.OS(), filepath.Join(dir, "cold"), coldID); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second time: %v", err)
	}
}

// A hanging disk lets no read end while it hangs.
type hanging struct {
	disk.FS
	mu     sync.Mutex
	resume chan struct{} // nil: not hanging
	asked  int           // reads and openings that came so far
}

func (h *hanging) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.asked
}

func (h *hanging) hang() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.resume = make(chan struct{})
}

func (h *hanging) goOn() {
	h.mu.Lock()
	defer h.mu.Unlock()
	close(h.resume)
	h.resume = nil
}

func (h *hanging) wait() {
	h.mu.Lock()
	resume := h.resume
	h.asked++
	h.mu.Unlock()
	if resume != nil {
		<-resume
	}
}

func (h *hanging) Open(path string) (disk.File, error) {
	h.wait()
	f, err := h.FS.Open(path)
	return &hangingFile{f, h}, err
}

// Create has reads hang through the handle of who made a file, which lasts beyond its sealing.
func (h *hanging) Create(path string) (disk.File, error) {
	f, err := h.FS.Create(path)
	if err != nil {
		return nil, err
	}
	return &hangingFile{f, h}, nil
}

type hangingFile struct {
	disk.File
	h *hanging
}

func (f *hangingFile) ReadAt(p []byte, off int64) (int, error) {
	f.h.wait()
	return f.File.ReadAt(p, off)
}

// TestInterruptedColdRead: who waits for a cold disk can leave, whether it began the read or joined
// it, and who stays gets the block.
func TestInterruptedColdRead(t *testing.T) {
	dir := t.TempDir()
	makeCold(t, dir)
	h := &hanging{FS: disk.OS()}
	s := coldSet(t, dir, h, time.Minute)
	plain := content(0, 3000)
	var loc Location
	for i := range 30 { // more than a segment
		if at := mustAppendTo(t, s, Cold, record(segment.Data, segment.Raw, content(uint64(i), 3000))); i == 0 {
			loc = at
		}
	}
	waitSealed(t, s, loc.Segment)
	h.hang()
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan error)
	for range 2 {
		go func() { _, err := s.Get(ctx, blake3.Sum256(plain), loc); left <- err }()
		go func() { _, err := s.Borrow(ctx, blake3.Sum256(plain), loc); left <- err }()
	}
	stayed := make(chan error)
	go func() { _, err := s.Get(context.Background(), blake3.Sum256(plain), loc); stayed <- err }()
	cancel()
	for range 4 {
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("who left: %v", err)
		}
	}
	h.goOn()
	if err := <-stayed; err != nil {
		t.Errorf("who stayed: %v", err)
	}
	requireGet(t, s, plain, loc)
}

func TestHangingColdDisk(t *testing.T) {
	dir := t.TempDir()
	makeCold(t, dir)
	h := &hanging{FS: disk.OS()}
	s := coldSet(t, dir, h, time.Second) // more than a busy machine keeps a read waiting
	var cold []Location
	for i := range 30 {
		cold = append(cold, mustAppendTo(t, s, Cold, record(segment.Data, segment.Raw, content(uint64(i), 3000))))
	}
	waitSealed(t, s, cold[0].Segment)
	h.hang()
	// Ends at all, though the disk does not answer before goOn.
	_, err := s.Get(context.Background(), blake3.Sum256(content(0, 3000)), cold[0])
	if !errors.Is(err, ErrUnavailable) {
		t.Fatal(err)
	}
	// Others are refused, and do not wait for the disk in turn.
	asked := h.count()
	if _, _, err := s.Read(cold[1]); !errors.Is(err, ErrUnavailable) || h.count() != asked {
		t.Errorf("the second reader asked the disk %d times: %v", h.count()-asked, err)
	}
	requireReach(t, s, ErrUnavailable) // while what hangs may still be done
	h.goOn()
	requireReach(t, s, nil)
	for i, loc := range cold {
		requireGet(t, s, content(uint64(i), 3000), loc)
	}
}

// TestColdReadErrorIsItsOwn: a sector that does not read is no reason to give
// the whole tier up.
func TestColdReadErrorIsItsOwn(t *testing.T) {
	d := faultdisk.New()
	if err := MakeCold(d, "/cold", coldID); err != nil {
		t.Fatal(err)
	}
	s := open(t, Options{HotDir: "/hot", SegmentSize: 16 << 10, FS: d, Cold: &ColdOptions{Dir: "/cold", ID: coldID}})
	loc := mustAppendTo(t, s, Cold, record(segment.Data, segment.Zstd, content(1, 3000)))
	broken := errors.New("medium error")
	d.Fail(func(op faultdisk.Op) error {
		if op.Name == "read" && strings.HasSuffix(op.Path, ".open") {
			return broken
		}
		return nil
	})
	if _, _, err := s.Read(loc); !errors.Is(err, broken) || errors.Is(err, ErrUnavailable) {
		t.Errorf("read: %v", err)
	}
	d.Fail(nil)
	requireReach(t, s, nil)
	requireGet(t, s, content(1, 3000), loc)
}

// TestColdSyncVouchesForNothingLost: what was appended before a sync that
// failed is not covered by a later one, and the hot tier's Sync does not care.
func TestColdSyncVouchesForNothingLost(t *testing.T) {
	d := faultdisk.New()
	if err := MakeCold(d, "/cold", coldID); err != nil {
		t.Fatal(err)
	}
	s := open(t, Options{HotDir: "/hot", SegmentSize: 16 << 10, FS: d, Cold: &ColdOptions{Dir: "/cold", ID: coldID}})
	first := mustAppendTo(t, s, Cold, record(segment.Data, segment.Zstd, content(1, 3000)))
	fail, fired := faultdisk.FailNth(0, errors.New("injected"), func(op faultdisk.Op) bool { return op.Name == "datasync" })
	d.Fail(fail)
	if err := s.SyncCold(); err == nil || !fired() {
		t.Fatalf("the fault was swallowed: %v", err)
	}
	d.Fail(nil)
	if err := s.Sync(); err != nil {
		t.Errorf("the hot tier: %v", err)
	}
	second := mustAppendTo(t, s, Cold, record(segment.Data, segment.Zstd, content(2, 3000)))
	if second.Segment == first.Segment {
		t.Error("a lost segment was appended to")
	}
	if err := s.SyncCold(); err != nil {
		t.Errorf("later: %v", err)
	}
	if lost := s.Lost(); len(lost) > 0 {
		t.Errorf("lost of the hot tier: %v", lost)
	}
}

// fullForOwner is a disk that has no room for the file that says whose a tier is.
type fullForOwner struct{ disk.FS }

func (d fullForOwner) Create(path string) (disk.File, error) {
	if strings.Contains(path, OwnerName) {
		return nil, syscall.ENOSPC
	}
	return d.FS.Create(path)
}

// TestOwnerCannotBeNoted: a tier that is nobody's yet, on a full disk, can be read all the same.
// One that is another's does not become ours without that being noted.
func TestOwnerCannotBeNoted(t *testing.T) {
	dir := t.TempDir()
	makeCold(t, dir)
	s := coldSet(t, dir, nil, 0)
	loc := mustAppendTo(t, s, Cold, record(segment.Data, segment.Raw, content(1, 3000)))
	if err := errors.Join(s.SyncCold(), s.Close()); err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(dir, "cold")
	cold := ColdOptions{Dir: at, ID: coldID, Retry: time.Hour, FS: fullForOwner{disk.OS()}, Owner: Owner{ID: "me", Path: "/me"}}
	s = open(t, Options{HotDir: filepath.Join(dir, "hot"), SegmentSize: 16 << 10, Cold: &cold})
	requireGet(t, s, content(1, 3000), loc)
	if o, err := OwnerOf(disk.OS(), at); err != nil || o.ID != "" || s.Foreign() != nil {
		t.Errorf("%+v, %v, %v", o, err, s.Foreign())
	}
	long := Owner{ID: "other", Path: "/" + strings.Repeat("\xff", 4094)}
	if err := own(disk.OS(), at, long); err != nil {
		t.Fatal(err)
	}
	if o, err := OwnerOf(disk.OS(), at); err != nil || o != long {
		t.Errorf("an owner with a long path: %+v, %v", o, err)
	}
	cold.Take = true
	if err := s.RelocateCold(cold); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("taken from another: %v", err)
	}
}
