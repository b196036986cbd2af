// Package transport carries the kernel's FUSE requests to a filesystem of go-fuse, and its answers
// back. It stands in for fuse.Server: the requests are parsed and answered by go-fuse's
// ProtocolServer, and only who reads them from the device differs.
//
// As a rule one goroutine reads. It answers what is quick by itself, on the thread that the kernel
// has woken for it, since waking another processor costs more than most answers. Before an answer
// that is expected to wait, or while further requests wait already, it has another read on. And if
// all that read have been answering for a millisecond, one more is added: so there is always
// somebody who reads, whatever an answer waits for, and also when it waits for the kernel, which
// may itself wait for a request that nobody has read.
package transport

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const (
	// patience is how long the reader may answer one request before another reads.
	patience = time.Millisecond
	// restAfter looks at a mount without requests the watch sleeps until there is one.
	restAfter = 10
	// mostIdle workers wait for the next slow request, without large buffers.
	mostIdle = 16
	// headRoom is what the largest request has beside its data: two names, or all of a header.
	headRoom = 4096
	// retryAfter is the pause after the kernel had no memory for a request.
	retryAfter = 10 * time.Millisecond
	// interruptEvery is how often answers are interrupted that nobody waits for any more.
	interruptEvery = 100 * time.Millisecond
)

// A Server serves one mount.
//
// Locks: mu, over no call and no system call; close, over none but those of the descriptor.
type Server struct {
	Options
	raw   fuse.RawFileSystem
	proto *fuse.ProtocolServer
	opts  *fuse.MountOptions
	fd    int
	close struct { // keeps the descriptor's number while a notification is written
		sync.RWMutex
		closed bool
	}
	ended chan struct{} // closed once nothing is read any more
	done  chan struct{} // closed after the last answer

	queues  []*queue      // one for each processor; none: all comes by the device
	noRing  error         // why
	started chan struct{} // closed by Serve
	file    atomic.Uint64 // that was last read or written over rings

	readers  atomic.Int32  // workers that read, or answer what is quick and read on
	reading  atomic.Int32  // those of them that wait for the kernel now
	answered atomic.Uint64 // quick answers
	resting  atomic.Bool   // the watch does
	awake    chan struct{} // rouses it

	buffers sync.Pool // *[]byte, for the largest request or answer
	workers sync.WaitGroup
	mu      struct {
		sync.Mutex
		idle []*worker          // the last that has become so is the next to read: its buffers are warm
		all  map[*call]bool     // of workers that run, idle or not, and of entries
		read map[uint64]*worker // who answers a READ, by the request's number
	}
}

// Options are a Server's own.
type Options struct {
	Kind Kind // how requests shall come

	spoils func(cpu int) bool // has the kernel refuse an entry, for tests
}

// New mounts raw at dir, which must be a directory, and has greeted the kernel when it returns:
// requests from then on wait for Serve. It sends the mount no request. The error is ErrNoRing where
// only rings would do.
func New(raw fuse.RawFileSystem, dir string, opts *fuse.MountOptions, own Options) (*Server, error) {
	s, err := open(raw, dir, opts, own)
	var noRing *ErrNoRing
	if own.Kind == Auto && errors.As(err, &noRing) {
		// The kernel was promised rings, and has refused an entry.
		own.Kind = Device
		if s, err = open(raw, dir, opts, own); err == nil {
			s.noRing = noRing
		}
	}
	return s, err
}

func open(raw fuse.RawFileSystem, dir string, opts *fuse.MountOptions, own Options) (*Server, error) {
	fd, err := mount(dir, opts)
	if err != nil {
		return nil, err
	}
	s := &Server{
		Options: own, raw: raw, opts: opts, fd: fd, started: make(chan struct{}),
		ended: make(chan struct{}), done: make(chan struct{}), awake: make(chan struct{}, 1),
	}
	s.buffers.New = func() any { b := make([]byte, headRoom+opts.MaxWrite); return &b }
	s.mu.all = make(map[*call]bool)
	s.mu.read = make(map[uint64]*worker)
	if err := s.greet(); err != nil {
		s.end() // or threads would wait for Serve
		// Without somebody who answers it would only be in the way. The threads end with their
		// queues, which end with the connection.
		unix.Close(fd)
		err = errors.Join(fmt.Errorf("greet the kernel: %w", err), Detach(dir))
		s.workers.Wait()
		return nil, err
	}
	return s, nil
}

// greet answers INIT, before which the kernel sends nothing else, and gives the kernel the rings
// that the answer promises.
func (s *Server) greet() error {
	w := s.newWorker()
	defer w.release()
	in, err := w.receive()
	if err != nil {
		return err
	}
	opts := *s.opts
	// Before the answer, all that can fail on our side.
	if s.noRing = s.prepareRings(in); s.noRing == nil {
		opts.ExtraCapabilities |= capRings
	} else if s.Kind == Ring {
		return s.noRing
	}
	s.proto = fuse.NewProtocolServer(lender{s.raw, s}, &opts)
	w.answer(in)
	return s.registerRings()
}

