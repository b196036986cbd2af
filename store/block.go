package store

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/quarxtor/quarxfs/store/chunk"
	"github.com/quarxtor/quarxfs/store/db"
	"github.com/quarxtor/quarxfs/store/vertex"
	"github.com/quarxtor/quarxfs/tiering"
)

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
func (s *Store) Put(kind tiering.Kind, plain []byte) (ID, error) {
	if len(plain) == 0 || len(plain) > tiering.MaxRaw {
		return ID{}, fmt.Errorf("put a block of %d bytes: %w", len(plain), ErrConfig)
	}
	if s.opts.ReadOnly {
		return s.putInMemory(kind, plain)
	}
	return s.put(block{kind: kind, id: vertex.Sum(kind, plain), plain: plain})
}

// A block is what is to be stored.
type block struct {
	kind   tiering.Kind
	id     ID
	plain  []byte
	packed *Record   // as it is to be stored; nil: to be compressed
	at     *location // where it is stored already; nil: nowhere
}

func (s *Store) put(b block) (ID, error) {
	id := b.id
	s.note(id)
	for {
		// Without a claim first: most blocks that are put are there already.
		_, err := s.db.Get(blockKey(keyBlock, id))
		if err == nil && s.bad.has(id) {
			err = s.restore(b)
		}
		if err == nil {
			return id, nil
		}
		if !errors.Is(err, db.ErrNotFound) {
			return ID{}, fmt.Errorf("look up block %s: %w", id.Short(), err)
		}
		done, mine := s.claim(id)
		if mine {
			defer s.unclaim(id, done)
			return id, s.append(b)
		}
		<-done
	}
}

// note keeps a block for whoever holds, before it is looked up, or the sweep could
// come in between.
func (s *Store) note(id ID) {
	s.pend.Lock()
	defer s.pend.Unlock()
	s.pend.holds.note(id)
}

// claim claims the storing of id; when somebody else has it, their channel
// is closed when they are done.
func (s *Store) claim(id ID) (done chan struct{}, mine bool) {
	s.puts.Lock()
	defer s.puts.Unlock()
	if c, ok := s.puts.inflight[id]; ok {
		return c, false
	}
	c := make(chan struct{})
	s.puts.inflight[id] = c
	return c, true
}

func (s *Store) unclaim(id ID, done chan struct{}) {
	s.puts.Lock()
	delete(s.puts.inflight, id)
	s.puts.Unlock()
	close(done)
}

func (s *Store) append(b block) error {
	id := b.id
	// Whoever flew before us may have done between our look-up and take-off.
	if _, err := s.db.Get(blockKey(keyBlock, id)); err == nil {
		return nil
	}
	links, err := s.linksOfNew(b.kind, b.plain)
	if err != nil {
		return fmt.Errorf("store %s vertex %s: %w", b.kind, id.Short(), err)
	}
	codec, loc, err := s.appendBlock(b)
	if err != nil {
		return err
	}
	e := Entry{Kind: b.kind, Codec: codec, Loc: loc, Raw: uint32(len(b.plain)), Entropy: quantizeEntropy(chunk.Entropy(b.plain))}
	row := e.encode()
	// The row and the note of the change under one hold of pend: a cut between them would commit a
	// row that no segment's sum has.
	s.pend.Lock()
	defer s.pend.Unlock()
	c := s.pend.changes[id]
	c.fresh = true
	s.pend.changes[id] = c
	s.pend.fresh[loc.Segment]++
	for _, child := range links {
		s.ref(child, 1)
	}
	s.db.Set(blockKey(keyBlock, id), row)
	return nil
}

// appendBlock appends a block to the hot tier, unless a tier has it.
func (s *Store) appendBlock(b block) (tiering.Codec, tiering.Location, error) {
	if b.at != nil {
		return b.at.codec, b.at.loc, nil
	}
	if b.packed == nil {
		return s.appendRecord(b.kind, b.id, b.plain)
	}
	loc, err := s.appendInto(tiering.Hot, *b.packed)
	if err != nil {
		err = fmt.Errorf("store block %s: %w", b.id.Short(), err)
	}
	return b.packed.Codec, loc, err
}

// appendRecord compresses a block and appends it to the hot tier.
func (s *Store) appendRecord(kind tiering.Kind, id ID, plain []byte) (tiering.Codec, tiering.Location, error) {
	return s.appendTo(tiering.Hot, kind, id, plain)
}

// appendTo does so for any tier.
func (s *Store) appendTo(tier uint8, kind tiering.Kind, id ID, plain []byte) (tiering.Codec, tiering.Location, error) {
	codec, payload := tiering.Raw, plain
	buf := compressBuffers.Get().(*[]byte)
	defer compressBuffers.Put(buf)
	if want := s.codecFor(tier); want != tiering.Raw {
		if n := tiering.MaxCompressed(len(plain)); cap(*buf) < n {
			*buf = make([]byte, 0, n)
		}
		codec, payload = tiering.Compress(want, *buf, plain)
	}
	loc, err := s.appendInto(tier, tiering.Record{ID: id, Kind: kind, Codec: codec, RawLen: uint32(len(plain)), Payload: payload})
	if err != nil {
		return codec, loc, fmt.Errorf("store block %s: %w", id.Short(), err)
	}
	return codec, loc, nil
}

