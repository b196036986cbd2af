// Package chunk names blocks and decides where they end.
//
// A block's ID is a BLAKE3 hash of its plain bytes. Where a block ends is a
// pure function of the bytes that follow its start (content-defined) or of its
// offset in the file (fixed), so equal data is cut equally wherever it stands.
package chunk

import (
	"encoding/hex"
	"fmt"
	"sync"

	"github.com/zeebo/blake3"
)

// An ID names a block: for data the BLAKE3-256 of its plain bytes, for a
// vertex the same in derive-key mode. Equal IDs mean equal bytes; an ID says
// nothing about where, or whether, they are stored.
type ID [32]byte

// Sum returns the ID of a data block. It does not allocate.
func Sum(plain []byte) ID {
	return blake3.Sum256(plain)
}

// SumVertex returns the ID of an encoded vertex. The context separates kinds of
// vertices from each other and from data, whose bytes a user may choose; it
// must be a constant of the program, for its hasher is kept.
func SumVertex(context string, encoded []byte) ID {
	pool, ok := hashers.Load(context)
	if !ok {
		pool, _ = hashers.LoadOrStore(context, &sync.Pool{New: func() any { return blake3.NewDeriveKey(context) }})
	}
	h := pool.(*sync.Pool).Get().(*blake3.Hasher)
	h.Write(encoded)
	var id ID
	copy(id[:], h.Sum(id[:0]))
	h.Reset()
	pool.(*sync.Pool).Put(h)
	return id
}

// hashers holds a pool of *blake3.Hasher for each context. A hasher has 10 KiB,
// and deriving its key from the context costs more than hashing a small vertex.
// It is a cache of pure values, not state.
var hashers sync.Map

// ParseID reads what ID.String wrote: 64 hexadecimal digits of either case.
func ParseID(s string) (ID, error) {
	var id ID
	err := id.UnmarshalText([]byte(s))
	return id, err
}

// String returns 64 lower-case hexadecimal digits.
func (id ID) String() string {
	return hex.EncodeToString(id[:])
}

// Short returns the first 12 digits, for messages that people read.
func (id ID) Short() string {
	return hex.EncodeToString(id[:6])
}

// MarshalText implements encoding.TextMarshaler.
func (id ID) MarshalText() ([]byte, error) {
	return hex.AppendEncode(nil, id[:]), nil
}

// UnmarshalText implements encoding.TextUnmarshaler. On an error the ID is
// left as it was.
func (id *ID) UnmarshalText(text []byte) error {
	if len(text) != 2*len(id) {
		return fmt.Errorf("block ID has %d characters, want %d", len(text), 2*len(id))
	}
	var parsed ID
	if _, err := hex.Decode(parsed[:], text); err != nil {
		return fmt.Errorf("block ID %q: %w", text, err)
	}
	*id = parsed
	return nil
}
