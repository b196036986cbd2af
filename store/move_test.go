package store

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/quarxtor/quarxfs/store/chunk"
	"github.com/quarxtor/quarxfs/tiering"
	"github.com/quarxtor/quarxfs/tiering/disk/faultdisk"
)

// words returns n bytes of text, of which zstd makes less than s2 does.
func words(seed uint64, n int) []byte {
	rng := rand.New(rand.NewPCG(seed, 3))
	vocabulary := make([]string, 2000)
	for i := range vocabulary {
		for range 3 + rng.IntN(7) {
			vocabulary[i] += string(rune('a' + min(rng.IntN(26), rng.IntN(26))))
		}
	}
	var b bytes.Buffer
	for b.Len() < n {
		b.WriteString(vocabulary[min(rng.IntN(2000), rng.IntN(2000))] + " ")
	}
	return b.Bytes()[:n]
}

// openCold opens a store with a cold tier beside it.
func openCold(t *testing.T) (s *Store, dir, cold string) {
	t.Helper()
	root := t.TempDir()
	dir, cold = filepath.Join(root, "store"), filepath.Join(root, "cold")
	c := smallConfig()
	c.Chunker = chunk.Default()
	if err := Init(dir, c); err != nil {
		t.Fatal(err)
	}
	s = reopenCold(t, dir)
	if err := s.AddCold(cold); err != nil {
		t.Fatal(err)
	}
	return s, dir, cold
}

