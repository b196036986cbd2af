package db

import (
	"unsafe"

	"github.com/tidwall/btree"
)

// overlay is a set of changes not yet in Badger, in key order. A nil value
// marks a deletion. Its owner does the locking.
type overlay struct {
	rows  btree.Map[string, []byte]
	bytes int64
	first uint64 // sequence of the oldest commit in it, once it is in the log
	// snap is a copy that readers iterate over without a lock; nil once rows has changed.
	snap *btree.Map[string, []byte]
}

// rowOverhead is added to the bytes of a row so that the sum is never less
// than Badger's own estimate of it, which is 12 to 24.
const rowOverhead = 32

func rowSize(key, value int) int64 { return int64(key + value + rowOverhead) }

func (o *overlay) set(key string, value []byte) {
	o.snap = nil
	old, replaced := o.rows.Set(key, value)
	if replaced {
		o.bytes += int64(len(value) - len(old))
		return
	}
	o.bytes += rowSize(len(key), len(value))
}

// get's second result tells whether the overlay knows the key at all; then a
// nil value says that it is deleted.
func (o *overlay) get(key []byte) ([]byte, bool) {
	return o.rows.Get(asString(key))
}

// snapshot must be called with the lock that set needs.
func (o *overlay) snapshot() *btree.Map[string, []byte] {
	if o.snap == nil {
		o.snap = o.rows.Copy()
	}
	return o.snap
}

func (o *overlay) merge(newer *overlay) {
	newer.rows.Scan(func(key string, value []byte) bool {
		o.set(key, value)
		return true
	})
}

// asString and asBytes convert without copying; the bytes never change, by the
// package's contract with its callers.
func asString(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
func asBytes(s string) []byte  { return unsafe.Slice(unsafe.StringData(s), len(s)) }
