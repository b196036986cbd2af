package main

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"iter"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// An execution is one of a case; its methods note results and do the steps
// that many cases share.
type execution struct {
	dir     string
	order   []string
	results map[string]string
	later   []func()
}

func (r *execution) cleanUp() {
	// As with defer: the last is undone first.
	slices.Reverse(r.later)
	for _, f := range r.later {
		f()
	}
}

func (r *execution) defer_(f func()) { r.later = append(r.later, f) }

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func try[T any](v T, err error) T {
	must(err)
	return v
}

// errno names an error's errno.
func errno(err error) string {
	if err == nil {
		return "ok"
	}
	var e unix.Errno
	if errors.As(err, &e) {
		return unix.ErrnoName(e)
	}
	// No errno at all, as of a program that cannot be started.
	return "error " + err.Error()
}

// note records a result under a label.
func (r *execution) note(label string, v ...any) {
	// Labels repeat within loops. The number is the same in both runs, as long as both took the
	// same steps.
	if _, ok := r.results[label]; ok {
		label += fmt.Sprintf(" #%d", len(r.order))
	}
	for i, x := range v {
		if err, ok := x.(error); ok {
			v[i] = errno(err)
		} else if x == nil {
			v[i] = "ok"
		}
	}
	r.order = append(r.order, label)
	r.results[label] = strings.TrimSuffix(fmt.Sprintln(v...), "\n")
}

func (r *execution) p(name string) string { return filepath.Join(r.dir, name) }

func (r *execution) file(name, content string, mode uint32) string {
	p := r.p(name)
	must(os.WriteFile(p, []byte(content), 0o600))
	// Not by open's mode: the umask is some case's own, and sgid needs chmod.
	must(unix.Chmod(p, mode))
	return p
}

func (r *execution) mkdir(name string, mode uint32) string {
	p := r.p(name)
	must(unix.Mkdir(p, mode))
	must(unix.Chmod(p, mode))
	return p
}

func (r *execution) open(name string, flags int) int {
	fd := try(unix.Open(r.p(name), flags|unix.O_CLOEXEC, 0o644))
	r.defer_(func() { unix.Close(fd) })
	return fd
}

func describe(st *unix.Stat_t) string {
	types := map[uint32]string{
		unix.S_IFREG: "reg", unix.S_IFDIR: "dir", unix.S_IFLNK: "lnk", unix.S_IFIFO: "fifo", unix.S_IFSOCK: "sock",
		unix.S_IFBLK: "blk", unix.S_IFCHR: "chr",
	}
	t := types[st.Mode&unix.S_IFMT]
	s := fmt.Sprintf("%s %04o nlink=%d %d:%d", t, st.Mode&0o7777, st.Nlink, st.Uid, st.Gid)
	switch t {
	// A directory's size and blocks are each filesystem's own matter.
	case "reg", "lnk":
		s += fmt.Sprintf(" size=%d", st.Size)
	case "blk", "chr":
		s += fmt.Sprintf(" rdev=%d,%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	}
	return s
}

// stat notes what lstat says of a file.
func (r *execution) stat(label, name string) {
	var st unix.Stat_t
	if err := unix.Lstat(r.p(name), &st); err != nil {
		r.note(label, err)
		return
	}
	r.note(label, describe(&st))
}

func (r *execution) fstat(label string, fd int) {
	var st unix.Stat_t
	must(unix.Fstat(fd, &st))
	r.note(label, describe(&st))
}

func (r *execution) mode(name string) string {
	var st unix.Stat_t
	must(unix.Lstat(r.p(name), &st))
	return fmt.Sprintf("%04o", st.Mode&0o7777)
}

func (r *execution) ino(name string) uint64 {
	var st unix.Stat_t
	must(unix.Lstat(r.p(name), &st))
	return st.Ino
}

// content notes a file's length and checksum, or its text when short.
func (r *execution) content(label, name string) {
	b, err := os.ReadFile(r.p(name))
	if err != nil {
		r.note(label, err)
		return
	}
	r.note(label, summary(b))
}

func summary(b []byte) string {
	if len(b) <= 64 {
		return fmt.Sprintf("%q", b)
	}
	return fmt.Sprintf("%d bytes, crc %08x", len(b), crc32.ChecksumIEEE(b))
}

// pattern returns n bytes that repeat nowhere.
func pattern(n int, seed uint32) []byte {
	b := make([]byte, n)
	x := seed*2654435761 + 1
	for i := range b {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		b[i] = byte(x)
	}
	return b
}

// An identity is who a step runs as.
type identity struct {
	uid, gid int
	groups   []int
}

var (
	alice = identity{uid: 5001, gid: 6001}
	bob   = identity{uid: 5002, gid: 6002}
	carol = identity{uid: 5003, gid: 6001, groups: []int{6003}}
)

// as runs f as another user, on a thread that is thrown away.
func (r *execution) as(who identity, f func()) {
	r.thread(func() {
		groups := make([]uint32, len(who.groups))
		for i, g := range who.groups {
			groups[i] = uint32(g)
		}
		// Groups and group first: once the user is another, neither may be changed. Raw calls, as
		// those of the package would change all threads.
		raw(unix.SYS_SETGROUPS, uintptr(len(groups)), slicePointer(groups), 0)
		raw(unix.SYS_SETRESGID, uintptr(who.gid), uintptr(who.gid), uintptr(who.gid))
		raw(unix.SYS_SETRESUID, uintptr(who.uid), uintptr(who.uid), uintptr(who.uid))
		f()
	})
}

// thread runs f on an operating system thread of its own, which ends with f.
func (r *execution) thread(f func()) {
	done := make(chan any)
	go func() {
		// Never unlocked, so that the thread ends with its identity and namespaces and is not used
		// again.
		runtime.LockOSThread()
		defer func() { done <- recover() }()
		f()
	}()
	// A panic of the other goroutine would end the program; here it is the case's result.
	if e := <-done; e != nil {
		panic(e)
	}
}

func raw(call, a, b, c uintptr) {
	if _, _, e := unix.RawSyscall(call, a, b, c); e != 0 {
		panic(e)
	}
}

// tick waits until the clock that files are stamped with has moved.
func tick() { time.Sleep(15 * time.Millisecond) }

// child runs this program's helper with the arguments and returns what it
// printed.
func (r *execution) child(args ...string) string {
	self := try(os.Executable())
	cmd := exec.Command(self, append([]string{"helper"}, args...)...)
	var out bytes.Buffer
	// How it died is a part of the result.
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		out.WriteString(" exit: " + err.Error())
	}
	return strings.TrimSpace(out.String())
}

// inOrder goes through a map by its keys, so that every execution takes the
// same steps.
func inOrder[V any](m map[string]V) iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		// Go's own order differs each time, and results are numbered by it.
		for _, k := range slices.Sorted(maps.Keys(m)) {
			if !yield(k, m[k]) {
				return
			}
		}
	}
}
