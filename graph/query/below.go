package query

import (
	"context"
	"errors"
	"fmt"

	"github.com/quarxtor/quarxfs/graph/export"
	"github.com/quarxtor/quarxfs/store"
)

// BlocksBelow returns the blocks of files, and of all in and below directories of the live
// filesystem, each once, those of one file together. store.ErrNotFound: a path leads nowhere.
func (q *Graph) BlocksBelow(ctx context.Context, paths []string) ([]store.ID, error) {
	if q.live == nil {
		return nil, ErrNoFiles
	}
	b := below{q: q, seen: make(map[store.ID]bool)}
	for _, path := range paths {
		f, err := q.live.LiveFile(ctx, path)
		if err == nil {
			err = b.file(ctx, f)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	return b.ids, nil
}

// below collects blocks: 64 bytes of memory for each.
type below struct {
	q    *Graph
	seen map[store.ID]bool
	ids  []store.ID
}

// file adds the blocks of a file, or of all below a directory; what has gone
// meanwhile has none.
func (b *below) file(ctx context.Context, f export.LiveFile) error {
	var inside []export.LiveFile
	err := b.q.live.LiveEdges(ctx, f, func(e export.LiveEdge) error {
		if e.File != nil {
			// Looked into only afterwards: else a scan of rows stays open for each level.
			inside = append(inside, *e.File)
			return nil
		}
		return gone(b.block(ctx, e.Block))
	})
	if gone(err) != nil {
		return err
	}
	for _, child := range inside {
		if err := b.file(ctx, child); err != nil {
			return err
		}
	}
	return nil
}

// block adds a block, or those below a vertex that a file or directory was
// cloned from; what is lost is counted by the plan of a move.
func (b *below) block(ctx context.Context, id store.ID) error {
	return b.q.store.EachBelow(ctx, id, func(id store.ID) bool {
		if b.seen[id] {
			return false
		}
		b.seen[id] = true
		b.ids = append(b.ids, id)
		return true
	})
}

// gone takes a missing block or file for none.
func gone(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}
