// Package uring is io_uring(7) for a goroutine that gives the kernel commands and waits for what
// becomes of them, without cgo. It knows entries of 128 bytes, whose second half carries what a
// driver's own command takes.
//
// The kernel and the process share two rings of entries, each with a head that its reader moves and
// a tail that its writer moves. The side that moves one of them does so last, and the other side
// reads it first: both by sync/atomic, which orders what lies before and after.
package uring

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Opcodes of submissions, as in the kernel's include/uapi/linux/io_uring.h.
const (
	OpNop     = 0
	OpRead    = 22
	OpCommand = 46 // IORING_OP_URING_CMD: a driver's own
)

// A Submission is what the kernel is asked to do: its struct io_uring_sqe.
type Submission struct {
	Opcode   uint8
	Flags    uint8
	Priority uint16
	FD       int32
	off      [2]uint32 // an offset, or a driver's command and zero
	Addr     uint64
	Len      uint32
	OpFlags  uint32
	UserData uint64 // comes back in the completion
	_        [2]uint32
	Command  [80]byte // what a driver's command takes
}

// SetOffset says where in the file.
func (s *Submission) SetOffset(off uint64) { *(*uint64)(unsafe.Pointer(&s.off)) = off }

// SetCommand says which of the driver's commands.
func (s *Submission) SetCommand(op uint32) { s.off = [2]uint32{op, 0} }

// A Completion is what has become of a submission: the kernel's struct io_uring_cqe.
type Completion struct {
	UserData uint64
	Result   int32 // negative: an errno
	Flags    uint32
}

// Err is the result as an error, nil unless it is one.
func (c Completion) Err() error {
	if c.Result < 0 {
		return unix.Errno(-c.Result)
	}
	return nil
}

// A Ring belongs to one goroutine.
type Ring struct {
	fd     int
	memory []byte // the heads, tails and completions
	table  []byte // the submissions

	submissions []Submission
	subHead     *uint32 // the kernel's
	subTail     *uint32
	next        uint32 // the tail once what is filled in is submitted

	completions []Completion
	compHead    *uint32
	compTail    *uint32 // the kernel's
}

// params are what io_uring_setup takes and gives: struct io_uring_params.
type params struct {
	subEntries, compEntries, flags, threadCPU, threadIdle, features, workers uint32
	_                                                                        [3]uint32
	sub, comp                                                                offsets
}

// offsets are where things lie in the shared memory. The last two differ: flags, dropped and array
// of submissions; overflow, entries and flags of completions.
type offsets struct {
	head, tail, mask, entries, a, b, c, _ uint32
	_                                     uint64
}

// From the kernel's include/uapi/linux/io_uring.h.
const (
	setupClamp       = 1 << 4
	setupSubmitAll   = 1 << 7
	setupCooperative = 1 << 8  // IORING_SETUP_COOP_TASKRUN
	setupLong        = 1 << 10 // IORING_SETUP_SQE128

	featSingleMap = 1 << 0

	enterGetEvents = 1 << 0

	offRings = 0
	offTable = 0x10000000
)

// errOld is said of kernels before Linux 6.1.
var errOld = errors.New("the kernel's io_uring is too old")

// New makes a ring for so many submissions at a time, a power of two. The kernel works for a
// submission when the thread that has handed it over enters the kernel, so that thread should wait
// for what becomes of it. Errors are the kernel's: EPERM where io_uring is switched off, ENOSYS
// where there is none or a filter hides it, EMFILE without a free descriptor.
func New(entries uint32) (*Ring, error) {
	p := params{flags: setupCooperative | setupClamp | setupSubmitAll | setupLong}
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(entries), uintptr(unsafe.Pointer(&p)), 0)
	if errno == unix.EINVAL {
		return nil, fmt.Errorf("io_uring_setup: %w (%w)", errOld, errno)
	}
	if errno != 0 {
		return nil, os.NewSyscallError("io_uring_setup", errno)
	}
	r := &Ring{fd: int(fd)}
	if err := r.mapAll(&p); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

