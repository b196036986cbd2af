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

// SplitVertex returns a vertex's links and payload; both alias vertex or copies
// of it. The error is ErrCorrupt.
func SplitVertex(vertex []byte) (links []ID, payload []byte, err error) {
	n, w := binary.Uvarint(vertex)
	if w <= 0 || n > uint64(len(vertex)-w)/uint64(len(ID{})) {
		return nil, nil, fmt.Errorf("vertex of %d bytes claims more links than it holds: %w", len(vertex), ErrCorrupt)
	}
	vertex = vertex[w:]
	links = make([]ID, n)
	for i := range links {
		links[i], vertex = ID(vertex[:len(ID{})]), vertex[len(ID{}):]
	}
	return links, vertex, nil
}

// Links returns the links of an encoded vertex.
func Links(vertex []byte) ([]ID, error) {
	links, _, err := SplitVertex(vertex)
	return links, err
}
