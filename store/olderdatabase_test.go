package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/quarxtor/quarxfs/tiering"
)

// TestOlderDatabase puts an older database back into a store that has gone on since, with each of
// what may come with it. It is refused each time and nothing is changed; a repair brings back what
// segments have, and nothing of that goes with gc.
func TestOlderDatabase(t *testing.T) {
	since := map[string]func(t *testing.T, s *Store, want map[string][]byte){
		"a tail": func(t *testing.T, s *Store, want map[string][]byte) {
			want["newer"] = words(5, 30_000)
			mustIngest(t, s, "newer", want["newer"])
		},
		"segments": func(t *testing.T, s *Store, want map[string][]byte) {
			for i := range 6 { // two segments at least, however the blocks of a batch fall
				name := fmt.Sprint("newer ", i)
				want[name] = randomBytes(uint64(i), 400<<10)
				mustIngest(t, s, name, want[name])
			}
			if len(s.tiers.Segments()) < 3 {
				t.Fatal("no segment was sealed")
			}
		},
		"another of a name": func(t *testing.T, s *Store, want map[string][]byte) {
			want["older"] = words(6, 20_000)
			mustIngest(t, s, "older", want["older"])
		},
	}
	beside := map[string]func(commits, older string) error{
		"the older commits file": func(commits, older string) error { return replaceBy(commits, older) },
		"no commits file":        func(commits, _ string) error { return os.Remove(commits) },
		"the newer commits file": func(string, string) error { return nil },
	}
	for _, c := range []struct{ state, what, with string }{
		{"closed", "a tail", "the older commits file"},
		{"closed", "segments", "no commits file"},
		{"closed", "another of a name", "the newer commits file"},
		{"killed", "a tail", "no commits file"},
		{"killed", "segments", "the older commits file"},
		{"killed", "another of a name", "the older commits file"},
	} {
		t.Run(fmt.Sprint(c.state, ", ", c.what, ", ", c.with), func(t *testing.T) {
			dir := filepath.Join(fastRoot(t), "store")
			older := makeOlder(t, dir)
			want := map[string][]byte{"older": words(1, 20_000)}
			writeNewer(t, dir, c.state, func(s *Store) { since[c.what](t, s, want) })
			putBack := func(commits func(commits, older string) error) {
				t.Helper()
				err := errors.Join(os.WriteFile(filepath.Join(dir, lockName), nil, 0o600), os.RemoveAll(filepath.Join(dir, dbDir)),
					copySparse(filepath.Join(older, dbDir), filepath.Join(dir, dbDir)),
					commits(filepath.Join(dir, lastCommitName), filepath.Join(older, lastCommitName)))
				if err != nil {
					t.Fatal(err)
				}
				refuseOlder(t, dir)
			}
			putBack(beside[c.with])
			s := salvage(t, dir, CheckOptions{})
			requireObjects(t, s, want)
			if names := snapshotNames(t, s); len(names) != 1 || names[0] != "newer" {
				t.Errorf("snapshots %q", names)
			}
			requireSound(t, s)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if c.what != "a tail" {
				return
			}
			// The same database is older than what the repair made, and a rebuild goes on counting.
			putBack(replaceBy)
			if _, err := Rebuild(ctx, dir, RebuildOptions{}); err != nil {
				t.Fatal(err)
			}
			s, err := Open(dir, sampleOptions())
			if err != nil {
				t.Fatal(err)
			}
			requireObjects(t, s, want)
			requireSound(t, s)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			putBack(func(commits, _ string) error { return os.Remove(commits) })
		})
	}
}

