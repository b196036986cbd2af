package main

import (
	"encoding/binary"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"
)

type ace struct {
	tag, perm uint16
	id        uint32
}

func uo(p uint16) ace         { return ace{1, p, 1<<32 - 1} }
func us(id int, p uint16) ace { return ace{2, p, uint32(id)} }
func g(p uint16) ace          { return ace{4, p, 1<<32 - 1} }
func gr(id int, p uint16) ace { return ace{8, p, uint32(id)} }
func mask(p uint16) ace       { return ace{16, p, 1<<32 - 1} }
func oth(p uint16) ace        { return ace{32, p, 1<<32 - 1} }

func acl(entries ...ace) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range entries {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}

func (r *execution) acl(label, name, which string) {
	b := make([]byte, 1024)
	n, err := unix.Lgetxattr(r.p(name), which, b)
	if err != nil {
		r.note(label, err)
		return
	}
	// The text form of setfacl, written here: the machine that runs the cases may have no acl
	// package.
	names := map[uint16]string{1: "u", 2: "u", 4: "g", 8: "g", 16: "m", 32: "o"}
	var parts []string
	for b = b[4:n]; len(b) >= 8; b = b[8:] {
		id := ""
		// The owner, the group, the mask and the others have no ID; the kernel stores all ones for
		// them.
		if x := binary.LittleEndian.Uint32(b[4:]); x != 1<<32-1 {
			id = fmt.Sprint(x)
		}
		parts = append(parts, fmt.Sprintf("%s:%s:%o", names[binary.LittleEndian.Uint16(b)], id, binary.LittleEndian.Uint16(b[2:])))
	}
	r.note(label, strings.Join(parts, ","))
}

func (r *execution) both(label, name string) {
	r.stat(label+" stat", name)
	r.acl(label+" access", name, aclAccess)
	r.acl(label+" default", name, aclDefault)
}

func aclCases() []testCase {
	return []testCase{
		{"acl/access", accessACL},
		{"acl/chmod", chmodACL},
		{"acl/default", defaultACL},
		{"acl/check", checkACL},
		{"acl/invalid", invalidACL},
		{"acl/rights", aclRights},
		{"acl/keep", keepACL},
		{"acl/many", manyACL},
	}
}

func accessACL(r *execution) {
	f := r.file("f", "x", 0o640)
	r.both("none", "f")
	r.note("set", unix.Setxattr(f, aclAccess, acl(uo(6), us(5001, 6), g(4), mask(6), oth(0)), 0))
	r.both("set", "f")
	// Three entries say no more than a mode does: ext4 then stores the mode alone, and the listing
	// must not show an ACL either.
	r.note("minimal", unix.Setxattr(f, aclAccess, acl(uo(7), g(5), oth(1)), 0))
	r.both("minimal", "f")
	// A mask without named entries is kept, and is what stat shows as the group's rights.
	r.note("mask only", unix.Setxattr(f, aclAccess, acl(uo(7), g(5), mask(1), oth(1)), 0))
	r.both("mask only", "f")
	r.note("remove", unix.Removexattr(f, aclAccess))
	r.both("removed", "f")
	r.note("remove again", unix.Removexattr(f, aclAccess))
	// The mode counts as an ACL for neither flag: create must succeed once, and replace needs one
	// that was set.
	r.note("create flag", unix.Setxattr(f, aclAccess, acl(uo(6), us(5001, 6), g(4), mask(6), oth(0)), unix.XATTR_CREATE))
	r.note("create flag again", unix.Setxattr(f, aclAccess, acl(uo(6), us(5001, 6), g(4), mask(6), oth(0)), unix.XATTR_CREATE))
	r.note("replace flag", unix.Setxattr(f, aclAccess, acl(uo(6), us(5002, 6), g(4), mask(6), oth(0)), unix.XATTR_REPLACE))
	r.both("flags", "f")
	// No value at all removes the ACL; a header without entries is another request, with an outcome
	// of its own.
	r.note("empty value", unix.Setxattr(f, aclAccess, nil, 0))
	r.both("empty", "f")
	r.note("header only", unix.Setxattr(f, aclAccess, acl(), 0))
	r.both("header", "f")
	d := r.mkdir("d", 0o750)
	r.note("dir", unix.Setxattr(d, aclAccess, acl(uo(7), us(5001, 5), g(5), mask(5), oth(0)), 0))
	r.both("dir", "d")
	// An ACL cannot be set on a link, and by the link's name must not reach its target.
	must(unix.Symlink("f", r.p("l")))
	r.note("symlink", unix.Lsetxattr(r.p("l"), aclAccess, acl(uo(7), g(5), oth(1)), 0))
	r.note("list", r.names("d"))
}

