// Package vertex encodes the nodes of the hash-graph that the store itself understands: links, and
// the vertices of files. What trees and snapshots are, package graph knows.
package vertex

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/quarxtor/quarxfs/store/chunk"
	"github.com/quarxtor/quarxfs/store/errs"
	"github.com/quarxtor/quarxfs/tiering"
)

// context gives each kind of vertex its own ID space (BLAKE3 derive-key
// contexts), so that no user's bytes can be taken for one.
func context(k tiering.Kind) string {
	switch k {
	case tiering.File:
		return "quarxfs 2026-11-23 file vertex v1"
	case tiering.Tree:
		return "quarxfs 2026-11-23 tree vertex v1"
	case tiering.Snapshot:
		return "quarxfs 2026-11-23 snapshot vertex v1"
	case tiering.Named:
		return "quarxfs 2026-11-23 name vertex v1"
	}
	return ""
}

// Sum returns the ID of a block of any kind, data among them.
func Sum(k tiering.Kind, plain []byte) chunk.ID {
	if k == tiering.Data {
		return chunk.Sum(plain)
	}
	return chunk.SumVertex(context(k), plain)
}

// A vertex is an encoded node of the hash-graph. It starts with its links, so
// that the store can follow edges without knowing what a vertex means:
//
//	+-----------------+--------------+-----+--------------+---------+
//	| links (uvarint) | ID (32 B)    | ... | ID (32 B)    | payload |
//	+-----------------+--------------+-----+--------------+---------+
//
// A vertex of 1,000 links and an empty payload takes 32,002 bytes.

// AppendLinks starts the encoding of a vertex.
func AppendLinks(b []byte, links []chunk.ID) []byte {
	b = binary.AppendUvarint(b, uint64(len(links)))
	for i := range links {
		b = append(b, links[i][:]...)
	}
	return b
}

// Split returns a vertex's links and payload; the payload aliases encoded.
// The error is ErrCorrupt.
func Split(encoded []byte) (links []chunk.ID, payload []byte, err error) {
	r := Fields{b: encoded}
	n := r.Uvarint(uint64(len(encoded) / len(chunk.ID{})))
	if r.bad || n*uint64(len(chunk.ID{})) > uint64(len(r.b)) {
		return nil, nil, fmt.Errorf("vertex of %d bytes claims more links than it holds: %w", len(encoded), errs.ErrCorrupt)
	}
	links = make([]chunk.ID, n)
	for i := range links {
		links[i], r.b = chunk.ID(r.b[:len(chunk.ID{})]), r.b[len(chunk.ID{}):]
	}
	return links, r.b, nil
}

// Links returns the links of an encoded vertex.
func Links(encoded []byte) ([]chunk.ID, error) {
	links, _, err := Split(encoded)
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
