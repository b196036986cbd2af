package volume

import (
	"math"
	"syscall"

	"github.com/quarxtor/quarxfs/fs/meta"
)

// CopyRange makes [dstOff, dstOff+length) of dst the same bytes as the source
// range by sharing its blocks; holes stay holes. It returns how many bytes
// were copied: fewer than length where the source ends.
func (v *Volume) CopyRange(src meta.Ino, srcOff int64, dst meta.Ino, dstOff, length int64) (int64, error) {
	if srcOff < 0 || dstOff < 0 || length < 0 {
		return 0, syscall.EINVAL
	}
	if dstOff > math.MaxInt64-length || srcOff > math.MaxInt64-length {
		return 0, syscall.EFBIG
	}
	// What is copied between overlapping ranges would depend on the order.
	if src == dst && srcOff < dstOff+length && dstOff < srcOff+length {
		return 0, syscall.EINVAL
	}
	a, err := v.get(src)
	if err != nil {
		return 0, err
	}
	defer a.release()
	b, err := v.get(dst)
	if err != nil {
		return 0, err
	}
	defer b.release()
	if b.frozen {
		return 0, syscall.EROFS
	}
	// Outside of Update, since it makes Updates of its own.
	if err := v.materializer.file(b); err != nil {
		return 0, err
	}
	var done int64
	err = v.store.Change(func() (err error) {
		unlock := lockBoth(a, b)
		defer unlock()
		done, err = v.files.copyLocked(a, srcOff, b, dstOff, length)
		return err
	})
	return done, err
}

// lockBoth locks one or two nodes in ascending order of their numbers.
func lockBoth(a, b *node) (unlock func()) {
	if a == b {
		a.mu.Lock()
		return a.mu.Unlock
	}
	if a.ino > b.ino {
		a, b = b, a
	}
	a.mu.Lock()
	b.mu.Lock()
	return func() { b.mu.Unlock(); a.mu.Unlock() }
}

func (m *fileMap) copyLocked(a *node, srcOff int64, b *node, dstOff, length int64) (int64, error) {
	if a.reaping || b.reaping {
		return 0, syscall.ENOENT
	}
	if a.isDir() || b.isDir() {
		return 0, syscall.EISDIR
	}
	if !a.isReg() || !b.isReg() {
		return 0, syscall.EINVAL
	}
	if srcOff >= a.attr.Size || length == 0 {
		return 0, nil
	}
	length = min(length, a.attr.Size-srcOff)
	// Writing blocks releases the node's lock, so another writer may come between.
	for a.busy || len(a.dirty) > 0 || b.busy {
		if err := m.drain(a, b); err != nil {
			return 0, err
		}
	}
	if err := m.v.xattrs.killPriv(b, false); err != nil {
		return 0, err
	}
	// Collected before b changes: a and b may be the same file.
	var shared []meta.Extent
	err := m.eachExtent(a, srcOff, srcOff+length, func(e meta.Extent) bool {
		if cut := srcOff - e.Off; cut > 0 {
			e.Off, e.Skip, e.Len = srcOff, e.Skip+uint32(cut), e.Len-uint32(cut)
		}
		if over := e.End() - (srcOff + length); over > 0 {
			e.Len -= uint32(over)
		}
		e.Off += dstOff - srcOff
		shared = append(shared, e)
		return true
	})
	if err != nil {
		return 0, err
	}
	// Also of dirty and staged bytes, which would lie over what is copied.
	if err := m.punch(b, dstOff, dstOff+length); err != nil {
		return 0, err
	}
	if err := m.replaceExtents(b, dstOff, dstOff+length, shared); err != nil {
		return 0, err
	}
	m.thin(b)
	if end := dstOff + length; end > b.attr.Size {
		m.v.counters.logical.Add(end - b.attr.Size)
		b.attr.Size = end
	}
	b.attr.Mtime = m.v.Now()
	b.attr.Ctime = b.attr.Mtime
	m.v.flusher.markChanged(b)
	return length, nil
}

// drain makes blocks of a's dirty ranges and waits for both nodes' flushers. Both are locked
// before and after, but not all the time between.
func (m *fileMap) drain(a, b *node) error {
	if a != b {
		b.mu.Unlock()
	}
	a.quiesce()
	var err error
	for err == nil && len(a.dirty) > 0 {
		err = m.v.flusher.writeBlocks(a, flushWhole)
	}
	a.mu.Unlock()
	if a != b {
		b.mu.Lock()
		b.quiesce()
		b.mu.Unlock()
	}
	lockBoth(a, b)
	return err
}
