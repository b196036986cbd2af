package main

import (
	"fmt"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

func sparseCases() []testCase {
	return []testCase{
		{"sparse/seek", seekSynced},
		{"sparse/seek-unflushed", seekUnflushed},
		{"sparse/seek-mapped", seekMapped},
		{"sparse/seek-errors", seekErrors},
		{"sparse/fallocate", fallocates},
		{"sparse/fallocate-modes", fallocateModes},
		{"sparse/huge", hugeFiles},
		{"sparse/limits", sizeLimits},
		{"sparse/blocks", blockCounts},
	}
}

// regions notes, for each megabyte of a file, whether SEEK_DATA and SEEK_HOLE
// show data in it.
func (r *execution) regions(label string, fd int, megabytes int) {
	s := ""
	for i := range megabytes {
		lo := int64(i) << 20
		// By megabytes: filesystems may keep data in units of their own, and none is larger.
		data, err := unix.Seek(fd, lo, unix.SEEK_DATA)
		switch {
		case err == nil && data < lo+1<<20:
			s += "D"
		case err == nil || err == unix.ENXIO:
			s += "."
		default:
			s += errno(err)
		}
	}
	end, err := unix.Seek(fd, int64(megabytes)<<20-1, unix.SEEK_HOLE)
	r.note(label, s, "last hole", end, err)
}

func seekSynced(r *execution) {
	fd := r.open("f", unix.O_CREAT|unix.O_RDWR)
	must(unix.Ftruncate(fd, 16<<20))
	for _, mb := range []int64{0, 3, 4, 9, 15} {
		try(unix.Pwrite(fd, pattern(1<<20, 1), mb<<20))
	}
	must(unix.Fsync(fd))
	r.regions("synced", fd, 16)
	must(unix.Fallocate(fd, 3, 4<<20, 1<<20))
	r.regions("punched", fd, 16)
	// Cut within the data and grown: what was cut must be a hole now.
	must(unix.Ftruncate(fd, 10<<20))
	must(unix.Ftruncate(fd, 16<<20))
	r.regions("cut and grown", fd, 16)
	pos := try(unix.Seek(fd, 0, unix.SEEK_HOLE))
	r.note("first hole", pos)
	pos = try(unix.Seek(fd, 1<<20, unix.SEEK_DATA))
	r.note("second data", pos)
}

// seekUnflushed asks while the data are only in the page cache: a hole
// reported over them would make cp lose them.
func seekUnflushed(r *execution) {
	fd := r.open("f", unix.O_CREAT|unix.O_RDWR)
	try(unix.Pwrite(fd, pattern(100000, 1), 0))
	pos, err := unix.Seek(fd, 0, unix.SEEK_DATA)
	r.note("new file", pos, err)
	pos, err = unix.Seek(fd, 0, unix.SEEK_HOLE)
	// At the end or behind it: how far the last unit reaches is the filesystem's choice.
	r.note("new file's hole", pos >= 100000, err)
	try(unix.Pwrite(fd, pattern(100000, 1), 5<<20))
	pos, err = unix.Seek(fd, 1<<20, unix.SEEK_DATA)
	r.note("second", pos >= 5<<20-65536 && pos <= 5<<20, err)
	pos, err = unix.Seek(fd, 5<<20, unix.SEEK_DATA)
	r.note("second itself", pos, err)
	// Stored data with a hole between them, then a dirty byte in it.
	must(unix.Fsync(fd))
	try(unix.Pwrite(fd, []byte("x"), 3<<20))
	r.regions("written in a hole", fd, 6)
	must(unix.Ftruncate(fd, 0))
	try(unix.Pwrite(fd, []byte("x"), 3<<20))
	r.regions("after truncate", fd, 4)
	must(unix.Ftruncate(fd, 0))
	// Each megabyte is asked for while those before it may be anywhere between cache and storage.
	must(unix.Ftruncate(fd, 8<<20))
	for i := range 8 {
		try(unix.Pwrite(fd, pattern(1<<20, uint32(i)), int64(i)<<20))
		r.regions(fmt.Sprint("growing ", i), fd, 8)
	}
	r.content("content", "f")
}

func seekMapped(r *execution) {
	fd := r.open("f", unix.O_CREAT|unix.O_RDWR)
	must(unix.Ftruncate(fd, 8<<20))
	m := try(unix.Mmap(fd, 0, 8<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED))
	copy(m[5<<20:], pattern(4096, 1))
	// A dirty page of a mapping counts as data, even though nobody has called write.
	r.regions("mapped", fd, 8)
	copy(m[2<<20:], pattern(4096, 1))
	r.regions("mapped again", fd, 8)
	must(unix.Msync(m, unix.MS_SYNC))
	r.regions("synced", fd, 8)
	must(unix.Munmap(m))
	r.content("content", "f")
}

func seekErrors(r *execution) {
	fd := r.open("f", unix.O_CREAT|unix.O_RDWR)
	seek := func(label string, off int64, whence int) {
		p, err := unix.Seek(fd, off, whence)
		r.note(label, p, err)
	}
	seek("data in empty", 0, unix.SEEK_DATA)
	seek("hole in empty", 0, unix.SEEK_HOLE)
	must(unix.Ftruncate(fd, 10<<20))
	// No data behind it is ENXIO, and the end of the file counts as a hole.
	seek("data in hole", 0, unix.SEEK_DATA)
	seek("hole in hole", 5000, unix.SEEK_HOLE)
	seek("data at end", 10<<20, unix.SEEK_DATA)
	seek("hole at end", 10<<20, unix.SEEK_HOLE)
	seek("hole before end", 10<<20-1, unix.SEEK_HOLE)
	seek("data negative", -1, unix.SEEK_DATA)
	seek("hole negative", -5, unix.SEEK_HOLE)
	d, err := unix.Seek(r.open("", unix.O_RDONLY), 0, unix.SEEK_SET)
	r.note("directory", d, err)
}

func fallocates(r *execution) {
	modes := map[string]uint32{
		"plain": 0, "keep": 1, "punch": 3, "zero": 16, "zero keep": 17, "punch without keep": 2, "unknown": 1 << 10, "unshare": 64,
	}
	ranges := [][2]int64{{0, 4096}, {1, 1}, {100, 70000}, {65536, 65536}, {199999, 2}, {200000, 100000}, {500000, 10}, {0, 0}, {-1, 10}, {10, -1}}
	for name, mode := range inOrder(modes) {
		// A page, a byte, ranges off and on page bounds, over the end, behind it, and three that
		// are none.
		for _, rg := range ranges {
			r.file("f", string(pattern(200000, 3)), 0o644)
			fd := r.open("f", unix.O_RDWR)
			label := fmt.Sprint(name, rg)
			r.note(label, unix.Fallocate(fd, mode, rg[0], rg[1]))
			r.content(label+" content", "f")
			r.blocks(label+" blocks", fd)
		}
	}
	r.reservations()
	fd := r.open("f", unix.O_RDONLY)
	r.note("read-only", unix.Fallocate(fd, 0, 0, 10))
	d := r.open("", unix.O_RDONLY)
	r.note("directory", unix.Fallocate(d, 0, 0, 10))
	must(unix.Mkfifo(r.p("p"), 0o600))
	r.note("fifo", unix.Fallocate(r.open("p", unix.O_RDWR), 0, 0, 10))
	w := r.open("f", unix.O_RDWR)
	r.note("beyond the largest offset", unix.Fallocate(w, 0, math.MaxInt64-10, 100))
	// Dirty bytes below a punch have to go, and bytes written after it must come back.
	try(unix.Pwrite(w, pattern(50000, 4), 100000)) // unflushed, then punched
	must(unix.Fallocate(w, 3, 110000, 20000))
	r.content("punched over dirty", "f")
	try(unix.Pwrite(w, []byte("again"), 115000))
	r.content("written again", "f")
	must(unix.Ftruncate(w, 0))
	must(unix.Fallocate(w, 0, 0, 1<<20))
	r.stat("allocated", "f")
	r.content("reads as zeroes", "f")
}

// blocks notes how many blocks of 4,096 bytes stat counts of a file.
func (r *execution) blocks(label string, fd int) {
	// Ext4 and this one both allocate late, so that only stored bytes count.
	must(unix.Fsync(fd))
	var st unix.Statx_t
	must(unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_FORCE_SYNC, unix.STATX_BLOCKS, &st))
	r.note(label, (st.Blocks*512+4095)/4096)
}

