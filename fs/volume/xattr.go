package volume

import (
	"fmt"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/fs/meta"
)

// The kernel's own limits.
const (
	maxXattrName  = 255
	maxXattrValue = 64 << 10
	maxXattrList  = 64 << 10
)

// checkXattrName refuses names outside the namespaces of xattr(7) with
// EOPNOTSUPP and a namespace by itself with EINVAL.
func checkXattrName(name string) error {
	if name == aclAccess || name == aclDefault {
		return nil
	}
	for _, space := range [...]string{"user.", "trusted.", "security."} {
		if rest, ok := strings.CutPrefix(name, space); ok {
			if rest == "" {
				return syscall.EINVAL
			}
			return nil
		}
	}
	return syscall.EOPNOTSUPP
}

// StoreXattr is an extended attribute that every inode has, is read only and not listed: which
// directory the volume's store is in, as DirectoryKey has it, and behind a space where that is
// now. Who sees a mount can tell by it whether a directory is that of its store.
const StoreXattr = "user.quarxfs.store"

// DirectoryKey tells a directory from all others of this machine, whatever path or mount leads
// to it: "DEVICE:INODE" in hexadecimal digits. It is empty if there is none at the path.
func DirectoryKey(path string) string {
	var st syscall.Stat_t
	if syscall.Stat(path, &st) != nil || st.Mode&syscall.S_IFMT != syscall.S_IFDIR {
		return ""
	}
	return fmt.Sprintf("%x:%x", st.Dev, st.Ino)
}

// xattrs has the extended attributes of inodes: rows of live ones, what the vertex says of those in
// snapshots, and what is computed. n.mu is held, for changes inside Update.
type xattrs struct {
	v         *Volume
	directory string // of the store, see StoreXattr
}

