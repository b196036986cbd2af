package serve_test

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
	"strings"
	"testing"
	"time"

	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/remote/remotetest"
	"github.com/quarxtor/quarxfs/remote/serve"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/config"
)

type site struct{ remotetest.Site }

func newSite(t testing.TB, o store.Options) site {
	return site{remotetest.NewSite(t, o, remote.Environment{})}
}

// ask sends a request and returns its status.
func ask(t *testing.T, method, url, token string, body io.Reader) (int, http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Errorf("%s %s: %v", method, url, err)
		return 0, nil
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, resp.Header
}

func TestMiddlewareTokens(t *testing.T) {
	now := time.Now()
	s := newSite(t, store.Options{Now: func() time.Time { return now }})
	f := s.Front(t, serve.ListenOptions{}, serve.MiddlewareOptions{})
	good := s.Token(t, "good", config.ScopeRead)
	revoked := s.Token(t, "revoked", config.ScopeAdmin)
	if err := s.Store.RevokeToken("revoked"); err != nil {
		t.Fatal(err)
	}
	expired, err := s.Store.CreateToken("expired", []config.Scope{config.ScopeAdmin}, now.Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := ask(t, "GET", f.URL+"/v1/stats", expired, nil); got != 200 {
		t.Errorf("before it expires: %d", got)
	}
	now = now.Add(time.Hour)
	for name, token := range map[string]string{
		"none": "", "wrong": "quarxfs_wrong", "revoked": revoked, "expired": expired, "cut": good[:len(good)-1], "twice": good + " " + good,
	} {
		got, h := ask(t, "GET", f.URL+"/v1/stats", token, nil)
		if got != 401 || !strings.HasPrefix(h.Get("WWW-Authenticate"), "Bearer") {
			t.Errorf("token %s: %d, %v", name, got, h)
		}
		if got, _ := ask(t, "GET", f.URL+"/v1/no/such/thing", token, nil); got != 401 {
			t.Errorf("token %s of what is not there: %d", name, got)
		}
	}
	if got, _ := ask(t, "GET", f.URL+"/v1/stats", good, nil); got != 200 {
		t.Errorf("good token: %d", got)
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if got, _ := ask(t, "GET", f.URL+path, "", nil); got != 200 {
			t.Errorf("%s: %d", path, got)
		}
	}
}

// Each route asks for one scope, and lets in nobody who has not that one.
func TestMiddlewareScopes(t *testing.T) {
	s := newSite(t, store.Options{})
	f := s.Front(t, serve.ListenOptions{}, serve.MiddlewareOptions{})
	tokens := map[config.Scope]string{}
	for _, scope := range config.Scopes() {
		tokens[scope] = s.Token(t, string(scope), scope)
	}
	lease := store.LeaseID{}.String()
	for _, route := range []struct {
		method, path string
		scope        config.Scope
	}{
		{"GET", "/v1/stats", config.ScopeRead}, {"GET", "/metrics", config.ScopeRead}, {"GET", "/v1/blocks", config.ScopeRead}, {"GET", "/v1/objects", config.ScopeRead},
		{"GET", "/v1/objects/x", config.ScopeRead}, {"HEAD", "/v1/objects/x", config.ScopeRead}, {"GET", "/v1/snapshots", config.ScopeRead},
		{"PUT", "/v1/objects/x", config.ScopeWrite}, {"POST", "/v1/objects", config.ScopeWrite}, {"DELETE", "/v1/objects/x", config.ScopeWrite},
		{"POST", "/v1/sync/leases", config.ScopeSync}, {"POST", "/v1/sync/records", config.ScopeRead},
		{"POST", "/v1/sync/leases/" + lease + "/keep", config.ScopeSync}, {"POST", "/v1/sync/leases/" + lease + "/records", config.ScopeSync},
		{"DELETE", "/v1/sync/leases/" + lease, config.ScopeSync}, {"PUT", "/v1/sync/snapshots/x", config.ScopeSync},
	} {
		for has, token := range tokens {
			got, _ := ask(t, route.method, f.URL+route.path, token, nil)
			// Adding is what the scope append is for, and a push lists snapshots.
			adds := route.method == "POST" || route.method == "PUT" || strings.Contains(route.path, "/leases/") || route.path == "/v1/snapshots"
			append := has == config.ScopeAppend && adds && route.path != "/v1/sync/records"
			if want := has.Allows(route.scope) || append; (got != 403) != want || got == 401 {
				t.Errorf("%s %s with scope %s: %d", route.method, route.path, has, got)
			}
		}
	}
	// What only the store's owner may do is not there at all.
	for _, path := range []string{"/v1/tokens", "/debug/pprof/", "/v1/settings"} {
		for _, scope := range []config.Scope{config.ScopeAdmin, config.ScopeRead} {
			if got, _ := ask(t, "GET", f.URL+path, tokens[scope], nil); got != 404 {
				t.Errorf("%s with scope %s: %d", path, scope, got)
			}
		}
		if got, _ := ask(t, "GET", f.URL+path, "", nil); got != 401 {
			t.Errorf("%s without a token: %d", path, got)
		}
	}
	if got, _ := ask(t, "GET", f.URL+"/v1/openapi.json", "", nil); got != 200 {
		t.Errorf("the description without a token: %d", got)
	}
}

func TestMiddlewareAnonymous(t *testing.T) {
	s := newSite(t, store.Options{})
	f := s.Front(t, serve.ListenOptions{}, serve.MiddlewareOptions{Anonymous: []config.Scope{config.ScopeRead}})
	for _, c := range []struct {
		method, path, token string
		want                int
	}{
		{"GET", "/v1/stats", "", 200}, {"POST", "/v1/objects", "", 401}, {"GET", "/v1/stats", "quarxfs_wrong", 401},
		{"POST", "/v1/objects", s.Token(t, "w", config.ScopeWrite), 200},
	} {
		if got, _ := ask(t, c.method, f.URL+c.path, c.token, nil); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}

func TestMiddlewareLimits(t *testing.T) {
	s := newSite(t, store.Options{})
	f := s.Front(t, serve.ListenOptions{}, serve.MiddlewareOptions{})
	token := s.Token(t, "all", config.ScopeAdmin)
	// A body of JSON is bounded, one of bytes is not.
	big := `{"for":"` + strings.Repeat("x", 2<<20) + `"}`
	if got, _ := ask(t, "POST", f.URL+"/v1/sync/leases", token, strings.NewReader(big)); got < 400 || got >= 500 {
		t.Errorf("2 MiB of JSON: %d", got)
	}
	if got, _ := ask(t, "POST", f.URL+"/v1/sync/records", token, bytes.NewReader(make([]byte, 64<<20))); got < 400 || got >= 500 {
		t.Errorf("64 MiB of IDs: %d", got)
	}
	if got, _ := ask(t, "PUT", f.URL+"/v1/objects/x", token, strings.NewReader(big)); got != 200 {
		t.Errorf("2 MiB of an object: %d", got)
	}
	if got, _ := ask(t, "GET", f.URL+"/v1/stats", token+strings.Repeat("x", 64<<10), nil); got != 431 {
		t.Errorf("64 KiB of header: %d", got)
	}
}

// An upload that waits for its bytes takes all places there are.
func TestMiddlewareBusy(t *testing.T) {
	s := newSite(t, store.Options{})
	f := s.Front(t, serve.ListenOptions{}, serve.MiddlewareOptions{Requests: 16, Wait: 20 * time.Millisecond})
	token := s.Token(t, "all", config.ScopeAdmin)
	r, w := io.Pipe()
	done := make(chan int, 1)
	go func() {
		got, _ := ask(t, "PUT", f.URL+"/v1/objects/x", token, r)
		done <- got
	}()
	_, _ = io.WriteString(w, "x") // it is under way
	for {
		got, h := ask(t, "GET", f.URL+"/v1/stats", token, nil)
		if got == 200 {
			continue // the upload has not come in yet
		}
		if got != 503 || h.Get("Retry-After") == "" {
			t.Errorf("busy: %d, %v", got, h)
		}
		break
	}
	if got, _ := ask(t, "GET", f.URL+"/healthz", "", nil); got != 200 {
		t.Errorf("health while busy: %d", got)
	}
	w.Close()
	if got := <-done; got != 200 {
		t.Errorf("the upload: %d", got)
	}
	if got, _ := ask(t, "GET", f.URL+"/v1/stats", token, nil); got != 200 {
		t.Errorf("after it: %d", got)
	}
}

// A client asks a busy server again.
func TestClientWaitsForBusyServer(t *testing.T) {
	s := newSite(t, store.Options{})
	calls := 0
	c := s.Serve(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if calls++; calls == 1 {
				w.WriteHeader(http.StatusServiceUnavailable)
				_, _ = io.WriteString(w, `{"error":{"kind":"busy","message":"busy"}}`)
				return
			}
			h.ServeHTTP(w, r)
		})
	})
	if _, err := c.NewLease(t.Context(), "me"); err != nil || calls != 2 {
		t.Errorf("%d calls, %v", calls, err)
	}
}

