package tiering

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/quarxtor/quarxfs/tiering/segment"
)

// Read returns the header and the plain bytes of the record at loc, checked
// like those of Get and with the same errors, but without RAM in between: for
// scrubbing and rebuilding. The bytes are the caller's.
func (s *Set) Read(loc Location) (segment.Header, []byte, error) {
	return s.read(loc, func(int) []byte { return nil })
}

// read is Read into what room returns for so many bytes, as far as they fit there.
func (s *Set) read(loc Location, room func(n int) []byte) (segment.Header, []byte, error) {
	// The stored bytes are needed only until they are plain.
	buf := buffers.Get().(*[]byte)
	defer recycle(buf)
	t, err := s.holder(loc.Segment)
	if err != nil {
		return segment.Header{}, nil, err
	}
	start := time.Now()
	h, stored, err := t.record(loc, buf)
	if err != nil {
		return h, nil, s.reached(t, err)
	}
	c := &s.counters.tiers[t.id]
	c.readTime.Add(time.Since(start))
	c.reads.Add(1)
	c.bytesRead.Add(uint64(loc.Length))
	plain, err := segment.Decompress(h.Codec, room(int(h.RawLen)), stored, int(h.RawLen))
	if err != nil {
		return h, nil, &CorruptError{Segment: loc.Segment, Offset: loc.Offset, Reason: "payload", Err: err}
	}
	// The checksum found what the disk changed; this finds what was stored under a wrong ID.
	if s.verify != nil && !s.verify(h.Kind, h.ID, plain) {
		return h, nil, &CorruptError{Segment: loc.Segment, Offset: loc.Offset, Reason: "the bytes do not hash to the block's ID"}
	}
	return h, plain, nil
}

// Stored returns the record at loc as Append takes it, its payload still
// compressed, for moving it elsewhere. Its checksums are checked, its ID is
// not. The payload is the caller's.
func (s *Set) Stored(loc Location) (Record, error) {
	t, err := s.holder(loc.Segment)
	if err != nil {
		return Record{}, err
	}
	var buf []byte
	h, stored, err := t.record(loc, &buf)
	if err != nil {
		return Record{}, s.reached(t, err)
	}
	return Record{ID: h.ID, Kind: h.Kind, Codec: h.Codec, RawLen: h.RawLen, Payload: stored}, nil
}

// fill reads a block for Get and leaves it in RAM.
func (s *Set) fill(id [32]byte, loc Location) ([]byte, error) {
	// It may have come in since the caller looked.
	if plain, ok := s.cache.get(id); ok {
		return plain, nil
	}
	plain, err := s.block(id, loc, func(int) []byte { return nil })
	if err == nil {
		s.cache.set(id, plain)
	}
	return plain, err
}

// block reads a block that is not in RAM.
func (s *Set) block(id [32]byte, loc Location, room func(n int) []byte) ([]byte, error) {
	h, plain, err := s.read(loc, room)
	if err == nil && h.ID != id {
		other := h.ID // h itself would escape
		err = &CorruptError{Segment: loc.Segment, Offset: loc.Offset, Reason: fmt.Sprintf("the record is block %x", other[:6])}
	}
	if err != nil {
		wanted := id
		return nil, fmt.Errorf("read %x: %w", wanted[:6], err)
	}
	s.counters.fills.Add(1)
	s.hotCurve.use(&id, int64(loc.Length))
	return plain, nil
}

// record reads one whole record into buf, which it may replace, and returns its
// header and payload. The header's and the payload's checks have passed.
func (t *tier) record(loc Location, buf *[]byte) (segment.Header, []byte, error) {
	bad := func(reason string, err error) (segment.Header, []byte, error) {
		t.ahead.forget(loc.Segment) // another try may bring other bytes
		return segment.Header{}, nil, &CorruptError{Segment: loc.Segment, Offset: loc.Offset, Reason: reason, Err: err}
	}
	if loc.Tier != t.id {
		return segment.Header{}, nil, fmt.Errorf("tier %d: %w", loc.Tier, ErrNotFound)
	}
	if loc.Length < segment.HeaderSize || loc.Length > segment.HeaderSize+segment.MaxRaw {
		return bad(fmt.Sprintf("location of %d bytes", loc.Length), nil)
	}
	hd, err := t.table.acquire(loc.Segment)
	if err != nil {
		return segment.Header{}, nil, err
	}
	defer hd.release()
	// The location comes from the index, and was bounded above.
	if cap(*buf) < int(loc.Length) {
		*buf = make([]byte, loc.Length)
	}
	p := (*buf)[:loc.Length]
	if n, err := t.readAt(hd, loc.Segment, p, int64(loc.Offset)); n < len(p) {
		if errors.Is(err, io.EOF) || err == nil {
			return bad(fmt.Sprintf("the segment ends %d bytes short", len(p)-n), nil)
		}
		return segment.Header{}, nil, err
	}
	// With the offset that was asked for: a location that is wrong finds no record there.
	h, err := segment.ParseHeader(p, hd.header, loc.Offset)
	switch {
	case err != nil:
		return bad("record header", err)
	case h.Length() != loc.Length:
		return bad(fmt.Sprintf("the record has %d bytes, its location %d", h.Length(), loc.Length), nil)
	case segment.Checksum(p[segment.HeaderSize:]) != h.PayloadCRC:
		return bad("payload fails its checksum", nil)
	}
	return h, p[segment.HeaderSize:], nil
}

