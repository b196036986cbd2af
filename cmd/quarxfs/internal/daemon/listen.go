package daemon

import (
	"context"
	"log/slog"
	"strings"

	"github.com/quarxtor/quarxfs/remote/rawjson"
	"github.com/quarxtor/quarxfs/remote/serve"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/owner"
)

// Listen says how a daemon lets other machines in; no address: it does not.
type Listen struct {
	serve.ListenOptions
	SelfSigned bool // with a certificate that is made and kept in the store
	Requests   int  // at work at a time
	Rate       float64
	Metrics    string // address; empty: none
	JSON       bool   // what is announced
}

// open takes the address for a store that is open.
func (o *Listen) open(ctx context.Context, dir string) (*serve.Front, error) {
	l := o.ListenOptions
	if o.SelfSigned {
		path, err := serve.SelfSigned(dir)
		if err != nil {
			return nil, err
		}
		l.Cert, l.Key = path, path
	}
	return listenAsCaller(ctx, l)
}

// listenAsCaller is serve.Listen for files and a port that the caller has named.
func listenAsCaller(ctx context.Context, l serve.ListenOptions) (f *serve.Front, err error) {
	err = owner.AsCaller(func() (err error) {
		f, err = serve.Listen(ctx, l)
		return err
	})
	return f, err
}

// Try reports why the addresses cannot be had, before there is a store.
func (o *Listen) Try(ctx context.Context) (err error) {
	if o.Addr != "" {
		err = o.ListenOptions.Try(ctx, o.SelfSigned)
	}
	if err == nil && o.Metrics != "" {
		err = o.MetricsOptions().Try(ctx, false)
	}
	return err
}

// MetricsOptions are those of the address of /metrics.
func (o *Listen) MetricsOptions() serve.ListenOptions {
	return serve.ListenOptions{Addr: o.Metrics, Insecure: o.Insecure, Hosts: o.Hosts}
}

func (o *Listen) middleware(st *store.Store, ready func() error, audit *serve.Audit, log *slog.Logger) serve.MiddlewareOptions {
	return serve.MiddlewareOptions{
		Tokens: st.CheckToken, Anonymous: o.Anonymous, Ready: ready, Requests: o.Requests, Rate: o.Rate, Audit: audit, Log: log,
	}
}

// An Announcement is what --json says of the addresses of a daemon.
type Announcement struct {
	URL         string `json:"url,omitempty"`
	Fingerprint string `json:"fingerprint,omitempty"`
	Metrics     string `json:"metrics,omitempty"`
}

// announce is what whoever has started the daemon reads. f and metrics may be nil.
func (o *Listen) announce(f, metrics *serve.Front) string {
	var says Announcement
	if f != nil {
		says.URL, says.Fingerprint = f.URL, f.Fingerprint
	}
	if metrics != nil {
		says.Metrics = metrics.URL + "/metrics"
	}
	if o.JSON {
		var b strings.Builder
		_ = rawjson.Write(&b, says) // strings always are JSON
		return b.String()
	}
	text := ""
	for _, line := range [][2]string{{"listening on", says.URL}, {"fingerprint", says.Fingerprint}, {"metrics at", says.Metrics}} {
		if line[1] != "" {
			text += line[0] + " " + line[1] + "\n"
		}
	}
	return text
}
