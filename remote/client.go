package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/quarxtor/quarxfs/remote/rawjson"
	"github.com/quarxtor/quarxfs/store/routine"
)

// Client is the node of a store that another process holds.
type Client struct {
	base string
	http *http.Client
}

// NewClient returns a client of the server at base ("http://host:port"). dial
// may be nil; the control socket needs one.
func NewClient(base string, dial func(ctx context.Context) (net.Conn, error)) *Client {
	t := &http.Transport{DisableCompression: true}
	if dial != nil {
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }
	}
	return &Client{base, newHTTP(t)}
}

// newHTTP follows no redirect: the API has none, and a request goes out with a token, to whatever
// host a peer or somebody before it would name.
func newHTTP(way http.RoundTripper) *http.Client {
	return &http.Client{Transport: way, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// NewClientOver is NewClient for a base that may have a path, and a way of its own there.
func NewClientOver(base string, way http.RoundTripper) *Client {
	return &Client{base, newHTTP(way)}
}

// Close drops the client's idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// do sends a request and returns the body of a good answer.
func (c *Client) do(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	// What is all in memory can be sent twice, and cannot fail.
	if _, ok := body.(*bytes.Reader); !ok && body != nil {
		body = input{body}
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, err
	}
	return c.send(req)
}

// send returns a good answer; a bad one becomes an error. A server that is busy is
// asked again.
func (c *Client) send(req *http.Request) (*http.Response, error) {
	for try := 0; ; try++ {
		resp, err := c.http.Do(req)
		if err != nil {
			return nil, explainWay(req, err)
		}
		resp.Body = output{resp.Body, req}
		if resp.StatusCode < 300 {
			return resp, nil
		}
		err = errorOf(req, resp)
		// A refusal came before anything was done, so asking again is safe for any request whose
		// body can be sent twice.
		if again := try < busyTries && (errors.Is(err, ErrBusy) || errors.Is(err, ErrRate)); !again || !rewind(req) {
			return nil, err
		}
		// Twice as long each time: a busy server gets on the sooner the less it is asked.
		if serr := routine.Sleep(req.Context(), busyWait<<try); serr != nil {
			return nil, serr
		}
	}
}

const (
	busyTries = 4
	busyWait  = time.Second // before the first of them; twice as much each time
)

// rewind makes a request ready to be sent again, if it can be.
func rewind(req *http.Request) bool {
	if req.Body == nil || req.Body == http.NoBody {
		return true
	}
	if req.GetBody == nil {
		return false
	}
	body, err := req.GetBody()
	req.Body = body
	return err == nil
}

func errorOf(req *http.Request, resp *http.Response) error {
	defer resp.Body.Close()
	var e envelope
	err := rawjson.Read(io.LimitReader(resp.Body, 1<<20), &e)
	// An answer to HEAD has no body, so the failure comes in a header.
	if req.Method == http.MethodHead {
		e.Error = new(Failure)
		err = rawjson.Unmarshal([]byte(resp.Header.Get(headerError)), e.Error)
	}
	if err != nil || e.Error == nil {
		err := fmt.Errorf("%s %s: the server answers %s", req.Method, req.URL.Path, resp.Status)
		if to := resp.Header.Get("Location"); to != "" && resp.StatusCode < 400 {
			return fmt.Errorf("%w; it sends clients on to %q, where the token does not go: give that address, if it is the right one", err, to)
		}
		// No failure of ours in the body: the path is not served there, or something else than
		// quarxfs answers.
		if resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusMethodNotAllowed {
			return fmt.Errorf("%w: not to be had from there: run the command on the machine of the store (%w)", ErrRequest, err)
		}
		return explainPlain(req, err)
	}
	// How long the object is, for whoever asks for what comes behind its end.
	if size, ok := strings.CutPrefix(resp.Header.Get("Content-Range"), "bytes */"); ok {
		n, _ := strconv.ParseInt(size, 10, 64)
		return &endError{e.Error.err(), n}
	}
	return e.Error.err()
}

// maxAnswer bounds an answer that is one JSON value, in bytes. Peers are not believed to end.
const maxAnswer = 64 << 20

func (c *Client) call(ctx context.Context, method, path string, body io.Reader, out any) error {
	resp, err := c.do(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err == nil && len(b) > maxAnswer {
		err = fmt.Errorf("it has more than %d MiB", maxAnswer>>20) // to parse it would tell nobody why
	}
	if err == nil {
		err = rawjson.Unmarshal(b, out)
	}
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	return nil
}

// post sends a request with a JSON body.
func (c *Client) post(ctx context.Context, method, path string, in, out any) error {
	b, err := rawjson.Marshal(in)
	if err != nil {
		return err
	}
	return c.call(ctx, method, path, bytes.NewReader(b), out)
}

// Stats implements Node.
func (c *Client) Stats(ctx context.Context) (Stats, error) {
	var s Stats
	err := c.call(ctx, http.MethodGet, "/v1/stats", nil, &s)
	return s, err
}

// Sync implements Node.
func (c *Client) Sync(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, "/v1/commit", nil, &struct{}{})
}
