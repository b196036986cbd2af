package store

import (
	"errors"
	"os"
	"testing"

	"github.com/quarxtor/quarxfs/tiering"
	"github.com/quarxtor/quarxfs/tiering/s3/s3test"
)

// A cold tier that is away is no damage: a check says how many blocks it could not look at, and
// finds what else is wrong all the same.
func TestCheckWithColdTierAway(t *testing.T) {
	const hotHarm = true
	for _, c := range []struct {
		name   string
		bucket bool
		harm   bool // a bit of a hot block is flipped as well
	}{
		{name: "directory"},
		{name: "directory, and damage", harm: hotHarm},
		{name: "bucket", bucket: true},
		{name: "bucket, and damage", bucket: true, harm: hotHarm},
	} {
		t.Run(c.name, func(t *testing.T) {
			var s *Store
			var away, back func()
			if c.bucket {
				st, _, p := openBucket(t)
				s = st
				away = func() { p.Set(func(*s3test.Request) s3test.Fault { return s3test.Fault{Drop: true} }) }
				back = func() { p.Set(nil) }
			} else {
				st, _, cold := openCold(t)
				s = st
				away = func() { rename(t, cold, cold+".away") }
				back = func() { rename(t, cold+".away", cold) }
			}
			ingestWords(t, s, "a", "b")
			ids, _ := dataBlocks(t, s)
			cold := ids[:len(ids)/2]
			if _, err := s.Move(ctx, tiering.Cold, cold, MoveOptions{}); err != nil {
				t.Fatal(err)
			}
			if c.harm {
				e, err := s.Lookup(ids[len(ids)-1])
				if err != nil {
					t.Fatal(err)
				}
				flip(t, s.Dir(), e.Loc.Segment, int64(e.Loc.Offset)+int64(e.Loc.Length)-1)
			}
			dir := s.Dir()
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			away()
			if s = reopenCold(t, dir); c.bucket {
				requireColdReach(t, s, ErrUnavailable)
			}
			problems := int64(0)
			if c.harm {
				problems = 1
			}
			r, err := s.Check(ctx, CheckOptions{Data: true})
			if err != nil || r.Count != problems || r.Hidden != int64(len(cold)) {
				t.Errorf("check: %d problems %v, %d hidden, want %d and %d: %v", r.Count, r.Problems, r.Hidden, problems, len(cold), err)
			}
			if _, err := s.Repair(ctx, CheckOptions{}); !errors.Is(err, ErrUnavailable) {
				t.Errorf("repair: %v", err)
			}
			back()
			requireColdReach(t, s, nil)
			r, err = s.Check(ctx, CheckOptions{Data: true})
			if err != nil || r.Count != problems || r.Hidden != 0 {
				t.Errorf("check of all: %v, %d hidden: %v", r.Problems, r.Hidden, err)
			}
		})
	}
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}
