package remote

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"runtime/debug"
	"sync"
	"time"

	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/store"
)

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

// noRows are the rows of a node without a filesystem.
type noRows struct{}

func (noRows) References(context.Context, *store.View, func(graph.Reference) error) error { return nil }
func (noRows) Names(context.Context, *store.View, func(Name) error) error                 { return nil }
func (noRows) Contents(context.Context, *store.View, func(Content) error) error           { return nil }
func (noRows) AllPaths(context.Context, *store.View, map[uint64]bool) (map[uint64][]string, error) {
	return nil, nil
}

func (l *Local) rows() Rows {
	if l.env.Rows == nil {
		return noRows{}
	}
	return l.env.Rows
}

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
func (l *Local) withMatrix(ctx context.Context, fn func(*graph.Matrix, *store.View) error) error {
	if err := l.store.Commit(); err != nil { // what is written becomes blocks
		return err
	}
	defer l.store.KeepAll()()
	rows, m, err := l.makeMatrix(ctx)
	if err != nil {
		return err
	}
	defer rows.Close()
	return fn(m, rows)
}

func (l *Local) makeMatrix(ctx context.Context) (*store.View, *graph.Matrix, error) {
	c := &l.matrix
	c.mu.Lock()
	defer c.mu.Unlock()
	version := l.store.Version()
	rows, err := l.store.View()
	if err != nil {
		return nil, nil, err
	}
	if c.matrix == nil || c.version != version {
		c.matrix = nil // two would take twice the memory
		data, vertices := rows.Count()
		m, err := graph.NewMatrix(ctx, graph.Inputs{
			Source: l.store,
			Count:  data + vertices,
			Blocks: func(fn func(store.ID, store.Entry) error) error { return rows.Blocks(ctx, fn) },
			Names:  func(fn func(store.Name) error) error { return rows.Names(ctx, fn) },
			Files:  func(fn func(graph.Reference) error) error { return l.rows().References(ctx, rows, fn) },
		})
		if err != nil {
			rows.Close()
			return nil, nil, err
		}
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

// Why is everything that holds the bytes of a block.
type Why struct {
	ID         store.ID           `json:"id"`
	Kind       string             `json:"kind"`
	Raw        int64              `json:"raw_bytes"`
	Stored     int64              `json:"stored_bytes"`
	References int                `json:"references"` // edges of files, objects and vertices
	Where      []graph.Occurrence `json:"where"`
}

// Why implements Graph.
func (l *Local) Why(ctx context.Context, block string) (why Why, err error) {
	err = l.withMatrix(ctx, func(m *graph.Matrix, rows *store.View) error {
		col, err := m.Resolve(block)
		if err != nil {
			return err
		}
		why, err = whyOf(ctx, m, col, l.climber(ctx, m, rows))
		return err
	})
	return why, err
}

func (l *Local) climber(ctx context.Context, m *graph.Matrix, rows *store.View) *graph.Climber {
	return graph.NewClimber(m, l.store, func(inodes map[uint64]bool) (map[uint64][]string, error) {
		return l.rows().AllPaths(ctx, rows, inodes)
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

// WhyAll implements Graph.
func (l *Local) WhyAll(ctx context.Context, ref string, limit int64, fn func(WhyItem) error) error {
	if limit < 0 {
		return fmt.Errorf("%w: limit %d", ErrRequest, limit)
	}
	defer l.store.KeepAll()() // what ref has now is still there when the matrix is made
	blocks, err := l.dataBlocks(ctx, ref)
	if err != nil {
		return err
	}
	count := int64(len(blocks))
	if limit > 0 && limit < count {
		blocks = blocks[:limit]
	}
	return l.withMatrix(ctx, func(m *graph.Matrix, rows *store.View) error {
		if err := fn(WhyItem{Blocks: &count}); err != nil {
			return err
		}
		c := l.climber(ctx, m, rows)
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
func (l *Local) dataBlocks(ctx context.Context, ref string) ([]store.ID, error) {
	var blocks []store.ID
	seen := make(map[store.ID]bool)
	add := func(b *BlockInfo) {
		if b != nil && !seen[b.ID] {
			seen[b.ID] = true
			blocks = append(blocks, b.ID)
		}
	}
	err := l.Show(ctx, ref, func(it ShowItem) error {
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
// stretch, of others once.
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

// Matrix implements Graph.
func (l *Local) Matrix(ctx context.Context, fn func(MatrixItem) error) error {
	return l.withMatrix(ctx, func(m *graph.Matrix, rows *store.View) error {
		w := matrixWriter{m: m, data: make([]uint32, m.Columns()), fn: fn}
		_, end := m.NameRows()
		if err := w.measure(end); err != nil {
			return err
		}
		inodes := make(map[uint64]bool)
		for r := range end {
			if row := m.Row(r); row.Kind == graph.FileRow {
				inodes[row.Ino] = true
			}
		}
		paths, err := l.rows().AllPaths(ctx, rows, inodes)
		if err != nil {
			return err
		}
		for r := range end {
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

// Why implements Graph.
func (c *Client) Why(ctx context.Context, block string) (Why, error) {
	q := make(url.Values)
	setText(q, "block", block)
	var w Why
	err := c.call(ctx, http.MethodGet, withQuery("/v1/graph/why", q), nil, &w)
	return w, err
}

// WhyAll implements Graph.
func (c *Client) WhyAll(ctx context.Context, ref string, limit int64, fn func(WhyItem) error) error {
	q := make(url.Values)
	setText(q, "ref", ref)
	setNumber(q, "limit", limit)
	return receiveStream(ctx, c, withQuery("/v1/graph/why/blocks", q), fn)
}

// Matrix implements Graph.
func (c *Client) Matrix(ctx context.Context, fn func(MatrixItem) error) error {
	return receiveStream(ctx, c, "/v1/graph/matrix", fn)
}

func (s *server) why(w http.ResponseWriter, r *http.Request) {
	why, err := s.node.Why(r.Context(), r.URL.Query().Get("block"))
	s.answer(w, r, why, err)
}

func (s *server) whyAll(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	limit, err := number(q, "limit")
	if err != nil {
		s.fail(w, r, err)
		return
	}
	sendStream(s, w, r, func(fn func(WhyItem) error) error { return s.node.WhyAll(r.Context(), q.Get("ref"), limit, fn) })
}

func (s *server) matrix(w http.ResponseWriter, r *http.Request) {
	sendStream(s, w, r, func(fn func(MatrixItem) error) error { return s.node.Matrix(r.Context(), fn) })
}

// extension is the type of a file by its name, for people: ".go", or "".
func extension(name string) string {
	ext := path.Ext(name)
	if ext == name || len(ext) < 2 || len(ext) > 12 {
		return ""
	}
	return ext
}
