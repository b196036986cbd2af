package store

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/quarxtor/quarxfs/store/chunk"
	"github.com/quarxtor/quarxfs/store/db"
	"github.com/quarxtor/quarxfs/store/vertex"
	"github.com/quarxtor/quarxfs/tiering"
)

// LostPrefix starts the names of the objects under which a repair keeps what
// nothing refers to any more and nobody dropped.
const LostPrefix = "lost+found/"

// LostSnapshots starts the names of the snapshots that are directories of lost ones.
const LostSnapshots = "lost+found-"

// Repair makes the rows of the index agree with the segments and with what
// refers to blocks: rows that are missing or wrong are made anew from the segments,
// references counted, sums added up. A block whose references got lost is kept
// under a name that starts with LostPrefix; nothing is removed. Of a block whose segment is lost
// the row becomes a placeholder: reading it is ErrCorrupt, and all else stays (Options.Salvage
// opens such a store). What cannot be repaired, Check goes on to report. It returns what it did.
// It takes some 150 bytes of memory for each block, and nobody can write meanwhile.
func (s *Store) Repair(ctx context.Context, o CheckOptions) ([]Repaired, error) {
	if s.readOnly {
		return nil, ErrReadOnly
	}
	r := repairer{s: s, o: o}
	err := s.standstill(func() error { return r.run(ctx) })
	if err == nil {
		err = s.Commit()
	}
	if err == nil {
		r.settled()
	}
	if err != nil {
		err = fmt.Errorf("repair: %w", err)
	}
	return r.done, err
}

// A Repaired is one thing that a repair did.
type Repaired struct {
	Text string // a line
	Kind string // the same for what differs only in which block, row or inode it was done to
}

type repairer struct {
	s      *Store
	o      CheckOptions
	done   []Repaired
	rows   map[ID]Entry
	counts map[ID]uint64
	names  map[string]ObjectInfo
	snaps  map[string]SnapshotRef

	indexed map[ID]bool // that the database did not know of
	kept    int         // of these, that have got a name
	newest  uint64      // commits that there were
}

func (r *repairer) did(format string, args ...any) {
	r.done = append(r.done, Repaired{fmt.Sprintf(format, args...), format})
}

func (r *repairer) run(ctx context.Context) error {
	r.rows, r.names, r.snaps = make(map[ID]Entry), make(map[string]ObjectInfo), make(map[string]SnapshotRef)
	r.indexed = make(map[ID]bool)
	steps := []func(context.Context) error{r.loadRows, r.restoreRows, r.loadNames, r.loadSnapshots, r.forgetLost, r.indexUnsettled, r.restoreMissing,
		r.makeNames, r.addPlaceholders, r.keepLost, r.fixRows, r.fixZeroRows, r.fixNames, r.fixSnapshots, r.fixSums}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return r.s.syncAll()
}

func (r *repairer) scan(ctx context.Context, prefix byte, fn func(key, value []byte) error) error {
	return r.s.db.ScanPrefix([]byte{prefix}, func(key, value []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return fn(key, value)
	})
}

func (r *repairer) loadRows(ctx context.Context) error {
	return r.scan(ctx, keyBlock, func(key, value []byte) error {
		id, e, err := decodeBlockRow(key, value)
		switch {
		case err != nil && len(key) == 1+len(id):
			r.did("block %s: its row was damaged", id)
			r.rows[id] = Entry{} // no location is right
		case err != nil:
			r.s.db.Delete(bytes.Clone(key))
			r.did("row %x was removed: %v", key, err)
		default:
			r.rows[id] = e
		}
		return nil
	})
}

