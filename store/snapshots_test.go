package store

import (
	"encoding/hex"
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/quarxtor/quarxfs/store/vertex"
	"github.com/quarxtor/quarxfs/tiering"
)

// putSnapshot stores what the store takes for a snapshot of one block.
func putSnapshot(t *testing.T, s *Store, content string) ID {
	t.Helper()
	data, err := s.Put(tiering.Data, []byte(content))
	if err != nil {
		t.Fatal(err)
	}
	id, err := s.Put(tiering.Snapshot, vertex.AppendLinks(nil, []ID{data}))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func nameSnapshot(s *Store, name string, id ID) error {
	return s.Update(func() error { return s.NameSnapshot(name, id) })
}

func snapshotNames(t *testing.T, s *Store) []string {
	t.Helper()
	var names []string
	err := s.Snapshots(ctx, func(r SnapshotRef) error { names = append(names, r.Name); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestSnapshotNames(t *testing.T) {
	s := newStore(t, compactConfig())
	release := s.Hold()
	one, two := putSnapshot(t, s, "one"), putSnapshot(t, s, "two")
	for name, id := range map[string]ID{"a": one, "b": two} {
		if err := nameSnapshot(s, name, id); err != nil {
			t.Fatal(err)
		}
	}
	release()
	if err := nameSnapshot(s, "a", two); !errors.Is(err, ErrNameTaken) {
		t.Errorf("a taken name: %v", err)
	}
	for _, name := range []string{"", ".", "..", "a/b", "a:b", "a\n", "\xff", string(make([]byte, 256))} {
		if err := nameSnapshot(s, name, one); !errors.Is(err, ErrConfig) {
			t.Errorf("the name %q: %v", name, err)
		}
	}
	mustCheck(t, s)
	if err := s.RenameSnapshot("a", "b"); !errors.Is(err, ErrNameTaken) {
		t.Errorf("rename to a taken name: %v", err)
	}
	if err := errors.Join(s.RenameSnapshot("a", "c"), s.HoldSnapshot("c", true), s.HoldSnapshot("c", true)); err != nil {
		t.Fatal(err)
	}
	if err := s.RemoveSnapshot("c"); !errors.Is(err, ErrHeld) {
		t.Errorf("removal of a held snapshot: %v", err)
	}
	if err := s.RemoveSnapshot("b"); err != nil {
		t.Error(err)
	}
	if err := s.RemoveSnapshot("a"); !errors.Is(err, ErrNotFound) {
		t.Errorf("removal of what is not there: %v", err)
	}
	if _, err := s.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	mustCheck(t, s)
	if has, err := s.Has(two); has || err != nil {
		t.Errorf("the removed snapshot is there: %v (%v)", has, err)
	}
	s, r := rebuild(t, s, RebuildOptions{})
	mustCheck(t, s)
	ref, err := s.Snapshot("c")
	if err != nil || ref.ID != one || !ref.Held || r.Snapshots < 1 {
		t.Errorf("after a rebuild: %+v, %+v (%v)", ref, r, err)
	}
}

// TestLockedSnapshot locks a snapshot, and tries to be rid of it before and after that time.
func TestLockedSnapshot(t *testing.T) {
	s := newStore(t, compactConfig())
	now := time.Now()
	s.base.now = func() time.Time { return now }
	release := s.Hold()
	id := putSnapshot(t, s, "one")
	for _, name := range []string{"a", "b"} {
		if err := nameSnapshot(s, name, id); err != nil {
			t.Fatal(err)
		}
	}
	release()
	for i, step := range []struct {
		after time.Duration
		do    func() error
		want  error
	}{
		{0, func() error { return s.LockSnapshot("a", now) }, ErrConfig},
		{0, func() error { return s.LockSnapshot("x", now.Add(time.Hour)) }, ErrNotFound},
		{0, func() error { return s.LockSnapshot("a", now.Add(time.Hour)) }, nil},
		{0, func() error { return s.RemoveSnapshot("a") }, ErrHeld},
		{0, func() error { return s.HoldSnapshot("a", false) }, ErrHeld},
		{0, func() error { return s.LockSnapshot("a", now.Add(time.Minute)) }, ErrHeld},
		{time.Minute, func() error { return s.LockSnapshot("a", now.Add(2*time.Hour)) }, nil},
		{0, func() error { return s.HoldSnapshot("a", true) }, nil},
		{time.Hour, func() error { return s.RenameSnapshot("a", "c") }, nil},
		{0, func() error { return s.RemoveSnapshot("c") }, ErrHeld},
		{0, func() error { return s.HoldSnapshot("c", false) }, ErrHeld},
		{0, func() error { return s.LockSnapshot("b", now.Add(time.Hour)) }, nil},
		{time.Hour, func() error { return s.RemoveSnapshot("c") }, nil},
		// A hold after the lock is over lasts.
		{0, func() error { return s.HoldSnapshot("b", true) }, nil},
		{time.Hour, func() error { return s.RemoveSnapshot("b") }, ErrHeld},
		{0, func() error { return s.HoldSnapshot("b", false) }, nil},
		{0, func() error { return s.LockSnapshot("b", now.Add(time.Hour)) }, nil},
	} {
		now = now.Add(step.after)
		if err := step.do(); !errors.Is(err, step.want) {
			t.Errorf("step %d: %v, want %v", i, err, step.want)
		}
	}
	mustCheck(t, s)
	// The lock is lost with the database, the hold is not.
	s, _ = rebuild(t, s, RebuildOptions{})
	if ref, err := s.Snapshot("b"); err != nil || !ref.HeldAt(now.Add(1000*time.Hour)) || !ref.Until.IsZero() {
		t.Errorf("after a rebuild: %+v, %v", ref, err)
	}
}

// TestRepairSnapshotName damages the row of a name; the other one is repaired.
func TestRepairSnapshotName(t *testing.T) {
	s := newStore(t, compactConfig())
	release := s.Hold()
	for name, id := range map[string]ID{"a": putSnapshot(t, s, "one"), "b": putSnapshot(t, s, "two")} {
		if err := nameSnapshot(s, name, id); err != nil {
			t.Fatal(err)
		}
	}
	release()
	s.db.Set(snapshotKey("a"), []byte("?"))
	if err := s.Commit(); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Check(ctx, CheckOptions{}); err != nil || r.Count == 0 {
		t.Errorf("the damage is not found: %+v (%v)", r, err)
	}
	if _, err := s.Repair(ctx, CheckOptions{}); err != nil {
		t.Fatal(err)
	}
	mustCheck(t, s)
	if names := snapshotNames(t, s); !reflect.DeepEqual(names, []string{"b"}) {
		t.Errorf("names %q", names)
	}
}

// TestPauseSweep: what lost its last reference stays while somebody builds on it.
func TestPauseSweep(t *testing.T) {
	s := newStore(t, compactConfig())
	o := mustIngest(t, s, "x", []byte("content"))
	release := s.PauseSweep()
	if err := s.Delete(ctx, "x"); err != nil {
		t.Fatal(err)
	}
	sweep := func() bool {
		if _, err := s.Sweep(ctx); err != nil {
			t.Fatal(err)
		}
		has, err := s.Has(o.ID)
		if err != nil {
			t.Fatal(err)
		}
		return has
	}
	if !sweep() {
		t.Error("the sweep took a block that was kept")
	}
	release()
	if sweep() {
		t.Error("the sweep left a block that nobody keeps")
	}
	mustCheck(t, s)
}

func TestSnapshotNameGolden(t *testing.T) {
	r := SnapshotRef{Name: "daily", ID: ID{31: 1}, Set: time.UnixMilli(1_764_000_000_123), Held: true}
	want := "01" + r.ID.String() + "02" + "01" + "f6a1bfe9d666" + hex.EncodeToString([]byte("daily"))
	b := r.vertex()
	if got := hex.EncodeToString(b); got != want || len(b) != 46 {
		t.Errorf("%d bytes %s, want %s", len(b), got, want)
	}
	if got, err := decodeSnapshotName(b); err != nil || got != r {
		t.Errorf("decoded %+v (%v)", got, err)
	}
	if got, err := decodeSnapshotRef("daily", r.encode()); err != nil || got != r || len(r.encode()) != 39 {
		t.Errorf("row of %d bytes: %+v (%v)", len(r.encode()), got, err)
	}
	for cut := range b[:41] {
		if _, err := decodeSnapshotName(b[:cut]); !errors.Is(err, ErrCorrupt) {
			t.Errorf("cut to %d bytes: %v", cut, err)
		}
	}
}

func FuzzSnapshotName(f *testing.F) {
	r := SnapshotRef{Name: "daily", ID: ID{31: 1}, Set: time.UnixMilli(1_764_000_000_123), Held: true}
	f.Add(r.vertex())
	f.Add(r.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := decodeSnapshotName(b); err == nil {
			if again := r.vertex(); string(again) != string(b) {
				t.Errorf("%x became %x", b, again)
			}
		}
		if r, err := decodeSnapshotRef("x", b); err == nil {
			if again := r.encode(); string(again) != string(b) {
				t.Errorf("%x became %x", b, again)
			}
		}
	})
}
