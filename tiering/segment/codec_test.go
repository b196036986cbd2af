package segment

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/compress/s2"
)

func prose(n int) []byte {
	rng := rand.New(rand.NewPCG(8, 8))
	words := []string{"segment ", "record ", "of ", "the ", "tier\n", "is ", "cold ", "hot ", "if (x) { ", "} ", "0x", "and "}
	var b bytes.Buffer
	for b.Len() < n {
		b.WriteString(words[rng.IntN(len(words))])
		if rng.IntN(4) == 0 {
			fmt.Fprint(&b, rng.IntN(10_000))
		}
	}
	return b.Bytes()[:n]
}

func noise(n int) []byte { return randomBytes(rand.New(rand.NewPCG(1, 1)), n) }

func randomBytes(rng *rand.Rand, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(rng.Uint32())
	}
	return p
}

func TestCodecsRoundTrip(t *testing.T) {
	for _, want := range []Codec{Raw, S2, Zstd} {
		for _, n := range []int{0, 1, 15, 16, 100, 255, 256, 257, 4096, 65_536, 300_000} {
			for name, plain := range map[string][]byte{"prose": prose(n), "zero": make([]byte, n), "noise": noise(n)} {
				codec, stored := Compress(want, nil, plain)
				if codec != Raw && (codec != want || len(plain)-len(stored) < len(plain)/16) {
					t.Errorf("%v %s %d: became %v of %d bytes", want, name, n, codec, len(stored))
				}
				if codec == Raw && n > 0 && &stored[0] != &plain[0] {
					t.Errorf("%v %s %d: raw bytes were copied", want, name, n)
				}
				if want != Raw && name != "noise" && n >= 4096 && codec != want {
					t.Errorf("%v %s %d: stays raw", want, name, n)
				}
				h := Header{Kind: Data, Codec: codec, RawLen: uint32(n), StoredLen: uint32(len(stored))}
				if err := h.Validate(); err != nil {
					t.Errorf("%v %s %d: %v", want, name, n, err)
				}
				for _, dst := range [][]byte{nil, make([]byte, 0, n), make([]byte, 10)} {
					got, err := Decompress(codec, dst, stored, n)
					if err != nil || !bytes.Equal(got, plain) {
						t.Fatalf("%v %s %d: %v", want, name, n, err)
					}
				}
				for _, wrong := range []int{n - 1, n + 1, -1, MaxRaw + 1} {
					if _, err := Decompress(codec, nil, stored, wrong); !errors.Is(err, ErrFormat) {
						t.Errorf("%v %s %d as %d bytes: %v", codec, name, n, wrong, err)
					}
				}
			}
		}
	}
}

func TestLargestRecord(t *testing.T) {
	plain := make([]byte, MaxRaw)
	for _, want := range []Codec{S2, Zstd} {
		codec, stored := Compress(want, nil, plain)
		if got, err := Decompress(codec, nil, stored, MaxRaw); codec != want || err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%v: %v, %v", want, codec, err)
		}
	}
}

// A block that claims to be huge must not make us allocate what it claims.
func TestDecompressBombs(t *testing.T) {
	bomb := s2.Encode(nil, make([]byte, 64<<20))
	_, zbomb := Compress(Zstd, nil, make([]byte, 64<<20))
	for codec, stored := range map[Codec][]byte{S2: bomb, Zstd: zbomb} {
		n := testing.Benchmark(func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Decompress(codec, nil, stored, 1000); !errors.Is(err, ErrFormat) {
					b.Fatal(err)
				}
			}
		}).AllocedBytesPerOp()
		if n > 16<<10 {
			t.Errorf("%v: %d bytes allocated", codec, n)
		}
	}
}

func FuzzDecompress(f *testing.F) {
	for _, c := range []Codec{Raw, S2, Zstd} {
		codec, stored := Compress(c, nil, prose(500))
		f.Add(byte(codec), bytes.Clone(stored), 500)
	}
	f.Add(byte(9), []byte{}, -1)
	f.Fuzz(func(t *testing.T, codec byte, stored []byte, rawLen int) {
		got, err := Decompress(Codec(codec), nil, stored, rawLen)
		if err != nil && !errors.Is(err, ErrFormat) {
			t.Errorf("foreign error %v", err)
		}
		if err == nil && (len(got) != rawLen || cap(got) > rawLen+rawLen/4+64) {
			t.Errorf("%d bytes in %d, want %d", len(got), cap(got), rawLen)
		}
	})
}

