package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

func copyCases() []testCase {
	return []testCase{
		{"copy/ranges", copyRanges},
		{"copy/same-file", copySameFile},
		{"copy/errors", copyErrors},
		{"copy/unflushed", copyUnflushed},
		{"copy/holes", copyHoles},
		{"copy/clone", cloneRanges},
		{"copy/mapped", copyMapped},
	}
}

func copyRange(in int, from int64, out int, to int64, n int) (int, error) {
	return unix.CopyFileRange(in, &from, out, &to, n, 0)
}

func copyRanges(r *execution) {
	r.file("src", string(pattern(300000, 1)), 0o644)
	in := r.open("src", unix.O_RDONLY)
	// From, to and length: whole, a byte, off and on page bounds, over either file's end, behind
	// it, nothing.
	for i, c := range [][3]int64{
		{0, 0, 300000}, {0, 0, 1}, {1, 0, 4095}, {4096, 8192, 4096}, {100, 250000, 100000}, {299999, 7, 100},
		{300000, 0, 5}, {400000, 0, 5}, {5, 500000, 65536}, {0, 3, 0},
	} {
		r.file("dst", string(pattern(280000, 2)), 0o644)
		out := r.open("dst", unix.O_RDWR)
		n, err := copyRange(in, c[0], out, c[1], int(c[2]))
		r.note(fmt.Sprint(i, c), n, err)
		r.content(fmt.Sprint(i, " content"), "dst")
		// The copy may share blocks with its source: a write to it must not show there.
		try(unix.Pwrite(out, []byte("patch"), c[1]+2))
		r.content(fmt.Sprint(i, " patched"), "dst")
		r.content(fmt.Sprint(i, " source"), "src")
	}
	// Without positions given it moves those of the descriptors.
	out := r.open("dst", unix.O_RDWR|unix.O_TRUNC)
	n, err := unix.CopyFileRange(in, nil, out, nil, 1000, 0)
	a, b := try(unix.Seek(in, 0, 1)), try(unix.Seek(out, 0, 1))
	r.note("positions", n, err, a, b)
}

func copySameFile(r *execution) {
	// Before and behind each other, then overlapping either way, which is EINVAL.
	for _, c := range [][3]int64{{0, 100000, 50000}, {100000, 0, 50000}, {0, 1000, 5000}, {1000, 0, 5000}, {0, 0, 10}, {0, 200000, 200000}, {150000, 200000, 100000}} {
		r.file("f", string(pattern(200000, 1)), 0o644)
		fd := r.open("f", unix.O_RDWR)
		n, err := copyRange(fd, c[0], fd, c[1], int(c[2]))
		r.note(fmt.Sprint(c), n, err)
		r.content(fmt.Sprint(c, " content"), "f")
	}
}

func copyErrors(r *execution) {
	r.file("f", "text", 0o644)
	r.file("g", "", 0o644)
	// An append-only target is refused, as the call has a position of its own.
	ro, rw, ap, wo := r.open("f", unix.O_RDONLY), r.open("g", unix.O_RDWR), r.open("g", unix.O_WRONLY|unix.O_APPEND), r.open("f", unix.O_WRONLY)
	d := r.open("", unix.O_RDONLY)
	must(unix.Mkfifo(r.p("p"), 0o600))
	p := r.open("p", unix.O_RDWR)
	for label, fds := range inOrder(map[string][2]int{
		"to read-only": {rw, ro}, "to append": {ro, ap}, "from write-only": {wo, rw}, "from directory": {d, rw}, "to directory": {ro, d},
		"from fifo": {p, rw}, "to fifo": {ro, p},
	}) {
		_, err := copyRange(fds[0], 0, fds[1], 0, 4)
		r.note(label, err)
	}
	_, err := unix.CopyFileRange(ro, nil, rw, nil, 4, 1)
	r.note("flags", err)
	_, err = copyRange(ro, -1, rw, 0, 4)
	r.note("negative", err)
	// The first is beyond what ext4 stores, the second overflows the offset type.
	_, err = copyRange(ro, 0, rw, 1<<62, 4)
	r.note("far", err)
	_, err = copyRange(ro, 0, rw, 1<<63-2, 4)
	r.note("too far", err)
}

func copyUnflushed(r *execution) {
	in, out := r.open("f", unix.O_CREAT|unix.O_RDWR), r.open("g", unix.O_CREAT|unix.O_RDWR)
	for i := range 5 {
		// Neither side is flushed: the copy has to find bytes that are only in the page cache, of
		// both.
		try(unix.Pwrite(in, pattern(70001, uint32(i)), int64(i)*70001))
		try(unix.Pwrite(out, pattern(9000, uint32(100+i)), int64(i)*90000))
		n, err := copyRange(in, int64(i)*1000, out, int64(i)*30000, 60000)
		r.note(fmt.Sprint("copy ", i), n, err)
		r.content(fmt.Sprint("content ", i), "g")
	}
	// Fsync and DONTNEED: read what is stored, not what the cache still knows.
	must(unix.Fsync(out))
	must(unix.Fadvise(out, 0, 0, unix.FADV_DONTNEED))
	r.content("from storage", "g")
	r.content("source", "f")
}

func copyHoles(r *execution) {
	in, out := r.open("f", unix.O_CREAT|unix.O_RDWR), r.open("g", unix.O_CREAT|unix.O_RDWR)
	must(unix.Ftruncate(in, 8<<20))
	try(unix.Pwrite(in, pattern(1<<20, 1), 3<<20))
	try(unix.Pwrite(out, pattern(4<<20, 2), 0))
	total := 0
	// A call may copy less than asked for, and each filesystem picks its own portions.
	for total < 8<<20 {
		n := try(copyRange(in, int64(total), out, int64(total), 8<<20-total))
		if n == 0 {
			break
		}
		total += n
	}
	r.note("copied", total)
	r.content("content", "g")
	r.stat("stat", "g")
}

func copyMapped(r *execution) {
	r.file("f", string(pattern(100000, 1)), 0o644)
	r.file("g", string(pattern(100000, 2)), 0o644)
	in, out := r.open("f", unix.O_RDWR), r.open("g", unix.O_RDWR)
	a := try(unix.Mmap(in, 0, 100000, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED))
	b := try(unix.Mmap(out, 0, 100000, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED))
	// Pages that are dirty by a mapping, which no write call has told the filesystem of.
	copy(a[500:], "source dirty by mapping")
	copy(b[90000:], "target dirty by mapping")
	n, err := copyRange(in, 0, out, 0, 80000)
	r.note("copy", n, err)
	r.note("mapping follows", summary(b))
	r.content("content", "g")
	must(unix.Munmap(a))
	must(unix.Munmap(b))
}

func cloneRanges(r *execution) {
	r.file("f", string(pattern(8192, 1)), 0o644)
	in, out := r.open("f", unix.O_RDWR), r.open("g", unix.O_CREAT|unix.O_RDWR)
	r.note("FICLONE", unix.IoctlFileClone(out, in))
	r.note("FICLONERANGE", unix.IoctlFileCloneRange(out, &unix.FileCloneRange{Src_fd: int64(in), Src_length: 4096}))
	r.content("content", "g")
	_, err := unix.IoctlGetInt(in, 0x12345678)
	r.note("unknown ioctl", err)
	_, err = unix.IoctlGetInt(in, unix.FS_IOC_GETFLAGS)
	r.note("GETFLAGS", err)
}
