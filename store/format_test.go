package store

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quarxtor/quarxfs/store/chunk"
	"github.com/quarxtor/quarxfs/store/vertex"
	"github.com/quarxtor/quarxfs/tiering"
	"github.com/quarxtor/quarxfs/tiering/segment"
)

func TestEntryGolden(t *testing.T) {
	e := Entry{
		Kind: segment.Data, Codec: segment.S2, Entropy: 200, Raw: 65_536, Refs: 3,
		Loc: tiering.Location{Segment: 7, Offset: 100_000, Length: 30_000},
	}
	const want = "1100c8" + "07" + "a08d06" + "b0ea01" + "808004" + "03"
	if got := hex.EncodeToString(e.encode()); got != want {
		t.Errorf("encoded %s, want %s", got, want)
	}
	if got, err := decodeEntry(e.encode()); err != nil || got != e {
		t.Errorf("decoded %+v, %v", got, err)
	}
}

func FuzzRows(f *testing.F) {
	e := Entry{Kind: segment.File, Raw: 1, Loc: tiering.Location{Length: 80}}
	f.Add(e.encode())
	f.Add(segmentRow{Written: 10, Live: 5}.encode())
	f.Add(ObjectInfo{Size: 9, Data: 5, Created: time.UnixMilli(-5)}.encode())
	f.Add(Totals{Zero: 4}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, err := decodeEntry(b); err == nil {
			if again, err := decodeEntry(e.encode()); err != nil || again != e {
				t.Errorf("entry %+v became %+v, %v", e, again, err)
			}
		}
		if r, err := decodeSegmentRow(b); err == nil {
			if again, err := decodeSegmentRow(r.encode()); err != nil || again != r {
				t.Errorf("segment row %+v became %+v, %v", r, again, err)
			}
		}
		if o, err := decodeObject("x", b); err == nil {
			if again, err := decodeObject("x", o.encode()); err != nil || again != o {
				t.Errorf("object %+v became %+v, %v", o, again, err)
			}
		}
		if tt, err := decodeTotals(b); err == nil {
			if again, err := decodeTotals(tt.encode()); err != nil || again != tt {
				t.Errorf("totals %+v became %+v, %v", tt, again, err)
			}
		}
	})
}

// A totals row of before there were objects, or a sum of all that came, is still read.
func TestShorterTotals(t *testing.T) {
	full := Totals{Zero: 4, Objects: objects{2, 3}, Appended: Appended{5, 6, 7, 8}, ZeroRaw: [5]int64{1, 2, 3, 4, 5}}
	for cut, want := range map[int]Totals{
		0: full, 40: {Zero: 4, Objects: objects{2, 3}, Appended: Appended{5, 6, 7, 8}}, 72: {Zero: 4, Objects: objects{2, 3}}, 88: {Zero: 4},
	} {
		got, err := decodeTotals(full.encode()[:len(full.encode())-cut])
		if err != nil || got != want {
			t.Errorf("without %d bytes: decoded %+v, %v", cut, got, err)
		}
	}
}

func superblockConfig() Config {
	return Config{
		Chunker:     chunk.Config{Name: chunk.FastCDC, Min: 16 << 10, Avg: 64 << 10, Max: 256 << 10, Key: bytes.Repeat([]byte{1}, chunk.KeySize)},
		Compression: "s2", SegmentSize: 64 << 20, VolumeID: strings.Repeat("0f", 16),
	}
}

const superblockGolden = `{
  "magic": "quarxfs store",
  "version": 1,
  "required_features": [
    "commit-log"
  ],
  "id_scheme": "blake3-256",
  "chunker": {
    "name": "fastcdc-v1.0.0",
    "min": 16384,
    "avg": 65536,
    "max": 262144,
    "key": "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="
  },
  "compression": "s2",
  "segment_size": 67108864,
  "volume_id": "0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f",
  "crc32c": "CRC"
}
`

