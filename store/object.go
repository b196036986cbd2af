package store

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sort"
	"sync"

	"github.com/quarxtor/quarxfs/store/chunk"
	"github.com/quarxtor/quarxfs/store/db"
	"github.com/quarxtor/quarxfs/store/vertex"
	"github.com/quarxtor/quarxfs/tiering"
)

// An objectStore has streams of bytes in and out.
type objectStore struct {
	*base
	index   *index
	pending *pending
	blocks  *blocks
	commits *committer
	names   *nameTable
	room    *room

	chunker *chunk.Chunker
	batches sync.Pool // of Ingest
}

// An object is bytes with an ID and perhaps a name: a file vertex, or the data
// block that is all of it. Its row keeps it; see ObjectInfo.

// Fetch writes length bytes of an object from off on to w; a negative length
// means up to the end, and what would be beyond it is left out. ref is a name,
// a full ID, or a prefix of an ID that is unique and has at least four hex
// digits. The object stays whole until Fetch returns, whoever deletes it
// meanwhile. Errors: ErrNotFound, ErrAmbiguous, ErrRange for an off behind the
// end, ErrCorrupt after the bytes before the damage were written, those of w.
func (ob *objectStore) Fetch(ctx context.Context, ref string, off, length int64, w io.Writer) error {
	pin := ob.pending.NewPin()
	defer pin.Release()
	o, err := ob.pinRef(ref, pin)
	if err != nil {
		return err
	}
	if off < 0 || off > o.Size {
		return fmt.Errorf("object %s has %d bytes, not %d: %w", o.ID.Short(), o.Size, off, ErrRange)
	}
	if length < 0 || length > o.Size-off {
		length = o.Size - off
	}
	if err := ob.blocks.WriteFile(ctx, FileRoot{o.ID, o.Size, o.Data}, off, length, w); err != nil {
		return fmt.Errorf("fetch %q: %w", ref, err)
	}
	return nil
}

// pinRef resolves ref and pins what it finds.
func (ob *objectStore) pinRef(ref string, pin *Pin) (ObjectInfo, error) {
	for {
		o, err := ob.resolveRef(ref)
		if err != nil {
			return o, err
		}
		pin.Add(o.ID)
		// From here on the sweep leaves it; was it there until here?
		has, err := ob.index.Has(o.ID)
		if err != nil {
			return o, err
		}
		if has {
			return o, nil
		}
		// Swept between the two: the name may refer to something else by now.
		pin.Release()
		if again, err := ob.resolveRef(ref); err == nil && again.ID == o.ID {
			return o, fmt.Errorf("object %q refers to block %s, which is missing: %w", ref, o.ID, ErrCorrupt)
		}
	}
}

// WriteFile writes the bytes [off, off+length) of a file to w. The caller makes
// sure that the root stays and that the range is inside of the file.
func (bs *blocks) WriteFile(ctx context.Context, root FileRoot, off, length int64, w io.Writer) error {
	if length == 0 {
		return nil
	}
	e, err := bs.index.Lookup(root.ID)
	if err != nil {
		return err
	}
	f := fileReader{s: bs, ctx: ctx, w: w}
	if e.Kind == tiering.Data {
		return f.block(vertex.Part{ID: root.ID, Len: root.Size}, off, length)
	}
	v, err := bs.fileVertex(ctx, root.ID)
	if err != nil {
		return err
	}
	// The size comes from a row of its own, and ranges were checked by it.
	if v.Size != root.Size {
		return fmt.Errorf("file vertex %s has %d bytes, not %d: %w", root.ID.Short(), v.Size, root.Size, ErrCorrupt)
	}
	return f.vertex(&v, off, length)
}

func (bs *blocks) fileVertex(ctx context.Context, id ID) (vertex.File, error) {
	e, err := bs.index.Lookup(id)
	if err != nil {
		return vertex.File{}, err
	}
	if e.Kind != tiering.File {
		return vertex.File{}, fmt.Errorf("%s is a %s, not a file vertex: %w", id.Short(), e.Kind, ErrCorrupt)
	}
	b, err := bs.Get(ctx, id)
	if err != nil {
		return vertex.File{}, err
	}
	v, err := vertex.DecodeFile(b)
	if err != nil {
		return v, fmt.Errorf("%s: %w", id, err)
	}
	return v, nil
}

// A fileReader walks a file's tree and writes its bytes.
type fileReader struct {
	s   *blocks
	ctx context.Context
	w   io.Writer
}

// readAhead is how many blocks are read ahead of the one that is written.
const readAhead = 8

