package db

import (
	"bytes"
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/dgraph-io/badger/v4"
	"github.com/tidwall/btree"
)

// Scan calls fn with every row from <= key < to in ascending order; a nil to
// has no end. The rows are those of one instant: changes made since, by fn or
// anyone else, are not seen. The slices are valid during the call only and must
// not be modified. An error of fn ends the scan and is returned, except ErrStop.
func (d *DB) Scan(from, to []byte, fn func(key, value []byte) error) error {
	v, err := d.View()
	if err != nil {
		return err
	}
	defer v.Close()
	return v.Scan(from, to, fn)
}

// ScanPrefix scans the rows whose keys begin with prefix.
func (d *DB) ScanPrefix(prefix []byte, fn func(key, value []byte) error) error {
	return d.Scan(prefix, prefixEnd(prefix), fn)
}

// prefixEnd returns the least key above all that begin with prefix, or nil.
func prefixEnd(prefix []byte) []byte {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] != 0xff {
			end := bytes.Clone(prefix[:i+1])
			end[i]++
			return end
		}
	}
	return nil
}

// A View is the database at one instant. Its methods may be called concurrently.
// While it is open, the tables of its instant stay, after a compaction too, and Close of the
// database waits; so it is to be closed, and soon.
type View struct {
	instance *instance
	layers   []*rowMap // newest first
	txn      *badger.Txn
}

// View returns the database as it is now, with the changes that are not yet
// committed. It costs the same whatever the database holds.
func (d *DB) View() (*View, error) { return d.view(true) }

// CommittedView returns the database as the last commit has left it.
func (d *DB) CommittedView() (*View, error) { return d.view(false) }

func (d *DB) view(uncommitted bool) (*View, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mu.closed {
		return nil, ErrClosed
	}
	v := &View{instance: d.mu.instance, layers: make([]*rowMap, 0, 2+maxLayers)}
	if uncommitted {
		v.add(d.mu.active)
		v.add(d.mu.frozen)
	}
	for i := len(d.mu.logged) - 1; i >= 0; i-- {
		v.add(d.mu.logged[i])
	}
	// Under the lock, as in Get. ts belongs to the layers that were added above.
	v.instance.refs.Add(1)
	v.txn = v.instance.kv.NewTransactionAt(d.mu.ts, false)
	return v, nil
}

func (v *View) add(o *overlay) {
	if o.rows.Len() > 0 {
		v.layers = append(v.layers, o.snapshot())
	}
}

// Close ends the view. It is to be called once.
func (v *View) Close() {
	// The transaction first: the last leave may unmap the tables.
	v.txn.Discard()
	v.instance.leave()
}

// Get returns the value that key had, which the caller must not modify, or
// ErrNotFound.
func (v *View) Get(key []byte) ([]byte, error) {
	for _, l := range v.layers {
		if value, ok := l.Get(asString(key)); ok {
			if value == nil {
				return nil, ErrNotFound
			}
			return value, nil
		}
	}
	return stored(v.txn, key)
}

// Scan is DB.Scan of the view's instant.
func (v *View) Scan(from, to []byte, fn func(key, value []byte) error) error {
	if to == nil || bytes.Compare(to, reservedPrefix) > 0 {
		to = reservedPrefix
	}
	if bytes.Compare(from, to) >= 0 {
		return nil
	}
	err := v.scan(from, to, fn)
	if errors.Is(err, ErrStop) {
		return nil
	}
	return err
}

// ScanPrefix scans the rows whose keys begin with prefix.
func (v *View) ScanPrefix(prefix []byte, fn func(key, value []byte) error) error {
	return v.Scan(prefix, prefixEnd(prefix), fn)
}

func (v *View) scan(from, to []byte, fn func(key, value []byte) error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer catchFault(&err)
	// With a prefix Badger leaves out tables that cannot have a key of the range.
	opt := badger.IteratorOptions{Prefix: commonPrefix(from, to)}
	it := v.txn.NewIterator(opt)
	defer it.Close()
	it.Seek(from)
	over := newMerged(v.layers, string(from), string(to))
	for {
		var item *badger.Item
		if it.Valid() && bytes.Compare(it.Item().Key(), to) < 0 {
			item = it.Item()
		}
		switch order := over.compare(item); {
		case item == nil && !over.valid:
			return nil
		case order <= 0:
			// The overlay's row hides the stored one of the same key.
			if order == 0 {
				it.Next()
			}
			// nil is a deletion.
			if over.value != nil {
				if err := fn(asBytes(over.key), over.value); err != nil {
					return err
				}
			}
			over.next()
		default:
			if err := emit(item, fn); err != nil {
				return err
			}
			it.Next()
		}
	}
}

func emit(item *badger.Item, fn func(key, value []byte) error) error {
	var failed error
	err := item.Value(func(value []byte) error {
		failed = fn(item.Key(), value)
		return nil
	})
	if err != nil {
		return fmt.Errorf("scan row %x: %w", item.Key(), err)
	}
	return failed
}

// commonPrefix of two keys is also one of every key between them.
func commonPrefix(a, b []byte) []byte {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return a[:n]
}

// merged walks overlays as one; of those that have a key the newest wins.
type merged struct {
	layers []layerIter // newest first, without those that have ended
	to     string

	// The current row, while valid; a nil value is a deletion.
	key   string
	value []byte
	valid bool
}

type layerIter = btree.MapIter[string, []byte]

func newMerged(layers []*rowMap, from, to string) *merged {
	m := &merged{layers: make([]layerIter, 0, len(layers)), to: to}
	for _, l := range layers {
		if it := l.Iter(); it.Seek(from) {
			m.layers = append(m.layers, it)
		}
	}
	m.least()
	return m
}

// least makes the least key of all the current row.
func (m *merged) least() {
	m.valid = false
	for i := range m.layers {
		it := &m.layers[i]
		if key := it.Key(); !m.valid || key < m.key {
			m.key, m.value, m.valid = key, it.Value(), true
		}
	}
	m.valid = m.valid && m.key < m.to
}

func (m *merged) next() {
	left := m.layers[:0]
	for i := range m.layers {
		it := &m.layers[i]
		if it.Key() != m.key || it.Next() {
			left = append(left, *it)
		}
	}
	m.layers = left
	m.least()
}

// compare orders the current row and item, an absent one being the greatest.
func (m *merged) compare(item *badger.Item) int {
	switch {
	case !m.valid:
		return 1
	case item == nil:
		return -1
	}
	return bytes.Compare(asBytes(m.key), item.Key())
}
