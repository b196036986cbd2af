package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

func timeCases() []testCase {
	return []testCase{
		{"times/operations", timesOfOperations},
		{"times/directory", timesOfDirectory},
		{"times/utimens", utimens},
		{"times/range", timeRange},
		{"times/rights", timeRights},
		{"times/atime", accessTimes},
		{"times/atime-cached", accessTimesCached},
		{"times/birth", birthTime},
		{"times/order", timeOrder},
	}
}

// A watch notes which times of files a step changed.
type watch struct {
	r      *execution
	before map[string]unix.Stat_t
	now    map[string]string // where a watched file is now
}

func (r *execution) watch(names ...string) *watch {
	w := &watch{r: r, before: make(map[string]unix.Stat_t), now: make(map[string]string)}
	for _, n := range names {
		var st unix.Stat_t
		must(unix.Lstat(r.p(n), &st))
		w.before[n], w.now[n] = st, n
	}
	// The clock that stamps files moves in steps; within one a change would not be seen.
	tick()
	return w
}

func (w *watch) rename(pairs ...string) {
	for i := 0; i < len(pairs); i += 2 {
		w.now[pairs[i]] = pairs[i+1]
	}
}

func (w *watch) note(label string) {
	for _, n := range slices.Sorted(maps.Keys(w.before)) {
		b := w.before[n]
		var st unix.Stat_t
		// Removed by the step: nothing to say of its times.
		if err := unix.Lstat(w.r.p(w.now[n]), &st); err != nil {
			continue
		}
		var parts []string
		for _, t := range []struct {
			name      string
			old, this unix.Timespec
		}{{"a", b.Atim, st.Atim}, {"m", b.Mtim, st.Mtim}, {"c", b.Ctim, st.Ctim}} {
			switch {
			case t.this.Nano() > t.old.Nano():
				parts = append(parts, t.name)
			// Earlier than before, as utimes may do.
			case t.this != t.old:
				parts = append(parts, t.name+" back")
			}
		}
		// The clock of the change must not be behind that of the write, as both are one.
		if st.Mtim.Nano() > st.Ctim.Nano() {
			parts = append(parts, "m>c")
		}
		w.r.note(label+" "+n, strings.Join(parts, ","))
	}
}

