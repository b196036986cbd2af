package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

func renameCases() []testCase {
	return []testCase{
		{"rename/matrix", renameMatrix},
		{"rename/tree", renameTree},
		{"rename/same", renameSame},
		{"rename/parents", renameParents},
		{"rename/open", renameOpen},
		{"rename/flags", renameFlags},
		{"rename/times", renameTimes},
		{"rename/whiteout", renameWhiteout},
		{"rename/removed", renameRemoved},
	}
}

var kinds = []string{"none", "file", "empty", "full", "link", "fifo"}

func (r *execution) kind(name, kind string) {
	switch kind {
	case "file":
		r.file(name, "x", 0o644)
	case "empty":
		r.mkdir(name, 0o755)
	case "full":
		r.mkdir(name, 0o755)
		r.file(name+"/in", "x", 0o644)
	case "link":
		must(unix.Symlink("x", r.p(name)))
	case "fifo":
		must(unix.Mkfifo(r.p(name), 0o600))
	}
}

func renameMatrix(r *execution) {
	i := 0
	for flagName, flags := range inOrder(map[string]uint{"plain": 0, "noreplace": unix.RENAME_NOREPLACE, "exchange": unix.RENAME_EXCHANGE}) {
		for _, a := range kinds {
			for _, b := range kinds {
				// Within a directory and into another: links to the parent count only for the
				// second.
				for _, across := range []bool{false, true} {
					i++
					// A directory for each of the 216, so that none inherits what another left.
					r.mkdir(fmt.Sprint(i), 0o755)
					d := fmt.Sprintf("%d/", i)
					r.mkdir(d+"1", 0o755)
					r.mkdir(d+"2", 0o755)
					to := d + "1/b"
					if across {
						to = d + "2/b"
					}
					r.kind(d+"1/a", a)
					r.kind(to, b)
					label := fmt.Sprintf("%s %s to %s across %v", flagName, a, b, across)
					r.note(label, unix.Renameat2(unix.AT_FDCWD, r.p(d+"1/a"), unix.AT_FDCWD, r.p(to), flags))
					r.stat(label+" a", d+"1/a")
					r.stat(label+" b", to)
					r.stat(label+" 1", d+"1")
					r.stat(label+" 2", d+"2")
				}
			}
		}
	}
}

func renameTree(r *execution) {
	r.mkdir("a", 0o755)
	r.mkdir("a/b", 0o755)
	r.mkdir("a/b/c", 0o755)
	r.mkdir("x", 0o755)
	mv := func(from, to string, flags uint) {
		r.note(fmt.Sprintf("%s to %s %d", from, to, flags), unix.Renameat2(unix.AT_FDCWD, r.p(from), unix.AT_FDCWD, r.p(to), flags))
	}
	for _, flags := range []uint{0, unix.RENAME_EXCHANGE, unix.RENAME_NOREPLACE} {
		// Into itself at each depth, and onto an ancestor: neither may cut a loop off the tree.
		mv("a", "a/new", flags)
		mv("a", "a/b", flags)
		mv("a", "a/b/c", flags)
		mv("a", "a/b/c/d", flags)
		mv("a/b/c", "a", flags)
		mv("a/b", "a", flags)
		mv("a", "a", flags)
	}
	// A real move between, so that the checks that follow must go by the new parents and not by
	// those looked up before.
	mv("a/b", "x/b", 0)
	r.note("parent", r.ino("x/b/..") == r.ino("x"), r.listing("a"), r.listing("x"))
	mv("x", "x/b/c/x", 0)
	mv("x/b", "a", 0)
	mv("x", "a/b", 0)
	r.note("end", r.listing(""), r.listing("a"))
}

func renameSame(r *execution) {
	f := r.file("f", "x", 0o644)
	must(unix.Link(f, r.p("g")))
	// POSIX: nothing happens, both names stay.
	r.note("two names of one file", unix.Rename(f, r.p("g")), r.listing(""))
	r.stat("f", "f")
	r.note("noreplace", unix.Renameat2(-100, f, -100, r.p("g"), unix.RENAME_NOREPLACE))
	r.note("exchange", unix.Renameat2(-100, f, -100, r.p("g"), unix.RENAME_EXCHANGE), r.listing(""))
	r.mkdir("d", 0o755)
	r.note("to itself", unix.Rename(f, f), unix.Rename(r.p("d"), r.p("d")))
	r.note("noreplace to itself", unix.Renameat2(-100, f, -100, f, unix.RENAME_NOREPLACE))
	must(unix.Link(f, r.p("d/h")))
	r.note("across", unix.Rename(f, r.p("d/h")), r.listing(""), r.listing("d"))
	r.stat("end", "d/h")
}

func renameParents(r *execution) {
	for _, d := range []string{"a", "b", "a/d", "b/e", "a/x"} {
		r.mkdir(d, 0o755)
	}
	r.file("b/f", "", 0o644)
	// A directory's count of links is two and one for each directory in it: each step changes it
	// for one or both parents.
	show := func(label string) {
		r.stat(label+" a", "a")
		r.stat(label+" b", "b")
	}
	show("start")
	r.note("move", unix.Rename(r.p("a/d"), r.p("b/d")))
	show("moved")
	r.note("over", unix.Rename(r.p("b/d"), r.p("a/x")))
	show("over")
	r.note("exchange dirs", unix.Renameat2(-100, r.p("a/x"), -100, r.p("b/e"), unix.RENAME_EXCHANGE))
	show("exchanged dirs")
	// The count moves with the directory although as many names as before are in both.
	r.note("exchange file and dir", unix.Renameat2(-100, r.p("a/x"), -100, r.p("b/f"), unix.RENAME_EXCHANGE))
	show("exchanged file and dir")
	r.note("dotdot", r.ino("b/f/..") == r.ino("b"), r.ino("b/e/..") == r.ino("b"))
	r.note("rmdir", unix.Rmdir(r.p("b/f")))
	show("removed")
}

