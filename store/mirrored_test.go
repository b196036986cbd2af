package store

import (
	"errors"
	"iter"
	"path/filepath"
	"strings"
	"testing"
)

// A listener is a follower that has all.
type listener struct{ commits int }

func (l *listener) Row() (key, value []byte, err error) { return []byte{'p'}, []byte("here"), nil }

func (l *listener) Follow(iter.Seq2[[]byte, []byte]) error {
	l.commits++
	return nil
}

// A copy of a mirrored volume is changed by nobody who leaves the other copies out.
func TestMirroredStore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	c := DefaultConfig()
	c.Mirrored = true
	if err := Init(dir, c); err != nil {
		t.Fatal(err)
	}
	if is, err := ReadConfig(dir); err != nil || !is.Mirrored {
		t.Fatalf("%+v, %v", is, err)
	}
	f := new(listener)
	s, err := Open(dir, Options{Follower: f})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.AddCold(t.TempDir()); !errors.Is(err, ErrConfig) {
		t.Errorf("a cold tier that no copy has: %v", err)
	}
	if _, err := s.Ingest(t.Context(), strings.NewReader("bytes"), "name"); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil || f.commits == 0 {
		t.Fatalf("%d commits, %v", f.commits, err)
	}
	for name, change := range map[string]func() error{
		"open":    func() error { _, err := Open(dir, Options{}); return err },
		"rebuild": func() error { _, err := Rebuild(t.Context(), dir, RebuildOptions{}); return err },
		"repair":  func() error { _, err := Open(dir, Options{Salvage: true}); return err },
	} {
		if err := change(); !errors.Is(err, ErrMirrored) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s, err = Open(dir, Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
