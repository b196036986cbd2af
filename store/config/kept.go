package config

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"

	"github.com/quarxtor/quarxfs/store/db"
	"github.com/quarxtor/quarxfs/store/durable"
	"github.com/quarxtor/quarxfs/store/errs"
)

// The settings, the tokens and the list of tiers are files, for rebuilds and for people, and rows
// as well: a file that was lost would else be taken for settings that nobody made. The row counts.
// It is durable before the file is written, so that after a crash between the two the file follows.

// RowPrefix starts the keys of these rows; their values are the bytes of the files.
const RowPrefix = 'f'

// Key is the key of a file's row.
func Key(name string) []byte { return append([]byte{RowPrefix}, name...) }

// A Kept is a file with a row.
type Kept struct {
	File
	New func() Content // something to decode it into
}

// Files are the files with rows of one open store.
type Files struct {
	DB       *db.DB
	Path     func(elem ...string) string     // of what is in the store's directory
	Update   func(change func() error) error // makes rows change together
	Commit   func() error                    // makes them durable
	ReadOnly bool
	Log      *slog.Logger
}

// Keep makes new contents of a file durable, in its row and then in itself. The caller
// holds the file's lock.
func (f *Files) Keep(k File, c Content) error {
	b, err := k.Bytes(c)
	if err != nil {
		return err
	}
	old, err := f.DB.Get(Key(k.Name))
	if err != nil && !errors.Is(err, db.ErrNotFound) {
		return err
	}
	if err := errors.Join(f.set(k, b), f.Commit()); err != nil {
		return errors.Join(err, f.set(k, old)) // the next commit shall not make it so after all
	}
	return durable.Write(f.Path(k.Name), b)
}

// set changes a file's row; nil removes it.
func (f *Files) set(k File, b []byte) error {
	return f.Update(func() error {
		if b == nil {
			f.DB.Delete(Key(k.Name))
		} else {
			f.DB.Set(Key(k.Name), b)
		}
		return nil
	})
}

// Restore makes files as their rows say, and rows of the files of a store of before. What a
// newer program wrote is left to it.
func (f *Files) Restore(kept []Kept) error {
	if f.ReadOnly {
		return nil
	}
	for _, k := range kept {
		// The row counts, so a file that differs is the one that is wrong.
		row, err := f.DB.Get(Key(k.Name))
		if err != nil && !errors.Is(err, db.ErrNotFound) {
			return err
		}
		raw, ferr := k.Raw(f.Path())
		if ferr == nil {
			ferr = k.Decode(raw, k.New())
		}
		switch {
		case errors.Is(ferr, errs.ErrNewer), row == nil && ferr != nil, ferr == nil && bytes.Equal(raw, row):
		// A store of before rows: the commit that follows the opening makes it durable.
		case row == nil:
			f.DB.Set(Key(k.Name), raw)
		default:
			f.Log.Warn("a file of the store was lost or changed, and is written anew", "file", k.Name, "err", ferr)
			if err := durable.Write(f.Path(k.Name), row); err != nil {
				return fmt.Errorf("restore %s: %w", k.Name, err)
			}
		}
	}
	return nil
}

// Read reads a file as Restore left it, or would: a store that is open for reading only
// has the row count without a change to the file. Errors: as File.Read.
func (f *Files) Read(k Kept, c Content) error {
	if !f.ReadOnly {
		return k.File.Read(f.Path(), c)
	}
	row, err := f.DB.Get(Key(k.Name))
	if err != nil && !errors.Is(err, db.ErrNotFound) {
		return err
	}
	return k.ReadWith(row, f.Path(), c)
}

// ReadWith reads a file as Restore would leave it; row is nil if it has none. Errors: as File.Read.
func (k Kept) ReadWith(row []byte, dir string, c Content) error {
	if row == nil || errors.Is(k.File.Read(dir, k.New()), errs.ErrNewer) {
		return k.File.Read(dir, c)
	}
	return k.Decode(row, c)
}
