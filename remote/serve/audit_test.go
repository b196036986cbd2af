package serve_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/remote/serve"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/config"
)

// A disk is a file that may be full.
type disk struct {
	bytes.Buffer
	room int // bytes; negative: any number
}

func (d *disk) Write(p []byte) (int, error) {
	if d.room >= 0 && len(p) > d.room {
		n, _ := d.Buffer.Write(p[:d.room])
		d.room = 0
		return n, errors.New("no space left on device")
	}
	return d.Buffer.Write(p)
}

// events reads what is in an audit log.
func (d *disk) events(t *testing.T) (list []serve.AuditEvent, bad int) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, serve.AuditName), d.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	bad, err := serve.ReadAudit(dir, time.Time{}, func(e serve.AuditEvent) error { list = append(list, e); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return list, bad
}

func show(e serve.AuditEvent) string {
	a := e.About
	return strings.TrimSpace(fmt.Sprintf("%s %s %q %d %s", e.Who, e.Method, e.Path, e.Status, a.Name+a.Snapshot+a.For))
}

// TestAudit makes requests of all sorts, and wants a line for each that changes something.
func TestAudit(t *testing.T) {
	s := newSite(t, store.Options{})
	out := &disk{room: -1}
	audit := serve.NewAudit(out, slog.New(slog.DiscardHandler))
	f := s.Front(t, serve.ListenOptions{}, serve.MiddlewareOptions{Audit: audit})
	adds, writes, syncs := s.Token(t, "adds", config.ScopeAppend), s.Token(t, "writes", config.ScopeWrite), s.Token(t, "syncs", config.ScopeSync)
	for _, c := range []struct {
		method, path, token, body string
		want                      string // the line; empty: none
	}{
		{"PUT", "/v1/objects/a%2Fb", writes, "bytes", `token writes PUT "/v1/objects/a/b" 200`},
		{"PUT", "/v1/objects/a%2Fb", writes, "other bytes", `token writes PUT "/v1/objects/a/b" 409`},
		{"PUT", "/v1/objects/one%FF", writes, "no name", `token writes PUT "/v1/objects/one\xff" 400`},
		{"GET", "/v1/stats", syncs, "", ""},
		{"DELETE", "/v1/objects/a%2Fb", adds, "", `token adds DELETE "/v1/objects/a/b" 403`},
		{"DELETE", "/v1/objects/a%2Fb", writes, "", `token writes DELETE "/v1/objects/a/b" 200`},
		{"DELETE", "/v1/objects/a%2Fb", "nobody's", "", ""},
		{"DELETE", "/v1/objects/a%2Fb", "", "", ""},
		{"POST", "/v1/sync/leases", syncs, `{"for":"a push"}`, `token syncs POST "/v1/sync/leases" 200 a push`},
		{"POST", "/v1/sync/records", syncs, "", ""},
		{"POST", "/v1/sync/leases/00112233445566778899aabbccddeeff/keep", syncs, "", ""},
		{"PUT", "/v1/sync/snapshots/x", syncs, `{"id":"` + store.ID{1}.String() + `"}`, `token syncs PUT "/v1/sync/snapshots/x" 404`},
		{"POST", "/v1/commit", writes, "", ""},
	} {
		out.Reset()
		ask(t, c.method, f.URL+c.path, c.token, strings.NewReader(c.body))
		list, _ := out.events(t)
		got := ""
		for _, e := range list {
			got += show(e)
			if host, _, err := net.SplitHostPort(e.From); err != nil || host != "127.0.0.1" || time.Since(e.Time) > time.Hour {
				t.Errorf("from %q at %v", e.From, e.Time)
			}
		}
		if got != c.want {
			t.Errorf("%s %s: %q, want %q", c.method, c.path, got, c.want)
		}
	}
}

// TestAuditOfControl asks over a unix socket: the line says which user, and has no secret.
func TestAuditOfControl(t *testing.T) {
	s := newSite(t, store.Options{})
	out := &disk{room: -1}
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	srv := &http.Server{ConnContext: serve.WithUser, Handler: serve.NewAudit(out, log).Handler(remote.ControlHandler(s.Node, log))}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", l.Addr().String())
	}
	c := http.Client{Transport: &http.Transport{DialContext: dial}}
	t.Cleanup(c.CloseIdleConnections)
	for path, body := range map[string]string{
		"/v1/tokens": `{"name":"new","scopes":["read"]}`, "/v1/remotes": `{"name":"new","url":"https://a","token":"secret"}`, "/v1/gc": `{"name":"new"`,
	} {
		out.Reset()
		r, err := http.NewRequest(http.MethodPost, "http://x"+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		name := " new"
		if path == "/v1/gc" {
			name = "" // no JSON, as its handler says
		}
		want := fmt.Sprintf(`uid %d POST %q %d%s`, os.Getuid(), path, resp.StatusCode, name)
		if list, _ := out.events(t); len(list) != 1 || show(list[0]) != want || strings.Contains(out.String(), "secret") {
			t.Errorf("%v, want %q", list, want)
		}
	}
}

// TestAuditOnFullDisk has the log's disk fill up amid a line: requests go on, the daemon's log says
// so, and so does the next line.
func TestAuditOnFullDisk(t *testing.T) {
	s := newSite(t, store.Options{})
	out := &disk{room: 30}
	var said bytes.Buffer
	f := s.Front(t, serve.ListenOptions{}, serve.MiddlewareOptions{Audit: serve.NewAudit(out, slog.New(slog.NewTextHandler(&said, nil)))})
	token := s.Token(t, "writes", config.ScopeWrite)
	put := func(name string) {
		if got, _ := ask(t, "PUT", f.URL+"/v1/objects/"+name, token, strings.NewReader(name)); got != http.StatusOK {
			t.Errorf("%s: %d", name, got)
		}
	}
	put("a")
	put("b")
	out.room = -1
	put("c")
	put("d")
	list, bad := out.events(t)
	if bad != 1 || len(list) != 2 || list[0].Missed != 2 || list[0].Path != "/v1/objects/c" || list[1].Missed != 0 {
		t.Errorf("%d lines are none; %+v", bad, list)
	}
	if !strings.Contains(said.String(), "not in the audit log") {
		t.Errorf("the daemon says %q", said.String())
	}
}
