package volume

import (
	"errors"
	"maps"
	"slices"
	"sync"
	"syscall"

	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/store"
)

// heldBack are the files whose written bytes find no room, though they were accepted while there
// was some. Commits go on without these bytes, or nothing could be removed any more. A file that is
// held back is committed as far as its bytes are stored; the rest stays in memory and is tried
// again by each commit. Nothing is taken under its mutex.
//
//	committed -> held back   [Flush, Cut: storing ends with ErrFull]
//	held back -> committed   [a later Flush or Cut: there is room again]
type heldBack struct {
	mu sync.Mutex
	// next is filled by the commit under way; cur is that of the last cut, prev of the one before.
	next, cur, prev map[meta.Ino]error
}

// begin is called as a commit begins to flush.
func (h *heldBack) begin() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.next = nil
}

func (h *heldBack) add(ino meta.Ino, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.next == nil {
		h.next = make(map[meta.Ino]error)
	}
	h.next[ino] = err
}

func (h *heldBack) drop(ino meta.Ino) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.next, ino)
}

// now returns why a file is held back by the commit under way, or nil.
func (h *heldBack) now(ino meta.Ino) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.next[ino]
}

// first returns why the first of the files of the commit under way is held back, or nil.
func (h *heldBack) first() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return firstError(h.next)
}

// end is called as the cut is made.
func (h *heldBack) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.prev, h.cur, h.next = h.cur, h.next, nil
}

// of tells whether a file was held back by the last cut, and by the one before.
func (h *heldBack) of(ino meta.Ino) (cur, prev error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.cur[ino], h.prev[ino]
}

// last returns the files that the last cut held back, and why the first was.
func (h *heldBack) last() ([]meta.Ino, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Sorted(maps.Keys(h.cur)), firstError(h.cur)
}

func firstError(of map[meta.Ino]error) error {
	if len(of) == 0 {
		return nil
	}
	return of[slices.Min(slices.Collect(maps.Keys(of)))]
}

// noRoom tells whether bytes could not be stored because the disk is full.
func noRoom(err error) bool {
	return errors.Is(err, store.ErrFull) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// SyncFile makes all that was done with one inode before the call durable. (I8)
func (v *Volume) SyncFile(ino meta.Ino) error {
	for {
		if err := v.store.Commit(); err != nil {
			return err
		}
		cur, prev := v.flusher.held.of(ino)
		if cur != nil {
			return cur
		}
		// A later cut may have it in, of a commit that is still under way: the next one ends after
		// that.
		if prev == nil {
			return nil
		}
	}
}

// saveHeld saves a file as far as its bytes are stored, and leaves it in the list of those that
// wait. It returns by how much its size is less than it is in memory. The caller is inside Cut.
func (fl *flusher) saveHeld(n *node) (less int64, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.quiesce()
	if n.gone {
		fl.save(n)
		return 0, nil
	}
	end, err := fl.storedEnd(n)
	if err != nil {
		return 0, err
	}
	row := n.attr
	row.Size = end
	fl.v.db.Set(meta.InodeKey(n.ino), meta.AppendInode(make([]byte, 0, 80), &row))
	fl.v.files.savePages(n)
	return n.attr.Size - row.Size, nil
}

// storedEnd is the size up to which no bytes of a file are only in memory and would read as zeroes.
// Where they lie over older ones, those are read. n.mu is held.
func (fl *flusher) storedEnd(n *node) (end int64, err error) {
	err = fl.v.files.eachExtent(n, 0, n.attr.Size, func(e meta.Extent) bool {
		end = max(end, e.End())
		return true
	})
	if err != nil {
		return 0, err
	}
	for slot := range n.staged {
		b, err := fl.v.db.Get(meta.StagedKey(n.ino, slot))
		if err != nil {
			return 0, err
		}
		parts, err := meta.DecodeStaged(b)
		if err != nil {
			return 0, err
		}
		lo, _ := slotRange(slot)
		for _, p := range parts {
			end = max(end, lo+int64(p.Start+len(p.Bytes)))
		}
	}
	for _, r := range n.dirty {
		if r.end() > end {
			// A longer size would show zeroes for bytes that were written, and nobody could tell.
			return max(end, r.off), nil // the first bytes behind all that is stored
		}
	}
	return n.attr.Size, nil
}
