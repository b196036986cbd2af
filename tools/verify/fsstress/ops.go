package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// An operation is one call with all its arguments, drawn at random.
type operation struct {
	kind     string
	a, b     string // paths
	off, len int64
	n        uint32
}

func (o operation) String() string {
	return fmt.Sprintf("%s %s %s off %d len %d n %#o", o.kind, o.a, o.b, o.off, o.len, o.n)
}

// few names and little depth, so that operations meet each other's results
func path(rng *rand.Rand) string {
	var parts []string
	for range 1 + rng.IntN(3) {
		parts = append(parts, string(rune('a'+rng.IntN(5))))
	}
	return "/" + strings.Join(parts, "/")
}

func draw(rng *rand.Rand) operation {
	// What makes and fills is listed more than once, or most of the rest would find nothing to work
	// on.
	kinds := []string{
		"mkdir", "mkdir", "rmdir", "create", "create", "create", "write", "write", "write", "append", "truncate", "unlink", "rename", "rename",
		"noreplace", "exchange", "whiteout", "link", "symlink", "readlink", "chmod", "chown", "utimes", "setxattr", "removexattr", "mkfifo",
		"tmpfile", "punch", "zero", "allocate", "copy", "read", "list", "stat", "fsync",
	}
	o := operation{kind: kinds[rng.IntN(len(kinds))], a: path(rng), b: path(rng), n: rng.Uint32()}
	o.off, o.len = rng.Int64N(300_000), 1+rng.Int64N(70_000)
	// On page bounds in one case of three, where there is a way of its own.
	if rng.IntN(3) == 0 {
		o.off, o.len = o.off&^4095, (o.len+4095)&^4095
	}
	return o
}

// run does the operation below root and tells what came of it.
func (o operation) run(root string) string {
	said, err := o.do(root+o.a, root+o.b)
	if err != nil {
		var errno unix.Errno
		if errors.As(err, &errno) {
			// The errno is compared; texts have the directory in them.
			return unix.ErrnoName(errno)
		}
		return strings.ReplaceAll(err.Error(), root, "")
	}
	return "ok " + said
}

func (o operation) do(a, b string) (string, error) {
	switch o.kind {
	case "mkdir":
		return "", unix.Mkdir(a, 0o700|o.n&0o2077)
	case "rmdir":
		return "", unix.Rmdir(a)
	case "unlink":
		return "", unix.Unlink(a)
	case "rename":
		return "", unix.Rename(a, b)
	case "noreplace":
		return "", unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_NOREPLACE)
	case "exchange":
		return "", unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
	case "whiteout":
		// ext4 changes the directory's times even when this fails for what b is.
		if err := unix.Access(b, unix.F_OK); err == nil {
			return "left out", nil
		}
		if err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_WHITEOUT); err != nil {
			return "", err
		}
		return "", unix.Lchown(a, 0, 0) // docs/posix.md: it belongs to somebody else here
	case "link":
		return "", unix.Link(a, b)
	case "symlink":
		return "", unix.Symlink(fmt.Sprint("target", o.n), a)
	case "readlink":
		return os.Readlink(a)
	case "chmod":
		return "", unix.Chmod(a, o.n&0o7777)
	// Four owners and groups, of which 0 keeps root's rights.
	case "chown":
		return "", unix.Lchown(a, int(o.n>>8&3), int(o.n&3))
	case "utimes":
		ts := []unix.Timespec{{Sec: int64(o.n), Nsec: 5}, {Sec: int64(o.n) * 2, Nsec: 999_999_999}}
		return "", unix.UtimesNanoAt(unix.AT_FDCWD, a, ts, unix.AT_SYMLINK_NOFOLLOW)
	case "setxattr":
		// The flags 0, create and replace in turn.
		return "", unix.Lsetxattr(a, "user.x", fmt.Append(nil, o.n), int(o.n%3))
	case "removexattr":
		return "", unix.Lremovexattr(a, "user.x")
	case "mkfifo":
		return "", unix.Mkfifo(a, o.n&0o777)
	case "list":
		entries, err := os.ReadDir(a)
		return fmt.Sprint(entries), err
	case "stat":
		return describe(a)
	}
	return o.file(a, b)
}