// reservations allocates, writes, punches and cuts files, and counts their blocks. None gets
// more than four extents: ext4 would count a block for them.
func (r *execution) reservations() {
	fd := -1
	begin := func() { fd = r.open("reserved", unix.O_CREAT|unix.O_TRUNC|unix.O_RDWR) }
	do := func(label string, err error) {
		r.note(label, err)
		r.blocks(label+" blocks", fd)
	}
	write := func(off, n int) error {
		_, err := unix.Pwrite(fd, pattern(n, uint32(off)), int64(off))
		return err
	}
	begin()
	// Off page bounds each time: how a reservation is rounded, split and cut shows in the count.
	do("a byte", unix.Fallocate(fd, 0, 5000, 1))
	do("over a bound", unix.Fallocate(fd, 0, 20479, 2))
	do("over both", unix.Fallocate(fd, 0, 4096, 20000))
	do("once more", unix.Fallocate(fd, 0, 4097, 4095))
	do("cut to nothing", unix.Ftruncate(fd, 0))
	begin()
	do("behind the end", unix.Fallocate(fd, 1, 1<<20-1, 100))
	do("grown behind it", unix.Ftruncate(fd, 2<<20))
	begin()
	do("reserved", unix.Fallocate(fd, 0, 0, 50000))
	do("written in it", write(8192, 4096))
	begin()
	do("reserved again", unix.Fallocate(fd, 0, 0, 50000))
	do("written over its end", write(45056, 12288))
	do("punched across", unix.Fallocate(fd, 3, 5000, 20000))
	do("cut", unix.Ftruncate(fd, 10000))
	do("grown", unix.Ftruncate(fd, 1<<20))
	begin()
	do("written", write(0, 20000))
	do("zeroes over all", unix.Fallocate(fd, 16, 100, 40000))
	do("punched to the end", unix.Fallocate(fd, 3, 30000, 1<<20))
}

