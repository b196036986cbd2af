package transport

import (
	"fmt"
	"runtime"
	"time"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/fs/transport/uring"
)

// The driver's commands, as in the kernel's include/uapi/linux/fuse.h.
const (
	cmdRegister = 1 // gives the kernel an entry, and waits for a request
	cmdCommit   = 2 // hands an answer over, and waits for the next request
)

// ringHead is the kernel's struct fuse_uring_req_header: all of a request but what has no bound.
type ringHead struct {
	head    [128]byte // the request's header, then the answer's
	op      [128]byte // what the opcode takes
	flags   uint64
	commit  uint64 // names the request to the kernel
	payload uint32 // bytes of the request's payload, then of the answer's
	_       uint32
	_       uint64
}

// commandData is the kernel's struct fuse_uring_cmd_req.
type commandData struct {
	flags  uint64
	commit uint64
	queue  uint16
	_      [6]byte
}

// leastPayload holds every request that has no data of a file: the largest is a value of an
// extended attribute and its name. The kernel does not look whether it fits (CVE-2026-99293).
const leastPayload = 128 << 10

var pageSize = unix.Getpagesize()

// A seat is a goroutine that answers, with an entry: memory for a request, and then for its answer,
// which the kernel has been told of. It hands a request only to an entry whose seat waits for one.
// So none lies behind an answer that takes long, unless all of the queue's seats do.
type seat struct {
	call
	queue  *queue
	ring   *uring.Ring // for the commands of this entry
	memory []byte      // the head's page, and the payload
	head   *ringHead   // in memory
	in     [256]byte   // the request but its payload, in one piece
	inV    [2][]byte   // of in, and the payload
	outV   [2][]byte   // of the head, and the payload
}

// seatSize is the memory of one. The pages of a payload are there once one has been as large.
func (s *Server) seatSize() int {
	return pageSize + (s.opts.MaxWrite+pageSize-1)/pageSize*pageSize
}

// newSeat makes all that can fail on our side.
func (q *queue) newSeat() (*seat, error) {
	t := &seat{queue: q}
	var err error
	if t.ring, err = uring.New(1); err != nil {
		return nil, err
	}
	// Not of Go's heap: the kernel writes there whenever it has a request.
	t.memory, err = unix.Mmap(-1, 0, q.server.seatSize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		t.ring.Close()
		return nil, fmt.Errorf("memory for a request: %w", err)
	}
	t.head = (*ringHead)(unsafe.Pointer(&t.memory[0]))
	return t, nil
}

// close is called when the kernel has the entry no more, or never will.
func (t *seat) close() {
	t.ring.Close()
	_ = unix.Munmap(t.memory)
}

// payload is the room of a request's, or an answer's.
func (t *seat) payload() []byte { return t.memory[pageSize:] }

// command fills in one of the driver's, for the ring's next call.
func (t *seat) command(op uint32, commit uint64) *uring.Submission {
	c := t.ring.Next() // there is one: the last is done
	c.Opcode, c.FD = uring.OpCommand, int32(t.queue.server.fd)
	c.SetCommand(op)
	*(*commandData)(unsafe.Pointer(&c.Command)) = commandData{commit: commit, queue: uint16(t.queue.cpu)}
	return c
}

// register gives the kernel the entry with the ring's next call. From then on there may be a
// request, or a refusal.
func (t *seat) register() {
	// In memory that Go does not move: the submission holds its address as a number.
	room := (*[2]unix.Iovec)(unsafe.Pointer(&t.memory[pageSize/2]))
	*room = [2]unix.Iovec{{Base: &t.memory[0]}, {Base: &t.memory[pageSize]}}
	room[0].SetLen(pageSize / 2)
	room[1].SetLen(len(t.payload()))
	if t.queue.server.spoils != nil && t.queue.server.spoils(t.queue.cpu) {
		room[1].SetLen(0)
	}
	c := t.command(cmdRegister, 0)
	c.Addr, c.Len = uint64(uintptr(unsafe.Pointer(room))), uint32(len(room))
}

