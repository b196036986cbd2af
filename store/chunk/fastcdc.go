package chunk

import (
	"encoding/binary"
	"math/bits"

	"github.com/PlakarKorp/go-cdc-chunkers/chunkers/fastcdc"
	"github.com/zeebo/blake3"
)

// FastCDC (Xia et al., USENIX ATC 2016; two-byte variant in IEEE TPDS 2020)
// slides a gear hash over the block, fp' = 2*fp + gear[b], skips the first Min
// bytes, and cuts before the first byte whose hash has no bit of a mask set.
// The mask is strict up to Avg and loose after it, which draws lengths towards
// Avg. The cuts are those of go-cdc-chunkers' "fastcdc-v1.0.0", whose gear
// table, key derivation and masks are used; that library only cuts what it has
// copied from a reader.

// normalLevel is how many bits the masks differ from log2(Avg) either way.
const normalLevel = 2

// gearTable returns the library's table, or for a key the table that the keyed
// BLAKE3 of it expands to.
func gearTable(key []byte) [256]uint64 {
	if len(key) == 0 {
		return fastcdc.G
	}
	hasher, err := blake3.NewKeyed(key)
	if err != nil {
		panic(err) // validate has checked the length, its only cause
	}
	buf := make([]byte, 0, 8*256)
	for _, g := range fastcdc.G {
		buf = binary.LittleEndian.AppendUint64(buf, g)
	}
	hasher.Write(buf)
	hasher.Digest().Read(buf)
	var table [256]uint64
	for i := range table {
		table[i] = binary.LittleEndian.Uint64(buf[8*i:])
	}
	return table
}

// masks returns the strict and the loose mask. For its default sizes the
// library takes the paper's constants instead of its own rule.
func masks(c Config) (strict, loose uint64) {
	if c.Min == 2<<10 && c.Avg == 8<<10 && c.Max == 64<<10 {
		return 0x0003590703530000, 0x0000d90003530000
	}
	level := bits.Len(uint(c.Avg)) - 1
	return spacedMask(level + normalLevel), spacedMask(level - normalLevel)
}

// spacedMask spreads n ones evenly over 64 bits, from the top down: the top
// bits of a gear hash depend on the most bytes.
func spacedMask(n int) uint64 {
	var mask uint64
	for i := range n {
		mask |= 1 << (63 - i*(64/n))
	}
	return mask
}

func (c *Chunker) cutFastCDC(data []byte) (n int, final bool) {
	if len(data) <= c.config.Min {
		return len(data), false
	}
	end := min(len(data), c.config.Max)
	strict := min(end, c.config.Avg)
	fp, i := scan(&c.gear, c.maskS, 0, data[c.config.Min:strict])
	i += c.config.Min
	if i < strict {
		return i, true
	}
	_, j := scan(&c.gear, c.maskL, fp, data[strict:end])
	i += j
	return i, i < end || end == c.config.Max
}

// scan rolls the hash on over p and returns it with the index of the first byte
// where it has no bit of mask set, or len(p).
//
// Eight bytes a step: each of the eight hashes is the old fp shifted plus a sum
// of table entries that does not depend on fp, so the processor waits for one
// shift and one add in eight bytes instead of in each.
func scan(gear *[256]uint64, mask, fp uint64, p []byte) (uint64, int) {
	start := len(p)
	for len(p) >= 8 {
		v := binary.LittleEndian.Uint64(p)
		s1 := gear[uint8(v)]
		s2 := s1<<1 + gear[uint8(v>>8)]
		s3 := s2<<1 + gear[uint8(v>>16)]
		s4 := s3<<1 + gear[uint8(v>>24)]
		s5 := s4<<1 + gear[uint8(v>>32)]
		s6 := s5<<1 + gear[uint8(v>>40)]
		s7 := s6<<1 + gear[uint8(v>>48)]
		s8 := s7<<1 + gear[uint8(v>>56)]
		at := start - len(p)
		switch {
		case (fp<<1+s1)&mask == 0:
			return 0, at
		case (fp<<2+s2)&mask == 0:
			return 0, at + 1
		case (fp<<3+s3)&mask == 0:
			return 0, at + 2
		case (fp<<4+s4)&mask == 0:
			return 0, at + 3
		case (fp<<5+s5)&mask == 0:
			return 0, at + 4
		case (fp<<6+s6)&mask == 0:
			return 0, at + 5
		case (fp<<7+s7)&mask == 0:
			return 0, at + 6
		}
		fp = fp<<8 + s8
		if fp&mask == 0 {
			return fp, at + 7
		}
		p = p[8:]
	}
	for i, b := range p {
		fp = fp<<1 + gear[b]
		if fp&mask == 0 {
			return fp, start - len(p) + i
		}
	}
	return fp, start
}
