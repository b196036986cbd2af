package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// completed is what a shell is offered at the end of a line; the last argument is what has been
// typed of a word.
func completed(t *testing.T, args ...string) []string {
	t.Helper()
	out, code := quarxfs(t, nil, append([]string{cobra.ShellCompNoDescRequestCmd}, args...)...)
	lines := strings.Split(out, "\n")
	end := slices.IndexFunc(lines, func(l string) bool { return len(l) > 1 && l[0] == ':' && strings.Trim(l[1:], "0123456789") == "" })
	if code != 0 || end < 0 {
		t.Fatalf("%q: %d, %s", args, code, out)
	}
	slices.Sort(lines[:end])
	return lines[:end]
}

func TestCompletionAsksTheDaemon(t *testing.T) {
	completeTime = time.Minute // of a busy machine
	r := newArgumentRig(t)
	must := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("quarxfs", args...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	if err := os.WriteFile("file", []byte("bytes"), 0o600); err != nil {
		t.Fatal(err)
	}
	must("put", r.mnt, "file", "--name", "object")
	must("put", r.mnt, "file", "--name", "has blanks")
	must("remote", "add", r.mnt, "nas", "http://127.0.0.1:1")
	must("snapshot", "create", r.mnt, "s2")
	must("token", "create", r.mnt, "laptop")
	for _, c := range []struct {
		line        []string // behind it the store
		typed, want string
	}{
		{[]string{"snapshot", "show"}, "", "s1 s2"},
		{[]string{"snapshot", "rm"}, "s", "s1 s2"},
		{[]string{"snapshot", "diff"}, "s2", "s2"},
		{[]string{"snapshot", "create"}, "", ""},
		{[]string{"snapshot", "restore"}, "s1:", "s1:f s1:sub/ s1:w\ufffd"},
		{[]string{"snapshot", "clone"}, "s1:sub/", "s1:sub/f"},
		{[]string{"cat"}, "s1:s", "s1:sub/"},
		{[]string{"remote", "rm"}, "", "nas"},
		{[]string{"sync", "push"}, "n", "nas"},
		{[]string{"token", "revoke"}, "", "laptop"},
		{[]string{"get"}, "", "object"},
		{[]string{"rm"}, "o", "object"},
		{[]string{"graph", "show"}, "", "object s1 s2"},
		{[]string{"du"}, ":s", ":sub"},
		{[]string{"tier", "demote"}, ":sub/", ":sub/f"},
		{[]string{"tier", "drain"}, "", "cold"},
	} {
		line := append(slices.Clone(c.line), r.mnt, c.typed)
		if got := strings.Join(completed(t, line...), " "); got != c.want {
			t.Errorf("%q: %q, want %q", line, got, c.want)
		}
	}
	for _, c := range []struct {
		line []string
		want string
	}{
		{[]string{"scrub", r.mnt, "--from", ""}, "nas"},
		{[]string{"graph", "export", r.mnt, "--root", "s1:s"}, "s1:sub/"},
		{[]string{"du", r.mnt, "--by", ""}, "dir snapshot type"},
		{[]string{"token", "create", "x", "--scope", "read,s"}, "read,sync"},
		{[]string{"init", "--compression", ""}, "none s2"},
		{[]string{"sync", "push", r.mnt, "nas", "s1", ""}, "s1 s2"},
		{[]string{"snapshot", "show", r.mnt, "s1", ""}, ""}, // one too many
		{[]string{"snapshot", "show", ""}, ""},              // $QUARXFS_STORE is not mounted
	} {
		if got := strings.Join(completed(t, c.line...), " "); got != c.want {
			t.Errorf("%q: %q, want %q", c.line, got, c.want)
		}
	}
	t.Chdir(r.mnt)
	if got := strings.Join(completed(t, "snapshot", "show", ""), " "); got != "s1 s2" {
		t.Errorf("in the mount: %q", got)
	}
	t.Chdir(r.top)
}

// TestCompletionOpensNoStore: every command and flag, on a store that is not mounted and on none.
func TestCompletionOpensNoStore(t *testing.T) {
	t.Setenv(storeVariable, "")
	t.Chdir(t.TempDir())
	if out, code := quarxfs(t, nil, "init", "s"); code != 0 {
		t.Fatal(out)
	}
	before := listing(t, "s")
	everyCommand(newRoot(), nil, func(c *cobra.Command, path []string) {
		if c.HasSubCommands() || c.Hidden {
			return
		}
		for _, w := range words(c) {
			if offers[w.name] == nil && !shellCompletes(w.name) && !w.literal() &&
				!slices.Contains([]string{"NAME", "NODE", "VOLUME", "URL", "COMMAND", "NEWPATH"}, w.name) {
				t.Errorf("%s: nothing is said of how to complete %q", c.CommandPath(), w.name)
			}
		}
		for _, store := range [][]string{{"s"}, {"missing"}, nil} {
			for _, typed := range []string{"", "x", ":", "s:", "\xff"} {
				got := completed(t, slices.Concat(path, store, []string{typed})...)
				if slices.ContainsFunc(got, func(s string) bool { return s != "cold" && path[0] != "help" }) {
					t.Errorf("%q %q %q: %q", path, store, typed, got)
				}
			}
		}
		c.Flags().VisitAll(func(f *pflag.Flag) {
			got := completed(t, append(slices.Clone(path), "s", "--"+f.Name+"=")...)
			if v, ok := f.Value.(chooser); (!ok || len(v.choices()) == 0) && len(got) > 0 {
				t.Errorf("%q --%s: %q", path, f.Name, got)
			}
		})
	})
	if after := listing(t, "s"); after != before {
		t.Errorf("the store has changed from %s to %s", before, after)
	}
}

// listing is all files below a directory with their sizes and times.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.Walk(dir, func(path string, fi os.FileInfo, err error) error {
		if err == nil {
			b.WriteString(path + " " + fi.ModTime().String() + "\n")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