func chmodACL(r *execution) {
	f := r.file("f", "x", 0o640)
	must(unix.Setxattr(f, aclAccess, acl(uo(6), us(5001, 7), g(4), gr(6003, 5), mask(7), oth(0)), 0))
	// The group's bits of chmod go to the mask, not to the group's entry, as long as there are
	// named entries.
	for _, m := range []uint32{0o600, 0o777, 0o6750, 0o1751, 0, 0o644} {
		r.note(fmt.Sprintf("chmod %o", m), unix.Chmod(f, m))
		r.both(fmt.Sprintf("chmod %o", m), "f")
	}
	must(unix.Setxattr(f, aclAccess, acl(uo(6), us(5001, 7), g(4), mask(5), oth(1)), 0))
	// A change of owner keeps the ACL, which names nobody by being the owner.
	must(unix.Chown(f, 5, 6))
	r.both("chown", "f")
	must(unix.Chmod(f, 0o2755))
	must(unix.Chown(f, alice.uid, 6003))
	// Twice: the chown between has cleared the bit.
	must(unix.Chmod(f, 0o2755))
	// Setting an ACL sets the mode, so that it clears the sgid bit for whom chmod would clear it.
	r.as(alice, func() {
		r.note("set by an owner outside the group", unix.Setxattr(f, aclAccess, acl(uo(7), us(5001, 7), g(5), mask(7), oth(5)), 0))
	})
	r.both("sgid", "f")
}

func defaultACL(r *execution) {
	// The umask is the process's: the cases after this one rely on none.
	defer unix.Umask(0)
	d := r.mkdir("d", 0o777)
	r.note("set", unix.Setxattr(d, aclDefault, acl(uo(7), us(5001, 7), g(5), gr(6003, 6), mask(6), oth(4)), 0))
	r.both("parent", "d")
	// Not as root, who is asked for nothing: alice gets into d by its mode.
	r.as(alice, func() { r.populate("d", "full") })
	e := r.mkdir("e", 0o777)
	must(unix.Setxattr(e, aclDefault, acl(uo(7), g(5), oth(4)), 0))
	// A default ACL takes the umask's place. With it gone the umask counts again.
	unix.Umask(0o077)
	r.populate("e", "minimal")
	must(unix.Removexattr(e, aclDefault))
	r.both("default gone", "e")
	r.populate("e", "umask")
	unix.Umask(0)
	// Sgid beside a default: the group comes from the one, the rights from the other.
	s := r.mkdir("s", 0o2777)
	must(unix.Setxattr(s, aclDefault, acl(uo(7), g(7), mask(5), oth(0)), 0))
	r.populate("s", "setgid")
	r.note("default on a file", unix.Setxattr(r.file("f", "", 0o644), aclDefault, acl(uo(7), g(5), oth(4)), 0))
	r.note("remove default of a file", unix.Removexattr(r.p("f"), aclDefault))
	r.note("remove default of none", unix.Removexattr(e, aclDefault))
}

func (r *execution) populate(dir, tag string) {
	for _, mode := range []uint32{0o666, 0o777, 0o600, 0} {
		name := fmt.Sprintf("%s/%s-%o", dir, tag, mode)
		fd := try(unix.Open(r.p(name), unix.O_CREAT|unix.O_WRONLY, mode))
		unix.Close(fd)
		r.both(name, name)
		must(unix.Mkdir(r.p(name+"d"), mode))
		r.both(name+"d", name+"d")
		must(unix.Mkfifo(r.p(name+"p"), mode))
		r.both(name+"p", name+"p")
		// A nameless file inherits as well, since it can get a name later.
		fd = try(unix.Open(r.p(dir), unix.O_TMPFILE|unix.O_RDWR, mode))
		r.fstat(name+" tmpfile", fd)
		_, err := unix.Fgetxattr(fd, aclAccess, make([]byte, 100))
		r.note(name+" tmpfile acl", err)
		unix.Close(fd)
	}
	// A link's mode is 0777 whatever its directory says.
	must(unix.Symlink("x", r.p(dir+"/"+tag+"link")))
	r.stat(tag+" link", dir+"/"+tag+"link")
}

