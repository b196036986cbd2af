package volume

import "github.com/quarxtor/quarxfs/fs/meta"

// lookups counts how often the kernel learned of each inode. Inodes that are
// used together have numbers close together, so counts are kept in pages of 64
// bytes; a tree of a million files takes some 4 MiB, a map of numbers 40. Counts over 254
// are in a map.
//
//	pages[ino / 64].counts[ino % 64]   0 not known, 1..254, 255: look in many
type lookups struct {
	pages map[meta.Ino]*lookupPage
	many  map[meta.Ino]uint64
	known int // inodes with a count
}

const (
	lookupPageSize = 64
	inMany         = 255
)

type lookupPage struct {
	used   uint8 // counts that are not 0
	counts [lookupPageSize]uint8
}

func newLookups() lookups {
	return lookups{pages: make(map[meta.Ino]*lookupPage), many: make(map[meta.Ino]uint64)}
}

func (l *lookups) get(ino meta.Ino) uint64 {
	p := l.pages[ino/lookupPageSize]
	if p == nil {
		return 0
	}
	c := p.counts[ino%lookupPageSize]
	if c == inMany {
		return l.many[ino]
	}
	return uint64(c)
}

func (l *lookups) set(ino meta.Ino, n uint64) {
	p := l.pages[ino/lookupPageSize]
	if p == nil {
		if n == 0 {
			return
		}
		p = new(lookupPage)
		l.pages[ino/lookupPageSize] = p
	}
	c := &p.counts[ino%lookupPageSize]
	switch {
	case *c == 0 && n > 0:
		p.used++
		l.known++
	case *c > 0 && n == 0:
		p.used--
		l.known--
	}
	// A byte is enough for nearly all; its greatest value says that the count is in the map.
	if *c == inMany {
		delete(l.many, ino)
	}
	if n >= inMany {
		l.many[ino] = n
	}
	*c = uint8(min(n, inMany))
	if p.used == 0 {
		delete(l.pages, ino/lookupPageSize)
	}
}