func (r *Ring) mapAll(p *params) error {
	if p.features&featSingleMap == 0 {
		return errOld
	}
	const word = uint32(unsafe.Sizeof(uint32(0)))
	array, first := p.sub.c, p.comp.b
	size := max(array+p.subEntries*word, first+p.compEntries*uint32(unsafe.Sizeof(Completion{})))
	var err error
	if r.memory, err = unix.Mmap(r.fd, offRings, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		return os.NewSyscallError("mmap", err)
	}
	size = p.subEntries * uint32(unsafe.Sizeof(Submission{}))
	if r.table, err = unix.Mmap(r.fd, offTable, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		return os.NewSyscallError("mmap", err)
	}
	at := func(off uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.memory[off])) }
	r.submissions = unsafe.Slice((*Submission)(unsafe.Pointer(&r.table[0])), p.subEntries)
	r.subHead, r.subTail = at(p.sub.head), at(p.sub.tail)
	r.completions = unsafe.Slice((*Completion)(unsafe.Pointer(at(first))), p.compEntries)
	r.compHead, r.compTail = at(p.comp.head), at(p.comp.tail)
	// The kernel finds a submission through this table of places. Each has its own for good.
	for i := range unsafe.Slice(at(array), p.subEntries) {
		unsafe.Slice(at(array), p.subEntries)[i] = uint32(i)
	}
	return nil
}

// Next returns an empty submission to fill in, which the next Submit or Wait hands over; nil while
// all are in use.
func (r *Ring) Next() *Submission {
	if r.next-atomic.LoadUint32(r.subHead) >= uint32(len(r.submissions)) {
		return nil
	}
	s := &r.submissions[r.next%uint32(len(r.submissions))]
	*s = Submission{}
	r.next++
	return s
}

// Submit hands over what has been filled in, and waits for nothing.
func (r *Ring) Submit() error {
	for r.waiting() > 0 {
		if err := r.enter(0, 0); err != nil && err != unix.EINTR {
			return err
		}
	}
	return nil
}

// Wait hands over what has been filled in and returns the next completion, once there is one.
func (r *Ring) Wait() (Completion, error) {
	for {
		if r.waiting() == 0 {
			if c, ok := r.Completed(); ok {
				return c, nil
			}
		}
		// A signal may end the wait with nothing.
		if err := r.enter(1, enterGetEvents); err != nil && err != unix.EINTR {
			return Completion{}, err
		}
	}
}

// Completed returns the next completion that is there.
func (r *Ring) Completed() (Completion, bool) {
	head := *r.compHead // nobody else moves it
	if head == atomic.LoadUint32(r.compTail) {
		return Completion{}, false
	}
	c := r.completions[head%uint32(len(r.completions))]
	atomic.StoreUint32(r.compHead, head+1) // from here on the kernel may overwrite it
	return c, true
}

// Refused returns the error of a completion that is there, which it takes. Others it leaves.
func (r *Ring) Refused() error {
	head := *r.compHead
	if head == atomic.LoadUint32(r.compTail) {
		return nil
	}
	c := r.completions[head%uint32(len(r.completions))]
	if err := c.Err(); err != nil {
		atomic.StoreUint32(r.compHead, head+1)
		return err
	}
	return nil
}

// Idle reports whether nothing is filled in.
func (r *Ring) Idle() bool { return r.waiting() == 0 }

// waiting is how many submissions the kernel has not taken.
func (r *Ring) waiting() uint32 { return r.next - atomic.LoadUint32(r.subHead) }

func (r *Ring) enter(least, flags uintptr) error {
	atomic.StoreUint32(r.subTail, r.next)
	_, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(r.waiting()), least, flags, 0, 0)
	if errno != 0 {
		return errno // bare: it is on the way of each request
	}
	return nil
}

// Close gives the ring back. What was submitted is cancelled.
func (r *Ring) Close() {
	// Before or after the ring: a mapping holds the memory, not the ring.
	for _, m := range [][]byte{r.table, r.memory} {
		if m != nil {
			_ = unix.Munmap(m)
		}
	}
	_ = unix.Close(r.fd)
	*r = Ring{fd: -1}
}
