package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/quarxtor/quarxfs/tiering/segment"
)

// flip changes one byte of a store's segment. The store may be open: it reads
// through the page cache, as this does.
func flip(t testing.TB, dir string, number uint64, offset int64) {
	t.Helper()
	path := filepath.Join(dir, hotDir, segment.Name(number, segment.Sealed))
	if _, err := os.Stat(path); err != nil {
		path = filepath.Join(dir, hotDir, segment.Name(number, segment.Open))
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], offset); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x40
	if _, err := f.WriteAt(b[:], offset); err != nil {
		t.Fatal(err)
	}
}

func openAgain(t testing.TB, s *Store, cache int64) *Store {
	t.Helper()
	if err := s.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		t.Fatal(err)
	}
	s, err := Open(s.Dir(), Options{SweepInterval: -1, Ballast: -1, MemTable: 8 << 20, CacheBytes: cache})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func badIDs(s *Store) []ID {
	var ids []ID
	for _, b := range s.BadBlocks() {
		ids = append(ids, b.ID)
	}
	return ids
}

func holders(t testing.TB, s *Store, ids ...ID) []string {
	t.Helper()
	var names []string
	err := s.ObjectsHolding(ctx, func(id ID) bool { return slices.Contains(ids, id) }, func(name string, _ ID) error {
		names = append(names, name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Wherever in a segment a byte is flipped, scrub finds just that block, reads
// of it fail, and storing the same bytes restores it.
func TestScrubFindsFlippedBytes(t *testing.T) {
	s := newStore(t, compactConfig())
	want := make(map[string][]byte)
	for i := range 40 {
		name := fmt.Sprint(i)
		want[name] = randomBytes(uint64(i), 90_000)
		mustIngest(t, s, name, want[name])
	}
	rng := rand.New(rand.NewPCG(3, 3))
	s = openAgain(t, s, 1)
	for range 12 {
		var blocks []BlockInfo
		err := s.Blocks(ctx, BlockFilter{Kind: segment.Data}, func(b BlockInfo) error { blocks = append(blocks, b); return nil })
		if err != nil {
			t.Fatal(err)
		}
		b := blocks[rng.IntN(len(blocks))]
		flip(t, s.Dir(), b.Segment, b.Offset+rng.Int64N(b.Stored))
		names := holders(t, s, b.ID)
		if len(names) != 1 {
			t.Fatalf("block %s is in %q", b.ID, names)
		}
		if rng.IntN(2) == 0 {
			r, err := s.Scrub(ctx, ScrubOptions{Restart: true})
			if err != nil || r.Bad != 1 || r.Blocks == 0 || r.Finished.IsZero() {
				t.Fatalf("scrub: %+v, %v", r, err)
			}
		}
		for name, data := range want {
			var got bytes.Buffer
			err := s.Fetch(ctx, name, 0, -1, &got)
			if name == names[0] {
				if !errors.Is(err, ErrCorrupt) {
					t.Fatalf("fetch of a damaged object: %v", err)
				}
				data = data[:got.Len()]
			} else if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Bytes(), data) {
				t.Fatal("wrong bytes")
			}
		}
		if got := badIDs(s); len(got) != 1 || got[0] != b.ID {
			t.Fatalf("marked: %v", got)
		}
		s = openAgain(t, s, 1) // marks are kept
		if got := badIDs(s); len(got) != 1 || got[0] != b.ID {
			t.Fatalf("marked after reopening: %v", got)
		}
		mustIngest(t, s, "again", want[names[0]])
		if got := badIDs(s); len(got) != 0 {
			t.Fatalf("still marked: %v", got)
		}
		requireObjects(t, s, want)
		mustCheck(t, s)
		if err := s.Delete(ctx, "again"); err != nil {
			t.Fatal(err)
		}
	}
	s = openAgain(t, s, 1)
	if r, err := s.Scrub(ctx, ScrubOptions{}); err != nil || r.Bad != 0 {
		t.Errorf("scrub: %+v, %v", r, err)
	}
	requireObjects(t, s, want)
}

// Bytes of a segment that belong to no record may rot without any loss.
func TestScrubOfDamagedHeadersAndFooters(t *testing.T) {
	s := newStore(t, compactConfig())
	data := randomBytes(1, 3<<20)
	mustIngest(t, s, "a", data)
	blocks := s.Stats().Totals.Blocks
	s = openAgain(t, s, 1)
	var sealed []uint64
	for _, seg := range s.tiers.Segments() {
		if seg.Sealed {
			sealed = append(sealed, seg.Number)
			f := seg.Bytes
			flip(t, s.Dir(), seg.Number, f-1-int64(len(sealed))*7) // trailer
			if len(sealed) == 2 {
				flip(t, s.Dir(), seg.Number, f-segment.TrailerSize-segment.EntrySize*3) // an entry
			}
		}
	}
	r, err := s.Scrub(ctx, ScrubOptions{})
	if err != nil || r.Bad != 0 || len(r.Segments) != len(sealed) || r.Blocks != blocks[segment.Data]+blocks[segment.File]+1 {
		t.Errorf("scrub: %+v, %v", r, err)
	}
	requireObjects(t, s, map[string][]byte{"a": data})

	// A header that is lost is found in the footer.
	s2 := newStore(t, compactConfig())
	mustIngest(t, s2, "a", data)
	for _, seg := range s2.tiers.Segments() {
		if seg.Sealed {
			flip(t, s2.Dir(), seg.Number, int64(seg.Number*5)%segment.FileHeaderSize)
		}
	}
	s2 = openAgain(t, s2, 1)
	requireObjects(t, s2, map[string][]byte{"a": data})
}

func TestScrubGoesOnWhereItStopped(t *testing.T) {
	s := newStore(t, compactConfig())
	mustIngest(t, s, "a", randomBytes(1, 4<<20))
	s = openAgain(t, s, 1)
	totals := s.Stats().Totals
	all := totals.StoredBytes()
	c, cancel := context.WithCancel(ctx)
	first, err := s.Scrub(c, ScrubOptions{Rate: 64 << 20, Progress: func(p Scrubbed) {
		if p.Bytes > 2<<20 {
			cancel()
		}
	}})
	if err == nil {
		t.Skip("too fast to be stopped")
	}
	s = openAgain(t, s, 1)
	second, err := s.Scrub(ctx, ScrubOptions{})
	if err != nil || !second.Resumed || second.Bytes < all || second.Bytes > all+2<<20 {
		t.Errorf("of %d bytes: first %+v, then %+v, %v", all, first, second, err)
	}
	var last scrubCursor
	if ok, err := s.loadCursor(&last); err != nil || !ok || last.Finished.IsZero() {
		t.Errorf("last: %+v, %v, %v", last, ok, err)
	}
}

func TestScrubHealsFromRAM(t *testing.T) {
	s := newStore(t, DefaultConfig())
	o := mustIngest(t, s, "a", randomBytes(1, 5000))
	if err := s.Fetch(ctx, "a", 0, -1, io.Discard); err != nil {
		t.Fatal(err)
	}
	e, err := s.Lookup(o.ID)
	if err != nil {
		t.Fatal(err)
	}
	flip(t, s.Dir(), e.Loc.Segment, int64(e.Loc.Offset)+100)
	r, err := s.Scrub(ctx, ScrubOptions{})
	if err != nil || r.Healed != 1 || r.Bad != 0 {
		t.Errorf("scrub: %+v, %v", r, err)
	}
	s = openAgain(t, s, 1)
	requireObjects(t, s, map[string][]byte{"a": randomBytes(1, 5000)})
	mustCheck(t, s)
}
