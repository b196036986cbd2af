package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"syscall"
)

// controlBase is the base of a client of a control socket: its dial function knows the way.
const controlBase = "http://daemon"

// NewControlClient returns a client of the daemon that dial connects to.
func NewControlClient(dial func(ctx context.Context) (net.Conn, error)) *Client {
	return NewClient(controlBase, dial)
}

// A wayError is what became of a request that got no whole answer, in words for people: the
// transport's own name methods, URLs and functions of Go. errors.Is sees what it wraps.
type wayError struct {
	text   string
	causes []error
}

func (e *wayError) Error() string   { return e.text }
func (e *wayError) Unwrap() []error { return e.causes }

// explainWay makes what the transport says of a request a wayError, or the error of who gave the
// body, or one that says what to do. It goes by the errors' types alone.
func explainWay(req *http.Request, err error) error {
	if in, ok := errors.AsType[*inputError](err); ok {
		return in.error // the way was good
	}
	if ctx := req.Context(); ctx.Err() != nil {
		return explainEnd(ctx, err)
	}
	// Nothing was sent: there is no server.
	if op := new(net.OpError); errors.As(err, &op) && op.Op == "dial" {
		return &wayError{fmt.Sprintf("%v: %s: %s", ErrNoAnswer, req.URL.Host, dialReason(op)), []error{ErrNoAnswer, err}}
	}
	if untrusted := explainTLS(req, err); untrusted != nil {
		return untrusted
	}
	return brokenOff(req, err)
}

// explainEnd is for a request that was given up here.
func explainEnd(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	text := cause.Error()
	if errors.Is(cause, context.Canceled) {
		text = "interrupted"
	}
	return &wayError{text, []error{err, ctx.Err(), cause}}
}

// brokenOff is for a connection that ended amid a request.
func brokenOff(req *http.Request, err error) error {
	who := "the daemon"
	if "http://"+req.URL.Host != controlBase {
		who = req.URL.Host
	}
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, end) {
			return &wayError{who + " has ended, or broke off, before the answer was whole", []error{ErrNoAnswer, err}}
		}
	}
	reason := err
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		reason = wrapped.Err
	}
	text := reason.Error()
	if who == req.URL.Host {
		text = who + ": " + text
	}
	return &wayError{text, []error{err}}
}

// dialReason says why nobody was reached.
func dialReason(op *net.OpError) string {
	if name, ok := errors.AsType[*net.DNSError](op); ok {
		if name.IsNotFound {
			return "no machine has this name"
		}
		return "the name cannot be looked up"
	}
	if errno, ok := errors.AsType[syscall.Errno](op); ok {
		return errno.Error()
	}
	if op.Timeout() {
		return "no connection in time"
	}
	return op.Err.Error()
}

// An inputError is an error of the reader that a request's body comes from.
type inputError struct{ error }

// input marks errors of a body's reader, so that they are not taken for those of the way.
type input struct{ io.Reader }

func (b input) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err != nil && err != io.EOF {
		err = &inputError{err}
	}
	return n, err
}

// Close lets who writes into a pipe know that nobody reads on.
func (b input) Close() error {
	if c, ok := b.Reader.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// output is an answer's body whose errors are explained.
type output struct {
	io.ReadCloser
	req *http.Request
}

func (b output) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	switch {
	case err == nil || errors.Is(err, io.EOF):
	case b.req.Context().Err() != nil:
		err = explainEnd(b.req.Context(), err)
	default:
		err = brokenOff(b.req, err)
	}
	return n, err
}
