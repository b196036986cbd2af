package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quarxtor/quarxfs/store/chunk"
	"github.com/quarxtor/quarxfs/store/db"
	"github.com/quarxtor/quarxfs/tiering"
)

// A BadBlock is a block whose record could not be read or does not hold its
// bytes. Its row stays, so that its references are not lost; when the same bytes
// are Put again they are stored anew and the mark goes.
type BadBlock struct {
	ID     ID        `json:"id"`
	Found  time.Time `json:"found"`
	Reason string    `json:"reason"`
}

// badBlocks are the marks. Memory has them all, the database as of the last
// commit.
type badBlocks struct {
	*base
	mu      sync.Mutex
	count   atomic.Int64 // of blocks, so that Put need not lock for nothing
	ever    atomic.Int64 // marks since the store was opened, with those that were there
	blocks  map[ID]BadBlock
	changed map[ID]struct{} // whose rows the next commit writes
}

// maxReason bounds what a mark says of its cause, in bytes.
const maxReason = 500

func (b *badBlocks) set(id ID, found time.Time, reason string) (isNew bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.blocks[id]; ok {
		return false
	}
	b.blocks[id] = BadBlock{id, found, reason[:min(len(reason), maxReason)]}
	b.changed[id] = struct{}{}
	b.count.Add(1)
	b.ever.Add(1)
	return true
}

func (b *badBlocks) clear(id ID) {
	if b.count.Load() == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.blocks[id]; ok {
		delete(b.blocks, id)
		b.changed[id] = struct{}{}
		b.count.Add(-1)
	}
}

func (b *badBlocks) has(id ID) bool {
	if b.count.Load() == 0 {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	_, ok := b.blocks[id]
	return ok
}

// rows adds the rows of marks that changed to a commit.
func (b *badBlocks) rows(batch *db.Batch) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id := range b.changed {
		if m, ok := b.blocks[id]; ok {
			batch.Set(blockKey(keyBad, id), append(binary.AppendVarint(nil, m.Found.UnixMilli()), m.Reason...))
		} else {
			batch.Delete(blockKey(keyBad, id))
		}
	}
	clear(b.changed)
}

func (b *badBlocks) load() error {
	return b.db.ScanPrefix([]byte{keyBad}, func(key, value []byte) error {
		id, err := idInKey(key)
		ms, n := binary.Varint(value)
		if err != nil || n <= 0 {
			// A mark that does not read is lost and its block found bad again at the next read.
			b.log.Error("the mark of a bad block is damaged", "row", fmt.Sprintf("%x", key))
			return nil
		}
		b.blocks[id] = BadBlock{id, time.UnixMilli(ms), string(value[n:])}
		b.count.Add(1)
		b.ever.Add(1)
		return nil
	})
}

// all returns the marks in order of ID.
func (b *badBlocks) all() []BadBlock {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := make([]BadBlock, 0, len(b.blocks))
	for _, m := range b.blocks {
		list = append(list, m)
	}
	slices.SortFunc(list, func(a, b BadBlock) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	return list
}

// mark notes that a block cannot be read.
func (b *badBlocks) mark(id ID, cause error) {
	if b.set(id, b.now(), cause.Error()) {
		b.log.Error("bad block", "block", id, "err", cause)
	}
}

// lost is the error for the bytes of a placeholder.
func (b *badBlocks) lost(id ID) error {
	b.mark(id, errNowhere) // which a repair has done, and said why
	b.mu.Lock()
	defer b.mu.Unlock()
	return lostError{id, b.blocks[id].Reason}
}

var errNowhere = errors.New("no segment has it")

// A lostError says of a block that a repair has let go of where it was. It is ErrCorrupt: to
// who reads, the bytes are not what they must be.
type lostError struct {
	id  ID
	why string
}

func (e lostError) Error() string { return fmt.Sprintf("block %s is lost: %s", e.id, e.why) }
func (e lostError) Unwrap() error { return ErrCorrupt }

// BadMarks counts the marks of bad blocks that were there when the store was opened and that were
// made since, also those that are gone: as long as it is the same, nothing new is known to be bad.
func (s *Store) BadMarks() int64 { return s.bad.ever.Load() }

// BadBlocks returns the blocks that are marked as bad, in order of ID.
func (s *Store) BadBlocks() []BadBlock { return s.bad.all() }

// A placeholder is the row of a block that is lost and still referred to: it keeps
// the count of references until the same bytes are Put again. What kind of block
// it was is not known, so what it links to is not counted.
func placeholder() Entry { return Entry{Kind: tiering.Data} }

// isPlaceholder: segments are numbered from 1.
func (e Entry) isPlaceholder() bool { return e.Loc.Segment == 0 }

// Lost reports whether no segment has the block, and a repair has let go of it. Of what it was only
// the count of references is known.
func (e Entry) Lost() bool { return e.isPlaceholder() }

// restore stores the bytes of a bad block anew. It needs no look at what a commit
// under way does to the block: if that moves it, the copy here is waste.
func (bs *blocks) restore(b block) error {
	id := b.id
	done, mine := bs.claim(id)
	if !mine {
		<-done
		return nil
	}
	defer bs.unclaim(id, done)
	e, err := bs.index.Lookup(id)
	if errors.Is(err, ErrNotFound) {
		return db.ErrNotFound // the caller stores it as a new block
	}
	if err != nil {
		return err
	}
	var links []ID
	// The counts of what a lost vertex links to were given up with it, and are taken again here.
	if e.isPlaceholder() {
		if links, err = bs.linksOfNew(b.kind, b.plain); err != nil {
			return err
		}
	}
	codec, loc, err := bs.appender.appendBlock(b)
	if err != nil {
		return err
	}
	// Into RAM: until the next commit the row leads to the bad record.
	bs.tiers.Insert(id, bytes.Clone(b.plain))
	bs.pending.mu.Lock()
	defer bs.pending.mu.Unlock()
	c := bs.pending.changes[id]
	if !c.settled() {
		return nil // swept or moved meanwhile; the copy is waste
	}
	c.move = &relocation{from: e.Loc, to: location{loc, codec}, restores: true}
	if e.isPlaceholder() {
		row := Entry{Kind: b.kind, Raw: uint32(len(b.plain)), Entropy: quantizeEntropy(chunk.Entropy(b.plain))}
		c.move.placeholder = &row
		for _, child := range links {
			bs.pending.ref(child, 1)
		}
	}
	bs.pending.changes[id] = c
	bs.pending.fresh[loc.Segment]++
	bs.log.Info("a bad block was written anew", "block", id)
	return nil
}
