package meta

import (
	"encoding/binary"
	"fmt"
)

// BlockID is a block's ID; the store's chunk.ID converts to it.
type BlockID = [32]byte

// An Extent says that Len bytes of a file from Off on are the bytes of a block
// from Skip on. What no extent covers is a hole and reads as zeroes, so the
// extents of a file, with the holes between, tile it. (I3)
type Extent struct {
	Off  int64
	Len  uint32
	Skip uint32
	ID   BlockID
}

// End is the offset of the byte after the extent.
func (e Extent) End() int64 { return e.Off + int64(e.Len) }

// PageSpan returns how many bytes of a file one page of extents covers: some 64 blocks,
// and never less than the longest block, so that an extent reaches at most
// into the page after its own.
func PageSpan(avg, longest int) int64 { return int64(max(64*avg, longest)) }

// A page of extents is every extent of a file that starts within one span of
// the file, in order:
//
//	+-------------------+----------------------+----------------+-----------+
//	| gap<<1|s (uvarint)| length (uvarint)     | skip, if s     | ID (32 B) | ...
//	+-------------------+----------------------+----------------+-----------+
//
// gap is the distance from the end of the extent before, or from the start of
// the page. 64 adjoining whole blocks of 64 KiB take 64 * (1+3+32) = 2,304 bytes.

// AppendExtents appends the record of the page that starts at base to b.
func AppendExtents(b []byte, base int64, page []Extent) []byte {
	at := base
	for _, e := range page {
		gap := uint64(e.Off-at) << 1
		if e.Skip != 0 {
			gap |= 1
		}
		b = binary.AppendUvarint(b, gap)
		b = binary.AppendUvarint(b, uint64(e.Len))
		if e.Skip != 0 {
			b = binary.AppendUvarint(b, uint64(e.Skip))
		}
		b = append(b, e.ID[:]...)
		at = e.End()
	}
	return b
}

// DecodeExtents reads a page of extents; span is the page's length in bytes of
// the file, and no extent is longer. The error is ErrCorrupt.
func DecodeExtents(b []byte, base, span int64) ([]Extent, error) {
	r := reader{b: b}
	page := make([]Extent, 0, len(b)/34+1)
	at := base
	for len(r.b) > 0 {
		gap := r.uvarint(max63)
		var e Extent
		e.Off = at + int64(gap>>1)
		e.Len = uint32(r.uvarint(max32))
		if gap&1 != 0 {
			e.Skip = uint32(r.uvarint(max32))
		}
		copy(e.ID[:], r.bytes(uint64(len(e.ID))))
		// Each bound keeps what follows from overflowing: offsets, the span of a page, parts of
		// blocks.
		if r.bad || e.Len == 0 || e.Off < at || e.Off-base >= span || e.End() < e.Off ||
			int64(e.Len) > span || uint64(e.Skip)+uint64(e.Len) > max32 {
			return nil, fmt.Errorf("page of extents at %d: %w", base, ErrCorrupt)
		}
		page = append(page, e)
		at = e.End()
	}
	return page, nil
}

// SlotSize is how many bytes of a file one staged row covers at most.
const SlotSize = 4096

// A StagedPart is bytes within a slot.
type StagedPart struct {
	Start int
	Bytes []byte
}

// AppendStaged appends the record of a slot to b: for each part its start,
// its length and its bytes. One whole slot takes 4,099 bytes.
func AppendStaged(b []byte, parts []StagedPart) []byte {
	for _, p := range parts {
		b = binary.AppendUvarint(b, uint64(p.Start))
		b = binary.AppendUvarint(b, uint64(len(p.Bytes)))
		b = append(b, p.Bytes...)
	}
	return b
}

// DecodeStaged reads a slot. The parts alias b. The error is ErrCorrupt.
func DecodeStaged(b []byte) ([]StagedPart, error) {
	r := reader{b: b}
	var parts []StagedPart
	at := 0
	for len(r.b) > 0 {
		p := StagedPart{Start: int(r.uvarint(SlotSize))}
		p.Bytes = r.bytes(r.uvarint(SlotSize))
		if r.bad || len(p.Bytes) == 0 || p.Start < at || p.Start+len(p.Bytes) > SlotSize {
			return nil, fmt.Errorf("staged slot: %w", ErrCorrupt)
		}
		parts = append(parts, p)
		at = p.Start + len(p.Bytes)
	}
	return parts, nil
}
