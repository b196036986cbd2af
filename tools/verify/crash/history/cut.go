package history

import "slices"

// A Cut is the time in which the image of a running device was taken, on the
// clock of the histories. The image is of one instant between the two; nobody
// knows which.
type Cut struct{ Began, Ended int64 }

// A Span is when something began and when it was acknowledged; End is 0 for what
// was not.
type Span struct{ Start, End int64 }

// Ops is a worker's history as the image may hold it to account: what returned
// after the copying began is not acknowledged, and what was called after it
// ended never was.
func (c Cut) Ops(ops []Op) []Op {
	kept := make([]Op, 0, len(ops))
	for _, op := range ops {
		if op.Start > c.Ended {
			break
		}
		// Called before and returned during the copy: it may be there or not.
		if op.End > c.Began {
			op.End = 0
		}
		kept = append(kept, op)
	}
	return kept
}

// Saver is h likewise.
func (c Cut) Saver(h Saver) Saver {
	// Cut with the capacity, so that appending would not write into h.
	begun, acknowledged := c.count(h.Times)
	h.Saves, h.Times, h.Synced = h.Saves[:begun:begun], c.spans(h.Times[:begun]), acknowledged
	return h
}

// Journaled is h likewise.
func (c Cut) Journaled(h Journaled) Journaled {
	begun, acknowledged := c.count(h.Times)
	h.Txns, h.Times, h.Committed = h.Txns[:begun:begun], c.spans(h.Times[:begun]), acknowledged
	return h
}

// count returns how many had begun when the copying ended, and up to which all
// are promised.
func (c Cut) count(times []Span) (begun, acknowledged int) {
	for i, t := range times {
		if t.Start > c.Ended {
			break
		}
		begun = i + 1
		if t.End != 0 && t.End <= c.Began {
			acknowledged = i + 1
		}
	}
	return begun, acknowledged
}

func (c Cut) spans(times []Span) []Span {
	times = slices.Clone(times)
	for i := range times {
		if times[i].End > c.Began {
			times[i].End = 0
		}
	}
	return times
}
