package main

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"syscall"

	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/handle"
	"github.com/quarxtor/quarxfs/store/owner"
)

// asOwner has this process act in a store's directory with the rights of its owner, until
// leave, where the caller is root and the store somebody else's; see owner.Enter. It is called
// before a store is opened, made or rebuilt, which is at inside then.
func asOwner(dir string, log *slog.Logger) (inside string, leave func() error, err error) {
	d, err := handle.Open(dir)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return dir, func() error { return nil }, nil // nothing to be careful of; opening says so
	}
	if err != nil {
		return "", nil, err
	}
	back, warning, err := owner.Enter(d)
	if err != nil {
		return "", nil, errors.Join(err, d.Close())
	}
	if warning != "" {
		log.Warn(warning)
	}
	return d.Join(), func() error { return errors.Join(back(), d.Close()) }, nil
}

// asCaller is owner.AsCaller for what has a result.
func asCaller[T any](fn func() (T, error)) (v T, err error) {
	err = owner.AsCaller(func() (err error) {
		v, err = fn()
		return err
	})
	return v, err
}

// openStore opens a store as its owner would; leave is called after it has been closed.
func openStore(dir string, o store.Options) (st *store.Store, leave func() error, err error) {
	inside, leave, err := asOwner(dir, o.Logger)
	if err != nil {
		return nil, nil, err
	}
	if st, err = store.Open(inside, o); err != nil {
		return nil, nil, errors.Join(handle.ShownError(err), leave())
	}
	return st, leave, nil
}

// initStore makes a store as the owner of its directory would, where that is there already.
func initStore(dir string, c store.Config, stderr io.Writer) error {
	inside, leave, err := asOwner(dir, slog.New(slog.NewTextHandler(stderr, nil)))
	if err != nil {
		return err
	}
	return errors.Join(handle.ShownError(store.Init(inside, c)), leave())
}
