package main

import (
	"os"

	"golang.org/x/sys/unix"
)

func openCases() []testCase {
	return []testCase{
		{"open/unlinked", openUnlinked},
		{"open/create-flags", createFlags},
		{"open/running", runningProgram},
		{"open/openat2", resolveFlags},
		{"open/handles", fileHandles},
		{"open/inotify", inotifyEvents},
	}
}

func openUnlinked(r *execution) {
	fd := r.open("f", unix.O_CREAT|unix.O_RDWR)
	try(unix.Write(fd, pattern(100000, 1)))
	must(unix.Unlink(r.p("f")))
	r.fstat("stat", fd)
	try(unix.Pwrite(fd, pattern(100000, 2), 50000))
	// Written and dropped from the cache: what follows reads an inode without a name from storage.
	must(unix.Fsync(fd))
	must(unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED))
	b := make([]byte, 200000)
	n, err := unix.Pread(fd, b, 0)
	r.note("read", n, err, summary(b[:n]))
	// All that can be done to a file goes on with one that has no name.
	r.note("change", unix.Fchmod(fd, 0o600), unix.Fchown(fd, 1, 2), unix.Ftruncate(fd, 10), unix.Fallocate(fd, 0, 0, 5000))
	r.fstat("changed", fd)
	// Another file by the same name: a server that goes by path would mix the two.
	r.file("f", "new", 0o644)
	r.content("same name", "f")
	r.fstat("old", fd)
	var st unix.Stat_t
	r.note("by proc", unix.Stat("/proc/self/fd/"+itoa(fd), &st), st.Size)
	// The link in proc leads to the inode, and not by its name.
	x, err := unix.Open("/proc/self/fd/"+itoa(fd), unix.O_RDWR, 0)
	r.note("opened again by proc", err)
	unix.Close(x)
	must(unix.Symlink("x", r.p("l")))
	// A link can be held, too, by a descriptor of the path.
	p := r.open("l", unix.O_PATH|unix.O_NOFOLLOW)
	must(unix.Unlink(r.p("l")))
	k, err := unix.Readlinkat(p, "", b)
	r.note("unlinked symlink", string(b[:max(k, 0)]), err)
	r.fstat("unlinked symlink stat", p)
}

func createFlags(r *execution) {
	r.mkdir("d", 0o755)
	for label, flags := range inOrder(map[string]int{
		"create dir": unix.O_CREAT | unix.O_DIRECTORY, "excl": unix.O_CREAT | unix.O_EXCL, "excl nofollow": unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW,
		"nonblock": unix.O_CREAT | unix.O_NONBLOCK, "trunc": unix.O_CREAT | unix.O_TRUNC, "append": unix.O_CREAT | unix.O_APPEND,
		"noatime": unix.O_CREAT | unix.O_NOATIME, "noctty": unix.O_CREAT | unix.O_NOCTTY, "direct": unix.O_CREAT | unix.O_DIRECT,
	}) {
		// Each flag has to be let through or refused while a file is created, when FUSE asks for
		// both at once.
		fd, err := unix.Open(r.p("new"), flags|unix.O_RDWR, 0o640)
		r.note(label, err)
		if err == nil {
			r.fstat(label+" stat", fd)
			unix.Close(fd)
		}
		_ = unix.Unlink(r.p("new"))
	}
	f := r.file("f", "x", 0o666)
	// Only who owns a file may read it without leaving a trace.
	r.as(alice, func() {
		_, err := unix.Open(f, unix.O_RDONLY|unix.O_NOATIME, 0)
		r.note("noatime of another's", err)
	})
	_, err := unix.Open(r.p("none/f"), unix.O_CREAT|unix.O_RDWR, 0o644)
	r.note("no directory", err)
	_, err = unix.Open(r.p("f/f"), unix.O_CREAT|unix.O_RDWR, 0o644)
	r.note("below a file", err)
	// Creat with all bits, which mknod below may set as well.
	fd, err := unix.Creat(r.p("c"), 0o6777)
	r.note("creat", err)
	unix.Close(fd)
	r.stat("creat stat", "c")
	r.note("mknod", unix.Mknod(r.p("n"), unix.S_IFREG|0o4640, 0))
	r.stat("mknod stat", "n")
	// No type means a regular file.
	r.note("mknod without type", unix.Mknod(r.p("n0"), 0o600, 0))
	r.stat("mknod without type stat", "n0")
	r.note("mknod directory", unix.Mknod(r.p("nd"), unix.S_IFDIR|0o600, 0))
	r.note("mknod link", unix.Mknod(r.p("nl"), unix.S_IFLNK|0o600, 0))
}