func timesOfOperations(r *execution) {
	f := r.file("f", string(pattern(10000, 1)), 0o644)
	r.mkdir("d", 0o755)
	must(unix.Symlink("f", r.p("l")))
	step := func(label string, do func() error) {
		w := r.watch("f", ".", "l")
		r.note(label+" result", do())
		w.note(label)
	}
	fd := r.open("f", unix.O_RDWR)
	step("open and close", func() error { x, err := unix.Open(f, unix.O_RDWR, 0); unix.Close(x); return err })
	step("write", func() error { _, err := unix.Write(fd, []byte("xx")); return err })
	step("write nothing", func() error { _, err := unix.Write(fd, nil); return err })
	step("fsync", func() error { return unix.Fsync(fd) })
	step("truncate", func() error { return unix.Truncate(f, 5000) })
	step("truncate to the same", func() error { return unix.Truncate(f, 5000) })
	step("ftruncate", func() error { return unix.Ftruncate(fd, 6000) })
	step("ftruncate to the same", func() error { return unix.Ftruncate(fd, 6000) })
	step("open to truncate", func() error { x, err := unix.Open(f, unix.O_WRONLY|unix.O_TRUNC, 0); unix.Close(x); return err })
	step("open to truncate empty", func() error { x, err := unix.Open(f, unix.O_WRONLY|unix.O_TRUNC, 0); unix.Close(x); return err })
	step("fallocate", func() error { return unix.Fallocate(fd, 0, 0, 20000) })
	step("fallocate within", func() error { return unix.Fallocate(fd, 0, 0, 20000) })
	step("punch", func() error { return unix.Fallocate(fd, 3, 0, 4096) })
	step("chmod", func() error { return unix.Chmod(f, 0o600) })
	step("chmod to the same", func() error { return unix.Chmod(f, 0o600) })
	step("chown", func() error { return unix.Chown(f, 1, 1) })
	step("chown nothing", func() error { return unix.Chown(f, -1, -1) })
	step("lchown", func() error { return unix.Lchown(r.p("l"), 1, 1) })
	step("link", func() error { return unix.Link(f, r.p("d/f")) })
	step("unlink other name", func() error { return unix.Unlink(r.p("d/f")) })
	step("setxattr", func() error { return unix.Setxattr(f, "user.a", []byte("v"), 0) })
	step("setxattr again", func() error { return unix.Setxattr(f, "user.a", []byte("v"), 0) })
	step("removexattr", func() error { return unix.Removexattr(f, "user.a") })
	step("removexattr none", func() error { return unix.Removexattr(f, "user.a") })
	step("set ACL", func() error { return unix.Setxattr(f, aclAccess, acl(uo(6), us(1, 6), g(0), mask(6), oth(0)), 0) })
	step("remove ACL", func() error { return unix.Removexattr(f, aclAccess) })
	step("rename", func() error {
		return orError(unix.Rename(f, r.p("d/f")), unix.Rename(r.p("d/f"), f))
	})
	step("write and sync by mapping", func() error {
		m := try(unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED))
		m[0]++
		return orError(unix.Msync(m, unix.MS_SYNC), unix.Munmap(m))
	})
	// Outside of a step, whose times it would be part of.
	src := r.open("src", unix.O_CREAT|unix.O_RDWR)
	try(unix.Write(src, pattern(8192, 2)))
	step("copy range in", func() error {
		var a, b int64
		_, err := unix.CopyFileRange(src, &a, fd, &b, 8192, 0)
		return err
	})
	step("direct write", func() error {
		x := try(unix.Open(f, unix.O_WRONLY|unix.O_DIRECT, 0))
		defer unix.Close(x)
		_, err := unix.Pwrite(x, aligned(4096), 0)
		return err
	})
}

