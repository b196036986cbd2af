package graph

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"
	"syscall"

	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/vertex"
)

// A Time is seconds and nanoseconds since 1970; Sec may be negative.
type Time struct {
	Sec  int64
	Nsec uint32
}

// An Entry is one name in a directory with all that the name leads to. An entry
// of a file with several names has only Name, the type in Mode, and Ident: the
// rest is in the row of the snapshot's link table that has Ident for key, so
// that it is stored once.
type Entry struct {
	Name  string // in a directory; in a link table see TableKey
	Mode  uint32 // type and permission bits, as in stat(2)
	Ident uint64 // of a file with several names: the key of its row in the link table

	Nlink    uint32 // names; only in a row of a link table
	UID, GID uint32
	Rdev     uint32 // of a device
	Size     int64  // of a regular file, in bytes
	Data     int64  // of these, those not in holes
	Entries  int64  // of a directory: names in it
	Subdirs  int64  // of these, directories
	Below    Sums   // of a directory
	Atime    Time
	Mtime    Time
	Ctime    Time
	Btime    Time
	Target   string // of a symbolic link

	// Xattrs are sorted by name. A set whose encoding is longer than
	// MaxInlineXattrs is stored apart: XattrLink leads to the encoding.
	Xattrs    []Xattr
	XattrLink Link

	// Link leads to the content: of a directory its tree, of a regular file of
	// one byte or more its file vertex or only block. Others have none.
	Link Link
}

// Sums are over all that is below a directory. A file with several names counts
// in Linked only, once for each name.
type Sums struct {
	Files  int64 `json:"files"` // regular files
	Dirs   int64 `json:"directories"`
	Others int64 `json:"others"`        // symbolic links, devices, sockets, FIFOs
	Bytes  int64 `json:"logical_bytes"` // of regular files
	Data   int64 `json:"data_bytes"`    // of these, those not in holes
	Linked int64 `json:"links"`         // names of files with several names
}

func (s *Sums) fields() []*int64 {
	return []*int64{&s.Files, &s.Dirs, &s.Others, &s.Bytes, &s.Data, &s.Linked}
}

// Add adds o, sign times.
func (s *Sums) Add(o Sums, sign int64) {
	to := s.fields()
	for i, n := range o.fields() {
		*to[i] += sign * *n
	}
}

// Names returns how many names there are.
func (s *Sums) Names() int64 { return s.Files + s.Dirs + s.Others + s.Linked }

// Sum returns what an entry adds to the sums of its directory.
func (e *Entry) Sum() Sums {
	switch {
	case e.Ident != 0:
		return Sums{Linked: 1}
	case e.IsDir():
		s := e.Below
		s.Dirs++
		return s
	case e.IsFile():
		return Sums{Files: 1, Bytes: e.Size, Data: e.Data}
	}
	return Sums{Others: 1}
}

// A Link is an edge to what has the bytes; its zero value is none.
type Link struct {
	ID   ID
	Kind store.Kind
}

// An Xattr is an extended attribute.
type Xattr struct {
	Name  string
	Value []byte
}

// Bounds of an entry's fields, in bytes.
const (
	MaxName         = 255
	MaxTarget       = 4095
	MaxInlineXattrs = 1024
)

const maxNsec = 999_999_999

// Flags of an encoded entry.
const (
	entryLink      = 1 << iota // Link is there
	entryBlock                 // Link is a data block
	entryXattrs                // Xattrs are there
	entryXattrLink             // XattrLink is there
	entryXattrData             // XattrLink is a data block
	entryIdent                 // only Mode and Ident follow
	entryNlink                 // Nlink is there
	entryFlags     = 1<<iota - 1
)

// Type returns the type bits of the mode.
func (e *Entry) Type() uint32 { return e.Mode & syscall.S_IFMT }

// IsDir reports whether the entry is a directory.
func (e *Entry) IsDir() bool { return e.Type() == syscall.S_IFDIR }