func renameOpen(r *execution) {
	r.file("old", "old", 0o644)
	r.file("new", "new", 0o644)
	fd := r.open("old", unix.O_RDWR)
	// The file that is replaced has lost its name and is still open.
	must(unix.Rename(r.p("new"), r.p("old")))
	b := make([]byte, 10)
	n, err := unix.Pread(fd, b, 0)
	r.note("replaced file", string(b[:n]), err)
	r.fstat("replaced stat", fd)
	try(unix.Pwrite(fd, []byte("still"), 0))
	r.content("other is untouched", "old")
	r.mkdir("d", 0o755)
	r.mkdir("e", 0o755)
	// A directory that was replaced is empty and takes nothing any more.
	dfd := r.open("e", unix.O_RDONLY)
	must(unix.Rename(r.p("d"), r.p("e")))
	r.note("make in a replaced directory", unix.Mkdirat(dfd, "x", 0o755))
	r.fstat("replaced directory", dfd)
	r.note("list", r.listing(""))
}

func renameFlags(r *execution) {
	f := r.file("f", "x", 0o644)
	r.file("g", "y", 0o644)
	// Pairs that exclude each other, and bits that mean nothing.
	for _, flags := range []uint{3, 5, 6, 8, 1 << 20} {
		r.note(fmt.Sprint("flags ", flags), unix.Renameat2(-100, f, -100, r.p("g"), flags))
	}
	r.note("missing", unix.Rename(r.p("no"), r.p("g")))
	r.note("missing exchange", unix.Renameat2(-100, r.p("no"), -100, r.p("g"), unix.RENAME_EXCHANGE))
	r.note("exchange with missing", unix.Renameat2(-100, f, -100, r.p("no"), unix.RENAME_EXCHANGE))
	r.note("below a file", unix.Rename(f, r.p("g/x")))
	r.note("below nothing", unix.Rename(f, r.p("no/x")))
	// To other filesystems, one of which takes no names at all.
	r.note("elsewhere", unix.Rename(f, "/proc/x"), unix.Link(f, "/dev/shm/x"))
}

func renameTimes(r *execution) {
	r.mkdir("a", 0o755)
	r.mkdir("b", 0o755)
	r.mkdir("c", 0o755)
	r.file("a/f", "x", 0o644)
	r.file("b/g", "x", 0o644)
	// A second name, so that the file that is replaced can still be asked for its ctime.
	must(unix.Link(r.p("b/g"), r.p("c/g")))
	w := r.watch("a", "b", "a/f", "c/g")
	must(unix.Rename(r.p("a/f"), r.p("b/g")))
	w.rename("a/f", "b/g")
	w.note("moved over")
	w = r.watch("a", "b", "b/g", "c/g")
	must(unix.Renameat2(-100, r.p("b/g"), -100, r.p("c/g"), unix.RENAME_EXCHANGE))
	w.rename("b/g", "c/g", "c/g", "b/g")
	w.note("exchanged")
	w = r.watch("a", "b")
	// A directory that gets another parent: its own mtime must not move, though its ".." has
	// changed.
	must(unix.Rename(r.p("b"), r.p("a/b")))
	w.rename("b", "a/b")
	w.note("directory")
}

func renameWhiteout(r *execution) {
	f := r.file("f", "x", 0o644)
	// The old name becomes a character device 0/0, by which overlayfs hides a file of a lower
	// layer.
	r.note("whiteout", unix.Renameat2(-100, f, -100, r.p("g"), unix.RENAME_WHITEOUT))
	r.stat("f", "f")
	r.stat("g", "g")
	r.file("h", "x", 0o644)
	r.note("whiteout over", unix.Renameat2(-100, r.p("h"), -100, r.p("g"), unix.RENAME_WHITEOUT))
	r.stat("h", "h")
	r.note("with noreplace", unix.Renameat2(-100, r.p("g"), -100, r.p("i"), unix.RENAME_WHITEOUT|unix.RENAME_NOREPLACE))
	r.stat("g after", "g")
	r.note("list", r.listing(""))
}

func renameRemoved(r *execution) {
	r.mkdir("d", 0o755)
	r.file("f", "", 0o644)
	// The directory is gone for all but this descriptor. Nothing may be made in it, or it would
	// never be freed.
	fd := r.open("d", unix.O_RDONLY)
	must(unix.Rmdir(r.p("d")))
	r.note("into", unix.Renameat(unix.AT_FDCWD, r.p("f"), fd, "f"))
	r.note("from", unix.Renameat(fd, "f", unix.AT_FDCWD, r.p("g")))
	r.note("link into", unix.Linkat(unix.AT_FDCWD, r.p("f"), fd, "f", 0))
	r.note("make", unix.Mkdirat(fd, "x", 0o755), unix.Symlinkat("x", fd, "y"), unix.Mknodat(fd, "p", unix.S_IFIFO, 0))
	_, err := unix.Openat(fd, "x", unix.O_CREAT|unix.O_RDWR, 0o644)
	r.note("create", err)
	_, err = unix.Openat(fd, ".", unix.O_TMPFILE|unix.O_RDWR, 0o644)
	r.note("tmpfile", err)
	r.note("unlink", unix.Unlinkat(fd, "x", 0))
	r.fstat("stat", fd)
}
