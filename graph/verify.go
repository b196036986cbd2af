package graph

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/vertex"
)

// MaxDepth is how many directories may be one in the other in what comes from another store. What
// is made here has no such bound; but a walk of a tree costs at least the square of its depth, as
// its paths are that long, and a sender is not to choose that.
const MaxDepth = 4096

// A Verifier compares vertices that come from elsewhere with what they link to: a vertex says of
// what is below it how long it is, how high, and how much is in it, and readers believe one or the
// other. What is in the store already was compared when it came, or was made here, so that of a
// link only the vertex itself is looked at, and of a directory all its own vertices; never what is
// below them. It remembers what it found. It is safe for concurrent use.
type Verifier struct {
	blocks Blocks

	mu sync.Mutex
	// Two generations: a full map is the old one from then on, and what is asked for of that moves
	// to the new one. What is used stays without a list in order of use.
	claims, older map[ID]claim
}

// maxClaims bounds a generation: some 300 bytes each.
const maxClaims = 1 << 15

// A claim is what a file or tree vertex is, as those above it have to say.
type claim struct {
	kind          store.Kind
	height        int
	size, data    int64 // of a file vertex
	form          Form  // of a tree vertex, with what follows
	entries, dirs int64
	below         Sums
	first, last   string
	depth         int64 // so many directories at most are one in the other; above MaxDepth nobody counts
	exact         bool  // there are so many
}

// A contradiction says what is wrong with a vertex, and that nothing is with the store.
type contradiction struct{ why string }

func (c *contradiction) Error() string { return c.why }

func contradicts(format string, args ...any) error {
	return &contradiction{fmt.Sprintf(format, args...)}
}

// NewVerifier returns one for vertices whose links are all among blocks.
func NewVerifier(blocks Blocks) *Verifier {
	return &Verifier{blocks: blocks, claims: make(map[ID]claim)}
}

// Vertex says how a vertex that is sound by itself, as Links finds, contradicts what it links to;
// "": it does not. An error is one of reading that.
func (v *Verifier) Vertex(ctx context.Context, id ID, kind store.Kind, plain []byte) (why string, err error) {
	switch kind {
	case store.KindSnapshot:
		err = v.snapshot(ctx, plain)
	case store.KindFile:
		err = v.file(ctx, id, plain)
	case store.KindTree:
		err = v.tree(ctx, id, plain)
	}
	var c *contradiction
	if errors.As(err, &c) {
		return err.Error(), nil
	}
	return "", err
}

func (v *Verifier) snapshot(ctx context.Context, plain []byte) error {
	s, err := DecodeSnapshot(plain)
	if err != nil {
		return err
	}
	c, err := v.claimOf(ctx, s.Root.Link.ID, store.KindTree)
	if err != nil {
		return err
	}
	root := s.Root
	// fsck --repair makes snapshots of directories that nothing leads to, and parts of them may
	// have been lost when they were counted: less is no contradiction here. Nothing is above a
	// root that would go on with its sums.
	if c.form == Directory && root.Subdirs <= c.dirs && root.Below.within(c.below) {
		root.Subdirs, root.Below = c.dirs, c.below
	}
	if err := v.entry(ctx, &root); err != nil {
		return err
	}
	if s.Table == (ID{}) {
		return nil
	}
	t, err := v.claimOf(ctx, s.Table, store.KindTree)
	if err == nil && t.form != LinkTable {
		err = contradicts("its link table is a %s", t.form)
	}
	return err
}

// within reports whether no sum is more than that of o.
func (s Sums) within(o Sums) bool {
	of := o.fields()
	for i, n := range s.fields() {
		if *n > *of[i] {
			return false
		}
	}
	return true
}

func (v *Verifier) file(ctx context.Context, id ID, plain []byte) error {
	f, err := vertex.DecodeFile(plain)
	if err != nil {
		return err
	}
	data := int64(0)
	for _, p := range f.Parts {
		switch {
		case p.Hole:
		case f.Height == 0:
			e, err := v.blocks.Lookup(p.ID)
			if err != nil {
				return err
			}
			// The row of a lost block does not know its length.
			if !e.Lost() && int64(p.Skip)+p.Len > int64(e.Raw) {
				return contradicts("it uses more of block %s than there is", p.ID.Short())
			}
			data += p.Len
		default:
			c, err := v.claimOf(ctx, p.ID, store.KindFile)
			if err != nil {
				return err
			}
			if c.height != f.Height-1 || c.size != p.Len {
				return contradicts("its part %s is not what it says", p.ID.Short())
			}
			data += c.data
		}
	}
	if data != f.Data {
		return contradicts("its parts do not add up to its %d bytes of data", f.Data)
	}
	v.remember(id, fileClaim(&f))
	return nil
}

func (v *Verifier) tree(ctx context.Context, id ID, plain []byte) error {
	n, err := decodeNode(plain)
	if err != nil {
		return err
	}
	for i := range n.items {
		if e := n.items[i].entry; e != nil {
			if err := v.entry(ctx, e); err != nil {
				return fmt.Errorf("entry %q: %w", n.form.Label(e.Name), err)
			}
		}
	}
	// After the entries: what a claim is made of them has their sums.
	c, err := v.treeClaim(ctx, n)
	if err == nil {
		v.remember(id, c)
	}
	return err
}

