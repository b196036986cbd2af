package remote

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/quarxtor/quarxfs/store"
)

// An Object is an object's name, ID and sizes.
type Object = store.ObjectInfo

// trailerError carries the Failure of an object that could not be read to its
// end: its first bytes were on their way by then.
const trailerError = "Quarxfs-Error"

// refPath is the path of an object. Dots would be taken for directories.
func refPath(ref string) string {
	esc := url.PathEscape(ref)
	if strings.Trim(esc, ".") == "" {
		esc = strings.ReplaceAll(esc, ".", "%2E")
	}
	return "/v1/objects/" + esc
}

// Put implements Node.
func (c *Client) Put(ctx context.Context, name string, r io.Reader) (Object, error) {
	method, path := http.MethodPost, "/v1/objects"
	if name != "" {
		method, path = http.MethodPut, refPath(name)
	}
	var o Object
	err := c.call(ctx, method, path, r, &o)
	return o, err
}

func (s *server) put(w http.ResponseWriter, r *http.Request) {
	// On a failure the rest of the body is not wanted.
	o, err := s.node.Put(r.Context(), r.PathValue("ref"), uploaded{r.Body})
	s.answer(w, r, o, err)
}

// uploaded is a request's body. One that was cut off must not be taken for a short
// one, as io.ReadFull and those who call it do.
type uploaded struct{ r io.Reader }

func (b uploaded) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err == io.ErrUnexpectedEOF {
		err = errBodyCut
	}
	return n, err
}

// Get implements Node.
func (c *Client) Get(ctx context.Context, ref string, off, length int64, w io.Writer) error {
	if off < 0 {
		return fmt.Errorf("%w: offset %d", ErrRequest, off)
	}
	if length == 0 {
		length, w = 1, io.Discard // a range holds a byte at least
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+refPath(ref), nil)
	if err != nil {
		return err
	}
	if off > 0 || length > 0 {
		req.Header.Set("Range", formatRange(off, length))
	}
	resp, err := c.send(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(w, resp.Body); err != nil {
		return err
	}
	text := resp.Trailer.Get(trailerError)
	if text == "" {
		return nil
	}
	var f Failure
	if err := json.Unmarshal([]byte(text), &f); err != nil {
		return fmt.Errorf("read %s: %w", ref, errCut)
	}
	return f.err()
}

func (s *server) get(w http.ResponseWriter, r *http.Request) {
	off, length, err := parseRange(r.Header.Get("Range"))
	if err != nil {
		s.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Trailer", trailerError)
	body := &lateWriter{w: w, status: http.StatusOK}
	if off > 0 || length >= 0 {
		body.status = http.StatusPartialContent
	}
	err = s.node.Get(r.Context(), r.PathValue("ref"), off, length, body)
	if err == nil {
		_, err = body.Write(nil)
	}
	if err == nil || body.err != nil {
		return
	}
	if !body.begun {
		w.Header().Del("Trailer")
		s.fail(w, r, err)
		return
	}
	f, _ := failureOf(err)
	s.log.Error("an object could not be sent to its end", "ref", r.PathValue("ref"), "err", err)
	text, err := json.Marshal(f)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set(trailerError, string(text))
}

// A lateWriter holds the status back until there are bytes, since before that
// a failure may still set it.
type lateWriter struct {
	w      http.ResponseWriter
	status int
	begun  bool
	err    error // the client has left
}

func (l *lateWriter) Write(b []byte) (int, error) {
	if !l.begun {
		l.begun = true
		l.w.WriteHeader(l.status)
	}
	n, err := l.w.Write(b)
	if err != nil {
		l.err = err
	}
	return n, err
}

func formatRange(off, length int64) string {
	if length < 0 {
		return fmt.Sprintf("bytes=%d-", off)
	}
	return fmt.Sprintf("bytes=%d-%d", off, off+length-1)
}

// parseRange reads one range of RFC 9110; an end is needed for none, a start
// for each. length is -1 up to the object's end.
func parseRange(h string) (off, length int64, err error) {
	if h == "" {
		return 0, -1, nil
	}
	bad := fmt.Errorf("%w: range %q: only bytes=FIRST-[LAST] is understood", ErrRequest, h)
	spec, ok := strings.CutPrefix(h, "bytes=")
	from, to, ok2 := strings.Cut(spec, "-")
	if !ok || !ok2 {
		return 0, 0, bad
	}
	if off, err = strconv.ParseInt(from, 10, 64); err != nil || off < 0 {
		return 0, 0, bad
	}
	if to == "" {
		return off, -1, nil
	}
	last, err := strconv.ParseInt(to, 10, 64)
	if err != nil || last < off || last-off == 1<<63-1 {
		return 0, 0, bad
	}
	return off, last - off + 1, nil
}

// Remove implements Node.
func (c *Client) Remove(ctx context.Context, ref string) error {
	return c.call(ctx, http.MethodDelete, refPath(ref), nil, &struct{}{})
}

func (s *server) remove(w http.ResponseWriter, r *http.Request) {
	s.answer(w, r, struct{}{}, s.node.Remove(r.Context(), r.PathValue("ref")))
}

// ListObjects implements Node.
func (c *Client) ListObjects(ctx context.Context, fn func(Object) error) error {
	return receiveStream(ctx, c, "/v1/objects", fn)
}

func (s *server) objects(w http.ResponseWriter, r *http.Request) {
	sendStream(s, w, r, func(fn func(Object) error) error { return s.node.ListObjects(r.Context(), fn) })
}

// ListFiles implements Files.
func (c *Client) ListFiles(ctx context.Context, filter FileFilter, fn func(File) error) error {
	return receiveStream(ctx, c, withQuery("/v1/files", filter.query()), fn)
}

func (s *server) files(w http.ResponseWriter, r *http.Request) {
	filter, err := parseFileFilter(r.URL.Query())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	sendStream(s, w, r, func(fn func(File) error) error { return s.node.ListFiles(r.Context(), filter, fn) })
}

// ListBlocks implements Node.
func (c *Client) ListBlocks(ctx context.Context, filter BlockFilter, fn func(BlockInfo) error) error {
	return receiveStream(ctx, c, withQuery("/v1/blocks", filter.query()), fn)
}

func (s *server) blocks(w http.ResponseWriter, r *http.Request) {
	filter, err := parseBlockFilter(r.URL.Query())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	sendStream(s, w, r, func(fn func(BlockInfo) error) error { return s.node.ListBlocks(r.Context(), filter, fn) })
}