func TestMiddlewareRate(t *testing.T) {
	s := newSite(t, store.Options{})
	f := s.Front(t, serve.ListenOptions{}, serve.MiddlewareOptions{Rate: 0.001})
	token := s.Token(t, "r", config.ScopeRead)
	if got, _ := ask(t, "GET", f.URL+"/v1/stats", token, nil); got != 200 {
		t.Errorf("the first: %d", got)
	}
	if got, h := ask(t, "GET", f.URL+"/v1/stats", token, nil); got != 429 || h.Get("Retry-After") == "" {
		t.Errorf("the second: %d", got)
	}
}

// An upload that stalls is given up, and one that waits for its place comes in.
func TestMiddlewareStalledUpload(t *testing.T) {
	s := newSite(t, store.Options{})
	f := s.Front(t, serve.ListenOptions{}, serve.MiddlewareOptions{Requests: 16, Stall: 100 * time.Millisecond})
	token := s.Token(t, "all", config.ScopeAdmin)
	c, err := net.Dial("tcp", strings.TrimPrefix(f.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "PUT /v1/objects/half HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\nContent-Length: 1000\r\n\r\nhalf", token)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != 408 {
		t.Fatalf("%+v, %v", resp, err)
	}
	if got, _ := ask(t, "PUT", f.URL+"/v1/objects/whole", token, strings.NewReader("whole")); got != 200 {
		t.Errorf("the next: %d", got)
	}
	var names []string
	if err := s.Node.ListObjects(t.Context(), remote.Page{}, func(o remote.Object) error {
		names = append(names,
			o.Name)
		return nil
	}); err != nil || fmt.Sprint(names) != "[whole]" {
		t.Errorf("objects %v, %v", names, err)
	}
}

// A client that does not read what it has asked for loses its connection.
func TestMiddlewareStalledDownload(t *testing.T) {
	s := newSite(t, store.Options{})
	f := s.Front(t, serve.ListenOptions{}, serve.MiddlewareOptions{Requests: 16, Stall: 100 * time.Millisecond})
	token := s.Token(t, "all", config.ScopeAdmin)
	if _, err := s.Node.Put(t.Context(), "big", bytes.NewReader(remotetest.RandomBytes(1, 32<<20))); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", strings.TrimPrefix(f.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.(*net.TCPConn).SetReadBuffer(4 << 10)
	fmt.Fprintf(c, "GET /v1/objects/big HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n\r\n", token)
	in := bufio.NewReader(c)
	if _, err := in.ReadByte(); err != nil {
		t.Fatal(err)
	}
	// It has begun. All places are free again only once it has been given up.
	if got, _ := ask(t, "PUT", f.URL+"/v1/objects/x", token, strings.NewReader("x")); got != 200 {
		t.Errorf("an upload meanwhile: %d", got)
	}
}

// A header that does not end ends the connection.
func TestSlowHeader(t *testing.T) {
	s := newSite(t, store.Options{})
	f := s.Front(t, serve.ListenOptions{HeaderTime: 50 * time.Millisecond}, serve.MiddlewareOptions{})
	c, err := net.Dial("tcp", strings.TrimPrefix(f.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "GET /v1/stats HTTP/1.1\r\nHost: localhost\r\nX-")
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.Copy(io.Discard, c); errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the connection is still there: %v", err)
	} else if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		t.Errorf("the connection is still there: %v", err)
	}
}