func reopenCold(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir, Options{SweepInterval: -1, Ballast: -1, MemTable: 8 << 20, CacheBytes: 1, ColdRetry: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func dataBlocks(t *testing.T, s *Store) (ids []ID, tiers [2]int) {
	t.Helper()
	err := s.db.ScanPrefix([]byte{keyBlock}, func(key, value []byte) error {
		id, e, err := decodeBlockRow(key, value)
		if err == nil && e.Kind == tiering.Data {
			ids = append(ids, id)
			tiers[e.Loc.Tier]++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return ids, tiers
}

func ingestWords(t *testing.T, s *Store, names ...string) map[string][]byte {
	t.Helper()
	kept := make(map[string][]byte)
	for i, name := range names {
		kept[name] = words(uint64(i+1), 1<<20)
		if _, err := s.Ingest(ctx, bytes.NewReader(kept[name]), name); err != nil {
			t.Fatal(err)
		}
	}
	return kept
}

func requireSound(t *testing.T, s *Store) {
	t.Helper()
	r, err := s.Check(ctx, CheckOptions{Data: true})
	if err != nil || r.Count > 0 {
		t.Fatalf("check: %v, %v", r.Problems, err)
	}
}

func TestMoveToColdAndBack(t *testing.T) {
	s, dir, cold := openCold(t)
	kept := ingestWords(t, s, "a", "b", "c")
	ids, _ := dataBlocks(t, s)
	moved, err := s.Move(ctx, tiering.Cold, ids, MoveOptions{})
	if err != nil || moved.Blocks != int64(len(ids)) {
		t.Fatalf("moved %+v of %d, %v", moved, len(ids), err)
	}
	if float64(moved.To) > 0.75*float64(moved.From) {
		t.Errorf("%d bytes became %d: less than a quarter was saved", moved.From, moved.To)
	}
	if _, tiers := dataBlocks(t, s); tiers != [2]int{0, len(ids)} {
		t.Errorf("blocks by tier: %v", tiers)
	}
	requireObjects(t, s, kept)
	requireSound(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = reopenCold(t, dir)
	requireObjects(t, s, kept)
	if err := s.RemoveCold(); !errors.Is(err, ErrHasTier) {
		t.Errorf("remove a tier with blocks: %v", err)
	}
	if moved, err = s.Move(ctx, tiering.Hot, ids, MoveOptions{}); err != nil || moved.Blocks != int64(len(ids)) {
		t.Fatalf("moved back %+v, %v", moved, err)
	}
	requireObjects(t, s, kept)
	if _, err := s.Compact(ctx, CompactOptions{All: true}); err != nil {
		t.Fatal(err)
	}
	requireSound(t, s)
	if err := s.RemoveCold(); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(cold); err != nil {
		t.Error(err)
	} else {
		for _, f := range left { // the segment that was open has no record in use
			if filepath.Ext(f.Name()) != ".open" {
				t.Errorf("%s is left", f.Name())
			}
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = reopenCold(t, dir)
	if _, ok := s.Cold(); ok {
		t.Error("the tier is still there")
	}
	requireObjects(t, s, kept)
}

func TestVerticesStayHot(t *testing.T) {
	s, _, _ := openCold(t)
	ingestWords(t, s, "a")
	var all []ID
	err := s.db.ScanPrefix([]byte{keyBlock}, func(key, _ []byte) error { all = append(all, ID(key[1:])); return nil })
	if err != nil {
		t.Fatal(err)
	}
	data, _ := dataBlocks(t, s)
	moved, err := s.Move(ctx, tiering.Cold, all, MoveOptions{})
	if err != nil || moved.Blocks != int64(len(data)) || moved.Skipped != int64(len(all)-len(data)) || len(all) == len(data) {
		t.Errorf("of %d blocks, %d data: %+v, %v", len(all), len(data), moved, err)
	}
}

// TestColdTierAway: nothing is bad, and nothing is repaired away, because a
// disk is not there.
func TestColdTierAway(t *testing.T) {
	s, dir, cold := openCold(t)
	kept := ingestWords(t, s, "a", "b")
	ids, _ := dataBlocks(t, s)
	if _, err := s.Move(ctx, tiering.Cold, ids[:len(ids)/2], MoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(cold, cold+".away"); err != nil {
		t.Fatal(err)
	}
	s = reopenCold(t, dir)
	for i, id := range ids {
		_, err := s.Get(ctx, id)
		if i < len(ids)/2 {
			if !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrCorrupt) {
				t.Fatalf("a cold block: %v", err)
			}
		} else if err != nil {
			t.Fatalf("a hot block: %v", err)
		}
	}
	r, err := s.Scrub(ctx, ScrubOptions{})
	if err != nil || r.Bad != 0 || r.Hidden != int64(len(ids)/2) || len(r.Segments) != 0 {
		t.Errorf("scrub: %+v, %v", r, err)
	}
	if bad := s.BadBlocks(); len(bad) > 0 {
		t.Errorf("%d blocks count as bad, such as %+v", len(bad), bad[0])
	}
	if _, err := s.Repair(ctx, CheckOptions{}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("repair: %v", err)
	}
	if report, err := s.Check(ctx, CheckOptions{}); err != nil || report.Count != 0 || report.Hidden != int64(len(ids)/2) {
		t.Errorf("check: %+v, %v", report.Problems, err)
	}
	if _, err := s.Move(ctx, tiering.Cold, ids, MoveOptions{}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("move: %v", err)
	}
	// Writing goes on, and finds what is cold to be there already.
	if _, err := s.Ingest(ctx, bytes.NewReader(kept["a"]), "again"); err != nil {
		t.Errorf("ingest: %v", err)
	}
	if _, err := s.Sweep(ctx); err != nil {
		t.Errorf("sweep: %v", err)
	}
	if _, err := s.Compact(ctx, CompactOptions{All: true}); err != nil {
		t.Errorf("compact: %v", err)
	}
	if err := os.Rename(cold+".away", cold); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); s.tiers.Reach(tiering.Cold) != nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the tier does not come back")
		}
	}
	kept["again"] = kept["a"]
	requireObjects(t, s, kept)
	requireSound(t, s)
}

func TestRebuildWithColdTier(t *testing.T) {
	s, dir, cold := openCold(t)
	kept := ingestWords(t, s, "a", "b")
	ids, _ := dataBlocks(t, s)
	if _, err := s.Move(ctx, tiering.Cold, ids, MoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Close(), os.RemoveAll(filepath.Join(dir, dbDir))); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(cold, cold+".away"); err != nil {
		t.Fatal(err)
	}
	if _, err := Rebuild(ctx, dir, RebuildOptions{}); !errors.Is(err, ErrUnavailable) {
		t.Fatalf("rebuild without the cold tier: %v", err)
	}
	if err := os.Rename(cold+".away", cold); err != nil {
		t.Fatal(err)
	}
	if _, err := Rebuild(ctx, dir, RebuildOptions{}); err != nil {
		t.Fatal(err)
	}
	s = reopenCold(t, dir)
	requireObjects(t, s, kept)
	requireSound(t, s)
}

func TestColdBitRot(t *testing.T) {
	s, dir, cold := openCold(t)
	ingestWords(t, s, "a")
	ids, _ := dataBlocks(t, s)
	if _, err := s.Move(ctx, tiering.Cold, ids, MoveOptions{}); err != nil {
		t.Fatal(err)
	}
	e, err := s.Lookup(ids[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := filepath.Glob(filepath.Join(cold, fmt.Sprintf("%016x.*", e.Loc.Segment)))
	if err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	f, err := os.OpenFile(names[0], os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{0xff, 0x00, 0xff}, int64(e.Loc.Offset)+int64(e.Loc.Length)/2); err != nil {
		t.Fatal(err)
	}
	f.Close()
	s = reopenCold(t, dir)
	if _, err := s.Get(ctx, ids[0]); !errors.Is(err, ErrCorrupt) {
		t.Errorf("get: %v", err)
	}
	if r, err := s.Scrub(ctx, ScrubOptions{}); err != nil || r.Bad != 1 {
		t.Errorf("scrub: %+v, %v", r, err)
	}
}

// TestCrashAtEachStepOfAMove lets the power fail at every operation on segments
// while blocks go to the cold tier and back.
func TestCrashAtEachStepOfAMove(t *testing.T) {
	root := fastDir(t)
	base := filepath.Join(root, "base")
	f := initFaultStore(t, base, compactConfig())
	if err := f.AddCold("/x/cold"); err != nil {
		t.Fatal(err)
	}
	kept := ingestWords(t, f.Store, "a", "b")
	ids, _ := dataBlocks(t, f.Store)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(11, 12))
	crashes, step, least := 0, 8, 20
	if testing.Short() {
		step, least = 1, 8 // the race detector makes this 14 times slower
	}
	for n := 0; ; n += 1 + n/step {
		dir := filepath.Join(root, fmt.Sprint(n))
		if err := copyStore(base, dir); err != nil {
			t.Fatal(err)
		}
		f := openFaultStore(t, dir, f.disk.Copy())
		stop, off := f.disk.Ops()+n, false
		var image *faultdisk.Disk
		f.disk.Fail(func(op faultdisk.Op) error {
			if op.N >= stop {
				off = true
				return errors.New("power failed")
			}
			return nil
		})
		_, err := f.Move(ctx, tiering.Cold, ids, MoveOptions{})
		if err == nil {
			_, err = f.Move(ctx, tiering.Hot, ids[:len(ids)/2], MoveOptions{})
		}
		image = f.disk.Crash(rng)
		to := filepath.Join(root, "image")
		if err := copyStore(dir, to); err != nil {
			t.Fatal(err)
		}
		f.disk.Fail(nil)
		f.Close()
		after := openFaultStore(t, to, image)
		requireObjects(t, after.Store, kept)
		requireSound(t, after.Store)
		if err := after.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		os.RemoveAll(to)
		os.RemoveAll(dir)
		if t.Failed() {
			t.Fatalf("after a crash at operation %d (%v)", n, err)
		}
		if !off {
			break
		}
		crashes++
	}
	if crashes < least {
		t.Errorf("only %d crashes", crashes)
	}
}

const tiersGolden = `{
  "magic": "quarxfs tiers",
  "version": 1,
  "cold": {
    "id": "000102030405060708090a0b0c0d0e0f",
    "dir": "/mnt/disk/cold",
    "added": "2023-11-14T22:13:20Z"
  },
  "crc32c": "b46d03c9"
}
`

func TestTiersFileGolden(t *testing.T) {
	f := tiersFile{Cold: &ColdTier{ID: "000102030405060708090a0b0c0d0e0f", Dir: "/mnt/disk/cold", Added: time.Unix(1_700_000_000, 0).UTC()}}
	b, err := tiersKind.Encode(&f)
	if err != nil {
		t.Fatal(err)
	}
	if string(b) != tiersGolden {
		t.Errorf("%s", b)
	}
	back, err := decodeTiers(b)
	if err != nil || *back.Cold != *f.Cold {
		t.Errorf("decoded %+v, %v", back.Cold, err)
	}
	for i := range b {
		bad := bytes.Clone(b)
		bad[i] ^= 0x10
		if got, err := decodeTiers(bad); err == nil && *got.Cold != *f.Cold {
			t.Errorf("byte %d flipped: %+v", i, got.Cold)
		}
	}
}

func decodeTiers(b []byte) (f tiersFile, err error) {
	err = tiersKind.Decode(b, &f)
	return f, errors.Join(err, f.check())
}

// A place in a bucket is a field that came later.
func TestTiersFileOfABucket(t *testing.T) {
	f := tiersFile{Cold: &ColdTier{ID: "000102030405060708090a0b0c0d0e0f", Dir: "s3://bucket/prefix", S3: &S3Server{
		Endpoint: "https://s3.example.com", Region: "eu-1", CA: "/etc/ca.pem", Credentials: "/etc/keys",
	}}}
	b, err := tiersKind.Encode(&f)
	if err != nil {
		t.Fatal(err)
	}
	back, err := decodeTiers(b)
	if err != nil || back.Cold.S3 == nil || *back.Cold.S3 != *f.Cold.S3 || back.Cold.Dir != f.Cold.Dir {
		t.Errorf("decoded %+v, %v", back.Cold, err)
	}
	f.Cold.S3.Endpoint = "nothing"
	if b, _ = tiersKind.Encode(&f); !errors.Is(func() error { _, err := decodeTiers(b); return err }(), ErrDamaged) {
		t.Error("a wrong endpoint was taken")
	}
}

func FuzzDecodeTiers(f *testing.F) {
	b, _ := tiersKind.Encode(&tiersFile{Cold: &ColdTier{ID: "000102030405060708090a0b0c0d0e0f", Dir: "/mnt/disk/cold"}})
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := decodeTiers(b)
		if err == nil && got.Version != tiersKind.Version {
			t.Errorf("version %d", got.Version)
		}
	})
}
