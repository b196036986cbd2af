package graph

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"sort"
	"syscall"

	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/vertex"
)

// memory is a Sink and Blocks. Like a store, it refuses a vertex that links to
// what is not there (I5); data is always there.
type memory struct {
	blocks map[ID][]byte
	kinds  map[ID]store.Kind
	reads  int
	puts   []int // sizes of new vertices
}

func newMemory() *memory {
	return &memory{blocks: make(map[ID][]byte), kinds: make(map[ID]store.Kind)}
}

func (m *memory) Put(kind store.Kind, plain []byte) (ID, error) {
	h := sha256.New()
	h.Write([]byte{byte(kind)})
	h.Write(plain)
	id := ID(h.Sum(nil))
	if _, ok := m.blocks[id]; ok {
		return id, nil
	}
	if kind != store.KindData {
		links, err := vertex.Links(plain)
		if err != nil {
			return id, err
		}
		for _, l := range links {
			if _, ok := m.blocks[l]; !ok && !isFake(l) {
				return id, fmt.Errorf("%s is not there: %w", l.Short(), store.ErrNotFound)
			}
		}
	}
	m.blocks[id], m.kinds[id] = append([]byte{}, plain...), kind
	m.puts = append(m.puts, len(plain))
	return id, nil
}

func (m *memory) Get(_ context.Context, id ID) ([]byte, error) {
	m.reads++
	b, ok := m.blocks[id]
	if !ok {
		return nil, store.ErrNotFound
	}
	return b, nil
}

func (m *memory) Lookup(id ID) (store.Entry, error) {
	if isFake(id) {
		return store.Entry{Kind: store.KindData, Raw: 1}, nil
	}
	b, ok := m.blocks[id]
	if !ok {
		return store.Entry{}, store.ErrNotFound
	}
	return store.Entry{Kind: m.kinds[id], Raw: uint32(len(b))}, nil
}

// fake is the ID of a data block that no test reads.
func fake(n uint64) ID {
	var id ID
	binary.BigEndian.PutUint64(id[24:], n)
	return id
}

func isFake(id ID) bool {
	for _, b := range id[:24] {
		if b != 0 {
			return false
		}
	}
	return true
}

// fileEntry is a file that is one block.
func fileEntry(name string, block uint64) *Entry {
	return &Entry{
		Name: name, Mode: syscall.S_IFREG | 0o644, UID: 1000, GID: 100, Size: 5, Data: 5,
		Atime: Time{1, 2}, Mtime: Time{-3, 4}, Ctime: Time{5, 6}, Btime: Time{7, 8},
		Link: Link{fake(block), store.KindData},
	}
}

// A tester is testing.T or rapid.T.
type tester interface {
	Helper()
	Fatal(args ...any)
}

// A dirModel is what a tree should hold.
type dirModel map[string]*Entry

func (d dirModel) names() []string {
	names := make([]string, 0, len(d))
	for name := range d {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

func (d dirModel) build(t tester, sink Sink, form Form) TreeRoot {
	t.Helper()
	b := NewTreeBuilder(sink, form)
	for _, name := range d.names() {
		if err := b.Add(d[name]); err != nil {
			t.Fatal(err)
		}
	}
	root, err := b.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return root
}
