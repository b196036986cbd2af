package serve_test

import (
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/remote/remotetest"
	"github.com/quarxtor/quarxfs/remote/serve"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/config"
	"github.com/quarxtor/quarxfs/store/vertex"
)

// hostileSite has snapshots of which an answer may cost what it wants: a chain of directories, and
// directories that double at each level, with one file at the end.
func hostileSite(t *testing.T) site {
	s := site{remotetest.NewSite(t, store.Options{}, remote.Environment{})}
	s.PlantTree(t, "empty", func(graph.Sink) (none []graph.Entry) { return none })
	s.PlantTree(t, "chain", chain(t, 200))
	s.PlantTree(t, "double", func(to graph.Sink) []graph.Entry { return named(remotetest.Doubling(t, to, 60)) })
	if _, err := s.Node.Put(t.Context(), "object", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	return s
}

func named(e graph.Entry) []graph.Entry {
	e.Name = "top"
	return []graph.Entry{e}
}

func chain(t *testing.T, depth int) func(graph.Sink) []graph.Entry {
	return func(to graph.Sink) []graph.Entry { return named(remotetest.Chain(t, to, depth)) }
}

// answer asks and returns the status and all of the answer.
func answer(t *testing.T, url, token string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Errorf("%s: %v", url, err)
	}
	return resp.StatusCode, string(b)
}

// walking returns what the API says of itself: the paths of requests that have a budget.
func walking(t *testing.T, base, token string) (paths []string) {
	t.Helper()
	_, text := answer(t, base+remote.OpenAPIPath, token)
	var doc struct {
		Paths map[string]map[string]struct{ Description string }
	}
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatal(err)
	}
	for path, ops := range doc.Paths {
		if strings.Contains(ops["get"].Description, "too_costly") {
			paths = append(paths, path)
		}
	}
	return paths
}

// TestBudgetOfEveryWalk asks each endpoint that walks through the store about what its sender has
// made costly. With no time left each says so. With some, each ends: with an answer, or saying so.
func TestBudgetOfEveryWalk(t *testing.T) {
	s := hostileSite(t)
	token := s.Token(t, "r", config.ScopeRead)
	block := store.ID(vertex.Sum(store.KindData, []byte("x"))).String()
	asked := map[string][]string{
		"/v1/blocks":           {""},
		"/v1/graph/why":        {"?block=" + block},
		"/v1/graph/why/blocks": {"?ref=object"},
		"/v1/graph/show":       {"?ref=chain", "?ref=double"},
		"/v1/graph/matrix":     {""},
		"/v1/graph/export":     {"?limit=1000&root=chain", "?limit=1000&root=double"},
		"/v1/graph/similar":    {"?top=9&ref=chain", "?top=9&ref=double"},
		"/v1/graph/path":       {"?from=empty&to=double", "?from=double&to=" + block},
		"/v1/usage":            {"?by=snapshot"},
		"/v1/diff":             {"?a=empty&b=chain", "?a=empty&b=double", "?a=double&b=chain"},
		"/v1/history":          {""},
		"/v1/files":            nil, // no site of this package has a volume: fs/volume streams them
		"/v1/objects":          {""},
		"/v1/snapshots":        {""},
	}
	const costly = `"kind":"too_costly"`
	none := s.Front(t, serve.ListenOptions{}, serve.MiddlewareOptions{WalkTime: 1})
	some := s.Front(t, serve.ListenOptions{}, serve.MiddlewareOptions{WalkTime: 500 * time.Millisecond})
	paths := walking(t, none.URL, token)
	for path := range asked {
		if !slices.Contains(paths, path) {
			t.Errorf("%s has no budget", path)
		}
	}
	for _, path := range paths {
		if _, ok := asked[path]; !ok {
			t.Errorf("%s is not tried", path)
		}
		for _, query := range asked[path] {
			if got, text := answer(t, none.URL+path+query, token); got != http.StatusUnprocessableEntity || !strings.Contains(text, costly) {
				t.Errorf("%s%s without time: %d, %.200s", path, query, got, text)
			}
			// Ends at all; what it ends with is the machine's speed.
			got, text := answer(t, some.URL+path+query, token)
			if got != http.StatusOK && got != http.StatusNotFound && !strings.Contains(text, costly) {
				t.Errorf("%s%s: %d, %.200s", path, query, got, text)
			}
		}
	}
}