func (f *fileReader) vertex(v *vertex.File, off, length int64) error {
	ends := make([]int64, len(v.Parts)) // of the parts, in the file
	at := int64(0)
	for i := range v.Parts {
		at += v.Parts[i].Len
		ends[i] = at
	}
	// A vertex may have thousands of parts, and a read begins anywhere.
	first := sort.Search(len(ends), func(i int) bool { return ends[i] > off })
	fetched := first
	for i := first; i < len(v.Parts) && length > 0; i++ {
		p := v.Parts[i]
		skip := off - (ends[i] - p.Len)
		n := min(p.Len-skip, length)
		// Only of blocks, not of vertices: those are few and mostly in memory.
		for ; v.Height == 0 && fetched <= i+readAhead && fetched < len(v.Parts) && ends[fetched]-v.Parts[fetched].Len < off+length; fetched++ {
			if fetched > i && !v.Parts[fetched].Hole {
				f.s.Prefetch([]ID{v.Parts[fetched].ID})
			}
		}
		if err := f.part(v.Height, p, skip, n); err != nil {
			return err
		}
		off += n
		length -= n
	}
	return nil
}

func (f *fileReader) part(height int, p vertex.Part, off, n int64) error {
	if err := f.ctx.Err(); err != nil {
		return err
	}
	switch {
	case p.Hole:
		return f.zeroes(n)
	case height == 0:
		return f.block(p, off, n)
	}
	child, err := f.s.fileVertex(f.ctx, p.ID)
	if err != nil {
		return err
	}
	if child.Height != height-1 || child.Size != p.Len {
		return fmt.Errorf("file vertex %s is not what its parent links to: %w", p.ID, ErrCorrupt)
	}
	return f.vertex(&child, off, n)
}

func (f *fileReader) block(p vertex.Part, off, n int64) error {
	b, err := f.s.Get(f.ctx, p.ID)
	if err != nil {
		return err
	}
	if int64(p.Skip)+p.Len > int64(len(b)) {
		return fmt.Errorf("block %s of %d bytes is shorter than its vertex says: %w", p.ID, len(b), ErrCorrupt)
	}
	from := int64(p.Skip) + off
	_, err = f.w.Write(b[from : from+n])
	return err
}

// zeroes is only ever read.
var zeroes [64 << 10]byte

func (f *fileReader) zeroes(n int64) error {
	for n > 0 {
		m := min(n, int64(len(zeroes)))
		if _, err := f.w.Write(zeroes[:m]); err != nil {
			return err
		}
		if err := f.ctx.Err(); err != nil {
			return err
		}
		n -= m
	}
	return nil
}

// Stat describes what ref, as in Fetch, stands for. Errors: ErrNotFound,
// ErrAmbiguous, ErrCorrupt.
func (ob *objectStore) Stat(_ context.Context, ref string) (ObjectInfo, error) {
	return ob.resolveRef(ref)
}

// Objects calls fn for every object whose name is behind after, in order of name,
// as all were when it was called. ErrStop of fn ends it; any other error of fn does
// too, and is returned.
func (ix *index) Objects(ctx context.Context, after string, fn func(ObjectInfo) error) error {
	from := append([]byte{keyName}, after...)
	if after != "" {
		from = append(from, 0)
	}
	return ix.db.Scan(from, []byte{keyName + 1}, func(key, value []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		o, err := decodeObject(string(key[1:]), value)
		if err != nil {
			return err
		}
		return fn(o)
	})
}

// Delete drops an object's name, durably. What nothing else refers to is
// reclaimed by the next sweep. ref is a name; or an ID or prefix as in Fetch,
// for an object that was given no name or only one. Errors: ErrNotFound, and
// ErrAmbiguous for an ID that has several names.
func (ob *objectStore) Delete(_ context.Context, ref string) error {
	name, err := ob.nameToDrop(ref)
	if err == nil {
		err = ob.names.dropName(name)
	}
	if err != nil {
		return err
	}
	return ob.commits.Commit()
}

func (ob *objectStore) nameToDrop(ref string) (string, error) {
	o, err := ob.resolveRef(ref)
	if err != nil || o.Name == ref {
		return ref, err
	}
	names, err := ob.index.namesOf(o.ID, 2)
	switch {
	case err != nil:
		return "", err
	case len(names) == 0:
		return "", fmt.Errorf("%s is a block, not an object: %w", o.ID.Short(), ErrNotFound)
	case len(names) == 1:
		return names[0], nil
	}
	// Among several names the one that is the ID itself is what was asked for.
	if _, err := ob.index.named(o.ID.String()); err == nil {
		return o.ID.String(), nil
	}
	return "", fmt.Errorf("object %s has the names %q, %q and perhaps more: delete it by name: %w", o.ID.Short(), names[0], names[1], ErrAmbiguous)
}

// Ingest stores what r gives as an object and returns once it is durable. With
// an empty name the object is kept under its ID in hex. A name that other bytes
// have is left to them, unless Replace says that it is to refer to these from then
// on. Memory is bounded whatever r gives.
// Errors: ErrNameTaken; ErrConfig for a name that no object can have, ErrFull, those of r and
// of the disk; then a name that existed refers to what it did, except that when
// only making it durable failed a later commit may still do so.
func (ob *objectStore) Ingest(ctx context.Context, r io.Reader, name string, flags ...IngestFlag) (ObjectInfo, error) {
	if name != "" {
		if err := validName(name); err != nil {
			return ObjectInfo{}, err
		}
	}
	o, err := ob.ingest(ctx, r, name, slices.Contains(flags, Replace))
	if err == nil {
		err = ob.commits.Commit()
	}
	if err != nil {
		return ObjectInfo{}, fmt.Errorf("ingest %q: %w", name, err)
	}
	return o, nil
}

