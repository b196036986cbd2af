package graph

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"
	"sync"

	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/vertex"
)

// A Matrix says who refers to what: a row for each file of the live filesystem,
// each name of an object or snapshot, and each vertex, a column for each block
// and vertex. It is sparse, in compressed rows and, transposed, in compressed
// columns (CSR and CSC: Saad, Iterative Methods for Sparse Linear Systems, 3.4).
// It does not change once it is made, and may be used concurrently.
//
//	blocks     sorted by ID                        50 bytes each, with the column's start
//	rows       files by inode, names, vertices     16 bytes each
//	edges      column, in its row; row, in its     8 bytes each, and of files some
//	           column; of files also offset,       5 more
//	           length and skip, as in extents
//
// So a million blocks that as many edges of files of 64 blocks lead to take some
// 64 MB.
type Matrix struct {
	ids    []ID
	info   []blockInfo
	bucket []uint32 // first index of the IDs that start with two bytes; one more at the end

	rows     []rowInfo
	files    int // of the rows
	firstVer int // first row of a vertex
	names    []store.Name
	cols     []uint32 // of edges, row by row
	spans    []byte   // of files' edges

	colStart []uint32 // of each column in back, and the end
	back     []uint32 // rows, column by column

	// Missing counts edges to blocks that the index does not have.
	Missing int64
}

type blockInfo struct {
	raw, stored uint32
	kind        store.Kind
	entropy     uint8
}

type rowInfo struct {
	ref   uint64 // inode, index in names, or column of the vertex
	start uint32 // of its edges
	span  uint32 // of its spans; they are bounded by MaxMatrix
}

// A RowKind says what a row of a Matrix is.
type RowKind uint8

// The kinds of rows.
const (
	FileRow   RowKind = iota // a file of the live filesystem
	NameRow                  // the name of an object or a snapshot
	VertexRow                // a file, tree, snapshot or name vertex
)

// A Row is who refers: its kind says which of the other fields is set.
type Row struct {
	Kind RowKind
	Ino  uint64
	Name store.Name
	ID   ID
}

// A Reference is an edge of a file of the live filesystem to a block, or to the
// vertex that stands for all the file has from Off on.
type Reference struct {
	Ino  uint64
	Off  int64
	Len  int64 // 0: of a vertex
	Skip uint32
	ID   ID
}

// Inputs are what a Matrix is made from: the rows of one instant.
type Inputs struct {
	Blocks func(fn func(ID, store.Entry) error) error // in order of IDs
	Count  int64                                      // of them, more or less
	Names  func(fn func(store.Name) error) error
	Files  func(fn func(Reference) error) error // those of a file together, in order; files in order of inodes
	Source Source                               // of vertices, used concurrently; what is not there any more has no edges
}

// MaxMatrix bounds a Matrix, in bytes of memory.
const MaxMatrix = 2 << 30

// ErrTooBig is returned for a store whose matrix would take more than MaxMatrix.
var ErrTooBig = fmt.Errorf("the reference matrix would take more than %d MiB: %w", MaxMatrix>>20, store.ErrConfig)

// NewMatrix makes the matrix.
func NewMatrix(ctx context.Context, in Inputs) (*Matrix, error) {
	m := &Matrix{ids: make([]ID, 0, in.Count), info: make([]blockInfo, 0, in.Count)}
	err := in.Blocks(func(id ID, e store.Entry) error {
		if k := len(m.ids); k > 0 && bytes.Compare(m.ids[k-1][:], id[:]) >= 0 {
			return fmt.Errorf("blocks are not in order: %w", store.ErrCorrupt)
		}
		m.ids = append(m.ids, id)
		m.info = append(m.info, blockInfo{e.Raw, uint32(e.Stored()), e.Kind, e.Entropy})
		return m.fits()
	})
	if err != nil {
		return nil, err
	}
	// Edges are entered by column, so the IDs have to be complete and indexed before the first row.
	m.index()
	if err := m.addFiles(in); err != nil {
		return nil, err
	}
	if err := m.addNames(in); err != nil {
		return nil, err
	}
	if err := m.addVertices(ctx, in.Source); err != nil {
		return nil, err
	}
	// An end for the last row: every row reaches up to the start of the next.
	m.rows = append(m.rows, rowInfo{start: uint32(len(m.cols))})
	m.rows, m.cols, m.spans = slices.Clone(m.rows), slices.Clone(m.cols), slices.Clone(m.spans) // without room to grow
	m.transpose()
	return m, nil
}

