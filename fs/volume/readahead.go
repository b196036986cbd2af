package volume

import (
	"sync"

	"github.com/quarxtor/quarxfs/fs/meta"
)

// An inodeReader notices when inodes are read in the order of their numbers, as
// in a listing of a tree that is not in memory, and then reads the rows of many
// at once.
type inodeReader struct {
	sync.Mutex
	v    *Volume
	next meta.Ino // the number after the last one read
	size meta.Ino // numbers that the last read covered
}

const (
	readAheadGap = 64 // numbers that may be left out
	minReadAhead = 16
	maxReadAhead = 256
	maxAhead     = 4096 // inodes in the table because of it
)

// span returns how many numbers to read from ino on: 1 unless ino follows what
// was read last.
func (r *inodeReader) span(ino meta.Ino) meta.Ino {
	r.Lock()
	defer r.Unlock()
	if ino >= r.next && ino-r.next <= readAheadGap {
		r.size = min(max(2*r.size, minReadAhead), maxReadAhead)
	} else {
		r.size = 1
	}
	r.next = ino + r.size
	return r.size
}

// ahead puts inodes from ino on into the table if inodes are being read in
// order, and reports whether it did.
func (r *inodeReader) ahead(ino meta.Ino) bool {
	span := r.span(ino)
	if span == 1 || isVirtual(ino+span) {
		return false
	}
	_, evictions := r.v.table.cached(ino)
	return r.v.table.insertAhead(r.nodes(ino, span), evictions)
}

// nodes reads the inodes from ino to ino+span-1, as far as that is possible.
// Whoever asks for the one where it is not is told why.
func (r *inodeReader) nodes(ino, span meta.Ino) []*node {
	nodes := make([]*node, 0, span)
	err := r.v.db.Scan(meta.InodeKey(ino), meta.InodeKey(ino+span), func(key, row []byte) error {
		number, err := meta.KeyIno(key)
		if err != nil {
			return err
		}
		attr, err := meta.DecodeInode(row)
		// A clone that is being made counts the names of shared files without nodes.
		if err == nil && !attr.Shared {
			nodes = append(nodes, nodeOf(number, attr))
		}
		return err
	})
	if err != nil {
		r.v.log.Debug("inodes cannot be read ahead", "from", uint64(ino), "err", err)
	}
	return nodes
}
