package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/daemon"
	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/mounts"
	"github.com/quarxtor/quarxfs/fs/volume"
	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/store"
)

// What a path argument leads to is asked of the kernel: the path is opened, and the
// descriptor, not the text, says in which mount it is and at which path of the tree. So
// symbolic links, bind mounts, what is mounted over something, other mount namespaces and
// directories that were renamed or removed are all seen as they are.

// A location is what a path leads to.
type location struct {
	path  string       // absolute, without symbolic links; as given where this process sees no path
	mount mounts.Mount // the zero mount: one that this process cannot see
	tree  string       // in a mount: the path from the top of its filesystem, without a slash before
	known bool         // tree is known; not of what was removed or is seen through another namespace
	rest  string       // what follows and is not there
}

// quarxfs reports whether the location is in a QuarXFS.
func (p *location) quarxfs() bool { return p.mount.IsQuarXFS() }

// top reports whether the location is the top of a QuarXFS, in a mount of its own or not.
func (p *location) top() bool { return p.quarxfs() && p.known && p.tree == "" && p.rest == "" }

// How openLocation treats a symbolic link at the end of a path.
const (
	follow   = unix.O_PATH | unix.O_CLOEXEC
	noFollow = follow | unix.O_NOFOLLOW
)

// openLocation finds what is at a path. The error is the kernel's.
func openLocation(path string, flags int) (*location, error) {
	// O_PATH: neither a dead daemon nor one that hangs is asked, and no right to read is needed.
	fd, err := unix.Open(path, flags, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Statx_t
	// Nothing is asked of the filesystem itself, whose daemon may be dead.
	err = unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_MNT_ID|unix.STATX_INO, &st)
	if err != nil {
		return nil, &os.PathError{Op: "statx", Path: path, Err: err}
	}
	// After the path is open: a mount made in between would not be in the table.
	table, err := mounts.Table()
	if err != nil {
		return nil, err
	}
	// The kernel's own name for what was opened, whatever became of the path meanwhile.
	link, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return nil, err
	}
	p := &location{path: link}
	if !leadsTo(link, &st) {
		if p.path, err = filepath.Abs(path); err != nil {
			p.path = path // the current directory was removed
		}
	}
	device := fmt.Sprintf("%d:%d", st.Dev_major, st.Dev_minor)
	for _, m := range table {
		switch {
		case uint64(m.ID) == st.Mnt_id:
			p.mount = m
			p.tree, p.known = m.TreePath(link)
		// Only while the very mount has not been found.
		case uint64(p.mount.ID) != st.Mnt_id && m.Device == device && m.IsQuarXFS():
			p.mount = m // the same filesystem in a mount that is not ours
		}
	}
	return p, p.checkSource(fd)
}

// contains reports whether a directory is another one or has it somewhere below. Each directory
// from the inner one up is compared by where it is in its filesystem, so that bind mounts, also of
// parts, and symbolic links are seen through. What is not there yet contains nothing.
func contains(outer, inner string) bool {
	o, _ := findLocation(outer)
	i, _ := findLocation(inner)
	// What is not there yet, or cannot be placed, is no reason to refuse.
	if o == nil || i == nil || o.rest != "" || !o.known {
		return false
	}
	for dir := i.path; ; dir = filepath.Dir(dir) {
		// A part of the outer one that is bound elsewhere does not have that above it.
		p, _ := openLocation(dir, follow)
		if p != nil && p.known && p.mount.Device == o.mount.Device && mounts.Within("/"+p.tree, path.Join("/", o.tree)) {
			return true
		}
		if dir == filepath.Dir(dir) {
			return false
		}
	}
}

// leadsTo reports whether a path leads to what was opened.
func leadsTo(path string, to *unix.Statx_t) bool {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW|unix.AT_STATX_DONT_SYNC, unix.STATX_MNT_ID|unix.STATX_INO, &st)
	return err == nil && st.Mnt_id == to.Mnt_id && st.Ino == to.Ino
}

// errMoved: the store of a mount is not where it was when it was mounted.
var errMoved = errors.New("its store is somewhere else now")

// checkSource makes sure that the directory which the mount names is the one that its
// daemon has open: it may have been renamed, or be another one in this namespace.
func (p *location) checkSource(fd int) error {
	if !p.quarxfs() {
		return nil
	}
	dir, err := storeNow(p.mount, fmt.Sprintf("/proc/self/fd/%d", fd))
	if err == nil {
		p.mount.Source = dir
	}
	return err
}