// buffers has *[]byte for stored bytes on their way to being plain.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// maxPooled keeps a rare huge record from staying in memory.
const maxPooled = 1 << 20

func recycle(buf *[]byte) {
	if cap(*buf) <= maxPooled {
		buffers.Put(buf)
	}
}

// flights lets goroutines that want the same block wait for one read.
type flights struct {
	mu    sync.Mutex
	calls map[[32]byte]*flight
	alone sync.WaitGroup // those that go on without who began them
}

type flight struct {
	loc   Location
	done  chan struct{} // made by the first that waits; guarded by flights.mu
	plain []byte
	err   error
}

var errPanicked = errors.New("read panicked")

// do returns what s.fill returns, or the result of one that is under way for
// the same block. Waiting for another's read or for a cold tier heeds the context.
func (f *flights) do(ctx context.Context, s *Set, id [32]byte, loc Location) ([]byte, error) {
	f.mu.Lock()
	call, joined := f.calls[id]
	if !joined {
		call = &flight{loc: loc, err: errPanicked}
		f.calls[id] = call
		if loc.Tier != Cold || ctx.Done() == nil {
			f.mu.Unlock()
			f.fly(s, id, call)
			return call.plain, call.err
		}
	}
	if call.done == nil {
		call.done = make(chan struct{})
	}
	done := call.done
	if !joined {
		// By itself: it cannot be broken off, and others may have come to wait for it.
		f.alone.Go(func() { f.fly(s, id, call) })
	}
	f.mu.Unlock()
	select {
	case <-done:
		if call.err != nil && call.loc != loc {
			// A block that has moved: that one's failure says nothing of ours.
			return f.do(ctx, s, id, loc)
		}
		return call.plain, call.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// fly reads for a flight, and tells those who wait.
func (f *flights) fly(s *Set, id [32]byte, call *flight) {
	// Also when fill panics: those who wait get errPanicked.
	defer f.release(id, call)
	call.plain, call.err = s.fill(id, call.loc)
}

// underWay reports whether a block is being read.
func (f *flights) underWay(id [32]byte) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[id] != nil
}

func (f *flights) release(id [32]byte, call *flight) {
	f.mu.Lock()
	// Out of the map before it is told: who comes now reads anew.
	delete(f.calls, id)
	done := call.done
	f.mu.Unlock()
	if done != nil {
		close(done)
	}
}

// scan is Scan of one tier. stop: the error is that of fn.
func (t *tier) scan(fn func(loc Location, h segment.Header) error) (stop bool, err error) {
	var damage []error
	for _, info := range t.table.segments() {
		entries, err := t.entries(info.Number)
		if errors.Is(err, ErrNotFound) { // removed meanwhile
			continue
		}
		if err != nil {
			damage = append(damage, err)
		}
		for _, e := range entries {
			loc := Location{Tier: t.id, Segment: info.Number, Offset: e.Offset, Length: e.Length()}
			if err := fn(loc, e.Header); err != nil {
				return true, err
			}
		}
	}
	return false, errors.Join(damage...)
}

// entries returns a segment's records in order: from memory for an open one,
// from the footer of a sealed one, and where that is damaged by looking at
// every byte; then there is an error as well.
func (t *tier) entries(number uint64) ([]segment.Entry, error) {
	// Live first: a segment leaves the live ones only when it has a footer.
	t.mu.Lock()
	w, live := t.mu.live[number]
	var entries []segment.Entry
	if live {
		entries = sorted(w.entries)
	}
	t.mu.Unlock()
	if live {
		return entries, nil
	}
	hd, err := t.table.acquire(number)
	if err != nil {
		return nil, err
	}
	defer hd.release()
	size, err := hd.file.Size()
	if err != nil {
		return nil, err
	}
	header, entries, err := segment.ReadFooter(hd.file, size)
	// A footer names its segment: one of another file, copied here, must not be taken.
	if err == nil && header == hd.header {
		return entries, nil
	}
	if err != nil && !errors.Is(err, segment.ErrFormat) {
		return nil, err
	}
	// A damaged footer costs a look at every byte, and no record; that it is damaged is told as
	// well.
	footerErr := &CorruptError{Segment: number, Reason: "footer", Err: err}
	entries = nil
	_, err = segment.Scan(hd.file, hd.header, size, func(e segment.Entry, _ []byte) error {
		entries = append(entries, e)
		return nil
	})
	return entries, errors.Join(footerErr, err)
}
