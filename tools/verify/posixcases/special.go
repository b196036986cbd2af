package main

import (
	"net"

	"golang.org/x/sys/unix"
)

func specialCases() []testCase {
	return []testCase{
		{"special/devices", devices},
		{"special/fifo", fifos},
		{"special/socket", sockets},
		{"special/rights", deviceRights},
		{"special/times", specialTimes},
	}
}

func devices(r *execution) {
	for name, d := range inOrder(map[string][2]uint32{"null": {1, 3}, "big": {4095, 1048575}, "minor": {8, 255}, "minor256": {8, 256}, "major": {300, 0}, "zero": {0, 0}}) {
		for t, typ := range inOrder(map[string]uint32{"chr": unix.S_IFCHR, "blk": unix.S_IFBLK}) {
			n := name + t
			r.note(n, unix.Mknod(r.p(n), typ|0o640, int(unix.Mkdev(d[0], d[1]))))
			r.stat(n+" stat", n)
			// Stat packs both numbers into one field and statx does not: 256 is where the packing
			// begins to matter.
			var st unix.Statx_t
			must(unix.Statx(-100, r.p(n), 0, unix.STATX_BASIC_STATS, &st))
			r.note(n+" statx", st.Rdev_major, st.Rdev_minor)
		}
	}
	// The kernel does what the device does; the filesystem has only stored the numbers.
	fd, err := unix.Open(r.p("nullchr"), unix.O_RDWR, 0)
	r.note("open null", err)
	n, err := unix.Write(fd, []byte("gone"))
	r.note("write null", n, err)
	n, err = unix.Read(fd, make([]byte, 10))
	r.note("read null", n, err)
	unix.Close(fd)
	_, err = unix.Open(r.p("bigchr"), unix.O_RDWR, 0)
	r.note("open no device", err)
	must(unix.Chmod(r.p("nullblk"), 0o600))
	// Sizes are for regular files. A device takes the call and ignores it, or has no driver.
	r.note("truncate", unix.Truncate(r.p("nullchr"), 5), unix.Truncate(r.p("nullblk"), 5))
	must(unix.Rename(r.p("nullchr"), r.p("moved")))
	r.stat("moved", "moved")
}

func fifos(r *execution) {
	p := r.p("p")
	must(unix.Mkfifo(p, 0o644))
	r.stat("stat", "p")
	// A writer without a reader would wait; asked not to wait it gets ENXIO.
	_, err := unix.Open(p, unix.O_WRONLY|unix.O_NONBLOCK, 0)
	r.note("no reader", err)
	a := r.open("p", unix.O_RDONLY|unix.O_NONBLOCK)
	b := r.open("p", unix.O_WRONLY|unix.O_NONBLOCK)
	n, err := unix.Write(b, []byte("through"))
	r.note("write", n, err)
	buf := make([]byte, 20)
	n, err = unix.Read(a, buf)
	r.note("read", string(buf[:n]), err)
	_, err = unix.Seek(a, 0, 0)
	r.note("seek", err)
	r.note("truncate", unix.Truncate(p, 0))
	// It stays a pipe for those who have it open.
	must(unix.Unlink(p))
	n, err = unix.Write(b, []byte("unlinked"))
	r.note("unlinked", n, err)
}

func sockets(r *execution) {
	l, err := net.Listen("unix", r.p("s"))
	r.note("listen", err)
	must(err)
	r.note("mode", r.mode("s"))
	// Accept in the background, since both ends are in this process.
	go func() {
		c, err := l.Accept()
		if err == nil {
			_, _ = c.Write([]byte("hello"))
			_ = c.Close()
		}
	}()
	c, err := net.Dial("unix", r.p("s"))
	r.note("dial", err)
	b := make([]byte, 10)
	n, err := c.Read(b)
	r.note("read", string(b[:n]), err)
	_, err = unix.Open(r.p("s"), unix.O_RDONLY, 0)
	r.note("open", err)
	// The name stays taken, used or not, until somebody removes it.
	_, err = net.Listen("unix", r.p("s"))
	r.note("listen again", err)
	_ = c.Close()
	_ = l.Close()
	r.stat("closed", "s")
}

func deviceRights(r *execution) {
	must(unix.Chmod(r.dir, 0o777))
	r.as(alice, func() {
		r.note("device", unix.Mknod(r.p("c"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
		r.note("block", unix.Mknod(r.p("b"), unix.S_IFBLK|0o666, int(unix.Mkdev(1, 3))))
		// Devices are for root, but 0/0 opens nothing and is what overlayfs needs of a user.
		r.note("whiteout", unix.Mknod(r.p("w"), unix.S_IFCHR|0o666, 0))
		r.note("fifo", unix.Mkfifo(r.p("p"), 0o666))
		r.note("socket", unix.Mknod(r.p("s"), unix.S_IFSOCK|0o666, 0))
	})
	for _, n := range []string{"c", "b", "w", "p", "s"} {
		r.stat(n, n)
	}
}

func specialTimes(r *execution) {
	must(unix.Mkfifo(r.p("p"), 0o644))
	a := r.open("p", unix.O_RDWR)
	w := r.watch("p")
	// A FIFO's bytes never reach the filesystem, its times do.
	try(unix.Write(a, []byte("x")))
	w.note("write")
	w = r.watch("p")
	r.note("chmod", unix.Chmod(r.p("p"), 0o600))
	w.note("chmod")
}
