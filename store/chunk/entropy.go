package chunk

import (
	"bytes"
	"encoding/binary"
	"math"
	"sync"
)

// sampleAbove is the length, in bytes, from which entropy is estimated.
const sampleAbove = 16 << 10

// Entropy returns the Shannon entropy of the bytes' frequencies, in bits per
// byte: 0 for a run of one byte, 8 for all bytes equally often, 0 for nothing.
// Of blocks longer than 16 KiB it counts every fourth run of 64 bytes, which
// is off by less than a hundredth of a bit. It does not allocate.
func Entropy(plain []byte) float64 {
	if len(plain) == 0 {
		return 0
	}
	step, counted := 64, len(plain)
	if len(plain) > sampleAbove {
		step = 256
		counted = len(plain) / step * 64
		plain = plain[:len(plain)/step*step]
	}
	// Several tables, because neighbours are often equal and an increment
	// would wait for the store of the one before.
	var counts [8][256]uint32
	for ; len(plain) >= step; plain = plain[step:] {
		for rest := plain[:64]; len(rest) >= 8; rest = rest[8:] {
			v := binary.LittleEndian.Uint64(rest)
			counts[0][uint8(v)]++
			counts[1][uint8(v>>8)]++
			counts[2][uint8(v>>16)]++
			counts[3][uint8(v>>24)]++
			counts[4][uint8(v>>32)]++
			counts[5][uint8(v>>40)]++
			counts[6][uint8(v>>48)]++
			counts[7][uint8(v>>56)]++
		}
	}
	for _, b := range plain {
		counts[0][b]++
	}
	// H = log2(n) - sum(c*log2(c))/n
	logs := countLogs()
	var sum float64
	for b := range 256 {
		c := counts[0][b] + counts[1][b] + counts[2][b] + counts[3][b] +
			counts[4][b] + counts[5][b] + counts[6][b] + counts[7][b]
		switch {
		case int(c) < len(logs):
			sum += logs[c]
		default:
			sum += float64(c) * math.Log2(float64(c))
		}
	}
	n := float64(counted)
	return min(8, max(0, math.Log2(n)-sum/n))
}

// countLogs has c*log2(c) for the counts that most bytes of a block have:
// 256 logarithms cost as much as counting some thousand bytes.
var countLogs = sync.OnceValue(func() *[512]float64 {
	var logs [512]float64
	for c := 2; c < len(logs); c++ {
		logs[c] = float64(c) * math.Log2(float64(c))
	}
	return &logs
})

// IsZero reports whether all bytes are zero; true for none. It stops at the
// first few bytes of most data.
func IsZero(plain []byte) bool {
	if len(plain) == 0 {
		return true
	}
	// Bytes that equal their neighbours all equal the first; the comparison
	// is the runtime's vectorised one.
	return plain[0] == 0 && bytes.Equal(plain[1:], plain[:len(plain)-1])
}