// TestSweepWithOlderDatabase sweeps before anybody has repaired: segments that the database does
// not know of look empty, and stay.
func TestSweepWithOlderDatabase(t *testing.T) {
	dir := filepath.Join(fastRoot(t), "store")
	older := makeOlder(t, dir)
	writeNewer(t, dir, "closed", func(s *Store) { mustIngest(t, s, "newer", randomBytes(1, 3<<20)) })
	err := errors.Join(os.RemoveAll(filepath.Join(dir, dbDir)), copySparse(filepath.Join(older, dbDir), filepath.Join(dir, dbDir)))
	if err != nil {
		t.Fatal(err)
	}
	o := sampleOptions()
	o.Salvage = true
	s, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	before := s.tiers.Segments()
	for range 2 {
		if swept, err := s.Sweep(ctx); err != nil || swept.Segments != 0 {
			t.Errorf("%+v, %v", swept, err)
		}
	}
	// The next segment to append to may have been begun meanwhile, in the background.
	var after []uint64
	for _, seg := range s.tiers.Segments() {
		after = append(after, seg.Number)
	}
	for _, seg := range before {
		if !slices.Contains(after, seg.Number) {
			t.Errorf("segment %x is gone; there are %x", seg.Number, after)
		}
	}
}

// TestForeignSuperblock puts another store's superblock in, and takes away the file that would
// tell.
func TestForeignSuperblock(t *testing.T) {
	root := fastRoot(t)
	dir, other := filepath.Join(root, "store"), filepath.Join(root, "other")
	makeOlder(t, dir)
	makeOlder(t, other)
	err := errors.Join(os.Remove(filepath.Join(dir, lastCommitName)),
		replaceBy(filepath.Join(dir, superblockFile.Name), filepath.Join(other, superblockFile.Name)))
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		s, err := Open(dir, sampleOptions())
		if err == nil {
			s.Close()
		}
		if files := DamagedFiles(err); len(files) != 1 || files[0].File != filepath.Join(dir, superblockFile.Name) {
			t.Errorf("open: %v", err)
		}
	}
}

// makeOlder makes a store in dir, and returns a copy of it.
func makeOlder(t *testing.T, dir string) (older string) {
	t.Helper()
	conf := compactConfig()
	conf.SegmentSize = 1 << 20
	if err := Init(dir, conf); err != nil {
		t.Fatal(err)
	}
	s, err := Open(dir, sampleOptions())
	if err != nil {
		t.Fatal(err)
	}
	mustIngest(t, s, "older", words(1, 20_000))
	older = filepath.Join(fastRoot(t), "older")
	if err := errors.Join(s.Close(), copySparse(dir, older)); err != nil {
		t.Fatal(err)
	}
	return older
}

// writeNewer goes on with the store in dir, and leaves it closed or as a kill would.
func writeNewer(t *testing.T, dir, state string, write func(*Store)) {
	t.Helper()
	s, err := Open(dir, sampleOptions())
	if err != nil {
		t.Fatal(err)
	}
	write(s)
	if err := errors.Join(nameSnapshot(s, "newer", putSnapshot(t, s, "of a snapshot")), s.Commit()); err != nil {
		t.Fatal(err)
	}
	if state == "closed" {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		return
	}
	// What no commit has, a crash takes.
	if _, err := s.Put(tiering.Data, []byte("of no commit")); err != nil {
		t.Fatal(err)
	}
	killed := filepath.Join(fastRoot(t), "killed")
	err = errors.Join(copyStore(dir, killed), s.Close(), os.RemoveAll(dir), copySparse(killed, dir))
	if err != nil {
		t.Fatal(err)
	}
	// By itself that is no reason to refuse anything.
	if err := copySparse(dir, killed+"again"); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(killed+"again", sampleOptions()); err != nil {
		t.Fatal(err)
	}
	requireSound(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// refuseOlder opens a store three times that has an older database.
func refuseOlder(t *testing.T, dir string) {
	t.Helper()
	before := tree(t, dir)
	for range 3 {
		s, err := Open(dir, sampleOptions())
		if err == nil {
			s.Close()
		}
		files := DamagedFiles(err)
		if !errors.Is(err, ErrDamaged) || len(files) == 0 || files[0].File != filepath.Join(dir, dbDir) || files[0].Next != nextOlder {
			t.Fatalf("open: %v", err)
		}
	}
	for path, is := range tree(t, dir) {
		if before[path] != is {
			t.Errorf("%s was changed: %s, %s", path, before[path], is)
		}
	}
}