func checkACL(r *execution) {
	// Opened and not only asked by access(2), as the kernel may decide the two in different places.
	open := func(name string, flags int) error {
		fd, err := unix.Open(r.p(name), flags, 0)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}
	f := r.file("f", "x", 0o600)
	// Three users: one with an entry of her own, one with none, one by her second group.
	probe := func(label string) {
		for who, id := range inOrder(map[string]identity{"alice": alice, "bob": bob, "carol": carol}) {
			r.as(id, func() {
				r.note(label+" "+who, open("f", unix.O_RDONLY), open("f", unix.O_WRONLY), unix.Access(f, unix.X_OK))
			})
		}
	}
	probe("plain")
	must(unix.Setxattr(f, aclAccess, acl(uo(6), us(5001, 6), g(0), gr(6003, 4), mask(7), oth(0)), 0))
	probe("named")
	// The mask cuts named users and groups, but not the others, who get more than those here.
	must(unix.Setxattr(f, aclAccess, acl(uo(6), us(5001, 6), g(0), gr(6003, 4), mask(2), oth(7)), 0))
	probe("masked")
	// An entry that gives nothing still decides: its user must not fall through to the others'
	// rights.
	must(unix.Setxattr(f, aclAccess, acl(uo(6), us(5001, 0), g(0), gr(6003, 0), mask(7), oth(7)), 0))
	probe("denied")
	// Chmod to no group rights empties the mask, and so closes every named entry.
	must(unix.Chmod(f, 0o606))
	probe("chmod")
	must(unix.Removexattr(f, aclAccess))
	probe("removed")
	// Write and search without read: bob may make names and not list them.
	d := r.mkdir("d", 0o700)
	must(unix.Setxattr(d, aclAccess, acl(uo(7), us(5002, 3), g(0), mask(7), oth(0)), 0))
	r.as(bob, func() {
		r.note("create by ACL", unix.Mkdir(r.p("d/x"), 0o755))
		_, err := unix.Open(r.p("d"), unix.O_RDONLY, 0)
		r.note("list by ACL", err)
	})
	r.as(alice, func() { r.note("create without", unix.Mkdir(r.p("d/y"), 0o755)) })
}

func invalidACL(r *execution) {
	f := r.p("f")
	// Each value has one fault. The kernel checks few of them before it asks FUSE, so that the
	// filesystem has to.
	for label, v := range inOrder(map[string][]byte{
		"short": {2, 0}, "version": {1, 0, 0, 0}, "ragged": append(acl(uo(7), g(5), oth(4)), 0),
		"no mask":     acl(uo(7), us(1, 7), g(5), oth(4)),
		"no owner":    acl(g(5), oth(4)),
		"no other":    acl(uo(5), g(5)),
		"twice":       acl(uo(5), uo(5), g(5), oth(4)),
		"order":       acl(oth(5), g(5), uo(4)),
		"permissions": acl(uo(15), g(5), oth(4)),
		"tag":         acl(uo(5), g(5), ace{64, 1, 0}, oth(4)),
		"same user":   acl(uo(7), us(1, 7), us(1, 6), g(5), mask(7), oth(4)),
		"user order":  acl(uo(7), us(2, 7), us(1, 6), g(5), mask(7), oth(4)),
		"undefined":   acl(uo(7), ace{2, 7, 1<<32 - 1}, g(5), mask(7), oth(4)),
	}) {
		// A new file for each, so that an ACL wrongly accepted does not change what the next is
		// compared with.
		r.file("f", "x", 0o640)
		r.note(label, unix.Setxattr(f, aclAccess, v, 0))
		r.both(label, "f")
		must(unix.Unlink(f))
	}
}

func aclRights(r *execution) {
	f := r.file("f", "x", 0o666)
	must(unix.Chown(f, alice.uid, alice.gid))
	r.as(bob, func() {
		r.note("another's", unix.Setxattr(f, aclAccess, acl(uo(7), g(5), oth(4)), 0))
		r.note("remove another's", unix.Removexattr(f, aclAccess))
		_, err := unix.Getxattr(f, aclAccess, make([]byte, 100))
		r.note("read another's", err)
	})
	r.as(alice, func() { r.note("own", unix.Setxattr(f, aclAccess, acl(uo(7), us(9, 1), g(5), mask(7), oth(4)), 0)) })
	r.both("own", "f")
}

func keepACL(r *execution) {
	f := r.file("f", "x", 0o640)
	r.mkdir("d", 0o755)
	must(unix.Setxattr(f, aclAccess, acl(uo(6), us(5001, 6), g(4), mask(6), oth(0)), 0))
	must(unix.Link(f, r.p("d/l")))
	r.both("link", "d/l")
	must(unix.Rename(f, r.p("d/f")))
	r.both("rename", "d/f")
	must(unix.Truncate(r.p("d/f"), 0))
	r.both("truncate", "d/f")
	must(unix.Setxattr(r.p("d"), aclDefault, acl(uo(7), us(5001, 7), g(7), mask(7), oth(7)), 0))
	r.file("moved", "x", 0o600)
	must(unix.Rename(r.p("moved"), r.p("d/moved")))
	r.both("moved below a default", "d/moved")
}

func manyACL(r *execution) {
	f := r.file("f", "x", 0o600)
	entries := []ace{uo(7)}
	for i := range 100 {
		entries = append(entries, us(10000+i, uint16(i%8)))
	}
	entries = append(entries, g(5), mask(7), oth(0))
	r.note("100 users", unix.Setxattr(f, aclAccess, acl(entries...), 0))
	r.both("100 users", "f")
}
