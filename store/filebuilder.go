package store

import (
	"fmt"

	"github.com/quarxtor/quarxfs/store/vertex"
	"github.com/quarxtor/quarxfs/tiering"
)

// A FileBuilder makes the vertices of a file from its parts, in order, in
// bounded memory. What it has made is pinned until Close, so that the sweep
// does not take it before something refers to the top.
type FileBuilder struct {
	s      *blocks
	dry    bool // store nothing
	pin    *Pin // nil: nothing need be
	levels []fileLevel
}

// A fileLevel is the node of one height that is being filled.
type fileLevel struct {
	vertex.File
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
func (bs *blocks) NewFileBuilder() *FileBuilder {
	b := bs.NewKeptFileBuilder()
	b.pin = bs.pending.NewPin()
	return b
}

// NewKeptFileBuilder is NewFileBuilder for whoever has called PauseSweep: nothing is
// pinned, which takes most of the time of a builder, nor needs Hold.
func (bs *blocks) NewKeptFileBuilder() *FileBuilder {
	return &FileBuilder{s: bs, levels: make([]fileLevel, 1, 4)}
}

// NewFileHasher returns a builder that stores nothing: Finish tells the ID that
// the file's vertex would have. The blocks need not be held.
func (bs *blocks) NewFileHasher() *FileBuilder {
	b := bs.NewKeptFileBuilder()
	b.dry = true
	return b
}

// put stores a vertex.
func (b *FileBuilder) put(encoded []byte) (ID, error) {
	if b.dry {
		return vertex.Sum(tiering.File, encoded), nil
	}
	return b.s.Put(tiering.File, encoded)
}

// Add appends a part: a hole, or bytes of a data block. The caller holds Hold
// from Put of the block until Add returns.
func (b *FileBuilder) Add(p vertex.Part) error {
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
	l.Parts = append(l.Parts, vertex.Part{Hole: true, Len: p.Len})
	return nil
}

// link appends a child with so many bytes of data to the node being filled.
func (b *FileBuilder) link(height int, p vertex.Part, data int64) error {
	if height == len(b.levels) {
		b.levels = append(b.levels, fileLevel{File: vertex.File{Height: height}})
	}
	l := &b.levels[height]
	b.keep(p.ID)
	l.Parts = append(l.Parts, p)
	l.ids = append(l.ids, p.ID)
	l.Size += p.Len
	l.Data += data
	if !vertex.EndsNode(len(l.ids), p.ID) {
		return nil
	}
	return b.end(height)
}

// end stores the node being filled and links it from the one above. Its own
// links are counted as references now, so their pins can go.
func (b *FileBuilder) end(height int) error {
	l := &b.levels[height]
	release := b.s.pending.Hold()
	defer release()
	id, err := b.put(l.Encode())
	if err != nil {
		return err
	}
	p, data := vertex.Part{ID: id, Len: l.Size}, l.Data
	if err := b.link(height+1, p, data); err != nil {
		return err
	}
	l = &b.levels[height] // link may have moved it
	if b.pin != nil {
		b.pin.Drop(l.ids...)
	}
	*l = fileLevel{File: vertex.File{Height: height, Parts: l.Parts[:0]}, ids: l.ids[:0], ended: true}
	return nil
}

// Finish stores what is left and returns the root, which stays pinned until
// Close. A file that is one whole block is that block; an empty one is a vertex
// without parts.
func (b *FileBuilder) Finish() (FileRoot, error) {
	h := 0
	// All levels but the top have nodes already, so what is left in them needs one more.
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
	release := b.s.pending.Hold()
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
func (b *FileBuilder) whole(height int, p vertex.Part) (bool, error) {
	if height > 0 {
		return true, nil
	}
	e, err := b.s.index.Lookup(p.ID)
	return p.Skip == 0 && int64(e.Raw) == p.Len, err
}

// Close lets go of what the builder made. Whoever wants to keep the root has
// called Ref by now.
func (b *FileBuilder) Close() {
	if b.pin != nil {
		b.pin.Release()
	}
}
