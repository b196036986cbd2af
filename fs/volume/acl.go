package volume

import (
	"encoding/binary"
	"syscall"
)

// POSIX ACLs, as acl(5) describes them, in the kernel's encoding: a version
// word and then 8 bytes an entry (tag, permissions, ID), all little-endian.
const (
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"
	aclVersion = 2

	aclUserObj  = 0x01
	aclUser     = 0x02
	aclGroupObj = 0x04
	aclGroup    = 0x08
	aclMask     = 0x10
	aclOther    = 0x20
)

type aclEntry struct {
	tag, perm uint16
	id        uint32
}

func parseACL(b []byte) ([]aclEntry, error) {
	if len(b) < 4 || (len(b)-4)%8 != 0 || binary.LittleEndian.Uint32(b) != aclVersion {
		return nil, syscall.EINVAL
	}
	var acl []aclEntry
	for b = b[4:]; len(b) > 0; b = b[8:] {
		acl = append(acl, aclEntry{
			binary.LittleEndian.Uint16(b), binary.LittleEndian.Uint16(b[2:]), binary.LittleEndian.Uint32(b[4:]),
		})
	}
	return acl, nil
}

func encodeACL(acl []aclEntry) []byte {
	b := binary.LittleEndian.AppendUint32(make([]byte, 0, 4+8*len(acl)), aclVersion)
	for _, e := range acl {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}

func hasMask(acl []aclEntry) bool {
	for _, e := range acl {
		if e.tag == aclMask {
			return true
		}
	}
	return false
}

// modeOf returns the permission bits that an ACL stands for and whether they
// say all that it says.
func modeOf(acl []aclEntry) (mode uint32, minimal bool) {
	minimal = true
	mask := hasMask(acl)
	for _, e := range acl {
		switch e.tag {
		case aclUserObj:
			mode |= uint32(e.perm&7) << 6
		// acl(5): the group bits of a mode are the mask, where there is one, and not the owning
		// group.
		case aclGroupObj:
			if !mask {
				mode |= uint32(e.perm&7) << 3
			}
		case aclMask:
			mode |= uint32(e.perm&7) << 3
			minimal = false
		case aclOther:
			mode |= uint32(e.perm & 7)
		default:
			minimal = false
		}
	}
	return mode, minimal
}

// withMode returns the ACL with its owner, mask (or group) and other entries
// limited to mode's bits when limit is set, or replaced by them.
func withMode(acl []aclEntry, mode uint32, limit bool) []aclEntry {
	mask := hasMask(acl)
	out := make([]aclEntry, len(acl))
	for i, e := range acl {
		bits, ours := uint16(0), true
		switch {
		case e.tag == aclUserObj:
			bits = uint16(mode >> 6 & 7)
		case e.tag == aclMask, e.tag == aclGroupObj && !mask:
			bits = uint16(mode >> 3 & 7)
		case e.tag == aclOther:
			bits = uint16(mode & 7)
		default:
			ours = false
		}
		// A new file's mode only takes away; chmod replaces.
		if ours && limit {
			e.perm &= bits
		} else if ours {
			e.perm = bits
		}
		out[i] = e
	}
	return out
}

// setAccessACL takes the mode from an ACL that is being set and reports
// whether the ACL says more than the mode, and so has to be kept.
func (x *xattrs) setAccessACL(n *node, value []byte, dropSGID bool) (keep bool, err error) {
	acl, err := parseACL(value)
	if err != nil {
		return false, err
	}
	if len(acl) == 0 {
		return false, x.drop(n, aclAccess)
	}
	// What the mode says in full is not kept twice: chmod alone would have to change both.
	mode, minimal := modeOf(acl)
	n.attr.Mode = n.attr.Mode&^0o777 | mode
	if dropSGID {
		n.attr.Mode &^= syscall.S_ISGID
	}
	n.attr.Ctime = x.v.Now()
	x.v.flusher.markChanged(n)
	if minimal {
		return false, x.drop(n, aclAccess)
	}
	return true, nil
}

// acl reads an ACL. ENODATA: there is none.
func (x *xattrs) acl(n *node, name string) ([]aclEntry, error) {
	b, err := x.get(n, name)
	if err != nil {
		return nil, err
	}
	return parseACL(b)
}

// chmodACL keeps an access ACL in step with a new mode.
func (x *xattrs) chmodACL(n *node) error {
	acl, err := x.acl(n, aclAccess)
	if err == syscall.ENODATA {
		return nil
	}
	if err != nil {
		return err
	}
	x.store(n, aclAccess, encodeACL(withMode(acl, n.attr.Mode, false)))
	return nil
}

// inherit gives a new inode its mode: from the directory's default ACL when
// there is one, else by the umask.
func (x *xattrs) inherit(dir, n *node, umask uint32) error {
	if n.attr.Mode&syscall.S_IFMT == syscall.S_IFLNK {
		return nil
	}
	// With a default ACL the umask does not count: that ACL is the mask.
	acl, err := x.acl(dir, aclDefault)
	if err == syscall.ENODATA {
		n.attr.Mode &^= umask & 0o777
		return nil
	}
	if err != nil {
		return err
	}
	access := withMode(acl, n.attr.Mode, true)
	mode, minimal := modeOf(access)
	n.attr.Mode = n.attr.Mode&^0o777 | mode
	if !minimal {
		x.store(n, aclAccess, encodeACL(access))
	}
	if n.isDir() {
		x.store(n, aclDefault, encodeACL(acl))
	}
	return nil
}
