package main

import (
	"bytes"
	"os"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// aligned returns n bytes of a pattern at an address fit for O_DIRECT.
func aligned(n int) []byte {
	b := make([]byte, n+4096)
	off := int(-uintptr(unsafe.Pointer(&b[0])) & 4095)
	b = b[off : off+n]
	copy(b, pattern(n, 9))
	return b
}

func dataCases() []testCase {
	return []testCase{
		{"data/truncate", truncates},
		{"data/offsets", offsets},
		{"data/append", appends},
		{"data/append-processes", appendProcesses},
		{"data/direct", directIO},
		{"data/mixed", mixedIO},
		{"data/sync-flags", syncFlags},
		{"data/map-shared", mapShared},
		{"data/map-private", mapPrivate},
		{"data/map-end", mapEnd},
		{"data/vectors", vectors},
		{"data/modes", openModes},
		{"data/splice", splices},
		{"data/parallel", parallelWriters},
		{"data/advice", advice},
	}
}

func truncates(r *execution) {
	data := pattern(200000, 1)
	for _, to := range []int64{0, 1, 4095, 4096, 4097, 65536, 199999, 200000, 200001, 300000, 1 << 30} {
		f := r.file("f", string(data), 0o644)
		r.note("to "+itoa(int(to)), unix.Truncate(f, to))
		r.stat("size "+itoa(int(to)), "f")
		// A gigabyte of zeroes is not read: its size says enough.
		if to < 1<<20 {
			r.content("content "+itoa(int(to)), "f")
		}
		// Cut again from each size, so that what growing added is seen to be zeroes.
		must(unix.Truncate(f, 70000))
		r.content("and 70000 from "+itoa(int(to)), "f")
	}
	f := r.p("f")
	fd := r.open("f", unix.O_RDWR)
	r.note("negative", unix.Truncate(f, -1), unix.Ftruncate(fd, -1))
	ro := r.open("f", unix.O_RDONLY)
	r.note("read-only descriptor", unix.Ftruncate(ro, 0))
	// Cached pages beyond a cut must not come back.
	must(unix.Ftruncate(fd, 0))
	try(unix.Pwrite(fd, bytes.Repeat([]byte("x"), 10000), 0))
	must(unix.Ftruncate(fd, 5000))
	must(unix.Ftruncate(fd, 10000))
	r.content("cut and grown", "f")
	try(unix.Pwrite(fd, []byte("end"), 20000))
	r.content("gap", "f")
}

func offsets(r *execution) {
	fd := r.open("f", unix.O_CREAT|unix.O_RDWR)
	try(unix.Pwrite(fd, pattern(10, 1), 100))
	b := make([]byte, 50)
	n, err := unix.Pread(fd, b, 90)
	r.note("over the end", n, err, summary(b[:n]))
	n, err = unix.Pread(fd, b, 110)
	r.note("at the end", n, err)
	n, err = unix.Pread(fd, b, 1<<40)
	r.note("far", n, err)
	_, err = unix.Pread(fd, b, -1)
	r.note("negative read", err)
	_, err = unix.Pwrite(fd, b, -1)
	r.note("negative write", err)
	// The last two are no position at all and no origin at all.
	for _, s := range []struct {
		off    int64
		whence int
	}{{-1, 0}, {5, 0}, {10, 1}, {-100, 1}, {0, 2}, {-10, 2}, {-1000, 2}, {10, 2}, {0, 9}} {
		p, err := unix.Seek(fd, s.off, s.whence)
		r.note("seek "+itoa(int(s.off))+" "+itoa(s.whence), p, err)
	}
	n, err = unix.Pread(fd, nil, 0)
	r.note("nothing", n, err)
}

func appends(r *execution) {
	r.file("f", "start", 0o644)
	a := r.open("f", unix.O_WRONLY|unix.O_APPEND)
	b := r.open("f", unix.O_WRONLY|unix.O_APPEND)
	w := r.open("f", unix.O_RDWR)
	try(unix.Write(a, []byte("A")))
	try(unix.Write(b, []byte("B")))
	try(unix.Pwrite(a, []byte("P"), 0)) // Linux appends in spite of the offset
	// Both descriptors have positions beyond the end now, which O_APPEND must ignore.
	must(unix.Ftruncate(w, 3))
	try(unix.Write(b, []byte("C")))
	try(unix.Write(w, []byte("W")))
	r.content("content", "f")
	pos := try(unix.Seek(b, 0, 1))
	r.note("position", pos)
}

func appendProcesses(r *execution) {
	f := r.file("f", "", 0o644)
	var wg sync.WaitGroup
	for i := range 4 {
		// Processes and not threads: the kernel serializes by inode, and a filesystem that took the
		// size from an open file would lose lines.
		wg.Go(func() { r.child("append", f, string(rune('a'+i)), "500") })
	}
	wg.Wait()
	b := try(os.ReadFile(f))
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	next := map[byte]int{}
	whole := 0
	for _, l := range lines {
		// Lines of one writer keep their order, those of several mix in any; only that none is torn
		// or lost is compared.
		if len(l) == 6 && l[1:] == pad(next[l[0]]) {
			next[l[0]]++
			whole++
		}
	}
	r.note("lines", len(lines), "in order", whole)
}

func pad(i int) string { s := "00000" + itoa(i); return s[len(s)-5:] }

func directIO(r *execution) {
	fd := r.open("f", unix.O_CREAT|unix.O_RDWR|unix.O_DIRECT)
	buf := aligned(1 << 20)
	n, err := unix.Pwrite(fd, buf, 0)
	r.note("write", n, err)
	r.content("content", "f")
	n, err = unix.Pwrite(fd, buf[:4096], 8192)
	r.note("overwrite", n, err)
	r.content("overwritten", "f")
	got := aligned(1 << 20)
	n, err = unix.Pread(fd, got, 0)
	r.note("read", n, err, summary(got[:n]))
	n, err = unix.Pread(fd, got, 1<<20-4096)
	r.note("tail", n, err)
	n, err = unix.Pread(fd, got, 1<<20)
	r.note("end", n, err)
	n, err = unix.Pwrite(fd, buf[:4096], 100)
	r.note("misaligned offset", n, err)
	n, err = unix.Pwrite(fd, buf[:100], 0)
	r.note("misaligned length", n, err)
	must(unix.Ftruncate(fd, 5000))
	n, err = unix.Pread(fd, got[:8192], 0)
	r.note("short file", n, err)
	// Mixed with the page cache and a mapping.
	// A second descriptor without O_DIRECT, on the same inode.
	c := r.open("f", unix.O_RDWR)
	try(unix.Pwrite(c, []byte("cached"), 10))
	n, err = unix.Pread(fd, got[:4096], 0)
	r.note("sees cached", n, err, string(got[10:16]))
	m := try(unix.Mmap(c, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED))
	copy(m[100:], "mapped")
	n, err = unix.Pread(fd, got[:4096], 0)
	r.note("sees mapped", n, err, string(got[100:106]))
	copy(buf, "direct")
	try(unix.Pwrite(fd, buf[:4096], 0))
	try(unix.Pread(c, got[:6], 0))
	r.note("cache sees direct", string(got[:6]), string(m[:6]))
	must(unix.Munmap(m))
}

func mixedIO(r *execution) {
	fd := r.open("f", unix.O_CREAT|unix.O_RDWR)
	model := make([]byte, 500000)
	for i := range 60 {
		off := int(pattern(4, uint32(i))[0])*1500 + i*7
		chunk := pattern(1+i*331%20000, uint32(i))
		copy(model[off:], chunk)
		try(unix.Pwrite(fd, chunk, int64(off)))
		// Numbers without a common divisor, so that flushed, dropped and dirty bytes lie beside
		// each other in every order.
		if i%9 == 0 {
			must(unix.Fsync(fd))
		}
		if i%13 == 0 {
			must(unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED))
		}
	}
	b := try(os.ReadFile(r.p("f")))
	// Compared with the model as well: two filesystems could be wrong alike.
	r.note("equal", bytes.Equal(b, model[:len(b)]))
	r.content("content", "f")
}

