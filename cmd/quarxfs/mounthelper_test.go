package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestHelperArguments(t *testing.T) {
	for given, want := range map[string]string{
		"quarxfs stats x":                              "stats x",
		"/sbin/mount.fuse.quarxfs /s /m":               "mount -- /s /m",
		"mount.fuse.quarxfs /s /m -sv -o rw,memory=1G": "mount -o rw,memory=1G -- /s /m",
		"mount.fuse.quarxfs /s /m -f -o a -t x -o b":   "mount -o a -o b --dry-run -- /s /m",
		"mount.fuse.quarxfs -orw /s /m":                "mount -o rw -- /s /m",
		"umount.fuse.quarxfs /m":                       "umount -- /m",
		"umount.fuse.quarxfs /m -l -t fuse.quarxfs":    "umount --force -- /m",
		"mount.fuse.quarxfs /s":                        "",
		"mount.fuse.quarxfs /s /m -o":                  "",
		"mount.fuse.quarxfs /s /m -x":                  "",
		"umount.fuse.quarxfs":                          "",
		"umount.fuse.quarxfs /m /n":                    "",
	} {
		args, _, err := asHelper(strings.Fields(given))
		if got := strings.Join(args, " "); got != want || (want == "") != errors.Is(err, errUsage) {
			t.Errorf("%s: %q, %v; want %q", given, got, err, want)
		}
	}
	for code, want := range map[int]int{0: 0, 1: 32, 2: 1, 3: 32, 130: 8} {
		if got := helperCode(code); got != want {
			t.Errorf("exit code %d: %d, want %d", code, got, want)
		}
	}
}

// TestCommandsExplainThemselves also keeps examples to commands that exist.
func TestCommandsExplainThemselves(t *testing.T) {
	var each func(c *cobra.Command)
	each = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			each(sub)
		}
		if !c.Runnable() || c.Hidden {
			return
		}
		if c.Example == "" && c.GroupID != "" && !c.HasSubCommands() {
			t.Errorf("%s has no example", c.CommandPath())
		}
		for line := range strings.Lines(c.Example) {
			for part := range strings.SplitSeq(line, "|") {
				words := strings.Fields(part)
				if len(words) < 2 || words[0] != "quarxfs" || strings.HasPrefix(words[1], "-") {
					continue
				}
				if found, _, err := c.Root().Find(words[1:]); err != nil || found == c.Root() {
					t.Errorf("%s: example %q: %v", c.CommandPath(), part, err)
				}
			}
		}
	}
	each(newRoot())
}

func TestManual(t *testing.T) {
	dir := t.TempDir()
	if out, code := quarxfs(t, nil, "man", dir); code != 0 {
		t.Fatal(out)
	}
	for name, want := range map[string]string{
		"quarxfs-mount.1":       "commit-interval",
		"quarxfs-put.1":         ".SH EXIT STATUS\n0 done, 1 failure",
		"quarxfs-exit-codes.7":  "Exit codes:",
		"umount.fuse.quarxfs.8": ".so man1/quarxfs-umount.1",
	} {
		b := readFile(t, dir, name)
		if !strings.Contains(strings.ReplaceAll(b, "\\-", "-"), want) {
			t.Errorf("%s does not say %q", name, want)
		}
	}
	everyCommand(newRoot(), []string{"quarxfs"}, func(c *cobra.Command, path []string) {
		if c.Hidden || !c.HasParent() || c.RunE == nil || c.Name() == "help" {
			return
		}
		name := strings.Join(path, "-") + ".1"
		if b := readFile(t, dir, name); strings.Count(b, "\n.SH EXIT STATUS\n") != 1 || !strings.Contains(b, exitNote) {
			t.Errorf("%s does not end with the exit codes", name)
		}
	})
}

func readFile(t *testing.T, elem ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