func (m *Matrix) fits() error {
	// The transposed half does not exist yet, but will take as much again as the columns.
	if m.Bytes()+4*int64(len(m.cols)) > MaxMatrix || len(m.cols) > math.MaxUint32-1<<20 {
		return ErrTooBig
	}
	return nil
}

// Bytes returns the memory that the matrix takes.
func (m *Matrix) Bytes() int64 {
	return int64(cap(m.ids))*32 + int64(cap(m.info))*12 + int64(cap(m.bucket))*4 + int64(cap(m.rows))*16 +
		int64(cap(m.cols)+cap(m.back)+cap(m.colStart))*4 + int64(cap(m.spans))
}

// index makes the table of the IDs' first two bytes: IDs are evenly spread.
func (m *Matrix) index() {
	m.bucket = make([]uint32, 1<<16+1)
	at := 0
	for b := range m.bucket {
		for at < len(m.ids) && int(binary.BigEndian.Uint16(m.ids[at][:])) < b {
			at++
		}
		m.bucket[b] = uint32(at)
	}
}

// Column returns the number of a block or vertex.
func (m *Matrix) Column(id ID) (col int, ok bool) {
	b := binary.BigEndian.Uint16(id[:])
	lo, hi := int(m.bucket[b]), int(m.bucket[int(b)+1])
	i := lo + sort.Search(hi-lo, func(i int) bool { return bytes.Compare(m.ids[lo+i][:], id[:]) >= 0 })
	return i, i < hi && m.ids[i] == id
}

// Resolve returns the column whose ID starts with hex digits, four or more of
// them. Errors: store.ErrNotFound, store.ErrAmbiguous.
func (m *Matrix) Resolve(digits string) (col int, err error) {
	lo, hi, ok := store.PrefixRange(digits)
	if !ok || len(digits) < 4 {
		return 0, fmt.Errorf("block %q: %w", digits, store.ErrNotFound)
	}
	// IDs are sorted as bytes, so all that start with the digits are side by side.
	col = sort.Search(len(m.ids), func(i int) bool { return bytes.Compare(m.ids[i][:], lo[:]) >= 0 })
	in := func(i int) bool { return i < len(m.ids) && bytes.Compare(m.ids[i][:], hi[:]) <= 0 }
	switch {
	case !in(col):
		return 0, fmt.Errorf("block %q: %w", digits, store.ErrNotFound)
	case in(col + 1):
		return 0, fmt.Errorf("%s starts %s, %s and perhaps more: %w", digits, m.ids[col].Short(), m.ids[col+1].Short(), store.ErrAmbiguous)
	}
	return col, nil
}

// edge notes an edge of the row that is being made.
func (m *Matrix) edge(id ID) (ok bool, err error) {
	col, ok := m.Column(id)
	if !ok {
		m.Missing++
		return false, nil
	}
	m.cols = append(m.cols, uint32(col))
	// Adding up memory for each of many millions of edges would show in the time.
	if len(m.cols)&0xffff == 0 {
		err = m.fits()
	}
	return true, err
}

func (m *Matrix) row(ref uint64) {
	m.rows = append(m.rows, rowInfo{ref: ref, start: uint32(len(m.cols))})
}

func (m *Matrix) addFiles(in Inputs) error {
	end := int64(0)
	err := in.Files(func(r Reference) error {
		if k := len(m.rows); k == 0 || m.rows[k-1].ref != r.Ino {
			// FileRowOf searches by halves, so one that is out of order could never be found.
			if k > 0 && m.rows[k-1].ref > r.Ino {
				return fmt.Errorf("files are not in order: %w", store.ErrCorrupt)
			}
			m.row(r.Ino)
			m.rows[k].span = uint32(len(m.spans))
			end = 0
		}
		ok, err := m.edge(r.ID)
		if !ok || err != nil {
			return err
		}
		// The gap to the span before is 0 mostly, and takes a byte where an offset takes five; it
		// is negative if spans of a damaged file overlap.
		gap := r.Off - end
		x := uint64(gap)<<1 ^ uint64(gap>>63) // zigzag
		m.spans = binary.AppendUvarint(m.spans, x)
		m.spans = binary.AppendUvarint(m.spans, uint64(r.Len))
		m.spans = binary.AppendUvarint(m.spans, uint64(r.Skip))
		end = r.Off + r.Len
		return nil
	})
	m.files = len(m.rows)
	return err
}

