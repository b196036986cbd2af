package store

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sync/errgroup"

	"github.com/quarxtor/quarxfs/store/chunk"
	"github.com/quarxtor/quarxfs/store/db"
	"github.com/quarxtor/quarxfs/store/vertex"
	"github.com/quarxtor/quarxfs/tiering"
)

// blocks stores blocks and gives them back.
type blocks struct {
	*base
	index    *index
	pending  *pending
	appender *appender
	bad      *badBlocks
	hot      *hotTier

	puts struct { // per-ID single flight of Put
		mu       sync.Mutex
		inflight map[ID]chan struct{}
	}
}

// Put stores a block unless the store has it, and returns its ID. The caller
// keeps plain. The block is not referred to yet: the caller holds Hold until it
// has called Ref or pinned it. The blocks that a new vertex links to gain a
// reference each, in the same commit as the vertex itself. (I4) One of these
// happens:
//  1. The block was there: no disk I/O is done for it.
//  2. It is new: it is compressed and appended to the hot tier.
//  3. It is a new vertex and links to what the store does not have:
//     ErrNotFound, and nothing is changed. (I5)
//  4. The disk fails: the error, and nothing is changed.
func (bs *blocks) Put(kind tiering.Kind, plain []byte) (ID, error) {
	if len(plain) == 0 || len(plain) > tiering.MaxRaw {
		return ID{}, fmt.Errorf("put a block of %d bytes: %w", len(plain), ErrConfig)
	}
	if bs.readOnly {
		return bs.putInMemory(kind, plain)
	}
	return bs.put(block{kind: kind, id: vertex.Sum(kind, plain), plain: plain})
}

// A block is what is to be stored.
type block struct {
	kind   tiering.Kind
	id     ID
	plain  []byte
	packed *Record   // as it is to be stored; nil: to be compressed
	at     *location // where it is stored already; nil: nowhere
}

func (bs *blocks) put(b block) (ID, error) {
	id := b.id
	bs.pending.note(id)
	for {
		// Without a claim first: most blocks that are put are there already.
		_, err := bs.db.Get(blockKey(keyBlock, id))
		if err == nil && bs.bad.has(id) {
			err = bs.restore(b)
		}
		if err == nil {
			return id, nil
		}
		if !errors.Is(err, db.ErrNotFound) {
			return ID{}, fmt.Errorf("look up block %s: %w", id.Short(), err)
		}
		done, mine := bs.claim(id)
		if mine {
			defer bs.unclaim(id, done)
			return id, bs.append(b)
		}
		// Not an answer by itself: who stored it may have failed, so the row is looked up again.
		<-done
	}
}

// claim claims the storing of id; when somebody else has it, their channel
// is closed when they are done.
func (bs *blocks) claim(id ID) (done chan struct{}, mine bool) {
	bs.puts.mu.Lock()
	defer bs.puts.mu.Unlock()
	if c, ok := bs.puts.inflight[id]; ok {
		return c, false
	}
	// Closed and never sent on, so that any number can wait.
	c := make(chan struct{})
	bs.puts.inflight[id] = c
	return c, true
}

func (bs *blocks) unclaim(id ID, done chan struct{}) {
	bs.puts.mu.Lock()
	delete(bs.puts.inflight, id)
	bs.puts.mu.Unlock()
	close(done)
}

func (bs *blocks) append(b block) error {
	id := b.id
	// Whoever flew before us may have done between our look-up and take-off.
	if _, err := bs.db.Get(blockKey(keyBlock, id)); err == nil {
		return nil
	}
	// Before the record is appended: a vertex that links to nothing must leave no trace.
	links, err := bs.linksOfNew(b.kind, b.plain)
	if err != nil {
		return fmt.Errorf("store %s vertex %s: %w", b.kind, id.Short(), err)
	}
	codec, loc, err := bs.appender.appendBlock(b)
	if err != nil {
		return err
	}
	e := Entry{Kind: b.kind, Codec: codec, Loc: loc, Raw: uint32(len(b.plain)), Entropy: quantizeEntropy(chunk.Entropy(b.plain))}
	row := e.encode()
	// The row and the note of the change under one hold of pending: a cut between them would
	// commit a row that no segment's sum has.
	bs.pending.mu.Lock()
	defer bs.pending.mu.Unlock()
	c := bs.pending.changes[id]
	c.fresh, c.came = true, b.packed != nil
	bs.pending.changes[id] = c
	bs.pending.fresh[loc.Segment]++
	for _, child := range links {
		bs.pending.ref(child, 1)
	}
	bs.db.Set(blockKey(keyBlock, id), row)
	return nil
}

