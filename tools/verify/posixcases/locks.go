package main

import (
	"golang.org/x/sys/unix"
)

func lockCases() []testCase {
	return []testCase{
		{"locks/flock", flocks},
		{"locks/fcntl", fcntlLocks},
		{"locks/ofd", ofdLocks},
		{"locks/lease", leases},
	}
}

func flocks(r *execution) {
	f := r.file("f", "", 0o644)
	a, b := r.open("f", unix.O_RDONLY), r.open("f", unix.O_RDWR)
	r.note("shared", unix.Flock(a, unix.LOCK_SH|unix.LOCK_NB), unix.Flock(b, unix.LOCK_SH|unix.LOCK_NB))
	r.note("upgrade", unix.Flock(a, unix.LOCK_EX|unix.LOCK_NB))
	r.note("unlock", unix.Flock(b, unix.LOCK_UN), unix.Flock(a, unix.LOCK_EX|unix.LOCK_NB))
	r.note("other process", r.child("flock", f))
	r.note("unlock", unix.Flock(a, unix.LOCK_UN))
	r.note("other process then", r.child("flock", f))
	r.note("after its exit", unix.Flock(a, unix.LOCK_EX|unix.LOCK_NB))
	d := r.open("", unix.O_RDONLY)
	r.note("directory", unix.Flock(d, unix.LOCK_EX|unix.LOCK_NB), unix.Flock(d, 99))
}

func fcntlLocks(r *execution) {
	f := r.file("f", "0123456789", 0o644)
	fd := r.open("f", unix.O_RDWR)
	lk := unix.Flock_t{Type: unix.F_WRLCK, Start: 2, Len: 4}
	r.note("write", unix.FcntlFlock(uintptr(fd), unix.F_SETLK, &lk))
	for _, rg := range [][2]string{{"0", "2"}, {"0", "3"}, {"5", "1"}, {"6", "0"}, {"0", "0"}} {
		r.note("other "+rg[0]+" "+rg[1], r.child("setlk", f, rg[0], rg[1]))
	}
	ro := r.open("f", unix.O_RDONLY)
	w := unix.Flock_t{Type: unix.F_WRLCK}
	r.note("write on read-only", unix.FcntlFlock(uintptr(ro), unix.F_SETLK, &w))
	unix.Close(try(unix.Open(f, unix.O_RDONLY, 0))) // drops every lock of this process
	r.note("dropped by close", r.child("setlk", f, "0", "0"))
	bad := unix.Flock_t{Type: unix.F_WRLCK, Start: -5}
	r.note("negative", unix.FcntlFlock(uintptr(fd), unix.F_SETLK, &bad))
}

func ofdLocks(r *execution) {
	r.file("f", "", 0o644)
	a, b := r.open("f", unix.O_RDWR), r.open("f", unix.O_RDWR)
	lk := unix.Flock_t{Type: unix.F_WRLCK}
	r.note("first", unix.FcntlFlock(uintptr(a), unix.F_OFD_SETLK, &lk))
	r.note("second", unix.FcntlFlock(uintptr(b), unix.F_OFD_SETLK, &lk))
	q := unix.Flock_t{Type: unix.F_WRLCK}
	r.note("who", unix.FcntlFlock(uintptr(b), unix.F_OFD_GETLK, &q), q.Type, q.Pid)
	unix.Close(a)
	r.note("after close", unix.FcntlFlock(uintptr(b), unix.F_OFD_SETLK, &lk))
}

func leases(r *execution) {
	r.file("f", "", 0o644)
	fd := r.open("f", unix.O_RDONLY)
	_, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_RDLCK)
	r.note("read lease", err)
}
