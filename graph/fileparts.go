package graph

import (
	"context"
	"fmt"

	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/vertex"
)

// A Span is bytes of a file: of a block from Skip on, or a hole.
type Span struct {
	vertex.Part
	Off int64 // in the file
}

// End is the offset of the byte after the span.
func (s *Span) End() int64 { return s.Off + s.Len }

// FileSpans calls fn for the spans of a file's content, in order; they
// tile it. An error of fn ends it and is returned, except store.ErrStop.
func FileSpans(ctx context.Context, src Source, content Link, size int64, fn func(Span) error) error {
	return FileSpansFrom(ctx, src, content, size, 0, fn)
}

// FileSpansFrom is FileSpans from an offset on; the first span starts
// there. Vertices of what lies before it are not read.
func FileSpansFrom(ctx context.Context, src Source, content Link, size, from int64, fn func(Span) error) error {
	c := newFileCursor(src, content, size)
	for !c.done() {
		switch height := c.height(); {
		// It ends before from, at whatever height it is: its vertex is never read.
		case c.at+c.whole().Len <= from:
			c.skip(height)
			continue
		case height > 0:
			if err := c.open(ctx); err != nil {
				return err
			}
			continue
		// Only a block is left that reaches over from.
		case c.at < from:
			c.take(from - c.at)
		}
		if err := fn(c.part()); err != nil {
			return unlessStop(err)
		}
		c.skip(0)
	}
	return nil
}

// A Range is bytes of a file from Off on.
type Range struct {
	Off int64 `json:"offset"`
	Len int64 `json:"bytes"`
}

// An Exact narrows ranges down to the bytes that differ, by reading the blocks on
// both sides, until it has read Left bytes; from then on a block that is another
// one has changed as a whole. A nil one reads nothing.
type Exact struct{ Left int64 }

// nearBytes is the length of a run of equal bytes that does not end a range:
// what has moved is equal by chance here and there.
const nearBytes = 32

// differing calls differ with the ranges in which two spans of the same
// length at off are not the same bytes.
func (x *Exact) differing(ctx context.Context, src Source, off int64, a, b Span, n int64, differ func(off, n int64)) error {
	if x == nil || x.Left < 2*n {
		differ(off, n)
		return nil
	}
	// Both sides are read, and both count against the bound.
	x.Left -= 2 * n
	p, err := spanBytes(ctx, src, a, n)
	if err != nil {
		return err
	}
	q, err := spanBytes(ctx, src, b, n)
	if err != nil {
		return err
	}
	from, to := -1, -1 // of the range that has begun
	// A range stays open over short runs of equal bytes, so that a file of changed words is not a
	// million ranges.
	for i := range p {
		if p[i] == q[i] {
			continue
		}
		if from >= 0 && i-to > nearBytes {
			differ(off+int64(from), int64(to-from))
			from = -1
		}
		if from < 0 {
			from = i
		}
		to = i + 1
	}
	if from >= 0 {
		differ(off+int64(from), int64(to-from))
	}
	return nil
}

func spanBytes(ctx context.Context, src Source, s Span, n int64) ([]byte, error) {
	if s.Hole {
		return make([]byte, n), nil
	}
	b, err := src.Get(ctx, s.ID)
	if err != nil {
		return nil, fmt.Errorf("block %s: %w", s.ID.Short(), err)
	}
	// The file vertex comes from disk or from another store: it is not believed.
	if int64(s.Skip)+n > int64(len(b)) {
		return nil, fmt.Errorf("%s: %w", s.ID, corrupt("block", "it is shorter than a file says"))
	}
	return b[s.Skip:][:n], nil
}

// DiffFiles returns the ranges of a file's content that are not the same bytes
// at the same offset in its content before, as far as their blocks or exact tell:
// without that a block that is another one counts as changed. Vertices with equal IDs at the same
// offset are not read. What the file has lost at its end is in no range.
func DiffFiles(ctx context.Context, src Source, before Link, sizeBefore int64, after Link, sizeAfter int64, exact *Exact) ([]Range, error) {
	a, b := newFileCursor(src, before, sizeBefore), newFileCursor(src, after, sizeAfter)
	var ranges []Range
	differ := func(off, n int64) {
		if k := len(ranges) - 1; k >= 0 && ranges[k].Off+ranges[k].Len == off {
			ranges[k].Len += n
		} else {
			ranges = append(ranges, Range{off, n})
		}
	}
	for !b.done() {
		// The file has grown: all behind its old end is new.
		if a.done() {
			differ(b.at, sizeAfter-b.at)
			break
		}
		// The same vertex at the same offset: all below it is equal, and nothing of it is read.
		if h, ok := commonVertex(a, b); ok {
			a.skip(h)
			b.skip(h)
			continue
		}
		// Both sides are brought to the same height first, as vertices of unequal height cannot be
		// the same one.
		higher := a
		if b.height() > a.height() {
			higher = b
		}
		if higher.height() > 0 {
			if err := higher.open(ctx); err != nil {
				return nil, err
			}
			continue
		}
		// Two blocks or holes, from the same offset on, as far as the shorter one goes.
		x, y := a.part(), b.part()
		n := min(x.Len, y.Len)
		if x.Hole != y.Hole || !x.Hole && (x.ID != y.ID || x.Skip != y.Skip) {
			if err := exact.differing(ctx, src, b.at, x, y, n, differ); err != nil {
				return nil, err
			}
		}
		a.take(n)
		b.take(n)
	}
	return ranges, nil
}