func TestSuperblockGolden(t *testing.T) {
	b, err := superblockFile.Encode(newSuperblock(superblockConfig()))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Replace(superblockGolden, "CRC", superblockCRC, 1), string(b)); diff != "" {
		t.Error(diff)
	}
	tar := superblockConfig()
	tar.Chunker.Name = chunk.FastCDCTar
	if got := newSuperblock(tar).Required; !slices.Equal(got, []string{featureLog, featureTar}) {
		t.Errorf("%s: features %q", tar.Chunker.Name, got) // an older program has to refuse it by a name
	}
	tables := superblockConfig()
	tables.Compressed = true
	if got := newSuperblock(tables).Required; !slices.Equal(got, []string{featureLog, featureTables}) {
		t.Errorf("with compressed tables: features %q", got)
	}
	for _, features := range [][]string{{featureLog}, {featureLog, featureTar, featureTables}, {}, nil} { // before there were any, the list was empty
		want := superblockConfig()
		want.Compressed = slices.Contains(features, featureTables)
		c, err := decodeSuperblock(superblockWith(t, features))
		if diff := cmp.Diff(want, c); diff != "" || err != nil {
			t.Errorf("features %q: %v\n%s", features, err, diff)
		}
	}
	if _, err := decodeSuperblock(superblockWith(t, []string{featureLog, "something"})); !errors.Is(err, ErrNewer) {
		t.Errorf("with an unknown feature: %v", err)
	}
}

// decodeSuperblock returns the store's settings. The errors are ErrNotStore,
// ErrNewer and ErrDamaged.
func decodeSuperblock(b []byte) (Config, error) {
	var sb superblock
	if err := superblockFile.Decode(b, &sb); err != nil {
		return Config{}, err
	}
	return sb.config()
}

func superblockWith(t *testing.T, features []string) []byte {
	t.Helper()
	sb := newSuperblock(superblockConfig())
	sb.Required = features
	b, err := superblockFile.Encode(sb)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDamagedSuperblock(t *testing.T) {
	b, err := superblockFile.Encode(newSuperblock(superblockConfig()))
	if err != nil {
		t.Fatal(err)
	}
	for i := range b {
		for _, flip := range []byte{1, 32, 0x80} {
			bad := bytes.Clone(b)
			bad[i] ^= flip
			c, err := decodeSuperblock(bad)
			if err == nil && !cmp.Equal(c, superblockConfig()) {
				t.Errorf("byte %d: %q is taken as %+v", i, bad, c)
			}
			if err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNewer) && !errors.Is(err, ErrNotStore) {
				t.Errorf("byte %d: %v", i, err)
			}
		}
	}
	for old, replaced := range map[string]struct {
		with string
		want error
	}{
		`"version": 1`:  {`"version": 2`, ErrNewer},
		`"commit-log"`:  {`"x"`, ErrDamaged}, // the checksum comes first
		"quarxfs store": {"something", ErrNotStore},
		"16384":         {"16383", ErrDamaged},
		"{":             {"", ErrDamaged},
	} {
		bad := strings.Replace(string(b), old, replaced.with, 1)
		if _, err := decodeSuperblock([]byte(bad)); !errors.Is(err, replaced.want) {
			t.Errorf("%s: %v", old, err)
		}
	}
}