func syncFlags(r *execution) {
	// By O_DIRECT and O_SYNC a write may go past the page cache, on a way of its own through the
	// filesystem.
	for name, flag := range inOrder(map[string]int{"sync": unix.O_SYNC, "dsync": unix.O_DSYNC, "direct and sync": unix.O_DIRECT | unix.O_SYNC}) {
		fd := try(unix.Open(r.p("f"), unix.O_CREAT|unix.O_RDWR|flag, 0o644))
		n, err := unix.Pwrite(fd, aligned(8192), 0)
		r.note(name, n, err)
		unix.Close(fd)
	}
	r.content("content", "f")
	fd := r.open("f", unix.O_RDWR)
	r.note("fsync", unix.Fsync(fd), unix.Fdatasync(fd), unix.SyncFileRange(fd, 0, 0, 7))
	d := r.open("", unix.O_RDONLY)
	r.note("directory", unix.Fsync(d), unix.Fdatasync(d), unix.Syncfs(d))
	// A fifo has nothing to sync, and says so by EINVAL.
	must(unix.Mkfifo(r.p("p"), 0o600))
	p := r.open("p", unix.O_RDWR)
	r.note("fifo", unix.Fsync(p))
	n, err := unix.Pwritev2(fd, [][]byte{[]byte("sync")}, 0, unix.RWF_DSYNC)
	r.note("RWF_DSYNC", n, err)
	// Read before, so that it is in the cache and need not wait.
	n, err = unix.Preadv2(fd, [][]byte{make([]byte, 4)}, 0, unix.RWF_NOWAIT)
	r.note("RWF_NOWAIT of cached", n, err)
}

