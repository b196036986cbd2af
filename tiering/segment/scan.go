package segment

import (
	"bytes"
	"errors"
	"io"
)

// A ScanResult says what Scan met besides records.
type ScanResult struct {
	// End is the offset just behind the last whole record or stamp.
	End int64
	// Skipped counts the bytes before End that belong to no whole record or stamp.
	Skipped int64
	// Stamp is the last stamp, the zero one if there is none, and StampEnd the offset just behind
	// it.
	Stamp    Stamp
	StampEnd int64
}

// Scan calls fn for every whole record of a segment of size bytes, sealed or
// not, in ascending order: those whose header and payload pass their checks. It
// needs no footer. What is not a whole record (a torn append, a damaged block, a
// footer) is skipped by searching for the next that is: appends run
// concurrently, so a crash may leave a gap before a record that is durable.
//
// The entry and the payload are fn's only until it returns. An error of fn ends
// the scan and is returned as it is; other errors are those of reading.
func Scan(r io.ReaderAt, file FileHeader, size int64, fn func(e Entry, payload []byte) error) (ScanResult, error) {
	s := scanner{r: r, size: min(size, MaxSize), file: file}
	res := ScanResult{End: FileHeaderSize}
	for off := int64(FileHeaderSize); ; {
		// A stamp is looked for only where the last record ended: in a gap its bytes could be part
		// of anything.
		stamp, ok, err := s.stamp(off)
		if err != nil {
			return res, err
		}
		if ok {
			off += StampSize
			res.Stamp, res.StampEnd, res.End = stamp, off, off
			continue
		}
		e, payload, err := s.next(off)
		if errors.Is(err, io.EOF) {
			return res, nil
		}
		if err != nil {
			return res, err
		}
		res.Skipped += int64(e.Offset) - res.End
		res.End = e.End()
		off = res.End
		if err := fn(e, payload); err != nil {
			return res, err
		}
	}
}

const scanStep = 1 << 20

// A scanner holds a window of the file: buf stands at off.
type scanner struct {
	r    io.ReaderAt
	size int64
	file FileHeader
	off  int64
	buf  []byte
}

// stamp reads the stamp at off, if there is one.
func (s *scanner) stamp(off int64) (stamp Stamp, ok bool, err error) {
	if off+StampSize > s.size {
		return Stamp{}, false, nil
	}
	window, err := s.window(off, StampSize)
	if err != nil {
		return Stamp{}, false, err
	}
	stamp, ok = ParseStamp(window, s.file, uint32(off))
	return stamp, ok, nil
}

// next returns the first whole record at or behind off, or io.EOF.
func (s *scanner) next(off int64) (Entry, []byte, error) {
	for off+HeaderSize <= s.size {
		window, err := s.window(off, HeaderSize)
		if err != nil {
			return Entry{}, nil, err
		}
		// By the magic, whose false hits in a payload fail the check, which depends on the offset.
		i := bytes.Index(window, []byte(recordMagic))
		if i < 0 {
			// The last three bytes may be the beginning of one.
			off += int64(len(window) - len(recordMagic) + 1)
			continue
		}
		off += int64(i)
		e, payload, err := s.record(off)
		if err != nil || payload != nil {
			return e, payload, err
		}
		off++
	}
	return Entry{}, nil, io.EOF
}

// record returns the record at off; its payload is nil, and not merely empty,
// where there is no whole one.
func (s *scanner) record(off int64) (Entry, []byte, error) {
	if off+HeaderSize > s.size {
		return Entry{}, nil, nil
	}
	window, err := s.window(off, HeaderSize)
	if err != nil {
		return Entry{}, nil, err
	}
	// No record is no error: it is where the segment ends, or a place to look behind.
	h, err := ParseHeader(window, s.file, uint32(off))
	if err != nil {
		return Entry{}, nil, nil
	}
	e := Entry{Header: h, Offset: uint32(off)}
	// A torn append: the header reached the disk and the payload did not.
	if e.End() > s.size {
		return Entry{}, nil, nil
	}
	if window, err = s.window(off, int(h.Length())); err != nil {
		return Entry{}, nil, err
	}
	payload := window[HeaderSize:h.Length()]
	if Checksum(payload) != h.PayloadCRC {
		return Entry{}, nil, nil
	}
	return e, payload, nil
}

// window returns the bytes from off on, at least n of them. The caller has
// checked that the file has as many.
func (s *scanner) window(off int64, n int) ([]byte, error) {
	if off >= s.off && off+int64(n) <= s.off+int64(len(s.buf)) {
		return s.buf[off-s.off:], nil
	}
	want := min(int64(max(n, scanStep)), s.size-off)
	if int64(cap(s.buf)) < want {
		s.buf = make([]byte, want)
	}
	s.buf, s.off = s.buf[:want], off
	if err := readFull(s.r, s.buf, off); err != nil {
		s.buf = s.buf[:0]
		return nil, err
	}
	return s.buf, nil
}