func orError(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

func timesOfDirectory(r *execution) {
	r.mkdir("d", 0o755)
	r.file("f", "", 0o644)
	// The file is watched as well: a new link changes its ctime.
	step := func(label string, do func() error) {
		w := r.watch("d", ".", "f")
		r.note(label+" result", do())
		w.note(label)
	}
	step("create", func() error { return os.WriteFile(r.p("d/a"), nil, 0o644) })
	step("create existing", func() error { return os.WriteFile(r.p("d/a"), nil, 0o644) })
	step("mkdir", func() error { return unix.Mkdir(r.p("d/s"), 0o755) })
	step("mkdir existing", func() error { return unix.Mkdir(r.p("d/s"), 0o755) })
	step("symlink", func() error { return unix.Symlink("x", r.p("d/l")) })
	step("mknod", func() error { return unix.Mkfifo(r.p("d/p"), 0o600) })
	step("link", func() error { return unix.Link(r.p("f"), r.p("d/f")) })
	step("unlink", func() error { return unix.Unlink(r.p("d/f")) })
	step("rmdir", func() error { return unix.Rmdir(r.p("d/s")) })
	step("rename within", func() error { return unix.Rename(r.p("d/a"), r.p("d/b")) })
	step("write below", func() error { return os.WriteFile(r.p("d/b"), []byte("x"), 0o644) })
	step("chmod below", func() error { return unix.Chmod(r.p("d/b"), 0o600) })
	step("tmpfile", func() error {
		fd, err := unix.Open(r.p("d"), unix.O_TMPFILE|unix.O_RDWR, 0o600)
		unix.Close(fd)
		return err
	})
	step("failed unlink", func() error { return unix.Unlink(r.p("d/none")) })
}

func stamp(t unix.Timespec) string { return fmt.Sprintf("%d.%09d", t.Sec, t.Nsec) }

func (r *execution) times(label, name string) {
	var st unix.Stat_t
	must(unix.Lstat(r.p(name), &st))
	r.note(label, stamp(st.Atim), stamp(st.Mtim))
}

func utimens(r *execution) {
	f := r.file("f", "x", 0o644)
	set := func(label string, a, m unix.Timespec) {
		w := r.watch("f")
		r.note(label+" result", unix.UtimesNanoAt(unix.AT_FDCWD, f, []unix.Timespec{a, m}, 0))
		w.note(label)
	}
	now, omit := unix.Timespec{Nsec: unix.UTIME_NOW}, unix.Timespec{Nsec: unix.UTIME_OMIT}
	set("set", unix.Timespec{Sec: 100, Nsec: 1}, unix.Timespec{Sec: 200, Nsec: 999999999})
	r.times("set", "f")
	set("omit both", omit, omit)
	r.times("omit both", "f")
	set("omit atime", omit, unix.Timespec{Sec: 300, Nsec: 5})
	r.times("omit atime", "f")
	set("omit mtime", unix.Timespec{Sec: 400, Nsec: 6}, omit)
	r.times("omit mtime", "f")
	set("now and omit", now, omit)
	set("omit and now", omit, now)
	set("now", now, now)
	set("bad nanoseconds", unix.Timespec{Nsec: 1e9}, omit)
	set("negative nanoseconds", unix.Timespec{Nsec: -1}, omit)
	var st unix.Stat_t
	must(unix.Lstat(f, &st))
	// One reading of the clock for both, or make(1) would see a difference.
	r.note("now is the same for both", st.Atim == st.Mtim, st.Mtim.Nano() <= st.Ctim.Nano())
	must(unix.Symlink("f", r.p("l")))
	r.note("nofollow", unix.UtimesNanoAt(unix.AT_FDCWD, r.p("l"), []unix.Timespec{{Sec: 7}, {Sec: 8}}, unix.AT_SYMLINK_NOFOLLOW))
	r.times("link", "l")
	fd := r.open("f", unix.O_RDWR)
	// Dirty pages are written after the time was set. Their being flushed is no change of the file,
	// and must not stamp it.
	try(unix.Write(fd, []byte("dirty")))
	must(unix.UtimesNanoAt(unix.AT_FDCWD, f, []unix.Timespec{{Sec: 11}, {Sec: 12}}, 0))
	must(unix.Fsync(fd))
	r.times("set over dirty pages", "f")
	unix.Close(fd)
	r.times("and closed", "f")
}

func timeRange(r *execution) {
	f := r.file("f", "x", 0o644)
	// 32 bits signed and unsigned, ext4's 34 bits, and more; the nanoseconds must survive below
	// zero.
	for _, sec := range []int64{0, -1, -2147483648, -2147483649, 2147483647, 2147483648, 4294967295, 4294967296, 15032385535, 15032385536, 1 << 40, -(1 << 40)} {
		r.note(fmt.Sprint("set ", sec), unix.UtimesNanoAt(unix.AT_FDCWD, f, []unix.Timespec{{Sec: sec, Nsec: 123456789}, {Sec: sec, Nsec: 987654321}}, 0))
		r.times(fmt.Sprint("get ", sec), "f")
	}
}

func timeRights(r *execution) {
	f := r.file("f", "x", 0o666)
	g := r.file("g", "x", 0o644)
	fixed := []unix.Timespec{{Sec: 1}, {Sec: 2}}
	now, omit := unix.Timespec{Nsec: unix.UTIME_NOW}, unix.Timespec{Nsec: unix.UTIME_OMIT}
	// Who may write may set the times to now and to nothing else; other times are for the owner.
	r.as(alice, func() {
		r.note("writable now", unix.UtimesNanoAt(-100, f, nil, 0))
		r.note("writable both now", unix.UtimesNanoAt(-100, f, []unix.Timespec{now, now}, 0))
		r.note("writable fixed", unix.UtimesNanoAt(-100, f, fixed, 0))
		r.note("writable now and omit", unix.UtimesNanoAt(-100, f, []unix.Timespec{now, omit}, 0))
		r.note("unwritable now", unix.UtimesNanoAt(-100, g, nil, 0))
		r.note("unwritable fixed", unix.UtimesNanoAt(-100, g, fixed, 0))
		r.note("unwritable omit", unix.UtimesNanoAt(-100, g, []unix.Timespec{omit, omit}, 0))
	})
	must(unix.Chown(g, alice.uid, alice.gid))
	r.as(alice, func() { r.note("own fixed", unix.UtimesNanoAt(-100, g, fixed, 0)) })
	r.times("own", "g")
}

// accessTimes reads what no cache holds.
func accessTimes(r *execution) {
	f := r.file("f", string(pattern(5000, 1)), 0o644)
	fd := r.open("f", unix.O_RDWR)
	must(unix.Fsync(fd))
	// Out of the cache first: what the kernel serves from its pages FUSE does not hear of.
	read := func(label string) {
		must(unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED))
		w := r.watch("f")
		_, err := unix.Pread(fd, make([]byte, 100), 0)
		r.note(label+" result", err)
		w.note(label)
	}
	read("first")
	read("second")
	must(unix.UtimesNanoAt(-100, f, []unix.Timespec{{Sec: 100}, {Sec: 50}}, 0))
	read("a day old")
	read("again")
	x := try(unix.Open(f, unix.O_RDONLY|unix.O_NOATIME, 0))
	// An old time once more, which relatime would stamp now: only O_NOATIME keeps it.
	must(unix.UtimesNanoAt(-100, f, []unix.Timespec{{Sec: 100}, {Sec: 50}}, 0))
	must(unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED))
	w := r.watch("f")
	_, err := unix.Pread(x, make([]byte, 100), 0)
	r.note("noatime result", err)
	w.note("noatime")
	unix.Close(x)
}

