package main

import (
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

func slicePointer(s []uint32) uintptr {
	if len(s) == 0 {
		return 0
	}
	return uintptr(unsafe.Pointer(&s[0]))
}

// helper is the part of a case that needs a process of its own.
func helper(args []string) int {
	switch args[0] {
	// Nothing is closed here: the process ends, and the case is also about what its end releases.
	case "flock":
		fd := try(unix.Open(args[1], unix.O_RDWR, 0))
		fmt.Println(errno(unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)))
	case "setlk":
		fd := try(unix.Open(args[1], unix.O_RDWR, 0))
		lk := unix.Flock_t{Type: unix.F_WRLCK, Start: int64(number(args[2])), Len: int64(number(args[3]))}
		fmt.Println(errno(unix.FcntlFlock(uintptr(fd), unix.F_SETLK, &lk)))
	case "append":
		// One write call a line, or lines of several writers could mix.
		f := try(os.OpenFile(args[1], os.O_WRONLY|os.O_APPEND, 0))
		for i := range number(args[3]) {
			try(fmt.Fprintf(f, "%s%05d\n", args[2], i))
		}
		must(f.Close())
	case "sigbus":
		return touchBeyondEnd(args[1])
	}
	return 0
}

func number(s string) int { return try(strconv.Atoi(s)) }

// touchBeyondEnd reads a mapping of a one-byte file within its last page and
// in the page after it.
func touchBeyondEnd(path string) int {
	// The fault becomes a panic of this goroutine, which can be told apart from a crash.
	debug.SetPanicOnFault(true)
	fd := try(unix.Open(path, unix.O_RDWR, 0))
	m := try(unix.Mmap(fd, 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED))
	// The rest of the last page reads as zeroes. Only a whole page behind the end is a fault.
	fmt.Print("in page ", m[100], "; ")
	defer func() { fmt.Println("after page", recover() != nil) }()
	fmt.Println(m[5000])
	return 0
}
