package main

import (
	"bytes"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

func xattrCases() []testCase {
	return []testCase{
		{"xattr/flags", xattrFlags},
		{"xattr/limits", xattrLimits},
		{"xattr/namespaces", xattrNamespaces},
		{"xattr/types", xattrTypes},
		{"xattr/rights", xattrRights},
	}
}

// names lists a file's extended attributes, sorted.
func (r *execution) names(name string) string {
	b := make([]byte, 65536)
	n, err := unix.Llistxattr(r.p(name), b)
	if err != nil {
		return errno(err)
	}
	list := strings.Split(strings.TrimSuffix(string(b[:n]), "\x00"), "\x00")
	// Any order is right.
	slices.Sort(list)
	return strings.Join(list, " ")
}

func (r *execution) value(label, name, attr string) {
	b := make([]byte, 70000)
	n, err := unix.Lgetxattr(r.p(name), attr, b)
	if err != nil {
		r.note(label, err)
		return
	}
	r.note(label, summary(b[:n]))
}

func xattrFlags(r *execution) {
	f := r.file("f", "x", 0o644)
	r.note("empty list", r.names("f"))
	r.note("replace none", unix.Setxattr(f, "user.a", []byte("1"), unix.XATTR_REPLACE))
	r.note("create", unix.Setxattr(f, "user.a", []byte("1"), unix.XATTR_CREATE))
	r.note("create again", unix.Setxattr(f, "user.a", []byte("2"), unix.XATTR_CREATE))
	r.value("a", "f", "user.a")
	r.note("replace", unix.Setxattr(f, "user.a", []byte("333"), unix.XATTR_REPLACE))
	r.value("a replaced", "f", "user.a")
	// Together they can never succeed: the kernel lets them through, and ENODATA or EEXIST comes of
	// it.
	r.note("both flags", unix.Setxattr(f, "user.a", []byte("4"), unix.XATTR_REPLACE|unix.XATTR_CREATE))
	r.note("unknown flag", unix.Setxattr(f, "user.a", []byte("4"), 8))
	r.note("empty value", unix.Setxattr(f, "user.e", nil, 0))
	r.value("empty", "f", "user.e")
	r.note("binary", unix.Setxattr(f, "user.\xff\x01é", []byte("\x00\xff\n\x00"), 0))
	r.value("binary value", "f", "user.\xff\x01é")
	// A buffer of none asks for the size; one that is too short is ERANGE and never a part of the
	// value.
	n, err := unix.Getxattr(f, "user.a", nil)
	r.note("size", n, err)
	n, err = unix.Getxattr(f, "user.a", make([]byte, 2))
	r.note("short buffer", n, err)
	n, err = unix.Listxattr(f, nil)
	r.note("list size", n, err)
	n, err = unix.Listxattr(f, make([]byte, 5))
	r.note("short list", n, err)
	r.note("list", r.names("f"))
	r.note("remove", unix.Removexattr(f, "user.a"))
	r.note("remove again", unix.Removexattr(f, "user.a"))
	r.value("gone", "f", "user.a")
	r.note("list after", r.names("f"))
	fd := r.open("f", unix.O_RDONLY)
	r.note("by descriptor", unix.Fsetxattr(fd, "user.fd", []byte("x"), 0), unix.Fremovexattr(fd, "user.e"))
	// By a descriptor they can still be changed without a name.
	must(unix.Unlink(f))
	r.note("unlinked", unix.Fsetxattr(fd, "user.fd", []byte("yy"), 0))
	n, err = unix.Fgetxattr(fd, "user.fd", make([]byte, 10))
	r.note("unlinked read", n, err)
}

func xattrLimits(r *execution) {
	f := r.file("f", "x", 0o644)
	long := "user." + strings.Repeat("n", 250)
	// 255 with the prefix, whatever is behind it.
	r.note("name of 255", unix.Setxattr(f, long, []byte("v"), 0))
	r.value("name of 255 value", "f", long)
	r.note("name of 256", unix.Setxattr(f, long+"n", []byte("v"), 0))
	_, err := unix.Getxattr(f, long+"n", nil)
	r.note("get name of 256", err)
	r.note("empty name", unix.Setxattr(f, "", []byte("v"), 0))
	r.note("prefix only", unix.Setxattr(f, "user.", []byte("v"), 0))
	// 65,536 is the kernel's limit. Ext4's is a block, so the greatest that both take is below
	// 4,096.
	for _, n := range []int{1000, 3000, 65536, 65537} {
		p := r.file("v", "x", 0o644)
		err := unix.Setxattr(p, "user.v", bytes.Repeat([]byte{7}, n), 0)
		r.note("value of "+itoa(n), err)
		if err == nil {
			r.value("value of "+itoa(n)+" back", "v", "user.v")
		}
		must(unix.Unlink(p))
	}
	p := r.file("many", "x", 0o644)
	for i := range 40 {
		must(unix.Setxattr(p, "user.many"+itoa(i), []byte(itoa(i)), 0))
	}
	r.note("many", r.names("many"))
	for i := range 40 {
		must(unix.Removexattr(p, "user.many"+itoa(i)))
	}
	r.note("none", r.names("many"))
}

func xattrNamespaces(r *execution) {
	f := r.file("f", "x", 0o644)
	// Each prefix is somebody's: users', root's, the security modules', the ACLs', and nobody's.
	for _, name := range []string{"user.x", "trusted.x", "security.x", "system.x", "system.posix_acl_foo", "nothing.x", "x", "os2.x", "btrfs.x", ".x"} {
		r.note("set "+name, unix.Setxattr(f, name, []byte("v"), 0))
		r.value("get "+name, "f", name)
		r.note("remove "+name, unix.Removexattr(f, name))
	}
	must(unix.Setxattr(f, "trusted.x", []byte("v"), 0))
	must(unix.Setxattr(f, "security.x", []byte("v"), 0))
	must(unix.Setxattr(f, "user.x", []byte("v"), 0))
	// Names that a user may not read are left out of her list.
	r.note("list by root", r.names("f"))
	r.as(alice, func() {
		r.note("list by alice", r.names("f"))
		r.value("trusted by alice", "f", "trusted.x")
		r.value("security by alice", "f", "security.x")
		r.note("set trusted by alice", unix.Setxattr(f, "trusted.x", []byte("v"), 0))
		r.note("set security by alice", unix.Setxattr(f, "security.x", []byte("v"), 0))
		r.note("remove trusted by alice", unix.Removexattr(f, "trusted.x"))
	})
}

func xattrTypes(r *execution) {
	r.mkdir("dir", 0o755)
	must(unix.Symlink("nowhere", r.p("link")))
	must(unix.Mkfifo(r.p("fifo"), 0o666))
	must(unix.Mknod(r.p("chr"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(unix.Mknod(r.p("sock"), unix.S_IFSOCK|0o666, 0))
	for _, t := range []string{"dir", "link", "fifo", "chr", "sock"} {
		// user. is only for files and directories: the mode of the others does not say who may
		// store bytes with them.
		for _, ns := range []string{"user.", "trusted.", "security."} {
			r.note(t+" "+ns, unix.Lsetxattr(r.p(t), ns+"a", []byte("v"), 0))
			r.value(t+" "+ns+" back", t, ns+"a")
		}
		r.note(t+" list", r.names(t))
	}
}

func xattrRights(r *execution) {
	f := r.file("f", "x", 0o644)
	must(unix.Setxattr(f, "user.a", []byte("v"), 0))
	s := r.mkdir("s", 0o1777)
	r.file("private", "x", 0o600)
	r.as(alice, func() {
		r.note("set on another's", unix.Setxattr(f, "user.b", []byte("v"), 0))
		r.note("remove from another's", unix.Removexattr(f, "user.a"))
		r.value("get another's", "f", "user.a")
		// To write in a sticky directory is not to own it; attributes of the user's need the
		// latter.
		r.note("sticky directory", unix.Setxattr(s, "user.a", []byte("v"), 0))
		r.value("unreadable", "private", "user.a")
		r.note("unreadable list", r.names("private"))
	})
}
