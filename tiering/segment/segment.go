// Package segment is the format of the files that hold blocks: records that
// describe themselves, appended to a file until it is sealed with a footer that
// lists them. docs/format/segment.md has the drawings.
//
// A file's name is its state:
//
//	NNNNNNNNNNNNNNNN.open  -> records are appended
//	NNNNNNNNNNNNNNNN.seg   -> sealed: footer and trailer are on disk, never changes (I6)
//	NNNNNNNNNNNNNNNN.trash -> removed, the name is about to go
//
// The package turns bytes into values and back and reads through io.ReaderAt;
// it opens no file. Decoders take any bytes: they return an error for what is
// not theirs and never allocate more than the length of their input.
package segment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
)

// Sizes, in bytes. All are part of the format.
const (
	FileHeaderSize = 32
	HeaderSize     = 56
	EntrySize      = 52
	TrailerSize    = 40

	// MaxRaw is the most a record's plain bytes may be.
	MaxRaw = 16 << 20
	// MaxSize is the most a segment may grow to: offsets are 32 bits.
	MaxSize = 1<<32 - 1
)

// Version is the format that this package writes.
const Version = 1

const (
	fileMagic    = "QUARXSEG"
	recordMagic  = "QXRC"
	trailerMagic = "QXSEALED"
)

// ErrFormat is what every decoding error wraps.
var ErrFormat = errors.New("not a valid segment")

// Kind says what a record's plain bytes are.
type Kind uint8

const (
	Data     Kind = 1
	File     Kind = 2
	Tree     Kind = 3
	Snapshot Kind = 4
	Named    Kind = 5 // the name of an object
)

func (k Kind) String() string {
	switch k {
	case Data:
		return "data"
	case File:
		return "file"
	case Tree:
		return "tree"
	case Snapshot:
		return "snapshot"
	case Named:
		return "name"
	}
	return "kind " + strconv.Itoa(int(k))
}

func (k Kind) valid() bool { return k >= Data && k <= Named }

// A State is what the suffix of a segment's name says.
type State string

const (
	Open   State = ".open"
	Sealed State = ".seg"
	Trash  State = ".trash"
)

// Name returns a segment's file name in a state.
func Name(number uint64, state State) string {
	return fmt.Sprintf("%016x%s", number, string(state))
}

// ParseName is the reverse of Name; ok is false for a name that is none.
func ParseName(name string) (number uint64, state State, ok bool) {
	digits, suffix, found := strings.Cut(name, ".")
	state = State("." + suffix)
	if !found || len(digits) != 16 || state != Open && state != Sealed && state != Trash {
		return 0, "", false
	}
	number, err := strconv.ParseUint(digits, 16, 64)
	if err != nil || Name(number, state) != name {
		return 0, "", false
	}
	return number, state, true
}

// A FileHeader starts a segment.
type FileHeader struct {
	Number uint64
	// Salt is random. The check of every record's header depends on it, so
	// that bytes inside a block that look like a record are not taken for one
	// when a damaged segment is searched for its records.
	Salt uint64
}

// Append appends the header's FileHeaderSize bytes to dst.
func (h FileHeader) Append(dst []byte) []byte {
	start := len(dst)
	dst = append(dst, fileMagic...)
	dst = binary.LittleEndian.AppendUint32(dst, Version)
	dst = binary.LittleEndian.AppendUint32(dst, 0)
	dst = binary.LittleEndian.AppendUint64(dst, h.Number)
	dst = binary.LittleEndian.AppendUint64(dst, h.Salt)
	binary.LittleEndian.PutUint32(dst[start+12:], fileCheck(dst[start:]))
	return dst
}

// ParseFileHeader reads the header in the first bytes of a segment.
func ParseFileHeader(src []byte) (FileHeader, error) {
	if len(src) < FileHeaderSize {
		return FileHeader{}, fmt.Errorf("%w: %d bytes are too few for a file header", ErrFormat, len(src))
	}
	src = src[:FileHeaderSize]
	if string(src[:8]) != fileMagic {
		return FileHeader{}, fmt.Errorf("%w: magic %q", ErrFormat, src[:8])
	}
	if binary.LittleEndian.Uint32(src[12:]) != fileCheck(src) {
		return FileHeader{}, fmt.Errorf("%w: file header fails its check", ErrFormat)
	}
	if v := binary.LittleEndian.Uint32(src[8:]); v != Version {
		return FileHeader{}, fmt.Errorf("%w: version %d, this program reads %d", ErrFormat, v, Version)
	}
	return FileHeader{Number: binary.LittleEndian.Uint64(src[16:]), Salt: binary.LittleEndian.Uint64(src[24:])}, nil
}

