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

func openUnlinked(r *run) {
	fd := r.open("f", unix.O_CREAT|unix.O_RDWR)
	try(unix.Write(fd, pattern(100000, 1)))
	must(unix.Unlink(r.p("f")))
	r.fstat("stat", fd)
	try(unix.Pwrite(fd, pattern(100000, 2), 50000))
	must(unix.Fsync(fd))
	must(unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED))
	b := make([]byte, 200000)
	n, err := unix.Pread(fd, b, 0)
	r.note("read", n, err, summary(b[:n]))
	r.note("change", unix.Fchmod(fd, 0o600), unix.Fchown(fd, 1, 2), unix.Ftruncate(fd, 10), unix.Fallocate(fd, 0, 0, 5000))
	r.fstat("changed", fd)
	r.file("f", "new", 0o644)
	r.content("same name", "f")
	r.fstat("old", fd)
	var st unix.Stat_t
	r.note("by proc", unix.Stat("/proc/self/fd/"+itoa(fd), &st), st.Size)
	x, err := unix.Open("/proc/self/fd/"+itoa(fd), unix.O_RDWR, 0)
	r.note("opened again by proc", err)
	unix.Close(x)
	must(unix.Symlink("x", r.p("l")))
	p := r.open("l", unix.O_PATH|unix.O_NOFOLLOW)
	must(unix.Unlink(r.p("l")))
	k, err := unix.Readlinkat(p, "", b)
	r.note("unlinked symlink", string(b[:max(k, 0)]), err)
	r.fstat("unlinked symlink stat", p)
}

func createFlags(r *run) {
	r.mkdir("d", 0o755)
	for label, flags := range inOrder(map[string]int{
		"create dir": unix.O_CREAT | unix.O_DIRECTORY, "excl": unix.O_CREAT | unix.O_EXCL, "excl nofollow": unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW,
		"nonblock": unix.O_CREAT | unix.O_NONBLOCK, "trunc": unix.O_CREAT | unix.O_TRUNC, "append": unix.O_CREAT | unix.O_APPEND,
		"noatime": unix.O_CREAT | unix.O_NOATIME, "noctty": unix.O_CREAT | unix.O_NOCTTY, "direct": unix.O_CREAT | unix.O_DIRECT,
	}) {
		fd, err := unix.Open(r.p("new"), flags|unix.O_RDWR, 0o640)
		r.note(label, err)
		if err == nil {
			r.fstat(label+" stat", fd)
			unix.Close(fd)
		}
		_ = unix.Unlink(r.p("new"))
	}
	f := r.file("f", "x", 0o666)
	r.as(alice, func() {
		_, err := unix.Open(f, unix.O_RDONLY|unix.O_NOATIME, 0)
		r.note("noatime of another's", err)
	})
	_, err := unix.Open(r.p("none/f"), unix.O_CREAT|unix.O_RDWR, 0o644)
	r.note("no directory", err)
	_, err = unix.Open(r.p("f/f"), unix.O_CREAT|unix.O_RDWR, 0o644)
	r.note("below a file", err)
	fd, err := unix.Creat(r.p("c"), 0o6777)
	r.note("creat", err)
	unix.Close(fd)
	r.stat("creat stat", "c")
	r.note("mknod", unix.Mknod(r.p("n"), unix.S_IFREG|0o4640, 0))
	r.stat("mknod stat", "n")
	r.note("mknod without type", unix.Mknod(r.p("n0"), 0o600, 0))
	r.stat("mknod without type stat", "n0")
	r.note("mknod directory", unix.Mknod(r.p("nd"), unix.S_IFDIR|0o600, 0))
	r.note("mknod link", unix.Mknod(r.p("nl"), unix.S_IFLNK|0o600, 0))
}

func runningProgram(r *run) {
	b := try(os.ReadFile("/usr/bin/sleep"))
	p := r.file("sleep", string(b), 0o755)
	cmd := try(os.StartProcess(p, []string{p, "5"}, &os.ProcAttr{}))
	defer func() { _ = cmd.Kill(); _, _ = cmd.Wait() }()
	tick()
	tick()
	_, err := unix.Open(p, unix.O_WRONLY, 0)
	r.note("write to a running program", err)
	r.note("truncate a running program", unix.Truncate(p, 0))
	r.note("unlink a running program", unix.Unlink(p))
	fd := r.open("t", unix.O_CREAT|unix.O_WRONLY)
	try(unix.Write(fd, b))
	must(unix.Fchmod(fd, 0o755))
	r.note("run while open for writing", command(r.dir, r.p("t"), "0"))
	r.file("script", "#!/bin/sh\necho ran $1\n", 0o755)
	r.note("script", command(r.dir, r.p("script"), "it"))
	r.file("noexec", "#!/bin/sh\n", 0o644)
	r.note("not executable", command(r.dir, r.p("noexec")))
	r.mkdir("dir", 0o755)
	r.note("directory", command(r.dir, r.p("dir")))
	r.file("empty", "", 0o755)
	r.note("empty", command(r.dir, r.p("empty")))
}

func resolveFlags(r *run) {
	r.mkdir("d", 0o755)
	r.file("d/f", "x", 0o644)
	must(unix.Symlink("/etc/passwd", r.p("d/out")))
	must(unix.Symlink("f", r.p("d/in")))
	fd := r.open("d", unix.O_RDONLY)
	for label, res := range inOrder(map[string]uint64{
		"beneath": unix.RESOLVE_BENEATH, "in root": unix.RESOLVE_IN_ROOT,
		"no symlinks": unix.RESOLVE_NO_SYMLINKS, "no mounts": unix.RESOLVE_NO_XDEV,
	}) {
		for _, name := range []string{"f", "in", "out", "../d/f"} {
			x, err := unix.Openat2(fd, name, &unix.OpenHow{Flags: unix.O_RDONLY, Resolve: res})
			r.note(label+" "+name, err)
			if err == nil {
				unix.Close(x)
			}
		}
	}
}

func fileHandles(r *run) {
	handle := func(name string) unix.FileHandle {
		h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, r.p(name), 0)
		r.note("handle of "+name, err)
		must(err)
		return h
	}
	d := r.open("", unix.O_RDONLY)
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
	must(unix.Rename(r.p("f"), r.p("d/e/f")))
	opens("renamed", handles["f"])
	must(unix.Link(r.p("d/e/f"), r.p("f")))
	must(unix.Unlink(r.p("d/e/f")))
	opens("by another name", handles["f"])
	must(unix.Rename(r.p("d/e"), r.p("e")))
	opens("moved", handles["d/e"])
	must(unix.Unlink(r.p("g")))
	opens("removed", handles["g"])
	must(unix.Rmdir(r.p("d")))
	opens("removed directory", handles["d"])
	_, err := unix.OpenByHandleAt(d, handles["e"], unix.O_RDONLY)
	r.note("none", err)
	r.as(alice, func() {
		_, err := unix.OpenByHandleAt(d, handles["f"], unix.O_RDONLY)
		r.note("another user", err)
	})
}

func inotifyEvents(r *run) {
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
