package store

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/quarxtor/quarxfs/tiering"
	"github.com/quarxtor/quarxfs/tiering/s3/s3test"
)

// TestRelocateCold has the cold tier be elsewhere: what is not all of it is refused and changes
// nothing, and from what is it goes on.
func TestRelocateCold(t *testing.T) {
	s, dir, cold := openCold(t)
	kept := ingestWords(t, s, "a", "b", "c")
	ids, _ := dataBlocks(t, s)
	if _, err := s.Move(ctx, tiering.Cold, ids, MoveOptions{}); err != nil {
		t.Fatal(err)
	}
	segments := func(dir string) []string {
		names, err := filepath.Glob(filepath.Join(dir, "*.*"))
		if err != nil || len(names) == 0 {
			t.Fatal(names, err)
		}
		return names
	}
	here := func(path string) func(string) error { return func(string) error { return os.RemoveAll(path) } }
	for _, c := range []struct {
		name  string
		spoil func(dir string) error
		want  error
	}{
		{"missing", func(dir string) error { return os.RemoveAll(dir) }, ErrNotCold},
		{"no marker", func(dir string) error { return os.Remove(filepath.Join(dir, tiering.MarkerName)) }, ErrNotCold},
		{"another's marker", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, tiering.MarkerName), []byte("quarxfs cold tier, version 1\n00000000000000000000000000000000\n"), 0o600)
		}, ErrNotCold},
		{"no segment", func(dir string) error { return os.Remove(segments(dir)[0]) }, ErrNotCold},
		{"cut segment", func(dir string) error { return os.Truncate(segments(dir)[0], 100) }, ErrNotCold},
		{"copy beside the old one", func(string) error { return nil }, nil},
		{"only copy", here(cold), nil},
	} {
		to := filepath.Join(t.TempDir(), "new")
		from, _ := s.Cold()
		if err := copySparse(from.Dir, to); err != nil {
			t.Fatal(err)
		}
		if err := c.spoil(to); err != nil {
			t.Fatal(err)
		}
		if err := s.RelocateCold(to); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if now, _ := s.Cold(); (now.Dir == to) != (c.want == nil) || now.ID != from.ID {
			t.Errorf("%s: the tier is at %s", c.name, now.Dir)
		}
		requireObjects(t, s, kept)
	}
	// What is moved from now on goes where the tier is, and is found there by the next opening.
	mustIngest(t, s, "more", words(9, 1<<20))
	kept["more"] = words(9, 1<<20)
	ids, _ = dataBlocks(t, s)
	if _, err := s.Move(ctx, tiering.Cold, ids, MoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// Gone without a word: the directory is moved while the store is shut.
	from, _ := s.Cold()
	to := filepath.Join(t.TempDir(), "last")
	if err := os.Rename(from.Dir, to); err != nil {
		t.Fatal(err)
	}
	s = reopenCold(t, dir)
	if err := s.tiers.Reach(tiering.Cold); !errors.Is(err, ErrUnavailable) {
		t.Fatal(err)
	}
	for path, want := range map[string]error{"relative": ErrConfig, filepath.Join(dir, "cold"): ErrConfig, to: nil} {
		if err := s.RelocateCold(path); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", path, err, want)
		}
	}
	requireObjects(t, s, kept)
	requireSound(t, s)
	if err := s.RelocateBucket("s3://"+s3test.Bucket+"/x", S3Server{Endpoint: "http://127.0.0.1:1"}); !errors.Is(err, ErrConfig) {
		t.Errorf("a directory became a bucket: %v", err)
	}
}

func TestRelocateBucket(t *testing.T) {
	s, _, p := openBucket(t)
	kept := ingestWords(t, s, "a", "b")
	ids, _ := dataBlocks(t, s)
	if _, err := s.Move(ctx, tiering.Cold, ids, MoveOptions{}); err != nil {
		t.Fatal(err)
	}
	from, _ := s.Cold()
	other := s3test.NewProxy(t, p.URL)
	if err := s.RelocateBucket("s3://"+s3test.Bucket+"/other", S3Server{Endpoint: other.URL}); !errors.Is(err, ErrNotCold) {
		t.Errorf("a prefix without the tier: %v", err)
	}
	requireObjects(t, s, kept)
	if err := s.RelocateBucket(from.Dir, S3Server{Endpoint: other.URL}); err != nil {
		t.Fatal(err)
	}
	requireObjects(t, s, kept)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = reopenBucket(t, s.Dir())
	requireColdReach(t, s, nil)
	if now, _ := s.Cold(); now.S3.Endpoint != other.URL {
		t.Errorf("the tier is at %s", now.S3.Endpoint)
	}
	requireObjects(t, s, kept)
	requireSound(t, s)
}
