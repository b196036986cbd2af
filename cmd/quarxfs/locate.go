package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/mounts"
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
	to, err := locateAt(arg)
	return to.dir, err
}

// A target is what STORE names.
type target struct {
	dir    string    // of the store, or the URL of a node that has it
	device string    // of the mount that STORE leads into, if it does: its daemon is asked
	at     *location // where STORE leads to in that mount; nil: it names no path in one
}

// in is the target of what leads into a mount.
func in(p *location) target { return target{p.mount.Source, p.mount.Device, p} }

// locateAt is locate with all that is to be known.
func locateAt(arg string) (to target, err error) {
	if arg == "" {
		if p, err := openLocation(".", follow); p != nil && p.quarxfs() {
			return target{dir: p.mount.Source, device: p.mount.Device}, err
		}
		if arg = os.Getenv(storeVariable); arg == "" {
			return to, errNoStore
		}
	}
	if isURL(arg) {
		return target{dir: arg}, nil
	}
	p, err := openLocation(arg, follow)
	if noDaemonServes(err) {
		p, err = findLocation(arg) // below the mountpoint of a dead daemon
	}
	switch {
	case errors.Is(err, errMoved):
		return to, err
	case errors.Is(err, syscall.ENOENT) || errors.Is(err, errNotDir) || errors.Is(err, syscall.ELOOP):
		return to, explainNoStore(arg, err)
	case err != nil:
		return to, err
	case p.top():
		return in(p), nil
	}
	_, err = store.ReadConfig(p.path)
	switch {
	case err == nil:
		return target{dir: p.path}, nil
	case p.quarxfs():
		return in(p), nil
	case errors.Is(err, store.ErrNotStore) || errors.Is(err, errNotDir):
		return to, explainNoStore(p.path, err)
	}
	return to, err
}

// findStorePath returns the store whose mount a path leads into, to what is there or is to be
// made. errNotMounted.
func findStorePath(path string) (to target, err error) {
	p, err := findLocation(path)
	if err == nil && !p.quarxfs() {
		err = fmt.Errorf("%w: %s", errNotMounted, path)
	}
	if err != nil {
		return to, err
	}
	return in(p), nil
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
	if p.quarxfs() && p.path == p.mount.Dir {
		return true
	}
	_, err = store.ReadConfig(p.path)
	return err == nil || !errors.Is(err, store.ErrNotStore) && !errors.Is(err, errNotDir)
}

// errUnmounted: there is a mountpoint of a store, or an empty directory, which most likely is one.
var errUnmounted = errors.New("nothing is mounted there")

const fstab = "/etc/fstab"

// explainNoStore says why what is at a path is no store: store.ErrNotStore. It may be the mountpoint
// of one, or in it.
func explainNoStore(path string, err error) error {
	if table, rerr := os.ReadFile(fstab); rerr == nil {
		if of := storeInFstab(string(table), path); of != "" {
			return fmt.Errorf("%s: %s, and %w: %w", path, of, errUnmounted, store.ErrNotStore)
		}
	}
	names, derr := os.ReadDir(path)
	switch {
	case errors.Is(derr, os.ErrNotExist):
		return fmt.Errorf("%s does not exist: %w", path, store.ErrNotStore)
	case derr == nil && len(names) == 0:
		return fmt.Errorf("%s is an empty directory, and %w: %w", path, errUnmounted, store.ErrNotStore)
	case errors.Is(err, store.ErrNotStore):
		return err
	}
	return fmt.Errorf("%s: %w", path, store.ErrNotStore)
}

// storeInFstab says of which store fstab(5) has a mountpoint that is at a path or above it, if any.
func storeInFstab(table, path string) (says string) {
	path, err := mounts.Resolve(path)
	if err != nil {
		return ""
	}
	nearest := ""
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) < 3 || strings.HasPrefix(f[0], "#") {
			continue
		}
		from := strings.TrimPrefix(mounts.Unescape(f[0]), "quarxfs#") // as mount.fuse has it
		known := f[2] == mounts.FSType || f[2] == "quarxfs" || f[2] == "fuse" && from != mounts.Unescape(f[0])
		at, err := mounts.Resolve(mounts.Unescape(f[1]))
		if known && err == nil && mounts.Within(path, at) && len(at) > len(nearest) {
			nearest, says = at, fmt.Sprintf("%s is the mountpoint of %s in %s", at, from, fstab)
		}
	}
	return says
}