// TestBudgetMemory has a request hold more than it may.
func TestBudgetMemory(t *testing.T) {
	s := site{remotetest.NewSite(t, store.Options{}, remote.Environment{})}
	s.PlantTree(t, "empty", func(graph.Sink) (none []graph.Entry) { return none })
	s.PlantTree(t, "chain", chain(t, 1000)) // paths of a megabyte in all
	token := s.Token(t, "r", config.ScopeRead)
	f := s.Front(t, serve.ListenOptions{}, serve.MiddlewareOptions{WalkBytes: 256 << 10})
	for _, query := range []string{"/v1/diff?a=empty&b=chain", "/v1/graph/export?limit=10000&root=chain", "/v1/graph/path?from=empty&to=chain"} {
		if got, text := answer(t, f.URL+query, token); got != http.StatusUnprocessableEntity || !strings.Contains(text, "memory") {
			if strings.Contains(query, "path") && got == http.StatusNotFound {
				continue // a network of 1,000 points is small
			}
			t.Errorf("%s: %d, %.200s", query, got, text)
		}
	}
}

// TestForeignRequests tries what a page in a browser can send, on every kind of path there is, and
// on the address of the metrics.
func TestForeignRequests(t *testing.T) {
	s := site{remotetest.NewSite(t, store.Options{}, remote.Environment{})}
	token := s.Token(t, "all", config.ScopeAdmin)
	f := s.Front(t, serve.ListenOptions{Hosts: []string{"nas.example"}}, serve.MiddlewareOptions{})
	m, err := serve.Listen(t.Context(), serve.ListenOptions{Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	m.ServeMetrics(s.Node, slog.New(slog.DiscardHandler))
	t.Cleanup(func() { _ = m.Close(t.Context()) })
	own := strings.TrimPrefix(f.URL, "http://")
	for _, c := range []struct {
		host, origin string
		want         int
	}{
		{own, "", 200}, {"localhost:7440", "", 200}, {"[::1]:7440", "", 200}, {"192.0.2.1", "", 200}, {"NAS.example:80", "", 200},
		{own, "http://" + own, 200},
		{"evil.example", "", 403}, {"evil.example:7440", "", 403}, {"127.0.0.1.evil.example", "", 403},
		{own, "http://evil.example", 403}, {own, "null", 403}, {own, "https://localhost", 403}, {"evil.example", "http://evil.example", 403},
	} {
		for _, url := range []string{
			f.URL + "/metrics", f.URL + "/healthz", f.URL + "/readyz", f.URL + remote.OpenAPIPath, f.URL + "/v1/stats", f.URL + "/v1/snapshots", m.URL + "/metrics",
		} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Host = c.host
			req.Header.Set("Authorization", "Bearer "+token)
			if c.origin != "" {
				req.Header.Set("Origin", c.origin)
			}
			want := c.want
			if url == m.URL+"/metrics" && c.host == "NAS.example:80" {
				want = 403 // that listener was not told of the name
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != want {
				t.Errorf("%s, host %q, origin %q: %d, want %d", url, c.host, c.origin, resp.StatusCode, want)
			}
		}
	}
	// A path that would be cleaned names something else than it says.
	for _, method := range []string{"GET", "PUT", "DELETE", "HEAD"} {
		for _, path := range []string{"/v1/objects/a/../b", "/v1/objects/./b", "/v1/objects//b", "/v1//objects/b", "/v1/sync/snapshots/x/.."} {
			req, err := http.NewRequestWithContext(t.Context(), method, f.URL+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+token)
			resp, err := http.DefaultTransport.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != 400 {
				t.Errorf("%s %s: %d", method, path, resp.StatusCode)
			}
		}
	}
}

// TestConnectionsOfAnAddress has one address open what it can: more than its share is closed.
func TestConnectionsOfAnAddress(t *testing.T) {
	s := newSite(t, store.Options{})
	f := s.Front(t, serve.ListenOptions{AddressShare: 3}, serve.MiddlewareOptions{})
	dial := func() net.Conn {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(f.URL, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	healthy := func(c net.Conn) bool {
		_, _ = io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
		n, err := c.Read(make([]byte, 1))
		return err == nil && n == 1
	}
	var open []net.Conn
	for range 3 {
		c := dial()
		if !healthy(c) {
			t.Error("a connection of the share is closed")
		}
		open = append(open, c)
	}
	if healthy(dial()) {
		t.Error("one more than the share is open")
	}
	_ = open[0].Close()
	// The server has to see that first.
	for !healthy(dial()) {
		time.Sleep(time.Millisecond)
	}
}

// TestTricklingUpload sends a byte often enough not to stand still, and too seldom to get on.
func TestTricklingUpload(t *testing.T) {
	s := newSite(t, store.Options{})
	f := s.Front(t, serve.ListenOptions{}, serve.MiddlewareOptions{Stall: 100 * time.Millisecond})
	token := s.Token(t, "w", config.ScopeWrite)
	r, w := io.Pipe()
	go func() {
		for {
			if _, err := io.WriteString(w, "x"); err != nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	defer r.Close()
	if got, _ := ask(t, "PUT", f.URL+"/v1/objects/x", token, r); got == 200 {
		t.Error("an upload that trickles was taken")
	}
}
