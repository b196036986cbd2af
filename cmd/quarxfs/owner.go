package main

import (
	"errors"
	"io"
	"log/slog"

	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/termlog"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/handle"
	"github.com/quarxtor/quarxfs/store/owner"
)

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
	inside, leave, err := owner.EnterPath(dir, o.Logger)
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
	inside, leave, err := owner.EnterPath(dir, slog.New(termlog.New(stderr)))
	if err != nil {
		return err
	}
	return errors.Join(handle.ShownError(store.Init(inside, c)), leave())
}
