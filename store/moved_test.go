package store

import (
	"path/filepath"
	"strings"
	"testing"
)

// strangePaths are directories whose names mean something to somebody: patterns,
// separators of tables, bytes that are not UTF-8, and paths longer than what a
// socket's address takes, or as long as a path may be.
func strangePaths(t *testing.T) map[string]string {
	top := t.TempDir()
	long := top
	for len(long) < 3900 {
		long = filepath.Join(long, strings.Repeat("d", min(200, 3990-len(long))))
	}
	return map[string]string{
		"class":     filepath.Join(top, "x[1]", "s"),
		"star":      filepath.Join(top, "a*b", "s"),
		"question":  filepath.Join(top, "a?", "s"),
		"backslash": filepath.Join(top, `a\b`, "s"),
		"space":     filepath.Join(top, "a b\tc", "s"),
		"newline":   filepath.Join(top, "a\nb", "s"),
		"bytes":     filepath.Join(top, "a\xffb", "s"),
		"long":      filepath.Join(long, "s"),
	}
}

// A store works wherever it is: its path is a name, and no pattern.
func TestStrangePaths(t *testing.T) {
	for name, dir := range strangePaths(t) {
		t.Run(name, func(t *testing.T) {
			if err := Init(dir, DefaultConfig()); err != nil {
				t.Fatal(err)
			}
			for n := range 2 {
				st, err := Open(dir, Options{})
				if err != nil {
					t.Fatal(err)
				}
				if len(dir) < 4000 && st.Dir() != dir {
					t.Errorf("the store says that it is in %q", st.Dir())
				}
				if n == 0 {
					mustIngest(t, st, "kept", []byte("bytes"))
				} else if got := fetch(t, st, "kept", 0, -1); string(got) != "bytes" {
					t.Errorf("read %q", got)
				}
				if err := st.Close(); err != nil {
					t.Fatal(err)
				}
			}
			done, err := Rebuild(t.Context(), dir, RebuildOptions{})
			if err != nil || done.Objects != 1 || filepath.Dir(done.Old) != dir {
				t.Errorf("rebuild: %+v, %v", done, err)
			}
		})
	}
}