// appendInto appends a record to a tier. What was admitted while there was room, and finds the disk
// full now because of other programs, gets the ballast's.
func (s *Store) appendInto(tier uint8, r tiering.Record) (tiering.Location, error) {
	loc, err := s.tiers.AppendTo(tier, r)
	if tier == tiering.Hot && isFull(err) && s.db.GiveRoom(int64(len(r.Payload))+segmentRoom) {
		loc, err = s.tiers.AppendTo(tier, r)
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
func (s *Store) codecFor(tier uint8) tiering.Codec {
	switch {
	case s.conf.Compression != "s2":
		return tiering.Raw
	case tier == tiering.Cold:
		return tiering.Zstd
	}
	return tiering.S2
}

// linksOfNew returns what a vertex that is about to be stored links to, all of
// which the store must have. Data has no links.
func (s *Store) linksOfNew(kind tiering.Kind, plain []byte) ([]ID, error) {
	if kind == tiering.Data {
		return nil, nil
	}
	links, err := vertex.Links(plain)
	if err != nil {
		return nil, err
	}
	for _, id := range links {
		if has, err := s.Has(id); err != nil {
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
func (s *Store) PutAll(blocks [][]byte) ([]ID, error) {
	ids := make([]ID, len(blocks))
	workers := min(runtime.NumCPU(), len(blocks))
	var next atomic.Int64
	errs := make([]error, workers)
	work := func(w int) {
		for {
			i := int(next.Add(1)) - 1
			if i >= len(blocks) || errs[w] != nil {
				return
			}
			ids[i], errs[w] = s.Put(tiering.Data, blocks[i])
		}
	}
	var wg sync.WaitGroup
	for w := 1; w < workers; w++ {
		wg.Go(func() { work(w) })
	}
	if workers > 0 {
		work(0)
	}
	wg.Wait()
	return ids, errors.Join(errs...)
}

// Lookup returns the block's row in the index. References that are not yet
// committed are not counted. ErrNotFound: the store has no such block.
func (s *Store) Lookup(id ID) (Entry, error) {
	b, err := s.db.Get(blockKey(keyBlock, id))
	if errors.Is(err, db.ErrNotFound) {
		if m, ok := s.memory.get(id); ok {
			return Entry{Kind: m.kind, Raw: uint32(len(m.plain))}, nil
		}
		return Entry{}, fmt.Errorf("block %s: %w", id.Short(), ErrNotFound)
	}
	if err != nil {
		return Entry{}, err
	}
	return decodeEntry(b)
}

// Has reports whether the store has the block.
func (s *Store) Has(id ID) (bool, error) {
	_, err := s.Lookup(id)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// Get returns the block's plain bytes, which are shared and must not be
// changed. One of these things happens:
//  1. The bytes are present and hash to id: they are returned. (I2)
//  2. The store has no such block: ErrNotFound.
//  3. The stored bytes do not hash to id: ErrCorrupt, and no bytes.
//  4. The block is in a cold tier that cannot be reached: ErrUnavailable, after
//     a bounded time.
func (s *Store) Get(ctx context.Context, id ID) ([]byte, error) {
	if plain, ok := s.tiers.Cached(id); ok {
		s.used(id, false)
		return plain, nil
	}
	if m, ok := s.memory.get(id); ok {
		return m.plain, nil
	}
	e, err := s.Lookup(id)
	if err != nil {
		return nil, err
	}
	s.used(id, e.Loc.Tier == tiering.Cold)
	var plain []byte
	err = s.follow(id, e, func(loc tiering.Location) (err error) {
		plain, err = s.tiers.Get(ctx, id, loc)
		return err
	})
	return plain, err
}

// follow calls read with where a block is, again when the block has moved since e
// was looked up, or was swept and stored again. A block that cannot be read is marked
// as bad: ErrCorrupt.
func (s *Store) follow(id ID, e Entry, read func(tiering.Location) error) error {
	for {
		err := read(e.Loc)
		if err == nil {
			return nil
		}
		// A compaction or a move may have taken the block elsewhere while it was read.
		now, lookErr := s.Lookup(id)
		switch {
		case lookErr != nil:
			return lookErr
		case now.Loc != e.Loc:
			e = now
			continue
		case errors.Is(err, tiering.ErrCorrupt), errors.Is(err, tiering.ErrNotFound):
			s.markBad(id, err)
			return fmt.Errorf("block %s: %w: %w", id, ErrCorrupt, err)
		}
		return fmt.Errorf("block %s: %w", id.Short(), err)
	}
}

// Prefetch brings blocks into the RAM tier soon, or not at all when busy.
func (s *Store) Prefetch(ids []ID) {
	for _, id := range ids {
		if s.tiers.InRAM(id) {
			continue
		}
		e, err := s.Lookup(id)
		if err != nil {
			continue
		}
		s.tiers.Prefetch(id, e.Loc)
	}
}

// Preload brings a block of the hot tier into the RAM tier, unless it is there. It
// is no use of the block, and who gets the block is told of errors.
func (s *Store) Preload(id ID) {
	if s.tiers.InRAM(id) {
		return
	}
	if e, err := s.Lookup(id); err == nil && e.Loc.Tier == tiering.Hot {
		s.tiers.Preload(id, e.Loc)
	}
}
