package store

import (
	"errors"
	"fmt"

	"github.com/quarxtor/quarxfs/store/vertex"
	"github.com/quarxtor/quarxfs/tiering"
)

// A Record is a block as it is stored: its payload still compressed.
type Record = tiering.Record

// Stored returns a block as it is stored, for another store to put. Its checksum
// was checked, its ID was not: whoever gets it does so. Errors: ErrNotFound,
// ErrCorrupt, ErrUnavailable.
func (bs *blocks) Stored(id ID) (r Record, err error) {
	e, err := bs.index.Lookup(id)
	if err != nil {
		return r, err
	}
	err = bs.follow(id, e, func(loc tiering.Location) (err error) {
		if r, err = bs.tiers.Stored(loc); err == nil && r.ID != id {
			err = fmt.Errorf("the record there is block %s: %w", ID(r.ID).Short(), tiering.ErrCorrupt)
		}
		return err
	})
	if err != nil {
		return Record{}, err
	}
	return r, nil
}

// Unpack returns a record's plain bytes, if they are those that its ID names.
// ErrCorrupt. It allocates no more than RawLen bytes, which are at most MaxBlock.
func Unpack(r *Record) ([]byte, error) {
	id := ID(r.ID)
	bad := func(why error) error { return fmt.Errorf("record of block %s: %w: %w", id.Short(), why, ErrCorrupt) }
	h := tiering.Header{Kind: r.Kind, Codec: r.Codec, ID: r.ID, RawLen: r.RawLen, StoredLen: uint32(len(r.Payload))}
	if r.RawLen == 0 || len(r.Payload) > MaxBlock {
		return nil, bad(fmt.Errorf("%d bytes, stored in %d", r.RawLen, len(r.Payload)))
	}
	if err := h.Validate(); err != nil {
		return nil, bad(err)
	}
	plain, err := tiering.Decompress(r.Codec, nil, r.Payload, int(r.RawLen))
	if err != nil {
		return nil, bad(err)
	}
	if vertex.Sum(r.Kind, plain) != id {
		return nil, bad(errors.New("its bytes do not hash to its ID"))
	}
	return plain, nil
}

// PutRecord is Put of a block that another store has compressed: the record is
// stored as it comes. plain is what Unpack gave.
func (bs *blocks) PutRecord(r *Record, plain []byte) error {
	if bs.readOnly {
		return ErrReadOnly
	}
	_, err := bs.put(block{kind: r.Kind, id: r.ID, plain: plain, packed: r})
	return err
}
