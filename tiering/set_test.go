package tiering

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/quarxtor/quarxfs/tiering/disk"
	"github.com/quarxtor/quarxfs/tiering/segment"
	"github.com/zeebo/blake3"
)

func verify(_ segment.Kind, id [32]byte, plain []byte) bool { return blake3.Sum256(plain) == id }

func open(t testing.TB, o Options) *Set {
	t.Helper()
	if o.HotDir == "" {
		o.HotDir = filepath.Join(t.TempDir(), "hot")
	}
	o.Verify = verify
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// content returns bytes that every codec makes smaller, if there are enough.
func content(seed uint64, n int) []byte {
	rng := rand.New(rand.NewPCG(seed, 7))
	words := make([]byte, 4096)
	for i := range words {
		words[i] = byte(rng.Uint32())
	}
	p := make([]byte, 0, n+32)
	for len(p) < n {
		i := rng.IntN(len(words) - 32)
		p = append(p, words[i:i+1+rng.IntN(32)]...)
	}
	return p[:n]
}

func record(kind segment.Kind, want segment.Codec, plain []byte) Record {
	codec, payload := segment.Compress(want, nil, plain)
	return Record{ID: blake3.Sum256(plain), Kind: kind, Codec: codec, RawLen: uint32(len(plain)), Payload: payload}
}

func mustAppend(t testing.TB, s *Set, r Record) Location {
	t.Helper()
	loc, err := s.Append(r)
	if err != nil {
		t.Fatal(err)
	}
	return loc
}

// getEachWay borrows a block and gets it. What comes of it must be the same.
func getEachWay(t testing.TB, s *Set, id [32]byte, loc Location) ([]byte, error) {
	t.Helper()
	l, lentErr := s.Borrow(context.Background(), id, loc)
	lent := bytes.Clone(l.Plain)
	l.Return()
	plain, err := s.Get(context.Background(), id, loc)
	same := bytes.Equal(lent, plain) && (err == nil) == (lentErr == nil)
	for _, kind := range []error{ErrNotFound, ErrCorrupt, ErrUnavailable, ErrNoTier} {
		same = same && errors.Is(err, kind) == errors.Is(lentErr, kind)
	}
	if !same {
		t.Errorf("%+v: borrowed %d bytes, %v; got %d, %v", loc, len(lent), lentErr, len(plain), err)
	}
	return plain, err
}

func requireGet(t testing.TB, s *Set, plain []byte, loc Location) {
	t.Helper()
	got, err := s.Get(context.Background(), blake3.Sum256(plain), loc)
	if err != nil {
		t.Fatalf("get %+v: %v", loc, err)
	}
	if !bytes.Equal(got, plain) {
		t.Fatalf("get %+v: wrong bytes", loc)
	}
}

func TestAppendGetAcrossReopen(t *testing.T) {
	for _, cacheBytes := range []int64{0, 1 << 20} {
		dir := filepath.Join(t.TempDir(), "a", "hot")
		o := Options{HotDir: dir, SegmentSize: 64 << 10, CacheBytes: cacheBytes, Verify: verify, OpenFiles: 3}
		var plains [][]byte
		var locs []Location
		rng := rand.New(rand.NewPCG(1, 1))
		for round := range 4 {
			s, err := Open(o)
			if err != nil {
				t.Fatal(err)
			}
			for i := range 60 {
				plain := content(uint64(round*100+i), rng.IntN(20_000))
				plains = append(plains, plain)
				locs = append(locs, mustAppend(t, s, record(segment.Data, segment.Codec(i%3), plain)))
			}
			for i, loc := range locs {
				if got, err := getEachWay(t, s, blake3.Sum256(plains[i]), loc); err != nil || !bytes.Equal(got, plains[i]) {
					t.Fatalf("get %+v: %v", loc, err)
				}
			}
			if err := s.Sync(); err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Append(record(segment.Data, segment.Raw, plains[0])); !errors.Is(err, ErrClosed) {
				t.Errorf("append to a closed set: %v", err)
			}
		}
		opens, err := filepath.Glob(filepath.Join(dir, "*.open"))
		if err != nil || len(opens) > 1 {
			t.Errorf("open segments after close: %v, %v", opens, err)
		}
		s, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		found := map[Location][32]byte{}
		if _, err := s.Scan(func(loc Location, h segment.Header) error { found[loc] = h.ID; return nil }); err != nil {
			t.Error(err)
		}
		for i, loc := range locs {
			if found[loc] != blake3.Sum256(plains[i]) {
				t.Errorf("scan lacks %+v", loc)
			}
		}
		if len(found) != len(locs) {
			t.Errorf("scan found %d records, want %d", len(found), len(locs))
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestConcurrentAppendGetSync(t *testing.T) {
	s := open(t, Options{SegmentSize: 256 << 10, CacheBytes: 1 << 20, OpenFiles: 4})
	var failed atomic.Int32
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(g), 2))
			var plains [][]byte
			var locs []Location
			for i := range 150 {
				plain := content(uint64(g*1000+i), rng.IntN(16_000))
				loc, err := s.Append(record(segment.Data, segment.S2, plain))
				if err != nil {
					t.Error(err)
					failed.Add(1)
					return
				}
				plains, locs = append(plains, plain), append(locs, loc)
				j := rng.IntN(len(locs))
				s.Prefetch(blake3.Sum256(plains[j]), locs[j])
				k := rng.IntN(len(locs))
				got, err := s.Get(context.Background(), blake3.Sum256(plains[k]), locs[k])
				if err != nil || !bytes.Equal(got, plains[k]) {
					t.Errorf("get: %v", err)
					return
				}
				if i%40 == 0 {
					if err := s.Sync(); err != nil {
						t.Error(err)
					}
					s.Segments()
					s.Stats()
				}
			}
		})
	}
	wg.Wait()
	n := 0
	if _, err := s.Scan(func(Location, segment.Header) error { n++; return nil }); err != nil || n != 8*150 {
		t.Errorf("scan: %d records, %v", n, err)
	}
	st := s.Stats()
	if st.Hot.Writes != 8*150 || st.RAM.Bytes > st.RAM.Limit+1<<20 || st.Hot.Segments < 10 {
		t.Errorf("stats: %+v", st)
	}
}

