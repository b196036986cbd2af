package db

import (
	"bufio"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"io/fs"
	"strconv"

	"github.com/dgraph-io/badger/v4/y"
)

// Badger's log of a memtable is a header, which starts with the number of a key (0: not encrypted)
// and goes on with 12 random bytes, and entries up to the first that is none:
//
//	+-----------+----------------+----------------------+----------------------+-------------------+-----+-------+-------------+
//	| meta (1B) | user meta (1B) | key length (uvarint) | value length (uvar.) | expires (uvarint) | key | value | CRC32C (4B) |
//	+-----------+----------------+----------------------+----------------------+-------------------+-----+-------+-------------+
//
// The key ends with the version. A transaction's entries have memTxn set, and what ends
// it is one with memEnd whose value is the version in decimal digits.
const (
	memHeader = 20
	memDelete = 1 << 0
	memTxn    = 1 << 6
	memEnd    = 1 << 7
	maxMemKey = 1 << 16
	maxMemVal = 1 << 30
)

// A versionedRow is a row as a table or a memtable's log has it; a nil value is a deletion.
type versionedRow struct {
	key     []byte
	value   []byte
	version uint64
}

// readMem calls fn with the rows of all whole transactions, which may keep the slices.
func readMem(name string, fn func(versionedRow)) error {
	f, err := openRegular(name)
	if err != nil {
		return err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 256<<10)
	// A log shorter than its header was begun and holds nothing.
	if _, err := r.Discard(memHeader); err != nil {
		return endOfMem(err)
	}
	var txn []versionedRow
	for {
		meta, row, err := memEntry(r)
		if err != nil || len(row.key) == 0 {
			return endOfMem(err)
		}
		switch {
		case meta&memEnd != 0:
			v, err := strconv.ParseUint(string(row.value), 10, 64)
			// As Badger reads it: the first transaction that is not whole ends the log.
			if err != nil || len(txn) == 0 || v != txn[0].version {
				return nil
			}
			// Not before its end is there: a transaction counts as a whole or not at all.
			for _, row := range txn {
				fn(row)
			}
			txn = txn[:0]
		case meta&memTxn == 0 || len(txn) > 0 && row.version != txn[0].version:
			return nil
		default:
			if meta&memDelete != 0 {
				row.value = nil
			}
			txn = append(txn, row)
		}
	}
}

// endOfMem makes the end of the entries of the end of the file.
func endOfMem(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

// memEntry reads an entry; one without a key is the end.
func memEntry(r *bufio.Reader) (meta byte, row versionedRow, err error) {
	var head []byte
	for range 2 {
		b, err := r.ReadByte()
		if err != nil {
			return 0, row, err
		}
		head = append(head, b)
	}
	var n [3]uint64
	for i := range n {
		if n[i], err = binary.ReadUvarint(r); errors.As(err, new(*fs.PathError)) {
			return 0, row, err
		} else if err != nil {
			return 0, row, io.EOF // of the file, or no number at all
		}
		head = binary.AppendUvarint(head, n[i])
	}
	if n[0] <= 8 || n[0] > maxMemKey || n[1] > maxMemVal {
		return 0, row, nil
	}
	b := make([]byte, n[0]+n[1]+crc32.Size)
	if _, err := io.ReadFull(r, b); err != nil {
		return 0, row, err
	}
	body, sum := b[:n[0]+n[1]], binary.BigEndian.Uint32(b[n[0]+n[1]:])
	if crc32.Update(crc32.Checksum(head, castagnoli()), castagnoli(), body) != sum {
		return 0, row, nil
	}
	key := body[:n[0]:n[0]]
	return head[0], versionedRow{key: y.ParseKey(key), value: body[n[0]:], version: y.ParseTs(key)}, nil
}