func mapShared(r *execution) {
	fd := r.open("f", unix.O_CREAT|unix.O_RDWR)
	must(unix.Ftruncate(fd, 100000))
	m := try(unix.Mmap(fd, 0, 100000, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED))
	copy(m[5000:], "mapped")
	b := make([]byte, 6)
	// Mapping and calls share pages: neither may need a sync to see the other.
	try(unix.Pread(fd, b, 5000))
	r.note("read sees it", string(b))
	try(unix.Pwrite(fd, []byte("written"), 6000))
	r.note("it sees write", string(m[6000:6007]))
	r.note("msync", unix.Msync(m, unix.MS_SYNC))
	// Dirtied after the last msync: unmapping alone must not lose it.
	copy(m[90000:], "later")
	must(unix.Munmap(m))
	r.content("content", "f")
	must(unix.Fsync(fd))
	must(unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED))
	r.content("from storage", "f")
	ro := r.open("f", unix.O_RDONLY)
	_, err := unix.Mmap(ro, 0, 4096, unix.PROT_WRITE, unix.MAP_SHARED)
	r.note("write mapping of a read-only descriptor", err)
	_, err = unix.Mmap(ro, 0, 4096, unix.PROT_WRITE, unix.MAP_PRIVATE)
	r.note("private is allowed", err)
	_, err = unix.Mmap(fd, 100, 4096, unix.PROT_READ, unix.MAP_SHARED)
	r.note("misaligned", err)
	x := try(unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE))
	r.note("executable", len(x))
	d := r.open("", unix.O_RDONLY)
	_, err = unix.Mmap(d, 0, 4096, unix.PROT_READ, unix.MAP_SHARED)
	r.note("directory", err)
	// A mapping outlives close and unlink.
	y := try(unix.Mmap(fd, 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED))
	must(unix.Unlink(r.p("f")))
	copy(y, "after unlink")
	r.note("after unlink", string(y[:12]), unix.Msync(y, unix.MS_SYNC))
	// Cutting and growing under a mapping gives zeroes.
	must(unix.Ftruncate(fd, 10))
	must(unix.Ftruncate(fd, 8192))
	r.note("cut", string(y[:10]), y[10] == 0, y[5000] == 0)
}

func mapPrivate(r *execution) {
	r.file("f", strings.Repeat("o", 8192), 0o644)
	fd := r.open("f", unix.O_RDWR)
	m := try(unix.Mmap(fd, 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE))
	copy(m, "private")
	b := make([]byte, 7)
	try(unix.Pread(fd, b, 0))
	r.note("file is untouched", string(b))
	// On the page that was not written by the mapping, since one that was is a copy and would hide
	// this.
	try(unix.Pwrite(fd, []byte("new"), 4096))
	r.note("untouched page follows the file", string(m[4096:4099]))
	must(unix.Munmap(m))
	r.content("content", "f")
}

func mapEnd(r *execution) {
	r.file("f", "z", 0o644)
	// In a child: the signal ends a process that does not expect it.
	r.note("beyond the end", r.child("sigbus", r.p("f")))
	fd := r.open("f", unix.O_RDWR)
	m := try(unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED))
	m[100] = 'q' // behind the end: not stored
	must(unix.Msync(m, unix.MS_SYNC))
	must(unix.Munmap(m))
	// Had the q been stored, growing over it would show it.
	must(unix.Ftruncate(fd, 200))
	r.content("grown", "f")
}

func vectors(r *execution) {
	fd := r.open("f", unix.O_CREAT|unix.O_RDWR)
	n, err := unix.Pwritev(fd, [][]byte{[]byte("one"), nil, []byte("three")}, 5)
	r.note("write", n, err)
	a, b := make([]byte, 6), make([]byte, 20)
	n, err = unix.Preadv(fd, [][]byte{a, b}, 0)
	r.note("read", n, err, summary(a), summary(b))
	// The position is given and must not count.
	n, err = unix.Pwritev2(fd, [][]byte{[]byte("app")}, 0, unix.RWF_APPEND)
	r.note("RWF_APPEND", n, err)
	r.content("content", "f")
}

