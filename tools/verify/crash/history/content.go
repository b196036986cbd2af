// Package history is the judge of the crash tester: from what a writer did, and
// what it was promised, it decides whether what a filesystem shows after a crash
// may be there. It does no I/O.
package history

import (
	"encoding/binary"
	"fmt"
	"hash/crc64"
)

// PageSize is what the kernel's page cache writes back as a whole.
const PageSize = 4096

// unit is the grain of Fill. Its first two words say whose bytes it holds and
// where they belong, so that bytes in the wrong place can be named.
const unit = 64

// A Tag names one write. The bytes of a write depend on its tag and on their
// offset in the file, and on nothing else: the same tag at the same offset of
// another file is a duplicate.
type Tag uint64

// tagMark is in every tag, so that no unit begins with zeroes.
const tagMark = 0xC7 << 56

// NewTag makes the tag of a worker's nth write in a round.
func NewTag(round, worker, n int) Tag {
	return Tag(tagMark | uint64(round&0xffff)<<40 | uint64(worker&0xff)<<32 | uint64(uint32(n)))
}

// String is round.worker.n, or what the tag is if NewTag did not make it.
func (t Tag) String() string {
	if t>>56 != tagMark>>56 {
		return fmt.Sprintf("no tag (%016x)", uint64(t))
	}
	return fmt.Sprintf("write %d.%d.%d", t>>40&0xffff, t>>32&0xff, uint32(t))
}

// Fill writes the bytes of tag for the file range that begins at off. Odd tags
// are incompressible.
func Fill(buf []byte, tag Tag, off int64) {
	var u [unit]byte
	for len(buf) > 0 {
		start := off % unit
		makeUnit(&u, tag, off-start)
		n := copy(buf, u[start:])
		buf, off = buf[n:], off+int64(n)
	}
}

func makeUnit(u *[unit]byte, tag Tag, off int64) {
	binary.BigEndian.PutUint64(u[0:], uint64(tag))
	binary.BigEndian.PutUint64(u[8:], uint64(off))
	x := uint64(tag)
	// Without the offset in it all units of the write are alike, and compress.
	if tag&1 == 1 {
		x ^= uint64(off) * 0x9e3779b97f4a7c15
	}
	for i := 16; i < unit; i += 8 {
		x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
		// The top bit keeps every word from being zero: a lost page reads as zeroes and must be
		// told apart.
		x ^= x>>27 | 1<<63
		binary.BigEndian.PutUint64(u[i:], x)
	}
}

// describe says whose bytes stand at off.
func describe(content []byte, off int) string {
	start := off - off%unit
	// Cut before the two words that say whose bytes they are.
	if start+16 > len(content) {
		return fmt.Sprintf("%x", content[off:min(len(content), off+16)])
	}
	zero := true
	for _, b := range content[start:min(len(content), start+unit)] {
		zero = zero && b == 0
	}
	if zero {
		return "zeroes"
	}
	return fmt.Sprintf("bytes of %v for offset %d", Tag(binary.BigEndian.Uint64(content[start:])), binary.BigEndian.Uint64(content[start+8:]))
}

// explain names the first difference between two contents.
func explain(want, got []byte) string {
	for i := range min(len(want), len(got)) {
		if want[i] != got[i] {
			return fmt.Sprintf("at offset %d: %s, not %s", i, describe(got, i), describe(want, i))
		}
	}
	return fmt.Sprintf("%d bytes long, not %d", len(got), len(want))
}

// Sum is the checksum that logs of acknowledged fsyncs carry.
func Sum(content []byte) uint64 {
	return crc64.Checksum(content, crc64.MakeTable(crc64.ECMA))
}
