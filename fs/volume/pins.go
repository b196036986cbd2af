package volume

import (
	"context"
	"errors"
	"strings"
	"syscall"

	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/fs/rows"
	"github.com/quarxtor/quarxfs/store"
)

// PinName is the extended attribute of a file or directory whose blocks, and
// those of all below it, stay in the hot tier. It is an attribute like any other:
// it follows its file, and who may set the user's attributes may set it.
const PinName = "user.quarxfs.pinned"

// SetPinned sets or removes the attribute; both may be done twice.
func (v *Volume) SetPinned(ino meta.Ino, pinned bool) error {
	if pinned {
		return v.SetXattr(ino, PinName, []byte("1"), 0, false)
	}
	err := v.RemoveXattr(ino, PinName)
	if errors.Is(err, syscall.ENODATA) {
		return nil
	}
	return err
}

// pinned looks for what is pinned, in the rows as of the last commit.
type pinned struct{ v *Volume }

// inodes returns those with the attribute. Those inside of a clone whose
// directory was never changed are not among them.
func (p pinned) inodes(ctx context.Context) (map[meta.Ino]bool, error) {
	found := make(map[meta.Ino]bool)
	err := p.v.db.ScanPrefix(meta.Prefix(meta.KindXattr), func(key, _ []byte) error {
		name, err := meta.KeyTail(key)
		if err != nil || name != PinName {
			return ctx.Err()
		}
		ino, err := meta.KeyIno(key)
		found[ino] = true
		return err
	})
	return found, err
}

// Pinned returns a path of every file and directory that is pinned itself.
func (v *Volume) Pinned(ctx context.Context) ([]string, error) {
	inodes, err := pinned{v}.inodes(ctx)
	if err != nil || len(inodes) == 0 {
		return nil, err
	}
	paths, err := v.Rows().Paths(ctx, inodes)
	var list []string
	for ino := range inodes {
		if p := paths.Of(ino); p != "" || ino == meta.Root {
			list = append(list, "/"+strings.TrimPrefix(p, "/"))
		}
	}
	return list, err
}

// PinnedBlocks calls fn for the blocks of all that is pinned, and for the vertices
// that still have a part of it, until fn fails.
func (v *Volume) PinnedBlocks(ctx context.Context, fn func(store.ID) error) error {
	inodes, err := pinned{v}.inodes(ctx)
	if err != nil {
		return err
	}
	seen := make(map[meta.Ino]bool)
	for ino := range inodes {
		if err := (pinned{v}).blocksBelow(ctx, ino, seen, fn); err != nil {
			return err
		}
	}
	return nil
}

func (p pinned) blocksBelow(ctx context.Context, ino meta.Ino, seen map[meta.Ino]bool, fn func(store.ID) error) error {
	if seen[ino] {
		return nil
	}
	seen[ino] = true
	var inside []meta.Ino
	err := p.v.Rows().Edges(ctx, ino, func(e rows.Edge) error {
		if e.To != 0 {
			inside = append(inside, e.To)
			return nil
		}
		return fn(e.Block)
	})
	if meta.IsErrno(err, syscall.ENOENT) { // it has gone meanwhile
		return nil
	}
	for _, child := range inside {
		if err == nil {
			err = p.blocksBelow(ctx, child, seen, fn)
		}
	}
	return err
}