func TestSingleFlightReadsOnce(t *testing.T) {
	s := open(t, Options{CacheBytes: 64 << 20})
	plain := content(1, 4<<20)
	loc := mustAppend(t, s, record(segment.Data, segment.Zstd, plain))
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() { requireGet(t, s, plain, loc) })
	}
	wg.Wait()
	if n := s.Stats().Hot.Reads; n != 1 {
		t.Errorf("%d reads", n)
	}
}

func TestRemove(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{HotDir: dir, SegmentSize: 8 << 10})
	var locs []Location
	for i := range 10 {
		locs = append(locs, mustAppend(t, s, record(segment.Data, segment.Raw, content(uint64(i), 4<<10))))
	}
	waitSealed(t, s, locs[0].Segment)
	if err := s.Remove(locs[9].Segment); !errors.Is(err, ErrOpen) {
		t.Errorf("remove an open segment: %v", err)
	}
	if err := s.Remove(locs[0].Segment); err != nil {
		t.Fatal(err)
	}
	plain := content(0, 4<<10)
	if _, err := getEachWay(t, s, blake3.Sum256(plain), locs[0]); !errors.Is(err, ErrNotFound) {
		t.Errorf("get from a removed segment: %v", err)
	}
	if err := s.Remove(locs[0].Segment); !errors.Is(err, ErrNotFound) {
		t.Errorf("remove twice: %v", err)
	}
	if trash, _ := filepath.Glob(filepath.Join(dir, "*.trash")); len(trash) > 0 {
		t.Errorf("left: %v", trash)
	}
}

