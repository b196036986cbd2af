package remote

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"

	"github.com/quarxtor/quarxfs/graph/budget"
	"github.com/quarxtor/quarxfs/remote/rawjson"
)

// A stream is JSON values, one a line. The last line of a stream that failed is
// an envelope, of one that ended well "{}"; so a stream that was cut off is told
// from a short one.

const (
	contentStream = "application/jsonl"
	endOfStream   = "{}"
	// flushEvery bounds how long a line waits for others.
	flushEvery = 200 * time.Millisecond
	maxLine    = 1 << 20
)

// sendStream writes what each calls its function with. An error before the
// first value becomes the answer's status.
func sendStream[T any](s *server, w http.ResponseWriter, r *http.Request, each func(func(T) error) error) {
	w.Header().Set("Content-Type", contentStream)
	out := bufio.NewWriterSize(w, 64<<10)
	sent, flushed := 0, time.Now()
	err := each(func(v T) error {
		// What has every value at hand does not look itself.
		if err := r.Context().Err(); err != nil {
			return err
		}
		sent++
		if err := rawjson.Write(out, v); err != nil {
			return err
		}
		// Lines gather, or each of a million would be a packet.
		if time.Since(flushed) < flushEvery {
			return nil
		}
		flushed = time.Now()
		if err := out.Flush(); err != nil {
			return err
		}
		return http.NewResponseController(w).Flush()
	})
	switch {
	case err == nil:
		fmt.Fprintln(out, endOfStream)
	// Nothing has gone out yet, so the failure can still be the answer's status.
	case sent == 0:
		s.fail(w, r, err)
		return
	default:
		f, _ := failureOf(budget.Cause(r.Context(), err))
		_ = rawjson.Write(out, envelope{&f})
	}
	_ = out.Flush() // the client has left
}

var (
	// ErrCut says that an answer broke off: what came before is good, and not all.
	ErrCut     = errors.New("the answer was cut off")
	errBodyCut = errors.New("the request's body was cut off")
)

// Retryable tells whether the same request may go well later: the connection broke, or the
// node had too much to do.
func Retryable(err error) bool {
	if errors.Is(err, context.Canceled) && !errors.Is(err, ErrCut) {
		return false
	}
	// Each of these says that the way broke, or that nothing was begun.
	for _, e := range []error{ErrCut, errBodyCut, io.ErrUnexpectedEOF, io.EOF, syscall.ECONNRESET, syscall.ECONNREFUSED, syscall.EPIPE, ErrBusy, ErrRate} {
		if errors.Is(err, e) {
			return true
		}
	}
	if _, ok := errors.AsType[*url.Error](err); ok {
		return true
	}
	_, ok := errors.AsType[net.Error](err)
	return ok
}

// receiveStream calls fn with each value of a stream. An error of fn ends it.
func receiveStream[T any](ctx context.Context, c *Client, path string, fn func(T) error) error {
	return receiveMethod(ctx, c, http.MethodGet, path, nil, fn)
}

func receiveMethod[T any](ctx context.Context, c *Client, method, path string, body io.Reader, fn func(T) error) error {
	// When fn gives up, this closes the connection, and the server stops making the rest.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	resp, err := c.do(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(make([]byte, 0, 64<<10), maxLine)
	for lines.Scan() {
		line := lines.Bytes()
		// Only this ends well: a body that just ends was cut off by somebody between.
		if string(line) == endOfStream {
			return drain(resp.Body)
		}
		// No value begins so: none has a member of that name first.
		if bytes.HasPrefix(line, []byte(`{"error":`)) {
			var e envelope
			if err := rawjson.Unmarshal(line, &e); err != nil || e.Error == nil {
				return ErrCut
			}
			return e.Error.err()
		}
		var v T
		if err := rawjson.Unmarshal(line, &v); err != nil {
			return fmt.Errorf("read the answer: %w", err)
		}
		if err := fn(v); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%w: %w", ErrCut, err)
	}
	return ErrCut
}

// drain reads the end of a body, so that its connection can be used again.
func drain(body io.Reader) error {
	_, err := io.Copy(io.Discard, io.LimitReader(body, 4096))
	return err
}
