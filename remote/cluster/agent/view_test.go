package agent_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/quarxtor/quarxfs/remote/cluster/agent"
	"github.com/quarxtor/quarxfs/remote/cluster/client"
	"github.com/quarxtor/quarxfs/remote/cluster/etcd/embedded"
)

// get reads what is at a path of the server that dial leads to.
func get(t *testing.T, url string, transport *http.Transport) (int, string) {
	t.Helper()
	defer transport.CloseIdleConnections()
	r, err := (&http.Client{Transport: transport}).Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(b)
}

// The page and the figures are for who can open the socket or is a node, and on --page for this
// machine alone; both say the same as the status.
func TestPage(t *testing.T) {
	m := newMachine(t, "n1")
	m.set.Zone = "<script>"
	if err := m.dir.Found(m.set, time.Now()); err != nil {
		t.Fatal(err)
	}
	err := m.dir.Run(t.Context(), agent.Options{
		Log: slog.New(slog.DiscardHandler), Etcd: embedded.Start, Page: "0.0.0.0:0",
		Ready: func() { t.Error("it shows the page to everybody") },
	})
	if !errors.Is(err, client.ErrRequest) {
		t.Errorf("a page for everybody: %v", err)
	}
	m.page = fmt.Sprintf("127.0.0.1:%d", freePort(t))
	m.start(t)
	m.waitUp(t, "n1")

	socket := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", m.dir.Socket())
	}}
	for where, transport := range map[string]*http.Transport{"http://agent": socket, "http://" + m.page: {}} {
		status, page := get(t, where+client.PathPage, transport)
		for _, want := range []string{"Cluster lab: <span class=\"WARN\">WARN</span>", "CONTROL_SINGLE", "&lt;script&gt;", "1 of 1 voters up"} {
			if status != http.StatusOK || !strings.Contains(page, want) {
				t.Errorf("%s: %d: no %q in\n%s", where, status, want, page)
			}
		}
		if strings.Contains(page, "<script>") {
			t.Errorf("%s: a zone's name is HTML", where)
		}
		_, figures := get(t, where+"/metrics", transport)
		for _, want := range []string{
			`quarxfs_cluster_state 1`, `quarxfs_cluster_decides 1`, `quarxfs_cluster_nodes{state="up"} 1`, `quarxfs_cluster_nodes{state="down"} 0`,
			`quarxfs_cluster_check{code="CONTROL_SINGLE",severity="WARN"} 1`, `quarxfs_cluster_checks{severity="ERR"} 0`, `quarxfs_cluster_heartbeat_age_seconds{node="n1"} 0`,
		} {
			if !strings.Contains(figures, want) {
				t.Errorf("%s: no %q in\n%s", where, want, figures)
			}
		}
	}
	stranger := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	for _, path := range []string{client.PathPage, "/metrics"} {
		if status, _ := get(t, "https://"+m.set.Addr(0)+path, stranger); status != http.StatusForbidden {
			t.Errorf("%s is shown to a stranger: %d", path, status)
		}
	}
}
