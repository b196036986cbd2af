package segment

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
)

// An Entry is a record as the footer lists it: its header and where it stands.
type Entry struct {
	Header
	Offset uint32
}

// End returns the offset just behind the record.
func (e Entry) End() int64 { return int64(e.Offset) + int64(e.Length()) }

// AppendFooter appends the footer and trailer of a segment whose records are
// entries, in ascending order of offset. The footer is to stand at offset.
func AppendFooter(dst []byte, file FileHeader, entries []Entry, offset uint32) []byte {
	start := len(dst)
	for i := range entries {
		e := &entries[i]
		dst = binary.LittleEndian.AppendUint32(dst, e.Offset)
		dst = append(dst, byte(e.Kind), byte(e.Codec), 0, 0)
		dst = binary.LittleEndian.AppendUint32(dst, e.RawLen)
		dst = binary.LittleEndian.AppendUint32(dst, e.StoredLen)
		dst = binary.LittleEndian.AppendUint32(dst, e.PayloadCRC)
		dst = append(dst, e.ID[:]...)
	}
	t := trailer{file: file, offset: offset, count: uint32(len(entries)), crc: Checksum(dst[start:])}
	return t.append(dst)
}

type trailer struct {
	file   FileHeader
	offset uint32 // of the footer
	count  uint32
	crc    uint32 // of the entries
}

func (t trailer) append(dst []byte) []byte {
	start := len(dst)
	dst = append(dst, trailerMagic...)
	dst = binary.LittleEndian.AppendUint64(dst, t.file.Number)
	dst = binary.LittleEndian.AppendUint64(dst, t.file.Salt)
	dst = binary.LittleEndian.AppendUint32(dst, t.offset)
	dst = binary.LittleEndian.AppendUint32(dst, t.count)
	dst = binary.LittleEndian.AppendUint32(dst, t.crc)
	return binary.LittleEndian.AppendUint32(dst, Checksum(dst[start:]))
}

// parseTrailer reads the last TrailerSize bytes of a file of size bytes.
func parseTrailer(src []byte, size int64) (trailer, error) {
	if len(src) != TrailerSize || string(src[:8]) != trailerMagic {
		return trailer{}, fmt.Errorf("%w: no trailer", ErrFormat)
	}
	if binary.LittleEndian.Uint32(src[36:]) != crc32.Checksum(src[:36], castagnoli()) {
		return trailer{}, fmt.Errorf("%w: trailer fails its check", ErrFormat)
	}
	t := trailer{
		file:   FileHeader{Number: binary.LittleEndian.Uint64(src[8:]), Salt: binary.LittleEndian.Uint64(src[16:])},
		offset: binary.LittleEndian.Uint32(src[24:]),
		count:  binary.LittleEndian.Uint32(src[28:]),
		crc:    binary.LittleEndian.Uint32(src[32:]),
	}
	if int64(t.offset) < FileHeaderSize || int64(t.offset)+int64(t.count)*EntrySize+TrailerSize != size {
		return trailer{}, fmt.Errorf("%w: trailer does not fit a file of %d bytes", ErrFormat, size)
	}
	return t, nil
}

// parseEntries reads a footer's entries and checks that they are in order,
// apart from each other, and before the footer.
func parseEntries(src []byte, t trailer) ([]Entry, error) {
	if int64(len(src)) != int64(t.count)*EntrySize || Checksum(src) != t.crc {
		return nil, fmt.Errorf("%w: footer fails its check", ErrFormat)
	}
	// The count has been checked against the bytes that there are.
	entries := make([]Entry, t.count)
	end := int64(FileHeaderSize)
	for i := range entries {
		b := src[i*EntrySize : (i+1)*EntrySize]
		e := Entry{Offset: binary.LittleEndian.Uint32(b), Header: Header{
			Kind:       Kind(b[4]),
			Codec:      Codec(b[5]),
			RawLen:     binary.LittleEndian.Uint32(b[8:]),
			StoredLen:  binary.LittleEndian.Uint32(b[12:]),
			PayloadCRC: binary.LittleEndian.Uint32(b[16:]),
			ID:         [32]byte(b[20:]),
		}}
		if err := e.Validate(); err != nil {
			return nil, fmt.Errorf("footer entry %d: %w", i, err)
		}
		// Entries that overlap would have two IDs for the same bytes.
		if int64(e.Offset) < end || e.End() > int64(t.offset) {
			return nil, fmt.Errorf("%w: footer entry %d at %d is out of place", ErrFormat, i, e.Offset)
		}
		end = e.End()
		entries[i] = e
	}
	return entries, nil
}

// ReadFooter returns what a sealed segment of size bytes lists. An error that
// wraps ErrFormat says that the file is not sealed or is damaged; Scan may
// still find its records.
func ReadFooter(r io.ReaderAt, size int64) (FileHeader, []Entry, error) {
	if size < FileHeaderSize+TrailerSize || size > MaxSize {
		return FileHeader{}, nil, fmt.Errorf("%w: %d bytes", ErrFormat, size)
	}
	var tail [TrailerSize]byte
	if err := readFull(r, tail[:], size-TrailerSize); err != nil {
		return FileHeader{}, nil, err
	}
	t, err := parseTrailer(tail[:], size)
	if err != nil {
		return FileHeader{}, nil, err
	}
	buf := make([]byte, int(t.count)*EntrySize)
	if err := readFull(r, buf, int64(t.offset)); err != nil {
		return FileHeader{}, nil, err
	}
	entries, err := parseEntries(buf, t)
	return t.file, entries, err
}

// ReadFileHeader reads and checks the header of a segment.
func ReadFileHeader(r io.ReaderAt) (FileHeader, error) {
	var buf [FileHeaderSize]byte
	if err := readFull(r, buf[:], 0); err != nil {
		return FileHeader{}, err
	}
	return ParseFileHeader(buf[:])
}

// readFull reads len(p) bytes; a file that ends before is ErrFormat.
func readFull(r io.ReaderAt, p []byte, off int64) error {
	n, err := r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == io.EOF || err == nil {
		return fmt.Errorf("%w: ends %d bytes short at %d", ErrFormat, len(p)-n, off)
	}
	return err
}
