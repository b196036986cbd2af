package graph

import "context"

// DiffTrees calls fn for each name whose entry differs between two trees, in
// order of names; a or b is nil where the name is in one tree only. Subtrees
// with equal IDs are not read. A nil tree has no entries. An error of fn ends it
// and is returned, except store.ErrStop.
func DiffTrees(ctx context.Context, before, after *Tree, fn func(a, b *Entry) error) error {
	// Equal IDs are equal bytes, of everything below as well.
	if before != nil && after != nil && before.root == after.root {
		return nil
	}
	a, err := newCursor(ctx, before)
	if err != nil {
		return err
	}
	b, err := newCursor(ctx, after)
	if err != nil {
		return err
	}
	for a.height() != atEnd || b.height() != atEnd {
		if err := step(ctx, a, b, fn); err != nil {
			return unlessStop(err)
		}
	}
	return nil
}

// step skips what is the same, or opens a vertex, or compares two entries.
func step(ctx context.Context, a, b *cursor, fn func(a, b *Entry) error) error {
	// The highest common vertex first: the more it spans, the more is never read.
	for h := maxHeight; h >= 0; h-- {
		if id, ok := a.starts(h); ok {
			if other, ok := b.starts(h); ok && id == other {
				a.skip(h)
				b.skip(h)
				return nil
			}
		}
	}
	// The higher one first, so that both come to the heights where they can be
	// the same.
	switch ha, hb := a.height(), b.height(); {
	case ha >= 0 && ha >= hb:
		return a.open(ctx)
	case hb >= 0:
		return b.open(ctx)
	}
	x, y := a.entry(), b.entry()
	switch {
	case y == nil || x != nil && x.Name < y.Name:
		a.skip(-1)
		return fn(x, nil)
	case x == nil || y.Name < x.Name:
		b.skip(-1)
		return fn(nil, y)
	}
	a.skip(-1)
	b.skip(-1)
	// Neighbours that were cut otherwise have other vertices for the same entries.
	if x.Equal(y) {
		return nil
	}
	return fn(x, y)
}

// A cursor stands before an item of a tree: an entry, or a vertex that has not
// been read yet.
type cursor struct {
	t     *Tree
	stack []frame // from the root down
}

type frame struct {
	*node
	id ID
	i  int // of the item
}

func newCursor(ctx context.Context, t *Tree) (*cursor, error) {
	c := &cursor{t: t}
	if t == nil {
		return c, nil
	}
	n, err := t.top(ctx)
	if err != nil {
		return nil, err
	}
	c.stack = append(c.stack, frame{node: n, id: t.root})
	c.popFinished()
	return c, nil
}

const (
	atEntry = -1
	atEnd   = -2
)

// height returns the height of the vertex that the cursor is before.
func (c *cursor) height() int {
	if len(c.stack) == 0 {
		return atEnd
	}
	return c.stack[len(c.stack)-1].height - 1
}

// starts returns the vertex of a height whose first entry is the next, if it is
// known to be one.
func (c *cursor) starts(height int) (ID, bool) {
	for k := len(c.stack) - 1; k >= 0; k-- {
		f := &c.stack[k]
		if f.height-1 == height {
			return f.items[f.i].id, height >= 0
		}
		// Not at the first item of this vertex, and so not at the start of any above it.
		if f.i != 0 {
			break
		}
		if k == 0 && f.height == height {
			return f.id, true
		}
	}
	return ID{}, false
}

// skip goes behind the vertex of a height that the cursor is at the start of;
// behind the entry for -1.
func (c *cursor) skip(height int) {
	for len(c.stack) > 0 && c.stack[len(c.stack)-1].height <= height {
		c.stack = c.stack[:len(c.stack)-1]
	}
	if len(c.stack) > 0 {
		c.stack[len(c.stack)-1].i++
	}
	c.popFinished()
}

// popFinished leaves the vertices that have no more items.
func (c *cursor) popFinished() {
	for k := len(c.stack) - 1; k >= 0 && c.stack[k].i == len(c.stack[k].items); k-- {
		c.stack = c.stack[:k]
		// A vertex is done with, so its parent goes on behind it.
		if k > 0 {
			c.stack[k-1].i++
		}
	}
}

// open reads the vertex that the cursor is before.
func (c *cursor) open(ctx context.Context) error {
	f := &c.stack[len(c.stack)-1]
	n, err := c.t.child(ctx, f.node, f.i)
	if err != nil {
		return err
	}
	c.stack = append(c.stack, frame{node: n, id: f.items[f.i].id})
	return nil
}

func (c *cursor) entry() *Entry {
	if len(c.stack) == 0 {
		return nil
	}
	f := &c.stack[len(c.stack)-1]
	return f.items[f.i].entry
}
