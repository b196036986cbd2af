package db

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// The log's formats, all big-endian; docs/format/database-layer.md draws them.
const (
	// blockSize is the unit of the log: no block is written twice in a
	// generation, so that a write torn by a power cut harms nothing older.
	blockSize = 4096
	// logStart is where the records of a file begin, after two header slots.
	logStart = 2 * blockSize

	slotSize   = 52
	basedSlot  = 60 // with the version of the instance
	recordHead = 48
	logVersion = 1 // of a slot that says no version of the instance
	logBased   = 2

	slotMagic   = "QXFSCLOG"
	recordMagic = "QXCR"

	opDelete = 0
	opSet    = 1
)

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// logID is random and the same in both files. It is part of every checksum but
// of no record, so that nobody can put bytes into a value that pass for a record.
type logID [16]byte

// slot is a file's header: records of generations up to freed are dead.
type slot struct {
	index uint32
	id    logID
	freed uint64
	based uint64 // the instance had all versions up to this, in the files of its list; 0: there was no list
	next  uint64 // the instance had all commits below; with based only
}

func (s slot) encode() []byte {
	b := append(make([]byte, 0, blockSize), slotMagic...)
	version := uint32(logVersion)
	if s.based > 0 {
		version = logBased
	}
	b = binary.BigEndian.AppendUint32(b, version)
	b = binary.BigEndian.AppendUint32(b, s.index)
	b = append(b, s.id[:]...)
	b = binary.BigEndian.AppendUint64(b, s.freed)
	b = binary.BigEndian.AppendUint64(b, s.based)
	if s.based > 0 {
		b = binary.BigEndian.AppendUint64(b, s.next)
	}
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli()))
	return b[:blockSize]
}

// parseSlot's second result is false for what is no slot or a damaged one.
func parseSlot(b []byte) (slot, bool) {
	if len(b) < basedSlot {
		return slot{}, false
	}
	// The version is read before the checksum, whose place it decides; a damaged one fails the
	// other's.
	body := slotSize - 4
	version := binary.BigEndian.Uint32(b[8:])
	if version == logBased {
		body = basedSlot - 4
	}
	if string(b[:8]) != slotMagic || version != logVersion && version != logBased ||
		crc32.Checksum(b[:body], castagnoli()) != binary.BigEndian.Uint32(b[body:]) {
		return slot{}, false
	}
	s := slot{
		index: binary.BigEndian.Uint32(b[12:]),
		id:    logID(b[16:32]),
		freed: binary.BigEndian.Uint64(b[32:]),
	}
	if version == logBased {
		s.based, s.next = binary.BigEndian.Uint64(b[40:]), binary.BigEndian.Uint64(b[48:])
	}
	return s, true
}

// recordPos is where a record is. It is part of its checksum, so that a copy of a
// record elsewhere is none.
type recordPos struct {
	id    logID
	index uint32
	off   int64
}

// A record is one commit.
type record struct {
	gen  uint64 // of the file's contents; counts up each time a file is begun
	seq  uint64 // of the commit; counts up by one
	base uint64 // least sequence that was needed when this was written
	size uint64 // of the payload
	crc  uint32 // of the payload
}

// blocks is what the record takes of the file, in bytes.
func (r record) blocks() int64 {
	return (int64(r.size) + recordHead + blockSize - 1) / blockSize * blockSize
}

func (r record) encode(b []byte, at recordPos) {
	copy(b, recordMagic)
	binary.BigEndian.PutUint64(b[4:], r.gen)
	binary.BigEndian.PutUint64(b[12:], r.seq)
	binary.BigEndian.PutUint64(b[20:], r.base)
	binary.BigEndian.PutUint64(b[28:], r.size)
	binary.BigEndian.PutUint32(b[36:], r.crc)
	binary.BigEndian.PutUint32(b[40:], 0)
	binary.BigEndian.PutUint32(b[44:], at.checksum(b[:44]))
}

func (p recordPos) checksum(head []byte) uint32 {
	var b [28]byte
	copy(b[:], p.id[:])
	binary.BigEndian.PutUint32(b[16:], p.index)
	binary.BigEndian.PutUint64(b[20:], uint64(p.off))
	return crc32.Update(crc32.Checksum(b[:], castagnoli()), castagnoli(), head)
}

// parseRecord's second result is false for what is no header of a record.
func parseRecord(b []byte, at recordPos) (record, bool) {
	if len(b) < recordHead || string(b[:4]) != recordMagic || at.checksum(b[:44]) != binary.BigEndian.Uint32(b[44:]) {
		return record{}, false
	}
	r := record{
		gen:  binary.BigEndian.Uint64(b[4:]),
		seq:  binary.BigEndian.Uint64(b[12:]),
		base: binary.BigEndian.Uint64(b[20:]),
		size: binary.BigEndian.Uint64(b[28:]),
		crc:  binary.BigEndian.Uint32(b[36:]),
	}
	const sane = 1 << 48 // keeps sums of offsets far from overflow
	return r, r.size < sane && r.base <= r.seq
}

func appendChange(buf, key, value []byte) []byte {
	op := byte(opSet)
	if value == nil {
		op = opDelete
	}
	buf = append(buf, op)
	buf = binary.AppendUvarint(buf, uint64(len(key)))
	buf = append(buf, key...)
	if op == opSet {
		buf = binary.AppendUvarint(buf, uint64(len(value)))
		buf = append(buf, value...)
	}
	return buf
}

// nextChange returns the first change in payload, as parts of it, and the rest.
func nextChange(payload []byte) (key, value, rest []byte, err error) {
	op := payload[0]
	if op > opSet {
		return nil, nil, nil, fmt.Errorf("%w: change of kind %d", ErrCorrupt, op)
	}
	key, rest, err = nextBytes(payload[1:])
	if err != nil || op == opDelete {
		return key, nil, rest, err
	}
	value, rest, err = nextBytes(rest)
	return key, value, rest, err
}

func nextBytes(b []byte) (data, rest []byte, err error) {
	n, size := binary.Uvarint(b)
	if size <= 0 || n > uint64(len(b)-size) {
		return nil, nil, fmt.Errorf("%w: changes end early", ErrCorrupt)
	}
	end := size + int(n)
	return b[size:end:end], b[end:], nil
}

// eachChange calls fn with the changes of a payload, as parts of it.
func eachChange(payload []byte, fn func(key, value []byte) error) error {
	for len(payload) > 0 {
		key, value, rest, err := nextChange(payload)
		if err != nil {
			return err
		}
		if err := fn(key, value); err != nil {
			return err
		}
		payload = rest
	}
	return nil
}
