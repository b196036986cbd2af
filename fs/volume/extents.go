package volume

import (
	"context"
	"slices"
	"sort"

	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/store"
)

// maxPages bounds the pages of one file that stay in memory: at 64 KiB a block
// they describe 16 GiB and take some 13 MiB.
const maxPages = 4096

// maxExtents bounds the extents of a page: a row of them takes some 40 bytes for each, and
// the database takes rows of 512 KiB.
const maxExtents = 8192

// pagesTried is up to how many pages are asked for one by one.
const pagesTried = 64

// A page holds the extents that start within one span of a file.
type page struct {
	exts  []meta.Extent
	dirty bool
}

// extents is a file's map from offsets to blocks, read from the database page
// by page. The node's mutex guards it.
type extents struct {
	pages  map[uint64]*page
	absent bool // the database holds no page of this file yet
}

// A fileMap knows which block has which bytes of a file: from the pages of extents in a node, which
// are read as they are needed, and behind what the node owns from its vertex. It has no mutex: n.mu
// of the file is held, and for changes no flusher is busy with it.
type fileMap struct {
	v       *Volume
	chunker *store.Chunker
	span    int64 // bytes of a file that one page of extents covers
}

func (m *fileMap) page(n *node, i uint64) (*page, error) {
	if p, ok := n.ext.pages[i]; ok {
		return p, nil
	}
	p := &page{}
	// A file that was just made has no rows to be asked for.
	if !n.ext.absent {
		b, err := m.v.db.Get(meta.ExtentsKey(n.ino, i))
		if err == nil {
			p.exts, err = meta.DecodeExtents(b, int64(i)*m.span, m.span)
		}
		if err != nil && !meta.IsNotFound(err) {
			return nil, err
		}
	}
	if n.ext.pages == nil {
		n.ext.pages = make(map[uint64]*page)
	}
	// Only clean pages go; dirty ones are bounded by the commit that saves them.
	if len(n.ext.pages) >= maxPages {
		n.ext.shrink()
	}
	n.ext.pages[i] = p
	return p, nil
}

// shrink forgets clean pages.
func (x *extents) shrink() {
	for i, p := range x.pages {
		if !p.dirty {
			delete(x.pages, i)
		}
		if len(x.pages) < maxPages/2 {
			return
		}
	}
}