// An IngestFlag changes what Ingest does.
type IngestFlag int

// Replace has a name that is taken refer to the new object; the former one loses it.
const Replace IngestFlag = 1

func (ob *objectStore) ingest(ctx context.Context, r io.Reader, name string, replace bool) (ObjectInfo, error) {
	in := ingester{s: ob, b: ob.blocks.NewFileBuilder(), done: make(chan error, 1)}
	defer in.close()
	for !in.eof {
		if err := ctx.Err(); err != nil {
			return ObjectInfo{}, err
		}
		if err := in.next(r); err != nil {
			return ObjectInfo{}, err
		}
		// Rows of a stream of any length must not gather in memory.
		if err := ob.commits.throttle(); err != nil {
			return ObjectInfo{}, err
		}
	}
	// The last batch, before the builder is asked for the whole.
	if err := in.wait(); err != nil {
		return ObjectInfo{}, err
	}
	root, err := in.b.Finish()
	if err != nil {
		return ObjectInfo{}, err
	}
	o := ObjectInfo{Name: name, ID: root.ID, Size: root.Size, Data: root.Data, Created: ob.now()}
	if name == "" {
		o.Name = o.ID.String()
	}
	return o, ob.names.setName(o, replace)
}

// throttle starts a commit when much is pending, and waits for one when that
// did not help.
func (cm *committer) throttle() error {
	cm.MaybeCommit()
	rows, bytes := cm.db.Pending()
	if maxRows, maxBytes := cm.db.Limit(); rows < maxRows && bytes < maxBytes {
		return nil
	}
	return cm.Commit()
}

// An ingester reads and cuts one batch while the one before is stored.
type ingester struct {
	s    *objectStore
	b    *FileBuilder
	off  int64      // of rest in the object
	rest []byte     // read, but not cut yet
	bufs [2]*[]byte // rest is in bufs[0]
	eof  bool
	busy bool
	done chan error // one result for each batch
}

// A part is a block of a batch, or zeroes that become a hole.
type part struct {
	bytes []byte
	zero  bool
}

// batchSize is how much is stored at a time, at least: enough to keep the
// cores busy, little enough that blocks are not held for long.
const batchSize = 4 << 20

func (ob *objectStore) newBatch() any {
	b := make([]byte, max(batchSize, 2*ob.chunker.Max()))
	return &b
}

// next reads a batch, cuts it, and has it stored in the background.
func (in *ingester) next(r io.Reader) error {
	// The other one is still being stored from.
	in.bufs[0], in.bufs[1] = in.bufs[1], in.bufs[0]
	if in.bufs[0] == nil {
		in.bufs[0] = in.s.batches.Get().(*[]byte)
	}
	buf := *in.bufs[0]
	n := copy(buf, in.rest)
	m, err := io.ReadFull(r, buf[n:])
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		in.eof, err = true, nil
	}
	if err != nil {
		return err
	}
	// Cut while the batch before is still being stored: this is the other half of the pipeline.
	parts := in.cut(buf[:n+m])
	if err := in.wait(); err != nil {
		return err
	}
	// Outside of any Update: it may have to wait for a sweep, which commits.
	if err := in.s.room.Admit(int64(m)); err != nil {
		return err
	}
	in.busy = true
	go func() { in.done <- in.store(parts) }()
	return nil
}

func (in *ingester) cut(data []byte) []part {
	parts := make([]part, 0, 2*len(data)/in.s.chunker.Avg()+1)
	for len(data) > 0 {
		n, final := in.s.chunker.Cut(in.off, data)
		if !final && !in.eof {
			break
		}
		parts = append(parts, part{data[:n], chunk.IsZero(data[:n])})
		in.off += int64(n)
		data = data[n:]
	}
	in.rest = data
	return parts
}

func (in *ingester) store(parts []part) error {
	// Until the builder has pinned or linked the blocks, nothing refers to them.
	release := in.s.pending.Hold()
	defer release()
	blocks := make([][]byte, 0, len(parts))
	for _, p := range parts {
		if !p.zero {
			blocks = append(blocks, p.bytes)
		}
	}
	ids, err := in.s.blocks.PutAll(blocks)
	if err != nil {
		return err
	}
	for _, p := range parts {
		part := vertex.Part{Len: int64(len(p.bytes)), Hole: p.zero}
		if !p.zero {
			part.ID, ids = ids[0], ids[1:]
		}
		if err := in.b.Add(part); err != nil {
			return err
		}
	}
	return nil
}

// wait returns the result of the batch that is being stored, if one is.
func (in *ingester) wait() error {
	if !in.busy {
		return nil
	}
	in.busy = false
	return <-in.done
}

func (in *ingester) close() {
	in.wait() // its error is known, or of no interest any more
	for _, b := range in.bufs {
		if b != nil {
			in.s.batches.Put(b)
		}
	}
	in.b.Close()
}

// ErrStop, returned by the function given to Blocks or Objects, ends the walk
// without error.
var ErrStop = db.ErrStop
