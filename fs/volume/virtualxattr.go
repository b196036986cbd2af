package volume

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/store"
)

// Virtual attributes are extended attributes that every regular file has, are read only and
// not listed: what the store makes of its bytes.
const virtualPrefix = "user.quarxfs."

// maxVirtualExtents is the most extents of a file that has virtual attributes: they are gone
// through one by one.
const maxVirtualExtents = 1 << 18

// A virtualXattr computes one of them.
type virtualXattr func(x *xattrs, exts []meta.Extent, size int64) (string, error)

// virtualXattrOf returns the virtual attribute with a name, or nil.
func virtualXattrOf(name string) virtualXattr {
	rest, ok := strings.CutPrefix(name, virtualPrefix)
	if !ok {
		return nil
	}
	switch rest {
	case "id":
		return (*xattrs).contentID
	case "blocks":
		return func(_ *xattrs, exts []meta.Extent, _ int64) (string, error) { return strconv.Itoa(len(exts)), nil }
	case "dedup":
		return (*xattrs).dedupRatio
	case "stored":
		return (*xattrs).storedBytes
	case "tier":
		return (*xattrs).tiersOf
	}
	return nil
}

// virtualValue returns the value of one. What has been written becomes blocks first.
// ENODATA: the inode is no regular file. E2BIG: it has too many extents.
func (x *xattrs) virtualValue(n *node, compute virtualXattr) ([]byte, error) {
	var exts []meta.Extent
	var size int64
	err := x.v.store.Update(func() error {
		n.mu.Lock()
		defer n.mu.Unlock()
		if !n.isReg() {
			return syscall.ENODATA
		}
		n.quiesce()
		for len(n.dirty) > 0 {
			if err := x.v.flusher.writeBlocks(n, flushWhole); err != nil {
				return err
			}
			n.quiesce()
		}
		size = n.attr.Size
		return x.v.files.eachExtent(n, 0, size, func(e meta.Extent) bool {
			exts = append(exts, e)
			return len(exts) <= maxVirtualExtents
		})
	})
	if err != nil {
		return nil, err
	}
	if len(exts) > maxVirtualExtents {
		return nil, syscall.E2BIG
	}
	s, err := compute(x, exts, size)
	if errors.Is(err, store.ErrNotFound) {
		err = syscall.EAGAIN // the file has been changed meanwhile
	}
	return []byte(s), err
}

// contentID returns the ID that the bytes would have as an object.
func (x *xattrs) contentID(exts []meta.Extent, size int64) (string, error) {
	root, err := buildFile(x.v.store.NewFileHasher(), exts, size)
	return root.ID.String(), err
}

// eachBlock calls fn for every block in extents, each once, with how many bytes of
// the file are in it.
func (x *xattrs) eachBlock(exts []meta.Extent, fn func(e store.Entry, bytes int64)) error {
	bytes := make(map[meta.BlockID]int64, len(exts))
	for _, e := range exts {
		bytes[e.ID] += int64(e.Len)
	}
	for id, n := range bytes {
		e, err := x.v.store.Lookup(store.ID(id))
		if err != nil {
			return err
		}
		fn(e, n)
	}
	return nil
}

func (x *xattrs) storedBytes(exts []meta.Extent, _ int64) (string, error) {
	sum := int64(0)
	err := x.eachBlock(exts, func(e store.Entry, _ int64) { sum += e.Stored() })
	return strconv.FormatInt(sum, 10), err
}

// dedupRatio returns the file's bytes for each plain byte that is kept for it,
// where a block is shared evenly by all references to it.
func (x *xattrs) dedupRatio(exts []meta.Extent, _ int64) (string, error) {
	var bytes, kept float64
	uses := make(map[meta.BlockID]float64, len(exts))
	for _, e := range exts {
		uses[e.ID]++
		bytes += float64(e.Len)
	}
	for id, n := range uses {
		e, err := x.v.store.Lookup(store.ID(id))
		if err != nil {
			return "", err
		}
		kept += float64(e.Raw) * n / max(n, float64(e.Refs))
	}
	if kept == 0 {
		return "1.00", nil
	}
	return fmt.Sprintf("%.2f", bytes/kept), nil
}

// tiersOf names the tiers that the blocks are in, with the bytes of the file in
// each when there are several.
func (x *xattrs) tiersOf(exts []meta.Extent, _ int64) (string, error) {
	bytes := make(map[string]int64)
	err := x.eachBlock(exts, func(e store.Entry, n int64) { bytes[e.Info(store.ID{}).Tier] += n })
	var list []string
	for _, tier := range slices.Sorted(maps.Keys(bytes)) {
		if len(bytes) == 1 {
			list = append(list, tier)
		} else {
			list = append(list, fmt.Sprintf("%s=%d", tier, bytes[tier]))
		}
	}
	return strings.Join(list, " "), err
}
