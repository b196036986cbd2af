package meta

import (
	"encoding/binary"
	"fmt"
)

// Changes since the last snapshot are rows by epoch. An epoch begins at the cut
// of a snapshot and is named by the next unused number there; so whatever has a
// greater inode number or position is new, and needs no row.

// Flags of a row of a touched inode.
const (
	TouchedShared = 1 << 0 // the inode may have a row in the last snapshot's link table
	TouchedDir    = 1 << 1 // it is a directory
)

// TouchedKey is the key of the mark that an inode, made before the epoch,
// changed in it. Its value is a byte of flags.
func TouchedKey(epoch uint64, ino Ino) []byte {
	return binary.BigEndian.AppendUint64(inoKey(keyTouched, Ino(epoch), 8), uint64(ino))
}

// TouchedRange bounds the marks of the epochs from first up to, not including,
// end.
func TouchedRange(first, end uint64) (from, to []byte) {
	return inoKey(keyTouched, Ino(first), 0), inoKey(keyTouched, Ino(end), 0)
}

// GoneKey is the key of the mark that a name was removed in an epoch, or made to
// lead elsewhere.
func GoneKey(epoch uint64, dir Ino, name string) []byte {
	k := inoKey(keyGone, Ino(epoch), 8+len(name))
	return append(binary.BigEndian.AppendUint64(k, uint64(dir)), name...)
}

// GoneRange bounds such marks of the epochs from first up to, not including, end.
func GoneRange(first, end uint64) (from, to []byte) {
	return inoKey(keyGone, Ino(first), 0), inoKey(keyGone, Ino(end), 0)
}

// DecodeTouched reads a mark of a changed inode. The error is ErrCorrupt.
func DecodeTouched(key, value []byte) (epoch uint64, ino Ino, flags byte, err error) {
	dir, n, err := KeyNumbers(key)
	if err != nil || len(value) != 1 {
		return 0, 0, 0, fmt.Errorf("mark of a changed inode: %w", ErrCorrupt)
	}
	return uint64(dir), Ino(n), value[0], nil
}

// DecodeGone reads the key of a mark of a removed name. The error is ErrCorrupt.
func DecodeGone(key []byte) (epoch uint64, dir Ino, name string, err error) {
	if len(key) < 18 || ValidName(string(key[17:])) != nil {
		return 0, 0, "", fmt.Errorf("mark of a removed name: %w", ErrCorrupt)
	}
	return binary.BigEndian.Uint64(key[1:]), Ino(binary.BigEndian.Uint64(key[9:])), string(key[17:]), nil
}

// TreeKey is the key of a directory's Branch.
func TreeKey(dir Ino) []byte { return inoKey(keyTree, dir, 0) }

// A Branch is a directory's tree in the last snapshot, with sums over all that
// is below. It is no reference: the vertex may be gone.
type Branch struct {
	ID      BlockID
	Below   Sums
	Entries int64 // names in the directory itself
	Subdirs int64 // of these, directories
}

// Sums are those of package graph.
type Sums struct {
	Files, Dirs, Others, Bytes, Data, Linked int64
}

func (s *Sums) fields() []*int64 {
	return []*int64{&s.Files, &s.Dirs, &s.Others, &s.Bytes, &s.Data, &s.Linked}
}

func (s *Sums) append(b []byte) []byte {
	for _, f := range s.fields() {
		b = binary.AppendUvarint(b, uint64(*f))
	}
	return b
}

func (s *Sums) read(r *reader) {
	for _, f := range s.fields() {
		*f = int64(r.uvarint(max63))
	}
}

// Encode makes the row of a branch: the ID and the sums.
func (b Branch) Encode() []byte {
	out := b.Below.append(append(make([]byte, 0, len(b.ID)+20), b.ID[:]...))
	out = binary.AppendUvarint(out, uint64(b.Entries))
	return binary.AppendUvarint(out, uint64(b.Subdirs))
}

// DecodeBranch reads the row of a branch. The error is ErrCorrupt.
func DecodeBranch(b []byte) (Branch, error) {
	r := reader{b: b}
	var out Branch
	copy(out.ID[:], r.bytes(uint64(len(out.ID))))
	out.Below.read(&r)
	out.Entries, out.Subdirs = int64(r.uvarint(max63)), int64(r.uvarint(max63))
	if r.bad || len(r.b) != 0 {
		return out, fmt.Errorf("tree of a directory: %w", ErrCorrupt)
	}
	return out, nil
}

// TrackKey is the key of the state of tracking.
func TrackKey() []byte { return []byte{keyTrack} }

// Tracking says since when changes are kept, and what the last snapshot was. Its
// zero value: they are not.
type Tracking struct {
	Epoch    uint64   // that changes are noted in now
	Base     uint64   // the first one that no snapshot has taken up; 0: there is no snapshot to build on
	Snapshot BlockID  // the last one, made at the start of Base
	Links    BlockID  // its link table; zero: it has none
	Table    Sums     // over what is in that table
	Appended [4]int64 // what the store said then of all that it ever stored: blocks, plain bytes, stored bytes, entropy
}

// Encode makes the row.
func (t Tracking) Encode() []byte {
	b := binary.AppendUvarint(nil, t.Epoch)
	b = binary.AppendUvarint(b, t.Base)
	b = append(b, t.Snapshot[:]...)
	b = append(b, t.Links[:]...)
	b = t.Table.append(b)
	for _, n := range t.Appended {
		b = binary.AppendUvarint(b, uint64(n))
	}
	return b
}

// DecodeTracking reads the row. The error is ErrCorrupt.
func DecodeTracking(b []byte) (Tracking, error) {
	r := reader{b: b}
	t := Tracking{Epoch: r.uvarint(max63), Base: r.uvarint(max63)}
	copy(t.Snapshot[:], r.bytes(uint64(len(t.Snapshot))))
	copy(t.Links[:], r.bytes(uint64(len(t.Links))))
	t.Table.read(&r)
	for i := range t.Appended {
		t.Appended[i] = int64(r.uvarint(max63))
	}
	if r.bad || len(r.b) != 0 || t.Base > t.Epoch {
		return t, fmt.Errorf("state of tracking: %w", ErrCorrupt)
	}
	return t, nil
}

// CheckTracked decodes a row that says what changed since the last snapshot. The error is
// ErrCorrupt.
func CheckTracked(kind Kind, key, value []byte) (err error) {
	switch kind {
	case KindTouched:
		_, _, _, err = DecodeTouched(key, value)
	case KindGone:
		_, _, _, err = DecodeGone(key)
	case KindTree:
		if _, err = KeyIno(key); err == nil {
			_, err = DecodeBranch(value)
		}
	case KindTrack:
		_, err = DecodeTracking(value)
	}
	return err
}
