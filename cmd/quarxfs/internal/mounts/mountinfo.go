// Package mounts knows what is mounted on this machine: the kernel's tables, what keeps a mount
// from ending, and how to unmount.
package mounts

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// FSType is the type of a QuarXFS mount.
const FSType = "fuse.quarxfs"

// A Mount is one line of a mountinfo file.
type Mount struct {
	ID     int
	Parent int    // ID of the mount that it is mounted on
	Device string // of the filesystem, MAJOR:MINOR: all its mounts have it, wherever they are
	Root   string // the directory of the filesystem that is mounted
	Dir    string
	FSType string
	Source string // of a QuarXFS mount: the store's directory

	// Groups of mounts between which mounting and unmounting propagates; 0: none.
	Shared int // peers
	Master int // it follows them
}

// IsQuarXFS reports whether a QuarXFS is mounted there.
func (m Mount) IsQuarXFS() bool { return m.FSType == FSType }

// Table returns the mounts that this process sees: later ones lie on top of earlier ones.
func Table() ([]Mount, error) { return TableOf("self") }

// TableOf returns the mounts that a process sees.
func TableOf(pid string) ([]Mount, error) {
	b, err := os.ReadFile("/proc/" + pid + "/mountinfo")
	if err != nil {
		return nil, err
	}
	return Parse(string(b)), nil
}

// Parse reads proc_pid_mountinfo(5): later lines lie on top of
// earlier ones.
func Parse(table string) []Mount {
	var all []Mount
	for line := range strings.Lines(table) {
		// Optional fields, of which there may be any number, end with a lone hyphen.
		left, right, ok := strings.Cut(line, " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		// A line that is not understood is one mount less, and no reason to see none.
		if !ok || len(l) < 6 || len(r) < 2 {
			continue
		}
		m := Mount{Device: l[2], Root: Unescape(l[3]), Dir: Unescape(l[4]), FSType: r[0], Source: Unescape(r[1])}
		m.ID, _ = strconv.Atoi(l[0])
		m.Parent, _ = strconv.Atoi(l[1])
		for _, tag := range l[6:] {
			name, group, _ := strings.Cut(tag, ":")
			switch name {
			case "shared":
				m.Shared, _ = strconv.Atoi(group)
			case "master":
				m.Master, _ = strconv.Atoi(group)
			}
		}
		all = append(all, m)
	}
	return all
}

// Unescape undoes the kernel's octal escapes of blanks and backslashes.
func Unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// At returns the QuarXFS mount that a clean absolute path lies in by its text: for
// mountpoints. What an argument leads to, findLocation says.
func At(table []Mount, path string) (Mount, bool) {
	var best Mount
	for _, m := range table {
		// Of two at the same place the later one is on top.
		if Within(path, m.Dir) && len(m.Dir) >= len(best.Dir) {
			best = m
		}
	}
	return best, best.IsQuarXFS()
}

func Within(path, dir string) bool {
	return path == dir || dir == "/" || strings.HasPrefix(path, dir+"/")
}

// ErrRemoved: a path is relative, and the current directory is no more.
var ErrRemoved = errors.New("the current directory was removed")

// Abs is filepath.Abs with an error that says what is wrong: ErrRemoved.
func Abs(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%s: %w", path, ErrRemoved)
	}
	return abs, err
}

// Resolve returns the absolute path without symbolic links; what cannot be
// asked, such as a dead mount, stays as it is.
func Resolve(path string) (string, error) {
	abs, err := Abs(path)
	if err != nil {
		return "", err
	}
	if up, err := filepath.EvalSymlinks(filepath.Dir(abs)); err == nil {
		abs = filepath.Join(up, filepath.Base(abs))
	}
	// A dead mount at the end of the path cannot be asked; what is above it can.
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		abs = real
	}
	return abs, nil
}

// A Key tells a mount from all others that are there at the same time, also when it is moved.
type Key struct {
	ID     int
	Device string
}

// Key returns the mount's.
func (m Mount) Key() Key { return Key{m.ID, m.Device} }

// String is what ParseKey reads.
func (k Key) String() string { return fmt.Sprintf("%d@%s", k.ID, k.Device) }

// ParseKey reads a key; ok is false if it is none.
func ParseKey(text string) (k Key, ok bool) {
	id, device, ok := strings.Cut(text, "@")
	n, err := strconv.Atoi(id)
	return Key{n, device}, ok && err == nil
}

// KeyOf returns that of the mount which a path leads into. Nothing is asked of the filesystem
// itself, whose daemon may be this process, or dead.
func KeyOf(path string) (Key, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_DONT_SYNC, unix.STATX_MNT_ID, &st)
	if err != nil {
		return Key{}, &os.PathError{Op: "statx", Path: path, Err: err}
	}
	return Key{int(st.Mnt_id), fmt.Sprintf("%d:%d", st.Dev_major, st.Dev_minor)}, nil
}

// Find returns where the mount is now; ok is false if this process does not see it.
func (k Key) Find() (m Mount, ok bool) {
	return find(func(m Mount) bool { return m.Key() == k })
}

// FindAny is Find, or else returns another mount of the same filesystem.
func (k Key) FindAny() (m Mount, ok bool) {
	if m, ok = k.Find(); ok {
		return m, ok
	}
	return find(func(m Mount) bool { return m.Device == k.Device })
}

func find(wanted func(Mount) bool) (m Mount, ok bool) {
	table, err := Table()
	if err != nil {
		return Mount{}, false
	}
	i := slices.IndexFunc(table, wanted)
	if i < 0 {
		return Mount{}, false
	}
	return table[i], true
}

// TreePath returns where a path within the mount is in its filesystem, without a slash before it.
// It is not known of what was removed or is seen through another namespace.
func (m Mount) TreePath(at string) (tree string, ok bool) {
	const gone, rootGone = " (deleted)", "//deleted" // as the kernel marks what has no name any more
	if !Within(at, m.Dir) || strings.HasSuffix(m.Root, rootGone) {
		return "", false
	}
	if strings.HasSuffix(at, gone) {
		if _, err := os.Lstat(at); err != nil {
			return "", false
		}
	}
	return strings.Trim(path.Join(m.Root, strings.TrimPrefix(at, m.Dir)), "/"), true
}
