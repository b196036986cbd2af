package segment

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
)

var testFile = FileHeader{Number: 0x0102030405060708, Salt: 0x1112131415161718}

// build returns the bytes of an unsealed segment with the given payloads, raw.
func build(file FileHeader, payloads ...[]byte) ([]byte, []Entry) {
	out := file.Append(nil)
	var entries []Entry
	for i, p := range payloads {
		e := Entry{Offset: uint32(len(out)), Header: Header{
			Kind: Kind(1 + i%4), RawLen: uint32(len(p)), StoredLen: uint32(len(p)),
			PayloadCRC: Checksum(p), ID: [32]byte{byte(i), byte(i >> 8), 7},
		}}
		out = append(e.Append(out, file, e.Offset), p...)
		entries = append(entries, e)
	}
	return out, entries
}

func randomPayloads(seed uint64, n, size int) [][]byte {
	rng := rand.New(rand.NewPCG(seed, 3))
	payloads := make([][]byte, n)
	for i := range payloads {
		payloads[i] = make([]byte, rng.IntN(size))
		for j := range payloads[i] {
			payloads[i][j] = byte(rng.Uint32())
		}
	}
	return payloads
}

func scanAll(t testing.TB, data []byte, file FileHeader) ([]Entry, ScanResult) {
	t.Helper()
	var got []Entry
	res, err := Scan(bytes.NewReader(data), file, int64(len(data)), func(e Entry, payload []byte) error {
		if !bytes.Equal(payload, data[e.Offset+HeaderSize:e.End()]) {
			t.Errorf("wrong payload at %d", e.Offset)
		}
		got = append(got, e)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got, res
}

// The bytes of version 1, as docs/format/segment.md gives them.
func TestFormatIsFixed(t *testing.T) {
	data, entries := build(testFile, []byte("hello"))
	data = AppendFooter(data, testFile, entries, uint32(len(data)))
	want := strings.Join([]string{
		"51554152585345470100000032d8f96508070605040302011817161514131211",
		"51585243f19513840100000005000000050000004cbb719a",
		"0000070000000000000000000000000000000000000000000000000000000000",
		"68656c6c6f",
		"200000000100000005000000050000004cbb719a",
		"0000070000000000000000000000000000000000000000000000000000000000",
		"51585345414c4544080706050403020118171615141312115d000000010000007e05841e12cc8a8e",
	}, "")
	got := hex.EncodeToString(data)
	if got != want {
		t.Errorf("bytes are\n%s, want\n%s", got, want)
	}
	if len(data) != FileHeaderSize+HeaderSize+5+EntrySize+TrailerSize {
		t.Errorf("%d bytes", len(data))
	}
}

func TestNames(t *testing.T) {
	for _, state := range []State{Open, Sealed, Trash} {
		number, back, ok := ParseName(Name(0xabc, state))
		if !ok || number != 0xabc || back != state {
			t.Errorf("%s: %x, %s, %t", state, number, back, ok)
		}
	}
	for _, bad := range []string{"", ".seg", "abc.seg", "000000000000000A.seg", "0000000000000001", "0000000000000001.seg.open", "+000000000000001.seg", "0000000000000001.tmp"} {
		if _, _, ok := ParseName(bad); ok {
			t.Errorf("%q is a name", bad)
		}
	}
}

func TestHeaderIsBoundToItsPlace(t *testing.T) {
	h := Header{Kind: Tree, Codec: S2, RawLen: 100, StoredLen: 50, PayloadCRC: 9, ID: [32]byte{1}}
	b := h.Append(nil, testFile, 4711)
	got, err := ParseHeader(b, testFile, 4711)
	if err != nil || got != h {
		t.Fatalf("%+v, %v", got, err)
	}
	other := testFile
	other.Number++
	salted := testFile
	salted.Salt++
	for _, err := range []error{
		second(ParseHeader(b, testFile, 4712)), second(ParseHeader(b, other, 4711)), second(ParseHeader(b, salted, 4711)),
		second(ParseHeader(b[:HeaderSize-1], testFile, 4711)),
	} {
		if !errors.Is(err, ErrFormat) {
			t.Errorf("misplaced header: %v", err)
		}
	}
	for i := range b {
		bad := bytes.Clone(b)
		bad[i] ^= 0x10
		if _, err := ParseHeader(bad, testFile, 4711); !errors.Is(err, ErrFormat) {
			t.Errorf("byte %d changed: %v", i, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestHeaderFieldsInRange(t *testing.T) {
	for _, h := range []Header{
		{}, {Kind: 6}, {Kind: Data, Codec: 3}, {Kind: Data, RawLen: MaxRaw + 1, StoredLen: MaxRaw + 1},
		{Kind: Data, RawLen: 5, StoredLen: 4}, {Kind: Data, Codec: Zstd, RawLen: 5, StoredLen: 6},
	} {
		if _, err := ParseHeader(h.Append(nil, testFile, 32), testFile, 32); !errors.Is(err, ErrFormat) {
			t.Errorf("%+v: %v", h, err)
		}
	}
}

func TestFileHeader(t *testing.T) {
	b := testFile.Append(nil)
	if len(b) != FileHeaderSize {
		t.Fatalf("%d bytes", len(b))
	}
	if got, err := ParseFileHeader(b); err != nil || got != testFile {
		t.Errorf("%+v, %v", got, err)
	}
	for i := range b {
		bad := bytes.Clone(b)
		bad[i] ^= 4
		if _, err := ParseFileHeader(bad); !errors.Is(err, ErrFormat) {
			t.Errorf("byte %d changed: %v", i, err)
		}
	}
}

func TestFooterRoundTripAndDamage(t *testing.T) {
	for _, n := range []int{0, 1, 7} {
		data, entries := build(testFile, randomPayloads(1, n, 100)...)
		start := len(data)
		data = AppendFooter(data, testFile, entries, uint32(start))
		file, got, err := ReadFooter(bytes.NewReader(data), int64(len(data)))
		if err != nil || file != testFile || len(got) != n || n > 0 && !reflect.DeepEqual(got, entries) {
			t.Fatalf("%d records: %v", n, err)
		}
		for i := start; i < len(data); i++ {
			bad := bytes.Clone(data)
			bad[i] ^= 0x40
			if _, _, err := ReadFooter(bytes.NewReader(bad), int64(len(bad))); !errors.Is(err, ErrFormat) {
				t.Errorf("byte %d changed: %v", i, err)
			}
		}
		for size := range len(data) {
			if _, _, err := ReadFooter(bytes.NewReader(data[:size]), int64(size)); !errors.Is(err, ErrFormat) {
				t.Errorf("cut to %d bytes: %v", size, err)
			}
		}
		if _, _, err := ReadFooter(bytes.NewReader(append(data, 0)), int64(len(data)+1)); !errors.Is(err, ErrFormat) {
			t.Errorf("one byte longer: %v", err)
		}
	}
}

// Cut anywhere, a segment gives exactly the records that are whole.
func TestScanOfEveryPrefix(t *testing.T) {
	data, entries := build(testFile, randomPayloads(2, 12, 90)...)
	for size := FileHeaderSize; size <= len(data); size++ {
		whole := 0
		end := int64(FileHeaderSize)
		for whole < len(entries) && entries[whole].End() <= int64(size) {
			end = entries[whole].End()
			whole++
		}
		got, res := scanAll(t, data[:size], testFile)
		if len(got) != whole || res.End != end || res.Skipped != 0 {
			t.Fatalf("%d bytes: %d records to %d, %d skipped; want %d to %d", size, len(got), res.End, res.Skipped, whole, end)
		}
	}
}

// Damage anywhere costs at most the record that it hits.
func TestScanAcrossDamage(t *testing.T) {
	data, entries := build(testFile, randomPayloads(3, 9, 80)...)
	for i := FileHeaderSize; i < len(data); i++ {
		bad := bytes.Clone(data)
		bad[i] ^= 0xff
		got, _ := scanAll(t, bad, testFile)
		want := make([]Entry, 0, len(entries))
		for _, e := range entries {
			if int64(i) < int64(e.Offset) || int64(i) >= e.End() {
				want = append(want, e)
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("byte %d: %d records, want %d", i, len(got), len(want))
		}
	}
}

// Records inside a payload are not records, even when the payload's own record
// is torn: a user does not know the salt.
func TestScanIsNotFooledByPayloads(t *testing.T) {
	forged := testFile
	forged.Salt = 0
	var payload []byte
	for len(payload) < 2000 {
		at := uint32(FileHeaderSize + HeaderSize + len(payload))
		payload = append(Header{Kind: Snapshot}.Append(payload, forged, at), "x"...)
	}
	data, entries := build(testFile, payload, []byte("real"))
	data[FileHeaderSize+20] ^= 1
	got, res := scanAll(t, data, testFile)
	if len(got) != 1 || got[0] != entries[1] || res.Skipped != HeaderSize+int64(len(payload)) {
		t.Errorf("%d records, %+v", len(got), res)
	}
}

func TestScanOverLongGap(t *testing.T) {
	data, _ := build(testFile, []byte("first"))
	gap := bytes.Repeat([]byte{0, 'Q', 'X', 'R'}, 700_000)
	data = append(data, gap...)
	h := Header{Kind: Data, RawLen: 2, StoredLen: 2, PayloadCRC: Checksum([]byte("ok"))}
	data = append(h.Append(data, testFile, uint32(len(data))), "ok"...)
	big := bytes.Repeat([]byte("large"), 600_000)
	h = Header{Kind: Data, RawLen: uint32(len(big)), StoredLen: uint32(len(big)), PayloadCRC: Checksum(big)}
	data = append(h.Append(data, testFile, uint32(len(data))), big...)
	got, res := scanAll(t, data, testFile)
	if len(got) != 3 || res.End != int64(len(data)) || res.Skipped != int64(len(gap)) {
		t.Errorf("%d records, %+v", len(got), res)
	}
}

func TestScanErrors(t *testing.T) {
	data, _ := build(testFile, []byte("a"), []byte("b"))
	stop := errors.New("stop")
	if _, err := Scan(bytes.NewReader(data), testFile, int64(len(data)), func(Entry, []byte) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("fn's error became %v", err)
	}
	broken := errors.New("disk")
	if _, err := Scan(failingReader{broken}, testFile, 1000, func(Entry, []byte) error { return nil }); !errors.Is(err, broken) {
		t.Errorf("the disk's error became %v", err)
	}
	if _, err := ReadFileHeader(failingReader{broken}); !errors.Is(err, broken) {
		t.Errorf("the disk's error became %v", err)
	}
}

type failingReader struct{ err error }

func (r failingReader) ReadAt([]byte, int64) (int, error) { return 0, r.err }

var _ io.ReaderAt = failingReader{}
