package main

import "encoding/binary"

// compressGrain is the period of fill's pattern: the first half of each grain
// is random, the second half repeats one random word. A block compressor gets
// a little under 2x, and no two grains, and so no two blocks, are alike.
const compressGrain = 4096

// fill makes half-compressible bytes, the same for the same seed.
func fill(buf []byte, seed uint64) {
	x := mix(seed)
	// Whole words: byte by byte it would take longer than many a workload.
	for len(buf) >= compressGrain {
		grain := buf[:compressGrain]
		for i := 0; i < compressGrain/2; i += 8 {
			x += golden
			binary.LittleEndian.PutUint64(grain[i:], mix(x))
		}
		x += golden
		word := mix(x)
		for i := compressGrain / 2; i < compressGrain; i += 8 {
			binary.LittleEndian.PutUint64(grain[i:], word)
		}
		buf = buf[compressGrain:]
	}
	for i := range buf {
		x += golden
		buf[i] = byte(mix(x))
	}
}

const golden = 0x9e3779b97f4a7c15

// mix is the finalizer of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