func waitSealed(t testing.TB, s *Set, number uint64) {
	t.Helper()
	for range 5000 {
		if t, err := s.holder(number); err == nil {
			if sealed, _ := t.table.isSealed(number); sealed {
				return
			}
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatalf("segment %d is not sealed", number)
}

// Every byte of a stored record matters: change it and Get must say ErrCorrupt.
func TestDamageIsReported(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{HotDir: dir})
	for _, codec := range []segment.Codec{segment.Raw, segment.S2, segment.Zstd} {
		plain := bytes.Repeat(content(uint64(codec), 100), 3)
		loc := mustAppend(t, s, record(segment.Tree, codec, plain))
		f, err := os.OpenFile(filepath.Join(dir, segment.Name(loc.Segment, segment.Open)), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		for i := range int64(loc.Length) {
			var b [1]byte
			if _, err := f.ReadAt(b[:], int64(loc.Offset)+i); err != nil {
				t.Fatal(err)
			}
			for _, flip := range []byte{1, 0x80, 0xff} {
				f.WriteAt([]byte{b[0] ^ flip}, int64(loc.Offset)+i)
				_, err := getEachWay(t, s, blake3.Sum256(plain), loc)
				var corrupt *CorruptError
				if !errors.Is(err, ErrCorrupt) || !errors.As(err, &corrupt) || corrupt.Segment != loc.Segment || corrupt.Offset != loc.Offset {
					t.Fatalf("%v, byte %d: %v", codec, i, err)
				}
			}
			f.WriteAt(b[:], int64(loc.Offset)+i)
		}
		requireGet(t, s, plain, loc)
		f.Close()
		for _, wrong := range []Location{
			{Segment: loc.Segment, Offset: loc.Offset + 1, Length: loc.Length},
			{Segment: loc.Segment, Offset: loc.Offset, Length: loc.Length + 1},
			{Segment: loc.Segment, Offset: loc.Offset, Length: 5},
			{Segment: loc.Segment, Offset: 1 << 30, Length: loc.Length},
			{Segment: loc.Segment, Offset: loc.Offset, Length: 1 << 31},
		} {
			if _, err := getEachWay(t, s, blake3.Sum256(plain), wrong); !errors.Is(err, ErrCorrupt) {
				t.Errorf("location %+v: %v", wrong, err)
			}
		}
		if _, err := getEachWay(t, s, [32]byte{1}, loc); !errors.Is(err, ErrCorrupt) {
			t.Errorf("another block's location: %v", err)
		}
	}
	if _, err := getEachWay(t, s, [32]byte{1}, Location{Segment: 99, Length: 100}); !errors.Is(err, ErrNotFound) {
		t.Errorf("no such segment: %v", err)
	}
	if _, err := getEachWay(t, s, [32]byte{1}, Location{Tier: 9, Length: 100}); !errors.Is(err, ErrNotFound) {
		t.Errorf("no such tier: %v", err)
	}
}

func TestVerifyHasTheLastWord(t *testing.T) {
	s := open(t, Options{CacheBytes: 1 << 20})
	r := record(segment.Data, segment.S2, content(1, 1000))
	r.ID[0] ^= 1
	loc := mustAppend(t, s, r)
	if _, err := getEachWay(t, s, r.ID, loc); !errors.Is(err, ErrCorrupt) {
		t.Errorf("wrong ID: %v", err)
	}
	if _, ok := s.Cached(r.ID); ok {
		t.Error("wrong bytes in RAM")
	}
}

// TestBorrow: what is borrowed is not left in RAM, and its memory is nobody else's before it is
// returned.
func TestBorrow(t *testing.T) {
	s := open(t, Options{SegmentSize: 1 << 20, CacheBytes: 8 << 20})
	var plains [][]byte
	var ids [][32]byte
	var locs []Location
	for i, n := range []int{1, 4096, 1<<13 - 1, 1 << 13, 1<<13 + 1, 20_000, 1 << 16, 1<<16 + 1, 200_000, 1 << 20, 1<<20 + 1, 2 << 20} {
		for codec := range segment.Codec(3) {
			plain := content(uint64(3*i)+uint64(codec), n)
			plains, ids = append(plains, plain), append(ids, blake3.Sum256(plain))
			locs = append(locs, mustAppend(t, s, record(segment.Data, codec, plain)))
		}
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(g), 3))
			for range 30 {
				var loans []Loan
				picked := rng.Perm(len(ids))[:4]
				for _, i := range picked {
					l, err := s.Borrow(context.Background(), ids[i], locs[i])
					if err != nil {
						t.Error(err)
					}
					loans = append(loans, l)
				}
				for k, i := range picked {
					if !bytes.Equal(loans[k].Plain, plains[i]) {
						t.Errorf("the bytes of block %d are others", i)
					}
					loans[k].Return()
				}
			}
		})
	}
	wg.Wait()
	for i, id := range ids {
		if s.InRAM(id) {
			t.Errorf("block %d was borrowed and is in RAM", i)
		}
	}
	if ram := s.Stats().RAM; ram.Hits != 0 || ram.Misses != 4*30*4 {
		t.Errorf("%+v", ram)
	}
	// What is in RAM is lent from there.
	requireGet(t, s, plains[8], locs[8])
	l, err := s.Borrow(context.Background(), ids[8], locs[8])
	if err != nil || !bytes.Equal(l.Plain, plains[8]) || s.Stats().RAM.Hits != 1 {
		t.Errorf("%v, %+v", err, s.Stats().RAM)
	}
	l.Return()
	requireGet(t, s, plains[8], locs[8])
}