func (m *Matrix) addNames(in Inputs) error {
	err := in.Names(func(n store.Name) error {
		m.row(uint64(len(m.names)))
		m.names = append(m.names, n)
		_, err := m.edge(n.Vertex)
		return err
	})
	m.firstVer = len(m.rows)
	return err
}

// vertexBatch is how many vertices are read at a time, by vertexReaders.
const (
	vertexBatch   = 512
	vertexReaders = 4
)

// addVertices reads all vertices and makes a row of each.
func (m *Matrix) addVertices(ctx context.Context, src Source) error {
	batch := make([]uint32, 0, vertexBatch)
	flush := func() error {
		// Read by several at once, entered in order: rows of vertices are sorted by column.
		links, err := m.readVertices(ctx, src, batch)
		for i, col := range batch {
			m.row(uint64(col))
			for _, id := range links[i] {
				if _, err := m.edge(id); err != nil {
					return err
				}
			}
		}
		batch = batch[:0]
		return err
	}
	for col := range m.info {
		// The column of a block has no row: it refers to nothing.
		if m.info[col].kind == store.KindData {
			continue
		}
		if batch = append(batch, uint32(col)); len(batch) == cap(batch) {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

func (m *Matrix) readVertices(ctx context.Context, src Source, batch []uint32) ([][]ID, error) {
	links := make([][]ID, len(batch))
	errs := make([]error, vertexReaders)
	var wg sync.WaitGroup
	for w := range vertexReaders {
		wg.Go(func() {
			for i := w; i < len(batch) && errs[w] == nil; i += vertexReaders {
				plain, err := src.Get(ctx, m.ids[batch[i]])
				if err == nil {
					links[i], err = vertex.Links(plain)
				}
				// The sweep may have taken it since; a damaged one is for fsck.
				if !errors.Is(err, store.ErrNotFound) && !errors.Is(err, store.ErrCorrupt) {
					errs[w] = err
				}
			}
		})
	}
	wg.Wait()
	return links, errors.Join(errs...)
}

// transpose makes the columns, by counting.
func (m *Matrix) transpose() {
	m.colStart = make([]uint32, len(m.ids)+2)
	for _, c := range m.cols {
		m.colStart[c+2]++
	}
	// Counts become starts, each one place too far on: filling column c moves the entry at c+1 from
	// c's start to its end, which is where c+1 starts.
	for i := 2; i < len(m.colStart); i++ {
		m.colStart[i] += m.colStart[i-1]
	}
	m.back = make([]uint32, len(m.cols))
	for r := range m.Rows() {
		for _, c := range m.rowCols(r) {
			m.back[m.colStart[c+1]] = uint32(r)
			m.colStart[c+1]++
		}
	}
	m.colStart = m.colStart[:len(m.ids)+1]
}

func (m *Matrix) rowCols(r int) []uint32 { return m.cols[m.rows[r].start:m.rows[r+1].start] }

// Rows returns the number of rows.
func (m *Matrix) Rows() int { return len(m.rows) - 1 }

// Columns returns the number of blocks and vertices.
func (m *Matrix) Columns() int { return len(m.ids) }

// Edges returns the number of references.
func (m *Matrix) Edges() int { return len(m.cols) }

// Row returns who a row is.
func (m *Matrix) Row(r int) Row {
	ref := m.rows[r].ref
	switch {
	case r < m.files:
		return Row{Kind: FileRow, Ino: ref}
	case r < m.firstVer:
		return Row{Kind: NameRow, Name: m.names[ref]}
	}
	return Row{Kind: VertexRow, ID: m.ids[ref]}
}

// A Block is a column.
type Block struct {
	ID      ID
	Kind    store.Kind
	Raw     int64 // plain bytes
	Stored  int64
	Entropy float64 // bits a byte, 0 to 8
}

// Block returns what a column is.
func (m *Matrix) Block(col int) Block {
	i := m.info[col]
	return Block{m.ids[col], i.kind, int64(i.raw), int64(i.stored), float64(i.entropy) * 8 / 255}
}

// A Use is an edge of a row. Only those of files have offsets and lengths; those
// of vertices are in the vertices.
type Use struct {
	Col  int
	Off  int64
	Len  int64 // 0: it is a vertex that stands for all from Off on
	Skip uint32
}

// EachInRow calls fn for the references of a row, in order, until fn returns
// false.
func (m *Matrix) EachInRow(r int, fn func(Use) bool) {
	var spans []byte
	if r < m.files {
		spans = m.spans[m.rows[r].span:]
	}
	end := int64(0)
	for _, c := range m.rowCols(r) {
		u := Use{Col: int(c)}
		// Offsets are told from the end of the span before: most have none between them, which
		// takes a byte.
		if spans != nil {
			var f [3]uint64
			for i := range f {
				v, n := binary.Uvarint(spans)
				f[i], spans = v, spans[n:]
			}
			u.Off = end + (int64(f[0]>>1) ^ -int64(f[0]&1))
			u.Len, u.Skip = int64(f[1]), uint32(f[2])
			end = u.Off + u.Len
		}
		if !fn(u) {
			return
		}
	}
}

// EachInColumn calls fn for the rows that refer to a column, in order, each once,
// until fn returns false.
func (m *Matrix) EachInColumn(col int, fn func(row int) bool) {
	rows := m.column(col)
	for i, r := range rows {
		// Rows were entered in order, so the same one several times is side by side.
		if i > 0 && rows[i-1] == r {
			continue
		}
		if !fn(int(r)) {
			return
		}
	}
}

func (m *Matrix) column(col int) []uint32 { return m.back[m.colStart[col]:m.colStart[col+1]] }

// References returns how many edges lead to a column.
func (m *Matrix) References(col int) int { return len(m.column(col)) }

// FileRowOf returns the row of a file of the live filesystem that has blocks.
func (m *Matrix) FileRowOf(ino uint64) (r int, ok bool) {
	return slices.BinarySearchFunc(m.rows[:m.files], ino, func(r rowInfo, ino uint64) int { return cmp.Compare(r.ref, ino) })
}

// VertexRowOf returns the row of a vertex.
func (m *Matrix) VertexRowOf(col int) (r int, ok bool) {
	i, ok := slices.BinarySearchFunc(m.rows[m.firstVer:m.Rows()], uint64(col), func(r rowInfo, col uint64) int { return cmp.Compare(r.ref, col) })
	return m.firstVer + i, ok
}

// NameRows returns the rows of names, from first to before end.
func (m *Matrix) NameRows() (first, end int) { return m.files, m.firstVer }

// Data calls fn for the data blocks that a row leads to, directly or through
// vertices, each once, with how often the row itself and the vertices of one file
// refer to it; below directories that is 1. The order is not defined.
func (m *Matrix) Data(r int, fn func(col int, times int)) {
	w := dataWalk{m: m, times: make(map[uint32]int), seen: make(map[uint32]bool)}
	w.row(r)
	for c, n := range w.times {
		fn(int(c), n)
	}
}

type dataWalk struct {
	m     *Matrix
	times map[uint32]int
	seen  map[uint32]bool // trees and snapshots
}

func (w *dataWalk) row(r int) {
	for _, c := range w.m.rowCols(r) {
		kind := w.m.info[c].kind
		if kind == store.KindData {
			w.times[c]++
			continue
		}
		if kind != store.KindFile {
			// A directory below several others counts once; a file vertex counts each time, as its
			// blocks are used each time.
			if w.seen[c] {
				continue
			}
			w.seen[c] = true
		}
		if below, ok := w.m.VertexRowOf(int(c)); ok {
			w.row(below)
		}
	}
}