// IsFile reports whether the entry is a regular file.
func (e *Entry) IsFile() bool { return e.Type() == syscall.S_IFREG }

// links appends the entry's links in the order of the format.
func (e *Entry) links(ids []ID) []ID {
	if e.Link.Kind != 0 {
		ids = append(ids, e.Link.ID)
	}
	if e.XattrLink.Kind != 0 {
		ids = append(ids, e.XattrLink.ID)
	}
	return ids
}

// check reports what makes an entry one that no vertex can have, its name apart.
func (e *Entry) check() (why string) {
	typ := e.Type()
	if e.Ident != 0 {
		// All else about it is in the link table, once for all of its names.
		if e.Mode != typ || typ == 0 || typ == syscall.S_IFDIR {
			return "an entry of a file with several names that says more than its type"
		}
		return ""
	}
	switch {
	case e.Link.Kind != e.Link.Kind&7 || typ != syscall.S_IFREG && typ != syscall.S_IFDIR && e.Link.Kind != 0:
		return "content where none can be"
	case typ == syscall.S_IFDIR && e.Link.Kind != store.KindTree:
		return "a directory without a tree"
	case typ == syscall.S_IFREG && e.Size == 0 && e.Link.Kind != 0:
		return "an empty file with content"
	case typ == syscall.S_IFREG && e.Size != 0 && e.Link.Kind != store.KindFile && e.Link.Kind != store.KindData:
		return "a file without content"
	case e.Size < 0 || e.Data < 0 || e.Data > e.Size:
		return "impossible sizes"
	case e.Entries < 0 || e.Subdirs < 0 || e.Subdirs > e.Entries:
		return "impossible numbers of entries"
	case slices.ContainsFunc(e.Below.fields(), func(n *int64) bool { return *n < 0 }):
		return "negative sums"
	case typ == syscall.S_IFLNK && (e.Target == "" || len(e.Target) > MaxTarget || strings.Contains(e.Target, "\x00")):
		return "a symbolic link without a possible target"
	case len(e.Xattrs) > 0 && e.XattrLink.Kind != 0:
		return "extended attributes in two places"
	case e.XattrLink.Kind != 0 && e.XattrLink.Kind != store.KindData && e.XattrLink.Kind != store.KindFile:
		return "extended attributes that are no bytes"
	}
	// Beyond a second, two encodings would mean one time.
	for _, t := range [...]Time{e.Atime, e.Mtime, e.Ctime, e.Btime} {
		if t.Nsec > maxNsec {
			return "an impossible time"
		}
	}
	if why := checkXattrs(e.Xattrs); why != "" {
		return why
	}
	if XattrsSize(e.Xattrs) > MaxInlineXattrs {
		return "extended attributes that are too long to be inline"
	}
	// Decoding must give back what was encoded, so nothing may be there that is not written.
	if why := e.strays(); why != "" {
		return why
	}
	switch typ {
	case syscall.S_IFREG, syscall.S_IFDIR, syscall.S_IFLNK, syscall.S_IFCHR, syscall.S_IFBLK, syscall.S_IFIFO, syscall.S_IFSOCK:
		return ""
	}
	return "an unknown type"
}

// strays reports a field that the entry's type does not have: its encoding
// would leave it out.
func (e *Entry) strays() (why string) {
	typ := e.Type()
	device := typ == syscall.S_IFCHR || typ == syscall.S_IFBLK
	switch {
	case typ != syscall.S_IFREG && (e.Size != 0 || e.Data != 0):
		return "a size of what is no file"
	case typ != syscall.S_IFDIR && (e.Entries != 0 || e.Subdirs != 0 || e.Below != Sums{}):
		return "entries in what is no directory"
	case !device && e.Rdev != 0:
		return "a device number of what is no device"
	case typ != syscall.S_IFLNK && e.Target != "":
		return "a target of what is no symbolic link"
	}
	return ""
}

