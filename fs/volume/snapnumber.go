package volume

import (
	"context"
	"encoding/binary"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"

	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/store"
)

// The inode number of what is in a snapshot says where it is, so that it can be found by a file
// handle in any later mount:
//
//	bit 62  61  60..34                       33  32..0
//	     1   0  of the ID of the snapshot     0  place of the name
//	     1   0  of the ID of the snapshot     1  number of a file with several names
//	     1   1  61 bits of a hash, where the others have no room or are another's: not to be found
//
// All names of a snapshot have places: 0 for its root directory, then the names in that one, then
// those below its first subdirectory, its own first, and so on. A tree knows how many names it has,
// and how many are below each subdirectory.
const (
	placeBits = 33
	linkedBit = 1 << placeBits
	slotShift = placeBits + 1
	slotBits  = 27
	hashedBit = 1 << (slotShift + slotBits)
)

// placed is what the node of a directory in a snapshot knows of places; what is below mu is guarded
// by the node's.
type placed struct {
	first atomic.Uint64 // place of the first name in it; 0: not known yet

	// Where the last sum over subdirectories ended: a walk asks for one after the other.
	summed int64 // entries that were looked at
	below  uint64
}

func slotOf(id store.ID) meta.Ino {
	return meta.Ino(binary.BigEndian.Uint32(id[:])>>(32-slotBits)) << slotShift
}

