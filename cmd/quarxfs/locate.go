package main

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/quarxtor/quarxfs/store"
)

// errNotDir: the argument names a file, perhaps one inside a mount.
var errNotDir = syscall.ENOTDIR

const storeVariable = "QUARXFS_STORE"

// locate returns the directory of the store that an argument names, or its URL; ""
// is the mount one stands in, else $QUARXFS_STORE.
func locate(arg string) (string, error) {
	table, err := mountTable()
	if err != nil {
		return "", err
	}
	if arg == "" {
		if wd, err := os.Getwd(); err == nil {
			if m, ok := mountOf(table, wd); ok {
				return m.source, nil
			}
		}
		if arg = os.Getenv(storeVariable); arg == "" {
			return "", errNoStore
		}
	}
	if isURL(arg) {
		return arg, nil
	}
	path, err := resolve(arg)
	if err != nil {
		return "", err
	}
	m, inside := mountOf(table, path)
	if inside && m.dir == path {
		return m.source, nil
	}
	_, err = store.ReadConfig(path)
	if errors.Is(err, store.ErrNotStore) || errors.Is(err, errNotDir) {
		if inside {
			return m.source, nil
		}
		return "", explainNoStore(path, err)
	}
	if err != nil {
		return "", err
	}
	return path, nil
}

func explainNoStore(path string, err error) error {
	if _, serr := os.Stat(path); errors.Is(serr, os.ErrNotExist) {
		return fmt.Errorf("%s does not exist: %w", path, store.ErrNotStore)
	}
	if errors.Is(err, store.ErrNotStore) {
		return err
	}
	return fmt.Errorf("%s: %w", path, store.ErrNotStore)
}
