package main

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

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
