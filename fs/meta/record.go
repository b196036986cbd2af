package meta

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
)

// MaxName is the longest name of a directory entry, in bytes.
const MaxName = 255

// MaxTarget is the longest target of a symbolic link, in bytes.
const MaxTarget = 4095

// A Time is seconds and nanoseconds since 1970; Sec may be negative.
type Time struct {
	Sec  int64
	Nsec uint32
}

// Before reports whether t is earlier than u.
func (t Time) Before(u Time) bool {
	return t.Sec < u.Sec || t.Sec == u.Sec && t.Nsec < u.Nsec
}

// An Inode is everything about a file but its names, bytes and extended
// attributes.
type Inode struct {
	Mode     uint32 // type and permission bits, as in stat(2)
	UID, GID uint32
	Nlink    uint32
	Rdev     uint32
	Size     int64 // bytes; of a directory: see Entries
	Alloc    int64 // bytes covered by extents, not by holes
	Entries  int64 // of a directory: names in it
	Parent   Ino   // of a directory: where its .. leads; of another file with one name: that name's directory
	Xattrs   uint32
	Atime    Time
	Mtime    Time
	Ctime    Time
	Btime    Time
	Target   string // of a symbolic link

	// Pos is the position in Parent of the only name; 0 when it is not known, as
	// in records of version 1.
	Pos uint64
	// Shared is set for good when a file gets a second name: Parent and Pos mean
	// nothing then, and snapshots keep the file in their link table.
	Shared bool
	// LazyID, if not zero, is the vertex or block, counted as a reference, that
	// still has the names of a directory, or a file's bytes from page Owned on.
	LazyID BlockID
	Owned  uint64

	Reservation
}

// A Reservation is the blocks of a regular file that fallocate(2) has set aside, and the bytes of
// them that no extent covers.
type Reservation struct {
	Reserved  Ranges
	Unwritten int64
}

// IsLazy reports whether some of what the inode holds is still in a vertex.
func (n *Inode) IsLazy() bool { return n.LazyID != BlockID{} }

// IsLazyDir reports whether names of a directory are in a tree only.
func (n *Inode) IsLazyDir() bool { return n.IsLazy() && n.Mode&typeMask == typeDir }

// The type bits of a mode, and those of a directory, as in stat(2).
const (
	typeMask = 0o170000
	typeDir  = 0o040000

	typeRegular = 0o100000
)

const (
	inodeVersion = 2

	inodeShared   = 1 << 0
	inodeLazy     = 1 << 1
	inodeReserved = 1 << 2
	inodeFlags    = 1<<3 - 1
)

// AppendInode appends the record of an inode to b.
func AppendInode(b []byte, n *Inode) []byte {
	b = append(b, inodeVersion)
	for _, v := range [...]uint64{
		uint64(n.Mode), uint64(n.UID), uint64(n.GID), uint64(n.Nlink), uint64(n.Rdev),
		uint64(n.Size), uint64(n.Alloc), uint64(n.Entries), uint64(n.Parent), uint64(n.Xattrs),
	} {
		b = binary.AppendUvarint(b, v)
	}
	for _, t := range [...]Time{n.Atime, n.Mtime, n.Ctime, n.Btime} {
		b = binary.AppendVarint(b, t.Sec)
		b = binary.AppendUvarint(b, uint64(t.Nsec))
	}
	// Most inodes have neither of these: a bit each, and the fields only where it is set.
	flags := uint64(0)
	if n.Shared {
		flags |= inodeShared
	}
	if n.IsLazy() {
		flags |= inodeLazy
	}
	if len(n.Reserved) > 0 {
		flags |= inodeReserved
	}
	b = binary.AppendUvarint(b, flags)
	b = binary.AppendUvarint(b, n.Pos)
	if n.IsLazy() {
		b = append(b, n.LazyID[:]...)
		b = binary.AppendUvarint(b, n.Owned)
	}
	if len(n.Reserved) > 0 {
		b = appendReserved(b, n)
	}
	// The target needs no length: it is what is left.
	return append(b, n.Target...)
}

// reader takes numbers off the front of a record; the first failure sticks.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) uvarint(most uint64) uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || v > most {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) bytes(n uint64) []byte {
	if uint64(len(r.b)) < n {
		r.bad = true
		return nil
	}
	p := r.b[:n]
	r.b = r.b[n:]
	return p
}

const (
	max32 = 1<<32 - 1
	max63 = 1<<63 - 1
)

// DecodeInode reads an inode's record. The error is ErrCorrupt.
func DecodeInode(b []byte) (Inode, error) {
	var n Inode
	if len(b) == 0 || b[0] == 0 || b[0] > inodeVersion {
		return n, fmt.Errorf("inode record of an unknown version: %w", ErrCorrupt)
	}
	r := reader{b: b[1:]}
	n.Mode = uint32(r.uvarint(max32))
	n.UID = uint32(r.uvarint(max32))
	n.GID = uint32(r.uvarint(max32))
	n.Nlink = uint32(r.uvarint(max32))
	n.Rdev = uint32(r.uvarint(max32))
	n.Size = int64(r.uvarint(max63))
	n.Alloc = int64(r.uvarint(max63))
	n.Entries = int64(r.uvarint(max63))
	n.Parent = Ino(r.uvarint(max63))
	n.Xattrs = uint32(r.uvarint(max32))
	for _, t := range [...]*Time{&n.Atime, &n.Mtime, &n.Ctime, &n.Btime} {
		t.Sec = r.varint()
		t.Nsec = uint32(r.uvarint(999_999_999))
	}
	if b[0] >= 2 {
		n.readLocation(&r)
	} else {
		n.Shared = n.Nlink > 1 && n.Mode&typeMask != typeDir
	}
	// The reader keeps its first failure, so one look at the end does.
	if r.bad || len(r.b) > MaxTarget {
		return n, fmt.Errorf("inode record is cut short or too long: %w", ErrCorrupt)
	}
	n.Target = string(r.b)
	return n, nil
}

