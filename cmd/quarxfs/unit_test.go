package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/mounts"
)

// quarxfs runs a command in this process.
func quarxfs(t *testing.T, stdin []byte, args ...string) (stdout string, code int) {
	t.Helper()
	var out bytes.Buffer
	cmd := newRoot()
	cmd.SetArgs(args)
	cmd.SetIn(bytes.NewReader(stdin))
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		return oneLine(err), exitCode(err)
	}
	return out.String(), exitOK
}

func TestAmbiguousPrefix(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	data := make([]byte, 8<<20) // 2,048 blocks: two that start with the same 16 bits are certain enough
	_, _ = rand.NewChaCha8([32]byte{}).Read(data)
	quarxfs(t, nil, "init", dir, "--chunker", "fixed", "--block-size", "4KiB")
	if out, code := quarxfs(t, data, "put", dir); code != 0 {
		t.Fatal(out)
	}
	out, _ := quarxfs(t, nil, "list-blocks", dir, "--json", "--kind", "data")
	seen := make(map[string]bool)
	for line := range strings.Lines(out) {
		var b struct{ ID string }
		if err := json.Unmarshal([]byte(line), &b); err != nil {
			t.Fatal(err)
		}
		prefix := b.ID[:4]
		if seen[prefix] {
			out, code := quarxfs(t, nil, "get", dir, prefix)
			if code != 8 || !strings.HasSuffix(out, "give more digits") {
				t.Errorf("exit code %d, %q", code, out)
			}
			if _, code := quarxfs(t, nil, "get", dir, b.ID[:12]); code != 0 {
				t.Errorf("exit code %d for a longer prefix", code)
			}
			return
		}
		seen[prefix] = true
	}
	t.Fatal("no two blocks start with the same digits")
}

func TestMountinfo(t *testing.T) {
	table := mounts.Parse(`22 27 0:21 / / rw - ext4 /dev/vda rw
40 22 0:50 / /mnt/a\040b rw,nosuid shared:3 - fuse.quarxfs /srv/my\040store rw,user_id=0
41 40 0:51 / /mnt/a\040b/in rw - tmpfs none rw
42 22 0:52 / /mnt/top rw - fuse.quarxfs /srv/one rw
43 42 0:53 / /mnt/top rw - fuse.quarxfs /srv/two rw
broken line
`)
	for path, want := range map[string]string{
		"/mnt/a b": "/srv/my store", "/mnt/a b/x": "/srv/my store", "/mnt/a b/in/x": "", "/mnt/a bc": "", "/": "", "/mnt/top/x": "/srv/two",
	} {
		m, ok := mounts.At(table, path)
		if ok != (want != "") || ok && m.Source != want {
			t.Errorf("%s: %+v, %v, want %q", path, m, ok, want)
		}
	}
}

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

func TestSpan(t *testing.T) {
	for text, want := range map[string][2]int64{"": {0, -1}, "0-0": {0, 1}, "5-": {5, -1}, "10-19": {10, 10}} {
		off, length, err := parseSpan(text)
		if err != nil || off != want[0] || length != want[1] {
			t.Errorf("%q: %d, %d, %v", text, off, length, err)
		}
	}
	for _, text := range []string{"-", "-5", "5", "a-b", "5-4", "0-9223372036854775807", "1--2"} {
		if _, _, err := parseSpan(text); exitCode(err) != 2 {
			t.Errorf("%q: %v", text, err)
		}
	}
}
