package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const fsType = "fuse.quarxfs"

// A mounted is one line of a mountinfo file.
type mounted struct {
	id     int
	parent int    // id of the mount that it is mounted on
	device string // of the filesystem, MAJOR:MINOR: all its mounts have it, wherever they are
	root   string // the directory of the filesystem that is mounted
	dir    string
	fsType string
	source string // of a QuarXFS mount: the store's directory

	// Groups of mounts between which mounting and unmounting propagates; 0: none.
	shared int // peers
	master int // it follows them
}

func mountTable() ([]mounted, error) { return mountTableOf("self") }

// mountTableOf returns the mounts that a process sees.
func mountTableOf(pid string) ([]mounted, error) {
	b, err := os.ReadFile("/proc/" + pid + "/mountinfo")
	if err != nil {
		return nil, err
	}
	return parseMountinfo(string(b)), nil
}

// parseMountinfo reads proc_pid_mountinfo(5): later lines lie on top of
// earlier ones.
func parseMountinfo(table string) []mounted {
	var all []mounted
	for line := range strings.Lines(table) {
		left, right, ok := strings.Cut(line, " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if !ok || len(l) < 6 || len(r) < 2 {
			continue
		}
		m := mounted{device: l[2], root: unescape(l[3]), dir: unescape(l[4]), fsType: r[0], source: unescape(r[1])}
		m.id, _ = strconv.Atoi(l[0])
		m.parent, _ = strconv.Atoi(l[1])
		for _, tag := range l[6:] {
			name, group, _ := strings.Cut(tag, ":")
			switch name {
			case "shared":
				m.shared, _ = strconv.Atoi(group)
			case "master":
				m.master, _ = strconv.Atoi(group)
			}
		}
		all = append(all, m)
	}
	return all
}

// unescape undoes the kernel's octal escapes of blanks and backslashes.
func unescape(s string) string {
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

// mountOf returns the QuarXFS mount that a clean absolute path lies in by its text: for
// mountpoints. What an argument leads to, findLocation says.
func mountOf(table []mounted, path string) (mounted, bool) {
	var best mounted
	for _, m := range table {
		if within(path, m.dir) && len(m.dir) >= len(best.dir) {
			best = m
		}
	}
	return best, best.fsType == fsType
}

func within(path, dir string) bool {
	return path == dir || dir == "/" || strings.HasPrefix(path, dir+"/")
}

// resolve returns the absolute path without symbolic links; what cannot be
// asked, such as a dead mount, stays as it is.
func resolve(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if up, err := filepath.EvalSymlinks(filepath.Dir(abs)); err == nil {
		abs = filepath.Join(up, filepath.Base(abs))
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		abs = real
	}
	return abs, nil
}
