package volume

import (
	"maps"
	"slices"
	"sync"

	"github.com/quarxtor/quarxfs/fs/meta"
)

// A dirtySet has the nodes with something that is not where it is to stay. A node's mutex is held
// when it comes in or goes; nothing is taken under the set's own.
type dirtySet struct {
	sync.Mutex
	nodes    map[meta.Ino]*node // to be saved by the next commit: node.enqueued
	staged   map[meta.Ino]*node // with staged slots, which become blocks when they are quiet
	overlaid map[meta.Ino]*node // with overlay extents, to be coalesced
}

func (s *dirtySet) init() {
	for _, nodes := range []*map[meta.Ino]*node{&s.nodes, &s.staged, &s.overlaid} {
		*nodes = make(map[meta.Ino]*node)
	}
}

// add puts a node into one of the sets.
func (s *dirtySet) add(to map[meta.Ino]*node, n *node) {
	s.Lock()
	defer s.Unlock()
	to[n.ino] = n
}

// addUpTo is add unless the set has most nodes; it reports whether it did.
func (s *dirtySet) addUpTo(most int, to map[meta.Ino]*node, n *node) bool {
	s.Lock()
	defer s.Unlock()
	if len(to) >= most {
		return false
	}
	to[n.ino] = n
	return true
}

func (s *dirtySet) remove(from map[meta.Ino]*node, n *node) {
	s.Lock()
	defer s.Unlock()
	delete(from, n.ino)
}

// count returns how many nodes wait for a commit.
func (s *dirtySet) count() int {
	s.Lock()
	defer s.Unlock()
	return len(s.nodes)
}

// all returns the nodes of one of the sets as they are now: nodes come and go while they are gone
// through.
func (s *dirtySet) all(of map[meta.Ino]*node) []*node {
	s.Lock()
	defer s.Unlock()
	return slices.Collect(maps.Values(of))
}
