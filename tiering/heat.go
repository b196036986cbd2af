package tiering

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"math/bits"
	"sync"
)

// Heat remembers how often blocks are used, in bounded memory. Times are Unix
// seconds.
//
// A block's heat halves with every window; it is kept as the time at which it
// will have come down to 1, which needs no ageing and orders blocks at any
// later time (forward decay, Cormode et al. 2009; the order is LRFU's, Lee et al.
// 2001). Only a second use within a window makes a block warm: what a scan
// reads once does not count, and in a full set it is what makes room. Uses within
// a few seconds are one, since one reader asks for a block several times.
//
// It is a table of sets of eight entries, each with 32 bits of its block's ID: two
// blocks are taken for one another with a chance of about 8 in 2^32/sets.
type Heat struct {
	sets []heatSet // a power of two
}

const (
	heatWays    = 8
	sameUse     = 10 // seconds
	minHeatSets = 1 << 10
	maxHeatSets = 1 << 17 // 13 MiB, a million blocks
)

type heatSet struct {
	mu      sync.Mutex
	entries [heatWays]heatEntry
}

// A heatEntry is a block that was used. seen is the last use that counted; 0: the
// entry is free. warm is when its heat is 1; 0: it was used once only.
type heatEntry struct{ tag, seen, warm uint32 }

// NewHeat returns an empty memory that is meant for so many blocks.
func NewHeat(blocks int64) *Heat {
	n := max(minHeatSets, min(maxHeatSets, blocks/heatWays))
	return &Heat{sets: make([]heatSet, 1<<bits.Len64(uint64(n-1)))}
}

func (h *Heat) set(tag uint32) *heatSet { return &h.sets[tag&uint32(len(h.sets)-1)] }

func heatTag(id [32]byte) uint32 { return binary.LittleEndian.Uint32(id[:]) }

// Touch notes a use of a block. again: it is the second within the window, or a
// later one.
func (h *Heat) Touch(id [32]byte, now, window uint32) (again bool) {
	tag := heatTag(id)
	s := h.set(tag)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.find(tag)
	if e == nil {
		// The first use is no heat: a scan of everything must not make everything warm.
		*s.victim(now, window) = heatEntry{tag: tag, seen: now}
		return false
	}
	since := now - min(now, e.seen)
	// One use in several requests, as of a file that is read a page at a time.
	if since < sameUse {
		return false
	}
	e.seen = now
	if since > window {
		return false
	}
	e.warm = warmer(e.warm, now, window)
	return true
}

// warmer returns the time at which a heat that is one more than now is 1.
func warmer(warm, now, half uint32) uint32 {
	if warm == 0 || half == 0 {
		return now
	}
	x := (float64(warm) - float64(now)) / float64(half)
	if x > 20 { // a million uses: one more is nothing
		return warm
	}
	return now + uint32(float64(half)*math.Log2(1+math.Exp2(x)))
}

func (s *heatSet) find(tag uint32) *heatEntry {
	for i := range s.entries {
		if e := &s.entries[i]; e.tag == tag && e.seen != 0 {
			return e
		}
	}
	return nil
}

// victim returns the entry to be used for another block: one that is not warm if
// there is one, and of these the one that was used longest ago.
func (s *heatSet) victim(now, window uint32) *heatEntry {
	value := func(e *heatEntry) uint64 {
		// Long cold: only the last use tells such entries apart. A warm one counts for more.
		if uint64(e.warm)+2*uint64(window) < uint64(now) {
			return uint64(e.seen)
		}
		return uint64(e.warm)<<32 | uint64(e.seen)
	}
	v := &s.entries[0]
	for i := range s.entries {
		if e := &s.entries[i]; value(e) < value(v) {
			v = e
		}
	}
	return v
}

// Of returns when a block was last used and when its heat is 1; zeroes for what is
// not known. A block that is not warm has no second.
func (h *Heat) Of(id [32]byte) (seen, warm uint32) {
	tag := heatTag(id)
	s := h.set(tag)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.find(tag); e != nil {
		return e.seen, e.warm
	}
	return 0, 0
}

// Empty reports whether no use was ever noted.
func (h *Heat) Empty() bool {
	for i := range h.sets {
		s := &h.sets[i]
		s.mu.Lock()
		used := s.entries != [heatWays]heatEntry{}
		s.mu.Unlock()
		if used {
			return false
		}
	}
	return true
}

// The file of heats; docs/format/heat.md describes it.
const (
	heatMagic     = "QXHEAT1\n"
	heatHead      = len(heatMagic) + 8 // CRC32C of the entries, their number
	heatEntrySize = 12
)

var (
	errHeat    = errors.New("no memory of heat")
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// Encode returns the entries as a file has them: 16 bytes and 12 for each.
func (h *Heat) Encode() []byte {
	b := make([]byte, heatHead, heatHead+1024*heatEntrySize)
	copy(b, heatMagic)
	for i := range h.sets {
		s := &h.sets[i]
		s.mu.Lock()
		for _, e := range s.entries {
			if e.seen != 0 {
				b = binary.LittleEndian.AppendUint32(b, e.tag)
				b = binary.LittleEndian.AppendUint32(b, e.seen)
				b = binary.LittleEndian.AppendUint32(b, e.warm)
			}
		}
		s.mu.Unlock()
	}
	binary.LittleEndian.PutUint32(b[len(heatMagic):], crc32.Checksum(b[heatHead:], castagnoli))
	binary.LittleEndian.PutUint32(b[len(heatMagic)+4:], uint32((len(b)-heatHead)/heatEntrySize))
	return b
}

// Decode takes over the entries of a file, or none and returns an error. Of more
// than fit the warmest stay.
func (h *Heat) Decode(b []byte) error {
	if len(b) < heatHead || string(b[:len(heatMagic)]) != heatMagic {
		return errHeat
	}
	crc, n := binary.LittleEndian.Uint32(b[len(heatMagic):]), binary.LittleEndian.Uint32(b[len(heatMagic)+4:])
	b = b[heatHead:]
	if int64(len(b)) != int64(n)*heatEntrySize || crc32.Checksum(b, castagnoli) != crc {
		return errHeat
	}
	for ; len(b) > 0; b = b[heatEntrySize:] {
		e := heatEntry{binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint32(b[8:])}
		s := h.set(e.tag)
		s.mu.Lock()
		// With a window that never ends: then warmth decides, and not how long ago that was.
		if v := s.victim(math.MaxUint32, math.MaxUint32); v.warm <= e.warm && v.seen <= e.seen {
			*v = e
		}
		s.mu.Unlock()
	}
	return nil
}

// MaxHeatFile is the most bytes that Encode returns.
const MaxHeatFile = int64(heatHead) + maxHeatSets*heatWays*heatEntrySize
