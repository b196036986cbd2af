package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quarxtor/quarxfs/tiering/segment"
)

func rebuild(t testing.TB, s *Store, o RebuildOptions) (*Store, Rebuilt) {
	t.Helper()
	if err := s.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		t.Fatal(err)
	}
	r, err := Rebuild(ctx, s.Dir(), o)
	if err != nil {
		t.Fatal(err)
	}
	return openAgain(t, s, 1), r
}

func TestRebuildFromSegments(t *testing.T) {
	s := newStore(t, compactConfig())
	want := make(map[string][]byte)
	for i := range 12 {
		name := fmt.Sprintf("object %d", i)
		want[name] = randomBytes(uint64(i), 1+i*70_000)
		mustIngest(t, s, name, want[name])
	}
	want["object 3"] = []byte("the second of its name")
	mustIngest(t, s, "object 3", want["object 3"])
	nameless := mustIngest(t, s, "", []byte("nameless"))
	want[nameless.ID.String()] = []byte("nameless")
	loose, err := s.Put(segment.Data, []byte("of the live filesystem"))
	if err != nil {
		t.Fatal(err)
	}
	before := s.Stats().Totals.Objects
	s, r := rebuild(t, s, RebuildOptions{})
	mustCheck(t, s)
	requireObjects(t, s, want)
	requireObjects(t, s, map[string][]byte{loose.String(): []byte("of the live filesystem")})
	if r.Objects != before.Count || r.Bad != 0 || r.Missing != 0 || r.Loose == 0 || r.Old == "" {
		t.Errorf("%+v", r)
	}
	// At once: the first one's name is taken within its second.
	s, again := rebuild(t, s, RebuildOptions{})
	for _, old := range []string{r.Old, again.Old} {
		if _, err := os.Stat(filepath.Join(old, "MANIFEST")); err != nil || r.Old == again.Old {
			t.Errorf("the old database %s is gone: %v", old, err)
		}
	}

	// Once more, with the database lost, and nothing kept that has no name.
	if err := s.Delete(ctx, loose.String()); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(s.Dir(), dbDir)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(s.Dir(), Options{Ballast: -1}); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "rebuild") {
		t.Errorf("open without a database: %v", err)
	}
	s, r = rebuild(t, s, RebuildOptions{DropLoose: true})
	if r.Old != "" {
		t.Errorf("%+v", r)
	}
	mustCheck(t, s)
	if _, err := s.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	mustCheck(t, s)
	requireObjects(t, s, want)
}

// TestRebuildHoldsScheduled: a schedule that goes on with the empty tree removes none of the
// snapshots that lead back.
func TestRebuildHoldsScheduled(t *testing.T) {
	s := newStore(t, compactConfig())
	release := s.Hold()
	to := putSnapshot(t, s, "what the names lead to")
	err := s.Update(func() error {
		return errors.Join(s.NameSnapshot("by-hand", to), s.NameSnapshot("by-schedule", to, Scheduled))
	})
	release()
	if err != nil {
		t.Fatal(err)
	}
	s, r := rebuild(t, s, RebuildOptions{})
	mustCheck(t, s)
	if r.Held != 1 || r.Snapshots != 2 {
		t.Errorf("%+v", r)
	}
	for name, held := range map[string]bool{"by-hand": false, "by-schedule": true} {
		if ref, err := s.Snapshot(name); err != nil || ref.Held != held || ref.Scheduled != held {
			t.Errorf("%+v, %v, want held %v", ref, err, held)
		}
	}
}

func TestRebuildOfDamagedSegments(t *testing.T) {
	s := newStore(t, compactConfig())
	a, b := randomBytes(1, 300_000), randomBytes(2, 300_000)
	mustIngest(t, s, "a", a)
	mustIngest(t, s, "b", b)
	var first BlockInfo
	id := mustIngest(t, s, "a", a).ID
	v, err := s.fileVertex(ctx, id)
	for err == nil && v.Height > 0 {
		v, err = s.fileVertex(ctx, v.Parts[0].ID)
	}
	if err != nil {
		t.Fatal(err)
	}
	err = s.Blocks(ctx, BlockFilter{Prefix: v.Parts[0].ID.String()}, func(b BlockInfo) error { first = b; return nil })
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	flip(t, s.Dir(), first.Segment, first.Offset+200)
	s, r := rebuild(t, s, RebuildOptions{})
	if r.Missing != 1 {
		t.Errorf("%+v", r)
	}
	requireObjects(t, s, map[string][]byte{"b": b})
	if err := s.Fetch(ctx, "a", 0, -1, new(strings.Builder)); err == nil {
		t.Error("an object with a hole was fetched")
	}
	mustIngest(t, s, "again", a) // brings the block back
	mustCheck(t, s)
	requireObjects(t, s, map[string][]byte{"a": a, "b": b})
}

func TestRebuildOfAnOpenStore(t *testing.T) {
	s := newStore(t, smallConfig())
	if _, err := Rebuild(ctx, s.Dir(), RebuildOptions{}); !errors.Is(err, ErrLocked) {
		t.Errorf("rebuilt an open store: %v", err)
	}
}
