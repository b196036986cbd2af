package main

import (
	"encoding/binary"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const capability = "security.capability"

// capNetBind is a file capability: CAP_NET_BIND_SERVICE, permitted and
// effective, as capabilities(7) lays it out.
func capNetBind() []byte {
	b := make([]byte, 20)
	binary.LittleEndian.PutUint32(b, 0x02000001)
	binary.LittleEndian.PutUint32(b[4:], 1<<10)
	return b
}

// privilegeCases try every way to change a file that must take its suid bit,
// its sgid bit and its capabilities.
func privilegeCases() []testCase {
	var list []testCase
	for _, w := range changes() {
		list = append(list, testCase{"priv/" + w.name, func(r *execution) { dropPrivileges(r, w) }})
	}
	return append(list, testCase{"priv/set-while-open", setWhileOpen}, testCase{"priv/execute", executeSuid})
}

type change struct {
	name string
	do   func(r *execution, path string) error
}

func onFile(flags int, f func(fd int) error) func(*execution, string) error {
	return func(_ *execution, path string) error {
		fd, err := unix.Open(path, flags, 0)
		if err != nil {
			return err
		}
		err = f(fd)
		// A filesystem may report a write's error only at close.
		if e := unix.Close(fd); err == nil {
			err = e
		}
		return err
	}
}

func changes() []change {
	// Each is a way of its own through the kernel to the file's bytes or its inode; a filesystem
	// has to clear the bits on every one of them, or a changed program would keep its rights.
	write := func(fd int) error { _, err := unix.Write(fd, []byte("w")); return err }
	return []change{
		{"write", onFile(unix.O_WRONLY, write)},
		{"append", onFile(unix.O_WRONLY|unix.O_APPEND, write)},
		{"write-nothing", onFile(unix.O_WRONLY, func(fd int) error { _, err := unix.Write(fd, nil); return err })},
		{"write-sync", onFile(unix.O_WRONLY|unix.O_SYNC, write)},
		{"write-direct", onFile(unix.O_WRONLY|unix.O_DIRECT, func(fd int) error {
			_, err := unix.Pwrite(fd, aligned(4096), 0)
			return err
		})},
		{"open-trunc", onFile(unix.O_WRONLY|unix.O_TRUNC, func(int) error { return nil })},
		{"truncate", func(_ *execution, p string) error { return unix.Truncate(p, 3) }},
		// No byte changes, the bits go all the same.
		{"truncate-same", func(_ *execution, p string) error { return unix.Truncate(p, 8192) }},
		{"ftruncate", onFile(unix.O_WRONLY, func(fd int) error { return unix.Ftruncate(fd, 10000) })},
		{"fallocate", onFile(unix.O_WRONLY, func(fd int) error { return unix.Fallocate(fd, 0, 0, 16384) })},
		{"fallocate-keep", onFile(unix.O_WRONLY, func(fd int) error { return unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, 0, 16384) })},
		{"punch", onFile(unix.O_WRONLY, func(fd int) error {
			return unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE|unix.FALLOC_FL_PUNCH_HOLE, 0, 4096)
		})},
		{"zero", onFile(unix.O_WRONLY, func(fd int) error { return unix.Fallocate(fd, unix.FALLOC_FL_ZERO_RANGE, 0, 4096) })},
		{"copy-range", func(r *execution, p string) error {
			src := try(unix.Open(r.p("src"), unix.O_RDONLY, 0))
			defer unix.Close(src)
			return onFile(unix.O_WRONLY, func(fd int) error {
				_, err := unix.CopyFileRange(src, nil, fd, nil, 4096, 0)
				return err
			})(r, p)
		}},
		// A mapping tells the filesystem nothing before pages come back.
		{"map", onFile(unix.O_RDWR, func(fd int) error {
			m, err := unix.Mmap(fd, 0, 4096, unix.PROT_WRITE|unix.PROT_READ, unix.MAP_SHARED)
			if err != nil {
				return err
			}
			m[0]++
			return unix.Munmap(m)
		})},
		// The rest does not touch the content: here the bits stay.
		{"read", onFile(unix.O_RDONLY, func(fd int) error { _, err := unix.Read(fd, make([]byte, 10)); return err })},
		{"utimes", func(_ *execution, p string) error { return unix.UtimesNanoAt(unix.AT_FDCWD, p, nil, 0) }},
		{"link", func(r *execution, p string) error { return os.Link(p, p+"link") }},
		{"rename", func(r *execution, p string) error { return unix.Rename(p, p) }},
		{"setxattr", func(r *execution, p string) error { return unix.Setxattr(p, "user.x", []byte("y"), 0) }},
		{"chmod", func(r *execution, p string) error { return unix.Chmod(p, 0o755) }},
		{"chgrp", func(r *execution, p string) error { return unix.Chown(p, -1, alice.gid) }},
	}
}

