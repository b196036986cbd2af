package main

import (
	"errors"
	"testing"

	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/mounts"
)

// TestTreeOfMount: where a path is in the tree that a mount shows, whatever part of it that is.
func TestTreeOfMount(t *testing.T) {
	for _, c := range []struct{ root, dir, path, want string }{
		{"/", "/mnt", "/mnt", ""},
		{"/", "/mnt", "/mnt/a/b", "a/b"},
		{"/", "/", "/a", "a"},
		{"/sub", "/b", "/b", "sub"},
		{"/sub/deep", "/b", "/b/f", "sub/deep/f"},
		{"/a b", "/b", "/b/\xff", "a b/\xff"},
	} {
		m := mounts.Mount{Root: c.root, Dir: c.dir}
		if got, ok := m.TreePath(c.path); !ok || got != c.want {
			t.Errorf("%s of %s at %s: %q, %v, want %q", c.path, c.root, c.dir, got, ok, c.want)
		}
	}
	for _, c := range []struct{ root, dir, path string }{
		{"/", "/mnt", "/mnt2"},               // not below the mountpoint: seen through another namespace
		{"/", "/mnt", "/mnt/no/x (deleted)"}, // the kernel's mark of what has no name any more
		{"/sub//deleted", "/b", "/b/f"},      // the same of what is bound
		{"/", "/mnt", "/"},
	} {
		m := mounts.Mount{Root: c.root, Dir: c.dir}
		if got, ok := m.TreePath(c.path); ok {
			t.Errorf("%s of %s at %s is %q, but cannot be known", c.path, c.root, c.dir, got)
		}
	}
}

func TestCleanTree(t *testing.T) {
	for path, want := range map[string]string{
		"": "", "/": "", "a": "a", "/a//b/": "a/b", "./a/.": "a", "..a/b..": "..a/b..", "\xff": "\xff",
	} {
		if got, err := cleanTree(path); err != nil || got != want {
			t.Errorf("%q: %q, %v, want %q", path, got, err, want)
		}
	}
	for _, path := range []string{"..", "a/../b", "/.."} {
		if _, err := cleanTree(path); !errors.Is(err, errUsage) {
			t.Errorf("%q: %v", path, err)
		}
	}
}

func TestStoreInFstab(t *testing.T) {
	table := "# a comment\n#/srv/off /mnt/off fuse.quarxfs noauto 0 0\n/dev/vda / ext4 defaults 0 0\nshort\n" +
		"/srv/my\\040store /mnt/files fuse.quarxfs noauto 0 0\n/srv/b /mnt/files/b/ quarxfs\nquarxfs#/srv/c /mnt/c fuse 0 0\n/dev/fuse /mnt/d fuse 0 0\n"
	for dir, want := range map[string]string{
		"/mnt/files": "/mnt/files is the mountpoint of /srv/my store in /etc/fstab", "/": "", "/mnt": "", "/mnt/filesystem": "", "/mnt/off": "",
		"/mnt/files/": "/mnt/files is the mountpoint of /srv/my store in /etc/fstab", "/mnt/./files": "/mnt/files is the mountpoint of /srv/my store in /etc/fstab",
		"/mnt/files/missing/x": "/mnt/files is the mountpoint of /srv/my store in /etc/fstab", "/mnt/files/b": "/mnt/files/b is the mountpoint of /srv/b in /etc/fstab",
		"/mnt/c": "/mnt/c is the mountpoint of /srv/c in /etc/fstab", "/mnt/d": "",
	} {
		if got := storeInFstab(table, dir); got != want {
			t.Errorf("%s: %q, want %q", dir, got, want)
		}
	}
}