// file does what needs an open file.
func (o operation) file(a, b string) (string, error) {
	flags := map[string]int{"create": unix.O_CREAT | unix.O_WRONLY, "append": unix.O_WRONLY | unix.O_APPEND, "tmpfile": unix.O_TMPFILE | unix.O_WRONLY}
	mode, known := flags[o.kind]
	if !known {
		mode = unix.O_RDWR
	}
	if o.kind == "create" {
		mode |= []int{0, unix.O_EXCL, unix.O_TRUNC}[o.n%3]
	}
	// The directory that a has its name in, as a nameless file is made in one.
	if o.kind == "tmpfile" {
		a = filepath.Dir(a)
	}
	// Not blocking for a FIFO without a reader, and not through links, whose targets are no paths
	// of ours.
	fd, err := unix.Open(a, mode|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0o600|o.n&0o177)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	switch o.kind {
	case "write":
		n, err := unix.Pwrite(fd, o.data(), o.off)
		return fmt.Sprint(n), err
	case "append":
		n, err := unix.Write(fd, o.data())
		return fmt.Sprint(n), err
	case "truncate":
		return "", unix.Ftruncate(fd, o.off)
	case "tmpfile":
		if _, err := unix.Write(fd, o.data()); err != nil {
			return "", err
		}
		return "", unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, b, unix.AT_SYMLINK_FOLLOW)
	case "punch":
		return "", unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, o.off, o.len)
	case "zero":
		return "", unix.Fallocate(fd, unix.FALLOC_FL_ZERO_RANGE, o.off, o.len)
	case "allocate":
		return "", unix.Fallocate(fd, o.n&unix.FALLOC_FL_KEEP_SIZE, o.off, o.len)
	case "copy":
		return copyRange(fd, b, o)
	case "read":
		buf := make([]byte, o.len)
		n, err := unix.Pread(fd, buf, o.off)
		return fmt.Sprintf("%d %x", n, sha256.Sum256(buf)), err
	case "fsync":
		return "", unix.Fsync(fd)
	}
	return "", nil
}

func (o operation) data() []byte {
	return bytes.Repeat(fmt.Appendf(nil, "%08x", o.n), int(o.len)/8+1)[:o.len]
}

func copyRange(fd int, to string, o operation) (string, error) {
	out, err := unix.Open(to, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(out)
	from, at := o.off, int64(o.n%200_000)
	n, err := unix.CopyFileRange(fd, &from, out, &at, int(o.len), 0)
	return fmt.Sprint(n), err
}

// describe tells all that must be the same of a file, except inode numbers and
// what the clock decides.
func describe(path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return "", err
	}
	said := fmt.Sprintf("mode %o links %d owner %d:%d", st.Mode, st.Nlink, st.Uid, st.Gid)
	if st.Mode&unix.S_IFMT == unix.S_IFREG {
		said += fmt.Sprint(" size ", st.Size)
	}
	if d := time.Since(time.Unix(st.Mtim.Unix())); d < 0 || d > 24*time.Hour {
		said += fmt.Sprint(" mtime ", st.Mtim)
	}
	var x [100]byte
	if n, err := unix.Lgetxattr(path, "user.x", x[:]); err == nil {
		said += " attribute " + string(x[:n])
	}
	return said, nil
}

// tree describes all that is below root, data included.
func tree(root string) (list []string, err error) {
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		said, err := describe(path)
		if err != nil {
			return err
		}
		switch d.Type() {
		case 0:
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			said += fmt.Sprintf(" data %x", sha256.Sum256(data))
		case fs.ModeSymlink:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			said += " to " + target
		}
		// The path from root on: both trees give the same lines if they are the same.
		list = append(list, strings.TrimPrefix(path, root)+": "+said)
		return nil
	})
	slices.Sort(list)
	return list, err
}

func differ(got, want []string) error {
	for i := range max(len(got), len(want)) {
		g, w := "nothing", "nothing"
		if i < len(got) {
			g = got[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if g != w {
			return fmt.Errorf("in the end: got %s, the reference %s", g, w)
		}
	}
	return nil
}