func fallocateModes(r *execution) {
	for name, mode := range inOrder(map[string]uint32{"collapse": 8, "insert": 32}) {
		r.file("f", string(pattern(200000, 3)), 0o644)
		fd := r.open("f", unix.O_RDWR)
		r.note(name, unix.Fallocate(fd, mode, 4096, 4096))
		r.content(name+" content", "f")
	}
}

func hugeFiles(r *execution) {
	fd := r.open("f", unix.O_CREAT|unix.O_RDWR)
	const far = 1 << 43 // 8 TiB, which the reference can hold as well
	try(unix.Pwrite(fd, []byte("far"), far))
	r.stat("size", "f")
	b := make([]byte, 10)
	n, err := unix.Pread(fd, b, far-5)
	r.note("read", n, err, summary(b[:n]))
	must(unix.Fsync(fd))
	pos, err := unix.Seek(fd, 0, unix.SEEK_DATA)
	r.note("data", pos > far-(1<<20), err)
	must(unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED))
	n, err = unix.Pread(fd, b, far-5)
	r.note("read from storage", n, err, summary(b[:n]))
	// Cut and grown: the three bytes must be gone.
	must(unix.Ftruncate(fd, far/2))
	must(unix.Ftruncate(fd, far+10))
	n, err = unix.Pread(fd, b, far-5)
	r.note("read after cut", n, err, summary(b[:n]))
	r.note("punch all", unix.Fallocate(fd, 3, 0, far+10))
	r.note("unlink", unix.Unlink(r.p("f")))
}

func sizeLimits(r *execution) {
	fd := r.open("f", unix.O_CREAT|unix.O_RDWR)
	// Ext4 ends at 16 TiB less a page; where it refuses, docs/posix.md says what happens here.
	for _, size := range []int64{1 << 44, 1<<44 - 4096, 1 << 60, math.MaxInt64 - 4096, math.MaxInt64} {
		r.note(fmt.Sprint("truncate ", size), unix.Ftruncate(fd, size))
		r.stat(fmt.Sprint("size ", size), "f")
	}
	must(unix.Ftruncate(fd, 0))
	for _, off := range []int64{1 << 44, math.MaxInt64 - 1, math.MaxInt64} {
		n, err := unix.Pwrite(fd, []byte("xy"), off)
		r.note(fmt.Sprint("write ", off), n, err)
	}
	r.note("remove", os.Remove(r.p("f")))
}

func blockCounts(r *execution) {
	fd := r.open("f", unix.O_CREAT|unix.O_RDWR)
	blocks := func(label string) {
		var st unix.Stat_t
		must(unix.Fstat(fd, &st))
		// Some, and not as many as the size says: exact numbers are each filesystem's own.
		r.note(label, st.Blocks > 0, st.Blocks*512 < 1<<20)
	}
	blocks("empty")
	must(unix.Ftruncate(fd, 1<<30))
	blocks("hole")
	try(unix.Pwrite(fd, pattern(5000, 1), 1<<20))
	blocks("written")
	must(unix.Fsync(fd))
	blocks("synced")
	must(unix.Fallocate(fd, 3, 0, 1<<30))
	blocks("punched")
}
