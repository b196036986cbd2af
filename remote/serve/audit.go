package serve

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/remote/rawjson"
)

// AuditName is the file with what was asked for that changes something, in the store's directory.
// AuditOlder is what the file is called when it is full.
const (
	AuditName  = "audit.jsonl"
	AuditOlder = AuditName + ".1"
	AuditMost  = 16 << 20 // bytes of each
)

// An AuditEvent is a request that changes something, or was to.
type AuditEvent struct {
	Time   time.Time `json:"time"`
	Who    string    `json:"who"`            // a token, anonymous, or a user of this machine
	From   string    `json:"from,omitempty"` // address and port; empty: over the control socket
	Method string    `json:"method"`
	Path   string    `json:"path"` // with the names in it, which may be any bytes
	Query  string    `json:"query,omitempty"`
	About  AuditBody `json:"about,omitzero"`
	Status int       `json:"status"` // of the answer; of one that comes in parts, as it begins

	// Missed events before this one could not be written.
	Missed int64 `json:"missed,omitempty"`
}

// An AuditBody is what is noted of a request's body, and nothing else is: bodies also have keys and
// passwords.
type AuditBody struct {
	Name     string   `json:"name,omitempty"`
	Snapshot string   `json:"snapshot,omitempty"`
	Path     string   `json:"path,omitempty"`
	To       string   `json:"to,omitempty"`
	ID       string   `json:"id,omitempty"`
	For      string   `json:"for,omitempty"`
	Held     *bool    `json:"held,omitempty"`
	Until    string   `json:"held_until,omitempty"` // as it was sent
	Scopes   []string `json:"scopes,omitempty"`
}

// IsZero reports whether nothing is noted.
func (b AuditBody) IsZero() bool {
	return b.Name+b.Snapshot+b.Path+b.To+b.ID+b.For+b.Until == "" && b.Held == nil && len(b.Scopes) == 0
}

// auditedBody bounds the bodies that are looked at.
const auditedBody = 64 << 10

// An Audit notes who did what. Each line is written before the answer to the request is. Where that
// fails, as on a full disk, the request goes on.
type Audit struct {
	log   *slog.Logger
	quiet rate.Sometimes

	mu struct {
		sync.Mutex
		out    io.Writer
		torn   bool // a part of a line may have been written
		missed int64
	}
}

// NewAudit returns one that writes lines to out, each in one call.
func NewAudit(out io.Writer, log *slog.Logger) *Audit {
	a := &Audit{log: log, quiet: rate.Sometimes{Interval: time.Second}}
	a.mu.out = out
	return a
}

func (a *Audit) note(e AuditEvent) {
	a.mu.Lock()
	defer a.mu.Unlock()
	e.Time, e.Missed = time.Now().UTC(), a.mu.missed
	line, err := rawjson.Marshal(e)
	if err == nil {
		line = append(line, '\n')
		// What a full disk has left of a line must not take the next one with it.
		if a.mu.torn {
			line = append([]byte{'\n'}, line...)
		}
		_, err = a.mu.out.Write(line)
	}
	if err == nil {
		a.mu.torn, a.mu.missed = false, 0
		return
	}
	a.mu.torn = true
	a.mu.missed++
	a.quiet.Do(func() {
		a.log.Error("what was done is not in the audit log", "who", e.Who, "method", e.Method, "path", e.Path, "err", err)
	})
}

// changes reports whether a request may change something that outlives it. What only belongs to a
// sync that has begun is noted as its lease and the names that it gives. What is not known counts.
func changes(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return false
	case http.MethodPost:
		for _, pattern := range []string{
			"/v1/commit", "/v1/tiers/plan", "/v1/sync/records", "/v1/sync/notes", "/v1/sync/leases/*/keep", "/v1/sync/leases/*/records",
		} {
			if ok, _ := path.Match(pattern, r.URL.Path); ok {
				return false
			}
		}
	}
	return true
}

