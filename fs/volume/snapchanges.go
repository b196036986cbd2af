package volume

import (
	"fmt"
	"syscall"

	"github.com/quarxtor/quarxfs/fs/meta"
)

// collect finds out which names of which directories changed.
func (b *snapBuilder) collect() error {
	var lost map[meta.Ino]bool // changed inodes whose records do not say where their name is
	from, to := meta.TouchedRange(b.base, b.last.Epoch+1)
	err := b.view.Scan(from, to, func(key, value []byte) error {
		_, ino, flags, err := meta.DecodeTouched(key, value)
		if err != nil {
			return err
		}
		known, err := b.touched(ino, flags)
		if err == nil && !known {
			if lost == nil {
				lost = make(map[meta.Ino]bool)
			}
			lost[ino] = true
		}
		return orErr(b.ctx.Err(), err)
	})
	if err != nil {
		return err
	}
	from, to = meta.GoneRange(b.base, b.last.Epoch+1)
	err = b.view.Scan(from, to, func(key, _ []byte) error {
		_, dir, name, err := meta.DecodeGone(key)
		if err != nil {
			return err
		}
		return b.mark(dir, name)
	})
	if err != nil || lost == nil {
		return err
	}
	return b.view.ScanPrefix(meta.Prefix(meta.KindEntry), func(key, value []byte) error {
		e, err := meta.DecodeDirent(value)
		if err != nil || !lost[e.Ino] {
			return err
		}
		dir, _, err := meta.KeyNumbers(key)
		if err != nil {
			return err
		}
		return b.mark(dir, e.Name)
	})
}

// touched takes up a changed inode. It reports false when nothing says where
// the inode's name is.
func (b *snapBuilder) touched(ino meta.Ino, flags byte) (known bool, err error) {
	attr, err := b.inode(ino)
	if err != nil && !meta.IsNotFound(err) {
		return true, err
	}
	// Gone: its name has a mark of its own, the link table and the row of its tree have none.
	if err != nil || attr.Nlink == 0 {
		if flags&meta.TouchedShared != 0 {
			b.table[ino] = false
		}
		if flags&meta.TouchedDir != 0 {
			b.gone = append(b.gone, ino)
		}
		return true, nil
	}
	isDir := attr.Mode&syscall.S_IFMT == syscall.S_IFDIR
	if isDir {
		// Names made in it since have no marks: changedDirectory finds them by their positions.
		b.see(ino)
	}
	switch {
	case ino == meta.Root:
		return true, nil
	case attr.Shared && !isDir:
		b.table[ino] = true
		return true, nil
	case attr.Pos == 0:
		return false, nil
	}
	return true, b.markAt(attr.Parent, attr.Pos)
}

// see notes that a directory changed and reports whether that is news.
func (b *snapBuilder) see(dir meta.Ino) bool {
	if _, ok := b.dirty[dir]; ok {
		return false
	}
	b.dirty[dir] = make(map[string]struct{})
	return true
}

func (b *snapBuilder) markAt(dir meta.Ino, pos uint64) error {
	row, err := b.view.Get(meta.EntryKey(dir, pos))
	if err != nil {
		return fmt.Errorf("entry %d of directory %d: %w", pos, dir, err)
	}
	e, err := meta.DecodeDirent(row)
	if err != nil {
		return err
	}
	return b.mark(dir, e.Name)
}

// mark notes that a name changed, and with it the names that lead to it.
func (b *snapBuilder) mark(dir meta.Ino, name string) error {
	if uint64(dir) >= b.base {
		return nil // a new directory is looked at as a whole
	}
	attr, err := b.inode(dir)
	if meta.IsNotFound(err) || err == nil && attr.Nlink == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	// The way up is marked once, by the first name below that changed.
	news := b.see(dir)
	b.dirty[dir][name] = struct{}{}
	if !news || dir == meta.Root {
		return nil
	}
	if attr.Pos != 0 {
		return b.markAt(attr.Parent, attr.Pos)
	}
	pos, err := b.positionOf(attr.Parent, dir)
	if err != nil {
		return err
	}
	return b.markAt(attr.Parent, pos)
}

// positionOf finds a directory in its parent, for records of version 1.
func (b *snapBuilder) positionOf(parent, dir meta.Ino) (pos uint64, err error) {
	from, to := meta.EntryRange(parent, 0)
	err = b.view.Scan(from, to, func(key, value []byte) error {
		e, err := meta.DecodeDirent(value)
		if err != nil || e.Ino != dir {
			return err
		}
		if _, pos, err = meta.KeyNumbers(key); err != nil {
			return err
		}
		return meta.ErrStop
	})
	return pos, err
}