// An appender makes records of blocks.
type appender struct {
	*base
	compression string // as in Config
}

// appendBlock appends a block to the hot tier, unless a tier has it.
func (ap *appender) appendBlock(b block) (tiering.Codec, tiering.Location, error) {
	if b.at != nil {
		return b.at.codec, b.at.loc, nil
	}
	if b.packed == nil {
		return ap.appendRecord(b.kind, b.id, b.plain)
	}
	loc, err := ap.appendInto(tiering.Hot, *b.packed)
	if err != nil {
		err = fmt.Errorf("store block %s: %w", b.id.Short(), err)
	}
	return b.packed.Codec, loc, err
}

// appendRecord compresses a block and appends it to the hot tier.
func (ap *appender) appendRecord(kind tiering.Kind, id ID, plain []byte) (tiering.Codec, tiering.Location, error) {
	return ap.appendTo(tiering.Hot, kind, id, plain)
}

// appendTo does so for any tier.
func (ap *appender) appendTo(tier uint8, kind tiering.Kind, id ID, plain []byte) (tiering.Codec, tiering.Location, error) {
	codec, payload := tiering.Raw, plain
	// Given back when appendInto has copied it into the segment's buffer, not before.
	buf := compressBuffers.Get().(*[]byte)
	defer compressBuffers.Put(buf)
	if want := ap.codecFor(tier); want != tiering.Raw {
		if n := tiering.MaxCompressed(len(plain)); cap(*buf) < n {
			*buf = make([]byte, 0, n)
		}
		codec, payload = tiering.Compress(want, *buf, plain)
	}
	loc, err := ap.appendInto(tier, tiering.Record{ID: id, Kind: kind, Codec: codec, RawLen: uint32(len(plain)), Payload: payload})
	if err != nil {
		return codec, loc, fmt.Errorf("store block %s: %w", id.Short(), err)
	}
	return codec, loc, nil
}

// appendInto appends a record to a tier. What was admitted while there was room, and finds the disk
// full now because of other programs, gets the ballast's.
func (ap *appender) appendInto(tier uint8, r tiering.Record) (tiering.Location, error) {
	loc, err := ap.tiers.AppendTo(tier, r)
	if tier == tiering.Hot && isFull(err) && ap.db.GiveRoom(int64(len(r.Payload))+segmentRoom) {
		loc, err = ap.tiers.AppendTo(tier, r)
	}
	return loc, err
}

// segmentRoom covers what a new segment needs besides its first record.
const segmentRoom = 64 << 10

func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// codecFor is how new records of a tier are compressed: quickly in the hot one,
// well in the cold one.
func (ap *appender) codecFor(tier uint8) tiering.Codec {
	switch {
	case ap.compression != "s2":
		return tiering.Raw
	case tier == tiering.Cold:
		return tiering.Zstd
	}
	return tiering.S2
}

// linksOfNew returns what a vertex that is about to be stored links to, all of
// which the store must have. Data has no links.
func (bs *blocks) linksOfNew(kind tiering.Kind, plain []byte) ([]ID, error) {
	if kind == tiering.Data {
		return nil, nil
	}
	links, err := vertex.Links(plain)
	if err != nil {
		return nil, err
	}
	for _, id := range links {
		if has, err := bs.index.Has(id); err != nil {
			return nil, err
		} else if !has {
			return nil, fmt.Errorf("it links to block %s: %w", id.Short(), ErrNotFound)
		}
	}
	return links, nil
}

var compressBuffers = sync.Pool{New: func() any { return new([]byte) }}

