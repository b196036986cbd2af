package main

import (
	"bytes"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

func mountCases() []testCase {
	return []testCase{
		{"mount/statfs", statistics},
		{"mount/bind", bindMounts},
		{"mount/read-only", readOnlyBind},
		{"mount/chroot", chroots},
		{"mount/sync", syncs},
		{"mount/pathconf", pathconf},
	}
}

// command runs a program and returns what it printed or how it failed.
func command(dir, path string, args ...string) string {
	cmd := exec.Command(path, args...)
	cmd.Dir = "/"
	out, err := cmd.CombinedOutput()
	s := strings.ReplaceAll(strings.TrimSpace(string(bytes.TrimSpace(out))), dir, "DIR")
	if err != nil {
		s += " " + strings.ReplaceAll(err.Error(), dir, "DIR")
	}
	return s
}

func statistics(r *execution) {
	var st unix.Statfs_t
	r.note("statfs", unix.Statfs(r.dir, &st))
	r.note("names", st.Namelen)
	// Figures of two disks cannot be equal, only make sense.
	r.note("plausible", st.Bsize == 4096, st.Frsize == 4096, st.Blocks > 0, st.Bfree <= st.Blocks, st.Bavail <= st.Bfree, st.Files > 0, st.Ffree <= st.Files)
	r.note("flags", st.Flags&(unix.ST_RDONLY|unix.ST_NOSUID|unix.ST_NODEV|unix.ST_NOEXEC))
	fd := r.open("f", unix.O_CREAT|unix.O_RDWR)
	r.note("fstatfs", unix.Fstatfs(fd, &st))
}

// namespace runs f in a mount namespace of its own.
func (r *execution) namespace(f func()) {
	r.thread(func() {
		raw(unix.SYS_UNSHARE, unix.CLONE_FS|unix.CLONE_NEWNS, 0, 0)
		// Private, or mounts made here would appear in the machine's own namespace.
		must(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
		f()
	})
}

func bindMounts(r *execution) {
	r.mkdir("a", 0o755)
	r.file("a/f", "bound", 0o644)
	r.mkdir("b", 0o755)
	r.file("file", "over", 0o644)
	r.namespace(func() {
		r.note("bind", unix.Mount(r.p("a"), r.p("b"), "", unix.MS_BIND, ""))
		r.content("through", "b/f")
		// One filesystem and two mounts: the kernel says EXDEV before the filesystem is asked.
		r.note("rename across", unix.Rename(r.p("a/f"), r.p("b/g")))
		r.note("link across", unix.Link(r.p("a/f"), r.p("b/g")))
		// The directory is a mount point here and none elsewhere; what that forbids is decided by
		// mounts, not by the filesystem.
		r.note("rmdir of a mount point", unix.Rmdir(r.p("b")))
		r.note("rename of a mount point", unix.Rename(r.p("b"), r.p("c")))
		r.note("write through", unix.Mkdir(r.p("b/d"), 0o755))
		r.note("bind a file", unix.Mount(r.p("file"), r.p("a/f"), "", unix.MS_BIND, ""))
		r.content("file through", "a/f")
		// Both have to go here: a mount that stays would keep the directory from being removed.
		r.note("unmount", unix.Unmount(r.p("a/f"), 0), unix.Unmount(r.p("b"), 0))
	})
	r.note("end", r.listing("a"), r.listing("b"))
}

func readOnlyBind(r *execution) {
	r.mkdir("m", 0o755)
	f := r.file("m/f", "#!/bin/sh\necho ran\n", 0o755)
	must(unix.Mknod(r.p("m/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	r.namespace(func() {
		must(unix.Mount(r.p("m"), r.p("m"), "", unix.MS_BIND, ""))
		// Two calls: mount(2) ignores these flags while it makes a bind mount.
		must(unix.Mount("", r.p("m"), "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NOEXEC|unix.MS_NODEV, ""))
		_, err := unix.Open(f, unix.O_RDWR, 0)
		r.note("open for writing", err)
		_, err = unix.Open(r.p("m/new"), unix.O_CREAT|unix.O_RDWR, 0o644)
		r.note("create", err)
		r.note("changes", unix.Chmod(f, 0o700), unix.Unlink(f), unix.Mkdir(r.p("m/d"), 0o755), unix.Truncate(f, 0),
			unix.Rename(f, r.p("m/g")), unix.Link(f, r.p("m/g")), unix.Symlink("x", r.p("m/l")), unix.Setxattr(f, "user.a", nil, 0),
			unix.UtimesNanoAt(-100, f, nil, 0), unix.Chown(f, 1, 1))
		r.note("run", command(r.dir, f))
		// A device has to be refused by nodev, even though its rights allow it.
		_, err = unix.Open(r.p("m/null"), unix.O_RDWR, 0)
		r.note("device", err)
		r.note("access", unix.Access(f, unix.W_OK), unix.Access(f, unix.X_OK), unix.Access(f, unix.R_OK))
		// Detached: what was run may still hold it for a moment.
		r.note("unmount", unix.Unmount(r.p("m"), unix.MNT_DETACH))
	})
}

func chroots(r *execution) {
	r.file("f", "inside", 0o644)
	r.mkdir("d", 0o755)
	must(unix.Symlink("/f", r.p("d/l")))
	r.thread(func() {
		// This thread alone gets a root and directory of its own; without it the whole program
		// would move.
		raw(unix.SYS_UNSHARE, unix.CLONE_FS, 0, 0)
		must(unix.Chroot(r.dir))
		must(unix.Chdir("/"))
		b := make([]byte, 20)
		fd, err := unix.Open("/d/l", unix.O_RDONLY, 0)
		r.note("absolute link", err)
		n, err := unix.Read(fd, b)
		r.note("read", string(b[:max(n, 0)]), err)
		unix.Close(fd)
		var here, up unix.Stat_t
		r.note("root", unix.Stat("/", &here), unix.Stat("/..", &up), here.Ino == up.Ino)
	})
}

func syncs(r *execution) {
	r.file("f", string(pattern(100000, 1)), 0o644)
	// Sync waits for every filesystem of the machine, and must return, even with FUSE mounts among
	// them.
	unix.Sync()
	fd := r.open("f", unix.O_RDONLY)
	r.note("syncfs", unix.Syncfs(fd))
	r.content("content", "f")
}

func pathconf(r *execution) {
	r.file("f", "", 0o644)
	r.note("getconf", command(r.dir, "/usr/bin/getconf", "NAME_MAX", r.p("f")), command(r.dir, "/usr/bin/getconf", "PATH_MAX", r.p("f")))
}
