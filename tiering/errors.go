package tiering

import (
	"errors"
	"fmt"
)

var (
	// ErrNotFound: no tier has the segment.
	ErrNotFound = errors.New("segment not found")
	// ErrCorrupt: stored bytes are not what was stored. The error is a
	// *CorruptError.
	ErrCorrupt = errors.New("corrupt")
	// ErrOpen: the segment is not sealed yet.
	ErrOpen = errors.New("segment is still open")
	// ErrUnavailable: the cold tier cannot be reached now. Nothing is known to be
	// lost.
	ErrUnavailable = errors.New("the cold tier cannot be reached")
	// ErrForeign: the cold tier is another store's, and nothing is changed in it.
	ErrForeign = errors.New("the cold tier can only be read here")
	// ErrNoTier: the store has no such tier.
	ErrNoTier = errors.New("the store has no such tier")
	// ErrClosed: the Set is closed.
	ErrClosed = errors.New("tiers are closed")

	errLost = errors.New("an earlier sync of the segment failed")
)

// A CorruptError says where stored bytes are wrong, and how. It is ErrCorrupt.
type CorruptError struct {
	Segment uint64
	Offset  uint32
	Reason  string
	Err     error // the decoder's, or nil
}

func (e *CorruptError) Error() string {
	msg := fmt.Sprintf("corrupt: segment %016x, offset %d: %s", e.Segment, e.Offset, e.Reason)
	if e.Err != nil {
		msg += ": " + e.Err.Error()
	}
	return msg
}

// Is makes every CorruptError match ErrCorrupt.
func (e *CorruptError) Is(target error) bool { return target == ErrCorrupt }

// Unwrap returns the decoder's error.
func (e *CorruptError) Unwrap() error { return e.Err }
