package serve

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/quarxtor/quarxfs/remote"
)

// withStall gives each read of a request's body and each write of its answer so
// much time, and ends the connection of a client that does not move. An answer may
// take as long as it wants to be made.
func withStall(w http.ResponseWriter, r *http.Request, d time.Duration) (http.ResponseWriter, *http.Request) {
	rc := http.NewResponseController(w)
	// Deadlines are the connection's, and so may be an earlier request's.
	_ = rc.SetWriteDeadline(time.Now().Add(d)) // a recorder in a test has none, here and below
	if r.Body != nil && r.Body != http.NoBody {
		r = r.WithContext(r.Context())
		r.Body = &stallBody{ReadCloser: r.Body, rc: rc, d: d}
	}
	return &stallWriter{w, rc, d}, r
}

// slowest is how many bytes a second a body has to bring. A client that sends one byte a minute
// would else keep its places for ever.
const slowest = 256

type stallBody struct {
	io.ReadCloser
	rc *http.ResponseController
	d  time.Duration

	waited time.Duration // for the client, since the last full d of that
	came   int64         // bytes meanwhile
}

func (b *stallBody) Read(p []byte) (int, error) {
	begun := time.Now()
	_ = b.rc.SetReadDeadline(begun.Add(b.d))
	n, err := b.ReadCloser.Read(p)
	// Only while it is read from: a server that is slow itself is not the client's fault.
	b.waited, b.came = b.waited+time.Since(begun), b.came+int64(n)
	switch {
	case errors.Is(err, io.EOF):
		// From here on the server waits for the client's leaving, for as long as the
		// answer takes.
		_ = b.rc.SetReadDeadline(time.Time{})
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = fmt.Errorf("%w: nothing came for %v", remote.ErrBodyStalled, b.d)
	case err == nil && b.waited >= b.d:
		if b.came < int64(b.waited.Seconds()*slowest) {
			err = fmt.Errorf("%w: %d bytes came in %v", remote.ErrBodyStalled, b.came, b.waited.Round(time.Second))
		}
		b.waited, b.came = 0, 0
	}
	return n, err
}

type stallWriter struct {
	http.ResponseWriter
	rc *http.ResponseController
	d  time.Duration
}

// Unwrap is for http.ResponseController.
func (w *stallWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *stallWriter) Write(p []byte) (int, error) {
	_ = w.rc.SetWriteDeadline(time.Now().Add(w.d))
	return w.ResponseWriter.Write(p)
}
