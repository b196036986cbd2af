package db

// Verify reads every stored row's block and checks its sum; damage gives
// ErrCorrupt. It reads the whole database.
//
// It matters because Badger takes a damaged block for the end of its table: the
// rows in it are not found, without an error.
func (d *DB) Verify() error {
	b, err := d.use()
	if err != nil {
		return err
	}
	defer b.leave()
	return b.verify()
}
