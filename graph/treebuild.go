package graph

import (
	"context"
	"fmt"

	"github.com/quarxtor/quarxfs/store"
)

// A level cuts a sequence of items into nodes of one height.
type level struct {
	sink    Sink
	node    node // being filled
	bytes   int  // of its items
	ended   int  // nodes before it
	scratch []byte
}

// add appends an item and reports whether the node ends behind it.
func (l *level) add(it item) bool {
	var n int
	n, l.scratch = it.size(l.scratch)
	l.bytes += n
	l.node.items = append(l.node.items, it)
	return ends(l.node.height, len(l.node.items), l.bytes, it.key)
}

// end stores the node being filled and returns the item that stands for it one
// level up.
func (l *level) end() (item, error) {
	id, err := l.sink.Put(store.KindTree, l.node.encode())
	if err != nil {
		return item{}, fmt.Errorf("store a part of a %s: %w", l.node.form, err)
	}
	it := item{id: id, entries: l.node.entries()}
	if len(l.node.items) > 0 {
		it.key = l.node.last()
	}
	// The items are used again; cleared, so that entries of the node before do not stay in memory.
	clear(l.node.items)
	l.node.items, l.bytes = l.node.items[:0], 0
	l.ended++
	return it, nil
}

// A TreeRoot is what stands for a whole tree.
type TreeRoot struct {
	ID      ID
	Entries int64
}

// A TreeBuilder makes a tree from its entries in memory that is bounded by its
// height. What it puts is kept by whoever gives the Sink.
type TreeBuilder struct {
	sink   Sink
	form   Form
	levels []level
	last   string
}

// NewTreeBuilder returns a builder of one tree.
func NewTreeBuilder(sink Sink, form Form) *TreeBuilder {
	return &TreeBuilder{sink: sink, form: form}
}

// Add appends an entry; names ascend. Errors: store.ErrConfig for an entry that
// no tree can have, those of the Sink.
func (b *TreeBuilder) Add(e *Entry) error {
	why := b.form.checkEntry(e)
	if why == "" && e.Name <= b.last {
		why = "it is not behind the one before"
	}
	if why != "" {
		return badEntry(b.form, e, why)
	}
	b.last = e.Name
	return b.add(0, item{key: e.Name, entry: e, entries: 1})
}

func (b *TreeBuilder) add(height int, it item) error {
	l, err := b.level(height)
	if err != nil {
		return err
	}
	if !l.add(it) {
		return nil
	}
	up, err := l.end()
	if err != nil {
		return err
	}
	// Seldom deep: a node ends at each height with one chance in 64 only.
	return b.add(height+1, up)
}

func (b *TreeBuilder) level(height int) (*level, error) {
	if height > maxHeight {
		return nil, fmt.Errorf("a %s higher than %d: %w", b.form, maxHeight, store.ErrConfig)
	}
	for height >= len(b.levels) {
		b.levels = append(b.levels, level{sink: b.sink, node: node{form: b.form, height: len(b.levels)}})
	}
	return &b.levels[height], nil
}

// Finish stores what is left and returns the root. A tree without entries is
// one vertex without entries.
func (b *TreeBuilder) Finish() (TreeRoot, error) { return b.finish(0) }

// finish does so from a height on, below which nothing is left.
func (b *TreeBuilder) finish(height int) (TreeRoot, error) {
	l, err := b.level(height)
	if err != nil {
		return TreeRoot{}, err
	}
	// No node of this level has ended, so that what is left here is all of the tree.
	if l.ended == 0 {
		// One child needs no vertex above it: trees are as low as they can be.
		if it := l.node.items; height > 0 && len(it) == 1 {
			return TreeRoot{it[0].id, it[0].entries}, nil
		}
		it, err := l.end()
		return TreeRoot{it.id, it.entries}, err
	}
	if len(l.node.items) > 0 {
		it, err := l.end()
		if err == nil {
			err = b.add(height+1, it)
		}
		if err != nil {
			return TreeRoot{}, err
		}
	}
	return b.finish(height + 1)
}

// A Change gives a name another entry, or removes it when Entry is nil.
type Change struct {
	Name  string
	Entry *Entry
}

// Apply returns the root of the tree with changes made, which are sorted by
// name, each name once; it is the same tree as one built anew. It reads and
// stores the vertices around each change and above it, and no others. To remove
// what is not there is no error. Changes stay in memory: apply a great many in
// turns. Errors: store.ErrConfig for changes that cannot be, those of the Source
// and the Sink.
func (t *Tree) Apply(ctx context.Context, sink Sink, changes []Change) (TreeRoot, error) {
	edits := make([]edit, len(changes))
	for i, c := range changes {
		// merge goes through items and edits side by side, so one that is out of order would be
		// lost.
		if i > 0 && c.Name <= changes[i-1].Name {
			return TreeRoot{}, fmt.Errorf("changes of %q and %q are not in order: %w", changes[i-1].Name, c.Name, store.ErrConfig)
		}
		edits[i] = edit{key: c.Name}
		if e := c.Entry; e != nil {
			why := t.form.checkEntry(e)
			if why == "" && e.Name != c.Name {
				why = "it has another name than the change"
			}
			if why != "" {
				return TreeRoot{}, badEntry(t.form, e, why)
			}
			edits[i].item = &item{key: e.Name, entry: e, entries: 1}
		}
	}
	root, err := t.top(ctx)
	if err != nil {
		return TreeRoot{}, err
	}
	if len(edits) == 0 {
		// applyLevel begins at its first edit, so it needs one.
		return TreeRoot{t.root, root.entries()}, nil
	}
	// Level by level: the nodes that a level loses and gets are the edits of the next one.
	for h := 0; h <= root.height; h++ {
		if edits, err = t.applyLevel(ctx, sink, h, edits); err != nil {
			return TreeRoot{}, err
		}
	}
	return t.crown(ctx, sink, root.height, edits)
}

