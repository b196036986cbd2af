package graph

import (
	"context"
	"errors"
	"fmt"
	"path"

	"github.com/quarxtor/quarxfs/store"
)

// A Held is a place in a snapshot that has a block in it: a span of a file or
// of its extended attributes, or a directory.
type Held struct {
	Path   string // in the snapshot; "" is its root
	Offset int64  // in the file
	Bytes  int64
	Block  ID
}

// Holding finds chosen blocks in snapshots, reading each vertex that none is
// below but once. The zero value but for its fields is ready for use.
type Holding struct {
	Source Blocks
	Chosen func(ID) bool // it may become false for a block, and not true again

	free map[ID]bool // blocks with none below
}

// Snapshot calls fn for the places in a snapshot until fn fails. What cannot be
// read is passed over, as nothing tells what was below.
func (h *Holding) Snapshot(ctx context.Context, snapshot ID, fn func(Held) error) error {
	if h.free == nil {
		h.free = make(map[ID]bool)
	}
	w := holdingWalk{Holding: h, ctx: ctx, fn: fn, snapshot: snapshot}
	_, err := w.block(snapshot, Held{})
	return err
}

type holdingWalk struct {
	*Holding
	ctx      context.Context
	fn       func(Held) error
	snapshot ID
	links    map[uint64][]string // paths of files with several names; nil: not looked for yet
}

// block walks down from a block at a place, and reports whether any is chosen.
func (w *holdingWalk) block(id ID, at Held) (found bool, err error) {
	if w.Chosen(id) {
		found = true
		hit := at
		hit.Block = id
		if hit.Path == linkTable {
			hit.Path = ""
		}
		if err := w.fn(hit); err != nil {
			return true, err
		}
	}
	// It has been gone through at another place, and nothing chosen is below it.
	if w.free[id] {
		return found, nil
	}
	e, err := w.Source.Lookup(id)
	if errors.Is(err, store.ErrNotFound) || err == nil && e.Kind == store.KindData {
		return found, nil
	}
	if err != nil {
		return found, err
	}
	plain, err := w.Source.Get(w.ctx, id)
	if err != nil {
		// What cannot be read holds nothing that could be shown; only the end of the context ends
		// the walk.
		return found, w.ctx.Err()
	}
	edges, err := Edges(id, e.Kind, plain)
	if err != nil {
		return found, nil
	}
	for _, edge := range edges {
		below, err := w.edge(edge, at)
		if err != nil {
			return true, err
		}
		found = found || below
	}
	// Only what has nothing is remembered: what has something is shown at each of its places.
	if !found {
		w.free[id] = true
	}
	return found, nil
}

func (w *holdingWalk) edge(e Edge, at Held) (found bool, err error) {
	switch e.Role {
	case Contains:
		// Offsets in an edge count from the start of its vertex, which itself is at an offset.
		return w.block(e.To, Held{Path: at.Path, Offset: at.Offset + e.Offset, Bytes: e.Bytes})
	case Content, Xattrs:
		var ident uint64
		if n, _ := fmt.Sscanf(e.Name, "#%d", &ident); at.Path != linkTable || n != 1 {
			return w.block(e.To, Held{Path: path.Join(at.Path, e.Name), Bytes: e.Bytes})
		}
		// The paths of files with several names take a walk through all of the snapshot, so it is
		// made only if there is something to show.
		if found, err = w.below(e.To); err != nil || !found {
			return found, err
		}
		paths, err := w.linkPaths(ident)
		for _, p := range paths {
			if err == nil {
				_, err = w.block(e.To, Held{Path: p, Bytes: e.Bytes})
			}
		}
		return true, err
	case TableOf:
		return w.block(e.To, Held{Path: linkTable})
	}
	return w.block(e.To, Held{Path: at.Path})
}

// linkTable is no path that anything has.
const linkTable = "\x00"

// below reports whether a chosen block is in or below a block.
func (w *holdingWalk) below(id ID) (bool, error) {
	// A copy, so that fn is not called; free is shared, and what is learnt stays.
	quiet := *w
	quiet.fn = func(Held) error { return nil }
	return quiet.block(id, Held{})
}

// linkPaths returns the paths of a file with several names.
func (w *holdingWalk) linkPaths(ident uint64) ([]string, error) {
	if w.links == nil {
		w.links = make(map[uint64][]string)
		plain, err := w.Source.Get(w.ctx, w.snapshot)
		if err != nil {
			return nil, w.ctx.Err()
		}
		s, err := DecodeSnapshot(plain)
		if err != nil {
			// A snapshot that cannot be read names nothing.
			return nil, nil
		}
		err = WalkTree(w.ctx, w.Source, &s.Root, "", func(p string, e *Entry) error {
			if e.Ident != 0 {
				w.links[e.Ident] = append(w.links[e.Ident], p)
			}
			return nil
		})
		if err != nil && w.ctx.Err() != nil {
			return nil, w.ctx.Err()
		}
	}
	return w.links[ident], nil
}
