package meta

import (
	"errors"

	"github.com/quarxtor/quarxfs/store/db"
)

// A DB holds the records: the store's database.
type DB = db.DB

// A View is the records at one instant.
type View = db.View

// What DB's methods return and take, for those who know the database only
// through this package.
var (
	ErrNotFound = db.ErrNotFound
	ErrStop     = db.ErrStop
)

// IsNotFound reports whether an error says that there is no such row.
func IsNotFound(err error) bool { return errors.Is(err, ErrNotFound) }