func FuzzParseHeader(f *testing.F) {
	h := Header{Kind: Data, RawLen: 5, StoredLen: 5}
	f.Add(h.Append(nil, FileHeader{}, 32), uint32(32), false)
	f.Add([]byte(recordMagic), uint32(0), true)
	f.Fuzz(func(t *testing.T, b []byte, offset uint32, fix bool) {
		if fix && len(b) >= HeaderSize { // let the fuzzer past the check
			copy(b, recordMagic)
			c := recordCheck(b, FileHeader{}, offset)
			b[4], b[5], b[6], b[7] = byte(c), byte(c>>8), byte(c>>16), byte(c>>24)
		}
		h, err := ParseHeader(b, FileHeader{}, offset)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Errorf("foreign error %v", err)
			}
			return
		}
		if b[10] == 0 && b[11] == 0 && !bytes.Equal(h.Append(nil, FileHeader{}, offset), b[:HeaderSize]) {
			t.Errorf("%+v encodes to other bytes", h)
		}
	})
}

func FuzzParseFileHeader(f *testing.F) {
	f.Add(FileHeader{Number: 1, Salt: 2}.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := ParseFileHeader(b); err == nil && !bytes.Equal(h.Append(nil), b[:FileHeaderSize]) {
			t.Errorf("%+v encodes to other bytes", h)
		}
	})
}

func FuzzReadFooter(f *testing.F) {
	file := FileHeader{Number: 1, Salt: 2}
	data, entries := build(file, []byte("one"), []byte("two"))
	f.Add(AppendFooter(data, file, entries, uint32(len(data))), true)
	f.Fuzz(func(t *testing.T, b []byte, fix bool) {
		if n := len(b); fix && n >= TrailerSize+FileHeaderSize {
			tail := b[n-TrailerSize:]
			copy(tail, trailerMagic)
			start := int64(tail[24]) | int64(tail[25])<<8 | int64(tail[26])<<16 | int64(tail[27])<<24
			if start < int64(n-TrailerSize) {
				c := Checksum(b[start : n-TrailerSize])
				tail[32], tail[33], tail[34], tail[35] = byte(c), byte(c>>8), byte(c>>16), byte(c>>24)
			}
			c := Checksum(tail[:36])
			tail[36], tail[37], tail[38], tail[39] = byte(c), byte(c>>8), byte(c>>16), byte(c>>24)
		}
		_, entries, err := ReadFooter(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Errorf("foreign error %v", err)
			}
			return
		}
		end := int64(FileHeaderSize)
		for _, e := range entries {
			if int64(e.Offset) < end || e.End() > int64(len(b)) {
				t.Errorf("entry out of place: %+v", e)
			}
			end = e.End()
		}
	})
}

func FuzzScan(f *testing.F) {
	file := FileHeader{Number: 1, Salt: 2}
	data, entries := build(file, []byte("one"), []byte("two"), []byte("QXRCQXRC"))
	f.Add(AppendFooter(data, file, entries, uint32(len(data))))
	f.Fuzz(func(t *testing.T, b []byte) {
		end := int64(FileHeaderSize)
		res, err := Scan(bytes.NewReader(b), file, int64(len(b)), func(e Entry, payload []byte) error {
			if int64(e.Offset) < end || e.End() > int64(len(b)) || Checksum(payload) != e.PayloadCRC {
				t.Errorf("bad entry %+v", e)
			}
			end = e.End()
			return nil
		})
		if err != nil || res.End != end {
			t.Errorf("%+v, %v, want end %d", res, err, end)
		}
	})
}

func FuzzParseName(f *testing.F) {
	f.Add(Name(7, Sealed))
	f.Fuzz(func(t *testing.T, name string) {
		if number, state, ok := ParseName(name); ok && Name(number, state) != name {
			t.Errorf("%q parses as %x%s", name, number, state)
		}
	})
}

func BenchmarkCompress(b *testing.B) {
	for _, codec := range []Codec{S2, Zstd} {
		for name, plain := range map[string][]byte{"prose": prose(64 << 10), "noise": noise(64 << 10)} {
			b.Run(codec.String()+"/"+name, func(b *testing.B) {
				dst := make([]byte, MaxCompressed(len(plain)))
				b.SetBytes(int64(len(plain)))
				b.ReportAllocs()
				n := 0
				for b.Loop() {
					_, out := Compress(codec, dst, plain)
					n = len(out)
				}
				b.ReportMetric(float64(len(plain))/float64(n), "ratio")
			})
		}
	}
}

func BenchmarkDecompress(b *testing.B) {
	for _, codec := range []Codec{Raw, S2, Zstd} {
		b.Run(codec.String(), func(b *testing.B) {
			plain := prose(64 << 10)
			_, stored := Compress(codec, nil, plain)
			dst := make([]byte, len(plain))
			b.SetBytes(int64(len(plain)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Decompress(codec, dst, stored, len(plain)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkChecksum(b *testing.B) {
	p := noise(64 << 10)
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		Checksum(p)
	}
}
