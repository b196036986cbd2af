package db

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// withoutLog makes a database as it was before there was a log, in which a
// commit of ten rows was interrupted.
func withoutLog(t *testing.T, opt Options, marked bool) {
	t.Helper()
	d, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	w := &d.inUse().writer
	put := func(key, value []byte) {
		if err := w.put(key, value); err != nil {
			t.Fatal(err)
		}
	}
	put([]byte("key0"), []byte("old"))
	var m marker
	for n := range 5 {
		var chunk []byte
		for i := range 2 {
			chunk = appendChange(chunk, fmt.Appendf(nil, "key%d", 2*n+i), []byte("new"))
			m.rows++
		}
		put(binary.BigEndian.AppendUint32([]byte{0xff, 0xff, 'j'}, uint32(n)), chunk)
		m.add(chunk)
	}
	if marked {
		b := []byte{journalVersion}
		b = binary.BigEndian.AppendUint32(b, m.chunks)
		b = binary.BigEndian.AppendUint64(b, m.rows)
		put(markerKey, binary.BigEndian.AppendUint32(b, m.crc))
	}
	if err := errors.Join(w.commit(), crash(d)); err != nil {
		t.Fatal(err)
	}
	for i := range uint32(2) {
		if err := os.Remove(filepath.Join(opt.Dir, logName(i))); err != nil {
			t.Fatal(err)
		}
	}
	unlisted(t, opt.Dir)
}

func TestDatabaseWithoutLog(t *testing.T) {
	for _, marked := range []bool{false, true} {
		opt := testOptions(t.TempDir())
		withoutLog(t, opt, marked)
		d := openTest(t, opt)
		want, rows := "old", 1
		if marked {
			want, rows = "new", 10
		}
		n := 0
		err := d.Scan(nil, nil, func(k, v []byte) error {
			n++
			if string(v) != want {
				return fmt.Errorf("%s=%s", k, v)
			}
			return nil
		})
		if err != nil || n != rows {
			t.Fatal(marked, n, err)
		}
		if err := d.eachChunk(func(k, _ []byte) error { return fmt.Errorf("left over: %x", k) }); err != nil {
			t.Fatal(err)
		}
	}
}

func FuzzMarker(f *testing.F) {
	f.Add(append([]byte{journalVersion}, make([]byte, markerSize-1)...))
	f.Fuzz(func(t *testing.T, data []byte) {
		if m, err := parseMarker(data); err == nil && m.crc != binary.BigEndian.Uint32(data[13:]) {
			t.Fatalf("%x became %+v", data, m)
		}
	})
}
