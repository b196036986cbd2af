package db

import (
	"errors"
	"fmt"
	"testing"
)

// TestView: a view shows the rows of its instant, through its own layers and
// through Badger, whatever happens since.
func TestView(t *testing.T) {
	d, err := Open(Options{Dir: t.TempDir(), MemTable: minMemTable, MinFree: 1})
	if err != nil {
		t.Fatal(err)
	}
	closed := false
	defer func() {
		if !closed {
			_ = d.Close()
		}
	}()
	key := func(i int) []byte { return fmt.Appendf(nil, "k%03d", i) }
	set := func(i int, value string) { d.Set(key(i), []byte(value)) }
	write := func() {
		d.Freeze()
		if err := d.Write(nil); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 100 {
		set(i, "old")
	}
	write()
	set(1, "pending")
	d.Delete(key(2))
	v, err := d.View()
	if err != nil {
		t.Fatal(err)
	}
	for round := range 20 { // enough for Badger to get some of it
		for i := range 200 {
			set(i, fmt.Sprint("new", round))
		}
		d.Delete(key(3))
		write()
	}
	check := func(i int, want string) {
		t.Helper()
		got, err := v.Get(key(i))
		if want == "" {
			if !errors.Is(err, ErrNotFound) {
				t.Errorf("row %d: %q (%v), want none", i, got, err)
			}
			return
		}
		if string(got) != want || err != nil {
			t.Errorf("row %d: %q (%v), want %q", i, got, err, want)
		}
	}
	check(0, "old")
	check(1, "pending")
	check(2, "")
	check(3, "old")
	check(150, "")
	n := 0
	err = v.ScanPrefix([]byte("k"), func(_, value []byte) error {
		n++
		if s := string(value); s != "old" && s != "pending" {
			t.Errorf("scanned %q", s)
		}
		return nil
	})
	if n != 99 || err != nil {
		t.Errorf("%d rows scanned (%v), want 99", n, err)
	}
	done := make(chan error)
	go func() { done <- d.Close() }()
	check(0, "old") // Close waits for the view
	v.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	closed = true
	if _, err := d.View(); !errors.Is(err, ErrClosed) {
		t.Errorf("a view of a closed database: %v", err)
	}
}
