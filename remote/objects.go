package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/config"
)

// An Object is an object's name, ID and sizes.
type Object = store.ObjectInfo

// refPath is the path of an object. Dots would be taken for directories.
func refPath(ref string) string {
	esc := url.PathEscape(ref)
	if strings.Trim(esc, ".") == "" {
		esc = strings.ReplaceAll(esc, ".", "%2E")
	}
	return "/v1/objects/" + esc
}

// Put implements Node.
func (c *Client) Put(ctx context.Context, name string, r io.Reader, flags ...store.IngestFlag) (Object, error) {
	method, path := http.MethodPost, "/v1/objects"
	if name != "" {
		method, path = http.MethodPut, refPath(name)
	}
	if slices.Contains(flags, store.Replace) {
		path += "?replace=true"
	}
	var o Object
	err := c.call(ctx, method, path, r, &o)
	return o, err
}

func (s *server) put(w http.ResponseWriter, r *http.Request) {
	flags, err := putFlags(r.URL.Query())
	if caller, _ := CallerOf(r.Context()); err == nil && len(flags) > 0 && caller.onlyAppends(config.ScopeWrite) {
		err = fmt.Errorf("%w: token %q may add objects and replace none", ErrForbidden, caller.Token.Name)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	// On a failure the rest of the body is not wanted.
	o, err := s.node.Put(r.Context(), r.PathValue("ref"), uploaded{r.Body}, flags...)
	if err == nil {
		// An ID is its bytes, so it is a strong validator for all time.
		w.Header().Set("ETag", `"`+o.ID.String()+`"`)
		w.Header().Set("Location", refPath(o.ID.String()))
	}
	s.answer(w, r, o, err)
}

func putFlags(q url.Values) ([]store.IngestFlag, error) {
	switch q.Get("replace") {
	case "", "false":
		return nil, nil
	case "true":
		return []store.IngestFlag{store.Replace}, nil
	}
	return nil, fmt.Errorf("%w: replace=%q: choose true or false", ErrRequest, q.Get("replace"))
}

// uploaded is a request's body. One that was cut off must not be taken for a short
// one, as io.ReadFull and those who call it do.
type uploaded struct{ r io.Reader }

func (b uploaded) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = errBodyCut
	}
	return n, err
}

// Get implements Node. What breaks off in the middle is asked for again from there
// on, as long as some more comes each time.
func (c *Client) Get(ctx context.Context, ref string, off, length int64, w io.Writer) error {
	if off < 0 {
		return fmt.Errorf("%w: offset %d", ErrRequest, off)
	}
	g := download{c: c, ref: ref, w: w}
	for {
		n, err := g.part(ctx, off, length)
		// Ended by a try that brought nothing, not by a number of tries: a large object on a bad
		// way gets on.
		if n == 0 || !errors.Is(err, ErrCut) || ctx.Err() != nil {
			return err
		}
		off += n
		if length >= 0 {
			length -= n
		}
	}
}

// A download is an object on its way.
type download struct {
	c    *Client
	ref  string
	etag string // of what has begun to come; another object must not follow it
	w    io.Writer
}

// part returns how much it has written. ErrCut: there was to be more.
func (g *download) part(ctx context.Context, off, length int64) (int64, error) {
	w := g.w
	if length == 0 {
		length, w = 1, io.Discard // a range holds a byte at least
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, g.c.base+refPath(g.ref), nil)
	if err != nil {
		return 0, err
	}
	if off > 0 || length > 0 {
		req.Header.Set("Range", formatRange(off, length))
	}
	if g.etag != "" {
		req.Header.Set("If-Match", g.etag)
	}
	resp, err := g.c.send(req)
	if at := new(endError); errors.As(err, &at) && at.size == off {
		return 0, nil // no byte is no range, and no failure
	}
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	// A server that passes over Range sends the object from its start.
	if off > 0 && resp.StatusCode != http.StatusPartialContent {
		return 0, fmt.Errorf("object %q has no bytes, not %d: %w", g.ref, off, store.ErrRange)
	}
	g.etag = resp.Header.Get("ETag")
	body := &watched{r: resp.Body}
	n, err := io.Copy(w, body)
	if body.err != nil {
		err = fmt.Errorf("read %s: %w: %w", g.ref, ErrCut, body.err)
	}
	return n, err
}