// restoreRows finds a record for every row that has none.
func (r *repairer) restoreRows(ctx context.Context) error {
	wrong := make(map[ID]bool, len(r.rows))
	for id := range r.rows {
		wrong[id] = true
	}
	err := r.eachRecord(ctx, func(loc tiering.Location, h tiering.Header) {
		if e := r.rows[h.ID]; e.Kind == h.Kind && e.Codec == h.Codec && e.Raw == h.RawLen && e.Loc == loc {
			delete(wrong, h.ID)
		}
	})
	if err != nil || len(wrong) == 0 {
		return err
	}
	if err := r.restoreFrom(ctx, func(id ID) bool { return wrong[id] }); err != nil {
		return err
	}
	sizes := r.s.segmentSizes()
	lost, ends := make(map[uint64]int), make(map[uint64]int64)
	for id := range wrong {
		e := r.rows[id]
		switch {
		case e.Kind == 0:
			delete(r.rows, id)
			r.s.db.Delete(blockKey(keyBlock, id))
		case e.isPlaceholder(), int64(e.Loc.Offset)+int64(e.Loc.Length) <= sizes[e.Loc.Segment]:
			// It was lost before, or is damaged where it is; a later read may do better.
		default:
			lost[e.Loc.Segment]++
			ends[e.Loc.Segment] = max(ends[e.Loc.Segment], int64(e.Loc.Offset)+int64(e.Loc.Length))
			r.lose(id, "it was in "+segmentName(e.Loc.Segment)+", which a repair has let go of")
		}
	}
	for n, blocks := range lost {
		r.s.loseSegment(n, ends[n])
		r.did("%s is lost, or its end is: %d of its blocks read as errors from now on", segmentName(n), blocks)
	}
	return nil
}

// lose makes the row of a block that no segment has a placeholder, which keeps its references.
func (r *repairer) lose(id ID, why string) {
	e := placeholder()
	e.Refs = r.rows[id].Refs
	r.rows[id] = e
	r.s.bad.clear(id) // what an earlier read has said of it tells less
	r.s.bad.set(id, r.s.now(), why)
}

// segmentSizes are the sizes of all segments that are there.
func (hi *history) segmentSizes() map[uint64]int64 {
	sizes := make(map[uint64]int64)
	for _, seg := range hi.tiers.Segments() {
		sizes[seg.Number] = seg.Bytes
	}
	return sizes
}

// eachRecord calls fn for the records of all segments. Damaged ones are the
// check's to report.
func (r *repairer) eachRecord(ctx context.Context, fn func(loc tiering.Location, h tiering.Header)) error {
	hidden, err := r.s.tiers.Scan(func(loc tiering.Location, h tiering.Header) error {
		fn(loc, h)
		return ctx.Err()
	})
	if hidden != nil || !errors.Is(err, tiering.ErrCorrupt) {
		return errors.Join(hidden, err)
	}
	return nil
}

// syncAll makes durable what is in any tier: rows may refer to records that a
// killed process has left (I1).
func (s *Store) syncAll() error {
	err := s.tiers.SyncCold()
	if errors.Is(err, tiering.ErrNoTier) {
		err = nil
	}
	return errors.Join(err, s.tiers.Sync())
}

// restoreFrom makes rows of the wanted blocks' records, if these are sound.
func (r *repairer) restoreFrom(ctx context.Context, wanted func(ID) bool) error {
	restored := make(map[ID]bool)
	return r.eachRecord(ctx, func(loc tiering.Location, h tiering.Header) {
		id := ID(h.ID)
		if restored[id] || !wanted(id) {
			return
		}
		e, err := r.s.entryOf(loc)
		if err != nil {
			return
		}
		e.Refs = r.rows[id].Refs
		r.rows[id], restored[id] = e, true
		r.did("block %s: found at %s, offset %d", id, segmentName(loc.Segment), loc.Offset)
	})
}

// entryOf makes the row of a record, without references.
func (s *Store) entryOf(loc tiering.Location) (Entry, error) {
	h, plain, err := s.tiers.Read(loc)
	if err != nil {
		return Entry{}, err
	}
	return rowOf(loc, h, plain), nil
}

// rowOf makes the row of a record, without references.
func rowOf(loc tiering.Location, h tiering.Header, plain []byte) Entry {
	return Entry{Kind: h.Kind, Codec: h.Codec, Loc: loc, Raw: h.RawLen, Entropy: quantizeEntropy(chunk.Entropy(plain))}
}

