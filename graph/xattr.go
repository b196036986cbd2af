package graph

import (
	"encoding/binary"
	"fmt"

	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/vertex"
)

// maxXattrs bounds a set: names of a file take 64 KiB in listxattr(2) at most.
const (
	maxXattrs     = 64 << 10
	maxXattrValue = 64 << 10
)

// AppendXattrs appends the encoding of a set, which is sorted by name:
//
//	+------------------+------------------+------+-------------------+-------+
//	| count (uvarint)  | length (uvarint) | name | length (uvarint)  | value | ...
//	+------------------+------------------+------+-------------------+-------+
//
// An attribute `user.a` of 3 bytes takes 1 + 1 + 6 + 1 + 3 = 12 bytes.
func AppendXattrs(b []byte, set []Xattr) []byte {
	b = binary.AppendUvarint(b, uint64(len(set)))
	for _, x := range set {
		b = appendText(b, x.Name)
		b = binary.AppendUvarint(b, uint64(len(x.Value)))
		b = append(b, x.Value...)
	}
	return b
}

// DecodeXattrs is the reverse of AppendXattrs, for a set that is stored apart.
// The values alias b. The error is store.ErrCorrupt.
func DecodeXattrs(b []byte) ([]Xattr, error) {
	r := vertex.NewFields(b)
	set := readXattrs(r)
	if r.Bad() || r.Left() != 0 {
		return nil, fmt.Errorf("set of extended attributes: %w", store.ErrCorrupt)
	}
	if why := checkXattrs(set); why != "" {
		return nil, corrupt("set of extended attributes", why)
	}
	return set, nil
}

func readXattrs(r *vertex.Fields) []Xattr {
	n := r.Uvarint(min(maxXattrs, uint64(r.Left()))) // each takes more than a byte
	var set []Xattr
	for range n {
		x := Xattr{Name: readText(r, MaxName)}
		x.Value = r.Bytes(r.Uvarint(maxXattrValue))
		// Ended at once: a false count must not make a set of 65,536 empty ones.
		if r.Bad() {
			return nil
		}
		set = append(set, x)
	}
	return set
}

func checkXattrs(set []Xattr) (why string) {
	for i, x := range set {
		switch {
		case x.Name == "" || len(x.Name) > MaxName || len(x.Value) > maxXattrValue:
			return "an impossible extended attribute"
		case i > 0 && set[i-1].Name >= x.Name:
			return "extended attributes that are not in order"
		}
	}
	return ""
}

// XattrsSize returns how many bytes the encoding of a set takes.
func XattrsSize(set []Xattr) int {
	n := uvarintLen(uint64(len(set)))
	for _, x := range set {
		n += uvarintLen(uint64(len(x.Name))) + len(x.Name) + uvarintLen(uint64(len(x.Value))) + len(x.Value)
	}
	return n
}

func uvarintLen(n uint64) int {
	size := 1
	for ; n >= 0x80; n >>= 7 {
		size++
	}
	return size
}