// Closing breaks off what does not end, and says meanwhile that it leaves.
func TestFrontClose(t *testing.T) {
	s := newSite(t, store.Options{})
	f, err := serve.Listen(t.Context(), serve.ListenOptions{Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	f.Serve(serve.NewMiddleware(s.Node, serve.MiddlewareOptions{Tokens: s.Store.CheckToken, Log: log}), log)
	token := s.Token(t, "w", config.ScopeWrite)
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		req, err := http.NewRequest("PUT", f.URL+"/v1/objects/x", r)
		if err == nil {
			req.Header.Set("Authorization", "Bearer "+token)
			var resp *http.Response
			if resp, err = new(http.Transport).RoundTrip(req); err == nil {
				resp.Body.Close()
				err = fmt.Errorf("status %s", resp.Status)
			}
		}
		r.CloseWithError(err)
		done <- err
	}()
	if _, err := w.Write(make([]byte, 8<<20)); err != nil { // more than any buffer takes: it is at work
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := f.Close(ctx); err != nil {
		t.Error(err)
	}
	w.Close() // the client's transport waits for its body
	if err := <-done; err == nil {
		t.Error("the upload has ended well")
	}
	if _, err := net.Dial("tcp", strings.TrimPrefix(f.URL, "http://")); err == nil {
		t.Error("somebody still listens")
	}
}
