// Package errs has the errors of a store that its parts report, too. Package store gives them
// names of its own: whoever uses a store looks there.
package errs

import (
	"errors"

	"github.com/quarxtor/quarxfs/store/db"
)

// The errors, to be told apart with errors.Is.
var (
	ErrNotFound  = errors.New("not found")
	ErrCorrupt   = errors.New("stored bytes do not match their ID")
	ErrNameTaken = errors.New("the name is taken")
	ErrNewer     = errors.New("store was made by a newer QuarXFS")
	ErrConfig    = errors.New("bad setting")
	ErrDamaged   = db.ErrCorrupt
	ErrReadOnly  = db.ErrReadOnly
)