func TestInsertCachedStored(t *testing.T) {
	s := open(t, Options{CacheBytes: 1 << 20})
	plain := content(5, 5000)
	r := record(segment.File, segment.S2, plain)
	s.Insert(r.ID, plain)
	if got, ok := s.Cached(r.ID); !ok || &got[0] != &plain[0] {
		t.Error("inserted block is not in RAM")
	}
	loc := mustAppend(t, s, r)
	back, err := s.Stored(loc)
	if err != nil || back.ID != r.ID || back.Kind != r.Kind || back.Codec != segment.S2 || back.RawLen != 5000 || !bytes.Equal(back.Payload, r.Payload) {
		t.Errorf("Stored: %x as %v, %v, %d bytes, %v", back.ID, back.Kind, back.Codec, back.RawLen, err)
	}
	h, got, err := s.Read(loc)
	if err != nil || h.ID != r.ID || !bytes.Equal(got, plain) {
		t.Errorf("Read: %+v, %v", h, err)
	}
}

func TestBadArguments(t *testing.T) {
	for _, o := range []Options{{}, {HotDir: "x", SegmentSize: 5}, {HotDir: "x", SegmentSize: 1 << 40}, {HotDir: "x", CacheBytes: -1}} {
		if _, err := Open(o); err == nil {
			t.Errorf("%+v was accepted", o)
		}
	}
	s := open(t, Options{})
	for i, r := range []Record{
		{}, {Kind: 9}, {Kind: segment.Data, Codec: 7}, {Kind: segment.Data, RawLen: 1},
		{Kind: segment.Data, RawLen: segment.MaxRaw + 1, Payload: make([]byte, segment.MaxRaw+1)},
		{Kind: segment.Data, Codec: segment.S2, RawLen: 1, Payload: []byte{1, 2}},
	} {
		if _, err := s.Append(r); err == nil {
			t.Errorf("record %d was accepted", i)
		}
	}
}

// The space reserved for the active segment must not stay taken.
func TestCloseGivesReservedSpaceBack(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(Options{HotDir: dir, SegmentSize: 16 << 20})
	if err != nil {
		t.Fatal(err)
	}
	loc := mustAppend(t, s, record(segment.Data, segment.Raw, content(1, 100)))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := disk.OS().List(dir)
	if err != nil || len(files) != 1 || files[0].Size != int64(loc.Offset)+int64(loc.Length) {
		t.Fatalf("%+v, %v", files, err)
	}
	var st syscall.Stat_t
	if err := syscall.Stat(filepath.Join(dir, files[0].Name), &st); err != nil || st.Blocks*512 > 1<<20 {
		t.Errorf("%d bytes taken, %v", st.Blocks*512, err)
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, n := range []int{256, 64 << 10} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := open(b, Options{})
			r := record(segment.Data, segment.Raw, content(1, n))
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for b.Loop() {
				mustAppend(b, s, r)
			}
		})
	}
}