// entry checks what an entry says of its content.
func (v *Verifier) entry(ctx context.Context, e *Entry) error {
	switch e.Link.Kind {
	case store.KindData:
		b, err := v.blocks.Lookup(e.Link.ID)
		if err != nil {
			return err
		}
		if !b.Lost() && (e.Size != int64(b.Raw) || e.Data != e.Size) {
			return contradicts("a file of %d bytes whose only block has %d", e.Size, b.Raw)
		}
	case store.KindFile:
		c, err := v.claimOf(ctx, e.Link.ID, store.KindFile)
		if err != nil {
			return err
		}
		if e.Size != c.size || e.Data != c.data {
			return contradicts("a file of %d bytes whose content has %d", e.Size, c.size)
		}
	case store.KindTree:
		c, err := v.claimOf(ctx, e.Link.ID, store.KindTree)
		if err != nil {
			return err
		}
		if c.form != Directory || e.Entries != c.entries || e.Subdirs != c.dirs || e.Below != c.below {
			return contradicts("a directory of %d entries that is not what it says", e.Entries)
		}
		// Many directories that are not one in the other look the same from above.
		if c.depth >= MaxDepth && !c.exact {
			if c.depth, err = v.measure(ctx, e.Link.ID, MaxDepth); err != nil {
				return err
			}
		}
		if c.depth >= MaxDepth {
			return contradicts("directories more than %d deep", MaxDepth)
		}
	}
	return nil
}

// claimOf returns what a vertex of the store is, which is read if it is not remembered.
func (v *Verifier) claimOf(ctx context.Context, id ID, kind store.Kind) (claim, error) {
	if c, ok := v.remembered(id); ok && c.kind == kind {
		return c, nil
	}
	if err := ctx.Err(); err != nil {
		return claim{}, err
	}
	plain, err := v.blocks.Get(ctx, id)
	if err != nil {
		return claim{}, err
	}
	var c claim
	if kind == store.KindFile {
		var f vertex.File
		f, err = vertex.DecodeFile(plain)
		c = fileClaim(&f)
	} else {
		var n *node
		if n, err = decodeNode(plain); err == nil {
			c, err = v.treeClaim(ctx, n)
		}
	}
	if err == nil {
		v.remember(id, c)
	}
	return c, err
}

func fileClaim(f *vertex.File) claim {
	return claim{kind: store.KindFile, height: f.Height, size: f.Size, data: f.Data}
}

// treeClaim adds up a vertex of a tree, by what its entries say and by the vertices of the tree
// below it.
func (v *Verifier) treeClaim(ctx context.Context, n *node) (c claim, err error) {
	c = claim{kind: store.KindTree, form: n.form, height: n.height, exact: true}
	for i := range n.items {
		it := &n.items[i]
		var part claim
		if it.entry != nil {
			part = v.entryClaim(it.entry)
		} else {
			if part, err = v.claimOf(ctx, it.id, store.KindTree); err != nil {
				return c, err
			}
			if part.form != n.form || part.height != n.height-1 || part.entries != it.entries || part.last != it.key ||
				i > 0 && part.first <= n.items[i-1].key {
				return c, contradicts("its part %s is not what it says", it.id.Short())
			}
		}
		if i == 0 {
			c.first = part.first
		}
		c.entries, c.dirs, c.last = c.entries+part.entries, c.dirs+part.dirs, it.key
		c.depth, c.exact = max(c.depth, part.depth), c.exact && part.exact
		c.below.Add(part.below, 1)
		// Two that are not negative make a negative number when they overflow.
		for _, sum := range c.below.fields() {
			if *sum < 0 {
				return c, contradicts("more is below it than can be")
			}
		}
	}
	return c, nil
}

// entryClaim is what an entry adds to the vertex that has it.
func (v *Verifier) entryClaim(e *Entry) claim {
	c := claim{entries: 1, first: e.Name, below: e.Sum(), exact: true}
	if !e.IsDir() {
		return c
	}
	c.dirs = 1
	if below, ok := v.remembered(e.Link.ID); ok && below.exact {
		c.depth = min(MaxDepth, below.depth) + 1
	} else {
		// As if all that are below it were one in the other.
		c.depth, c.exact = min(MaxDepth, e.Below.Dirs)+1, e.Below.Dirs == 0
	}
	return c
}

// measure finds how many directories below one are one in the other, up to most. Most are not
// looked into: one with few below it cannot have more in a row.
func (v *Verifier) measure(ctx context.Context, dir ID, most int64) (depth int64, err error) {
	c, err := v.claimOf(ctx, dir, store.KindTree)
	if err != nil || c.exact {
		return c.depth, err
	}
	if most == 0 {
		return MaxDepth, nil
	}
	err = OpenTree(v.blocks, dir, Directory).Each(ctx, "", func(e *Entry) error {
		if !e.IsDir() || e.Below.Dirs+1 <= depth {
			return nil
		}
		below, err := v.measure(ctx, e.Link.ID, most-1)
		if depth = max(depth, min(MaxDepth, below)+1); err == nil && depth >= MaxDepth {
			err = store.ErrStop
		}
		return err
	})
	if err != nil {
		return depth, err
	}
	// Remembered, so that those above need not look here again.
	if c.depth, c.exact = depth, depth < MaxDepth; c.exact {
		v.remember(dir, c)
	}
	return depth, nil
}

func (v *Verifier) remembered(id ID) (claim, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	c, ok := v.claims[id]
	if !ok {
		if c, ok = v.older[id]; ok {
			v.put(id, c)
		}
	}
	return c, ok
}

func (v *Verifier) remember(id ID, c claim) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.put(id, c)
}

// put needs mu.
func (v *Verifier) put(id ID, c claim) {
	if len(v.claims) >= maxClaims {
		v.claims, v.older = make(map[ID]claim), v.claims
	}
	v.claims[id] = c
}
