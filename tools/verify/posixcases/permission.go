package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func permissionCases() []testCase {
	return []testCase{
		{"perm/sticky", stickyDirectory},
		{"perm/access", accessChecks},
		{"perm/setgid-dir", setgidDirectory},
		{"perm/chmod", chmodRules},
		{"perm/chown", chownRules},
		{"perm/umask", umaskRules},
		{"perm/traverse", traverse},
		{"perm/other-link", linkOfOthers},
	}
}

func stickyDirectory(r *execution) {
	r.mkdir("s", 0o1777)
	own := func(name string, who identity) {
		p := r.file("s/"+name, "x", 0o666)
		must(unix.Chown(p, who.uid, who.gid))
	}
	own("a", alice)
	own("b", bob)
	d := r.mkdir("s/dir", 0o777)
	must(unix.Chown(d, alice.uid, alice.gid))
	r.as(bob, func() {
		r.note("unlink of another's", unix.Unlink(r.p("s/a")))
		r.note("rename of another's", unix.Rename(r.p("s/a"), r.p("s/z")))
		r.note("rename over another's", unix.Rename(r.p("s/b"), r.p("s/a")))
		r.note("rmdir of another's", unix.Rmdir(r.p("s/dir")))
		r.note("exchange with another's", unix.Renameat2(-1, r.p("s/b"), -1, r.p("s/a"), unix.RENAME_EXCHANGE))
		r.note("write to another's", os.WriteFile(r.p("s/a"), []byte("y"), 0))
		r.note("unlink of one's own", unix.Unlink(r.p("s/b")))
	})
	// The owner of the directory is the third who may remove, beside the file's owner and root.
	must(unix.Chown(r.p("s"), bob.uid, bob.gid))
	r.as(bob, func() { r.note("unlink by the directory's owner", unix.Unlink(r.p("s/a"))) })
}

func accessChecks(r *execution) {
	r.file("secret", "x", 0o600)
	r.file("group", "x", 0o640)
	must(unix.Chown(r.p("group"), 0, alice.gid))
	r.file("nothing", "x", 0)
	r.mkdir("closed", 0o700)
	r.file("closed/f", "x", 0o666)
	// Directories with one right missing each: search, read, write.
	r.mkdir("blind", 0o733)
	r.mkdir("frozen", 0o555)
	// Everybody may write to the file; that its directory is closed matters only for names.
	r.file("frozen/f", "x", 0o666)
	r.mkdir("listed", 0o744)
	r.file("listed/f", "x", 0o666)
	open := func(name string, flags int) error {
		fd, err := unix.Open(r.p(name), flags, 0o600)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}
	// As a user who is neither root nor, mostly, in the group.
	r.as(alice, func() {
		r.note("read 0600", open("secret", unix.O_RDONLY))
		r.note("read by group", open("group", unix.O_RDONLY))
		r.note("write by group", open("group", unix.O_WRONLY))
		r.note("read 0", open("nothing", unix.O_RDONLY))
		r.note("into 0700", open("closed/f", unix.O_RDONLY))
		r.note("list 0733", open("blind", unix.O_RDONLY))
		r.note("create in 0733", open("blind/new", unix.O_CREAT|unix.O_WRONLY))
		r.note("create in 0555", open("frozen/new", unix.O_CREAT|unix.O_WRONLY))
		r.note("unlink in 0555", unix.Unlink(r.p("frozen/f")))
		r.note("rename in 0555", unix.Rename(r.p("frozen/f"), r.p("frozen/g")))
		r.note("write in 0555", open("frozen/f", unix.O_WRONLY))
		r.note("mkdir in 0555", unix.Mkdir(r.p("frozen/d"), 0o755))
		r.note("symlink in 0555", unix.Symlink("x", r.p("frozen/l")))
		r.note("stat in 0744", open("listed/f", unix.O_RDONLY))
		r.note("tmpfile in 0555", open("frozen", unix.O_TMPFILE|unix.O_RDWR))
		r.note("truncate 0600", unix.Truncate(r.p("secret"), 0))
		r.note("access", unix.Access(r.p("group"), unix.R_OK), unix.Access(r.p("group"), unix.X_OK))
		// By way of a closed directory: search alone is enough to go through.
		r.note("new file's owner", open("frozen/../blind/mine", unix.O_CREAT|unix.O_WRONLY))
	})
	r.stat("owner", "blind/mine")
	// Root reads whatever the mode, but executes only what somebody may.
	r.note("root reads 0", open("nothing", unix.O_RDONLY))
	r.note("root executes 0600", unix.Access(r.p("secret"), unix.X_OK))
}