// appendBody appends what follows the entry's name; check found nothing.
func (e *Entry) appendBody(b []byte) []byte {
	flags := uint64(0)
	set := func(on bool, flag uint64) {
		if on {
			flags |= flag
		}
	}
	set(e.Link.Kind != 0, entryLink)
	set(e.Link.Kind == store.KindData, entryBlock)
	set(len(e.Xattrs) > 0, entryXattrs)
	set(e.XattrLink.Kind != 0, entryXattrLink)
	set(e.XattrLink.Kind == store.KindData, entryXattrData)
	set(e.Nlink != 0, entryNlink)
	if e.Ident != 0 {
		// The flags set above do not count: check has found that nothing but the type is there.
		b = binary.AppendUvarint(b, entryIdent)
		b = binary.AppendUvarint(b, uint64(e.Mode))
		return binary.AppendUvarint(b, e.Ident)
	}
	b = binary.AppendUvarint(b, flags)
	for _, n := range [...]uint32{e.Mode, e.UID, e.GID} {
		b = binary.AppendUvarint(b, uint64(n))
	}
	if e.Nlink != 0 {
		b = binary.AppendUvarint(b, uint64(e.Nlink))
	}
	for _, t := range [...]Time{e.Atime, e.Mtime, e.Ctime, e.Btime} {
		b = appendTime(b, t)
	}
	switch e.Type() {
	case syscall.S_IFREG:
		b = binary.AppendUvarint(b, uint64(e.Size))
		b = binary.AppendUvarint(b, uint64(e.Data))
	case syscall.S_IFDIR:
		b = binary.AppendUvarint(b, uint64(e.Entries))
		b = binary.AppendUvarint(b, uint64(e.Subdirs))
		for _, n := range e.Below.fields() {
			b = binary.AppendUvarint(b, uint64(*n))
		}
	case syscall.S_IFCHR, syscall.S_IFBLK:
		b = binary.AppendUvarint(b, uint64(e.Rdev))
	case syscall.S_IFLNK:
		b = appendText(b, e.Target)
	}
	if len(e.Xattrs) > 0 {
		b = AppendXattrs(b, e.Xattrs)
	}
	return b
}

// readBody is the reverse; it takes the entry's links off the front of links.
func (e *Entry) readBody(r *vertex.Fields, links []ID) (left []ID, why string) {
	flags := r.Uvarint(entryFlags)
	// Errors are sticky in r: they are asked about once, in sound.
	e.Mode = uint32(r.Uvarint(math.MaxUint32))
	if flags&entryIdent != 0 {
		e.Ident = r.Uvarint(math.MaxUint64)
		if flags != entryIdent || e.Ident == 0 {
			return nil, "an entry of a file with several names that says more than its type"
		}
		return links, e.sound(r)
	}
	e.UID, e.GID = uint32(r.Uvarint(math.MaxUint32)), uint32(r.Uvarint(math.MaxUint32))
	if flags&entryNlink != 0 {
		e.Nlink = uint32(r.Uvarint(math.MaxUint32))
	}
	for _, t := range [...]*Time{&e.Atime, &e.Mtime, &e.Ctime, &e.Btime} {
		*t = readTime(r)
	}
	switch e.Type() {
	case syscall.S_IFREG:
		e.Size, e.Data = int64(r.Uvarint(math.MaxInt64)), int64(r.Uvarint(math.MaxInt64))
	case syscall.S_IFDIR:
		e.Entries, e.Subdirs = int64(r.Uvarint(math.MaxInt64)), int64(r.Uvarint(math.MaxInt64))
		for _, n := range e.Below.fields() {
			*n = int64(r.Uvarint(math.MaxInt64))
		}
	case syscall.S_IFCHR, syscall.S_IFBLK:
		e.Rdev = uint32(r.Uvarint(math.MaxUint32))
	case syscall.S_IFLNK:
		e.Target = readText(r, MaxTarget)
	}
	if flags&entryXattrs != 0 {
		e.Xattrs = readXattrs(r)
	}
	// In the order in which links appends them: content first, then the extended attributes.
	if links, why = e.readLinks(flags, links); why != "" {
		return nil, why
	}
	// One entry has one encoding; else equal directories would have different IDs.
	if flags&entryXattrs != 0 && len(e.Xattrs) == 0 || flags&entryNlink != 0 && e.Nlink == 0 {
		return nil, "a field that is said to be there and is not"
	}
	return links, e.sound(r)
}

