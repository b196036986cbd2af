package db

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"testing"
)

// A copier is a follower that keeps what it is given.
type copier struct {
	commits []string
	rowErr  error
	err     error
}

func (c *copier) Row() (key, value []byte, err error) {
	return []byte("position"), fmt.Append(nil, len(c.commits)+1), c.rowErr
}

func (c *copier) Follow(changes iter.Seq2[[]byte, []byte]) error {
	if c.err != nil {
		return c.err
	}
	var words []string
	for key, value := range changes {
		word := fmt.Sprintf("%s=%s", key, value)
		if value == nil {
			word = "-" + string(key)
		}
		words = append(words, word)
	}
	c.commits = append(c.commits, strings.Join(words, " "))
	return nil
}

// A follower gets each commit whole, with its row, and none that is empty or that was not made.
// When it fails, the commit is there after a restart, and nothing is written behind it.
func TestFollower(t *testing.T) {
	c := &copier{}
	opt := testOptions(t.TempDir())
	opt.Follower = c
	d := openTest(t, opt)
	commit(t, d)
	d.Set([]byte("a"), []byte("1"))
	d.Set([]byte("b"), []byte{})
	commit(t, d)
	d.Delete([]byte("a"))
	d.Freeze()
	c.rowErr = errors.New("no row")
	if err := d.Write(nil); !errors.Is(err, c.rowErr) {
		t.Fatal(err)
	}
	c.rowErr = nil
	var extra Batch
	extra.Set([]byte("c"), []byte("3"))
	if err := d.Write(&extra); err != nil {
		t.Fatal(err)
	}
	want := []string{"a=1 b= position=1", "-a c=3 position=2"}
	if !slices.Equal(c.commits, want) {
		t.Fatalf("%q, want %q", c.commits, want)
	}
	c.err = errors.New("another one writes")
	d.Set([]byte("d"), []byte("4"))
	d.Freeze()
	commits := d.Commits()
	for range 2 {
		if err := d.Write(nil); !errors.Is(err, c.err) {
			t.Fatal(err)
		}
	}
	c.err = nil
	d.Set([]byte("e"), []byte("5"))
	d.Freeze()
	if err := d.Write(nil); err == nil || d.Commits() != commits+1 {
		t.Fatalf("%v, after %d commits", err, d.Commits()-commits)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = openTest(t, opt)
	rows := maps.Collect(func(yield func(string, string) bool) {
		_ = d.Scan(nil, nil, func(k, v []byte) error { yield(string(k), string(v)); return nil })
	})
	if len(rows) != 4 || rows["d"] != "4" || rows["c"] != "3" || rows["position"] != "3" {
		t.Errorf("%v", rows)
	}
}
