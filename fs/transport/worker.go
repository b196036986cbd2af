package transport

import (
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Opcodes of requests, as in the kernel's include/uapi/linux/fuse.h.
const (
	opForget        = 2
	opRead          = 15
	opWrite         = 16
	opFsync         = 20
	opGetxattr      = 22
	opListxattr     = 23
	opReaddir       = 28
	opFsyncdir      = 30
	opInterrupt     = 36
	opIoctl         = 39
	opNotifyReply   = 41
	opBatchForget   = 42
	opFallocate     = 43
	opReaddirplus   = 44
	opLseek         = 46
	opCopyFileRange = 47
	opSyncfs        = 50
)

const (
	headSize    = int(unsafe.Sizeof(fuse.InHeader{}))
	outHeadSize = int(unsafe.Sizeof(fuse.OutHeader{}))
	// replyHead holds every answer but for names, listings, attributes and data, which follow it.
	replyHead = 512
	// quickOut is each worker's own room for answers.
	quickOut = 8 << 10
)

// A call is a request that is being answered.
type call struct{ unique atomic.Uint64 } // its number; 0: none

// handle has the filesystem answer a request, into out.
func (s *Server) handle(c *call, unique uint64, in, out [][]byte) (int, fuse.Status) {
	c.unique.Store(unique)
	defer c.unique.Store(0)
	return s.proto.HandleRequest(in, out)
}

// A worker reads and answers in one goroutine, with the buffers of the request that it has.
type worker struct {
	call
	server *Server
	in     *[]byte   // nil while it is idle
	out    []byte    // for what is no READ
	inV    [1][]byte // of in and out, for HandleRequest
	outV   [1][]byte
	lent   lent
	wake   chan struct{} // ends its idling
}

func (s *Server) newWorker() *worker {
	return &worker{server: s, out: make([]byte, quickOut), wake: make(chan struct{}, 1)}
}

// run begins as a reader.
func (w *worker) run() {
	s := w.server
	defer s.workers.Done()
	for {
		s.reading.Add(1)
		asked := time.Now()
		in, err := w.receive()
		waited := time.Since(asked)
		s.reading.Add(-1)
		if err != nil {
			if err != unix.ENODEV && err != unix.ECONNABORTED { // unmounted; aborted
				s.logf("the kernel's requests cannot be read: %v", err)
			}
			s.end()
			return
		}
		reads := true
		if mayWait(in) || waited < queuedWithin && wantsAnswer(in) {
			if s.readers.Add(-1) == 0 {
				s.addReader()
			}
			w.answer(in)
			reads = s.rejoin()
		} else {
			s.rouse()
			w.answer(in)
			s.answered.Add(1)
			reads = !s.leave()
		}
		if !reads && !s.park(w) {
			return
		}
	}
}

// receive reads one request.
func (w *worker) receive() ([]byte, error) {
	if w.in == nil {
		w.in = w.server.buffers.Get().(*[]byte)
	}
	for {
		n, err := unix.Read(w.server.fd, *w.in)
		switch err {
		case nil:
			if n >= headSize {
				return (*w.in)[:n], nil
			}
			return nil, unix.EIO // not FUSE
		case unix.EINTR, unix.EAGAIN, unix.ENOENT: // the last: its caller was killed before we had it
		case unix.ENOMEM:
			time.Sleep(retryAfter)
		default:
			return nil, err
		}
	}
}

// release gives the large buffer back.
func (w *worker) release() {
	w.server.buffers.Put(w.in)
	w.in = nil
}

func header(in []byte) *fuse.InHeader { return (*fuse.InHeader)(unsafe.Pointer(&in[0])) }

// mayWait reports whether the answer is expected to wait for a disk or another machine. A wrong
// guess costs time and nothing else.
func mayWait(in []byte) bool {
	switch header(in).Opcode {
	case opFsync, opFsyncdir, opFallocate, opLseek, opCopyFileRange, opSyncfs, opIoctl:
		return true
	case opRead:
		return wants(in) > quickRead
	case opWrite:
		return len(in) > quickWrite
	}
	return false
}

func wantsAnswer(in []byte) bool {
	op := header(in).Opcode
	return op != opForget && op != opBatchForget && op != opInterrupt
}

const (
	// quickRead and quickWrite are the largest that a reader answers itself.
	quickRead  = 32 << 10
	quickWrite = 160 << 10
	// queuedWithin is how soon a request comes that was there before it was asked for.
	queuedWithin = 3 * time.Microsecond
)

// wants returns the bytes that an answer may have after its head. Go-fuse asks for as much room,
// whatever the answer takes.
func wants(in []byte) int {
	switch header(in).Opcode {
	case opRead, opReaddir, opReaddirplus:
		if len(in) >= int(unsafe.Sizeof(fuse.ReadIn{})) {
			return int((*fuse.ReadIn)(unsafe.Pointer(&in[0])).Size)
		}
	case opGetxattr, opListxattr:
		if len(in) >= int(unsafe.Sizeof(fuse.GetXAttrIn{})) {
			return int((*fuse.GetXAttrIn)(unsafe.Pointer(&in[0])).Size)
		}
	case opIoctl:
		if len(in) >= int(unsafe.Sizeof(fuse.IoctlIn{})) {
			return int((*fuse.IoctlIn)(unsafe.Pointer(&in[0])).OutSize)
		}
	}
	return 0
}

// answer has the filesystem answer a request, and tells the kernel.
func (w *worker) answer(in []byte) {
	s := w.server
	h := header(in)
	unique, op := h.Unique, h.Opcode
	out := w.out
	if need := replyHead + wants(in); need > len(out) {
		b := s.buffers.Get().(*[]byte)
		defer s.buffers.Put(b) // after the answer is with the kernel: it may be in there
		if out = *b; need > len(out) {
			out = make([]byte, need) // a listing or attributes larger than any data
		}
	}
	if op == opRead {
		s.lend(unique, w)
	}
	w.inV[0], w.outV[0] = in, out
	n, st := s.handle(&w.call, unique, w.inV[:], w.outV[:])
	if op == opRead {
		s.lend(unique, nil)
	}
	defer w.lent.done()
	switch {
	case n > 0 && w.lent.data != nil:
		w.lent.iov = append(append(w.lent.iov[:0], out[:n-w.lent.size]), w.lent.data...)
		w.reply(unique, op, w.lent.iov)
	case n > 0:
		w.outV[0] = out[:n]
		w.reply(unique, op, w.outV[:])
	case !st.Ok():
		w.refuse(unique, st)
	}
}

// reply writes an answer. The kernel does not want it any more where its caller was killed or the
// mount has gone.
func (w *worker) reply(unique uint64, op uint32, iov [][]byte) {
	for {
		_, err := unix.Writev(w.server.fd, iov)
		switch err {
		case unix.EINTR:
			continue
		case nil, unix.ENOENT, unix.ENODEV, unix.ECONNABORTED:
		default:
			w.server.logf("an answer to opcode %d was refused: %v", op, err)
			w.refuse(unique, fuse.EIO) // without one the caller waits for ever
		}
		return
	}
}

func (w *worker) refuse(unique uint64, st fuse.Status) {
	out := refusal(unique, st)
	if _, err := unix.Write(w.server.fd, bytesOf(&out)); err != nil {
		w.server.logf("a refusal was refused: %v", err)
	}
}

// refusal is an answer that is an error alone.
func refusal(unique uint64, st fuse.Status) fuse.OutHeader {
	return fuse.OutHeader{Length: uint32(outHeadSize), Status: int32(-st), Unique: unique}
}
