package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"github.com/spf13/pflag"

	"github.com/quarxtor/quarxfs/remote/rawjson"
	"github.com/quarxtor/quarxfs/remote/serve"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/owner"
)

// listenOptions are how a daemon lets other machines in; no address: it does not.
type listenOptions struct {
	serve.ListenOptions
	selfSigned bool
	anonymous  []string
	requests   int
	rate       float64
	metrics    string // address; empty: none
	asJSON     bool   // what is announced
}

func (o *listenOptions) addFlags(f *pflag.FlagSet) {
	f.BoolVar(&o.selfSigned, "tls", false, "use TLS with a certificate that is made and kept in the store")
	f.StringVar(&o.Cert, "tls-cert", "", "use TLS with the certificate in this `file`")
	f.StringVar(&o.Key, "tls-key", "", "`file` with the key of --tls-cert")
	f.StringVar(&o.ClientCA, "client-ca", "", "`file` with the certificates one of which must vouch for a client's")
	listVar(f, &o.ClientPin, "client-fingerprint", "", "clients must show a certificate with one of these `SHA-256`")
	listVar(f, &o.anonymous, "anonymous", "", "what clients without a token may do, any of these `scopes`: read, write, sync, admin", scopeNames()...)
	f.BoolVar(&o.Insecure, "insecure", false, "listen where others could read along, or come in unknown")
	f.StringVar(&o.metrics, "metrics", "", "answer /metrics for Prometheus at this `address`, over plain HTTP and without tokens, such as 127.0.0.1:9440")
	o.requests, o.rate = 256, 2000
	numberVar(f, &o.requests, 16, 65536, "max-requests", "requests at work at a time, an upload counting as 16; others wait")
	numberVar(f, &o.rate, 0.001, most, "max-rate", "requests a second that one address may send")
}

// prepare checks what can be checked before the store is open.
func (o *listenOptions) prepare() error {
	if o.metrics != "" {
		if err := o.metricsOptions().Validate(); err != nil {
			return err
		}
	}
	if o.Addr == "" {
		if o.selfSigned || o.Insecure && o.metrics == "" || o.Cert+o.Key+o.ClientCA != "" || len(o.ClientPin)+len(o.anonymous) > 0 {
			return fmt.Errorf("%w: nobody is let in without an address: --listen :7440", errUsage)
		}
		return nil
	}
	if o.selfSigned && o.Cert != "" {
		return fmt.Errorf("%w: --tls makes a certificate; leave it out with --tls-cert", errUsage)
	}
	if err := makeAbs(&o.Cert, &o.Key, &o.ClientCA); err != nil {
		return err
	}
	o.Anonymous = nil
	for _, s := range o.anonymous {
		o.Anonymous = append(o.Anonymous, store.Scope(s))
	}
	check := o.ListenOptions
	if o.selfSigned {
		check.Cert, check.Key = "made", "made"
	}
	return check.Validate()
}

// open takes the address for a store that is open.
func (o *listenOptions) open(ctx context.Context, dir string) (*serve.Front, error) {
	l := o.ListenOptions
	if o.selfSigned {
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

// metricsOptions are those of the address of /metrics.
func (o *listenOptions) metricsOptions() serve.ListenOptions {
	return serve.ListenOptions{Addr: o.metrics, Insecure: o.Insecure}
}

func (o *listenOptions) middleware(st *store.Store, ready func() error, log *slog.Logger) serve.MiddlewareOptions {
	return serve.MiddlewareOptions{
		Tokens: st.CheckToken, Anonymous: o.Anonymous, Ready: ready, Requests: o.requests, Rate: o.rate, Log: log,
	}
}

// An announcement is what --json says of the addresses of a daemon.
type announcement struct {
	URL         string `json:"url,omitempty"`
	Fingerprint string `json:"fingerprint,omitempty"`
	Metrics     string `json:"metrics,omitempty"`
}

// announce is what whoever has started the daemon reads. f and metrics may be nil.
func (o *listenOptions) announce(f, metrics *serve.Front) string {
	var says announcement
	if f != nil {
		says.URL, says.Fingerprint = f.URL, f.Fingerprint
	}
	if metrics != nil {
		says.Metrics = metrics.URL + "/metrics"
	}
	if o.asJSON {
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
