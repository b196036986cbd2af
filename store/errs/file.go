package errs

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"

	"github.com/quarxtor/quarxfs/store/db"
	"github.com/quarxtor/quarxfs/store/handle"
)

// What to do about a file that is not what it must be.
const (
	NextRestore  = "put it back from a copy of the store"
	NextDatabase = "put it back from a copy of the store, or make the database anew with quarxfs rebuild" +
		" (it brings back snapshots and named objects, not the live tree)"
	nextLink = "put the file itself there"
)

// Damaged is the error for a file of the store.
func Damaged(file, next, format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrDamaged, &db.FileError{File: handle.Shown(file), What: fmt.Sprintf(format, args...), Next: next})
}

// Irregular is the error for what is no file where one must be.
func Irregular(name string, mode fs.FileMode) error {
	f, _ := errors.AsType[*db.FileError](db.Irregular(name, mode))
	return Damaged(f.File, nextLink, "%s", f.What)
}

// Explain makes what the database says of its files the store's error.
func Explain(err error) error {
	f, ok := errors.AsType[*db.FileError](err)
	if !ok {
		if errors.Is(err, db.ErrCorrupt) {
			err = fmt.Errorf("%w: %s", err, "make the database anew with quarxfs rebuild")
		}
		return err
	}
	f = &db.FileError{File: handle.Shown(f.File), What: f.What, Next: cmp.Or(f.Next, NextDatabase), Err: f.Err}
	return fmt.Errorf("%w: %w", ErrDamaged, f)
}