// fileCheck covers a file header but for the check itself.
func fileCheck(h []byte) uint32 {
	crc := crc32.Update(0, castagnoli(), h[:12])
	return crc32.Update(crc, castagnoli(), h[16:FileHeaderSize])
}

// A Header describes a record. StoredLen bytes of payload follow it.
type Header struct {
	Kind       Kind
	Codec      Codec
	RawLen     uint32
	StoredLen  uint32
	PayloadCRC uint32
	ID         [32]byte
}

// Length returns the size of the whole record, header included.
func (h Header) Length() uint32 { return HeaderSize + h.StoredLen }

// Append appends the HeaderSize bytes of a record's header to dst. The record
// is to stand at the given offset of the file: the check covers that as well,
// so that a record read from the wrong place is not taken for the right one.
func (h Header) Append(dst []byte, file FileHeader, offset uint32) []byte {
	start := len(dst)
	dst = append(dst, recordMagic...)
	dst = append(dst, 0, 0, 0, 0, byte(h.Kind), byte(h.Codec), 0, 0)
	dst = binary.LittleEndian.AppendUint32(dst, h.RawLen)
	dst = binary.LittleEndian.AppendUint32(dst, h.StoredLen)
	dst = binary.LittleEndian.AppendUint32(dst, h.PayloadCRC)
	dst = append(dst, h.ID[:]...)
	binary.LittleEndian.PutUint32(dst[start+4:], recordCheck(dst[start:], file, offset))
	return dst
}

// ParseHeader reads a record's header that stands at offset of its file.
func ParseHeader(src []byte, file FileHeader, offset uint32) (Header, error) {
	if len(src) < HeaderSize {
		return Header{}, fmt.Errorf("%w: %d bytes are too few for a record header", ErrFormat, len(src))
	}
	src = src[:HeaderSize]
	if string(src[:4]) != recordMagic {
		return Header{}, fmt.Errorf("%w: record magic %q", ErrFormat, src[:4])
	}
	// Before any field is looked at: with another place's or segment's header none of them means
	// anything.
	if binary.LittleEndian.Uint32(src[4:]) != recordCheck(src, file, offset) {
		return Header{}, fmt.Errorf("%w: record header fails its check", ErrFormat)
	}
	h := Header{
		Kind:       Kind(src[8]),
		Codec:      Codec(src[9]),
		RawLen:     binary.LittleEndian.Uint32(src[12:]),
		StoredLen:  binary.LittleEndian.Uint32(src[16:]),
		PayloadCRC: binary.LittleEndian.Uint32(src[20:]),
		ID:         [32]byte(src[24:]),
	}
	return h, h.Validate()
}

// Validate checks that the fields are in range and agree with each other.
func (h Header) Validate() error {
	switch {
	case !h.Kind.valid():
		return fmt.Errorf("%w: unknown %v", ErrFormat, h.Kind)
	case !h.Codec.valid():
		return fmt.Errorf("%w: unknown %v", ErrFormat, h.Codec)
	case h.RawLen > MaxRaw:
		return fmt.Errorf("%w: raw length %d is over %d", ErrFormat, h.RawLen, MaxRaw)
	case h.StoredLen > h.RawLen, h.Codec == Raw && h.StoredLen != h.RawLen:
		return fmt.Errorf("%w: stored length %d of raw length %d as %v", ErrFormat, h.StoredLen, h.RawLen, h.Codec)
	}
	return nil
}

// recordCheck covers a record's header but for the magic and the check itself,
// and before it the segment's salt and number and the record's offset.
func recordCheck(h []byte, file FileHeader, offset uint32) uint32 {
	crc := ^uint32(0)
	crc = updateUint64(crc, file.Salt)
	crc = updateUint64(crc, file.Number)
	for range 4 {
		crc = castagnoli()[uint8(crc)^uint8(offset)] ^ crc>>8
		offset >>= 8
	}
	return crc32.Update(^crc, castagnoli(), h[8:HeaderSize])
}

// updateUint64 adds v's little-endian bytes to a CRC that is not inverted yet.
// Package crc32 would want them in a slice, which escapes to the heap.
func updateUint64(crc uint32, v uint64) uint32 {
	for range 8 {
		crc = castagnoli()[uint8(crc)^uint8(v)] ^ crc>>8
		v >>= 8
	}
	return crc
}

// Checksum is the CRC32C that guards payloads.
func Checksum(p []byte) uint32 { return crc32.Checksum(p, castagnoli()) }

// castagnoli: crc32.MakeTable returns the package's one table for this
// polynomial, which is what selects the processor's instruction.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }
