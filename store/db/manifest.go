package db

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/pb"
	"github.com/dgraph-io/badger/v4/table"
	"google.golang.org/protobuf/proto"
)

// Badger's list of tables, MANIFEST, is a header of 8 bytes and sets of changes:
//
//	+-------------+-------------+---------------------------------+
//	| length (4B) | CRC32C (4B) | pb.ManifestChangeSet (length B) |
//	+-------------+-------------+---------------------------------+
//
// A set that could not be written or synced may be there all the same, in whole
// or in part, though Badger has taken it back and removed the table that it names.
const (
	manifestHeader = 8
	setHeader      = 8
	manifestMagic  = "Bdgr"
)

// A changeSet is one as it is in the file.
type changeSet struct {
	raw     []byte
	changes []*pb.ManifestChange
}

// flushed returns the table that a flush of a memtable adds, if that is what the set is.
func (s changeSet) flushed() (id uint64, ok bool) {
	if len(s.changes) != 1 || s.changes[0].Op != pb.ManifestChange_CREATE || s.changes[0].Level != 0 {
		return 0, false
	}
	return s.changes[0].Id, true
}

// readSet reads the set at the start of b. An empty one is a header of zeroes,
// with which a list begins.
func readSet(b []byte) (changeSet, bool) {
	if len(b) < setHeader {
		return changeSet{}, false
	}
	size := uint64(binary.BigEndian.Uint32(b))
	if size > uint64(len(b)-setHeader) {
		return changeSet{}, false
	}
	raw := b[:setHeader+size]
	if crc32.Checksum(raw[setHeader:], castagnoli()) != binary.BigEndian.Uint32(b[4:]) {
		return changeSet{}, false
	}
	var m pb.ManifestChangeSet
	if proto.Unmarshal(raw[setHeader:], &m) != nil {
		return changeSet{}, false
	}
	return changeSet{raw, m.Changes}, true
}

// readSets reads all whole sets of a list, passing over what is none; zeroes
// there are not taken for an empty one. whole tells that there was nothing of
// that kind before the last set.
func readSets(list []byte) (sets []changeSet, whole bool) {
	whole = true
	torn := false
	for at := manifestHeader; at < len(list); {
		s, ok := readSet(list[at:])
		if !ok || torn && len(s.changes) == 0 {
			torn = true
			at++
			continue
		}
		whole = whole && !torn
		torn = false
		sets = append(sets, s)
		at += len(s.raw)
	}
	return sets, whole
}

// repairManifest takes out of the list of tables what a failing disk left there:
// torn sets, and tables whose addition failed. Badger made the latter again under another
// number, or will do so from the memtable's log. Any other table that is missing is
// damage, which Badger reports.
func (d *DB) repairManifest(dir string) error {
	name := filepath.Join(dir, badger.ManifestFilename)
	list, err := os.ReadFile(name)
	// Badger makes one for an instance that is new.
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(list) < manifestHeader {
		return nil
	}
	if err != nil {
		return err
	}
	sets, whole := readSets(list)
	void, err := voidSets(dir, sets)
	if err != nil || whole && len(void) == 0 {
		return err
	}
	// Said before it is done: the list of before is gone then.
	d.log.Warn("repairing the database's list of tables after a failure of the disk", "dir", dir, "whole", whole, "void", len(void))
	var repaired bytes.Buffer
	repaired.Write(list[:manifestHeader])
	for i, s := range sets {
		if !void[i] {
			repaired.Write(s.raw)
		}
	}
	return d.opt.disk.replace(name, repaired.Bytes())
}

// lastFlush is the last set that a flush has made; -1: there is none.
func lastFlush(sets []changeSet) int {
	for i, s := range slices.Backward(sets) {
		if _, ok := s.flushed(); ok {
			return i
		}
	}
	return -1
}

// voidSets returns the sets that a failed flush left.
func voidSets(dir string, sets []changeSet) (map[int]bool, error) {
	deleted := make(map[uint64]bool)
	// The last one may be missing because its table was not finished: then its log is still there.
	last := lastFlush(sets)
	for _, s := range sets {
		for _, c := range s.changes {
			if c.Op == pb.ManifestChange_DELETE {
				deleted[c.Id] = true
			}
		}
	}
	logs, err := logBytes(dir)
	if err != nil {
		return nil, err
	}
	void := make(map[int]bool)
	for i, s := range sets {
		id, ok := s.flushed()
		if !ok || deleted[id] || i == last && logs == 0 {
			continue
		}
		_, err := os.Stat(table.NewFilename(id, dir))
		if errors.Is(err, fs.ErrNotExist) {
			void[i] = true
		} else if err != nil {
			return nil, err
		}
	}
	return void, nil
}

// encodeSet is what readSet reads.
func encodeSet(m *pb.ManifestChangeSet) ([]byte, error) {
	body, err := proto.Marshal(m)
	if err != nil {
		return nil, err
	}
	set := binary.BigEndian.AppendUint32(nil, uint32(len(body)))
	set = binary.BigEndian.AppendUint32(set, crc32.Checksum(body, castagnoli()))
	return append(set, body...), nil
}
