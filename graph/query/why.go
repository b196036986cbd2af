package query

import (
	"context"
	"fmt"

	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/store"
)

// Why is everything that holds the bytes of a block.
type Why struct {
	ID         store.ID           `json:"id"`
	Kind       string             `json:"kind"`
	Raw        int64              `json:"raw_bytes"`
	Stored     int64              `json:"stored_bytes"`
	References int                `json:"references"` // edges of files, objects and vertices
	Where      []graph.Occurrence `json:"where"`
}

// Why implements remote.Graph.
func (q *Graph) Why(ctx context.Context, block string) (why Why, err error) {
	err = q.withMatrix(ctx, func(m *graph.Matrix, rows *store.View) error {
		col, err := m.Resolve(block)
		if err != nil {
			return err
		}
		why, err = whyOf(ctx, m, col, q.climber(ctx, m, rows))
		return err
	})
	return why, err
}

func (q *Graph) climber(ctx context.Context, m *graph.Matrix, rows *store.View) *graph.Climber {
	return graph.NewClimber(m, q.store, func(inodes map[uint64]bool) (map[uint64][]string, error) {
		return q.rows.AllPaths(ctx, rows, inodes)
	})
}

func whyOf(ctx context.Context, m *graph.Matrix, col int, c *graph.Climber) (Why, error) {
	b := m.Block(col)
	where, err := c.Why(ctx, col)
	return Why{ID: b.ID, Kind: b.Kind.String(), Raw: b.Raw, Stored: b.Stored, References: m.References(col), Where: where}, err
}

// A WhyItem is how many blocks something has, or what holds one of them.
type WhyItem struct {
	Blocks *int64 `json:"blocks,omitempty"` // distinct data blocks; comes first
	Why    *Why   `json:"why,omitempty"`
}

// WhyAll implements remote.Graph.
func (q *Graph) WhyAll(ctx context.Context, ref string, limit int64, fn func(WhyItem) error) error {
	if limit < 0 {
		return fmt.Errorf("%w: limit %d", ErrRequest, limit)
	}
	defer q.store.PauseSweep()() // what ref has now is still there when the matrix is made
	blocks, err := q.dataBlocks(ctx, ref)
	if err != nil {
		return err
	}
	count := int64(len(blocks))
	if limit > 0 && limit < count {
		blocks = blocks[:limit]
	}
	return q.withMatrix(ctx, func(m *graph.Matrix, rows *store.View) error {
		if err := fn(WhyItem{Blocks: &count}); err != nil {
			return err
		}
		// One for all blocks of the file: they lie below the same directories.
		c := q.climber(ctx, m, rows)
		for _, id := range blocks {
			col, ok := m.Column(id)
			if !ok {
				continue // lost: only a reference to it is left
			}
			why, err := whyOf(ctx, m, col, c)
			if err == nil {
				err = fn(WhyItem{Why: &why})
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// dataBlocks returns the distinct data blocks of a file or object, in their order.
func (q *Graph) dataBlocks(ctx context.Context, ref string) ([]store.ID, error) {
	var blocks []store.ID
	seen := make(map[store.ID]bool)
	add := func(b *store.BlockInfo) {
		if b != nil && !seen[b.ID] {
			seen[b.ID] = true
			blocks = append(blocks, b.ID)
		}
	}
	err := q.Show(ctx, ref, func(it ShowItem) error {
		switch {
		case it.Subject != nil && it.Subject.Block != nil && it.Subject.Block.Kind == store.KindData.String():
			add(it.Subject.Block) // an object of one block
		case it.Part != nil && it.Part.Role == graph.Contains:
			add(it.Part.Block)
		}
		return nil
	})
	return blocks, err
}
