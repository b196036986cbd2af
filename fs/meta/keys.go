// Package meta is the namespace's records in the database: their keys and
// their encodings. It holds no state. docs/format/database.md draws them.
package meta

import (
	"encoding/binary"
	"errors"
)

// ErrCorrupt is returned when a record cannot be what its key says.
var ErrCorrupt = errors.New("damaged record")

// An Ino is an inode number. Numbers are given out in order and never twice.
type Ino uint64

// Root is the inode of the root directory.
const Root Ino = 1

// FirstIno leaves room below for the root and for directory positions of . and ..
const FirstIno = 16

// The first byte of a key says what the row is.
const (
	keyInode   = 'I' // ino -> Inode
	keyName    = 'N' // directory, name -> position
	keyEntry   = 'E' // directory, position -> Dirent
	keyXattr   = 'X' // ino, name -> value
	keyExtents = 'P' // ino, page number -> extents that start in the page
	keyStaged  = 'S' // ino, slot number -> bytes not yet cut into blocks
	keyOrphan  = 'O' // ino of an inode without a name -> nothing
	keyCounter = 'C' // -> Counters
	keyTouched = 'K' // epoch, ino -> flags: it was there before the epoch and changed in it
	keyGone    = 'R' // epoch, directory, name -> nothing: the name led elsewhere before the epoch
	keyTree    = 'T' // directory -> Branch: its tree in the last snapshot
	keyTrack   = 'W' // -> Tracking
)

// A Kind says what a row is; it is the first byte of the row's key.
type Kind byte

const (
	KindInode    Kind = keyInode
	KindName     Kind = keyName
	KindEntry    Kind = keyEntry
	KindXattr    Kind = keyXattr
	KindExtents  Kind = keyExtents
	KindStaged   Kind = keyStaged
	KindOrphan   Kind = keyOrphan
	KindCounters Kind = keyCounter
	KindTouched  Kind = keyTouched
	KindGone     Kind = keyGone
	KindTree     Kind = keyTree
	KindTrack    Kind = keyTrack
)

// KindOf returns the kind of the row that a key leads to.
func KindOf(key []byte) Kind {
	if len(key) == 0 {
		return 0
	}
	return Kind(key[0])
}

// Rows bounds the keys of all rows of the namespace; a kind is followed by the
// ones that are later in the alphabet.
func Rows() (from, to []byte) { return []byte{'A'}, []byte{'Z' + 1} }

func inoKey(prefix byte, ino Ino, room int) []byte {
	k := make([]byte, 1, 1+8+room)
	k[0] = prefix
	return binary.BigEndian.AppendUint64(k, uint64(ino))
}

// InodeKey is the key of an inode's record.
func InodeKey(ino Ino) []byte { return inoKey(keyInode, ino, 0) }

// InodePrefix starts the key of every inode.
func InodePrefix() []byte { return []byte{keyInode} }

// NameKey leads from a name in a directory to the entry's position.
func NameKey(dir Ino, name string) []byte {
	return append(inoKey(keyName, dir, len(name)), name...)
}

// NameRange bounds the names of dir.
func NameRange(dir Ino) (from, to []byte) {
	return inoKey(keyName, dir, 0), inoKey(keyName, dir+1, 0)
}

// EntryKey is the key of a directory's entry at a position. Positions are in
// the order in which entries were made, never change and are never reused, so
// they serve as readdir's cookies.
func EntryKey(dir Ino, pos uint64) []byte {
	return binary.BigEndian.AppendUint64(inoKey(keyEntry, dir, 8), pos)
}

// EntryRange bounds the entries of dir at positions from pos on.
func EntryRange(dir Ino, pos uint64) (from, to []byte) {
	return EntryKey(dir, pos), inoKey(keyEntry, dir+1, 0)
}

// XattrKey is the key of an extended attribute.
func XattrKey(ino Ino, name string) []byte {
	return append(inoKey(keyXattr, ino, len(name)), name...)
}

// XattrPrefix starts the keys of all extended attributes of ino.
func XattrPrefix(ino Ino) []byte { return inoKey(keyXattr, ino, 0) }

// ExtentsKey is the key of one page of a file's extents.
func ExtentsKey(ino Ino, page uint64) []byte {
	return binary.BigEndian.AppendUint64(inoKey(keyExtents, ino, 8), page)
}

// ExtentsRange bounds the pages from first up to, not including, end.
func ExtentsRange(ino Ino, first, end uint64) (from, to []byte) {
	return ExtentsKey(ino, first), ExtentsKey(ino, end)
}

// StagedKey is the key of one slot of staged bytes.
func StagedKey(ino Ino, slot uint64) []byte {
	return binary.BigEndian.AppendUint64(inoKey(keyStaged, ino, 8), slot)
}

// StagedPrefix starts the keys of all staged slots.
func StagedPrefix() []byte { return []byte{keyStaged} }

// OrphanKey marks an inode that has no name but is still in use.
func OrphanKey(ino Ino) []byte { return inoKey(keyOrphan, ino, 0) }

// OrphanPrefix starts the keys of all orphans.
func OrphanPrefix() []byte { return []byte{keyOrphan} }

// CounterKey is the key of the volume's counters.
func CounterKey() []byte { return []byte{keyCounter} }

// KeyNumbers returns the inode and the position, page or slot of a key that
// has both.
func KeyNumbers(key []byte) (Ino, uint64, error) {
	if len(key) != 17 {
		return 0, 0, ErrCorrupt
	}
	return Ino(binary.BigEndian.Uint64(key[1:])), binary.BigEndian.Uint64(key[9:]), nil
}

// KeyIno returns the inode number in a key that starts with one.
func KeyIno(key []byte) (Ino, error) {
	if len(key) < 9 {
		return 0, ErrCorrupt
	}
	return Ino(binary.BigEndian.Uint64(key[1:])), nil
}

// KeyTail returns what follows the inode number in a key, such as an extended
// attribute's name.
func KeyTail(key []byte) (string, error) {
	if len(key) < 9 {
		return "", ErrCorrupt
	}
	return string(key[9:]), nil
}
