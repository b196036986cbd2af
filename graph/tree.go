package graph

import (
	"context"
	"errors"
	"fmt"
	"sort"

	"github.com/quarxtor/quarxfs/store"
)

// A Tree is a sorted list of entries in vertices: a directory, or the link
// table of a snapshot. It is for one goroutine at a time and keeps the vertices
// on the way to the entry that it read last.
type Tree struct {
	src  Source
	root ID
	form Form
	path [maxHeight + 1]*held // by height
}

type held struct {
	id ID
	*node
}

// OpenTree returns the tree with a root. Nothing is read yet.
func OpenTree(src Source, root ID, form Form) *Tree { return &Tree{src: src, root: root, form: form} }

// Root returns the ID of the tree's root.
func (t *Tree) Root() ID { return t.root }

// load returns a vertex. Its height must be that of want, unless that is nil.
func (t *Tree) load(ctx context.Context, id ID, want *int) (*node, error) {
	// Here, as all walks come by: a block that is cached is had without a look at ctx, and a walk
	// of directories that double at each level has no other end.
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if want != nil {
		// The last vertex of each height is kept: neighbours are asked for one after the other.
		if h := t.path[*want]; h != nil && h.id == id {
			return h.node, nil
		}
	}
	b, err := t.src.Get(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("tree vertex %s: %w", id.Short(), err)
	}
	n, err := decodeNode(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", id, err)
	}
	// Keys of another form are sorted by another rule; a look-up would go astray.
	if n.form != t.form {
		return nil, fmt.Errorf("%s: %w", id, corrupt("tree vertex", "it is a "+n.form.String()))
	}
	// Heights fall by one a level, so a damaged tree cannot lead in a circle.
	if want != nil && n.height != *want {
		return nil, fmt.Errorf("%s: %w", id, corrupt("tree vertex", "it has another height than its place in the tree"))
	}
	t.path[n.height] = &held{id, n}
	return n, nil
}

// top returns the root.
func (t *Tree) top(ctx context.Context) (*node, error) {
	for _, h := range t.path {
		if h != nil && h.id == t.root {
			return h.node, nil
		}
	}
	return t.load(ctx, t.root, nil)
}

// child returns a child of n and checks that it is what n says. (No loops: each
// step down is one height less.)
func (t *Tree) child(ctx context.Context, n *node, i int) (*node, error) {
	height := n.height - 1
	c, err := t.load(ctx, n.items[i].id, &height)
	if err != nil {
		return nil, err
	}
	// Look-ups and counts trust the parent's keys and sums, so a child that contradicts them must
	// not be used.
	if len(c.items) == 0 || c.last() != n.items[i].key || c.entries() != n.items[i].entries ||
		i > 0 && c.items[0].key <= n.items[i-1].key {
		return nil, fmt.Errorf("%s: %w", n.items[i].id, corrupt("tree vertex", "it is not what its parent says"))
	}
	return c, nil
}

// find returns the index of the first item with a key of at least key.
func (n *node) find(key string) int {
	return sort.Search(len(n.items), func(i int) bool { return n.items[i].key >= key })
}

// Lookup returns the entry with a name. store.ErrNotFound: there is none.
func (t *Tree) Lookup(ctx context.Context, name string) (Entry, error) {
	e, _, err := t.Find(ctx, name)
	return e, err
}

// Find is Lookup, and returns the entry's index, too, as EachFrom takes it.
func (t *Tree) Find(ctx context.Context, name string) (e Entry, index int64, err error) {
	n, err := t.top(ctx)
	for err == nil {
		i := n.find(name)
		if i == len(n.items) || n.height == 0 && n.items[i].key != name {
			return Entry{}, 0, fmt.Errorf("%q in the %s: %w", name, t.form, store.ErrNotFound)
		}
		// The index of an entry is the number of those before it, on all heights.
		for _, before := range n.items[:i] {
			index += before.entries
		}
		if n.height == 0 {
			return *n.items[i].entry, index, nil
		}
		n, err = t.child(ctx, n, i)
	}
	return Entry{}, 0, err
}

// Len returns the number of entries.
func (t *Tree) Len(ctx context.Context) (int64, error) {
	n, err := t.top(ctx)
	if err != nil {
		return 0, err
	}
	return n.entries(), nil
}

// Each calls fn for the entries whose names are not before from, in order. An
// error of fn ends it and is returned, except store.ErrStop.
func (t *Tree) Each(ctx context.Context, from string, fn func(*Entry) error) error {
	n, err := t.top(ctx)
	if err == nil {
		err = t.each(ctx, n, n.find(from), from, fn)
	}
	return unlessStop(err)
}

func (t *Tree) each(ctx context.Context, n *node, i int, from string, fn func(*Entry) error) error {
	for ; i < len(n.items); i++ {
		if n.height == 0 {
			if err := fn(n.items[i].entry); err != nil {
				return err
			}
			continue
		}
		c, err := t.child(ctx, n, i)
		if err != nil {
			return err
		}
		if err := t.each(ctx, c, c.find(from), from, fn); err != nil {
			return err
		}
	}
	return nil
}

// EachFrom calls fn for the entries from the one with an index on, 0 being the
// first; otherwise as Each.
func (t *Tree) EachFrom(ctx context.Context, index int64, fn func(*Entry) error) error {
	n, err := t.top(ctx)
	for err == nil {
		i := 0
		// Whole subtrees before the index are passed over by their counts, unread.
		for ; i < len(n.items) && n.items[i].entries <= index; i++ {
			index -= n.items[i].entries
		}
		switch {
		case i == len(n.items):
			return nil
		case n.height == 0:
			return t.Each(ctx, n.items[i].key, fn)
		}
		n, err = t.child(ctx, n, i)
	}
	return err
}

func unlessStop(err error) error {
	if errors.Is(err, store.ErrStop) {
		return nil
	}
	return err
}