func dropPrivileges(r *execution, c change) {
	must(unix.Chmod(r.dir, 0o777))
	r.file("src", string(pattern(4096, 1)), 0o644)
	// Sgid counts as one only with execution by the group; without it, it is left alone. The last
	// mode has nothing to lose but the capability.
	for _, mode := range []uint32{0o6777, 0o6767, 0o2777, 0o4766, 0o777} {
		for _, who := range []string{"root", "owner", "other"} {
			name := fmt.Sprintf("%s-%o", who, mode)
			p := r.file(name, string(pattern(8192, 2)), 0o666)
			must(unix.Chown(p, alice.uid, alice.gid))
			// Before chmod, since chown has just cleared both and setting it clears neither.
			must(unix.Setxattr(p, capability, capNetBind(), 0))
			must(unix.Chmod(p, mode))
			act := func() { r.note(name+" does", c.do(r, p)) }
			// Root keeps the mode's bits and still loses the capability; whose file it is makes no
			// difference to a writer.
			switch who {
			case "root":
				act()
			case "owner":
				r.as(alice, act)
			case "other":
				r.as(bob, act)
			}
			r.note(name+" mode", r.mode(name))
			_, err := unix.Getxattr(p, capability, make([]byte, 64))
			r.note(name+" capability", err)
		}
	}
}

// setWhileOpen is what cp -a and package managers do: write, then set the mode
// and capability before closing.
func setWhileOpen(r *execution) {
	fd := r.open("f", unix.O_CREAT|unix.O_RDWR)
	try(unix.Write(fd, pattern(100000, 3)))
	must(unix.Fchmod(fd, 0o6755))
	must(unix.Fsetxattr(fd, capability, capNetBind(), 0))
	// The bytes reach the filesystem only now, after the bits were set. It must not take that for a
	// change by somebody.
	must(unix.Fsync(fd))
	r.stat("after", "f")
	_, err := unix.Getxattr(r.p("f"), capability, make([]byte, 64))
	r.note("capability", err)
	fd = r.open("g", unix.O_CREAT|unix.O_RDWR)
	must(unix.Ftruncate(fd, 8192))
	// The same with pages that a mapping left dirty.
	m := try(unix.Mmap(fd, 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED))
	copy(m, pattern(8192, 4))
	must(unix.Fchmod(fd, 0o6755))
	must(unix.Fsetxattr(fd, capability, capNetBind(), 0))
	must(unix.Munmap(m))
	must(unix.Fsync(fd))
	r.stat("mapped", "g")
	_, err = unix.Getxattr(r.p("g"), capability, make([]byte, 64))
	r.note("mapped capability", err)
	r.content("content", "g")
}

func executeSuid(r *execution) {
	b := try(os.ReadFile("/usr/bin/id"))
	p := r.file("id", string(b), 0o755)
	must(unix.Chown(p, alice.uid, alice.gid))
	// id(1) prints as whom it runs. Bob runs alice's.
	show := func(label string, args ...string) {
		r.as(bob, func() { r.note(label, command(r.dir, p, args...)) })
	}
	show("plain", "-u")
	must(unix.Chmod(p, 0o4755))
	show("suid", "-u")
	must(unix.Chmod(p, 0o2755))
	show("sgid", "-g")
	must(unix.Chmod(p, 0o644))
	show("not executable", "-u")
}
