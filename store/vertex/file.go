package vertex

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/quarxtor/quarxfs/store/chunk"
	"github.com/quarxtor/quarxfs/store/errs"
	"github.com/quarxtor/quarxfs/tiering"
)

// A Part is a span of a file.
type Part struct {
	// ID is the block that has the bytes, or in a vertex of height above 0 the
	// file vertex that has them. Holes have none.
	ID   chunk.ID
	Len  int64  // bytes of the file, at least 1
	Skip uint32 // where they start in the block; 0 above height 0
	Hole bool   // zeroes that are not stored; only at height 0
}

// A File is a file, or a part of a big one, as a list of parts that tile
// it. Big files are trees: at height 0 parts are blocks and holes, at height h
// they are vertices of height h-1.
type File struct {
	Height int
	Size   int64 // bytes of the file
	Data   int64 // of these, those that are not holes
	Parts  []Part
}

const (
	fileVersion = 1
	maxHeight   = 8

	partHole = 1
	partSkip = 2
)

// Encode makes the vertex; docs/format/vertex.md draws it.
func (v *File) Encode() []byte {
	b := make([]byte, 0, 32+len(v.Parts)*(len(chunk.ID{})+4))
	// The links come before the payload, where whoever only counts references finds them.
	links := make([]chunk.ID, 0, len(v.Parts))
	for i := range v.Parts {
		if !v.Parts[i].Hole {
			links = append(links, v.Parts[i].ID)
		}
	}
	b = AppendLinks(b, links)
	b = append(b, fileVersion, byte(v.Height))
	b = binary.AppendUvarint(b, uint64(v.Size))
	b = binary.AppendUvarint(b, uint64(v.Data))
	for i := range v.Parts {
		p := &v.Parts[i]
		// In two bits of the length, where they cost most parts nothing.
		x := uint64(p.Len) << 2
		if p.Hole {
			x |= partHole
		}
		if p.Skip != 0 {
			x |= partSkip
		}
		b = binary.AppendUvarint(b, x)
		if p.Skip != 0 {
			b = binary.AppendUvarint(b, uint64(p.Skip))
		}
	}
	return b
}

// DecodeFile is the reverse of Encode: it takes exactly what Encode
// makes of a sound vertex. The error is ErrCorrupt.
func DecodeFile(b []byte) (File, error) {
	links, payload, err := Split(b)
	if err != nil {
		return File{}, err
	}
	bad := func(why string) (File, error) {
		return File{}, fmt.Errorf("file vertex: %s: %w", why, errs.ErrCorrupt)
	}
	r := Fields{b: payload}
	if r.Byte() != fileVersion {
		return bad("unknown version")
	}
	v := File{Height: int(r.Byte())}
	v.Size, v.Data = int64(r.Uvarint(math.MaxInt64)), int64(r.Uvarint(math.MaxInt64))
	// By the length of the input and not by what it says: a count of parts is not trusted.
	v.Parts = make([]Part, 0, min(len(r.b), 2*len(links)+1))
	for len(r.b) > 0 && !r.bad {
		p, why := r.part(v.Height)
		if why != "" {
			return bad(why)
		}
		if !p.Hole {
			if len(links) == 0 {
				return bad("more parts than links")
			}
			p.ID, links = links[0], links[1:]
		} else if n := len(v.Parts); n > 0 && v.Parts[n-1].Hole {
			// Encode makes one hole of two, so that a file has one encoding and one ID.
			return bad("two holes side by side")
		}
		v.Parts = append(v.Parts, p)
	}
	if r.bad || len(links) != 0 {
		return bad("cut short")
	}
	if why := v.sums(); why != "" {
		return bad(why)
	}
	return v, nil
}

func (r *Fields) part(height int) (p Part, why string) {
	x := r.Uvarint(math.MaxUint64)
	p.Len, p.Hole = int64(x>>2), x&partHole != 0
	if x&partSkip != 0 {
		// A skip of 0 would be a second way to write the same.
		if p.Skip = uint32(r.Uvarint(tiering.MaxRaw)); p.Skip == 0 {
			r.bad = true
		}
	}
	switch {
	case r.bad:
		return p, "cut short"
	case p.Len == 0:
		return p, "an empty part"
	case height > 0 && (p.Hole || p.Skip != 0), p.Hole && p.Skip != 0:
		return p, "a part that cannot be"
	case height == 0 && !p.Hole && p.Len+int64(p.Skip) > tiering.MaxRaw:
		return p, "a part longer than any block"
	}
	return p, ""
}

func (v *File) sums() (why string) {
	var size, data int64
	for i := range v.Parts {
		// Lengths are from a disk: their sum may pass the largest number.
		if size += v.Parts[i].Len; size < 0 {
			return "sizes overflow"
		}
		if !v.Parts[i].Hole {
			data += v.Parts[i].Len
		}
	}
	switch {
	case v.Height > maxHeight, v.Height > 0 && len(v.Parts) == 0:
		return "impossible height"
	case size != v.Size:
		return "its parts do not add up to its size"
	case v.Height == 0 && data != v.Data, v.Data > v.Size:
		return "its parts do not add up to its bytes of data"
	}
	return ""
}

// A node of a file's tree ends behind a child whose ID says so, which about one
// in fanOutMask+1 does, so that an edit changes the nodes around it and no
// others: all further ends stay where they were. With the minimum that makes
// about 1,000 links a node.
const (
	fanOutMin  = 512
	fanOutMask = 511
	fanOutMax  = 4096
)

// EndsNode reports whether a node with so many links ends behind the last of them.
func EndsNode(links int, last chunk.ID) bool {
	if links < fanOutMin {
		return false
	}
	return links >= fanOutMax || (uint(last[30])<<8|uint(last[31]))&fanOutMask == 0
}
