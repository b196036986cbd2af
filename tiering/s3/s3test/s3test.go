// Package s3test runs a real S3 server for tests, and makes it behave badly.
package s3test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// The keys that a Server takes.
const (
	AccessKey = "quarxfs-test"
	SecretKey = "quarxfs-test-secret"
	// Bucket is there from the start.
	Bucket = "bucket"
)

// A Server is a versitygw that keeps objects as files.
type Server struct {
	URL  string
	Dir  string // the bucket's
	addr string
	path string
	cmd  *exec.Cmd
}

// Start starts a server, to be killed when the test ends. `make versitygw` makes the
// program; without it the test is skipped, but not where CI is set.
func Start(t testing.TB) *Server {
	t.Helper()
	path, err := find()
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	// A port that was free a moment ago: the server takes none by itself.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{addr: l.Addr().String(), path: path, Dir: filepath.Join(t.TempDir(), "objects", Bucket)}
	s.URL = "http://" + s.addr
	if err := errors.Join(l.Close(), os.MkdirAll(s.Dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Kill)
	s.Run(t)
	return s
}

// find looks for bin/versitygw above the test's directory.
func find() (string, error) {
	dir, err := os.Getwd()
	for err == nil {
		path := filepath.Join(dir, "bin", "versitygw")
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("no S3 server to test with: run make versitygw")
		}
		dir = filepath.Dir(dir)
	}
	return "", err
}

// Run starts a server that was killed.
func (s *Server) Run(t testing.TB) {
	t.Helper()
	s.cmd = exec.Command(s.path, "--port", s.addr, "--quiet", "posix", "--sidecar", s.sidecar(t), filepath.Dir(s.Dir))
	s.cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+AccessKey, "ROOT_SECRET_KEY="+SecretKey)
	var said bytes.Buffer
	s.cmd.Stdout, s.cmd.Stderr = &said, &said
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ask := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		// It takes connections before it answers.
		resp, err := ask.Get(s.URL)
		if err == nil {
			resp.Body.Close()
			return
		}
		if time.Now().After(deadline) {
			s.Kill()
			t.Fatalf("the S3 server does not start: %v: %s", err, said.String())
		}
	}
}

// sidecar is beside the objects: not every disk has extended attributes.
func (s *Server) sidecar(t testing.TB) string {
	dir := filepath.Join(filepath.Dir(filepath.Dir(s.Dir)), "meta")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Kill kills the server with SIGKILL.
func (s *Server) Kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

// A Fault is what a Proxy does with a request instead of only passing it on.
type Fault struct {
	Delay   time.Duration // before it is passed on
	Status  int           // answered at once, with Code; 0: not
	Code    string
	Drop    bool // the connection is closed before an answer
	Late    bool // as Drop, but after the server has done it
	Cut     int  // bytes after which the answer's body breaks off; 0: not
	Corrupt bool // the first byte of the answer's body is changed
}

// A Request is what a Proxy was asked.
type Request = http.Request

// A Proxy stands before a server.
type Proxy struct {
	URL    string
	faults atomic.Pointer[func(*http.Request) Fault]
}

// NewProxy starts a proxy before the server at an address.
func NewProxy(t testing.TB, to string) *Proxy {
	target, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{}
	pass := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target); r.Out.Host = r.In.Host },
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
			panic(http.ErrAbortHandler) // as when the server itself is gone
		},
		ModifyResponse: spoil,
		ErrorLog:       log.New(io.Discard, "", 0), // what breaks off is meant to
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.serve(pass, w, r) }))
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	p.URL = s.URL
	return p
}

// Set says what to do with each request from now on; nil: to pass it on.
func (p *Proxy) Set(fn func(*http.Request) Fault) { p.faults.Store(&fn) }

func (p *Proxy) serve(pass http.Handler, w http.ResponseWriter, r *http.Request) {
	var f Fault
	if fn := p.faults.Load(); fn != nil && *fn != nil {
		f = (*fn)(r)
	}
	if f.Delay > 0 {
		select {
		case <-time.After(f.Delay):
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		}
	}
	switch {
	case f.Drop:
		panic(http.ErrAbortHandler)
	// The server does it and the client never hears of it.
	case f.Late:
		pass.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	case f.Status != 0:
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(f.Status)
		fmt.Fprintf(w, "<Error><Code>%s</Code><Message>said the test</Message></Error>", f.Code)
		return
	}
	pass.ServeHTTP(w, r.WithContext(withFault(r.Context(), f)))
}

// spoil changes the body of an answer.
func spoil(resp *http.Response) error {
	f := faultOf(resp.Request.Context())
	if f.Cut > 0 {
		resp.Body = &spoiled{ReadCloser: resp.Body, left: f.Cut}
	} else if f.Corrupt {
		resp.Body = &spoiled{ReadCloser: resp.Body, left: 1 << 40, corrupt: true}
	}
	return nil
}

type spoiled struct {
	io.ReadCloser
	left    int
	corrupt bool
}

func (s *spoiled) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n, err := s.ReadCloser.Read(p[:min(len(p), s.left)])
	if s.left -= n; s.corrupt && n > 0 {
		p[0] ^= 1
		s.corrupt = false
	}
	return n, err
}
