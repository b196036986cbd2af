package store

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/quarxtor/quarxfs/store/vertex"
	"github.com/quarxtor/quarxfs/tiering"
)

// A name vertex stands for an object's name in the segments, so that names
// survive the loss of the database (I9). It links to the object; its payload is
//
//	+---------+--------------+----------------+----------------+------+
//	| version | created (ms) | size (uvarint) | data (uvarint) | name |
//	+---------+--------------+----------------+----------------+------+
//
// The row of the name refers to the vertex, and the vertex to the object. It can
// be made from the row, so no row says its ID.
const nameVertexVersion = 1

func (o ObjectInfo) vertex() []byte {
	b := vertex.AppendLinks(make([]byte, 0, 64+len(o.Name)), []ID{o.ID})
	b = append(b, nameVertexVersion)
	b = binary.AppendVarint(b, o.Created.UnixMilli())
	b = binary.AppendUvarint(b, uint64(o.Size))
	b = binary.AppendUvarint(b, uint64(o.Data))
	return append(b, o.Name...)
}

// vertexID is the ID of the name's vertex.
func (o ObjectInfo) vertexID() ID { return vertex.Sum(tiering.Named, o.vertex()) }

// decodeNameVertex is the reverse of vertex. The error is ErrCorrupt.
func decodeNameVertex(b []byte) (ObjectInfo, error) {
	links, payload, err := vertex.Split(b)
	if err != nil {
		return ObjectInfo{}, err
	}
	bad := fmt.Errorf("name vertex: %w", ErrCorrupt)
	r := vertex.NewFields(payload)
	if len(links) != 1 || r.Byte() != nameVertexVersion {
		return ObjectInfo{}, bad
	}
	o := ObjectInfo{ID: links[0], Created: time.UnixMilli(r.Varint())}
	o.Size, o.Data = int64(r.Uvarint(math.MaxInt64)), int64(r.Uvarint(math.MaxInt64))
	o.Name = string(r.Bytes(uint64(r.Left())))
	if r.Bad() || o.Data > o.Size || o.Name == "" || len(o.Name) > MaxObjectName {
		return ObjectInfo{}, bad
	}
	return o, nil
}
