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

func FuzzMarker(f *testing.F) {
	f.Add(marker{chunks: 3, rows: 1 << 33, crc: 5}.encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parseMarker(data)
		if err == nil && !bytes.Equal(m.encode(), data) {
			t.Fatalf("%x became %+v", data, m)
		}
	})
}
