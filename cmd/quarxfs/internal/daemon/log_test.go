package daemon

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLogIsBounded(t *testing.T) {
	saved, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer saved.Close()
	dir := t.TempDir()
	l := newLog(io.Discard, 1000)
	if err := l.moveTo(filepath.Join(dir, "log")); err != nil {
		t.Fatal(err)
	}
	if err := l.follow(int(saved.Fd())); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if _, err := l.Write(bytes.Repeat([]byte("x"), 99)); err != nil {
			t.Fatal(err)
		}
	}
	var sizes []int64
	for _, name := range []string{"log", "log.1"} {
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, st.Size())
	}
	if diff := cmp.Diff([]int64{990, 990}, sizes); diff != "" {
		t.Error(diff)
	}
	if st, err := saved.Stat(); err != nil || st.Size() != 990 {
		t.Errorf("what follows the log is not at it: %v, %v", st.Size(), err)
	}
}

// TestLogBeginsWithWhatCameBefore: what opening a store warns of is in its log.
func TestLogBeginsWithWhatCameBefore(t *testing.T) {
	var out bytes.Buffer
	l := newLog(&out, 1000)
	path := filepath.Join(t.TempDir(), "log")
	_, err := l.Write([]byte("early\n"))
	if err = errors.Join(err, l.moveTo(path)); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Write([]byte("late\n")); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); string(b) != "early\nlate\n" || out.String() != "early\n" {
		t.Errorf("log %q, output %q: %v", b, out.Bytes(), err)
	}
}
