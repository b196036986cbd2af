package tiering

import (
	"context"
	"math/bits"
	"sync"
)

// A Loan is a block's plain bytes for a while. They may be others' as well, and nobody may change
// them.
type Loan struct {
	Plain []byte
	buf   *[]byte // whose memory is used again; nil: it is not
}

// Return gives the bytes back, once. Whoever forgets it costs the collector work, and nothing else.
func (l *Loan) Return() {
	if l.buf != nil {
		loans[classOf(cap(*l.buf))].Put(l.buf)
	}
	*l = Loan{}
}

// Borrow is Get for bytes that are needed once and soon: what is not in RAM is not left there
// either, and its memory is used again after Return. So a stream needs little memory, and does not
// drive out of RAM what is read more than once.
func (s *Set) Borrow(ctx context.Context, id [32]byte, loc Location) (Loan, error) {
	// Also one that is on its way into RAM, rather than read twice; and what takes long to get is
	// worth its place.
	if loc.Tier == Cold || s.cache.has(id) || s.flights.underWay(id) {
		plain, err := s.Get(ctx, id, loc)
		return Loan{Plain: plain}, err
	}
	s.counters.ramMisses.Add(1)
	var l Loan
	plain, err := s.block(id, loc, func(n int) []byte {
		if l.buf = borrow(n); l.buf == nil {
			return nil
		}
		return *l.buf
	})
	if err != nil {
		l.Return()
		return Loan{}, err
	}
	l.Plain = plain
	s.ramCurve.use(&id, int64(weight(plain)))
	return l, nil
}

// loans have the memory of what was returned, by the power of two that its capacity is.
var loans [maxLoan + 1]sync.Pool

const (
	minLoan = 14 // what is smaller costs the allocator next to nothing
	maxLoan = 20 // a rare huge block must not stay in memory
)

func classOf(n int) int { return bits.Len(uint(n - 1)) }

// borrow returns memory for n bytes, or nil: they are too few or too many.
func borrow(n int) *[]byte {
	if n <= 1<<(minLoan-1) || n > 1<<maxLoan {
		return nil
	}
	class := classOf(n)
	if b, ok := loans[class].Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, 0, 1<<class)
	return &b
}