// What an append and a sync of 4 KiB cost without us.
func BenchmarkBareWriteSync(b *testing.B) {
	f, err := disk.OS().Create(filepath.Join(b.TempDir(), "bare"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	p := content(1, 4096)
	off := int64(0)
	for b.Loop() {
		if _, err := f.WriteAt(p, off); err != nil {
			b.Fatal(err)
		}
		if err := f.Datasync(); err != nil {
			b.Fatal(err)
		}
		off += 4096
	}
}

func BenchmarkAppendSync(b *testing.B) {
	s := open(b, Options{})
	r := record(segment.Data, segment.Raw, content(1, 4096))
	for b.Loop() {
		mustAppend(b, s, r)
		if err := s.Sync(); err != nil {
			b.Fatal(err)
		}
	}
}

// 256 MiB in 64 KiB blocks and one Sync: what is left to wait for at a commit.
func BenchmarkSyncAfter256MiB(b *testing.B) {
	s := open(b, Options{})
	r := record(segment.Data, segment.Raw, content(1, 64<<10))
	b.SetBytes(256 << 20)
	var waited time.Duration
	for b.Loop() {
		for range 4096 {
			mustAppend(b, s, r)
		}
		start := time.Now()
		if err := s.Sync(); err != nil {
			b.Fatal(err)
		}
		waited += time.Since(start)
	}
	b.ReportMetric(float64(waited.Milliseconds())/float64(b.N), "ms-in-sync")
}

func BenchmarkGetHit(b *testing.B) {
	s := open(b, Options{CacheBytes: 64 << 20})
	plain := content(1, 64<<10)
	r := record(segment.Data, segment.S2, plain)
	loc := mustAppend(b, s, r)
	requireGet(b, s, plain, loc)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Get(context.Background(), r.ID, loc); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGetMiss(b *testing.B) {
	for _, codec := range []segment.Codec{segment.Raw, segment.S2, segment.Zstd} {
		b.Run(codec.String(), func(b *testing.B) {
			s := open(b, Options{})
			r := record(segment.Data, codec, content(1, 64<<10))
			loc := mustAppend(b, s, r)
			b.SetBytes(64 << 10)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Get(context.Background(), r.ID, loc); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestPrefetchBringsBlocksToRAM(t *testing.T) {
	s := open(t, Options{CacheBytes: 8 << 20})
	plain := content(3, 10_000)
	r := record(segment.Data, segment.S2, plain)
	loc := mustAppend(t, s, r)
	s.Prefetch([32]byte{9}, loc) // a wrong location is only a miss later
	s.Prefetch(r.ID, loc)
	for range 5000 {
		if s.Stats().RAM.Prefetched == 1 {
			if got, ok := s.Cached(r.ID); !ok || !bytes.Equal(got, plain) {
				t.Errorf("in RAM: %t", ok)
			}
			requireGet(t, s, plain, loc)
			if st := s.Stats(); st.RAM.Misses != 0 || st.Hot.Reads > 2 {
				t.Errorf("%+v", st)
			}
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Error("not prefetched")
}

func TestCacheKeepsToItsLimit(t *testing.T) {
	s := open(t, Options{CacheBytes: 1 << 20})
	for i := range 200 {
		plain := content(uint64(i), 32<<10)
		requireGet(t, s, plain, mustAppend(t, s, record(segment.Data, segment.Raw, plain)))
	}
	s.cache.otter.CleanUp()
	st := s.Stats().RAM
	if st.Bytes > st.Limit || st.Entries == 0 || st.Entries > 32 || st.Misses != 200 {
		t.Errorf("%+v", st)
	}
}

func TestResizeRAM(t *testing.T) {
	s := open(t, Options{CacheBytes: 8 << 20})
	var locs []Location
	for i := range 100 {
		plain := content(uint64(i), 32<<10)
		locs = append(locs, mustAppend(t, s, record(segment.Data, segment.Raw, plain)))
		requireGet(t, s, plain, locs[i])
	}
	for _, limit := range []int64{1 << 20, 100, 8 << 20} {
		s.ResizeRAM(limit)
		if st := s.Stats().RAM; st.Limit != limit || st.Bytes > limit || limit == 100 && st.Entries > 0 {
			t.Errorf("at %d: %+v", limit, st)
		}
		for i, loc := range locs {
			requireGet(t, s, content(uint64(i), 32<<10), loc)
		}
	}
	s.cache.otter.CleanUp()
	if st := s.Stats().RAM; st.Entries != 100 {
		t.Errorf("grown again: %+v", st)
	}
	none := open(t, Options{})
	none.ResizeRAM(1 << 20)
	if st := none.Stats().RAM; st.Limit != 0 {
		t.Errorf("without a cache: %+v", st)
	}
}

// TestCurvesOfASet: of five blocks read in turns a RAM of four keeps none, as LRU
// would, and one of twice the size all.
func TestCurvesOfASet(t *testing.T) {
	const size = 100_000
	s := open(t, Options{CacheBytes: 4 * (size + cacheOverhead)})
	s.WatchHot(4 * size)
	if st := s.Stats(); st.RAM.Curve != nil || st.Hot.Curve != nil {
		t.Errorf("before any use: %+v", st)
	}
	var locs []Location
	for i := range 5 {
		locs = append(locs, mustAppend(t, s, record(segment.Data, segment.Raw, content(uint64(i), size))))
	}
	for i := range 500 {
		requireGet(t, s, content(uint64(i%5), size), locs[i%5])
	}
	before := s.Stats()
	for i := range 5 {
		s.InRAM(record(segment.Data, segment.Raw, content(uint64(i), size)).ID)
	}
	st := s.Stats()
	if st.RAM.Hits != before.RAM.Hits || st.RAM.Hits+st.RAM.Misses != 500 {
		t.Errorf("%+v", st.RAM)
	}
	if c := st.RAM.Curve; len(c) != 5 || c[1].Bytes != st.RAM.Limit || c[0].HitRatio != 0 || c[1].HitRatio != 0 || c[2].HitRatio != 0.99 {
		t.Errorf("RAM: %v", c)
	}
	if c := st.Hot.Curve; len(c) != 5 || c[1].Bytes != 4*size || c[1].HitRatio == 0 || c[4].HitRatio < 0.9 {
		t.Errorf("hot: %v", c) // of what RAM lets through, which is not all
	}
	if st.Cold.Curve != nil {
		t.Errorf("cold: %v", st.Cold.Curve)
	}
}

// A reader that joins another's read of the same block from elsewhere does not
// share its failure.
func TestStaleLocationFailsAlone(t *testing.T) {
	s := open(t, Options{})
	plain := content(1, 1000)
	r := record(segment.Data, segment.Raw, plain)
	loc := mustAppend(t, s, r)
	stale := &flight{loc: Location{Segment: 77}, err: ErrNotFound, done: make(chan struct{})}
	s.flights.calls[r.ID] = stale
	got := make(chan error)
	go func() {
		_, err := s.Get(context.Background(), r.ID, loc)
		got <- err
	}()
	s.flights.release(r.ID, stale)
	if err := <-got; err != nil {
		t.Error(err)
	}
}

func TestWaitersHeedTheirContext(t *testing.T) {
	s := open(t, Options{})
	id := [32]byte{1}
	s.flights.calls[id] = &flight{}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.Get(ctx, id, Location{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	delete(s.flights.calls, id)
}

// TestManyRecords: a segment of tiny records is full long before it has its size.
func TestManyRecords(t *testing.T) {
	s := open(t, Options{})
	var plain [4]byte
	var locs []Location
	for i := range maxRecords + 2 {
		binary.LittleEndian.PutUint32(plain[:], uint32(i))
		locs = append(locs, mustAppend(t, s, record(segment.Data, segment.Raw, plain[:])))
	}
	first, last := locs[maxRecords-1], locs[maxRecords]
	if first.Segment != locs[0].Segment || last.Segment == first.Segment || locs[maxRecords+1].Segment != last.Segment {
		t.Errorf("records %d, %d and the next are in segments %d, %d, %d", maxRecords-1, maxRecords, first.Segment, last.Segment, locs[maxRecords+1].Segment)
	}
	requireGet(t, s, plain[:], locs[maxRecords+1])
}