// virtualIno returns the number of an entry: that of the first try, unless another has it.
func virtualIno(id store.ID, parent meta.Ino, e *graph.Entry, place uint64, try int) meta.Ino {
	if e.Ident != 0 {
		place = e.Ident
	}
	if try == 0 && place < linkedBit {
		ino := firstVirtual | slotOf(id) | meta.Ino(place)
		if e.Ident != 0 {
			ino |= linkedBit
		}
		return ino
	}
	// The try is hashed, too, so that each gives another number.
	b := append(make([]byte, 0, 300), id[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(try))
	if e.Ident != 0 {
		b = binary.BigEndian.AppendUint64(append(b, 'i'), e.Ident)
	} else {
		b = binary.BigEndian.AppendUint64(append(b, 'n'), uint64(parent))
		b = append(b, e.Name...)
	}
	return firstVirtual | hashedBit | meta.Ino(xxhash.Sum64(b)>>3)
}

// firstPlace returns the place of the first name in a directory. No node's mutex is held: those of
// the directories above are taken, one after the other.
func (w *views) firstPlace(d *node) (uint64, error) {
	if first := d.first.Load(); first != 0 {
		return first, nil
	}
	t, ok := w.find(d.ino)
	if !ok || t.parent == 0 {
		d.first.Store(1) // the root's; or nobody knows the number any more
		return 1, nil
	}
	p, err := w.v.get(t.parent)
	if err != nil {
		return 0, err
	}
	defer p.release()
	first, err := w.firstPlace(p)
	if err != nil {
		return 0, err
	}
	before, err := w.namesBefore(p, t.name)
	if err != nil {
		return 0, err
	}
	d.first.Store(first + before)
	return first + before, nil
}

// namesBefore returns how many names a directory has, with those below the subdirectories that come
// before one of them.
func (w *views) namesBefore(d *node, name string) (uint64, error) {
	ctx := context.Background()
	d.mu.Lock()
	defer d.mu.Unlock()
	t := w.treeOf(d)
	names, err := t.Len(ctx)
	if err != nil {
		return 0, err
	}
	_, index, err := t.Find(ctx, name)
	if err != nil {
		return 0, noEntry(err)
	}
	// A walk comes by in the order of names, and goes on here; whoever comes out of order pays for
	// the directory once more.
	if index < d.summed {
		d.summed, d.below = 0, 0
	}
	err = t.EachFrom(ctx, d.summed, func(e *graph.Entry) error {
		if d.summed == index {
			return store.ErrStop
		}
		d.summed++
		if e.IsDir() {
			d.below += uint64(e.Below.Names())
		}
		return nil
	})
	return uint64(names) + d.below, err
}

// revive finds what an inode number leads to that nobody knows any more, and counts it as known. It
// reports whether there is such a thing.
func (w *views) revive(ino meta.Ino) (found bool) {
	if !isVirtual(ino) || ino == SnapshotsDir || ino&hashedBit != 0 {
		return false
	}
	const slotMask = (1<<slotBits - 1) << slotShift
	ctx := context.Background()
	// Two snapshots may be of one slot; the generation of the answer tells them apart.
	err := w.v.store.Snapshots(ctx, func(r store.SnapshotRef) error {
		if slotOf(r.ID) != ino&slotMask {
			return nil
		}
		at, err := w.in(ctx, r, ino)
		// Equal only if that place exists in this snapshot; another snapshot of the slot may have
		// it.
		if found = err == nil && at == ino && w.known(ino, 1); found {
			return store.ErrStop
		}
		return nil
	})
	if err != nil {
		w.v.log.Warn("a file handle cannot be looked for in the snapshots", "inode", uint64(ino), "err", err)
	}
	return found
}

// in gives a number to what is at the place of ino in a snapshot.
func (w *views) in(ctx context.Context, r store.SnapshotRef, ino meta.Ino) (meta.Ino, error) {
	s, err := w.v.snapshots.loadSnapshot(ctx, r)
	if err != nil {
		return 0, err
	}
	view, root, err := w.open(s)
	if err != nil {
		return 0, err
	}
	return w.at(view, root, ino)
}

// at gives a number to what is at the place of ino in a view.
func (w *views) at(view *snapView, root, ino meta.Ino) (meta.Ino, error) {
	place := uint64(ino & (linkedBit - 1))
	if ino&linkedBit != 0 {
		e, err := w.linked(view, place)
		if err != nil {
			return 0, err
		}
		named := *e
		named.Ident = place // its names share it, and the entry has none
		return w.number(view, root, &named, 0), nil
	}
	for dir := root; place > 0; {
		next, done, err := w.descend(view, dir, place)
		if err != nil || done {
			return next, err
		}
		dir = next
	}
	return root, nil
}

// descend gives a number to the entry of a directory that has a place, done then, or to the one
// below which that is.
func (w *views) descend(view *snapView, dir meta.Ino, place uint64) (ino meta.Ino, done bool, err error) {
	d, err := w.v.get(dir)
	if err != nil {
		return 0, false, err
	}
	defer d.release()
	if !d.isDir() {
		return 0, false, store.ErrNotFound
	}
	first, err := w.firstPlace(d)
	if err != nil || place < first {
		return 0, false, orErr(err, store.ErrNotFound)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	t := w.treeOf(d)
	names, err := t.Len(context.Background())
	if err != nil {
		return 0, false, err
	}
	// Names of the directory itself come first: to one of them leads its index. Below them the
	// subdirectories have to be passed one after the other.
	index, left := int64(0), place-first
	if done = left < uint64(names); done {
		index = int64(left)
	}
	left -= min(left, uint64(names))
	err = t.EachFrom(context.Background(), index, func(e *graph.Entry) error {
		if below := uint64(e.Below.Names()); !done && (!e.IsDir() || left >= below) {
			left -= min(left, below)
			index++
			return nil
		}
		ino = w.number(view, dir, e, first+uint64(index))
		return store.ErrStop
	})
	if err == nil && ino == 0 {
		err = store.ErrNotFound
	}
	return ino, done, err
}

// GenerationOf goes with an inode number: that of a snapshot's has more of the snapshot's ID.
func (v *Volume) GenerationOf(ino meta.Ino) uint32 {
	if !isVirtual(ino) || ino == SnapshotsDir {
		return v.numbers.generation
	}
	t, ok := v.views.find(ino)
	if !ok {
		return v.numbers.generation
	}
	return max(1, v.numbers.generation^binary.BigEndian.Uint32(t.view.id[4:]))
}
