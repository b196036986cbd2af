package volume

import (
	"fmt"
	"math"
	"syscall"

	"github.com/quarxtor/quarxfs/fs/meta"
)

// Staged bytes are dirty ranges that a commit wrote into the database as they
// are, because they are much smaller than a block: a database's page and its
// fsync. They stay in node.dirty, so readers see no difference, and become
// blocks when the dirty ranges have grown or have been left alone for a while.
const (
	maxStagedRange = 256 << 10 // bytes of one range
	maxStagedNode  = 1 << 20   // bytes of one file
	maxStaged      = 16 << 20  // bytes of all files
)

// stageable reports whether the node's dirty ranges are better staged than made into blocks.
func (fl *flusher) stageable(n *node) bool {
	if fl.v.snapshots.checkpoint.Load() != nil {
		return false // a snapshot has no staged bytes
	}
	// A stream that goes on, a file without blocks, or much of it: these are better as blocks at
	// once.
	size := n.dirty.length()
	if n.growing || n.attr.Alloc == 0 || size > maxStagedNode || fl.staged.Load()+size > maxStaged || fl.overdue(n) {
		return false
	}
	for _, r := range n.dirty {
		if len(r.data) >= maxStagedRange {
			return false
		}
	}
	return true
}

// stage writes the slots that changed since the last time. n.mu is held,
// inside Update or Cut.
func (fl *flusher) stage(n *node) {
	for _, r := range n.dirty {
		if r.lo >= r.hi {
			continue
		}
		first, last := (r.off+int64(r.lo))/meta.SlotSize, (r.off+int64(r.hi)-1)/meta.SlotSize
		// Only slots touched since the last commit are written, and a file that is appended to line
		// by line costs one row a commit.
		r.lo, r.hi = 0, 0
		for slot := first; slot <= last; slot++ {
			fl.stageSlot(n, uint64(slot))
		}
	}
	fl.dirty.add(fl.dirty.staged, n)
}

// slotRange bounds a slot; the last one of the largest file is a byte short.
func slotRange(slot uint64) (lo, hi int64) {
	lo = int64(slot) * meta.SlotSize
	return lo, lo + min(meta.SlotSize, math.MaxInt64-lo)
}

func (fl *flusher) stageSlot(n *node, slot uint64) {
	lo, hi := slotRange(slot)
	var parts []meta.StagedPart
	size := 0
	for _, r := range n.dirty[n.dirty.after(lo):] {
		if r.off >= hi {
			break
		}
		from, to := max(r.off, lo), min(r.end(), hi)
		parts = append(parts, meta.StagedPart{Start: int(from - lo), Bytes: r.data[from-r.off : to-r.off]})
		size += int(to - from)
	}
	fl.v.db.Set(meta.StagedKey(n.ino, slot), meta.AppendStaged(make([]byte, 0, size+8*len(parts)), parts))
	if n.staged == nil {
		n.staged = make(map[uint64]int)
	}
	fl.staged.Add(int64(size - n.staged[slot]))
	n.staged[slot] = size
}

// unstage removes a slot's row. n.mu is held, inside Update or Cut.
func (fl *flusher) unstage(n *node, slot uint64) {
	fl.v.db.Delete(meta.StagedKey(n.ino, slot))
	fl.staged.Add(-int64(n.staged[slot]))
	delete(n.staged, slot)
	if len(n.staged) == 0 {
		fl.dirty.remove(fl.dirty.staged, n)
	}
}

// restage brings the staged rows in [lo, hi) in line with the dirty ranges, after
// bytes left the dirty ranges there: a slot that no range touches goes, any other is
// written again. n.mu is held, inside Update or Cut.
func (fl *flusher) restage(n *node, lo, hi int64) {
	for slot := range n.staged {
		from, to := slotRange(slot)
		if to <= lo || from >= hi {
			continue
		}
		if n.dirty.intersects(from, to) {
			fl.stageSlot(n, slot)
		} else {
			fl.unstage(n, slot)
		}
	}
}

// loadStaged brings the staged bytes of the last mount back into the dirty ranges.
func (fl *flusher) loadStaged() error {
	return fl.v.db.ScanPrefix(meta.StagedPrefix(), func(key, value []byte) error {
		ino, slot, err := meta.KeyNumbers(key)
		if err != nil {
			return err
		}
		n, err := fl.v.get(ino)
		// The rest is worth a mount: fsck tells of these, too.
		if meta.IsErrno(err, syscall.ENOENT) {
			fl.v.log.Error("staged bytes of an inode that does not exist", "inode", uint64(ino))
			return nil
		}
		if err != nil {
			return err
		}
		defer n.release()
		parts, err := meta.DecodeStaged(value)
		if err != nil {
			return fmt.Errorf("inode %d, slot %d: %w", ino, slot, err)
		}
		fl.restoreSlot(n, slot, parts)
		return nil
	})
}

func (fl *flusher) restoreSlot(n *node, slot uint64, parts []meta.StagedPart) {
	n.mu.Lock()
	defer n.mu.Unlock()
	before := n.dirty.capacity()
	size := 0
	for _, p := range parts {
		n.dirty.write(int64(slot)*meta.SlotSize+int64(p.Start), p.Bytes)
		size += len(p.Bytes)
	}
	// They have their rows already: nothing is to be staged again.
	for _, r := range n.dirty {
		r.lo, r.hi = 0, 0
	}
	if n.staged == nil {
		n.staged = make(map[uint64]int)
	}
	n.staged[slot] = size
	n.written = fl.v.opts.Now()
	fl.staged.Add(int64(size))
	fl.budget.add(n.dirty.capacity() - before)
	fl.dirty.add(fl.dirty.staged, n)
}
