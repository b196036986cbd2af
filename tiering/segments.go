package tiering

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quarxtor/quarxfs/tiering/segment"
)

// A Placed is a record as a segment lists it: where it is, and its header.
type Placed struct {
	Location
	segment.Header
}

// Records returns the records of one segment in order of offset. Where the
// segment's list of them is damaged, it returns those that are whole, and an error
// besides. ErrNotFound: there is no such segment.
func (s *Set) Records(number uint64) ([]Placed, error) {
	t, err := s.holder(number)
	if err != nil {
		return nil, fmt.Errorf("records of segment %x: %w", number, err)
	}
	entries, err := t.entries(number)
	err = s.reached(t, err)
	list := make([]Placed, len(entries))
	for i, e := range entries {
		list[i] = Placed{Location{Tier: t.id, Segment: number, Offset: e.Offset, Length: e.Length()}, e.Header}
	}
	if err != nil {
		err = fmt.Errorf("records of segment %x: %w", number, err)
	}
	return list, err
}

// Written returns when the hot tier's segments were last written to. Where that is
// not known it is long ago.
func (s *Set) Written() (map[uint64]time.Time, error) {
	files, err := s.hot.fs.List(s.hot.dir)
	if err != nil {
		return nil, fmt.Errorf("list the hot tier: %w", err)
	}
	written := make(map[uint64]time.Time, len(files))
	for _, f := range files {
		if number, _, ok := segment.ParseName(f.Name); ok {
			written[number] = f.Modified
		}
	}
	return written, nil
}

// Active returns the segment of a tier that is appended to, if there is one with
// records.
func (s *Set) Active(id uint8) (number uint64, ok bool) {
	t, err := s.tier(id)
	if err != nil {
		return 0, false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	w := t.mu.active
	if w == nil || w.end == w.start {
		return 0, false
	}
	return w.number, true
}

// Persist makes durable the bytes and the name of a segment that somebody else has put there.
func (s *Set) Persist(number uint64) error {
	t, err := s.holder(number)
	if err != nil {
		return err
	}
	h, err := t.table.acquire(number)
	if err != nil {
		return s.reached(t, err)
	}
	err = errors.Join(h.file.Datasync(), h.release())
	if err == nil {
		err = t.fs.SyncDir(t.dir)
	}
	return s.reached(t, err)
}

// Retire has an open segment take no more records; it is sealed in the background.
func (s *Set) Retire(number uint64) {
	t, err := s.holder(number)
	if err != nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	// An empty one stays in use: it has nothing to seal.
	if w := t.mu.live[number]; w != nil && w.end > w.start {
		t.retire(w)
	}
}

// Seal seals a segment before it is full, and returns when it is sealed; later
// appends go elsewhere. If it cannot be sealed now, the next Open does it.
func (s *Set) Seal(ctx context.Context, number uint64) error {
	t, err := s.holder(number)
	if err != nil {
		return fmt.Errorf("seal segment %x: %w", number, err)
	}
	s.Retire(number)
	// Asked for rarely, and an upload takes seconds: polling costs less than a condition that each
	// sealed segment would have to signal with a context in hand.
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		t.mu.Lock()
		w := t.mu.live[number]
		var err error
		if w != nil {
			if err = w.failed; w.lost {
				err = errLost
			}
		}
		t.mu.Unlock()
		switch {
		case w == nil:
			return nil
		case err != nil:
			return fmt.Errorf("seal segment %x: %w", number, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}
