package volume

import "sync/atomic"

// numbersAhead is how many numbers a commit sets aside for those that are given out before
// the next one. A crash leaves them unused: whoever has a file handle of an inode that the
// crash has undone must not come to another one by it.
const numbersAhead = 1 << 20

// inodeNumbers gives out the numbers of inodes and of directory positions, one sequence, each once.
type inodeNumbers struct {
	next       atomic.Uint64 // the next unused one
	used       atomic.Bool   // some were given out since the volume was opened
	generation uint32        // of all numbers

	covered atomic.Uint64 // up to here a crash does not give numbers out again; see Volume.coverNumbers
}

// take returns an unused number. Volume.coverNumbers was called before, outside of Update.
func (n *inodeNumbers) take() uint64 { return n.next.Add(1) - 1 }

// from returns where numbering shall go on when what is now saved is opened; saved is what the last
// commit said, closing that no number is given out any more.
func (n *inodeNumbers) from(saved uint64, closing bool) uint64 {
	next := n.next.Load()
	switch {
	case !n.used.Load() || closing:
		return next // and a mount that only looks leaves nothing
	case next+numbersAhead/2 < saved:
		return saved
	}
	return next + numbersAhead
}

// coverNumbers commits when few of the numbers that are set aside are left, as when the
// first one is to be given out. It is called outside of Update, with no lock held.
func (v *Volume) coverNumbers() {
	if v.numbers.next.Load() < v.numbers.covered.Load() {
		return
	}
	v.numbers.used.Store(true)
	if v.store.Commit() != nil {
		return // it is tried again, and told, by the one in the background
	}
	_ = v.store.Update(func() error {
		// Half of them are left to those who have called this and not yet taken one.
		v.numbers.covered.Store(v.counters.saved.Next - min(v.counters.saved.Next, numbersAhead/2))
		return nil
	})
}