// An edit replaces or removes (nil) the item with a key on one level.
type edit struct {
	key  string
	item *item
}

// applyLevel makes edits on one level and returns those that follow on the next.
// From the node with the first edit on it cuts the items into nodes again, until
// an end falls on an old one: from there all is as it was up to the next edit.
func (t *Tree) applyLevel(ctx context.Context, sink Sink, height int, edits []edit) ([]edit, error) {
	l := level{sink: sink, node: node{form: t.form, height: height}}
	var gone, made []edit
	add := func(it item) error {
		if !l.add(it) {
			return nil
		}
		up, err := l.end()
		made = append(made, edit{up.key, &up})
		return err
	}
	// What is before the first edit's node keeps its shape: ends depend on what is behind the last
	// end alone.
	key := edits[0].key
	for len(edits) > 0 || len(l.node.items) > 0 {
		old, rightmost, err := t.nodeAt(ctx, height, key)
		if err != nil {
			return nil, err
		}
		end := len(edits)
		if len(old.items) > 0 {
			// The level above knows a node by its last key.
			gone = append(gone, edit{key: old.last()})
			key = old.last() + "\x00"
			// Behind the last node there is none to take what sorts higher, so it takes all that is
			// left.
			if !rightmost {
				end = before(edits, key)
			}
		}
		if err := merge(old.items, edits[:end], add); err != nil {
			return nil, err
		}
		edits = edits[end:]
		// An end fell on an old one: go on at the next edit's node. Else the node that follows is
		// cut again, too.
		if len(l.node.items) == 0 && len(edits) > 0 {
			key = edits[0].key
		}
		// The last node ends without a hash that says so.
		if rightmost && len(l.node.items) > 0 {
			up, err := l.end()
			if err != nil {
				return nil, err
			}
			made = append(made, edit{up.key, &up})
		}
	}
	return join(gone, made), nil
}

// before returns how many edits have keys below key.
func before(edits []edit, key string) int {
	n := 0
	for n < len(edits) && edits[n].key < key {
		n++
	}
	return n
}

// merge calls add for the items of a node with edits made.
func merge(items []item, edits []edit, add func(item) error) error {
	for len(items) > 0 || len(edits) > 0 {
		if len(edits) == 0 || len(items) > 0 && items[0].key < edits[0].key {
			if err := add(items[0]); err != nil {
				return err
			}
			items = items[1:]
			continue
		}
		// The edit stands for the old item, whether it replaces or removes it.
		if len(items) > 0 && items[0].key == edits[0].key {
			items = items[1:]
		}
		if it := edits[0].item; it != nil {
			if err := add(*it); err != nil {
				return err
			}
		}
		edits = edits[1:]
	}
	return nil
}

// join makes one list of the nodes that are gone and those made; a node made
// with the key of one that is gone takes its place.
func join(gone, made []edit) []edit {
	out := make([]edit, 0, len(gone)+len(made))
	for len(gone) > 0 || len(made) > 0 {
		if len(made) == 0 || len(gone) > 0 && gone[0].key < made[0].key {
			out, gone = append(out, gone[0]), gone[1:]
			continue
		}
		// Removing and adding under one key is replacing.
		if len(gone) > 0 && gone[0].key == made[0].key {
			gone = gone[1:]
		}
		out, made = append(out, made[0]), made[1:]
	}
	return out
}

// nodeAt returns the node of a height in which a key is or would be, and
// whether none is behind it.
func (t *Tree) nodeAt(ctx context.Context, height int, key string) (*node, bool, error) {
	n, err := t.top(ctx)
	rightmost := true
	for err == nil && n.height > height {
		// A key behind all others belongs into the last node, as none follows.
		i := min(n.find(key), len(n.items)-1)
		rightmost = rightmost && i == len(n.items)-1
		n, err = t.child(ctx, n, i)
	}
	return n, rightmost, err
}

// crown makes the levels above the nodes that the old root has become.
func (t *Tree) crown(ctx context.Context, sink Sink, height int, edits []edit) (TreeRoot, error) {
	b := NewTreeBuilder(sink, t.form)
	var nodes []item
	for _, e := range edits {
		if e.item != nil {
			nodes = append(nodes, *e.item)
		}
	}
	switch len(nodes) {
	case 0:
		return b.Finish()
	case 1:
		// The tree may have become lower: the one node that is left may have a single child.
		return t.lower(ctx, nodes[0], height)
	}
	for _, it := range nodes {
		if err := b.add(height+1, it); err != nil {
			return TreeRoot{}, err
		}
	}
	return b.finish(height + 1)
}

// lower goes down from a node that is alone on its level for as long as it has
// only one child: a level of one node is the root.
func (t *Tree) lower(ctx context.Context, top item, height int) (TreeRoot, error) {
	for ; height > 0; height-- {
		n, err := t.load(ctx, top.id, &height)
		if err != nil {
			return TreeRoot{}, err
		}
		if len(n.items) > 1 {
			break
		}
		top = n.items[0]
	}
	return TreeRoot{top.id, top.entries}, nil
}