// storeNow asks the daemon of a mount, at a path in it, where its store is: the source in
// the mount table is where it was when it was mounted, and another store may be there now. Where
// nobody answers, the source has to do. errMoved: it is nowhere that this process can see.
func storeNow(m mounts.Mount, at string) (string, error) {
	buf := make([]byte, 4096+64)
	n, err := unix.Getxattr(at, volume.StoreXattr, buf)
	if err != nil {
		return m.Source, nil // a dead daemon's mount, a symbolic link, or the mount of a URL
	}
	key, now, _ := strings.Cut(string(buf[:n]), " ")
	for _, dir := range []string{m.Source, now} {
		if volume.DirectoryKey(dir) == key {
			return dir, nil
		}
	}
	return "", fmt.Errorf("%w: %s was mounted from %s: %w", errNotMounted, m.Dir, m.Source, errMoved)
}

// storeSoon is storeNow, but for a daemon that hangs.
func storeSoon(ctx context.Context, m mounts.Mount) (string, error) {
	dir, err := asked(ctx, daemon.AnswerTime, []string{m.Dir}, func() (string, error) { return storeNow(m, m.Dir) })
	if errors.Is(err, daemon.ErrNoAnswer) {
		return m.Source, nil
	}
	return dir, err
}

// findLocation finds the longest part of a path that is there. A symbolic link at the end stands
// for itself if it is in a QuarXFS, and for what it leads to if it is not.
func findLocation(path string) (*location, error) {
	p, err := openLocation(path, noFollow)
	if err == nil && !p.quarxfs() {
		if through, ferr := openLocation(path, follow); ferr == nil {
			return through, nil
		}
		return p, nil
	}
	if err == nil || errors.Is(err, errMoved) {
		return p, err
	}
	trimmed := strings.TrimRight(path, "/")
	if trimmed == "" {
		return nil, err
	}
	up, name := filepath.Split(trimmed)
	if up == "" {
		up = "."
	}
	if trimmed == "." || name == ".." {
		return nil, err
	}
	p, uerr := openLocation(up, follow)
	if errors.Is(uerr, errMoved) {
		return p, uerr
	}
	if uerr != nil {
		if fi, lerr := os.Lstat(strings.TrimRight(up, "/")); lerr == nil && fi.Mode()&os.ModeSymlink != 0 {
			return nil, err // a link that leads to nothing
		}
		if p, uerr = findLocation(up); uerr != nil {
			return nil, uerr
		}
	}
	if name != "." {
		p.rest = strings.Trim(p.rest+"/"+name, "/")
	}
	return p, nil
}

// Help on how all commands take a path of the live filesystem.
const (
	pathRule = `A PATH that leads into a mount of the store names that file, as for other programs; so does a
relative PATH when the current directory is in the mount. Any other PATH is from the top of the
store, as :PATH always is.`
	newPathRule = `The other path
names a file of the store if it leads into a mount of it, as for other programs; so does a
relative path when the current directory is in the mount. Otherwise it is from the top of the
store, as :PATH always is.`
)

// treePath returns the path of the live tree that an argument names, by pathRule.
// creates says that nothing need be there yet. A path that is on this machine, but not in a
// mount of the store, is refused where it could be meant: errUsage.
func (a access) treePath(ctx context.Context, arg string, creates bool) (string, error) {
	return asked(ctx, hangTime, []string{arg}, func() (string, error) { return a.treePathOf(arg, creates) })
}

func (a access) treePathOf(arg string, creates bool) (string, error) {
	if top, ok := strings.CutPrefix(arg, ":"); ok {
		return cleanTree(top)
	}
	if a.url != "" || strings.Trim(arg, "/") == "" {
		return cleanTree(arg)
	}
	p, err := findLocation(arg)
	if err != nil && !errors.Is(err, errMoved) {
		p = &location{rest: arg} // a name that this machine has not
	} else if err != nil {
		return "", err
	}
	if a.has(p) {
		if !p.known {
			return "", fmt.Errorf("%w: %q was removed, or is in a mount that is not seen here; give :PATH, from the top of the store", errUsage, arg)
		}
		return cleanTree(p.tree + "/" + p.rest)
	}
	// From the top of the store it would be another file than the one that is meant.
	if a.leaves(arg) {
		return "", fmt.Errorf("%w: %q leads into the store and out again: something is mounted there, or a link leads away", errUsage, arg)
	}
	if filepath.IsAbs(arg) && (creates || p.rest == "") {
		return "", fmt.Errorf("%w: %s is not in a mount of the store; :%s is from its top, and what a mount shows in .snapshots can be copied out with cp -a",
			errUsage, arg, strings.Trim(arg, "/"))
	}
	if a.at != nil && !a.at.top() && !filepath.IsAbs(arg) {
		return "", fmt.Errorf("%w: %q could be in %s or at the top of the store; give :%s, from the top, or the whole path", errUsage, arg, a.at.path, arg)
	}
	return cleanTree(arg)
}