func setgidDirectory(r *execution) {
	d := r.mkdir("d", 0o2777)
	// Chown clears the bit that mkdir gave, so it is set once more.
	must(unix.Chown(d, 0, 6003))
	must(unix.Chmod(d, 0o2777))
	makeAll := func(tag string) {
		must(unix.Mkdir(r.p("d/"+tag+"dir"), 0o755))
		// With and without execution by the group: sgid without it has another meaning, and is not
		// taken from who is outside the group.
		for _, mode := range []uint32{0o644, 0o2644, 0o2755, 0o6755} {
			name := fmt.Sprintf("d/%s%o", tag, mode)
			fd := try(unix.Open(r.p(name), unix.O_CREAT|unix.O_WRONLY, mode))
			unix.Close(fd)
		}
		must(unix.Symlink("x", r.p("d/"+tag+"link")))
		must(unix.Mkfifo(r.p("d/"+tag+"fifo"), 0o2755))
		fd := try(unix.Open(r.p("d"), unix.O_TMPFILE|unix.O_RDWR, 0o2755))
		r.fstat(tag+" tmpfile", fd)
		unix.Close(fd)
	}
	r.as(alice, func() { makeAll("alice") }) // not in the group
	r.as(carol, func() { makeAll("carol") }) // in the group
	makeAll("root")
	for _, who := range []string{"alice", "carol", "root"} {
		for _, name := range []string{"dir", "644", "2644", "2755", "6755", "link", "fifo"} {
			r.stat(who+" "+name, "d/"+who+name)
		}
	}
	// A directory made below inherits, one moved in does not.
	must(unix.Mkdir(r.p("d/rootdir/sub"), 0o755))
	r.stat("below", "d/rootdir/sub")
	r.mkdir("plain", 0o755)
	must(unix.Rename(r.p("plain"), r.p("d/plain")))
	r.stat("moved", "d/plain")
}

func chmodRules(r *execution) {
	f := r.file("f", "x", 0o644)
	must(unix.Chown(f, alice.uid, 6003))
	r.as(bob, func() { r.note("by another", unix.Chmod(f, 0o600)) })
	// It succeeds, and sgid is silently left out.
	r.as(alice, func() { r.note("setgid by owner outside the group", unix.Chmod(f, 0o6755)) })
	r.stat("mode", "f")
	must(unix.Chown(f, carol.uid, 6003))
	r.as(carol, func() { r.note("setgid by owner in the group", unix.Chmod(f, 0o6755)) })
	r.stat("mode in group", "f")
	// Sticky on a file means nothing to Linux, and must still be kept.
	r.as(carol, func() { r.note("sticky on a file", unix.Chmod(f, 0o1644)) })
	r.stat("sticky file", "f")
	for _, m := range []uint32{0, 0o7777, 0o4000, 0o111} {
		r.note(fmt.Sprintf("root %o", m), unix.Chmod(f, m), r.mode("f"))
	}
	// A link has a mode that nobody may change.
	must(unix.Symlink("f", r.p("l")))
	r.note("fchmodat nofollow", unix.Fchmodat(unix.AT_FDCWD, r.p("l"), 0o600, unix.AT_SYMLINK_NOFOLLOW))
	r.note("through a link", unix.Chmod(r.p("l"), 0o640), r.mode("f"), r.mode("l"))
	fd := r.open("f", unix.O_RDONLY)
	r.note("fchmod", unix.Fchmod(fd, 0o4711), r.mode("f"))
}

