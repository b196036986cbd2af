package transport

import (
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const (
	// mostSeats a queue begins with, each a thread that waits: as many answers can take long before
	// seats have to be added.
	mostSeats = 64
	// leastSeats of a queue on a machine with many processors, where allSeats bounds all.
	leastSeats, allSeats = 8, 512
)

// A queue has the requests of the programs that run on one processor. The kernel hands one to the
// seat that began to wait last, so a few seats have nearly all of them. What finds no seat lies
// in the queue until some answer frees one; a seat that is added then is handed only what comes
// later. But what lies there may be what all answers wait for: one has the kernel write pages
// back, and that is a request to this queue.
//
// So there are more seats than answers. Seats are added while half of the first still wait, and
// after that the queue is poked: a request of our own comes, and its answer frees a seat.
type queue struct {
	server  *Server
	cpu     int
	low     int32        // add seats with fewer waiting
	waiting atomic.Int32 // seats
	adding  atomic.Bool
	seats   []*seat // at first
}

// took is called by a seat that has a request.
func (q *queue) took() {
	if q.waiting.Add(-1) < q.low && q.adding.CompareAndSwap(false, true) {
		go q.grow()
	}
}

// prepareRings makes rings if the kernel, whose INIT is in, can have them and they are wanted. The
// error is ErrNoRing.
func (s *Server) prepareRings(in []byte) error {
	if err := s.Kind.offered(); err != nil {
		return err
	}
	if s.opts.MaxWrite < leastPayload {
		return &ErrNoRing{fmt.Sprintf("requests have no more than %d bytes", s.opts.MaxWrite)}
	}
	if !offersRings(in) {
		return &ErrNoRing{"the kernel does not offer it; from Linux 6.14 on it does once root has written Y to " + enableFile}
	}
	n, online, err := processors()
	if err != nil {
		return &ErrNoRing{err.Error()}
	}
	for cpu := range n {
		q := &queue{server: s, cpu: cpu}
		s.queues = append(s.queues, q)
		seats := 1 // the kernel uses no queue before each has one
		if slices.Contains(online, cpu) {
			seats = max(leastSeats, min(mostSeats, allSeats/n))
		}
		q.low = int32(seats / 2)
		for range seats {
			t, err := q.newSeat()
			if err != nil {
				s.dropQueues()
				return &ErrNoRing{err.Error()}
			}
			q.seats = append(q.seats, t)
		}
	}
	return nil
}

const (
	enableFile = "/sys/module/fuse/parameters/enable_uring"
	capInitExt = 1 << 30 // INIT has flags beyond the first 32
	capRings   = 1 << 41 // FUSE_OVER_IO_URING
)

// offersRings reports whether the kernel that greets with in does.
func offersRings(in []byte) bool {
	if len(in) < int(unsafe.Sizeof(fuse.InitIn{})) {
		return false
	}
	flags := (*fuse.InitIn)(unsafe.Pointer(&in[0])).Flags64()
	return flags&capInitExt != 0 && flags&capRings != 0
}

// dropQueues is called while no seat has begun.
func (s *Server) dropQueues() {
	for _, q := range s.queues {
		for _, t := range q.seats {
			t.close()
		}
	}
	s.queues = nil
}

// registerRings gives the kernel all entries, after which it uses them. Before it has one of each
// queue it keeps all requests back. The error is ErrNoRing: then the connection is of no use.
func (s *Server) registerRings() error {
	var err error
	results := make(chan error)
	begun := 0
	for _, q := range s.queues {
		for _, t := range q.seats {
			go t.run(results)
			begun++
		}
	}
	for range begun {
		if e := <-results; e != nil {
			err = e // one is as good as the other
		}
	}
	if err != nil {
		return &ErrNoRing{fmt.Sprint("register an entry: ", err)}
	}
	return nil
}

// run is the goroutine of a seat.
func (t *seat) run(result chan<- error) {
	s := t.queue.server
	defer t.close()
	s.mu.Lock()
	if s.hasEnded() { // finish may have waited for the seats already
		s.mu.Unlock()
		result <- unix.ENOTCONN
		return
	}
	s.workers.Add(1)
	defer s.workers.Done()
	s.mu.all[&t.call] = true
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.mu.all, &t.call)
		s.mu.Unlock()
	}()
	// The kernel works for the thread that has registered the entry, until it has had a request:
	// that thread has to wait for it.
	runtime.LockOSThread()
	err := t.begin()
	result <- err
	if err != nil {
		runtime.UnlockOSThread()
		return
	}
	t.queue.waiting.Add(1)
	select {
	case <-s.started:
		t.serve()
	case <-s.ended:
	}
}

// grow adds as many seats as the queue keeps waiting.
func (q *queue) grow() {
	defer q.adding.Store(false)
	results := make(chan error, q.low)
	begun := 0
	for range q.low {
		t, err := q.newSeat()
		if err != nil {
			q.server.logf("processor %d gets no further seat: %v", q.cpu, err) // tried again with the next request
			break
		}
		go t.run(results)
		begun++
	}
	for range begun {
		if err := <-results; err != nil && !connectionEnds(err) {
			q.server.logf("processor %d: %v", q.cpu, err)
		}
	}
	q.poke()
}

// poke has the kernel send the queue a request: to read what it caches of a file, none of it. The
// file was asked for last; if the kernel has forgotten it, no answer waits for it either.
func (q *queue) poke() {
	s := q.server
	file := s.file.Load()
	if file == 0 {
		return
	}
	runtime.LockOSThread() // for good: the thread stays on this processor, whose queue is to get it
	var set unix.CPUSet
	set.Set(q.cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		s.logf("processor %d is not poked: %v", q.cpu, err)
		return
	}
	const number = 1<<63 | 2 // of no request: those count up from 2, by 2
	st := notify(s, fuse.NOTIFY_RETRIEVE_CACHE, &fuse.NotifyRetrieveOut{NotifyUnique: number, Nodeid: file}, "")
	if !st.Ok() {
		s.logf("processor %d is not poked: %v", q.cpu, st)
	}
}

// aboutFile reports whether requests of an opcode are about a regular file only.
func aboutFile(op uint32) bool {
	switch op {
	case opRead, opWrite, opLseek, opFallocate, opCopyFileRange:
		return true
	}
	return false
}