// loadNames reads the objects' rows; one that is damaged is found by the row
// that leads from the ID to the name.
func (r *repairer) loadNames(ctx context.Context) error {
	damaged := make(map[string]bool)
	err := r.scan(ctx, keyName, func(key, value []byte) error {
		name := string(key[1:])
		o, err := decodeObject(name, value)
		if err != nil {
			damaged[name] = true
			return nil
		}
		r.names[name] = o
		return nil
	})
	if err != nil {
		return err
	}
	err = r.scan(ctx, keyObject, func(key, _ []byte) error {
		id, err := idInKey(key)
		if err != nil {
			return nil
		}
		if name := string(key[1+len(id):]); damaged[name] {
			if _, ok := r.rows[id]; ok {
				r.names[name] = ObjectInfo{Name: name, ID: id, Created: r.s.now()}
				delete(damaged, name)
				r.did("object %q: its row was made anew", name)
			}
		}
		return nil
	})
	// From the objects themselves, since a row may be whole and wrong.
	for name, o := range r.names {
		if r.describe(&o) {
			r.did("object %q: it has %d bytes, %d of them data", name, o.Size, o.Data)
			r.names[name] = o
		}
	}
	for name := range damaged {
		r.s.db.Delete(nameKey(name))
		r.did("object %q: its row was damaged, and nothing says which object it named", name)
	}
	return err
}

// restoreMissing counts references, and looks for records of blocks that have
// references and no row. Those that are vertices have references in turn.
func (r *repairer) restoreMissing(ctx context.Context) error {
	for {
		if err := r.count(ctx); err != nil {
			return err
		}
		// Each round may find vertices, whose links are then missing in turn.
		before := len(r.rows)
		missing := func(id ID) bool {
			_, ok := r.rows[id]
			return !ok && r.counts[id] > 0
		}
		lost := 0
		for id := range r.counts {
			if missing(id) {
				lost++
			}
		}
		if lost == 0 {
			return nil
		}
		if err := r.restoreFrom(ctx, missing); err != nil {
			return err
		}
		if len(r.rows) == before {
			return nil
		}
	}
}

