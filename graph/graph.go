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
	"fmt"

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

// A Writer is a Sink that keeps what it has put from the sweep, until a vertex
// that it puts later links it or the Writer is closed. It is for one goroutine
// at a time.
type Writer struct {
	s   *store.Store
	pin *store.Pin
}

// NewWriter returns a Writer into s. The caller closes it, after Ref of what is
// to stay.
func NewWriter(s *store.Store) *Writer { return &Writer{s, s.NewPin()} }

// Put implements Sink. Errors: those of store.Put.
func (w *Writer) Put(kind store.Kind, plain []byte) (ID, error) {
	release := w.s.Hold()
	defer release()
	id, err := w.s.Put(kind, plain)
	if err != nil {
		return id, err
	}
	w.pin.Add(id)
	links, err := store.Links(plain)
	if err != nil {
		return id, fmt.Errorf("put %s vertex: %w", kind, err)
	}
	w.pin.Drop(links...) // the vertex counts as a reference to each now
	return id, nil
}

// Keep keeps blocks that were made elsewhere, such as files, until a vertex
// that is put later links each. The caller holds or pins them until it returns.
func (w *Writer) Keep(ids ...ID) { w.pin.Add(ids...) }

// Close lets go of all that nothing links.
func (w *Writer) Close() { w.pin.Release() }
