package graph

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/quarxtor/quarxfs/store"
)

func openStore(t *testing.T) *store.Store {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "store")
	if err := store.Init(dir, store.DefaultConfig()); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(dir, store.Options{SweepInterval: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func sweep(t *testing.T, s *store.Store) {
	t.Helper()
	if err := s.Commit(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
}

// The sweep leaves alone what a Writer has made and nothing refers to yet, and
// takes all of it once the Writer is closed.
func TestWriterKeeps(t *testing.T) {
	s := openStore(t)
	w := NewWriter(s)
	release := s.Hold()
	block, err := s.Put(store.KindData, []byte("hello"))
	if err != nil {
		t.Fatal(err)
	}
	w.Keep(block)
	release()
	sweep(t, s)
	b := NewTreeBuilder(w, Directory)
	for i := range 2000 {
		e := fileEntry(fmt.Sprintf("%05d", i), 0)
		e.Link = Link{block, store.KindData}
		if err := b.Add(e); err != nil {
			t.Fatal(err)
		}
		if i == 1000 {
			sweep(t, s)
		}
	}
	root, err := b.Finish()
	if err != nil {
		t.Fatal(err)
	}
	sweep(t, s)
	read := 0
	if err := OpenTree(s, root.ID, Directory).Each(ctx, "", func(*Entry) error { read++; return nil }); err != nil || read != 2000 {
		t.Errorf("read %d entries: %v", read, err)
	}
	if row, err := s.Lookup(block); err != nil || row.Refs != 2000 {
		t.Errorf("the block has %d references (%v)", row.Refs, err)
	}
	w.Close()
	sweep(t, s)
	for _, id := range []ID{root.ID, block} {
		if _, err := s.Lookup(id); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%s is still there: %v", id.Short(), err)
		}
	}
}