// commonVertex returns the height of the highest vertex that both cursors are
// at the start of. Both are at the same offset all the time.
func commonVertex(a, b *fileCursor) (height int, ok bool) {
	for h := unread; h >= 1; h-- {
		if x, ok := a.starts(h); ok {
			if y, ok := b.starts(h); ok && x == y {
				return h, true
			}
		}
	}
	return 0, false
}

// A fileCursor stands before a part of a file. The height of a part is 0 for a
// block or hole, and h+1 for a vertex of height h.
type fileCursor struct {
	src   Source
	top   vertex.Part // all of the file
	vert  bool        // top is a vertex that has not been read
	stack []fileFrame
	at    int64 // in the file
	in    int64 // bytes taken of the part
}

type fileFrame struct {
	vertex.File
	id ID
	i  int // of the part
}

// unread is the height of a root that has not been read: above all.
const unread = maxHeight + 2

func newFileCursor(src Source, content Link, size int64) *fileCursor {
	return &fileCursor{src: src, top: vertex.Part{ID: content.ID, Len: size}, vert: content.Kind == store.KindFile}
}

func (c *fileCursor) done() bool { return c.at >= c.top.Len }

// height returns that of the part that the cursor is before.
func (c *fileCursor) height() int {
	switch {
	case c.done():
		return 0
	case len(c.stack) > 0:
		return c.stack[len(c.stack)-1].Height
	case c.vert:
		return unread
	}
	return 0
}

// whole returns the part that the cursor is before or in.
func (c *fileCursor) whole() vertex.Part {
	if len(c.stack) == 0 {
		return c.top
	}
	f := &c.stack[len(c.stack)-1]
	return f.Parts[f.i]
}

// part returns what is left of the block or hole.
func (c *fileCursor) part() Span {
	p := c.whole()
	p.Len -= c.in
	if !p.Hole {
		p.Skip += uint32(c.in)
	}
	return Span{p, c.at}
}

// starts returns the vertex, as a part of a height, at the start of which the
// cursor is, if it is known to be one.
func (c *fileCursor) starts(height int) (ID, bool) {
	// In the middle of a part nothing starts.
	if c.in != 0 || c.done() {
		return ID{}, false
	}
	// Nothing was read yet: the whole file is the only vertex that is known.
	if len(c.stack) == 0 {
		return c.top.ID, c.vert && height == unread
	}
	for k := len(c.stack) - 1; k >= 0; k-- {
		f := &c.stack[k]
		if f.Height == height {
			return f.Parts[f.i].ID, true
		}
		// Not at the first part of this vertex, and so not at the start of any above it.
		if f.i != 0 {
			break
		}
		if k == 0 && f.Height+1 == height {
			return f.id, true
		}
	}
	return ID{}, false
}

// open reads the vertex that the cursor is before.
func (c *fileCursor) open(ctx context.Context) error {
	p := c.whole()
	b, err := c.src.Get(ctx, p.ID)
	if err != nil {
		return fmt.Errorf("file vertex %s: %w", p.ID.Short(), err)
	}
	v, err := vertex.DecodeFile(b)
	if err != nil {
		return fmt.Errorf("%s: %w", p.ID, err)
	}
	// With a wrong size all offsets behind it would be wrong, and heights that do not fall may be a
	// circle.
	if v.Size != p.Len || len(c.stack) > 0 && v.Height != c.height()-1 {
		return fmt.Errorf("%s: %w", p.ID, corrupt("file vertex", "it is not what its parent says"))
	}
	c.vert = false
	c.stack = append(c.stack, fileFrame{File: v, id: p.ID})
	return nil
}

// take goes n bytes on in the block or hole, at most to its end.
func (c *fileCursor) take(n int64) {
	c.in += n
	c.at += n
	if c.in == c.whole().Len {
		c.next()
	}
}

// skip goes behind the part of a height that the cursor is at the start of.
func (c *fileCursor) skip(height int) {
	for len(c.stack) > 0 && c.stack[len(c.stack)-1].Height < height {
		c.stack = c.stack[:len(c.stack)-1]
	}
	// Of a part that was begun only the rest is skipped.
	c.at += c.whole().Len - c.in
	c.next()
}

func (c *fileCursor) next() {
	c.in = 0
	for k := len(c.stack) - 1; k >= 0; k-- {
		f := &c.stack[k]
		// The last part of a vertex ends the vertex, too, and so on upwards.
		if f.i++; f.i < len(f.Parts) {
			return
		}
		c.stack = c.stack[:k]
	}
}