// event is what is known of a request before it is served.
func event(r *http.Request) AuditEvent {
	e := AuditEvent{Method: r.Method, Path: r.URL.Path, Query: r.URL.RawQuery}
	if c, ok := remote.CallerOf(r.Context()); ok {
		e.Who, e.From = string(c.Actor()), r.RemoteAddr
	} else if uid, ok := r.Context().Value(userKey{}).(uint32); ok {
		e.Who = fmt.Sprintf("uid %d", uid)
	} else {
		e.Who = "unknown"
	}
	return e
}

// Handler notes the requests to h that change something. A nil Audit notes nothing.
func (a *Audit) Handler(h http.Handler) http.Handler {
	if a == nil {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !changes(r) {
			h.ServeHTTP(w, r)
			return
		}
		aw := &auditWriter{ResponseWriter: w, audit: a, event: event(r)}
		r = aw.look(r)
		// Also of a handler that writes nothing, as its client has left.
		defer aw.note(http.StatusOK)
		h.ServeHTTP(aw, r)
	})
}

// refused notes a request that the middleware has refused.
func (a *Audit) refused(r *http.Request, status int) {
	if a == nil || !changes(r) {
		return
	}
	e := event(r)
	e.Status = status
	a.note(e)
}

// An auditWriter writes an answer, and the audit log before it.
type auditWriter struct {
	http.ResponseWriter
	audit *Audit
	event AuditEvent
	noted bool
}

// look reads what is noted of the body, and puts it back.
func (w *auditWriter) look(r *http.Request) *http.Request {
	// Objects and records are bytes, not JSON; a body without a length is one of these.
	if r.Body == nil || r.ContentLength <= 0 || r.ContentLength > auditedBody || strings.HasPrefix(r.URL.Path, "/v1/objects") {
		return r
	}
	b, err := io.ReadAll(r.Body)
	var about AuditBody
	if rawjson.Unmarshal(b, &about) == nil { // what is none, its handler refuses
		w.event.About = about
	}
	rest := io.Reader(bytes.NewReader(b))
	if err != nil {
		rest = io.MultiReader(rest, failing{err})
	}
	r = r.WithContext(r.Context())
	r.Body = struct {
		io.Reader
		io.Closer
	}{rest, r.Body}
	return r
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func (w *auditWriter) note(status int) {
	if w.noted {
		return
	}
	w.noted = true
	w.event.Status = status
	w.audit.note(w.event)
}

// WriteHeader implements http.ResponseWriter.
func (w *auditWriter) WriteHeader(status int) {
	if status >= http.StatusOK {
		w.note(status)
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *auditWriter) Write(p []byte) (int, error) {
	w.note(http.StatusOK)
	return w.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (w *auditWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

type userKey struct{}

// WithUser notes whose process is at the other end of a unix socket; it is an http.Server's
// ConnContext. The kernel says so, and not the process.
func WithUser(ctx context.Context, c net.Conn) context.Context {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return ctx
	}
	_ = raw.Control(func(fd uintptr) { // a connection that has gone asks for nothing
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			ctx = context.WithValue(ctx, userKey{}, cred.Uid)
		}
	})
	return ctx
}

// ReadAudit calls fn for the events of a store's audit log since a time, the oldest first, and
// counts the lines that are none. No file is an empty log.
func ReadAudit(dir string, since time.Time, fn func(AuditEvent) error) (bad int, err error) {
	for _, name := range []string{AuditOlder, AuditName} {
		n, err := readAudit(dir+"/"+name, since, fn)
		bad += n
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return bad, err
		}
	}
	return bad, nil
}

func readAudit(file string, since time.Time, fn func(AuditEvent) error) (bad int, err error) {
	// What somebody may have put there instead: a link that leads elsewhere, a FIFO that hangs.
	f, err := os.OpenFile(file, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return 0, errors.Join(err, fmt.Errorf("%s is no file", file))
	}
	lines := bufio.NewScanner(io.LimitReader(f, 2*AuditMost))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if len(lines.Bytes()) == 0 {
			continue
		}
		var e AuditEvent
		if rawjson.Unmarshal(lines.Bytes(), &e) != nil || e.Time.IsZero() {
			bad++ // torn, or not ours
			continue
		}
		if e.Time.Before(since) {
			continue
		}
		if err := fn(e); err != nil {
			return bad, err
		}
	}
	return bad, lines.Err()
}
