package store

import (
	"encoding/binary"
	"fmt"
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
	r := reader{b: vertex}
	n := r.uvarint(uint64(len(vertex) / len(ID{})))
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

// A reader takes fields off the front of an encoding; the first failure sticks.
type reader struct {
	b   []byte
	bad bool
}

// uvarint takes a number up to most. A number has one encoding, the shortest:
// equal vertices must be equal bytes.
func (r *reader) uvarint(most uint64) uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || v > most || n > 1 && r.b[n-1] == 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.bad = true
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}
