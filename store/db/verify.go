package db

import (
	"fmt"
	"runtime/debug"
)

// Verify reads every stored row's block and checks its sum; damage gives
// ErrCorrupt. It reads the whole database.
//
// It matters because Badger takes a damaged block for the end of its table: the
// rows in it are not found, without an error.
func (d *DB) Verify() error {
	if err := d.use(); err != nil {
		return err
	}
	defer d.users.Done()
	return d.verify()
}

func (d *DB) verify() (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	// Badger 4.9.6 dereferences nil as it makes the error for a bad block.
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: a table does not match its checksums", ErrCorrupt)
		}
	}()
	if err := d.kv.VerifyChecksum(); err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return nil
}