// watched remembers why its reader failed.
type watched struct {
	r   io.Reader
	err error
}

func (r *watched) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}

// An endError says that a range begins at an object's end or behind it.
type endError struct {
	error
	size int64
}

func (e *endError) Unwrap() error { return e.error }

// setObject tells of an object in an answer's header.
func setObject(h http.Header, ref string, o Object) {
	h.Set("ETag", `"`+o.ID.String()+`"`)
	h.Set(headerName, url.PathEscape(o.Name))
	h.Set(headerData, strconv.FormatInt(o.Data, 10))
	h.Set("Cache-Control", "private, no-cache")
	if ref == o.ID.String() {
		h.Set("Cache-Control", immutable)
	}
}

const (
	headerName = "Quarxfs-Name"       // an object's, as in a path
	headerData = "Quarxfs-Data-Bytes" // its size without holes

	immutable = "private, max-age=31536000, immutable"
)

// StatObject implements Node.
func (c *Client) StatObject(ctx context.Context, ref string) (o Object, err error) {
	resp, err := c.do(ctx, http.MethodHead, refPath(ref), nil)
	if err != nil {
		return o, err
	}
	defer resp.Body.Close()
	// A HEAD has no body: all that is known of the object is in headers.
	h := resp.Header
	err = o.ID.UnmarshalText([]byte(strings.Trim(h.Get("ETag"), `"`)))
	o.Size = resp.ContentLength
	var errs [3]error
	o.Name, errs[0] = url.PathUnescape(h.Get(headerName))
	o.Data, errs[1] = strconv.ParseInt(h.Get(headerData), 10, 64)
	if t := h.Get("Last-Modified"); t != "" {
		o.Created, errs[2] = http.ParseTime(t)
	}
	if err = errors.Join(append(errs[:], err)...); err != nil {
		err = fmt.Errorf("%s: read the answer's header: %w", ref, err)
	}
	return o, err
}

// get answers to GET and HEAD, whole or in ranges, on conditions or without.
func (s *server) get(w http.ResponseWriter, r *http.Request) {
	ref := r.PathValue("ref")
	o, err := s.node.StatObject(r.Context(), ref)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	setObject(w.Header(), ref, o)
	w.Header().Set("Content-Type", contentBytes)
	body := &objectBody{get: func(off, length int64, w io.Writer) error {
		return s.node.Get(r.Context(), o.ID.String(), off, length, w)
	}, size: o.Size}
	// ServeContent sets the status before it reads, and reading may fail.
	late := &lateWriter{ResponseWriter: w, body: body}
	http.ServeContent(late, r, "", o.Created, body)
	if err := late.finish(); err != nil {
		s.fail(w, r, err)
		return
	}
	if body.err != nil && late.gone == nil { // the client sees that some is missing
		s.log.Error("an object could not be sent to its end", "ref", ref, "err", body.err)
	}
}

// An objectBody is an object as http.ServeContent wants it.
type objectBody struct {
	get  func(off, length int64, w io.Writer) error
	off  int64
	size int64
	err  error // of get
}

// Seek implements io.Seeker.
func (b *objectBody) Seek(off int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		off += b.off
	case io.SeekEnd:
		off += b.size
	}
	b.off = off
	return off, nil
}

// Read implements io.Reader, for what writeTo cannot do: several ranges at once.
func (b *objectBody) Read(p []byte) (int, error) {
	n := min(int64(len(p)), b.size-b.off)
	if n <= 0 {
		return 0, io.EOF
	}
	buf := bytes.NewBuffer(p[:0])
	return int(n), b.writeTo(buf, n)
}

