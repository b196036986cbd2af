package fsck

import (
	"fmt"
	"slices"
	"syscall"

	"github.com/quarxtor/quarxfs/fs/meta"
)

// LostFound is the directory of what has no other name.
const LostFound = "lost+found"

// reach marks what the root leads to.
func (r *repairer) reach() { r.mark(meta.Root) }

func (r *repairer) mark(top meta.Ino) {
	todo := []meta.Ino{top}
	for len(todo) > 0 {
		f := r.inodes[todo[len(todo)-1]]
		todo = todo[:len(todo)-1]
		if f.reached {
			continue
		}
		f.reached = true
		for _, e := range f.entries {
			todo = append(todo, e.Ino)
		}
	}
}

// attach gives what is not reached a name in lost+found: first what no entry at all
// leads to, with all that is below, then what is left, which are loops.
func (r *repairer) attach() {
	for _, ino := range r.sorted() { // what is being removed as a whole
		if f := r.inodes[ino]; f.attr != nil && f.orphan && f.attr.Nlink == 0 && f.parents == 0 {
			r.mark(ino)
		}
	}
	for _, loops := range []bool{false, true} {
		for _, ino := range r.sorted() {
			f := r.inodes[ino]
			if f.attr == nil || f.reached || !loops && f.parents > 0 {
				continue
			}
			if f.parents == 0 && f.attr.Nlink == 0 && f.orphan {
				continue // removed while in use: the next mount takes it away
			}
			if loops {
				r.unlinkEverywhere(ino)
			}
			r.link(ino, f)
		}
	}
}

// unlinkEverywhere opens a loop at a directory.
func (r *repairer) unlinkEverywhere(ino meta.Ino) {
	for _, dir := range r.sorted() {
		f := r.inodes[dir]
		f.entries = slices.DeleteFunc(f.entries, func(e entry) bool {
			if e.Ino != ino {
				return false
			}
			r.db.Delete(meta.EntryKey(dir, e.pos))
			r.db.Delete(meta.NameKey(dir, e.Name))
			return true
		})
	}
	r.inodes[ino].parents = 0
}

// link makes an entry in lost+found.
func (r *repairer) link(ino meta.Ino, f *found) {
	name := fmt.Sprintf("#%d", ino)
	r.addEntry(r.lostDir(), ino, name)
	if f.isDir() {
		f.attr.Parent, f.changed = r.lost, true
	}
	r.did("inode %d: no name led to it; it is now %s/%s", ino, LostFound, name)
	r.mark(ino)
}

func (r *repairer) addEntry(dir, ino meta.Ino, name string) {
	d, f := r.at(dir), r.at(ino)
	taken := make(map[string]bool)
	for _, e := range d.entries {
		taken[e.Name] = true
	}
	if taken[name] {
		name = unused(name, taken)
	}
	e := entry{r.next, meta.Dirent{Ino: ino, Type: f.attr.Mode & syscall.S_IFMT, Name: name}}
	r.next++
	d.entries = append(d.entries, e)
	f.parents++
	r.db.Set(meta.EntryKey(dir, e.pos), meta.AppendDirent(nil, e.Dirent))
	r.db.Set(meta.NameKey(dir, name), meta.EncodePosition(e.pos))
}

// lostDir finds or makes lost+found in the root directory.
func (r *repairer) lostDir() meta.Ino {
	if r.lost != 0 {
		return r.lost
	}
	for _, e := range r.inodes[meta.Root].entries {
		if e.Name == LostFound && r.inodes[e.Ino].isDir() {
			r.lost = e.Ino
			return r.lost
		}
	}
	r.lost = meta.Ino(r.next)
	r.next++
	f := r.at(r.lost)
	f.attr, f.changed, f.reached = r.record(syscall.S_IFDIR|0o700), true, true
	f.attr.Parent = meta.Root
	r.addEntry(meta.Root, r.lost, LostFound)
	return r.lost
}
