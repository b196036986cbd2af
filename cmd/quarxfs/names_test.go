package main

import (
	"bytes"
	"log/slog"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/spf13/cobra"

	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/localnode"
	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/fs/volume"
	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/store"
)

// withVolume runs fn on an unmounted store and its live filesystem.
func withVolume(t *testing.T, dir string, fn func(*store.Store, *volume.Volume)) {
	t.Helper()
	st, err := store.Open(dir, store.Options{SweepInterval: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	vol, err := volume.Open(st, volume.Options{NoAtime: true})
	if err != nil {
		t.Fatal(err)
	}
	fn(st, vol)
	if err := vol.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestSeveralNames has each command that takes several names do it for a and b, although the name
// between them is nothing. A new one of these commands has to be here.
func TestSeveralNames(t *testing.T) {
	t.Setenv(storeVariable, "")
	t.Chdir(t.TempDir())
	cases := []struct {
		command, before string
		code            int
		want            []string // on standard output
	}{
		{"snapshot hold", "s", 7, []string{"held a", "held b"}},
		{"snapshot release", "s", 7, []string{"released a", "released b"}},
		{"tier demote", "s", 7, []string{"2 blocks moved to the cold tier"}},
		{"tier promote", "s", 7, []string{"2 blocks moved to the hot tier"}},
		{"tier pin", "s", 7, []string{"pinned a", "pinned b"}},
		{"tier unpin", "s", 7, []string{"unpinned a", "unpinned b"}},
		{"simulate", "", 1, []string{"2 files"}},
		{"sync push", "s peer", 7, []string{"push peer: 2 snapshots"}},
		{"sync pull", "other peer", 7, []string{"pull peer: 2 snapshots"}},
		{"snapshot rm", "s", 7, []string{"removed a", "removed b"}},
	}
	tried := map[string]bool{
		"cluster blast": true, // its question is about all of them together
		"help":          true, // the words of one name
	}
	for _, c := range cases {
		tried[c.command] = true
	}
	var look func(*cobra.Command)
	look = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			look(sub)
		}
		name := strings.TrimPrefix(c.CommandPath(), "quarxfs ")
		if list := words(c); len(list) > 0 && list[len(list)-1].many && !c.Hidden && !tried[name] {
			t.Errorf("%s takes several names and is not in the table", name)
		}
	}
	look(newRoot())

	call := func(line string) (stdout, stderr string, code int) {
		var out, errs bytes.Buffer
		cmd := newRoot()
		cmd.SetArgs(strings.Fields(line))
		cmd.SetOut(&out)
		cmd.SetErr(&errs)
		if err := cmd.ExecuteContext(t.Context()); err != nil {
			errs.WriteString(oneLine(err))
			code = exitCode(err)
		}
		return out.String(), errs.String(), code
	}
	must := func(line string) {
		t.Helper()
		if _, stderr, code := call(line); code != 0 {
			t.Fatalf("%s: %d, %s", line, code, stderr)
		}
	}
	for _, dir := range []string{"s", "other", "peer"} {
		must("init " + dir)
	}
	withVolume(t, "s", func(_ *store.Store, vol *volume.Volume) {
		for _, name := range []string{"a", "b"} {
			f, err := vol.Create(meta.Root, name, volume.CreateOptions{Mode: syscall.S_IFREG | 0o644})
			if err == nil {
				err = vol.Write(f.Ino, 0, bytes.Repeat([]byte(name), 5000), volume.WriteMode{})
			}
			if err == nil {
				err = os.WriteFile(name, []byte(name), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	})
	for _, line := range []string{"snapshot create s a", "snapshot create s b", "tier add s cold cold"} {
		must(line)
	}
	// Without STORE the first name may be a misspelt one.
	t.Setenv(storeVariable, "s")
	for _, c := range []string{"snapshot rm", "snapshot hold", "tier demote", "tier pin"} {
		if stdout, stderr, code := call(c + " nope a b"); code != 7 || stdout != "" || !strings.Contains(stderr, "nothing is done") {
			t.Errorf("%s: exit code %d, %q, %q", c, code, stdout, stderr)
		}
	}
	withVolume(t, "peer", func(st *store.Store, vol *volume.Volume) {
		server := httptest.NewServer(remote.Handler(remote.NewLocal(st, localnode.Around(vol)), slog.New(slog.DiscardHandler)))
		defer server.Close()
		must("remote add s peer " + server.URL)
		must("remote add other peer " + server.URL)
		for _, c := range cases {
			t.Run(c.command, func(t *testing.T) {
				stdout, stderr, code := call(c.command + " " + c.before + " a nope b")
				if code != c.code || !strings.Contains(stderr, "nope") || strings.Count(stderr, "quarxfs:") > 1 {
					t.Errorf("exit code %d, %q", code, stderr)
				}
				for _, want := range c.want {
					if !strings.Contains(stdout, want) {
						t.Errorf("%q is missing in %q", want, stdout)
					}
				}
			})
		}
	})
}