// Serve begins to answer requests.
func (s *Server) Serve() {
	close(s.started)
	s.addReader()
	go s.watch()
	go s.finish()
}

// InUse is how requests come, Ring or Device, and why not over rings.
func (s *Server) InUse() (Kind, error) {
	if s.noRing == nil {
		return Ring, nil
	}
	return Device, s.noRing
}

// end is called by who reads once the kernel has no requests any more.
func (s *Server) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.hasEnded() {
		close(s.ended)
	}
}

// finish waits for the answers that are under way when the kernel has no requests any more.
func (s *Server) finish() {
	<-s.ended
	answered := make(chan struct{})
	go func() { s.workers.Wait(); close(answered) }()
	for waiting := true; waiting; {
		// Nobody waits for them. Again and again: one may not have begun to listen.
		s.interruptAll()
		select {
		case <-answered:
			waiting = false
		case <-time.After(interruptEvery):
		}
	}
	s.close.Lock()
	s.close.closed = true
	unix.Close(s.fd)
	s.close.Unlock()
	s.raw.OnUnmount()
	close(s.done)
}

// Threads is how many that wait for the kernel should have a processor of Go's.
func (s *Server) Threads() int {
	n := int(mostReaders())
	if s.queues != nil {
		n += len(s.queues) // of all seats, about one a processor has requests at a time
	}
	return n
}

// Wait returns when the filesystem has been unmounted and the last request answered.
func (s *Server) Wait() { <-s.done }

// addReader has one worker more read.
func (s *Server) addReader() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hasEnded() {
		return // finish may have waited for the workers already
	}
	s.readers.Add(1)
	if n := len(s.mu.idle); n > 0 {
		s.mu.idle[n-1].wake <- struct{}{} // has room: it was idle, and is so once
		s.mu.idle = s.mu.idle[:n-1]
		return
	}
	w := s.newWorker()
	s.mu.all[&w.call] = true
	s.workers.Add(1)
	go w.run()
}

// leave takes back that a worker reads, unless it is the only one.
func (s *Server) leave() bool {
	for {
		n := s.readers.Load()
		if n <= 1 {
			return false
		}
		if s.readers.CompareAndSwap(n, n-1) {
			return true
		}
	}
}

// mostReaders is how many read while answers have to wait.
func mostReaders() int32 { return int32(runtime.NumCPU() + 1) }

// rejoin has a worker that has left read again, unless enough do.
func (s *Server) rejoin() bool {
	for {
		n := s.readers.Load()
		if n >= mostReaders() {
			return false
		}
		if s.readers.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// park has the worker wait until it is to read: false if it shall end instead.
func (s *Server) park(w *worker) bool {
	w.release()
	s.mu.Lock()
	if s.hasEnded() || len(s.mu.idle) >= mostIdle {
		delete(s.mu.all, &w.call)
		s.mu.Unlock()
		return false
	}
	s.mu.idle = append(s.mu.idle, w)
	s.mu.Unlock()
	select {
	case <-w.wake:
		return true
	case <-s.ended:
		return false
	}
}

func (s *Server) hasEnded() bool {
	select {
	case <-s.ended:
		return true
	default:
		return false
	}
}

func (s *Server) interruptAll() {
	s.mu.Lock()
	var requests []uint64
	for c := range s.mu.all {
		if unique := c.unique.Load(); unique != 0 {
			requests = append(requests, unique)
		}
	}
	s.mu.Unlock()
	for _, unique := range requests {
		var r struct {
			fuse.InHeader
			Unique uint64
		}
		r.Length, r.Opcode, r.Unique = uint32(unsafe.Sizeof(r)), opInterrupt, unique
		s.proto.HandleRequest([][]byte{bytesOf(&r)}, [][]byte{make([]byte, replyHead)})
	}
}

// watch adds a reader when all of them have been answering since it last looked. It looks only
// while there are requests, so an idle mount does not wake a processor.
func (s *Server) watch() {
	var seen uint64
	for looks := 0; !s.hasEnded(); {
		time.Sleep(patience)
		n := s.answered.Load()
		switch {
		case n != seen:
			looks = 0
		case s.reading.Load() == 0:
			s.addReader()
			looks = 0
		default:
			if looks++; looks >= restAfter {
				s.rest(n)
				looks = 0
			}
		}
		seen = n
	}
}

// rest returns when there are quick requests again, of which n had been answered before.
func (s *Server) rest(n uint64) {
	s.resting.Store(true)
	// Whoever has begun in between may not have seen that we rest.
	if s.answered.Load() != n || s.reading.Load() == 0 {
		s.resting.Store(false)
		return
	}
	select {
	case <-s.awake:
	case <-s.ended:
	}
}

// rouse wakes the watch if it rests.
func (s *Server) rouse() {
	if s.resting.Load() && s.resting.CompareAndSwap(true, false) {
		select {
		case s.awake <- struct{}{}:
		default: // one is on its way already
		}
	}
}

// logf logs what a maintainer may want to see and a user need not.
func (s *Server) logf(format string, args ...any) {
	if s.opts.Logger != nil {
		s.opts.Logger.Printf(format, args...)
	}
}
