package db

import (
	"bytes"
	"testing"
)

func FuzzNextChange(f *testing.F) {
	f.Add(appendChange(appendChange(nil, []byte("k"), []byte("v")), []byte("gone"), nil))
	f.Add([]byte{opSet, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		var again []byte
		for rest := data; len(rest) > 0; {
			key, value, next, err := nextChange(rest)
			if err != nil {
				return
			}
			if len(next) >= len(rest) {
				t.Fatal("no progress")
			}
			again = appendChange(again, key, value)
			rest = next
		}
		// Only lengths written in more bytes than needed may differ.
		if len(again) > len(data) || (len(again) == len(data) && !bytes.Equal(again, data)) {
			t.Fatalf("%x became %x", data, again)
		}
	})
}

func FuzzHeaders(f *testing.F) {
	at := recordPos{logID{1, 2, 3}, 1, 8192}
	b := make([]byte, recordHead)
	record{gen: 3, seq: 9, base: 7, size: 1 << 20, crc: 5}.encode(b, at)
	f.Add(b)
	f.Add(slot{index: 1, id: at.id, freed: 77}.encode()[:slotSize])
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, ok := parseRecord(data, at); ok {
			again := make([]byte, recordHead)
			r.encode(again, at)
			if r.blocks() <= 0 || !bytes.Equal(again[:40], data[:40]) {
				t.Fatalf("%x became %+v", data, r)
			}
		}
		if s, ok := parseSlot(data); ok && !bytes.Equal(s.encode()[:40], data[:40]) {
			t.Fatalf("%x became %+v", data, s)
		}
	})
}

// FuzzScan changes the bytes of a log: what it then holds is the commits as
// they were, up to some point, or it is damaged.
func FuzzScan(f *testing.F) {
	f.Add(uint32(logStart+10), byte(1), uint32(0), byte(0))
	f.Add(uint32(3), byte(0x80), uint32(blockSize+3), byte(1))
	f.Add(uint32(logStart+3*blockSize+44), byte(7), uint32(logStart+7*blockSize), byte(255))
	f.Fuzz(func(t *testing.T, at uint32, x byte, at2 uint32, x2 byte) {
		m := newMemDir()
		l := openTestLog(t, m)
		for n := 1; n <= 5; n++ {
			if err := appendNumber(l, n, (n%3)*3000); err != nil {
				t.Fatal(err)
			}
		}
		file := m.names[logName(0)]
		file.data[int(at)%len(file.data)] ^= x
		file.data[int(at2)%len(file.data)] ^= x2
		numbers, err := recoverNumbers(m)
		if err != nil {
			return
		}
		for i, n := range numbers {
			if n != i+1 {
				t.Fatal(numbers)
			}
		}
		// Only the last may go unnoticed.
		if len(numbers) < 4 {
			t.Fatalf("commits lost without an error: %v", numbers)
		}
	})
}
