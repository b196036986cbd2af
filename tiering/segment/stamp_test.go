package segment

import (
	"bytes"
	"encoding/hex"
	"testing"
)

var testStamp = Stamp{Volume: [16]byte{0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf}, Commits: 258}

// The bytes of a stamp, as docs/format/segment.md gives them.
func TestStampIsFixed(t *testing.T) {
	b := testStamp.Append(nil, testFile, FileHeaderSize)
	const want = "515843543b69dcd50201000000000000a0a1a2a3a4a5a6a7a8a9aaabacadaeaf"
	if got := hex.EncodeToString(b); got != want || len(b) != StampSize {
		t.Errorf("%s, want %s", got, want)
	}
	other, salted := testFile, testFile
	other.Number++
	salted.Salt++
	if s, ok := ParseStamp(b, testFile, FileHeaderSize); !ok || s != testStamp {
		t.Errorf("%+v", s)
	}
	for name, ok := range map[string]bool{
		"elsewhere":          secondOf(ParseStamp(b, testFile, FileHeaderSize+1)),
		"of another number":  secondOf(ParseStamp(b, other, FileHeaderSize)),
		"of another segment": secondOf(ParseStamp(b, salted, FileHeaderSize)),
		"cut":                secondOf(ParseStamp(b[:StampSize-1], testFile, FileHeaderSize)),
	} {
		if ok {
			t.Errorf("a stamp %s is one", name)
		}
	}
	for i := range b {
		bad := bytes.Clone(b)
		bad[i] ^= 1
		if _, ok := ParseStamp(bad, testFile, FileHeaderSize); ok {
			t.Errorf("byte %d changed: still a stamp", i)
		}
	}
}

func secondOf(_ Stamp, ok bool) bool { return ok }

// TestStampsBetweenRecords puts stamps at all places of a segment and cuts it anywhere: the records
// are the same with them, and of the stamps that are whole the last one is found.
func TestStampsBetweenRecords(t *testing.T) {
	file := testFile
	data := file.Append(nil)
	var entries []Entry
	ends := map[int]uint64{} // of stamps
	stamp := func() {
		s := Stamp{Volume: testStamp.Volume, Commits: uint64(len(ends) + 1)}
		data = s.Append(data, file, uint32(len(data)))
		ends[len(data)] = s.Commits
	}
	stamp()
	for i, p := range randomPayloads(7, 6, 300) {
		e := Entry{Offset: uint32(len(data)), Header: Header{Kind: Data, RawLen: uint32(len(p)), StoredLen: uint32(len(p)), PayloadCRC: Checksum(p), ID: [32]byte{byte(i)}}}
		data = append(e.Append(data, file, e.Offset), p...)
		entries = append(entries, e)
		if i%2 == 0 {
			stamp()
		}
	}
	got, res := scanAll(t, data, file)
	if len(got) != len(entries) || res.Skipped != 0 || res.Stamp.Commits != uint64(len(ends)) {
		t.Errorf("%d records, %+v", len(got), res)
	}
	for size := range len(data) + 1 {
		want := uint64(0)
		for end, commits := range ends {
			if end <= size {
				want = max(want, commits)
			}
		}
		last, err := LastStamp(bytes.NewReader(data[:size]), file, int64(size))
		if err != nil || last.Commits != want {
			t.Fatalf("cut at %d: %+v, want %d: %v", size, last, want, err)
		}
	}
	// Sealed, it is the one before the footer that counts, and records are read as ever.
	stamp()
	sealed := AppendFooter(bytes.Clone(data), file, entries, uint32(len(data)))
	last, err := LastStamp(bytes.NewReader(sealed), file, int64(len(sealed)))
	if err != nil || last.Commits != uint64(len(ends)) {
		t.Errorf("sealed: %+v: %v", last, err)
	}
	if _, footer, err := ReadFooter(bytes.NewReader(sealed), int64(len(sealed))); err != nil || len(footer) != len(entries) {
		t.Errorf("%d of %d records: %v", len(footer), len(entries), err)
	}
}

// FuzzLastStamp reads stamps from any bytes.
func FuzzLastStamp(f *testing.F) {
	f.Add(testStamp.Append(testFile.Append(nil), testFile, FileHeaderSize))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := LastStamp(bytes.NewReader(data), testFile, int64(len(data)))
		if err != nil {
			t.Fatal(err)
		}
		if s != (Stamp{}) && !bytes.Contains(data, []byte(stampMagic)) {
			t.Errorf("%+v from nothing", s)
		}
	})
}
