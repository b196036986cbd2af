package store

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/quarxtor/quarxfs/tiering"
)

// A Part is a stretch of a file.
type Part struct {
	// ID is the block that has the bytes, or in a vertex of height above 0 the
	// file vertex that has them. Holes have none.
	ID   ID
	Len  int64  // bytes of the file, at least 1
	Skip uint32 // where they start in the block; 0 above height 0
	Hole bool   // zeroes that are not stored; only at height 0
}

// A FileVertex is a file, or a part of a big one, as a list of parts that tile
// it. Big files are trees: at height 0 parts are blocks and holes, at height h
// they are vertices of height h-1.
type FileVertex struct {
	Height int
	Size   int64 // bytes of the file
	Data   int64 // of these, those that are not holes
	Parts  []Part
}

const (
	fileVertexVersion = 1
	maxHeight         = 8

	partHole = 1
	partSkip = 2
)

// Encode makes the vertex; docs/format/vertex.md draws it.
func (v *FileVertex) Encode() []byte {
	b := make([]byte, 0, 32+len(v.Parts)*(len(ID{})+4))
	links := make([]ID, 0, len(v.Parts))
	for i := range v.Parts {
		if !v.Parts[i].Hole {
			links = append(links, v.Parts[i].ID)
		}
	}
	b = AppendLinks(b, links)
	b = append(b, fileVertexVersion, byte(v.Height))
	b = binary.AppendUvarint(b, uint64(v.Size))
	b = binary.AppendUvarint(b, uint64(v.Data))
	for i := range v.Parts {
		p := &v.Parts[i]
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

// DecodeFileVertex is the reverse of Encode: it takes exactly what Encode
// makes of a sound vertex. The error is ErrCorrupt.
func DecodeFileVertex(b []byte) (FileVertex, error) {
	links, payload, err := SplitVertex(b)
	if err != nil {
		return FileVertex{}, err
	}
	bad := func(why string) (FileVertex, error) {
		return FileVertex{}, fmt.Errorf("file vertex: %s: %w", why, ErrCorrupt)
	}
	r := Fields{b: payload}
	if r.Byte() != fileVertexVersion {
		return bad("unknown version")
	}
	v := FileVertex{Height: int(r.Byte())}
	v.Size, v.Data = int64(r.Uvarint(math.MaxInt64)), int64(r.Uvarint(math.MaxInt64))
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

func (v *FileVertex) sums() (why string) {
	var size, data int64
	for i := range v.Parts {
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

func endsNode(links int, last ID) bool {
	if links < fanOutMin {
		return false
	}
	return links >= fanOutMax || (uint(last[30])<<8|uint(last[31]))&fanOutMask == 0
}

// A FileBuilder makes the vertices of a file from its parts, in order, in
// bounded memory. What it has made is pinned until Close, so that the sweep
// does not take it before something refers to the top.
type FileBuilder struct {
	s      *Store
	dry    bool // store nothing
	pin    *Pin // nil: nothing need be
	levels []fileLevel
}

// A fileLevel is the node of one height that is being filled.
type fileLevel struct {
	FileVertex
	ids   []ID
	ended bool // there is a node of this height already
}

// A FileRoot is what stands for a whole file: a file vertex, or the only block
// of a file that is just that block.
type FileRoot struct {
	ID   ID
	Size int64
	Data int64 // bytes that are not holes
}

// NewFileBuilder returns a builder for one file. The caller closes it.
func (s *Store) NewFileBuilder() *FileBuilder {
	b := s.NewKeptFileBuilder()
	b.pin = s.NewPin()
	return b
}

// NewKeptFileBuilder is NewFileBuilder for whoever has called PauseSweep: nothing is
// pinned, which takes most of the time of a builder, nor needs Hold.
func (s *Store) NewKeptFileBuilder() *FileBuilder {
	return &FileBuilder{s: s, levels: make([]fileLevel, 1, 4)}
}

// NewFileHasher returns a builder that stores nothing: Finish tells the ID that
// the file's vertex would have. The blocks need not be held.
func (s *Store) NewFileHasher() *FileBuilder {
	b := s.NewKeptFileBuilder()
	b.dry = true
	return b
}

// put stores a vertex.
func (b *FileBuilder) put(vertex []byte) (ID, error) {
	if b.dry {
		return sum(tiering.File, vertex), nil
	}
	return b.s.Put(tiering.File, vertex)
}

// Add appends a part: a hole, or bytes of a data block. The caller holds Hold
// from Put of the block until Add returns.
func (b *FileBuilder) Add(p Part) error {
	if p.Len <= 0 {
		return fmt.Errorf("a part of %d bytes: %w", p.Len, ErrConfig)
	}
	if !p.Hole {
		return b.link(0, p, p.Len)
	}
	l := &b.levels[0]
	l.Size += p.Len
	if n := len(l.Parts); n > 0 && l.Parts[n-1].Hole {
		l.Parts[n-1].Len += p.Len
		return nil
	}
	l.Parts = append(l.Parts, Part{Hole: true, Len: p.Len})
	return nil
}

// link appends a child with so many bytes of data to the node being filled.
func (b *FileBuilder) link(height int, p Part, data int64) error {
	if height == len(b.levels) {
		b.levels = append(b.levels, fileLevel{FileVertex: FileVertex{Height: height}})
	}
	l := &b.levels[height]
	b.keep(p.ID)
	l.Parts = append(l.Parts, p)
	l.ids = append(l.ids, p.ID)
	l.Size += p.Len
	l.Data += data
	if !endsNode(len(l.ids), p.ID) {
		return nil
	}
	return b.end(height)
}

// end stores the node being filled and links it from the one above. Its own
// links are counted as references now, so their pins can go.
func (b *FileBuilder) end(height int) error {
	l := &b.levels[height]
	release := b.s.Hold()
	defer release()
	id, err := b.put(l.Encode())
	if err != nil {
		return err
	}
	p, data := Part{ID: id, Len: l.Size}, l.Data
	if err := b.link(height+1, p, data); err != nil {
		return err
	}
	l = &b.levels[height] // link may have moved it
	if b.pin != nil {
		b.pin.Drop(l.ids...)
	}
	*l = fileLevel{FileVertex: FileVertex{Height: height, Parts: l.Parts[:0]}, ids: l.ids[:0], ended: true}
	return nil
}

// Finish stores what is left and returns the root, which stays pinned until
// Close. A file that is one whole block is that block; an empty one is a vertex
// without parts.
func (b *FileBuilder) Finish() (FileRoot, error) {
	h := 0
	for ; b.levels[h].ended; h++ {
		if len(b.levels[h].Parts) == 0 {
			continue
		}
		if err := b.end(h); err != nil {
			return FileRoot{}, err
		}
	}
	l := &b.levels[h]
	root := FileRoot{Size: l.Size, Data: l.Data}
	if len(l.Parts) == 1 && len(l.ids) == 1 {
		whole, err := b.whole(h, l.Parts[0])
		if err != nil || whole {
			root.ID = l.ids[0]
			return root, err
		}
	}
	release := b.s.Hold()
	defer release()
	id, err := b.put(l.Encode())
	if err != nil {
		return FileRoot{}, err
	}
	b.keep(id)
	root.ID = id
	return root, nil
}

func (b *FileBuilder) keep(id ID) {
	if b.pin != nil {
		b.pin.Add(id)
	}
}

// whole reports whether an only part can stand for the file.
func (b *FileBuilder) whole(height int, p Part) (bool, error) {
	if height > 0 {
		return true, nil
	}
	e, err := b.s.Lookup(p.ID)
	return p.Skip == 0 && int64(e.Raw) == p.Len, err
}

// Close lets go of what the builder made. Whoever wants to keep the root has
// called Ref by now.
func (b *FileBuilder) Close() {
	if b.pin != nil {
		b.pin.Release()
	}
}
