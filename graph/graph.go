// Package graph is the hash-graph above the store's blocks: what a directory
// and a snapshot are as vertices, how they are made, read, compared and walked,
// and which snapshots a policy keeps. docs/format/vertex.md draws the vertices.
//
// Functions take small interfaces of their own; *store.Store satisfies them. An
// error of a vertex that cannot be what its link says is store.ErrCorrupt.
package graph

import (
	"context"
	"errors"

	"github.com/quarxtor/quarxfs/store"
)

// ID names a block or vertex; see store.ID.
type ID = store.ID

// A Source gives the plain bytes of blocks, which are shared and must not be
// changed. Errors: store.ErrNotFound, store.ErrCorrupt; ErrGone where a vertex does not
// imply what it links to.
type Source interface {
	Get(ctx context.Context, id ID) ([]byte, error)
}

// ErrGone says that a block is not there any more, though something that was read
// earlier links to it: a snapshot elsewhere was removed while it was looked at.
var ErrGone = errors.New("the block is gone")

// A Sink stores a vertex unless it is there, and returns its ID. What the
// vertex links to has been stored before. (I5)
type Sink interface {
	Put(kind store.Kind, plain []byte) (ID, error)
}
