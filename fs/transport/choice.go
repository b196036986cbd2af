package transport

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A Kind is a way that requests and answers take.
type Kind int

const (
	Auto   Kind = iota // Ring where the kernel is known to be good at it, else Device
	Ring               // io_uring; what that does not carry goes over the device
	Device             // reads and writes of /dev/fuse
)

var kinds = [...]string{"auto", "ring", "device"}

func (k Kind) String() string { return kinds[k] }

// ErrNoRing is why Ring cannot be had; its text says more.
type ErrNoRing struct{ Why string }

func (e *ErrNoRing) Error() string { return "requests cannot go over io_uring: " + e.Why }

// A release is a kernel's version.
type release [3]int

// goodSince are the releases from which on the rings of each series are trusted: before them,
// a request could be ended while it was still copied (CVE-2026-64259). What is newer than all is
// trusted, and a series between them that is not here never got the fix.
var goodSince = []release{{6, 18, 39}, {7, 1, 4}, {7, 2, 0}}

// trusted reports whether the rings of a kernel are.
func (r release) trusted() bool {
	last := goodSince[len(goodSince)-1]
	for _, g := range goodSince {
		if r[0] == g[0] && r[1] == g[1] {
			return r[2] >= g[2]
		}
	}
	return r[0] > last[0] || r[0] == last[0] && r[1] > last[1]
}

// parseRelease reads what uname says, such as 6.18.44-cloud. What it cannot read is 0.
func parseRelease(s string) (r release) {
	for i, part := range strings.SplitN(s, ".", 3) {
		if end := strings.IndexFunc(part, func(c rune) bool { return c < '0' || c > '9' }); end >= 0 {
			// A candidate of a version is none yet.
			if strings.HasPrefix(part[end:], "-rc") {
				return release{}
			}
			part = part[:end]
		}
		n, err := strconv.Atoi(part)
		if err != nil {
			return release{}
		}
		r[i] = n
	}
	return r
}

// offered reports why the kernel has no rings for a mount, before it is asked by mounting; nil: it
// may have.
func (k Kind) offered() error {
	if k == Device {
		return &ErrNoRing{"the device was asked for"}
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return &ErrNoRing{fmt.Sprint("uname: ", err)}
	}
	name := unix.ByteSliceToString(u.Release[:])
	if k == Auto && !parseRelease(name).trusted() {
		return &ErrNoRing{"Linux " + name + " is not known to be good at it"}
	}
	return nil
}

// processors returns how many there may be, of which each has a queue of the kernel's, and which of
// them run.
func processors() (possible int, online []int, err error) {
	all, err := readProcessors("possible")
	if err != nil {
		return 0, nil, err
	}
	online, err = readProcessors("online")
	return len(all), online, err
}

func readProcessors(which string) ([]int, error) {
	file := "/sys/devices/system/cpu/" + which
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	list, err := parseList(strings.TrimSpace(string(b)))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return list, nil
}

// parseList reads a list of numbers and ranges, such as 0-3,8.
func parseList(list string) (all []int, err error) {
	for _, part := range strings.Split(list, ",") {
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		lo, err := strconv.ParseUint(from, 10, 16)
		if err != nil {
			return nil, err
		}
		hi, err := strconv.ParseUint(to, 10, 16)
		if err != nil {
			return nil, err
		}
		if hi < lo {
			return nil, fmt.Errorf("%q is no range", part)
		}
		for ; lo <= hi; lo++ {
			all = append(all, int(lo))
		}
	}
	return all, nil
}
