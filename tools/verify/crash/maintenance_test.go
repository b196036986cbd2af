package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quarxtor/quarxfs/tools/verify/crash/history"
)

// TestSnapshotsAreJudged changes what a snapshot has, in a directory that has
// snapshots only by name.
func TestSnapshotsAreJudged(t *testing.T) {
	const name = "round-1-0"
	for what, tc := range map[string]struct {
		do   func(dir string) error
		cut  *history.Cut
		want string
	}{
		"nothing":               {do: func(string) error { return nil }},
		"gone":                  {os.RemoveAll, nil, "is gone"},
		"changed":               {func(dir string) error { return os.WriteFile(filepath.Join(dir, "f"), []byte("y"), 0o644) }, nil, "another one"},
		"one more file":         {func(dir string) error { return os.WriteFile(filepath.Join(dir, "g"), nil, 0o644) }, nil, "another one"},
		"not yet made at a cut": {os.RemoveAll, &history.Cut{Began: 1, Ended: 2}, ""},
		"made before a cut":     {os.RemoveAll, &history.Cut{Began: 1 << 62, Ended: 1 << 62}, "is gone"},
	} {
		t.Run(what, func(t *testing.T) {
			mount := t.TempDir()
			w := &snapshots{common: newCommon("snapshots", 8, mount, 1, newAckLog(&bytes.Buffer{}))}
			dir := w.pathOf(name)
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "f"), []byte("x"), 0o644); err != nil {
				t.Fatal(err)
			}
			sum, err := w.sum(name)
			if err != nil {
				t.Fatal(err)
			}
			w.h = []snapshot{{Name: name, Sum: sum, Made: clock()}}
			if err := tc.do(dir); err != nil {
				t.Fatal(err)
			}
			var judged worker = w
			if tc.cut != nil {
				judged = w.at(*tc.cut)
			}
			err = judged.judge(2)
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}