func (e *Entry) readLinks(flags uint64, links []ID) (left []ID, why string) {
	take := func(there, data bool, other store.Kind) (l Link, ok bool) {
		if !there {
			// The flag of the kind without that of the link is no encoding of ours.
			return l, !data
		}
		if len(links) == 0 {
			return l, false
		}
		l = Link{links[0], other}
		if data {
			l.Kind = store.KindData
		}
		links = links[1:]
		return l, true
	}
	// The kind is implied by the type, and a bit says whether a block alone stands for a file.
	content := store.KindFile
	if e.IsDir() {
		content = store.KindTree
	}
	var one, two bool
	e.Link, one = take(flags&entryLink != 0, flags&entryBlock != 0, content)
	e.XattrLink, two = take(flags&entryXattrLink != 0, flags&entryXattrData != 0, store.KindFile)
	if !one || !two {
		return nil, "links that its entries do not have"
	}
	return links, ""
}

func (e *Entry) sound(r *vertex.Fields) (why string) {
	if r.Bad() {
		return "cut short"
	}
	return e.check()
}

// Equal reports whether two entries say the same.
func (e *Entry) Equal(f *Entry) bool {
	if len(e.Xattrs) != len(f.Xattrs) {
		return false
	}
	for i := range e.Xattrs {
		if e.Xattrs[i].Name != f.Xattrs[i].Name || string(e.Xattrs[i].Value) != string(f.Xattrs[i].Value) {
			return false
		}
	}
	return e.Name == f.Name && e.Mode == f.Mode && e.Ident == f.Ident && e.Nlink == f.Nlink && e.UID == f.UID &&
		e.GID == f.GID && e.Rdev == f.Rdev && e.Size == f.Size && e.Data == f.Data && e.Entries == f.Entries &&
		e.Subdirs == f.Subdirs && e.Below == f.Below && e.Atime == f.Atime && e.Mtime == f.Mtime && e.Ctime == f.Ctime &&
		e.Btime == f.Btime && e.Target == f.Target && e.XattrLink == f.XattrLink && e.Link == f.Link
}

// validName reports why a name cannot be in a directory.
func validName(name string) (why string) {
	switch {
	case name == "" || name == "." || name == "..":
		return "a name that is none"
	case len(name) > MaxName:
		return "a name that is too long"
	case strings.ContainsAny(name, "/\x00"):
		return "a name with a slash or a NUL"
	}
	return ""
}

// TableKey is the Name of the row with an identity in a link table: the number
// in eight bytes, big-endian, so that rows are in numeric order.
func TableKey(ident uint64) string {
	return string(binary.BigEndian.AppendUint64(nil, ident))
}

// TableIdent is the reverse of TableKey.
func TableIdent(key string) uint64 {
	if len(key) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64([]byte(key))
}

func appendTime(b []byte, t Time) []byte {
	return binary.AppendUvarint(binary.AppendVarint(b, t.Sec), uint64(t.Nsec))
}

func readTime(r *vertex.Fields) Time {
	return Time{Sec: r.Varint(), Nsec: uint32(r.Uvarint(maxNsec))}
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func readText(r *vertex.Fields, most uint64) string {
	return string(r.Bytes(r.Uvarint(most)))
}

// corrupt makes the error of a vertex that cannot be.
func corrupt(what, why string) error { return fmt.Errorf("%s: %s: %w", what, why, store.ErrCorrupt) }
