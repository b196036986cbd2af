package store

import (
	"encoding/binary"
	"fmt"
	"math"
)

// A vertex is an encoded node of the hash-graph. It starts with its links, so
// that the store can follow edges without knowing what a vertex means:
//
//	+-----------------+--------------+-----+--------------+---------+
//	| links (uvarint) | ID (32 B)    | ... | ID (32 B)    | payload |
//	+-----------------+--------------+-----+--------------+---------+
//
// A vertex of 1,000 links and an empty payload takes 32,002 bytes.

// AppendLinks starts the encoding of a vertex.
func AppendLinks(b []byte, links []ID) []byte {
	b = binary.AppendUvarint(b, uint64(len(links)))
	for i := range links {
		b = append(b, links[i][:]...)
	}
	return b
}

// SplitVertex returns a vertex's links and payload; the payload aliases vertex.
// The error is ErrCorrupt.
func SplitVertex(vertex []byte) (links []ID, payload []byte, err error) {
	r := Fields{b: vertex}
	n := r.Uvarint(uint64(len(vertex) / len(ID{})))
	if r.bad || n*uint64(len(ID{})) > uint64(len(r.b)) {
		return nil, nil, fmt.Errorf("vertex of %d bytes claims more links than it holds: %w", len(vertex), ErrCorrupt)
	}
	links = make([]ID, n)
	for i := range links {
		links[i], r.b = ID(r.b[:len(ID{})]), r.b[len(ID{}):]
	}
	return links, r.b, nil
}

// Links returns the links of an encoded vertex.
func Links(vertex []byte) ([]ID, error) {
	links, _, err := SplitVertex(vertex)
	return links, err
}

// Fields takes fields off the front of a vertex's payload; the first failure
// sticks, and all that is taken after it is zero.
type Fields struct {
	b   []byte
	bad bool
}

// NewFields starts at the front of payload.
func NewFields(payload []byte) *Fields { return &Fields{b: payload} }

// Uvarint takes a number up to most. A number has one encoding, the shortest:
// equal vertices must be equal bytes.
func (r *Fields) Uvarint(most uint64) uint64 {
	v, n := binary.Uvarint(r.b)
	if r.bad || n <= 0 || v > most || n > 1 && r.b[n-1] == 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

// Varint takes a signed number, zigzag-encoded in its shortest form.
func (r *Fields) Varint() int64 {
	u := r.Uvarint(math.MaxUint64)
	v := int64(u >> 1)
	if u&1 != 0 {
		v = ^v
	}
	return v
}

// Byte takes one byte.
func (r *Fields) Byte() byte {
	if b := r.Bytes(1); b != nil {
		return b[0]
	}
	return 0
}

// Bytes takes n bytes, which alias the payload.
func (r *Fields) Bytes(n uint64) []byte {
	if r.bad || n > uint64(len(r.b)) {
		r.bad = true
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

// Left returns how many bytes have not been taken.
func (r *Fields) Left() int { return len(r.b) }

// Bad reports whether a field was not what it had to be.
func (r *Fields) Bad() bool { return r.bad }
