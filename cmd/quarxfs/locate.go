package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/quarxtor/quarxfs/store"
)

// errNotDir: the argument names a file, perhaps one inside a mount.
var errNotDir = syscall.ENOTDIR

const storeVariable = "QUARXFS_STORE"

// locate returns the directory of the store that an argument names, or its URL; ""
// is the mount one stands in, else $QUARXFS_STORE. An argument that is there names
//
//	a URL                            the store that its node has
//	the directory of a store         that store, wherever the directory is
//	any path in a mount of a store   the mounted store
//
// and nothing else; one that is not there names no store. store.ErrNotStore, errNoStore,
// errNotMounted.
func locate(arg string) (string, error) {
	dir, _, err := locateAt(arg)
	return dir, err
}

// locateAt is locate, and returns besides where in the tree the argument leads: nil unless it
// leads into a mount.
func locateAt(arg string) (dir string, at *location, err error) {
	if arg == "" {
		if p, err := openLocation(".", follow); p != nil && p.quarxfs() {
			return p.mount.source, nil, err
		}
		if arg = os.Getenv(storeVariable); arg == "" {
			return "", nil, errNoStore
		}
	}
	if isURL(arg) {
		return arg, nil, nil
	}
	p, err := openLocation(arg, follow)
	if errors.Is(err, syscall.ENOTCONN) || errors.Is(err, syscall.ECONNABORTED) {
		p, err = findLocation(arg) // below the mountpoint of a dead daemon
	}
	switch {
	case errors.Is(err, errMoved):
		return "", nil, err
	case errors.Is(err, syscall.ENOENT) || errors.Is(err, errNotDir) || errors.Is(err, syscall.ELOOP):
		return "", nil, explainNoStore(arg, err)
	case err != nil:
		return "", nil, err
	case p.top():
		return p.mount.source, p, nil
	}
	_, err = store.ReadConfig(p.path)
	switch {
	case err == nil:
		return p.path, nil, nil
	case p.quarxfs():
		return p.mount.source, p, nil
	case errors.Is(err, store.ErrNotStore) || errors.Is(err, errNotDir):
		return "", nil, explainNoStore(p.path, err)
	}
	return "", nil, err
}

// findStorePath returns the store whose mount a path leads into, to what is there or is to be
// made. errNotMounted.
func findStorePath(path string) (dir string, at *location, err error) {
	p, err := findLocation(path)
	if err == nil && !p.quarxfs() {
		err = fmt.Errorf("%w: %s", errNotMounted, path)
	}
	if err != nil {
		return "", nil, err
	}
	return p.mount.source, p, nil
}

// isStore reports whether an argument stands for a store by itself, and not for something that
// is in one: a URL, the directory of a store, or a mountpoint of one, also of a part of it. An
// argument that could be STORE, where STORE may be left out, or the name of something else
// is STORE only then; so no name is taken for the store that one stands in.
func isStore(arg string) bool {
	if arg == "" || isURL(arg) {
		return arg != ""
	}
	p, err := openLocation(arg, follow)
	if err != nil {
		return errors.Is(err, errMoved)
	}
	if p.quarxfs() && p.path == p.mount.dir {
		return true
	}
	_, err = store.ReadConfig(p.path)
	return err == nil || !errors.Is(err, store.ErrNotStore) && !errors.Is(err, errNotDir)
}

// errUnmounted: there is an empty directory, most likely the mountpoint of a store.
var errUnmounted = errors.New("nothing is mounted there")

const fstab = "/etc/fstab"

// explainNoStore says why what is at a path is no store: store.ErrNotStore.
func explainNoStore(path string, err error) error {
	names, derr := os.ReadDir(path)
	switch {
	case errors.Is(derr, os.ErrNotExist):
		return fmt.Errorf("%s does not exist: %w", path, store.ErrNotStore)
	case derr == nil && len(names) == 0:
		of := ""
		if table, err := os.ReadFile(fstab); err == nil {
			of = storeInFstab(string(table), path)
		}
		return fmt.Errorf("%s is an empty directory%s, and %w: %w", path, of, errUnmounted, store.ErrNotStore)
	case errors.Is(err, store.ErrNotStore):
		return err
	}
	return fmt.Errorf("%s: %w", path, store.ErrNotStore)
}

// storeInFstab says which store fstab(5) has for a mountpoint, if any.
func storeInFstab(table, dir string) string {
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) >= 3 && f[2] == fsType && unescape(f[1]) == dir {
			return fmt.Sprintf(", the mountpoint of %s in %s", unescape(f[0]), fstab)
		}
	}
	return ""
}
