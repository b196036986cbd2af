package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

func linkCases() []testCase {
	return []testCase{
		{"links/count", linkCount},
		{"links/types", linkTypes},
		{"links/tmpfile", tmpfileLinks},
		{"links/unlinked", unlinkedLinks},
		{"links/many", manyLinks},
	}
}

func linkCount(r *execution) {
	f := r.file("f", "x", 0o644)
	r.mkdir("d", 0o755)
	for i := range 3 {
		r.note("link", unix.Link(f, r.p("d/"+itoa(i))))
		r.stat(fmt.Sprint("count ", i), "f")
	}
	// By another name than the one asked of later: attributes belong to the inode, and a server
	// that caches them by path would show old ones.
	must(unix.Truncate(r.p("d/1"), 100))
	r.stat("size by another name", "f")
	must(unix.Unlink(f))
	r.stat("unlinked", "d/2")
	r.content("content", "d/0")
	r.note("same", r.ino("d/0") == r.ino("d/2"))
}

func linkTypes(r *execution) {
	r.file("f", "x", 0o644)
	must(unix.Symlink("f", r.p("link")))
	must(unix.Symlink("nowhere", r.p("dangling")))
	must(unix.Mkfifo(r.p("fifo"), 0o600))
	must(unix.Mknod(r.p("chr"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
	must(unix.Mknod(r.p("blk"), unix.S_IFBLK|0o600, int(unix.Mkdev(300, 1000))))
	must(unix.Mknod(r.p("sock"), unix.S_IFSOCK|0o600, 0))
	r.mkdir("dir", 0o755)
	for _, t := range []string{"link", "dangling", "fifo", "chr", "blk", "sock", "dir"} {
		r.note(t, unix.Link(r.p(t), r.p(t+"2")))
		r.stat(t+" new", t+"2")
		// With the flag the link's target gets the name; without it the link itself.
		r.note(t+" follow", unix.Linkat(-100, r.p(t), -100, r.p(t+"3"), unix.AT_SYMLINK_FOLLOW))
		r.stat(t+" followed", t+"3")
		r.stat(t+" count", t)
	}
	r.stat("f count", "f")
}

func tmpfileLinks(r *execution) {
	fd, err := unix.Open(r.dir, unix.O_TMPFILE|unix.O_RDWR, 0o640)
	r.note("open", err)
	must(err)
	r.fstat("new", fd)
	try(unix.Write(fd, []byte("nameless")))
	// No directory may show it before it is linked.
	r.note("list", r.listing(""))
	// By proc, which needs no privilege; by the descriptor, which does. The file has no link until
	// one of them succeeds.
	r.note("linkat", unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, r.p("named"), unix.AT_SYMLINK_FOLLOW))
	r.stat("named", "named")
	r.content("content", "named")
	r.note("linkat empty path", unix.Linkat(fd, "", unix.AT_FDCWD, r.p("again"), unix.AT_EMPTY_PATH))
	r.fstat("twice", fd)
	// Back to no link at all, with the descriptor alone holding the inode.
	must(unix.Unlink(r.p("named")))
	must(unix.Unlink(r.p("again")))
	r.fstat("unlinked", fd)
	unix.Close(fd)
	// O_EXCL says that it will never get a name.
	fd = try(unix.Open(r.dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_EXCL, 0o640))
	r.note("exclusive linkat", unix.Linkat(fd, "", unix.AT_FDCWD, r.p("excl"), unix.AT_EMPTY_PATH))
	unix.Close(fd)
	// A nameless file that cannot be written is of no use, and refused.
	_, err = unix.Open(r.dir, unix.O_TMPFILE|unix.O_RDONLY, 0o640)
	r.note("read-only", err)
	r.file("f", "", 0o644)
	_, err = unix.Open(r.p("f"), unix.O_TMPFILE|unix.O_RDWR, 0o640)
	r.note("in a file", err)
	fd = try(unix.Open(r.dir, unix.O_TMPFILE|unix.O_RDWR, 0o640))
	r.note("over an existing name", unix.Linkat(fd, "", unix.AT_FDCWD, r.p("f"), unix.AT_EMPTY_PATH))
	must(unix.Ftruncate(fd, 1<<20))
	// An inode without a name is committed here, and must still be there to be linked.
	must(unix.Fsync(fd))
	r.fstat("grown", fd)
	r.note("linkat after fsync", unix.Linkat(fd, "", unix.AT_FDCWD, r.p("late"), unix.AT_EMPTY_PATH))
	unix.Close(fd)
	r.stat("late", "late")
}

func unlinkedLinks(r *execution) {
	fd := r.open("f", unix.O_CREAT|unix.O_RDWR)
	must(unix.Unlink(r.p("f")))
	// It had a name once: nothing may bring an inode back whose last one went.
	r.note("empty path", unix.Linkat(fd, "", unix.AT_FDCWD, r.p("g"), unix.AT_EMPTY_PATH))
	r.note("by proc", unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, r.p("g"), unix.AT_SYMLINK_FOLLOW))
	r.stat("g", "g")
}

func manyLinks(r *execution) {
	f := r.file("f", "x", 0o644)
	// Far below ext4's limit of 65,000, or the reference would refuse.
	for i := range 1000 {
		must(unix.Link(f, r.p("l"+itoa(i))))
	}
	r.stat("thousand", "f")
	for i := range 1000 {
		must(unix.Unlink(r.p("l" + itoa(i))))
	}
	r.stat("one", "f")
}
