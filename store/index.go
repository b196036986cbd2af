package store

import (
	"errors"
	"fmt"

	"github.com/quarxtor/quarxfs/store/db"
)

// An index answers from the rows as they are now: those of the last commit, and what has changed
// since. It changes none.
type index struct {
	*base
}

// Lookup returns the block's row in the index. References that are not yet
// committed are not counted. ErrNotFound: the store has no such block.
func (ix *index) Lookup(id ID) (Entry, error) {
	b, err := ix.db.Get(blockKey(keyBlock, id))
	if errors.Is(err, db.ErrNotFound) {
		if m, ok := ix.memory.get(id); ok {
			return Entry{Kind: m.kind, Raw: uint32(len(m.plain))}, nil
		}
		return Entry{}, fmt.Errorf("block %s: %w", id.Short(), ErrNotFound)
	}
	if err != nil {
		return Entry{}, err
	}
	return decodeEntry(b)
}

// Has reports whether the store has the block.
func (ix *index) Has(id ID) (bool, error) {
	_, err := ix.Lookup(id)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}
