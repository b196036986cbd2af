package store

import (
	"errors"

	"github.com/quarxtor/quarxfs/store/db"
	"github.com/quarxtor/quarxfs/store/errs"
	"github.com/quarxtor/quarxfs/tiering"
)

// The errors of this package, to be told apart with errors.Is.
var (
	ErrNotFound  = errs.ErrNotFound
	ErrCorrupt   = errs.ErrCorrupt
	ErrNotStore  = errors.New("not a QuarXFS store")
	ErrExists    = errors.New("already a QuarXFS store")
	ErrNameTaken = errs.ErrNameTaken
	ErrHeld      = errors.New("the snapshot is held")
	ErrMounted   = errors.New("something is mounted there")
	ErrNotEmpty  = errors.New("directory is not empty")
	ErrNewer     = errs.ErrNewer
	ErrOlder     = db.ErrOlder
	ErrDamaged   = errs.ErrDamaged
	ErrLocked    = errors.New("store is in use by another process")
	// ErrMirrored: what changes it must go to its other copies as well, by Options.Follower.
	ErrMirrored  = errors.New("the store is one copy of a mirrored volume")
	ErrConfig    = errs.ErrConfig
	ErrRange     = errors.New("offset is behind the end")
	ErrAmbiguous = errors.New("ID prefix is ambiguous")
	ErrNoTier    = tiering.ErrNoTier
	ErrForeign   = tiering.ErrForeign // it is another store's, as a copy finds
	ErrHasTier   = errors.New("the tier is in use")
	ErrNotCold   = errors.New("the store's cold tier is not there")
	ErrFull      = db.ErrFull
	ErrReadOnly  = errs.ErrReadOnly
	// ErrUnwritable: the store can be opened with Options.ReadOnly only.
	ErrUnwritable = errors.New("the store cannot be written to")
	// ErrUncommitted: it is done, but not on the disk yet; the other error says why.
	ErrUncommitted = errors.New("done, but not on the disk yet")
	ErrFailed      = db.ErrFailed // the database's disk failed: only reopening helps
	// ErrUnavailable: what was asked for is in a cold tier that cannot be reached
	// now.
	ErrUnavailable = tiering.ErrUnavailable
)