func openModes(r *execution) {
	f := r.file("f", "text", 0o644)
	ro, wo := r.open("f", unix.O_RDONLY), r.open("f", unix.O_WRONLY)
	_, err := unix.Write(ro, []byte("x"))
	r.note("write to read-only", err)
	_, err = unix.Read(wo, make([]byte, 1))
	r.note("read from write-only", err)
	p := r.open("f", unix.O_PATH)
	_, err = unix.Read(p, make([]byte, 1))
	r.note("read of path", err)
	r.fstat("stat of path", p)
	// A descriptor of a path names a file and gives no right to it.
	r.note("fchmod of path", unix.Fchmod(p, 0o600))
	// POSIX leaves it open; Linux truncates.
	_, err = unix.Open(f, unix.O_RDONLY|unix.O_TRUNC, 0)
	r.note("read-only truncate", err)
	r.content("truncated", "f")
	// The access mode 3 means neither read nor write, only ioctl.
	_, err = unix.Open(f, 3, 0)
	r.note("mode 3", err)
	// The mode is for the next who opens: whoever creates a file may use the descriptor it got.
	fd, err := unix.Open(r.p("n"), unix.O_CREAT|unix.O_RDWR, 0)
	r.note("create with mode 0", err)
	n, err := unix.Write(fd, []byte("own"))
	r.note("and write", n, err)
	r.stat("n", "n")
	// Rights are looked at when a file is opened, and never again. A FUSE server that opens its own
	// file at each write would fail here.
	must(unix.Chmod(f, 0))
	_, err = unix.Write(wo, []byte("after chmod 0"))
	r.note("descriptor keeps its rights", err)
	r.as(alice, func() {
		fd, err := unix.Open(r.p("m"), unix.O_CREAT|unix.O_RDWR, 0o444)
		r.note("create in a closed directory", err)
		unix.Close(fd)
	})
	// From here on alice may create, and what she creates is closed to herself.
	must(unix.Chmod(r.dir, 0o777))
	r.as(alice, func() {
		fd, err := unix.Open(r.p("m"), unix.O_CREAT|unix.O_RDWR, 0o444)
		r.note("create read-only for writing", err)
		_, err = unix.Write(fd, []byte("x"))
		r.note("write to it", err)
		unix.Close(fd)
		_, err = unix.Open(r.p("m"), unix.O_RDWR, 0)
		r.note("open it again", err)
		_, err = unix.Open(r.p("m"), unix.O_CREAT|unix.O_RDWR, 0o666)
		r.note("create it again", err)
	})
	// Flags may change on an open file, and the filesystem must not go by those it was opened with.
	fl, err := unix.FcntlInt(uintptr(wo), unix.F_SETFL, unix.O_APPEND|unix.O_NONBLOCK)
	r.note("set append", fl, err)
	fl, err = unix.FcntlInt(uintptr(wo), unix.F_SETFL, unix.O_DIRECT)
	r.note("set direct", fl, err)
}

func splices(r *execution) {
	data := pattern(300000, 5)
	r.file("f", string(data), 0o644)
	in, out := r.open("f", unix.O_RDONLY), r.open("g", unix.O_CREAT|unix.O_RDWR)
	// Sendfile from the page cache, in portions of the kernel's choosing.
	var off int64
	total := 0
	for {
		n := try(unix.Sendfile(out, in, &off, 1<<20))
		if n == 0 {
			break
		}
		total += n
	}
	r.note("sendfile", total)
	r.content("sent", "g")
	var p [2]int
	// 50,000 bytes: less than a pipe holds, or the first call would wait for a reader.
	must(unix.Pipe(p[:]))
	var from, to int64
	n, err := unix.Splice(in, &from, p[1], nil, 50000, 0)
	r.note("splice out", n, err)
	n, err = unix.Splice(p[0], nil, out, &to, 50000, 0)
	r.note("splice in", n, err)
	r.content("spliced", "g")
}

func parallelWriters(r *execution) {
	must(os.WriteFile(r.p("f"), nil, 0o644))
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			fd := try(unix.Open(r.p("f"), unix.O_RDWR, 0))
			defer unix.Close(fd)
			for i := range 50 {
				// 3,001 bytes each, so that neighbours share pages, and no byte has two writers.
				try(unix.Pwrite(fd, pattern(3001, uint32(w*50+i)), int64((i*8+w)*3001)))
			}
		})
	}
	wg.Wait()
	r.content("content", "f")
}

func advice(r *execution) {
	r.file("f", string(pattern(100000, 1)), 0o644)
	fd := r.open("f", unix.O_RDWR)
	// Advice must change nothing, whichever it is.
	for i := range 6 {
		r.note("fadvise "+itoa(i), unix.Fadvise(fd, 0, 0, i))
	}
	_, _, e := unix.Syscall(unix.SYS_READAHEAD, uintptr(fd), 0, 4096)
	r.note("readahead", e == 0)
	r.content("content", "f")
}
