package fs

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// handled is what a test does with a file handle: the name it is made of, what happens
// then, and where it must lead; an empty path: nowhere.
var handled = []struct {
	label, of, leads string
	then             func(in func(string) string) error
}{
	{label: "the root", of: ".", leads: "."},
	{label: "a file", of: "file", leads: "file"},
	{label: "an empty file", of: "empty", leads: "empty"},
	{label: "a symbolic link", of: "link", leads: "link"},
	{label: "a FIFO", of: "fifo", leads: "fifo"},
	{label: "a directory", of: "dir", leads: "dir"},
	{label: "a deep directory", of: deep, leads: deep},
	{label: "a deep file", of: deep + "/file", leads: deep + "/file"},
	{label: "a renamed file", of: "old", leads: "renamed", then: func(in func(string) string) error {
		return os.Rename(in("old"), in("renamed"))
	}},
	{label: "a moved directory", of: "moves/sub", leads: "dir/moved", then: func(in func(string) string) error {
		return os.Rename(in("moves/sub"), in("dir/moved"))
	}},
	{label: "in a moved directory", of: "carried/sub/file", leads: "dir/carried/sub/file", then: func(in func(string) string) error {
		return os.Rename(in("carried"), in("dir/carried"))
	}},
	{label: "another name of a file", of: "name1", leads: "dir/name2", then: func(in func(string) string) error {
		if err := os.Link(in("name1"), in("dir/name2")); err != nil {
			return err
		}
		return os.Remove(in("name1"))
	}},
	{label: "a removed file", of: "gone", then: func(in func(string) string) error { return os.Remove(in("gone")) }},
	{label: "a removed directory", of: "gonedir/sub", then: func(in func(string) string) error { return os.RemoveAll(in("gonedir")) }},
	{label: "a replaced file", of: "replaced", then: func(in func(string) string) error {
		if err := os.WriteFile(in("new"), []byte("another"), 0o644); err != nil {
			return err
		}
		return os.Rename(in("new"), in("replaced"))
	}},
}

const deep = "a/b/c/d/e/f/g/h/i/j"

// TestFileHandles makes handles of all kinds of files, changes the tree, and opens by them
// what they lead to: while the kernel knows the inodes, when it was made to forget them, and
// through other mounts of the store. In snapshots they last as long as the mount.
func TestFileHandles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	mnt, unmount := mountForTest(t, dir)
	in := func(name string) string { return filepath.Join(mnt, name) }
	for _, d := range []string{"dir", deep, "moves/sub", "carried/sub", "gonedir/sub"} {
		must(t, os.MkdirAll(in(d), 0o755))
	}
	for _, f := range []string{"file", deep + "/file", "old", "carried/sub/file", "name1", "gone", "replaced"} {
		must(t, os.WriteFile(in(f), []byte("in "+f), 0o644))
	}
	must(t, os.WriteFile(in("empty"), nil, 0o644))
	must(t, os.Symlink("file", in("link")))
	must(t, unix.Mkfifo(in("fifo"), 0o644))
	must(t, os.Mkdir(in(".snapshots/s"), 0o755))

	handles := make(map[string]unix.FileHandle)
	for _, c := range handled {
		handles[c.of] = handleOf(t, in(c.of))
	}
	snapped := []string{".", "dir", deep, "file", deep + "/file", "link", "gone"}
	handles[".snapshots"] = handleOf(t, in(".snapshots"))
	for _, f := range snapped {
		handles[".snapshots/s/"+f] = handleOf(t, in(".snapshots/s/"+f))
	}
	for _, c := range handled {
		if c.then != nil {
			must(t, c.then(in))
		}
	}
	check := func(when string) {
		t.Helper()
		for _, c := range handled {
			checkHandle(t, when+": "+c.label, mnt, handles[c.of], c.leads)
		}
	}
	check("at once")
	forget(t)
	check("forgotten")
	checkHandle(t, "of .snapshots", mnt, handles[".snapshots"], ".snapshots")
	forget(t)
	names, err := os.ReadDir(mnt)
	must(t, err)
	if slices.ContainsFunc(names, func(e os.DirEntry) bool { return e.Name() == ".snapshots" }) {
		t.Error("the root directory lists .snapshots")
	}
	for _, f := range snapped {
		forget(t)
		checkHandle(t, "of a snapshot", mnt, handles[".snapshots/s/"+f], ".snapshots/s/"+f)
	}
	forget(t)
	checkHandle(t, "of a removed snapshot's file", mnt, handles[".snapshots/s/gone"], ".snapshots/s/gone")
	forget(t)
	must(t, os.Remove(in(".snapshots/s")))
	for range 2 {
		unmount()
		mnt, unmount = mountForTest(t, dir)
		check("mounted again")
		for _, f := range snapped {
			checkHandle(t, "of a removed snapshot", mnt, handles[".snapshots/s/"+f], "")
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// forget has the kernel forget all inodes that nothing uses.
func forget(t *testing.T) {
	t.Helper()
	unix.Sync() // what is to be written back stays
	must(t, os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0))
}

func handleOf(t *testing.T, path string) unix.FileHandle {
	t.Helper()
	h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, path, 0)
	must(t, err)
	return h
}

// checkHandle opens by a handle and expects the file that has a path now, or ESTALE where
// that is empty.
func checkHandle(t *testing.T, label, mnt string, h unix.FileHandle, leads string) {
	t.Helper()
	top, err := unix.Open(mnt, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(t, err)
	defer unix.Close(top)
	fd, err := unix.OpenByHandleAt(top, h, unix.O_PATH|unix.O_NOFOLLOW)
	if err == nil {
		defer unix.Close(fd)
	}
	if leads == "" {
		if err != unix.ESTALE {
			t.Errorf("%s: %v, want ESTALE", label, err)
		}
		return
	}
	if err != nil {
		t.Errorf("%s: %v", label, err)
		return
	}
	var got, want unix.Stat_t
	path := filepath.Join(mnt, leads)
	must(t, unix.Lstat(path, &want))
	must(t, unix.Fstat(fd, &got))
	if got.Ino != want.Ino || got.Mode != want.Mode || got.Nlink != want.Nlink || got.Size != want.Size {
		t.Errorf("%s: %+v, and %s is %+v", label, got, leads, want)
	}
	if got.Mode&unix.S_IFMT == unix.S_IFDIR {
		// The kernel has found the way back to the root.
		if is, err := os.Readlink(fmt.Sprint("/proc/self/fd/", fd)); err != nil || is != path {
			t.Errorf("%s: opened as %q (%v), want %q", label, is, err, path)
		}
		return
	}
	if got.Mode&unix.S_IFMT != unix.S_IFREG {
		return
	}
	fd, err = unix.OpenByHandleAt(top, h, unix.O_RDONLY)
	if err != nil {
		t.Errorf("%s: read: %v", label, err)
		return
	}
	f := os.NewFile(uintptr(fd), label)
	defer f.Close()
	content := make([]byte, 100)
	n, _ := f.Read(content)
	if text, err := os.ReadFile(path); err != nil || string(content[:n]) != string(text) || !strings.HasPrefix(string(text), "in ") && n > 0 {
		t.Errorf("%s: reads %q, and %s %q (%v)", label, content[:n], leads, text, err)
	}
}
