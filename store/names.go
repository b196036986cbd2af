package store

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/quarxtor/quarxfs/store/chunk"
	"github.com/quarxtor/quarxfs/store/db"
	"github.com/quarxtor/quarxfs/store/vertex"
	"github.com/quarxtor/quarxfs/tiering"
)

// MaxObjectName is the longest name of an object, in bytes.
const MaxObjectName = 1024

// minPrefix is the shortest ID prefix that is taken for one, in hex digits.
const minPrefix = 4

// ObjectInfo describes an object.
type ObjectInfo struct {
	Name    string    `json:"name"` // its ID in hex, if it was not given one
	ID      ID        `json:"id"`
	Size    int64     `json:"size"`
	Data    int64     `json:"data_bytes"` // Size without holes
	Created time.Time `json:"created"`    // when the name was last set; zero for what is no object
}

// encode makes the row of a name: ID, creation time in ms since 1970, size,
// bytes of data.
func (o ObjectInfo) encode() []byte {
	b := append(make([]byte, 0, len(o.ID)+16), o.ID[:]...)
	b = binary.AppendVarint(b, o.Created.UnixMilli())
	b = binary.AppendUvarint(b, uint64(o.Size))
	return binary.AppendUvarint(b, uint64(o.Data))
}

func decodeObject(name string, b []byte) (ObjectInfo, error) {
	o := ObjectInfo{Name: name}
	bad := fmt.Errorf("row of object %q: %w", name, ErrCorrupt)
	if len(b) < len(o.ID) {
		return o, bad
	}
	o.ID, b = ID(b[:len(o.ID)]), b[len(o.ID):]
	ms, n := binary.Varint(b)
	if n <= 0 {
		return o, bad
	}
	o.Created = time.UnixMilli(ms)
	r := vertex.NewFields(b[n:])
	o.Size, o.Data = int64(r.Uvarint(math.MaxInt64)), int64(r.Uvarint(math.MaxInt64))
	if r.Bad() || r.Left() != 0 || o.Data > o.Size {
		return o, bad
	}
	return o, nil
}

func nameKey(name string) []byte { return append([]byte{keyName}, name...) }

func objectKey(id ID, name string) []byte { return append(blockKey(keyObject, id), name...) }

// validName reports why an object cannot have a name. A name that reads as an
// ID would hide that ID.
func validName(name string) error {
	_, err := chunk.ParseID(name)
	switch {
	case name == "":
		return fmt.Errorf("an empty name: %w", ErrConfig)
	case err == nil:
		return fmt.Errorf("object name %q is an ID: %w", name, ErrConfig)
	case len(name) > MaxObjectName:
		return fmt.Errorf("an object name of %d bytes, the most is %d: %w", len(name), MaxObjectName, ErrConfig)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return fmt.Errorf("object name %q has control characters or is not UTF-8: %w", name, ErrConfig)
	}
	return nil
}

// A nameTable has the names of objects and snapshots.
type nameTable struct {
	*base
	index   *index
	pending *pending
	blocks  *blocks
	commits *committer

	mu sync.Mutex // one change of a name at a time
}

// setName makes a name refer to o and releases what it referred to before, if it may replace
// that: ErrNameTaken. The caller has o.ID pinned.
func (nt *nameTable) setName(o ObjectInfo, replace bool) error {
	release := nt.pending.Hold()
	defer release()
	if _, err := nt.blocks.Put(tiering.Named, o.vertex()); err != nil {
		return err
	}
	return nt.commits.Change(func() error {
		nt.mu.Lock()
		defer nt.mu.Unlock()
		old, err := nt.index.named(o.Name)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		// Looked at under the lock: two at once with one name do not replace each other.
		if err == nil && old.ID != o.ID && !replace {
			return fmt.Errorf("object %q is there with other bytes: %w", o.Name, ErrNameTaken)
		}
		nt.refObject(o, 1)
		if err == nil {
			nt.refObject(old, -1)
			nt.db.Delete(objectKey(old.ID, o.Name))
		}
		nt.db.Set(nameKey(o.Name), o.encode())
		nt.db.Set(objectKey(o.ID, o.Name), []byte{})
		return nil
	})
}

func (nt *nameTable) refObject(o ObjectInfo, sign int64) {
	nt.pending.mu.Lock()
	defer nt.pending.mu.Unlock()
	nt.pending.ref(o.vertexID(), sign)
	nt.pending.objects.add(o.Size, sign)
}

func (nt *nameTable) dropName(name string) error {
	return nt.commits.Removal(func() error {
		nt.mu.Lock()
		defer nt.mu.Unlock()
		o, err := nt.index.named(name)
		if err != nil {
			return err
		}
		nt.refObject(o, -1)
		nt.db.Delete(nameKey(name))
		nt.db.Delete(objectKey(o.ID, name))
		return nil
	})
}