func runningProgram(r *execution) {
	b := try(os.ReadFile("/usr/bin/sleep"))
	p := r.file("sleep", string(b), 0o755)
	cmd := try(os.StartProcess(p, []string{p, "5"}, &os.ProcAttr{}))
	defer func() { _ = cmd.Kill(); _, _ = cmd.Wait() }()
	// Until the program has been loaded: before that it is an open file like another.
	tick()
	tick()
	_, err := unix.Open(p, unix.O_WRONLY, 0)
	r.note("write to a running program", err)
	r.note("truncate a running program", unix.Truncate(p, 0))
	r.note("unlink a running program", unix.Unlink(p))
	// The other way round: what is open for writing cannot be run.
	fd := r.open("t", unix.O_CREAT|unix.O_WRONLY)
	try(unix.Write(fd, b))
	must(unix.Fchmod(fd, 0o755))
	r.note("run while open for writing", command(r.dir, r.p("t"), "0"))
	// A script needs its interpreter to read it by name, again.
	r.file("script", "#!/bin/sh\necho ran $1\n", 0o755)
	r.note("script", command(r.dir, r.p("script"), "it"))
	r.file("noexec", "#!/bin/sh\n", 0o644)
	r.note("not executable", command(r.dir, r.p("noexec")))
	r.mkdir("dir", 0o755)
	r.note("directory", command(r.dir, r.p("dir")))
	r.file("empty", "", 0o755)
	r.note("empty", command(r.dir, r.p("empty")))
}

func resolveFlags(r *execution) {
	r.mkdir("d", 0o755)
	r.file("d/f", "x", 0o644)
	must(unix.Symlink("/etc/passwd", r.p("d/out")))
	must(unix.Symlink("f", r.p("d/in")))
	fd := r.open("d", unix.O_RDONLY)
	for label, res := range inOrder(map[string]uint64{
		"beneath": unix.RESOLVE_BENEATH, "in root": unix.RESOLVE_IN_ROOT,
		"no symlinks": unix.RESOLVE_NO_SYMLINKS, "no mounts": unix.RESOLVE_NO_XDEV,
	}) {
		// Inside, by a link that stays inside, by one that leads out, and out and back in.
		for _, name := range []string{"f", "in", "out", "../d/f"} {
			x, err := unix.Openat2(fd, name, &unix.OpenHow{Flags: unix.O_RDONLY, Resolve: res})
			r.note(label+" "+name, err)
			if err == nil {
				unix.Close(x)
			}
		}
	}
}

func fileHandles(r *execution) {
	handle := func(name string) unix.FileHandle {
		h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, r.p(name), 0)
		r.note("handle of "+name, err)
		must(err)
		return h
	}
	d := r.open("", unix.O_RDONLY)
	// What an NFS server does: it opens by a handle, in no order with anything, and after a
	// restart.
	opens := func(label string, h unix.FileHandle) {
		fd, err := unix.OpenByHandleAt(d, h, unix.O_RDONLY|unix.O_NONBLOCK)
		r.note(label, err)
		if err != nil {
			return
		}
		defer unix.Close(fd)
		r.fstat(label+" is", fd)
		b := make([]byte, 20)
		n, err := unix.Read(fd, b)
		r.note(label+" reads", string(b[:max(n, 0)]), err)
	}
	r.file("f", "by handle", 0o644)
	r.file("g", "removed", 0o644)
	r.mkdir("d", 0o755)
	r.mkdir("d/e", 0o755)
	must(unix.Mkfifo(r.p("p"), 0o600))
	handles := make(map[string]unix.FileHandle)
	for _, name := range []string{"", "f", "g", "d", "d/e", "p"} {
		handles[name] = handle(name)
		opens("open "+name, handles[name])
	}
	// A handle is the inode's: it holds wherever the name goes, and by whichever name is left.
	must(unix.Rename(r.p("f"), r.p("d/e/f")))
	opens("renamed", handles["f"])
	must(unix.Link(r.p("d/e/f"), r.p("f")))
	must(unix.Unlink(r.p("d/e/f")))
	opens("by another name", handles["f"])
	must(unix.Rename(r.p("d/e"), r.p("e")))
	opens("moved", handles["d/e"])
	// Stale, not another file that got the number.
	must(unix.Unlink(r.p("g")))
	opens("removed", handles["g"])
	must(unix.Rmdir(r.p("d")))
	opens("removed directory", handles["d"])
	// No handle at all: nothing is stored under that key.
	_, err := unix.OpenByHandleAt(d, handles["e"], unix.O_RDONLY)
	r.note("none", err)
	// It goes past the directories' rights, so only root may.
	r.as(alice, func() {
		_, err := unix.OpenByHandleAt(d, handles["f"], unix.O_RDONLY)
		r.note("another user", err)
	})
}

func inotifyEvents(r *execution) {
	fd := try(unix.InotifyInit1(unix.IN_NONBLOCK))
	defer unix.Close(fd)
	try(unix.InotifyAddWatch(fd, r.dir, unix.IN_ALL_EVENTS))
	f := r.file("f", "x", 0o644)
	must(unix.Rename(f, r.p("g")))
	must(unix.Mkdir(r.p("d"), 0o755))
	must(unix.Unlink(r.p("g")))
	b := make([]byte, 4096)
	n := try(unix.Read(fd, b))
	s := ""
	// The mask is at 4, the length of the name at 12, the name at 16.
	for b = b[:n]; len(b) >= 16; {
		s += hex(b[4:8]) + " "
		b = b[16+int(b[12])+int(b[13])<<8:]
	}
	r.note("events", s)
}

func hex(b []byte) string {
	const digits = "0123456789abcdef"
	s := ""
	for i := len(b) - 1; i >= 0; i-- {
		s += string(digits[b[i]>>4]) + string(digits[b[i]&15])
	}
	return s
}