func chownRules(r *execution) {
	f := r.file("f", "x", 0o644)
	must(unix.Chown(f, carol.uid, carol.gid))
	chown := func(label string, uid, gid int) {
		r.note(label, unix.Chown(f, uid, gid))
		r.stat(label+" then", "f")
	}
	// With sgid that means execution, and sgid that does not.
	for _, mode := range []uint32{0o6755, 0o6745, 0o2745, 0o4644} {
		must(unix.Chmod(f, mode))
		// Even a change to a group she is in takes the bits away, and so does root's change to
		// nothing.
		r.as(carol, func() { chown(fmt.Sprintf("carol %o -1 6003", mode), -1, 6003) })
		must(unix.Chmod(f, mode))
		chown(fmt.Sprintf("root %o -1 -1", mode), -1, -1)
		must(unix.Chmod(f, mode))
		chown(fmt.Sprintf("root %o carol", mode), carol.uid, carol.gid)
	}
	r.as(carol, func() {
		chown("to a group she is not in", -1, 6002)
		chown("away", bob.uid, -1)
		chown("nothing", -1, -1)
	})
	r.as(bob, func() { chown("by another", -1, -1); chown("steal", bob.uid, -1) })
	// A directory keeps its bits.
	d := r.mkdir("d", 0o6755)
	r.note("dir", unix.Chown(d, 1, 2))
	r.stat("dir then", "d")
	must(unix.Symlink("f", r.p("l")))
	r.note("lchown", unix.Lchown(r.p("l"), 7, 8))
	r.stat("link", "l")
	r.stat("target", "f")
	// The largest ID; the one after it means "as it is".
	r.note("big ids", unix.Chown(f, 0xfffffffe, 0xfffffffe))
	r.stat("big ids then", "f")
	must(unix.Mkfifo(r.p("p"), 0o6755))
	must(unix.Chmod(r.p("p"), 0o6755))
	r.note("fifo", unix.Chown(r.p("p"), 1, 2))
	r.stat("fifo then", "p")
}

func umaskRules(r *execution) {
	defer unix.Umask(0)
	for _, mask := range []int{0, 0o022, 0o077, 0o777} {
		unix.Umask(mask)
		name := fmt.Sprintf("%o", mask)
		fd := try(unix.Open(r.p("f"+name), unix.O_CREAT|unix.O_RDWR, 0o666))
		unix.Close(fd)
		must(unix.Mkdir(r.p("d"+name), 0o1777))
		must(unix.Mknod(r.p("p"+name), unix.S_IFIFO|0o666, 0))
		must(unix.Symlink("x", r.p("l"+name)))
		// A link has no mode to mask.
		for _, t := range []string{"f", "d", "p", "l"} {
			r.stat(t+name, t+name)
		}
	}
}

func traverse(r *execution) {
	r.mkdir("a", 0o711)
	r.mkdir("a/b", 0o711)
	r.file("a/b/f", "deep", 0o644)
	fd := r.open("a/b", unix.O_RDONLY|unix.O_DIRECTORY)
	r.as(alice, func() {
		r.content("through 0711", "a/b/f")
	})
	// Somebody has looked the path up before: what the kernel keeps of it must not let anybody
	// through now.
	must(unix.Chmod(r.p("a"), 0))
	r.as(alice, func() {
		r.content("through 0", "a/b/f")
		// From below the closed directory nobody asks for it, until the path leads up and down
		// through it.
		f, err := unix.Openat(fd, "f", unix.O_RDONLY, 0)
		r.note("from a descriptor below", err)
		unix.Close(f)
		_, err = unix.Openat(fd, "../../a", unix.O_RDONLY, 0)
		r.note("up and down again", err)
	})
}

func linkOfOthers(r *execution) {
	r.mkdir("d", 0o777)
	f := r.file("f", "x", 0o600)
	g := r.file("g", "x", 0o666)
	r.as(alice, func() {
		r.note("unreadable", unix.Link(f, r.p("d/f")))
		r.note("writable", unix.Link(g, r.p("d/g")))
	})
}
