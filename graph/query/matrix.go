package query

import (
	"context"
	"runtime/debug"
	"sync"
	"time"

	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/store"
)

// A matrixCache keeps the matrix of the store for as long as nothing changes, at
// most matrixIdle after its last use, and only one that is no larger than a
// third of the memory that the process may use.
type matrixCache struct {
	mu      sync.Mutex // held while a matrix is made: one at a time
	matrix  *graph.Matrix
	version uint64
	timer   *time.Timer
}

const matrixIdle = 2 * time.Minute

// withMatrix calls fn with the matrix of the store as it is now and with its
// rows. Meanwhile the sweep stands still.
func (q *Graph) withMatrix(ctx context.Context, fn func(*graph.Matrix, *store.View) error) error {
	if err := q.store.Commit(); err != nil { // what is written becomes blocks
		return err
	}
	defer q.store.PauseSweep()()
	// The sweep is paused before the rows are read: a block may not go between them and the answer.
	rows, m, err := q.makeMatrix(ctx)
	if err != nil {
		return err
	}
	defer rows.Close()
	return fn(m, rows)
}

func (q *Graph) makeMatrix(ctx context.Context) (*store.View, *graph.Matrix, error) {
	c := &q.matrix
	c.mu.Lock()
	defer c.mu.Unlock()
	// Before the view: a change between the two makes the cached one look old, never new.
	version := q.store.Version()
	rows, err := q.store.View()
	if err != nil {
		return nil, nil, err
	}
	if c.matrix == nil || c.version != version {
		c.matrix = nil // two would take twice the memory
		data, vertices := rows.Count()
		m, err := graph.NewMatrix(ctx, graph.Inputs{
			Source: q.store,
			Count:  data + vertices,
			Blocks: func(fn func(store.ID, store.Entry) error) error { return rows.Blocks(ctx, fn) },
			Names:  func(fn func(store.Name) error) error { return rows.Names(ctx, fn) },
			Files:  func(fn func(graph.Reference) error) error { return q.rows.References(ctx, rows, fn) },
		})
		if err != nil {
			rows.Close()
			return nil, nil, err
		}
		// Too large to be kept for two minutes after the answer; the next question makes it again.
		if m.Bytes() > debug.SetMemoryLimit(-1)/3 {
			return rows, m, nil
		}
		c.matrix, c.version = m, version
	}
	c.keep()
	return rows, c.matrix, nil
}

// keep puts off the time when the matrix is dropped. c.mu is held.
func (c *matrixCache) keep() {
	if c.timer != nil {
		c.timer.Stop()
	}
	c.timer = time.AfterFunc(matrixIdle, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.matrix = nil
	})
}

// A MatrixItem is the size of the matrix, or a row of it.
type MatrixItem struct {
	Size *MatrixSize `json:"size,omitempty"`
	Row  *MatrixRow  `json:"row,omitempty"`
}

// MatrixSize comes before the rows.
type MatrixSize struct {
	Rows    int64 `json:"rows"`
	Columns int64 `json:"columns"` // data blocks, in order of IDs
	Entries int64 `json:"entries"` // blocks in rows
	Memory  int64 `json:"memory_bytes"`
}

// A MatrixRow is a file of the live filesystem, an object or a snapshot with the
// data blocks in it. One with a great many blocks comes in parts.
type MatrixRow struct {
	Number int64         `json:"row"`
	Kind   string        `json:"kind"` // file, object or snapshot
	Name   string        `json:"name"` // path of a file: one of several
	Blocks []MatrixEntry `json:"blocks"`
}

// A MatrixEntry is a block in a row. Blocks of files are there once for each
// span, of others once.
type MatrixEntry struct {
	Column int64    `json:"column"`
	ID     store.ID `json:"id"`
	Times  int      `json:"times"`            // that the row refers to it; a directory that is there several times counts once
	Offset int64    `json:"offset,omitempty"` // in the file
	Bytes  int64    `json:"bytes,omitempty"`  // of the file
	Skip   int64    `json:"skip,omitempty"`
}

// maxRowPart is how many blocks of a row come at a time.
const maxRowPart = 2000

// Matrix implements remote.Graph.
func (q *Graph) Matrix(ctx context.Context, fn func(MatrixItem) error) error {
	return q.withMatrix(ctx, func(m *graph.Matrix, rows *store.View) error {
		w := matrixWriter{m: m, data: make([]uint32, m.Columns()), fn: fn}
		_, end := m.NameRows()
		if err := w.measure(end); err != nil {
			return err
		}
		// All paths at once: one by one each would be a walk up through the rows.
		inodes := make(map[uint64]bool)
		for r := range end {
			if row := m.Row(r); row.Kind == graph.FileRow {
				inodes[row.Ino] = true
			}
		}
		paths, err := q.rows.AllPaths(ctx, rows, inodes)
		if err != nil {
			return err
		}
		for r := range end {
			// A store has millions of rows, and who asked may have left.
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := w.row(r, paths); err != nil {
				return err
			}
		}
		return nil
	})
}

type matrixWriter struct {
	m    *graph.Matrix
	data []uint32 // number of each column among the data blocks
	fn   func(MatrixItem) error
}

func (w *matrixWriter) measure(rows int) error {
	size := MatrixSize{Rows: int64(rows), Memory: w.m.Bytes()}
	for c := range w.data {
		w.data[c] = uint32(size.Columns)
		if w.m.Block(c).Kind == store.KindData {
			size.Columns++
		}
	}
	for r := range rows {
		w.entries(r, func(MatrixEntry) { size.Entries++ })
	}
	return w.fn(MatrixItem{Size: &size})
}

// entries calls fn for the blocks of a row.
func (w *matrixWriter) entries(r int, fn func(MatrixEntry)) {
	// A file whose references are all to data blocks is told span by span; of one with vertices
	// below only sums are known.
	direct := w.m.Row(r).Kind == graph.FileRow
	w.m.EachInRow(r, func(u graph.Use) bool { direct = direct && u.Len > 0; return direct })
	if direct {
		w.m.EachInRow(r, func(u graph.Use) bool {
			fn(MatrixEntry{Column: int64(w.data[u.Col]), ID: w.m.Block(u.Col).ID, Times: 1, Offset: u.Off, Bytes: u.Len, Skip: int64(u.Skip)})
			return true
		})
		return
	}
	w.m.Data(r, func(col, times int) {
		fn(MatrixEntry{Column: int64(w.data[col]), ID: w.m.Block(col).ID, Times: times})
	})
}

func (w *matrixWriter) row(r int, paths map[uint64][]string) error {
	row := MatrixRow{Number: int64(r), Kind: "file"}
	switch who := w.m.Row(r); {
	case who.Kind == graph.FileRow:
		if at := paths[who.Ino]; len(at) > 0 {
			row.Name = at[0]
		}
	case who.Name.Snapshot:
		row.Kind, row.Name = "snapshot", who.Name.Name
	default:
		row.Kind, row.Name = "object", who.Name.Name
	}
	var failed error
	send := func() {
		if failed == nil {
			failed = w.fn(MatrixItem{Row: &row})
		}
		// Not cut to length 0: what was sent still has the array.
		row.Blocks = nil
	}
	w.entries(r, func(e MatrixEntry) {
		if row.Blocks = append(row.Blocks, e); len(row.Blocks) == maxRowPart {
			send()
		}
	})
	if len(row.Blocks) > 0 {
		send()
	}
	return failed
}