// accessTimesCached reads what was just written.
func accessTimesCached(r *execution) {
	r.file("f", "x", 0o644)
	r.mkdir("d", 0o755)
	must(unix.Symlink("f", r.p("l")))
	w := r.watch("f", "d", "l")
	r.content("read", "f")
	r.note("list", r.listing("d"))
	_, err := unix.Readlink(r.p("l"), make([]byte, 10))
	r.note("readlink", err)
	w.note("read")
}

func birthTime(r *execution) {
	f := r.file("f", "x", 0o644)
	birth := func() unix.StatxTimestamp {
		var st unix.Statx_t
		must(unix.Statx(-100, f, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BTIME|unix.STATX_BASIC_STATS, &st))
		r.note("mask", st.Mask&unix.STATX_BTIME != 0, st.Mask&unix.STATX_BASIC_STATS == unix.STATX_BASIC_STATS)
		return st.Btime
	}
	a := birth()
	r.note("set", a.Sec > 1e9)
	tick()
	// All that changes other times.
	must(os.WriteFile(f, []byte("yy"), 0))
	must(unix.Chmod(f, 0o600))
	must(unix.UtimesNanoAt(-100, f, []unix.Timespec{{Sec: 1}, {Sec: 2}}, 0))
	must(unix.Rename(f, r.p("g")))
	must(unix.Rename(r.p("g"), f))
	r.note("constant", birth() == a)
}

// timeOrder makes files one after the other, whose times must not go back.
func timeOrder(r *execution) {
	var last int64
	sorted := true
	for i := range 50 {
		r.file(itoa(i), "x", 0o644)
		var st unix.Stat_t
		must(unix.Lstat(r.p(itoa(i)), &st))
		// Never before the file made just before; equal is possible, as the clock moves in steps.
		sorted = sorted && st.Mtim.Nano() >= last && st.Ctim.Nano() >= st.Mtim.Nano()
		last = st.Mtim.Nano()
	}
	r.note("sorted", sorted)
}