func FuzzSuperblock(f *testing.F) {
	b, err := superblockFile.Encode(newSuperblock(superblockConfig()))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := decodeSuperblock(b)
		if err == nil && c.Validate() != nil {
			t.Errorf("%q: an invalid config", b)
		}
	})
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(dir, Options{}); !errors.Is(err, ErrNotStore) {
		t.Errorf("open an empty directory: %v", err)
	}
	if names, _ := os.ReadDir(dir); len(names) != 0 {
		t.Errorf("opening what is no store left %v", names)
	}
	sub := filepath.Join(dir, "store")
	if err := Init(sub, smallConfig()); err != nil {
		t.Fatal(err)
	}
	if err := Init(sub, smallConfig()); !errors.Is(err, ErrExists) {
		t.Errorf("init twice: %v", err)
	}
	if err := Init(dir, smallConfig()); !errors.Is(err, ErrNotEmpty) {
		t.Errorf("init of a full directory: %v", err)
	}
	s, err := Open(sub, Options{Ballast: -1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(sub, Options{}); !errors.Is(err, ErrLocked) {
		t.Errorf("open twice: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("close twice: %v", err)
	}
}

func TestBlocks(t *testing.T) {
	s := newStore(t, smallConfig())
	mustIngest(t, s, "a", randomBytes(1, 20_000))
	mustIngest(t, s, "b", randomBytes(1, 20_000))
	mustIngest(t, s, "c", []byte("twice"))
	mustIngest(t, s, "d", []byte("twice"))
	if _, err := s.Put(segment.Data, []byte("nobody's")); err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(); err != nil {
		t.Fatal(err)
	}
	list := func(f BlockFilter) (infos []BlockInfo) {
		t.Helper()
		if err := s.Blocks(ctx, f, func(b BlockInfo) error { infos = append(infos, b); return nil }); err != nil {
			t.Fatal(err)
		}
		return infos
	}
	all := list(BlockFilter{})
	totals := s.Stats().Totals
	if want := totals.Blocks[segment.Data] + totals.Blocks[segment.File] + 4; int64(len(all)) != want {
		t.Errorf("%d blocks, want %d", len(all), want)
	}
	twice := chunk.Sum([]byte("twice"))
	for _, c := range []struct {
		filter BlockFilter
		want   int
	}{
		{BlockFilter{Kind: segment.File}, 1},
		{BlockFilter{MinRefs: 2, Kind: segment.Data}, 1},
		{BlockFilter{MaxRefs: 1, MinRefs: 1, Kind: segment.Data}, len(all) - 7}, // four are names
		{BlockFilter{Unused: true}, 1},
		{BlockFilter{Prefix: twice.String()}, 1},
		{BlockFilter{Prefix: twice.String()[:21]}, 1},
	} {
		if got := list(c.filter); len(got) != c.want {
			t.Errorf("%+v: %d blocks, want %d", c.filter, len(got), c.want)
		}
	}
	got := list(BlockFilter{Prefix: twice.String()})[0]
	if got.ID != twice || got.Kind != "data" || got.Codec != "raw" || got.Raw != 5 || got.Refs != 2 || got.Tier != "hot" {
		t.Errorf("%+v", got)
	}
	for _, prefix := range []string{"xyz", strings.Repeat("0", 65)} {
		if err := s.Blocks(ctx, BlockFilter{Prefix: prefix}, nil); !errors.Is(err, ErrConfig) {
			t.Errorf("prefix %s: %v", prefix, err)
		}
	}
	n := 0
	err := s.Blocks(ctx, BlockFilter{}, func(BlockInfo) error { n++; return ErrStop })
	if err != nil || n != 1 {
		t.Errorf("stopped after %d: %v", n, err)
	}
}

// A vertex that links to what is not there must not get in. (I5)
func TestPutDanglingVertex(t *testing.T) {
	s := newStore(t, smallConfig())
	v := vertex.File{Size: 1, Data: 1, Parts: []vertex.Part{{ID: ID{1}, Len: 1}}}
	if _, err := s.Put(segment.File, v.Encode()); !errors.Is(err, ErrNotFound) {
		t.Errorf("put: %v", err)
	}
	if r := mustCheck(t, s); r.Blocks != 0 {
		t.Errorf("%d blocks", r.Blocks)
	}
}

// Check must see what it is for.
func TestCheckFinds(t *testing.T) {
	id := chunk.Sum([]byte("hello"))
	for name, damage := range map[string]func(s *Store){
		"I4":     func(s *Store) { s.Ref(id, 1) },
		"I5":     func(s *Store) { s.db.Delete(blockKey(keyBlock, id)) },
		"row":    func(s *Store) { s.db.Set(segmentKey(9), segmentRow{Written: 5, Live: 5}.encode()) },
		"totals": func(s *Store) { s.totals.Zero = 9 },
		"I1": func(s *Store) {
			e, _ := s.Lookup(id)
			e.Loc.Offset++
			s.db.Set(blockKey(keyBlock, id), e.encode())
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t, smallConfig())
			mustIngest(t, s, "a", []byte("hello"))
			damage(s)
			r, err := s.Check(ctx, CheckOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range r.Problems {
				if p.Invariant == name {
					return
				}
			}
			t.Errorf("found %v", r.Problems)
		})
	}
}

const superblockCRC = "207b753e"