// onlyPath is treePath for the PATH behind STORE that a command may have; without one, it is
// where STORE leads to, so that a single path says both.
func (a access) onlyPath(ctx context.Context, args []string) (string, error) {
	switch {
	case len(args) > 1:
		return a.treePath(ctx, args[1], false)
	case a.at == nil:
		return "", nil
	case !a.at.known:
		return "", fmt.Errorf("%w: %q was removed, or is in a mount that is not seen here; give STORE and :PATH", errUsage, args[0])
	}
	return cleanTree(a.at.tree + "/" + a.at.rest)
}

// pathsThere is treePath for many, of which those are left out and named that are not there. It
// returns the first error.
func (a access) pathsThere(cmd *cobra.Command, n remote.Node, args []string) (there []string, err error) {
	return there, eachName(cmd, "", args, func(arg string) error {
		path, err := a.treePath(cmd.Context(), arg, false)
		if err == nil {
			// The first of what is below it is the path itself.
			err = n.ListFiles(cmd.Context(), remote.FileFilter{Path: path, Limit: 1}, func(remote.File) error { return nil })
		}
		if err == nil {
			there = append(there, path)
		}
		return err
	})
}

// ref makes a path of what may be a snapshot, an object, a block or a path one that the node
// tells from the others by its slash. Names go first; what can only be a path is one.
func (a access) ref(ctx context.Context, n remote.Node, arg string) (string, error) {
	isPath := arg == "." || arg == ".."
	for _, prefix := range []string{":", "/", "./", "../"} {
		isPath = isPath || strings.HasPrefix(arg, prefix)
	}
	if !isPath && (a.url != "" || isName(ctx, n, arg)) {
		return arg, nil
	}
	path, err := a.treePath(ctx, arg, false)
	if err == nil && !isPath && path == arg {
		return arg, nil // the node says what it is not, if there is no such path
	}
	return "/" + path, err
}

// isName reports whether a snapshot, what is in one, an object or a block is meant.
func isName(ctx context.Context, n remote.Node, arg string) bool {
	snapshot, _ := splitSnapshotPath(arg)
	_, serr := n.GetSnapshot(ctx, snapshot)
	_, oerr := n.StatObject(ctx, arg)
	return !errors.Is(serr, store.ErrNotFound) || !errors.Is(oerr, store.ErrNotFound) || new(store.ID).UnmarshalText([]byte(arg)) == nil
}

// has reports whether a location is in a mount of the store.
func (a access) has(p *location) bool {
	if !p.quarxfs() {
		return false
	}
	key := volume.DirectoryKey(a.dir)
	return key != "" && key == volume.DirectoryKey(p.mount.Source)
}

// leaves reports whether a path that leads elsewhere has a beginning, which may be the current
// directory, that leads into a mount of the store.
func (a access) leaves(arg string) bool {
	begins := []string{"."}
	if filepath.IsAbs(arg) {
		begins = nil
	}
	for i := 1; i < len(arg); i++ {
		if arg[i] == '/' {
			begins = append(begins, arg[:i])
		}
	}
	return slices.ContainsFunc(begins, func(begin string) bool {
		p, err := openLocation(begin, follow)
		return err == nil && a.has(p)
	})
}

// cleanTree makes a path from the top of the store one without slashes at its ends.
func cleanTree(path string) (string, error) {
	var names []string
	for name := range strings.SplitSeq(path, "/") {
		switch name {
		case "", ".":
		case "..":
			return "", fmt.Errorf("%w: no .. may be in the path %q from the top of the store", errUsage, path)
		default:
			names = append(names, name)
		}
	}
	return strings.Join(names, "/"), nil
}
