package segment

import (
	"fmt"
	"runtime"
	"strconv"
	"sync"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
)

// Codec says how a record's payload is made from its plain bytes.
type Codec uint8

const (
	Raw  Codec = 0
	S2   Codec = 1
	Zstd Codec = 2
)

func (c Codec) String() string {
	switch c {
	case Raw:
		return "raw"
	case S2:
		return "s2"
	case Zstd:
		return "zstd"
	}
	return "codec " + strconv.Itoa(int(c))
}

func (c Codec) valid() bool { return c <= Zstd }

// Compress returns plain compressed by the wanted codec, and that codec; or
// plain itself and Raw where less than a sixteenth would be saved, since
// decompression would then cost more than the bytes do. The result is in dst's
// memory where it fits there; MaxCompressed(len(plain)) always does.
func Compress(want Codec, dst, plain []byte) (Codec, []byte) {
	var out []byte
	switch want {
	case S2:
		out = s2.Encode(dst[:cap(dst)], plain)
	case Zstd:
		out = zstdEncoder().EncodeAll(plain, dst[:0])
	default:
		return Raw, plain
	}
	if len(out) > len(plain)-(len(plain)+15)/16 {
		return Raw, plain
	}
	return want, out
}

// MaxCompressed returns how much room Compress may need for n plain bytes.
func MaxCompressed(n int) int {
	return max(s2.MaxEncodedLen(n), zstdEncoder().MaxEncodedSize(n))
}

// Decompress returns the rawLen plain bytes that Compress made stored from, in
// dst's memory where they fit there. Anything else is an error that wraps
// ErrFormat. No more than rawLen bytes are allocated, whatever stored claims.
func Decompress(c Codec, dst, stored []byte, rawLen int) ([]byte, error) {
	if rawLen < 0 || rawLen > MaxRaw {
		return nil, fmt.Errorf("%w: raw length %d", ErrFormat, rawLen)
	}
	switch c {
	case Raw:
		if len(stored) != rawLen {
			return nil, fmt.Errorf("%w: %d raw bytes, want %d", ErrFormat, len(stored), rawLen)
		}
	// Before anything is allocated: the length is what damaged bytes say.
	case S2:
		if n, err := s2.DecodedLen(stored); err != nil || n != rawLen {
			return nil, fmt.Errorf("%w: s2 block of %d bytes, want %d (%v)", ErrFormat, n, rawLen, err)
		}
	case Zstd:
	default:
		return nil, fmt.Errorf("%w: unknown %v", ErrFormat, c)
	}
	if cap(dst) < rawLen {
		dst = make([]byte, rawLen)
	}
	// With no capacity beyond, a decoder that wants more has to allocate and is found out below.
	dst = dst[:rawLen:rawLen]
	switch c {
	case Raw:
		copy(dst, stored)
		return dst, nil
	case S2:
		out, err := s2.Decode(dst, stored)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrFormat, err)
		}
		return out, nil
	}
	out, err := zstdDecoder().DecodeAll(stored, dst[:0])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if len(out) != rawLen {
		return nil, fmt.Errorf("%w: zstd frame of %d bytes, want %d", ErrFormat, len(out), rawLen)
	}
	return out, nil
}

// The zstd coders hold megabytes of tables, serve any number of goroutines, and
// keep nothing between calls: one of each is made when first needed. They are
// sized by the processors, since EncodeAll and DecodeAll wait for a free one.
var (
	zstdEncoder = sync.OnceValue(func() *zstd.Encoder {
		e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedDefault),
			zstd.WithEncoderCRC(false), zstd.WithSingleSegment(true), zstd.WithEncoderConcurrency(runtime.NumCPU()))
		if err != nil {
			panic(err) // the options are constants
		}
		return e
	})
	zstdDecoder = sync.OnceValue(func() *zstd.Decoder {
		d, err := zstd.NewReader(nil, zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderMaxMemory(MaxRaw),
			zstd.WithDecoderConcurrency(runtime.NumCPU()))
		if err != nil {
			panic(err) // the options are constants
		}
		return d
	})
)