// named returns the object that has exactly this name, or ErrNotFound.
func (ix *index) named(name string) (ObjectInfo, error) {
	if name == "" {
		return ObjectInfo{}, ErrNotFound
	}
	b, err := ix.db.Get(nameKey(name))
	if errors.Is(err, db.ErrNotFound) {
		return ObjectInfo{}, fmt.Errorf("object %q: %w", name, ErrNotFound)
	}
	if err != nil {
		return ObjectInfo{}, err
	}
	return decodeObject(name, b)
}

// namesOf returns the names of an object, at most limit.
func (ix *index) namesOf(id ID, limit int) ([]string, error) {
	var names []string
	prefix := blockKey(keyObject, id)
	err := ix.db.ScanPrefix(prefix, func(key, _ []byte) error {
		names = append(names, string(key[len(prefix):]))
		if len(names) == limit {
			return db.ErrStop
		}
		return nil
	})
	return names, err
}

// resolve finds what ref means: an object's name, or a full ID, or at least
// four hex digits that start the ID of one object only, or of one block only if
// they start no object's. Errors: ErrNotFound, ErrAmbiguous.
func (ob *objectStore) resolveRef(ref string) (ObjectInfo, error) {
	o, err := ob.index.named(ref)
	if !errors.Is(err, ErrNotFound) {
		return o, err
	}
	id, err := chunk.ParseID(ref)
	if err != nil {
		if id, err = ob.index.resolvePrefix(ref); err != nil {
			return ObjectInfo{}, err
		}
	}
	// An object by its ID: the row of any of its names has sizes and times without a look inside.
	names, err := ob.index.namesOf(id, 1)
	if err != nil {
		return ObjectInfo{}, err
	}
	if len(names) > 0 {
		return ob.index.named(names[0])
	}
	return ob.blocks.describe(id)
}

func (ix *index) resolvePrefix(ref string) (ID, error) {
	lo, hi, ok := PrefixRange(ref)
	if !ok || len(ref) < minPrefix {
		return ID{}, fmt.Errorf("object %q: %w", ref, ErrNotFound)
	}
	// Objects before blocks: a block inside of one must not make its prefix ambiguous.
	for _, space := range []byte{keyObject, keyBlock} {
		var found []ID
		err := ix.db.Scan(prefixKey(space, lo), prefixEnd(space, hi), func(key, _ []byte) error {
			id, err := idInKey(key)
			if err != nil {
				return err
			}
			// An object with several names has a row for each, under one ID.
			if len(found) == 0 || found[0] != id {
				found = append(found, id)
			}
			if len(found) > 1 {
				return db.ErrStop
			}
			return nil
		})
		switch {
		case err != nil:
			return ID{}, err
		case len(found) > 1:
			return ID{}, fmt.Errorf("%s starts %s, %s and perhaps more: %w", ref, found[0].Short(), found[1].Short(), ErrAmbiguous)
		case len(found) == 1:
			return found[0], nil
		}
	}
	return ID{}, fmt.Errorf("object %q: %w", ref, ErrNotFound)
}

// PrefixRange returns the first and the last ID that start with hex digits.
func PrefixRange(digits string) (lo, hi ID, ok bool) {
	if len(digits) > 2*len(lo) {
		return lo, hi, false
	}
	pad := func(with string) (ID, error) {
		b, err := hex.DecodeString(digits + strings.Repeat(with, 2*len(lo)-len(digits)))
		if err != nil {
			return ID{}, err
		}
		return ID(b), nil
	}
	lo, err := pad("0")
	if err != nil {
		return lo, hi, false
	}
	hi, err = pad("f")
	return lo, hi, err == nil
}

func prefixKey(space byte, lo ID) []byte { return blockKey(space, lo) }

// prefixEnd is the key behind all that start with hi.
func prefixEnd(space byte, hi ID) []byte {
	k := blockKey(space, hi)
	for i := len(k) - 1; ; i-- {
		// A byte of 255 carries over; there is always one before it, as keys begin with the row's
		// kind.
		if k[i]++; k[i] != 0 {
			return k[:i+1]
		}
	}
}

func idInKey(key []byte) (ID, error) {
	if len(key) < 1+len(ID{}) {
		return ID{}, fmt.Errorf("row with a key of %d bytes: %w", len(key), ErrCorrupt)
	}
	return ID(key[1 : 1+len(ID{})]), nil
}

// describe makes the ObjectInfo of a data block or file vertex that has no
// name. Other vertices are no objects: ErrNotFound.
func (bs *blocks) describe(id ID) (ObjectInfo, error) {
	e, err := bs.index.Lookup(id)
	if err != nil {
		return ObjectInfo{}, err
	}
	o := ObjectInfo{Name: id.String(), ID: id}
	switch e.Kind {
	case tiering.Data:
		o.Size, o.Data = int64(e.Raw), int64(e.Raw)
	case tiering.File:
		// Its size is in the vertex alone.
		v, err := bs.fileVertex(context.Background(), id)
		if err != nil {
			return ObjectInfo{}, err
		}
		o.Size, o.Data = v.Size, v.Data
	default:
		return ObjectInfo{}, fmt.Errorf("%s is a %s vertex, not an object: %w", id.Short(), e.Kind, ErrNotFound)
	}
	return o, nil
}