// GetXattr returns the value of an extended attribute. ENODATA: there is none
// of that name.
func (v *Volume) GetXattr(ino meta.Ino, name string) ([]byte, error) {
	if err := checkXattrName(name); err != nil {
		return nil, err
	}
	n, err := v.get(ino)
	if err != nil {
		return nil, err
	}
	defer n.release()
	if name == StoreXattr && v.xattrs.directory != "" {
		return []byte(v.xattrs.directory + " " + v.store.Dir()), nil
	}
	// Before n.mu: it has dirty bytes stored, which takes an Update.
	if compute := virtualXattrOf(name); compute != nil {
		return v.xattrs.virtualValue(n, compute)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return v.xattrs.get(n, name)
}

func (x *xattrs) get(n *node, name string) ([]byte, error) {
	if n.attr.Xattrs == 0 {
		return nil, syscall.ENODATA
	}
	if n.frozen {
		return x.v.views.snapshotXattr(n, name)
	}
	b, err := x.v.db.Get(meta.XattrKey(n.ino, name))
	if meta.IsNotFound(err) {
		return nil, syscall.ENODATA
	}
	return b, err
}

// ListXattrs returns the names of all extended attributes, sorted.
func (v *Volume) ListXattrs(ino meta.Ino) ([]string, error) {
	n, err := v.get(ino)
	if err != nil {
		return nil, err
	}
	defer n.release()
	n.mu.Lock()
	defer n.mu.Unlock()
	return v.xattrs.names(n)
}

func (x *xattrs) names(n *node) ([]string, error) {
	if n.attr.Xattrs == 0 {
		return nil, nil
	}
	var names []string
	if n.frozen {
		set, err := x.v.views.snapshotXattrs(n)
		for _, x := range set {
			if !givesPrivileges(n.attr.Mode, x.Name) {
				names = append(names, x.Name)
			}
		}
		return names, err
	}
	err := x.v.db.ScanPrefix(meta.XattrPrefix(n.ino), func(key, _ []byte) error {
		name, err := meta.KeyTail(key)
		names = append(names, name)
		return err
	})
	return names, err
}

// SetXattr sets an extended attribute. flags is 0, XATTR_CREATE (EEXIST when
// there is one) or XATTR_REPLACE (ENODATA when there is none). Setting an
// access ACL changes the mode as acl(5) says; dropSGID then clears the sgid
// bit, because the caller is not in the file's group.
func (v *Volume) SetXattr(ino meta.Ino, name string, value []byte, flags uint32, dropSGID bool) error {
	switch {
	case name == "" || len(name) > maxXattrName:
		return syscall.ERANGE
	case len(value) > maxXattrValue:
		return syscall.E2BIG
	case flags&^(unix.XATTR_CREATE|unix.XATTR_REPLACE) != 0:
		return syscall.EINVAL
	}
	if err := checkXattrName(name); err != nil {
		return err
	}
	if name == StoreXattr || virtualXattrOf(name) != nil {
		return syscall.EPERM
	}
	// Asked before the lock is taken: waiting for space needs commits.
	if err := v.reaper.admit(int64(len(value))); err != nil {
		return err
	}
	return v.editIn(v.store.Change, ino, func(n *node) error {
		_, err := v.xattrs.get(n, name)
		switch {
		case err != nil && err != syscall.ENODATA:
			return err
		case err == nil && flags&unix.XATTR_CREATE != 0:
			return syscall.EEXIST
		case err != nil && flags&unix.XATTR_REPLACE != 0:
			return syscall.ENODATA
		}
		return v.xattrs.put(n, name, value, dropSGID)
	})
}

func (x *xattrs) put(n *node, name string, value []byte, dropSGID bool) error {
	if name == aclAccess {
		keep, err := x.setAccessACL(n, value, dropSGID)
		if err != nil || !keep {
			return err
		}
	}
	if name == aclDefault {
		if !n.isDir() {
			return syscall.EACCES
		}
		// An empty default ACL is none.
		if acl, err := parseACL(value); err != nil || len(acl) == 0 {
			if err != nil {
				return err
			}
			return x.drop(n, name)
		}
	}
	if err := x.roomFor(n, name); err != nil {
		return err
	}
	x.store(n, name, value)
	n.attr.Ctime = x.v.Now()
	return nil
}

// roomFor keeps the list of names within what listxattr can return.
func (x *xattrs) roomFor(n *node, name string) error {
	names, err := x.names(n)
	if err != nil || slices.Contains(names, name) {
		return err
	}
	size := len(name) + 1
	for _, other := range names {
		size += len(other) + 1
	}
	if size > maxXattrList {
		return syscall.ENOSPC
	}
	return nil
}

func (x *xattrs) store(n *node, name string, value []byte) {
	key := meta.XattrKey(n.ino, name)
	if n.attr.Xattrs == 0 {
		// Nothing to be looked up for the first one, which most files with any have.
		n.attr.Xattrs = 1
	} else if _, err := x.v.db.Get(key); err != nil {
		n.attr.Xattrs++
	}
	x.v.db.Set(key, append(make([]byte, 0, len(value)), value...))
	x.v.flusher.markChanged(n)
}

// RemoveXattr removes an extended attribute. ENODATA: there is none of that
// name; for an ACL that is no error.
func (v *Volume) RemoveXattr(ino meta.Ino, name string) error {
	if err := checkXattrName(name); err != nil {
		return err
	}
	return v.editIn(v.store.Removal, ino, func(n *node) error {
		_, err := v.xattrs.get(n, name)
		// As on other filesystems: setfacl -b removes ACLs whether or not there are any.
		if err == syscall.ENODATA && (name == aclAccess || name == aclDefault) {
			return nil
		}
		if err != nil {
			return err
		}
		n.attr.Ctime = v.Now()
		return v.xattrs.drop(n, name)
	})
}

// drop removes an attribute if there is one. n.mu is held, inside Update.
func (x *xattrs) drop(n *node, name string) error {
	_, err := x.get(n, name)
	if err == syscall.ENODATA {
		return nil
	}
	if err != nil {
		return err
	}
	x.v.db.Delete(meta.XattrKey(n.ino, name))
	n.attr.Xattrs--
	x.v.flusher.markChanged(n)
	return nil
}

func (x *xattrs) dropAll(n *node) error {
	names, err := x.names(n)
	for _, name := range names {
		x.v.db.Delete(meta.XattrKey(n.ino, name))
	}
	return err
}

// killPriv drops the file's capabilities and, with bits, its suid bit and the
// sgid bit of a file that its group may execute. n.mu is held, inside Update.
func (x *xattrs) killPriv(n *node, bits bool) error {
	if bits && n.attr.Mode&(syscall.S_ISUID|syscall.S_ISGID) != 0 {
		n.attr.Mode &^= syscall.S_ISUID
		if n.attr.Mode&groupExec != 0 {
			n.attr.Mode &^= syscall.S_ISGID
		}
		x.v.flusher.markChanged(n)
	}
	if n.attr.Xattrs == 0 {
		return nil
	}
	return x.drop(n, capabilityXattr)
}
