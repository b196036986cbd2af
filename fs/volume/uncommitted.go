package volume

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/quarxtor/quarxfs/fs/meta"
)

// Uncommitted is what no commit has made durable.
type Uncommitted struct {
	Since time.Time // of the last commit; zero: there was none since the volume was opened
	Names []string  // paths that were made, removed, or lead to something that changed; sorted
}

func (u Uncommitted) String() string {
	since := ""
	if !u.Since.IsZero() {
		since = " since " + u.Since.Format(time.TimeOnly)
	}
	return fmt.Sprintf("changes%s to %s", since, listNames(u.Names))
}

// listNames says how many names there are, and the first of them.
func listNames(names []string) string {
	const most = 10
	shown := make([]string, 0, most)
	for _, name := range names[:min(most, len(names))] {
		shown = append(shown, printableName(name))
	}
	if more := len(names) - len(shown); more > 0 {
		shown = append(shown, fmt.Sprintf("and %d more", more))
	}
	noun := "names"
	if len(names) == 1 {
		noun = "name"
	}
	return fmt.Sprintf("%d %s (%s)", len(names), noun, strings.Join(shown, ", "))
}

func printableName(name string) string {
	if quoted := fmt.Sprintf("%q", name); quoted != `"`+name+`"` {
		return quoted
	}
	return name
}

// Uncommitted tells what would be lost if the volume ended now.
func (v *Volume) Uncommitted() Uncommitted {
	type dirName struct {
		dir  meta.Ino
		name string
	}
	names := make(map[dirName]bool)
	inodes := make(map[meta.Ino]bool)
	// Rows of the pending commit; the nodes below have changes that are no rows yet.
	v.db.Uncommitted(func(key []byte) {
		switch meta.KindOf(key) {
		case meta.KindName:
			dir, err := meta.KeyIno(key)
			name, nerr := meta.KeyTail(key)
			if err == nil && nerr == nil {
				names[dirName{dir, name}] = true
			}
		case meta.KindInode, meta.KindXattr, meta.KindExtents, meta.KindStaged:
			if ino, err := meta.KeyIno(key); err == nil {
				inodes[ino] = true
			}
		}
	})
	for _, n := range v.flusher.dirty.all(v.flusher.dirty.nodes) {
		inodes[n.ino] = true
	}
	paths := make(map[string]bool)
	for p := range names {
		delete(inodes, p.dir) // it changed because of its names
		paths[path.Join(v.tree.pathOf(p.dir), p.name)] = true
	}
	for ino := range inodes {
		if a, err := v.Peek(ino); err == nil && a.Nlink > 0 {
			paths[v.tree.pathOf(ino)] = true
		}
	}
	return Uncommitted{v.store.LastCommit(), slices.Sorted(maps.Keys(paths))}
}

// pathOf returns a path of an inode, by its number from where its record does not say its name.
func (t *nameTree) pathOf(ino meta.Ino) string {
	var parts []string
	for ; ino != meta.Root && len(parts) < meta.MaxName; ino = t.parent(ino, &parts) {
	}
	slices.Reverse(parts)
	return path.Join(parts...)
}

// parent appends the name of an inode and returns its directory; the root when it has none on
// record.
func (t *nameTree) parent(ino meta.Ino, parts *[]string) meta.Ino {
	a, err := t.v.Peek(ino)
	if err == nil && a.Pos != 0 {
		var b []byte
		if b, err = t.v.db.Get(meta.EntryKey(a.Parent, a.Pos)); err == nil {
			if e, derr := meta.DecodeDirent(b); derr == nil {
				*parts = append(*parts, e.Name)
				return a.Parent
			}
		}
	}
	*parts = append(*parts, fmt.Sprintf("inode %d", ino))
	return meta.Root
}
