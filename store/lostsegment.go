package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/quarxtor/quarxfs/tiering"
)

// A segment that a repair let go of, or the end of one, may turn up later. So its row stays: its
// number is not given to another one, and when the file is there with all that it had, its blocks
// are taken in again, and nothing of it is removed before.

func lostKey(n uint64) []byte { return binary.BigEndian.AppendUint64([]byte{keyLost}, n) }

// loadLost reads which segments are lost, and where each ended.
func (hi *history) loadLost() error {
	hi.lost = make(map[uint64]int64)
	return hi.db.ScanPrefix([]byte{keyLost}, func(key, value []byte) error {
		end, n := binary.Varint(value)
		if len(key) != 9 || n <= 0 {
			hi.log.Error("a row is damaged; see fsck", "row", fmt.Sprintf("%x", key))
			return nil
		}
		hi.lost[binary.BigEndian.Uint64(key[1:])] = end
		return nil
	})
}

// loseSegment notes that a segment is lost, or what was in it up to end.
func (hi *history) loseSegment(n uint64, end int64) {
	hi.lost[n] = max(end, hi.lost[n])
	hi.db.Set(lostKey(n), binary.AppendVarint(nil, hi.lost[n]))
	// What is appended behind a lost end would be gone when the whole file is put back.
	hi.tiers.Retire(n)
}

// returned are the lost segments that are there again, in order.
func (hi *history) returned() (numbers []uint64) {
	if len(hi.lost) == 0 {
		return nil
	}
	sizes := hi.segmentSizes()
	for n, end := range hi.lost {
		if size, ok := sizes[n]; ok && size >= end {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers
}

// lastNumbers are the highest numbers of segments, by tier, that were ever heard of.
func (hi *history) lastNumbers() (last [2]uint64, err error) {
	note := func(key, _ []byte) error {
		if len(key) == 9 {
			n := binary.BigEndian.Uint64(key[1:])
			if t := tiering.TierOf(n); int(t) < len(last) {
				last[t] = max(last[t], n)
			}
		}
		return nil
	}
	err = errors.Join(hi.db.ScanPrefix([]byte{keySegment}, note), hi.db.ScanPrefix([]byte{keyLost}, note))
	return last, err
}

// takeBack takes the blocks of lost segments in that are there again: those that are missed, and
// what these lead to.
func (s *Store) takeBack() error {
	numbers := s.returned()
	if len(numbers) == 0 {
		return nil
	}
	release := s.Hold() // what is taken in first is referred to by what comes later
	defer release()
	damaged := make(map[uint64]bool)
	var left []tiering.Placed
	for _, n := range numbers {
		records, err := s.tiers.Records(n)
		damaged[n] = err != nil
		left = append(left, records...)
	}
	taken := 0
	// A vertex is taken in after all that it links to, which may be in a later segment.
	for again := true; again; {
		again = false
		left = slices.DeleteFunc(left, func(r tiering.Placed) bool {
			err := s.takeIn(r)
			switch {
			case err == nil:
				taken++
				again = true
			case errors.Is(err, ErrNotFound):
				return false
			default:
				damaged[r.Segment] = true
			}
			s.MaybeCommit()
			return true
		})
	}
	for _, n := range numbers {
		if !damaged[n] {
			// The rows refer to what somebody has just copied there. (I1)
			damaged[n] = s.tiers.Persist(n) != nil
		}
		if !damaged[n] {
			s.db.Delete(lostKey(n))
		}
	}
	if err := s.Commit(); err != nil {
		return err
	}
	maps.DeleteFunc(s.lost, func(n uint64, _ int64) bool { return slices.Contains(numbers, n) && !damaged[n] })
	for _, n := range numbers {
		s.log.Warn("a segment that was lost is there again", "segment", segmentName(n), "damaged", damaged[n])
	}
	s.log.Info("blocks of segments that were lost were taken in again", "blocks", taken, "left", len(left))
	return nil
}

// takeIn has the block of a record be where the record is, if it is missed. ErrNotFound: it links
// to what is not there.
func (s *Store) takeIn(r tiering.Placed) error {
	e, err := s.Lookup(r.ID)
	if err == nil && !e.isPlaceholder() {
		return nil
	}
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	h, plain, err := s.tiers.Read(r.Location)
	if errors.Is(err, tiering.ErrNotFound) {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if err != nil {
		return err
	}
	_, err = s.put(block{kind: h.Kind, id: h.ID, plain: plain, at: &location{r.Location, h.Codec}})
	return err
}

// forgetLost ends the search for what a repair has looked for.
func (r *repairer) forgetLost(context.Context) error {
	for _, n := range r.s.returned() {
		delete(r.s.lost, n)
		r.s.db.Delete(lostKey(n))
		r.did("%s is there again, and not all of it can be read", segmentName(n))
	}
	return nil
}
