package store

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quarxtor/quarxfs/tiering"
)

// openSegment is the path of the segment that is appended to.
func openSegment(t *testing.T, dir string) string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(dir, hotDir, "*.open"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range list {
		if info, err := os.Stat(path); err == nil && info.Size() > 1000 { // the next one is empty
			return path
		}
	}
	t.Fatal("no segment is appended to: ", list)
	return ""
}

// harmsOfOpenSegments are what may be done to the segment that is appended to, beneath the store.
var harmsOfOpenSegments = []harm{
	{"emptied", func(path, _, _ string) error { return os.Truncate(path, 0) }},
	{"cut by a byte", func(path, _, _ string) error { return shorten(path, 1) }},
	{"cut", func(path, _, _ string) error { return shorten(path, 5000) }},
	{"removed", func(path, _, _ string) error { return os.Remove(path) }},
	{"moved away", func(path, _, _ string) error { return os.Rename(path, path+".moved") }},
	{"replaced by a copy of before", func(path, older, _ string) error {
		b, err := os.ReadFile(older)
		if err == nil {
			err = os.Rename(path, path+".moved")
		}
		return errors.Join(err, os.WriteFile(path, b, 0o600))
	}},
	{"its directory replaced", func(path, _, _ string) error {
		dir := filepath.Dir(path)
		return errors.Join(os.Rename(dir, dir+".moved"), os.Mkdir(dir, 0o700))
	}},
}

func shorten(path string, by int64) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	return os.Truncate(path, info.Size()-by)
}

// TestHarmedWhileWritten harms the segment that is appended to, and then goes on. It is told at the
// latest by the next commit, whether there is something to commit or not, and by all later ones; by
// a check, by Close and by the next opening. What was put since is saved where that can be done.
func TestHarmedWhileWritten(t *testing.T) {
	steps := map[string]func(s *Store) error{
		"commit": func(s *Store) error { return s.Commit() },
		"append": func(s *Store) error {
			_, err := s.Ingest(ctx, strings.NewReader(string(words(7, 20_000))), "new")
			return errors.Join(err, s.Commit())
		},
		"seal": func(s *Store) error {
			n, ok := s.tiers.Active(0)
			if !ok {
				return nil // an append has noticed
			}
			s.tiers.Retire(n)
			_ = s.tiers.Seal(ctx, n)
			return s.Commit()
		},
		"close": func(*Store) error { return ErrDamaged },
	}
	for _, h := range harmsOfOpenSegments {
		for step, do := range steps {
			if again := step == "seal" || step == "close"; again && h.name != "emptied" && h.name != "moved away" {
				continue // sealing and closing look as a commit does
			}
			t.Run(h.name+", "+step, func(t *testing.T) {
				t.Parallel() // a check that finds something waits for it to pass
				dir := filepath.Join(fastDir(t), "s")
				older := filepath.Join(t.TempDir(), "older")
				if err := Init(dir, DefaultConfig()); err != nil {
					t.Fatal(err)
				}
				s, err := Open(dir, sampleOptions())
				if err != nil {
					t.Fatal(err)
				}
				mustIngest(t, s, "first", words(1, 20_000))
				path := openSegment(t, dir)
				b, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(older, b, 0o600); err != nil {
					t.Fatal(err)
				}
				mustIngest(t, s, "second", words(2, 20_000))
				// Not committed: it is in memory, and can be saved.
				if _, err := s.Put(tiering.Data, []byte("fresh "+t.Name())); err != nil {
					t.Fatal(err)
				}
				if err := h.do(path, older, ""); err != nil {
					t.Fatal(err)
				}
				if err := do(s); !errors.Is(err, ErrDamaged) {
					t.Errorf("%v", err)
				}
				if step != "close" {
					if err := s.Commit(); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), filepath.Base(path)) {
						t.Errorf("the commit after: %v", err)
					}
					if err := s.Accepts(); !errors.Is(err, ErrDamaged) {
						t.Errorf("changes are taken: %v", err)
					}
					if r, err := s.Check(ctx, CheckOptions{}); err != nil || r.Count == 0 {
						t.Errorf("check: %v %v", r.Problems, err)
					}
				}
				if err := s.Close(); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), filepath.Base(path)) {
					t.Errorf("close: %v", err)
				}
				s, err = Open(dir, sampleOptions())
				if err == nil {
					err = s.Close()
				}
				// One byte is of what was put last: nothing that a commit has made durable is gone.
				if onlyFresh := h.name == "cut by a byte"; onlyFresh != (err == nil) || err != nil && !errors.Is(err, ErrDamaged) {
					t.Errorf("opened again: %v", err)
				}
			})
		}
	}
}

// A store whose lock was removed beneath it is in use all the same, to every way of opening it.
func TestLockRemoved(t *testing.T) {
	s := newStore(t, DefaultConfig())
	dir := s.Dir()
	mustIngest(t, s, "kept", words(1, 5_000))
	for range 2 { // what is refused makes no lock that the next would find free
		if err := os.Remove(filepath.Join(dir, lockName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		if other, err := Open(dir, Options{}); !errors.Is(err, ErrLocked) {
			t.Errorf("opened: %v, %v", other, err)
		}
		if other, err := Open(dir, Options{ReadOnly: true}); !errors.Is(err, ErrLocked) {
			t.Errorf("opened for reading: %v, %v", other, err)
		}
		if _, err := Rebuild(t.Context(), dir, RebuildOptions{}); !errors.Is(err, ErrLocked) {
			t.Errorf("rebuilt: %v", err)
		}
	}
	if got := fetch(t, s, "kept", 0, -1); !bytes.Equal(got, words(1, 5_000)) {
		t.Errorf("%d bytes", len(got))
	}
}