func (r *repairer) count(ctx context.Context) error {
	r.counts = make(map[ID]uint64)
	ref := func(id ID) { r.counts[id]++ }
	for _, h := range r.o.Holders {
		if err := h(ctx, ref); err != nil {
			return err
		}
	}
	err := r.scan(ctx, keyLeased, countHeld(ref))
	if err != nil {
		return err
	}
	for _, o := range r.names {
		ref(o.vertexID())
	}
	for _, n := range r.snaps {
		ref(n.vertexID())
	}
	// As the check counts: a link counts as long as the vertex has a row, referred to or not. (I4)
	for id, e := range r.rows {
		if e.Kind == tiering.Data {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		for _, child := range r.linksOf(id) {
			ref(child)
		}
	}
	return nil
}

// makeNames makes the vertices of names that have none, and has them counted.
func (r *repairer) makeNames(ctx context.Context) error {
	for _, o := range r.names {
		if err := r.putName(o.vertex()); err != nil {
			return err
		}
	}
	for _, n := range r.snaps {
		if err := r.putName(n.vertex()); err != nil {
			return err
		}
	}
	return r.count(ctx)
}

// name gives a block that nothing refers to a name.
func (r *repairer) name(name string, id ID) error {
	o := ObjectInfo{Name: name, ID: id, Created: r.s.now()}
	r.describe(&o)
	r.names[name] = o
	r.counts[id]++
	r.counts[o.vertexID()] = 1
	return r.putName(o.vertex())
}

// putName stores the vertex of a name.
func (r *repairer) putName(plain []byte) error {
	_, err := r.putVertex(tiering.Named, plain)
	return err
}

// putVertex stores a vertex that gets one reference, if it is not there. The commit makes it
// durable before the rows.
func (r *repairer) putVertex(kind tiering.Kind, plain []byte) (ID, error) {
	id := vertex.Sum(kind, plain)
	if e, ok := r.rows[id]; ok && !e.isPlaceholder() {
		return id, nil
	}
	codec, loc, err := r.s.appender.appendRecord(kind, id, plain)
	if err != nil {
		return id, err
	}
	r.s.bad.clear(id)
	r.rows[id] = Entry{Kind: kind, Codec: codec, Loc: loc, Raw: uint32(len(plain)), Refs: 1, Entropy: quantizeEntropy(chunk.Entropy(plain))}
	return id, nil
}

// describe sets an object's sizes from the object itself, if it can be read.
func (r *repairer) describe(o *ObjectInfo) (changed bool) {
	e := r.rows[o.ID]
	if e.isPlaceholder() {
		return false // what it had is not known any more
	}
	size, data := o.Size, o.Data
	switch e.Kind {
	case tiering.Data:
		size, data = int64(e.Raw), int64(e.Raw)
	case tiering.File:
		_, plain, err := r.s.tiers.Read(e.Loc)
		if err != nil {
			return false
		}
		if v, err := vertex.DecodeFile(plain); err == nil {
			size, data = v.Size, v.Data
		}
	}
	changed = size != o.Size || data != o.Data
	o.Size, o.Data = size, data
	return changed
}

// addPlaceholders makes rows for blocks that are lost, so that their references are
// counted.
func (r *repairer) addPlaceholders(context.Context) error {
	for id := range r.counts {
		if _, ok := r.rows[id]; !ok {
			r.lose(id, "no segment has it")
			r.did("block %s is lost; it has %d references", id, r.counts[id])
		}
	}
	return nil
}

// keepLost names what had references and has none: nobody dropped them, or the count would say so.
// A directory whose snapshot or parent is lost becomes a snapshot; where that cannot be, what is
// below it becomes objects, as the sweep would take it with the vertex.
func (r *repairer) keepLost(ctx context.Context) error {
	var todo []ID
	for id, e := range r.rows {
		if r.counts[id] == 0 && e.Refs > 0 && e.Kind != tiering.Named {
			todo = append(todo, id)
		}
	}
	left := maps.Clone(r.counts) // without the references of vertices that the sweep will take
	// A list and no recursion: a directory tree may be very deep.
	for len(todo) > 0 {
		id := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if err := ctx.Err(); err != nil {
			return err
		}
		kept, err := r.keep(ctx, id)
		if err != nil {
			return err
		}
		if kept {
			continue
		}
		for _, child := range r.linksOf(id) {
			if left[child]--; left[child] == 0 {
				todo = append(todo, child)
			}
		}
	}
	if r.kept > 0 {
		r.did("%d of the blocks that were taken in belong to nothing else; they are now objects, %q and their IDs", r.kept, LostPrefix)
	}
	return nil
}

// keep gives what nothing refers to a name, if it is something that can have one.
func (r *repairer) keep(ctx context.Context, id ID) (kept bool, err error) {
	switch e := r.rows[id]; {
	case e.isPlaceholder():
		return false, nil
	case e.Kind == tiering.Data, e.Kind == tiering.File:
		name := LostPrefix + id.String()
		if r.indexed[id] {
			r.kept++ // there may be very many
		} else {
			r.did("block %s: nothing refers to it any more; it is now object %q", id, name)
		}
		return true, r.name(name, id)
	case e.Kind == tiering.Tree && r.o.LostDirectory != nil && r.counts[id] == 0:
		plain, err := r.o.LostDirectory(ctx, id)
		if errors.Is(err, ErrCorrupt) || errors.Is(err, ErrNotFound) {
			return false, nil // a part of a directory, or of a table
		}
		if err != nil {
			return false, err
		}
		return true, r.keepDirectory(id, plain)
	}
	return false, nil
}

// keepDirectory names the snapshot that plain is, of the directory with a tree.
func (r *repairer) keepDirectory(tree ID, plain []byte) error {
	snapshot, err := r.putVertex(tiering.Snapshot, plain)
	if err != nil {
		return err
	}
	ref := SnapshotRef{Name: LostSnapshots + tree.Short(), ID: snapshot, Set: r.s.now()}
	r.snaps[ref.Name] = ref
	for _, id := range append(r.linksOf(snapshot), snapshot, ref.vertexID()) {
		r.counts[id]++
	}
	r.did("directory %s: nothing refers to it any more; it is now snapshot %q", tree, ref.Name)
	return r.putName(ref.vertex())
}

// linksOf returns what a vertex links to, if it can be read.
func (r *repairer) linksOf(id ID) []ID {
	e := r.rows[id]
	if e.Kind == tiering.Data {
		return nil
	}
	_, plain, err := r.s.tiers.Read(e.Loc)
	if err != nil {
		return nil
	}
	links, _ := vertex.Links(plain) // one that does not read has none that count
	return links
}

func (r *repairer) fixRows(context.Context) error {
	for id, e := range r.rows {
		if e.Refs != r.counts[id] {
			r.did("block %s: %d references, and not %d", id, r.counts[id], e.Refs)
			e.Refs = r.counts[id]
			r.rows[id] = e
		}
		// Compared as bytes, so that a row is written only where it changes.
		old, err := r.s.db.Get(blockKey(keyBlock, id))
		if err != nil && !errors.Is(err, db.ErrNotFound) {
			return err
		}
		if row := e.encode(); !bytes.Equal(row, old) {
			r.s.db.Set(blockKey(keyBlock, id), row)
		}
	}
	return nil
}

func (r *repairer) fixZeroRows(ctx context.Context) error {
	there := make(map[ID]bool) // the sweep works from these rows alone
	err := r.scan(ctx, keyZero, func(key, _ []byte) error {
		id, err := idInKey(key)
		if e, ok := r.rows[id]; err != nil || !ok || e.Refs > 0 || len(key) != 1+len(id) {
			r.s.db.Delete(bytes.Clone(key))
			r.did("row %x was stray", key)
			return nil
		}
		there[id] = true
		return nil
	})
	for id, e := range r.rows {
		if e.Refs == 0 && !there[id] {
			r.s.db.Set(blockKey(keyZero, id), []byte{})
			r.did("block %s: nothing refers to it, and no row said so", id)
		}
	}
	return err
}

// fixNames writes the rows of objects, in both directions.
func (r *repairer) fixNames(ctx context.Context) error {
	for name, o := range r.names {
		for _, row := range [][2][]byte{{nameKey(name), o.encode()}, {objectKey(o.ID, name), {}}} {
			old, err := r.s.db.Get(row[0])
			if err != nil && !errors.Is(err, db.ErrNotFound) {
				return err
			}
			// Written only if it differs, so that a repair of a sound store changes nothing.
			if err != nil || !bytes.Equal(old, row[1]) {
				r.s.db.Set(row[0], row[1])
			}
		}
	}
	return r.scan(ctx, keyObject, func(key, _ []byte) error {
		id, err := idInKey(key)
		if err == nil {
			if o, ok := r.names[string(key[1+len(id):])]; ok && o.ID == id {
				return nil
			}
		}
		r.s.db.Delete(bytes.Clone(key))
		r.did("row %x was stray", key)
		return nil
	})
}

// fixSums adds up the segments' rows and the totals.
func (r *repairer) fixSums(ctx context.Context) error {
	live := make(map[uint64]int64)
	var t Totals
	for _, e := range r.rows {
		if !e.isPlaceholder() {
			live[e.Loc.Segment] += e.Stored()
		}
		t.count(e, 1)
	}
	for _, o := range r.names {
		t.Objects.add(o.Size, 1)
	}
	sizes := r.s.segmentSizes()
	// A segment that is lost may be another one by now, whose number was given out again.
	known := func(n uint64, row segmentRow) bool {
		return row.claim(n).End <= sizes[n] && (row.Salt == 0 || row.Salt == r.s.tiers.Salt(n))
	}
	err := r.scan(ctx, keySegment, func(key, value []byte) error {
		n, row, err := decodeSegmentKeyRow(key, value)
		if err == nil && row.Live == live[n] && row.Live <= row.Written && (row.Live == 0 || known(n, row)) {
			delete(live, n)
			return nil
		}
		if len(key) != 9 {
			r.s.db.Delete(bytes.Clone(key))
			r.did("row %x was removed: %v", key, err)
			return nil
		}
		if err != nil || !known(n, row) {
			row = segmentRow{}
		}
		// Never less than what lives in it: a share above 1 would keep it from being compacted.
		row.Live = live[n]
		row.Written = max(row.Written, row.Live)
		r.s.db.Set(bytes.Clone(key), row.encode())
		r.did("%s: %d bytes are in use", segmentName(n), row.Live)
		// What is left in live at the end has no row.
		delete(live, n)
		return nil
	})
	for n, bytes := range live {
		r.s.db.Set(segmentKey(n), segmentRow{Written: bytes, Live: bytes}.encode())
		r.did("%s: %d bytes are in use, and no row said so", segmentName(n), bytes)
	}
	t.Appended = r.s.totalsNow().Appended // nothing else says it
	if r.s.totalsNow() != t {
		r.did("the totals were added up anew")
	}
	r.s.totals.Lock()
	r.s.totals.Totals = t
	r.s.totals.Unlock()
	r.s.db.Set([]byte{keyTotals}, t.encode())
	for _, b := range r.s.bad.all() {
		if _, ok := r.rows[b.ID]; !ok {
			r.s.bad.clear(b.ID)
		}
	}
	slices.SortFunc(r.done, func(a, b Repaired) int { return cmp.Compare(a.Text, b.Text) })
	return err
}
