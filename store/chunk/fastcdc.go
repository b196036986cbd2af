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
// where it has no bit of mask set, or len(p). The hash is of use only in the
// latter case.
//
// Two bytes a step, as in the TPDS paper: the hash after the second is the old
// one shifted by two plus a sum that does not depend on it, so the processor
// waits for one shift and one add in two bytes instead of in each. The paper
// tests the first byte's hash shifted left by one, against a shifted mask; that
// would lose bit 63, which these masks use.
func scan(gear *[256]uint64, mask, fp uint64, p []byte) (uint64, int) {
	i := 0
	for ; i+8 <= len(p); i += 8 {
		q := p[i : i+8 : i+8]
		g := gear[q[0]]
		if (fp<<1+g)&mask == 0 {
			return 0, i
		}
		fp = fp<<2 + (g<<1 + gear[q[1]])
		if fp&mask == 0 {
			return 0, i + 1
		}
		g = gear[q[2]]
		if (fp<<1+g)&mask == 0 {
			return 0, i + 2
		}
		fp = fp<<2 + (g<<1 + gear[q[3]])
		if fp&mask == 0 {
			return 0, i + 3
		}
		g = gear[q[4]]
		if (fp<<1+g)&mask == 0 {
			return 0, i + 4
		}
		fp = fp<<2 + (g<<1 + gear[q[5]])
		if fp&mask == 0 {
			return 0, i + 5
		}
		g = gear[q[6]]
		if (fp<<1+g)&mask == 0 {
			return 0, i + 6
		}
		fp = fp<<2 + (g<<1 + gear[q[7]])
		if fp&mask == 0 {
			return 0, i + 7
		}
	}
	for ; i < len(p); i++ {
		fp = fp<<1 + gear[p[i]]
		if fp&mask == 0 {
			return 0, i
		}
	}
	return fp, i
}
