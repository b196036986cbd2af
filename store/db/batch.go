package db

import (
	"bytes"
	"fmt"
)

// Bounds of a row, in bytes. Values over valueThreshold would go to Badger's
// value log, whose sync errors Badger only logs.
const (
	MaxKey   = 32 << 10
	MaxValue = 512 << 10

	valueThreshold = 1 << 20
)

// A Batch is a list of changes that are made visible together. The zero Batch
// is empty and ready for use. It owns the slices given to it.
type Batch struct {
	rows  []row
	bytes int64
}

// row is one change; a nil value deletes.
type row struct {
	key   []byte
	value []byte
}

// Set adds a change that stores value under key. It panics on a key or value
// that no row can have: empty, reserved or too long.
func (b *Batch) Set(key, value []byte) {
	if value == nil {
		value = []byte{}
	}
	b.add(key, value)
}

// Delete adds a change that removes key; it panics as Set does.
func (b *Batch) Delete(key []byte) { b.add(key, nil) }

func (b *Batch) add(key, value []byte) {
	checkRow(key, value)
	b.put(key, value)
}

// put adds a change of any row, also of a reserved one.
func (b *Batch) put(key, value []byte) {
	b.rows = append(b.rows, row{key, value})
	b.bytes += rowSize(len(key), len(value))
}

// Len is the number of changes.
func (b *Batch) Len() int { return len(b.rows) }

// Bytes is what the changes count for against DB.Limit, at most: a key that
// occurs twice counts twice.
func (b *Batch) Bytes() int64 { return b.bytes }

// Reset empties b and keeps its memory.
func (b *Batch) Reset() {
	clear(b.rows)
	b.rows, b.bytes = b.rows[:0], 0
}

// checkRow panics rather than returning an error because Set has nobody to
// return it to, and a row refused by Write would block every later commit.
func checkRow(key, value []byte) {
	switch {
	case len(key) == 0:
		panic("db: empty key")
	case len(key) > MaxKey:
		panic(fmt.Sprintf("db: key of %d bytes, the most is %d", len(key), MaxKey))
	case len(value) > MaxValue:
		panic(fmt.Sprintf("db: value of %d bytes, the most is %d", len(value), MaxValue))
	case reserved(key):
		panic(fmt.Sprintf("db: key %x is in the reserved range", key))
	}
}

// Keys of the package's own, which sort above all others, and of Badger's.
var (
	reservedPrefix = []byte{0xff, 0xff}
	badgerPrefix   = []byte("!badger!")
	rewrittenKey   = []byte{0xff, 0xff, 'r'} // set when an instance has caught up; of no meaning
)

// reserved tells keys that users of the package cannot have.
func reserved(key []byte) bool {
	return bytes.HasPrefix(key, reservedPrefix) || bytes.HasPrefix(key, badgerPrefix)
}