// begin registers the entry and returns what the kernel says to that. The thread must not change
// from here to the first wait.
func (t *seat) begin() error {
	t.register()
	if err := t.ring.Submit(); err != nil {
		return err
	}
	// What is there at once is a refusal, or already a request.
	return t.ring.Refused()
}

// serve answers what comes until there is nothing any more.
func (t *seat) serve() {
	q, poked, served := t.queue, false, false
	for {
		c, err := t.ring.Wait()
		if err == nil {
			err = c.Err()
		}
		if err != nil {
			if t.gone(err) {
				return
			}
			continue
		}
		if !served {
			runtime.UnlockOSThread()
			served = true
		}
		q.took()
		if header(t.head.head[:]).Opcode == opNotifyReply {
			t.refuse(header(t.head.head[:]).Unique, fuse.OK)
			poked = true
		} else {
			if poked {
				go q.poke() // this one may have lain in the queue, and another one may
				poked = false
			}
			t.answer()
		}
		q.waiting.Add(1)
		// With the wait for the next request, in one call: it is for the thread that waits that the
		// kernel puts the request into the memory.
		t.command(cmdCommit, t.head.commit)
	}
}

// gone reports whether there are no requests any more. Else it has registered the entry anew: the
// kernel takes one back when the thread ends that handed it over.
func (t *seat) gone(err error) bool {
	if !connectionEnds(err) {
		t.queue.server.logf("an entry of processor %d: %v", t.queue.cpu, err)
		time.Sleep(retryAfter)
	}
	if t.queue.server.hasEnded() {
		return true
	}
	if !t.ring.Idle() {
		return false // the command has not been taken, and is handed over again
	}
	if err := t.begin(); err != nil {
		if !connectionEnds(err) {
			t.queue.server.logf("processor %d loses an entry: %v", t.queue.cpu, err)
			t.queue.took() // another one may take its place
		}
		return true
	}
	return false
}

func connectionEnds(err error) bool {
	switch err {
	case unix.ENOTCONN, unix.ECONNABORTED, unix.ENODEV, unix.ECANCELED:
		return true
	}
	return false
}

// answer has the filesystem answer the request that is in the entry, and leaves the answer there.
func (t *seat) answer() {
	h, payload := t.head, t.payload()
	n := copy(t.in[:], h.head[:headSize])
	in := header(t.in[:])
	unique, op := in.Unique, in.Opcode
	// The kernel says how long all is and how much of that is payload; the rest is the opcode's.
	given := int(h.payload)
	fixed := int(in.Length) - headSize - given
	if given > len(payload) || fixed < 0 || fixed > len(h.op) {
		t.queue.server.logf("opcode %d with %d bytes, %d of them payload, is no request", op, in.Length, given)
		t.refuse(unique, fuse.EIO)
		return
	}
	n += copy(t.in[n:], h.op[:fixed])
	request := t.in[:n]
	if aboutFile(op) {
		t.queue.server.file.Store(in.NodeId)
	}
	wanted := wants(request)
	t.inV = [2][]byte{request, payload[:given]}
	if given > 0 && wanted > 0 {
		t.inV[1] = append([]byte(nil), payload[:given]...) // or the answer would be written over it
	}
	t.outV = [2][]byte{h.head[:outHeadSize], payload}
	size, st := t.queue.server.handle(&t.call, unique, t.inV[:], t.outV[:])
	switch {
	case size >= outHeadSize:
		h.payload = uint32(size - outHeadSize)
	case st.Ok():
		t.refuse(unique, fuse.EINTR) // nobody waits for an answer; the entry needs one all the same
	default:
		t.refuse(unique, st)
	}
}

// refuse leaves an error in the entry.
func (t *seat) refuse(unique uint64, st fuse.Status) {
	*(*fuse.OutHeader)(unsafe.Pointer(&t.head.head)) = refusal(unique, st)
	t.head.payload = 0
}
