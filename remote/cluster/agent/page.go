package agent

import (
	"bytes"
	"context"
	_ "embed" // for the page
	"fmt"
	"html/template"
	"net"
	"net/http"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/quarxtor/quarxfs/remote/cluster/client"
	"github.com/quarxtor/quarxfs/remote/cluster/health"
)

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
	"size": func(n *int64) string {
		if n == nil {
			return "?"
		}
		return humanize.IBytes(uint64(*n))
	},
	"flag": func(b *bool) string {
		switch {
		case b == nil:
			return "?"
		case *b:
			return "yes"
		}
		return "no"
	},
	"age": func(seconds *float64) string {
		if seconds == nil {
			return "?"
		}
		return time.Duration(*seconds*float64(time.Second)).Round(time.Second).String() + " old"
	},
	"ago": func(now time.Time, t *time.Time) string {
		if t == nil {
			return "?"
		}
		return fmt.Sprintf("%v ago", max(0, now.Sub(*t)).Round(time.Second))
	},
}).Parse(pageText))

// viewAPI only shows: the page for people, and the figures for Prometheus.
func (a *Agent) viewAPI(mux *http.ServeMux, guard func(http.Handler) http.Handler) {
	mux.Handle("GET "+client.PathPage+"{$}", guard(http.HandlerFunc(a.page)))
	mux.Handle("GET /metrics", guard(http.HandlerFunc(a.metrics)))
}

func unguarded(h http.Handler) http.Handler { return h }

// page shows the status as HTML that needs no script.
func (a *Agent) page(w http.ResponseWriter, r *http.Request) {
	s, err := a.status(r)
	var b bytes.Buffer
	if err == nil {
		// Into memory first: half a page would look like a whole cluster.
		err = pageTemplate.Execute(&b, struct {
			health.Status
			Asked string
		}{s, a.settings.Node.Name})
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
	h.Set("Cache-Control", "no-store")
	_, _ = w.Write(b.Bytes()) // the reader is gone
}

// listenPage is where a browser of this machine sees the page: without TLS, so for nobody else.
// The certificate that other machines would need is that of a node.
func listenPage(ctx context.Context, addr string) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%w: --page: %w", client.ErrRequest, err)
	}
	// Asked of the listener: a name may stand for any address.
	if !l.Addr().(*net.TCPAddr).IP.IsLoopback() {
		l.Close()
		return nil, fmt.Errorf("%w: --page %s: others could read along: give an address of this machine alone, such as 127.0.0.1:7444", client.ErrRequest, addr)
	}
	return l, nil
}