// readLocation reads what version 2 added.
func (n *Inode) readLocation(r *reader) {
	flags := r.uvarint(inodeFlags)
	n.Shared = flags&inodeShared != 0
	n.Pos = r.uvarint(max63)
	if flags&inodeLazy != 0 {
		copy(n.LazyID[:], r.bytes(uint64(len(n.LazyID))))
		n.Owned = r.uvarint(max63)
		r.bad = r.bad || !n.IsLazy()
	}
	if flags&inodeReserved != 0 {
		n.readReserved(r)
	}
}

// A Dirent is one name in a directory.
type Dirent struct {
	Ino  Ino
	Type uint32 // the type bits of the mode
	Name string
}

// AppendDirent appends the record of an entry to b.
func AppendDirent(b []byte, d Dirent) []byte {
	b = binary.AppendUvarint(b, uint64(d.Ino))
	b = append(b, byte(d.Type>>12))
	return append(b, d.Name...)
}

// DecodeDirent reads an entry's record. The error is ErrCorrupt.
func DecodeDirent(b []byte) (Dirent, error) {
	r := reader{b: b}
	ino := r.uvarint(max63)
	t := r.bytes(1)
	if r.bad || ino == 0 || ValidName(string(r.b)) != nil {
		return Dirent{}, fmt.Errorf("directory entry: %w", ErrCorrupt)
	}
	return Dirent{Ino(ino), uint32(t[0]) << 12, string(r.b)}, nil
}

// ValidName reports why name cannot be in a directory.
func ValidName(name string) error {
	switch {
	case name == "" || name == "." || name == "..":
		return fmt.Errorf("%q is not a file name", name)
	case len(name) > MaxName:
		return fmt.Errorf("a name of %d bytes is over %d", len(name), MaxName)
	case strings.ContainsAny(name, "/\x00"):
		return fmt.Errorf("%q contains a slash or a NUL", name)
	}
	return nil
}

// EncodePosition makes the row of a name.
func EncodePosition(pos uint64) []byte { return binary.AppendUvarint(nil, pos) }

// DecodePosition reads the row of a name. The error is ErrCorrupt.
func DecodePosition(b []byte) (uint64, error) {
	v, n := binary.Uvarint(b)
	if n <= 0 || n != len(b) {
		return 0, fmt.Errorf("position of a name: %w", ErrCorrupt)
	}
	return v, nil
}

// Counters are the volume's: where numbering of inodes and directory positions goes on
// after an opening, and how many inodes there are, those below a cloned directory that
// nobody has looked into among them. All numbers in use are below Next, and so are those
// that were given out since and lost in a crash.
type Counters struct {
	Next       uint64
	Inodes     int64
	Logical    int64  // sum of the sizes of all regular files
	Data       int64  // bytes of these that extents cover
	Form       Form   // what the sums are over
	Generation uint32 // tells the numbers from those of another volume in the same store; 0: made before there was one
}

// Add counts so many inodes with so many bytes in regular files.
func (c *Counters) Add(inodes, logical, data int64) {
	c.Inodes, c.Logical, c.Data = c.Inodes+inodes, c.Logical+logical, c.Data+data
}

// AddInode counts an inode by its record, without what is below a lazy directory.
func (c *Counters) AddInode(n *Inode) {
	c.Inodes++
	if n.Mode&typeMask == typeRegular {
		c.Logical, c.Data = c.Logical+n.Size, c.Data+n.Alloc
	}
}

// A Form says what counters are over; earlier programs left something out.
type Form byte

// The forms, each with what the one before it lacks.
const (
	CountsRows   Form = iota // what has rows
	CountsClones             // what is below clones that nobody has looked into; then comes Generation, if there is one
	CountsData               // Data
)

// NewGeneration returns the Generation of a volume whose numbers another one of the store
// may have given out before, as when the database was lost.
func NewGeneration() uint32 { return max(2, rand.Uint32()) }

// Encode makes the row of the counters.
func (c Counters) Encode() []byte {
	b := binary.AppendUvarint(nil, c.Next)
	b = binary.AppendVarint(b, c.Inodes)
	b = binary.AppendVarint(b, c.Logical)
	if c.Form == CountsRows {
		return b
	}
	b = append(b, byte(c.Form))
	if c.Form == CountsData || c.Generation != 0 {
		b = binary.AppendUvarint(b, uint64(c.Generation))
	}
	if c.Form == CountsData {
		b = binary.AppendVarint(b, c.Data)
	}
	return b
}

// DecodeCounters reads the row of the counters. The error is ErrCorrupt.
func DecodeCounters(b []byte) (Counters, error) {
	r := reader{b: b}
	c := Counters{Next: r.uvarint(max63), Inodes: r.varint(), Logical: r.varint()}
	if len(r.b) > 0 {
		c.Form = Form(r.uvarint(uint64(CountsData)))
		// That form is written without its byte, so a row that has it is none of ours.
		r.bad = r.bad || c.Form == CountsRows
		if c.Form == CountsData || len(r.b) > 0 {
			c.Generation = uint32(r.uvarint(math.MaxUint32))
			r.bad = r.bad || c.Generation == 0 && c.Form == CountsClones
		}
		if c.Form == CountsData {
			c.Data = r.varint()
		}
	}
	if r.bad || len(r.b) != 0 {
		return c, fmt.Errorf("volume counters: %w", ErrCorrupt)
	}
	return c, nil
}