// pagesBetween returns the numbers of the pages in [first, last] that may hold
// extents, in order. A range of a sparse file can span more pages than could
// be tried one by one.
func (m *fileMap) pagesBetween(n *node, first, last uint64) ([]uint64, error) {
	var list []uint64
	if last-first < pagesTried {
		for i := first; i <= last; i++ {
			list = append(list, i)
		}
		return list, nil
	}
	// Pages in memory may have no row yet; rows may not be in memory.
	for i := range n.ext.pages {
		if i >= first && i <= last {
			list = append(list, i)
		}
	}
	if !n.ext.absent {
		from, to := meta.ExtentsRange(n.ino, first, last+1)
		err := m.v.db.Scan(from, to, func(key, _ []byte) error {
			_, i, err := meta.KeyNumbers(key)
			if _, known := n.ext.pages[i]; err == nil && !known {
				list = append(list, i)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	slices.Sort(list)
	return list, nil
}

// eachExtent calls fn for the extents that touch [lo, hi), in order, until fn
// returns false.
func (m *fileMap) eachExtent(n *node, lo, hi int64, fn func(meta.Extent) bool) error {
	if lo >= hi {
		return nil
	}
	// From the page before: an extent is at most as long as a page covers, so it may reach from
	// there into the range.
	first, last := uint64(max(0, lo-m.span)/m.span), uint64((hi-1)/m.span)
	if !n.attr.IsLazy() {
		_, err := m.eachRowExtent(n, first, last, lo, hi, fn)
		return err
	}
	// Rows up to the pages that the file owns, its vertex behind them: neither says anything of the
	// other part.
	if owned := n.attr.Owned; first < owned {
		if more, err := m.eachRowExtent(n, first, min(last, owned-1), lo, hi, fn); err != nil || !more {
			return err
		}
	}
	return m.eachLazyExtent(n, lo, hi, fn)
}

// eachRowExtent is eachExtent for the pages from first to last. It reports
// whether fn wants more. It looks at 64 pages, then at the next 1,024, and so on:
// who wants one extent need not list all of a large sparse file.
func (m *fileMap) eachRowExtent(n *node, first, last uint64, lo, hi int64, fn func(meta.Extent) bool) (more bool, err error) {
	for count := uint64(pagesTried); first <= last; count *= 16 {
		to := min(last, first+count-1)
		list, err := m.pagesBetween(n, first, to)
		if err != nil {
			return false, err
		}
		for _, i := range list {
			p, err := m.page(n, i)
			if err != nil {
				return false, err
			}
			// The first page may begin before lo: an extent reaches at most into the page after its
			// own.
			k := sort.Search(len(p.exts), func(k int) bool { return p.exts[k].End() > lo })
			for _, e := range p.exts[k:] {
				if e.Off >= hi || !fn(e) {
					return false, nil
				}
			}
		}
		first = to + 1
	}
	return true, nil
}

// extentAt returns the extent that covers off.
func (m *fileMap) extentAt(n *node, off int64) (e meta.Extent, ok bool, err error) {
	err = m.eachExtent(n, off, off+1, func(x meta.Extent) bool {
		e, ok = x, true
		return false
	})
	return e, ok, err
}

// replaceExtents puts fresh, which lies within [lo, hi), in the place of all
// that the file has there, and keeps references and the allocated size in step.
// The caller is inside Update and the references of fresh are counted here.
func (m *fileMap) replaceExtents(n *node, lo, hi int64, fresh []meta.Extent) error {
	if lo >= hi {
		return nil
	}
	list, err := m.pagesBetween(n, uint64(max(0, lo-m.span)/m.span), uint64((hi-1)/m.span))
	if err != nil {
		return err
	}
	var right []meta.Extent // what is left of an extent that reaches beyond hi
	for _, i := range list {
		p, err := m.page(n, i)
		if err != nil {
			return err
		}
		right = append(right, m.cutPage(n, p, lo, hi)...)
	}
	// After all pages are cut: what is left to the right may belong to a page that was cut later.
	for _, e := range append(slices.Clone(fresh), right...) {
		p, err := m.page(n, uint64(e.Off/m.span))
		if err != nil {
			return err
		}
		k := sort.Search(len(p.exts), func(k int) bool { return p.exts[k].Off > e.Off })
		p.exts = slices.Insert(p.exts, k, e)
		p.dirty = true
		// Also for a right part: cutPage has dropped its reference, or the left part has kept it.
		m.v.store.Ref(e.ID, 1)
		m.allocated(n, e, 1)
	}
	m.v.flusher.markChanged(n)
	return nil
}

// cutPage drops [lo, hi) from a page and returns the extents, not counted as
// references, that are left to the right of it.
func (m *fileMap) cutPage(n *node, p *page, lo, hi int64) (right []meta.Extent) {
	i := sort.Search(len(p.exts), func(k int) bool { return p.exts[k].End() > lo })
	j := i
	var left []meta.Extent
	for ; j < len(p.exts) && p.exts[j].Off < hi; j++ {
		e := p.exts[j]
		m.allocated(n, e, -1)
		// The right part starts anew at hi, perhaps in another page: the caller puts it there, and
		// counts it.
		if e.End() > hi {
			r := e
			cut := uint32(hi - e.Off)
			r.Off, r.Len, r.Skip = hi, e.Len-cut, e.Skip+cut
			right = append(right, r)
		}
		if e.Off < lo {
			e.Len = uint32(lo - e.Off)
			left = append(left, e)
			m.allocated(n, e, 1)
			continue
		}
		// Only of an extent that is gone: the left part has kept the reference.
		m.v.store.Ref(e.ID, -1)
	}
	if i != j {
		p.exts = slices.Replace(p.exts, i, j, left...)
		p.dirty = true
	}
	return right
}

// thin keeps the extents of each page few, so that its row stays small: of a page with
// too many, the short ones, and the short holes between them, become written bytes again,
// which are then cut into longer blocks. n.mu is held, no flusher is busy, inside Update or Cut.
func (m *fileMap) thin(n *node) {
	for _, p := range n.ext.pages {
		if p.dirty && len(p.exts) > maxExtents {
			m.thinPage(n, p)
		}
	}
}

func (m *fileMap) thinPage(n *node, p *page) {
	short := int64(m.chunker.Avg() / minShare)
	before := n.dirty.capacity()
	kept := make([]meta.Extent, 0, maxExtents/2)
	at := p.exts[0].Off
	for _, e := range p.exts {
		// A short hole becomes zeroes, or else it would still part two blocks.
		// Only holes between extents of this page; those at its ends stay.
		if hole := e.Off - at; hole < short {
			n.dirty.under(at, zeroes[:hole])
		}
		at = e.End()
		if int64(e.Len) >= short {
			kept = append(kept, e)
			continue
		}
		// In memory first, then without the extent: a block that cannot be read keeps its place.
		b, err := m.extentBytes(context.Background(), e)
		if err != nil {
			m.v.log.Error("a short block is unreadable and stays as it is", "inode", uint64(n.ino), "offset", e.Off, "err", err)
			kept = append(kept, e)
			continue
		}
		n.dirty.under(e.Off, b)
		m.allocated(n, e, -1)
		m.v.store.Ref(e.ID, -1)
	}
	p.exts = kept
	m.v.flusher.budget.add(n.dirty.capacity() - before)
	m.v.flusher.markChanged(n)
}

// savePages writes the rows of the pages that changed.
func (m *fileMap) savePages(n *node) {
	for i, p := range n.ext.pages {
		if !p.dirty {
			continue
		}
		key := meta.ExtentsKey(n.ino, i)
		if len(p.exts) == 0 {
			m.v.db.Delete(key)
		} else {
			m.v.db.Set(key, meta.AppendExtents(make([]byte, 0, 40*len(p.exts)), int64(i)*m.span, p.exts))
		}
		p.dirty = false
	}
	n.ext.absent = false
	if len(n.ext.pages) > maxPages {
		n.ext.shrink()
	}
}

func (m *fileMap) dropPage(n *node, i uint64) {
	if !n.ext.absent {
		m.v.db.Delete(meta.ExtentsKey(n.ino, i))
	}
	delete(n.ext.pages, i)
}

// dropPages releases up to most pages of a file that is being removed and
// reports whether none is left.
func (m *fileMap) dropPages(n *node, most int) (done bool, err error) {
	list, err := m.pagesBetween(n, 0, uint64(max(0, n.attr.Size-1)/m.span))
	if err != nil {
		return false, err
	}
	for k, i := range list {
		// The rest in further steps: a file of terabytes must not hold a commit up.
		if k == most {
			return false, nil
		}
		p, err := m.page(n, i)
		if err != nil {
			return false, err
		}
		for _, e := range p.exts {
			m.v.store.Ref(e.ID, -1)
			m.allocated(n, e, -1)
		}
		m.dropPage(n, i)
	}
	// A truncation emptied what is left, but its rows may still be there.
	for i := range n.ext.pages {
		m.dropPage(n, i)
	}
	return true, nil
}
