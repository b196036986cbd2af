// Package query answers questions about a store as a graph: what has a block, what shares blocks,
// what is connected, what parts of it take, what differs. It reads; nothing in a store changes
// by it, but that what was written becomes blocks first.
package query

import (
	"context"
	"errors"

	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/graph/export"
	"github.com/quarxtor/quarxfs/store"
)

var (
	// ErrRequest says that a request makes no sense: a filter, range or name that
	// nothing can have.
	ErrRequest = errors.New("bad request")
	// ErrNoFiles says that a question is about files, of a store that is not mounted as such here.
	ErrNoFiles = errors.New("this node has no filesystem to list")
)

// A Graph is what questions are asked of. Its methods may be called concurrently; each sees the
// store at one instant, and the sweep removes nothing that it is looking at.
type Graph struct {
	store  *store.Store
	live   Live
	rows   Rows
	tree   LiveTree
	matrix matrixCache
}

// New returns the graph of an open store. Of the live filesystem it knows what live, rows and tree
// tell; each may be nil.
func New(st *store.Store, live Live, rows Rows, tree LiveTree) *Graph {
	if rows == nil {
		rows = noRows{}
	}
	return &Graph{store: st, live: live, rows: rows, tree: tree}
}

// Live is what a graph needs to know of the live filesystem. The volume's owner
// provides it.
type Live interface {
	export.Live
	// LiveFile finds the file at a path. store.ErrNotFound.
	LiveFile(ctx context.Context, path string) (export.LiveFile, error)
}

// Rows reads the rows of the live filesystem as they are in a view. The volume's
// owner provides it.
type Rows interface {
	// References calls fn for every reference to a block or vertex, inodes in
	// order, until fn fails.
	References(ctx context.Context, rows *store.View, fn func(graph.Reference) error) error
	// Names calls fn for every name in a directory until fn fails.
	Names(ctx context.Context, rows *store.View, fn func(Name) error) error
	// Contents calls fn for every regular file, and every directory whose names are
	// still in a snapshot's tree, until fn fails.
	Contents(ctx context.Context, rows *store.View, fn func(Content) error) error
	// AllPaths returns all paths of the inodes, from the root, without a leading
	// slash. One without a name is not in it.
	AllPaths(ctx context.Context, rows *store.View, inodes map[uint64]bool) (map[uint64][]string, error)
}

// A Name is an entry of a directory of the live filesystem.
type Name struct {
	Dir, Ino  uint64
	Directory bool // what it leads to is one
	Name      string
}

// Content is what an inode of the live filesystem holds: a regular file itself, or what
// is below a cloned directory that nobody has looked into.
type Content struct {
	Ino   uint64
	Files int64 // regular files
	Data  int64 // bytes of theirs that are not in holes
}

// LiveTree gives the live filesystem as it is now, as a snapshot. The volume's
// owner provides it.
type LiveTree interface {
	// LiveTree calls fn with it. Its vertices are there until fn returns.
	LiveTree(ctx context.Context, fn func(*graph.Snapshot) error) error
}

// noRows are the rows of a store without a filesystem.
type noRows struct{}

func (noRows) References(context.Context, *store.View, func(graph.Reference) error) error { return nil }
func (noRows) Names(context.Context, *store.View, func(Name) error) error                 { return nil }
func (noRows) Contents(context.Context, *store.View, func(Content) error) error           { return nil }
func (noRows) AllPaths(context.Context, *store.View, map[uint64]bool) (map[uint64][]string, error) {
	return nil, nil
}
