package segment

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
)

// StampSize is the size of a stamp, in bytes.
const StampSize = 32

const stampMagic = "QXCT"

// A Stamp says of which store a segment is, and how many commits that had had when the stamp was
// written. It stands between records, and whoever does not know stamps takes it for a gap. As the
// commits were durable before, a database that knows of fewer is older than the segment.
type Stamp struct {
	Volume  [16]byte
	Commits uint64
}

// Append appends the stamp as it is to stand at offset of its file.
func (s Stamp) Append(dst []byte, file FileHeader, offset uint32) []byte {
	dst = append(dst, stampMagic...)
	dst = binary.LittleEndian.AppendUint32(dst, s.check(file, offset))
	dst = binary.LittleEndian.AppendUint64(dst, s.Commits)
	return append(dst, s.Volume[:]...)
}

// ParseStamp reads the stamp that stands at offset of its file; ok is false where there is none.
func ParseStamp(src []byte, file FileHeader, offset uint32) (s Stamp, ok bool) {
	if len(src) < StampSize || string(src[:4]) != stampMagic {
		return Stamp{}, false
	}
	s = Stamp{Volume: [16]byte(src[16:]), Commits: binary.LittleEndian.Uint64(src[8:])}
	if binary.LittleEndian.Uint32(src[4:]) != s.check(file, offset) {
		return Stamp{}, false
	}
	return s, true
}

// check has the salt in it, so that nobody can store bytes that are taken for a stamp.
func (s Stamp) check(file FileHeader, offset uint32) uint32 {
	crc := updateUint64(^uint32(0), file.Salt)
	crc = updateUint64(crc, file.Number)
	crc = updateUint64(updateUint64(crc, uint64(offset)), s.Commits)
	return crc32.Update(^crc, castagnoli(), s.Volume[:])
}

// LastStamp returns the last stamp of a segment of size bytes, sealed or not; the zero one where
// there is none. Later stamps never say less.
func LastStamp(r io.ReaderAt, file FileHeader, size int64) (Stamp, error) {
	size = min(size, MaxSize)
	end := size
	// A sealed segment has its last one before the footer, and is not searched when it has none
	// there: it was made before there were stamps.
	if offset, ok, err := footerOffset(r, size); err != nil || ok {
		if offset < FileHeaderSize+StampSize {
			return Stamp{}, err
		}
		last, _, err := readStamp(r, file, offset-StampSize)
		return last, err
	}
	// Behind a segment that was closed well there is nothing else.
	if end >= FileHeaderSize+StampSize {
		last, ok, err := readStamp(r, file, end-StampSize)
		if err != nil || ok {
			return last, err
		}
	}
	buf := make([]byte, min(scanStep, max(0, end-FileHeaderSize))+StampSize)
	for end > FileHeaderSize {
		start := max(FileHeaderSize, end-scanStep)
		// A stamp may begin in this part and end in the one before.
		part := buf[:min(size, end+StampSize-1)-start]
		if err := readFull(r, part, start); err != nil {
			return Stamp{}, err
		}
		for i := bytes.LastIndex(part, []byte(stampMagic)); i >= 0; i = bytes.LastIndex(part[:i], []byte(stampMagic)) {
			if last, ok := ParseStamp(part[i:], file, uint32(start)+uint32(i)); ok {
				return last, nil
			}
		}
		end = start
	}
	return Stamp{}, nil
}

func footerOffset(r io.ReaderAt, size int64) (offset int64, sealed bool, err error) {
	if size < FileHeaderSize+TrailerSize {
		return 0, false, nil
	}
	var tail [TrailerSize]byte
	if err := readFull(r, tail[:], size-TrailerSize); err != nil {
		return 0, false, err
	}
	t, err := parseTrailer(tail[:], size)
	if errors.Is(err, ErrFormat) {
		return 0, false, nil
	}
	return int64(t.offset), err == nil, err
}

func readStamp(r io.ReaderAt, file FileHeader, offset int64) (s Stamp, ok bool, err error) {
	var b [StampSize]byte
	if err := readFull(r, b[:], offset); err != nil {
		return Stamp{}, false, err
	}
	s, ok = ParseStamp(b[:], file, uint32(offset))
	return s, ok, nil
}
