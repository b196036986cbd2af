package store

import (
	"encoding/binary"
	"testing"

	"github.com/quarxtor/quarxfs/tiering"
)

const benchBlock = 64 << 10

// An index miss and all that follows: hash, compress, append, row.
func BenchmarkPutNew(b *testing.B) {
	s := newStore(b, DefaultConfig())
	defer s.Hold()()
	block := randomBytes(1, benchBlock)
	clear(block[:benchBlock/2])
	b.SetBytes(benchBlock)
	b.ReportAllocs()
	for i := uint64(0); b.Loop(); i++ {
		binary.LittleEndian.PutUint64(block, i)
		if _, err := s.Put(tiering.Data, block); err != nil {
			b.Fatal(err)
		}
		if i%4096 == 4095 {
			b.StopTimer()
			if err := s.Commit(); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
	}
}

// An index hit: hash and row.
func BenchmarkPutKnown(b *testing.B) {
	s := newStore(b, DefaultConfig())
	defer s.Hold()()
	block := randomBytes(1, benchBlock)
	if _, err := s.Put(tiering.Data, block); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(benchBlock)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Put(tiering.Data, block); err != nil {
			b.Fatal(err)
		}
	}
}
