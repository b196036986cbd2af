package graph

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/cespare/xxhash/v2"

	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/vertex"
)

// A Form says what the keys of a tree are.
type Form uint8

// The forms of trees.
const (
	Directory Form = 0 // names; entries
	LinkTable Form = 1 // TableKey of identities; what the entries of files with several names share
)

func (f Form) String() string {
	if f == LinkTable {
		return "link table"
	}
	return "directory"
}

const (
	treeVersion = 1
	maxHeight   = 8
)

// A node is a vertex of a tree: at height 0 entries, above it children, in
// order of their keys.
type node struct {
	form   Form
	height int
	items  []item
}

// An item is an entry or a child.
type item struct {
	key     string // of an entry; of a child that of its last entry
	entry   *Entry // nil above height 0
	id      ID     // of the child
	entries int64  // below the child; 1 for an entry
}

func (n *node) last() string { return n.items[len(n.items)-1].key }

// entries counts those in and below the node.
func (n *node) entries() int64 {
	sum := int64(0)
	for i := range n.items {
		sum += n.items[i].entries
	}
	return sum
}

// encode makes the vertex; docs/format/vertex.md draws it.
func (n *node) encode() []byte {
	// Links stand before all else, so that the sweep finds them without knowing what a tree is.
	links := make([]ID, 0, len(n.items)+8)
	for i := range n.items {
		if e := n.items[i].entry; e != nil {
			links = e.links(links)
		} else {
			links = append(links, n.items[i].id)
		}
	}
	b := vertex.AppendLinks(make([]byte, 0, 8+len(links)*len(ID{})+64*len(n.items)), links)
	b = append(b, treeVersion, byte(n.form), byte(n.height))
	for i := range n.items {
		it := &n.items[i]
		b = appendText(b, it.key)
		if it.entry != nil {
			b = it.entry.appendBody(b)
		} else {
			b = binary.AppendUvarint(b, uint64(it.entries))
		}
	}
	return b
}

// decodeNode is the reverse of encode: it takes exactly what encode makes of a
// sound node. The error is store.ErrCorrupt.
func decodeNode(b []byte) (*node, error) {
	links, payload, err := vertex.Split(b)
	if err != nil {
		return nil, err
	}
	r := vertex.NewFields(payload)
	if r.Byte() != treeVersion {
		return nil, corrupt("tree vertex", "unknown version")
	}
	n := &node{form: Form(r.Byte()), height: int(r.Byte())}
	if r.Bad() || n.form > LinkTable || n.height > maxHeight {
		return nil, corrupt("tree vertex", "impossible form or height")
	}
	total := int64(0)
	for r.Left() > 0 {
		var it item
		var why string
		if it, links, why = n.readItem(r, links); why != "" {
			return nil, corrupt("tree vertex", why)
		}
		// Look-ups are binary searches, and equal trees must be equal bytes.
		if k := len(n.items); k > 0 && n.items[k-1].key >= it.key {
			return nil, corrupt("tree vertex", "keys that are not in order")
		}
		if total += it.entries; total < 0 {
			return nil, corrupt("tree vertex", "numbers that overflow")
		}
		n.items = append(n.items, it)
	}
	// A link without an item would keep blocks that nothing shows.
	if len(links) != 0 || n.height > 0 && len(n.items) == 0 {
		return nil, corrupt("tree vertex", "cut short")
	}
	return n, nil
}

func (n *node) readItem(r *vertex.Fields, links []ID) (it item, left []ID, why string) {
	it.key = readText(r, MaxName)
	if n.height > 0 {
		it.entries = int64(r.Uvarint(math.MaxInt64))
		switch {
		case r.Bad() || len(links) == 0:
			return it, nil, "cut short"
		case it.entries == 0:
			return it, nil, "a child without entries"
		}
		// Links stand apart from the items, in the same order: each child takes the next one.
		it.id = links[0]
		return it, links[1:], n.form.check(it.key)
	}
	it.entry, it.entries = &Entry{Name: it.key}, 1
	if left, why = it.entry.readBody(r, links); why != "" {
		return it, nil, why
	}
	return it, left, n.form.checkEntry(it.entry)
}

// check reports why a tree of the form cannot have the key.
func (f Form) check(key string) (why string) {
	if f == Directory {
		return validName(key)
	}
	if TableIdent(key) == 0 {
		return "a key that is no identity"
	}
	return ""
}

// checkEntry reports why a tree of the form cannot have the entry.
func (f Form) checkEntry(e *Entry) (why string) {
	if why := f.check(e.Name); why != "" {
		return why
	}
	if f == Directory && e.Nlink != 0 {
		return "a number of links in a directory"
	}
	if f == LinkTable && (e.Nlink == 0 || e.Ident != 0 || e.IsDir()) {
		return "an impossible row in a link table"
	}
	return e.check()
}

// A node ends behind an item whose key says so, which about one in 64 does, so
// that a change of a directory changes the nodes around it and no others: all
// further ends stay where they were. Each height looks at six bits of its own
// of the key's hash. With the minimum that makes about 96 items a node. A node
// also ends when it has become long, so that a change makes few new bytes.
const (
	nodeMin   = 32
	nodeMax   = 512
	nodeBytes = 32 << 10
	nodeBits  = 6
)

// ends reports whether a node of so many items and bytes of payload and links
// ends behind the key.
func ends(height, items, bytes int, key string) bool {
	if items >= nodeMax || bytes >= nodeBytes {
		return true
	}
	return items >= nodeMin && xxhash.Sum64String(key)>>(nodeBits*height)&(1<<nodeBits-1) == 0
}

// size returns what an item adds to a node, in bytes.
func (it *item) size(scratch []byte) (int, []byte) {
	n := uvarintLen(uint64(len(it.key))) + len(it.key)
	if it.entry == nil {
		return n + len(ID{}) + uvarintLen(uint64(it.entries)), scratch
	}
	scratch = it.entry.appendBody(scratch[:0])
	n += len(scratch)
	for _, l := range [...]Link{it.entry.Link, it.entry.XattrLink} {
		if l.Kind != 0 {
			n += len(ID{})
		}
	}
	return n, scratch
}

func badEntry(form Form, e *Entry, why string) error {
	return fmt.Errorf("entry %q for a %s: %s: %w", e.Name, form, why, store.ErrConfig)
}