func (b *objectBody) writeTo(w io.Writer, n int64) error {
	b.err = b.get(b.off, n, w)
	b.off += n
	return b.err
}

// A lateWriter holds the status back until there are bytes, since before that
// a failure may still set it.
type lateWriter struct {
	http.ResponseWriter
	body    *objectBody
	status  int   // that is held back
	begun   bool  // it was sent
	refused error // in place of a body
	gone    error // the client has left
}

// WriteHeader implements http.ResponseWriter.
func (l *lateWriter) WriteHeader(status int) {
	switch status {
	case http.StatusOK, http.StatusPartialContent:
		l.status = status
	case http.StatusRequestedRangeNotSatisfiable:
		l.refused = fmt.Errorf("the object has %d bytes, and none in that range: %w", l.body.size, store.ErrRange)
	case http.StatusPreconditionFailed:
		l.refused = fmt.Errorf("%w: the object is another one", ErrCondition)
	default:
		l.begun = true
		l.ResponseWriter.WriteHeader(status)
	}
}

// Write implements http.ResponseWriter.
func (l *lateWriter) Write(p []byte) (int, error) {
	if l.refused != nil {
		return len(p), nil // the library's text
	}
	l.begin()
	n, err := l.ResponseWriter.Write(p)
	if err != nil {
		l.gone = err
	}
	return n, err
}

func (l *lateWriter) begin() {
	if !l.begun {
		l.begun = true
		l.ResponseWriter.WriteHeader(l.status)
	}
}

// ReadFrom implements io.ReaderFrom: an object's bytes need no buffer between.
func (l *lateWriter) ReadFrom(r io.Reader) (int64, error) {
	out := struct{ io.Writer }{l}
	limited, ok := r.(*io.LimitedReader)
	// Not what ServeContent hands over for one range: then with a buffer between.
	if !ok || limited.R != io.Reader(l.body) {
		return io.Copy(out, r)
	}
	from := l.body.off
	err := l.body.writeTo(out, limited.N)
	return l.body.off - from, err
}

// finish returns why nothing was sent, with a header for that.
func (l *lateWriter) finish() error {
	if l.begun {
		return nil
	}
	err := l.refused
	if err == nil {
		err = l.body.err
	}
	if err == nil {
		l.begin() // of an empty object, or for HEAD
		return nil
	}
	// They are of the object; what is sent is a failure.
	for _, name := range []string{"Content-Length", "ETag", "Last-Modified", "Cache-Control", headerName, headerData} {
		l.Header().Del(name)
	}
	return err
}

func formatRange(off, length int64) string {
	if length < 0 {
		return fmt.Sprintf("bytes=%d-", off)
	}
	return fmt.Sprintf("bytes=%d-%d", off, off+length-1)
}

// Remove implements Node.
func (c *Client) Remove(ctx context.Context, ref string) error {
	return c.call(ctx, http.MethodDelete, refPath(ref), nil, &struct{}{})
}

func (s *server) remove(w http.ResponseWriter, r *http.Request) {
	s.answer(w, r, struct{}{}, s.node.Remove(r.Context(), r.PathValue("ref")))
}

// ListObjects implements Node.
func (c *Client) ListObjects(ctx context.Context, p Page, fn func(Object) error) error {
	q := make(url.Values)
	setText(q, "after", p.After)
	setNumber(q, "limit", p.Limit)
	return receiveStream(ctx, c, withQuery("/v1/objects", q), fn)
}

func (s *server) objects(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	limit, err := number(q, "limit")
	if err != nil {
		s.fail(w, r, err)
		return
	}
	p := Page{q.Get("after"), limit}
	sendStream(s, w, r, func(fn func(Object) error) error { return s.node.ListObjects(r.Context(), p, fn) })
}