// PutAll puts data blocks, on as many cores as there are, and returns their
// IDs in order. The first error wins.
func (bs *blocks) PutAll(blocks [][]byte) ([]ID, error) {
	ids := make([]ID, len(blocks))
	var g errgroup.Group
	g.SetLimit(runtime.NumCPU())
	for i, b := range blocks {
		// Each writes its own place of ids, so no lock is needed.
		g.Go(func() (err error) {
			ids[i], err = bs.Put(tiering.Data, b)
			return err
		})
	}
	return ids, g.Wait()
}

// Get returns the block's plain bytes, which are shared and must not be
// changed. One of these things happens:
//  1. The bytes are present and hash to id: they are returned. (I2)
//  2. The store has no such block: ErrNotFound.
//  3. The stored bytes do not hash to id: ErrCorrupt, and no bytes.
//  4. The block is in a cold tier that cannot be reached: ErrUnavailable, after
//     a bounded time.
func (bs *blocks) Get(ctx context.Context, id ID) ([]byte, error) {
	l, err := bs.Borrow(ctx, id, 0)
	return l.Plain, err
}

// A Loan is a block's plain bytes until they are returned.
type Loan = tiering.Loan

// Borrow is Get for who wants n bytes of the block now, and returns them. If that is all of it, it
// is not left in RAM, see tiering.Set.Borrow. The rest of any other one is likely to be wanted
// next.
func (bs *blocks) Borrow(ctx context.Context, id ID, n int) (l Loan, err error) {
	if plain, ok := bs.tiers.Cached(id); ok {
		bs.hot.used(id, false)
		return Loan{Plain: plain}, nil
	}
	// Blocks of a store that is open for reading only, which no segment has.
	if m, ok := bs.memory.get(id); ok {
		return Loan{Plain: m.plain}, nil
	}
	e, err := bs.index.Lookup(id)
	if err != nil {
		return l, err
	}
	// Before it is read: a cold block that is asked for is wanted hot, even if this fails.
	bs.hot.used(id, e.Loc.Tier == tiering.Cold)
	err = bs.follow(id, e, func(loc tiering.Location) (err error) {
		if n == int(e.Raw) {
			l, err = bs.tiers.Borrow(ctx, id, loc)
		} else {
			l.Plain, err = bs.tiers.Get(ctx, id, loc)
		}
		return err
	})
	return l, err
}

// follow calls read with where a block is, again when the block has moved since e
// was looked up, or was swept and stored again. A block that cannot be read is marked
// as bad: ErrCorrupt.
func (bs *blocks) follow(id ID, e Entry, read func(tiering.Location) error) error {
	for {
		var err error
		if e.isPlaceholder() {
			err = bs.bad.lost(id)
		} else if err = read(e.Loc); err == nil {
			return nil
		}
		// A compaction or a move may have taken the block elsewhere while it was read.
		now, lookErr := bs.index.Lookup(id)
		switch {
		case lookErr != nil:
			return lookErr
		case now.Loc != e.Loc:
			e = now
			continue
		case e.isPlaceholder():
			return err // which says all there is to say
		case errors.Is(err, tiering.ErrCorrupt), errors.Is(err, tiering.ErrNotFound):
			bs.bad.mark(id, err)
			return fmt.Errorf("block %s: %w: %w", id, ErrCorrupt, err)
		}
		return fmt.Errorf("block %s: %w", id.Short(), err)
	}
}

// Prefetch brings blocks into the RAM tier soon, or not at all when busy.
func (bs *blocks) Prefetch(ids []ID) {
	for _, id := range ids {
		if bs.tiers.InRAM(id) {
			continue
		}
		e, err := bs.index.Lookup(id)
		if err != nil || e.isPlaceholder() {
			continue
		}
		bs.tiers.Prefetch(id, e.Loc)
	}
}

// Preload brings a block of the hot tier into the RAM tier, unless it is there. It
// is no use of the block, and who gets the block is told of errors.
func (bs *blocks) Preload(id ID) {
	if bs.tiers.InRAM(id) {
		return
	}
	if e, err := bs.index.Lookup(id); err == nil && e.Loc.Tier == tiering.Hot && !e.isPlaceholder() {
		bs.tiers.Preload(id, e.Loc)
	}
}
