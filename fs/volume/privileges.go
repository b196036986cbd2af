package volume

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/store"
)

// Rights say what a copy of a snapshot from another store may give.
type Rights int

// KeepPrivileges leaves it all as it was there.
const KeepPrivileges Rights = iota + 1

// withoutPrivileges is the mode of what is in a snapshot as it is seen in .snapshots, as if that
// were mounted nosuid,nodev: what was removed from the live tree because it gave too many rights
// must not go on giving them. A mount cannot say so of a part of it. Who takes a file of this store
// out by its vertices has the true mode.
func withoutPrivileges(mode uint32) uint32 {
	switch mode & syscall.S_IFMT {
	case syscall.S_IFREG:
		return mode &^ (syscall.S_ISUID | syscall.S_ISGID)
	case syscall.S_IFCHR, syscall.S_IFBLK:
		return mode &^ 0o7777 // the kernel opens a device by itself, and asks for nothing but these bits
	}
	return mode
}

// givesPrivileges reports whether an extended attribute does what withoutPrivileges undoes.
func givesPrivileges(mode uint32, xattr string) bool {
	switch mode & syscall.S_IFMT {
	case syscall.S_IFREG:
		return xattr == "security.capability"
	case syscall.S_IFCHR, syscall.S_IFBLK:
		return xattr == aclAccess
	}
	return false
}

// foreign reports whether a snapshot comes from another store. What says where it was made is the
// sender's own word; that a sync brought it is noted here, and not in stores that older programs
// have filled.
func (ss *snapshotter) foreign(s *Snapshot) (bool, error) {
	_, brought, err := ss.v.store.BroughtBy(s.SnapshotRef)
	return brought || s.Volume != ss.v.store.Config().VolumeID, err
}

// A stripper makes of what is in a snapshot what gives no privileges in a live tree. Directories
// without any in and below them stay the vertices that they are. The sweep stands still.
type stripper struct {
	ctx context.Context
	v   *Volume
	// By the tree of a directory, as one may be below many names.
	done map[store.ID]store.ID
	n    int // that were changed
}

// stripBatch bounds the changes of a directory that are in memory.
const stripBatch = 4096

// entry strips an entry with all that is below it.
func (s *stripper) entry(e *graph.Entry) error {
	if e.Ident != 0 {
		return nil // the link table has all of it
	}
	changed, err := s.own(e)
	if err != nil {
		return err
	}
	if changed {
		s.n++
	}
	if e.IsDir() {
		e.Link.ID, err = s.tree(e.Link.ID)
	}
	return err
}

// own strips an entry alone.
func (s *stripper) own(e *graph.Entry) (changed bool, err error) {
	if mode := withoutPrivileges(e.Mode); mode != e.Mode {
		e.Mode, changed = mode, true
	}
	// Here its owner could give the device its mode again, and in .snapshots nobody can.
	if typ := e.Type(); (typ == syscall.S_IFCHR || typ == syscall.S_IFBLK) && (e.UID != 0 || e.GID != 0) {
		e.UID, e.GID, changed = 0, 0, true
	}
	set := e.Xattrs
	if e.XattrLink.Kind != 0 {
		if set, err = s.v.views.linkedXattrs(e.XattrLink); err != nil {
			return changed, err
		}
	}
	// All of security.: labels of another machine's policy say nothing that holds here.
	kept := slices.DeleteFunc(slices.Clone(set), func(x graph.Xattr) bool {
		return givesPrivileges(e.Mode, x.Name) || strings.HasPrefix(x.Name, "security.")
	})
	if len(kept) == len(set) {
		return changed, nil
	}
	e.Xattrs, e.XattrLink = kept, graph.Link{}
	if graph.XattrsSize(kept) > graph.MaxInlineXattrs {
		e.Xattrs = nil
		e.XattrLink, err = s.v.snapshots.putBytes(graph.AppendXattrs(nil, kept))
	}
	return true, err
}

// tree strips a directory's entries and returns its tree.
func (s *stripper) tree(id store.ID) (store.ID, error) {
	if to, ok := s.done[id]; ok {
		return to, nil
	}
	if err := s.ctx.Err(); err != nil {
		return id, err
	}
	// Sums and numbers of entries stay: nothing is removed, and no size changes.
	to := id
	for from, more := "", true; more; {
		var changes []graph.Change
		more = false
		err := graph.OpenTree(s.v.store, id, graph.Directory).Each(s.ctx, from, func(e *graph.Entry) error {
			if len(changes) == stripBatch {
				more = true
				return store.ErrStop
			}
			from = e.Name + "\x00"
			was, is := *e, *e
			if err := s.entry(&is); err != nil {
				return fmt.Errorf("%q: %w", e.Name, err)
			}
			if is.Mode != was.Mode || is.UID != was.UID || is.GID != was.GID || is.Link != was.Link || is.XattrLink != was.XattrLink ||
				len(is.Xattrs) != len(was.Xattrs) {
				changes = append(changes, graph.Change{Name: e.Name, Entry: &is})
			}
			return nil
		})
		if err == nil && len(changes) > 0 {
			var root graph.TreeRoot
			root, err = graph.OpenTree(s.v.store, to, graph.Directory).Apply(s.ctx, s.v.store, changes)
			to = root.ID
		}
		if err != nil {
			return id, err
		}
	}
	s.done[id] = to
	return to, nil
}
