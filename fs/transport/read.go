package transport

import "github.com/hanwen/go-fuse/v2/fuse"

// A lender is the filesystem as go-fuse sees it. Where an answer to READ is given as slices, they
// go to the kernel as they are: ProtocolServer would copy them together first.
type lender struct {
	fuse.RawFileSystem
	server *Server
}

// Read implements fuse.RawFileSystem.
func (l lender) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	r, st := l.RawFileSystem.Read(cancel, in, buf)
	if !st.Ok() || r == nil || l.server.queues != nil { // those have to be put together
		return r, st
	}
	w := l.server.lentTo(in.Unique)
	if w == nil {
		return r, st
	}
	w.lent.ReadResult, w.lent.buf = r, buf
	return &w.lent, st
}

// lend notes who answers a READ; nil: nobody any more.
func (s *Server) lend(unique uint64, w *worker) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w == nil {
		delete(s.mu.read, unique)
		return
	}
	s.mu.read[unique] = w
}

func (s *Server) lentTo(unique uint64) *worker {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.read[unique]
}

// lent is the result of a READ, which is kept until the kernel has it.
type lent struct {
	fuse.ReadResult
	buf  []byte   // where it may be put together
	data [][]byte // nil: none, or not yet asked for
	size int      // of data
	iov  [][]byte
}

// Readv implements what go-fuse asks of a result that knows where its bytes are to go: it says how
// many there are and leaves them where they are.
func (l *lent) Readv([][]byte) (int, fuse.Status) {
	var st fuse.Status
	if s, ok := l.ReadResult.(interface {
		Slices() ([][]byte, fuse.Status)
	}); ok {
		l.data, st = s.Slices()
	} else {
		var b []byte
		b, st = l.Bytes(l.buf)
		l.data = append(l.data[:0], b)
	}
	if !st.Ok() {
		l.data = nil
		return 0, st
	}
	l.size = 0
	for _, b := range l.data {
		l.size += len(b)
	}
	return l.size, fuse.OK
}

// Done is called before the bytes are with the kernel: the result is done later.
func (l *lent) Done() {}

func (l *lent) done() {
	if l.ReadResult == nil {
		return
	}
	l.ReadResult.Done()
	clear(l.iov)
	*l = lent{iov: l.iov[:0]}
}
