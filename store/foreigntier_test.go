package store

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/quarxtor/quarxfs/tiering"
)

// A copy of a store has its cold tier, too, in which it reads all and changes nothing until it is
// told that the tier is its own now.
func TestCopySharesColdTier(t *testing.T) {
	root := fastRoot(t)
	first, second, cold := filepath.Join(root, "first"), filepath.Join(root, "second"), filepath.Join(root, "cold")
	if err := Init(first, compactConfig()); err != nil {
		t.Fatal(err)
	}
	open := func(dir string) *Store {
		t.Helper()
		s, err := Open(dir, sampleOptions())
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	shut := func(s *Store) {
		t.Helper()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	// all has the data blocks demoted, and the rest removed from the store.
	s := open(first)
	if s.owner().ID == "" {
		t.Skip("the filesystem does not say when a directory was made")
	}
	if err := s.AddCold(cold); err != nil {
		t.Fatal(err)
	}
	kept := ingestWords(t, s, "a", "b", "c", "d")
	ids, _ := dataBlocks(t, s)
	if _, err := s.Move(ctx, tiering.Cold, ids, MoveOptions{}); err != nil {
		t.Fatal(err)
	}
	shut(s)
	if err := copySparse(first, second); err != nil {
		t.Fatal(err)
	}
	before := tree(t, cold)

	s = open(second)
	requireObjects(t, s, kept)
	mustIngest(t, s, "own", words(77, 20_000))
	fresh, _ := dataBlocks(t, s)
	if _, err := s.Move(ctx, tiering.Cold, fresh, MoveOptions{}); !errors.Is(err, ErrForeign) || !errors.Is(err, ErrUnavailable) {
		t.Errorf("moved to a tier of another store: %v", err)
	}
	for _, name := range []string{"a", "b", "c"} {
		if err := s.Delete(ctx, name); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		if _, err := s.Sweep(ctx); err != nil {
			t.Error(err)
		}
		if _, err := s.Compact(ctx, CompactOptions{MinLive: 0.95}); err != nil {
			t.Error(err)
		}
	}
	requireSound(t, s)
	shut(s)
	for name, was := range before {
		if now := tree(t, cold)[name]; now != was && name != cold { // the directory's own times
			t.Errorf("%s: %q, now %q", name, was, now)
		}
	}

	// The first one goes on, and so does the copy, which does not take that for its own database
	// being an older one.
	s = open(first)
	requireObjects(t, s, kept)
	mustIngest(t, s, "e", words(78, 20_000))
	kept["e"] = words(78, 20_000)
	ids, _ = dataBlocks(t, s)
	if _, err := s.Move(ctx, tiering.Cold, ids, MoveOptions{}); err != nil {
		t.Error(err)
	}
	for n := range 5 {
		mustIngest(t, s, string(rune('f'+n)), words(uint64(80+n), 1_000))
	}
	shut(s)
	s = open(second)
	if got := fetch(t, s, "d", 0, -1); !bytes.Equal(got, kept["d"]) {
		t.Errorf("%d bytes of d", len(got))
	}
	requireSound(t, s)

	// With a tier of its own it is told so. The first one's stays the first one's.
	other := filepath.Join(root, "other")
	if err := copySparse(cold, other); err != nil {
		t.Fatal(err)
	}
	if err := s.RelocateCold(other); err != nil {
		t.Fatal(err)
	}
	fresh, _ = dataBlocks(t, s)
	if _, err := s.Move(ctx, tiering.Cold, fresh, MoveOptions{}); err != nil {
		t.Error(err)
	}
	shut(s)
	s = open(first)
	defer shut(s)
	requireObjects(t, s, kept)
	requireSound(t, s)
	if err := s.tiers.Foreign(); err != nil {
		t.Error(err)
	}
	// Renamed, it is the same one.
	if _, err := os.Stat(filepath.Join(cold, tiering.OwnerName)); err != nil {
		t.Error(err)
	}
}
