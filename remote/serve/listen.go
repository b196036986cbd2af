// Package serve is where other machines reach a node: a listener with TLS, a middleware that asks
// for tokens and bounds what a client takes, and a service that ends in order. What is answered is
// remote's.
package serve

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"time"

	"golang.org/x/net/netutil"

	"github.com/quarxtor/quarxfs/graph/budget"
	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/config"
	"github.com/quarxtor/quarxfs/tiering/keyfile"
)

// ListenOptions say where a node listens for other machines, and how it shows
// itself and whom it lets talk.
type ListenOptions struct {
	Addr      string         // host:port; port 0 is any that is free
	Cert, Key string         // PEM files, read anew when they change; empty: no TLS
	ClientCA  string         // PEM file: clients must show a certificate that one of these vouches for
	ClientPin []string       // clients must show a certificate with one of these fingerprints
	Anonymous []config.Scope // what clients without a token may do
	Insecure  bool           // allow plain HTTP, and clients without token or certificate, from other machines
	Hosts     []string       // names by which clients may ask over plain HTTP, besides this machine's own

	AddressShare int           // connections of one address; 512
	HeaderTime   time.Duration // for TLS's handshake, and for a request's header; 10 s
}

// Validate reports what cannot be: ErrConfig.
func (o ListenOptions) Validate() error {
	bad := func(text string) error { return fmt.Errorf("%w: listen on %s: %s", store.ErrConfig, o.Addr, text) }
	if _, _, err := net.SplitHostPort(o.Addr); err != nil {
		return bad("give HOST:PORT, as 127.0.0.1:7440 or :7440")
	}
	if (o.Cert == "") != (o.Key == "") {
		return bad("a certificate and its key go together")
	}
	if o.Cert == "" && o.mutual() {
		return bad("only with TLS can clients show certificates")
	}
	for _, pin := range o.ClientPin {
		if !config.ValidFingerprint(pin) {
			return bad(fmt.Sprintf("client fingerprint %q: give the 64 hex digits of a SHA-256", pin))
		}
	}
	if len(o.Anonymous) == 0 {
		return nil
	}
	// Certificates are as good as tokens at keeping strangers out.
	if !o.Insecure && !o.mutual() {
		return bad("anybody could come in without a token: have clients show certificates, or say --insecure")
	}
	return config.ValidScopes(o.Anonymous)
}

func (o ListenOptions) mutual() bool { return o.ClientCA != "" || len(o.ClientPin) > 0 }

const (
	mostConnections = 2048
	addressShare    = mostConnections / 4 // of one address
	maxHeader       = 16 << 10            // bytes
	idleTime        = 2 * time.Minute
)

// A Front is where other machines reach a node.
type Front struct {
	URL         string // with the port that was chosen
	Fingerprint string // SHA-256 of the certificate in hex; empty: no TLS
	headerTime  time.Duration
	names       []string // of this machine
	log         *slog.Logger
	l           net.Listener
	middleware  *Middleware // nil: none asks for tokens
	service     *Service    // nil: none answers yet
}

// Listen takes the address; Serve answers there. ErrConfig: also where an address
// that is not this machine's own would be without TLS.
func Listen(ctx context.Context, o ListenOptions) (*Front, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	f := &Front{headerTime: cmp.Or(o.HeaderTime, 10*time.Second), names: ownNames(o)}
	var conf *tls.Config
	if o.Cert != "" {
		// Read now, so that a wrong file fails the start and not the first client.
		c := &certificate{cert: o.Cert, key: o.Key}
		if err := c.load(); err != nil {
			return nil, err
		}
		f.Fingerprint = remote.Fingerprint(c.mu.now.Certificate[0])
		var err error
		if conf, err = serverTLS(o, c); err != nil {
			return nil, err
		}
	}
	l, err := remote.ListenTCP(ctx, o.Addr)
	if err != nil {
		return nil, err
	}
	// Asked of the listener, not of o.Addr: a name may stand for any address.
	if !l.Addr().(*net.TCPAddr).IP.IsLoopback() && conf == nil && !o.Insecure {
		l.Close()
		return nil, fmt.Errorf("%w: listen on %s: others could read along: use TLS, or say --insecure", store.ErrConfig, o.Addr)
	}
	f.URL = "http://" + l.Addr().String()
	// Below TLS: a handshake counts as a connection, too.
	f.l = fairListener{netutil.LimitListener(l, mostConnections), budget.NewPool(mostConnections, int64(cmp.Or(o.AddressShare, addressShare)))}
	if conf != nil {
		f.URL = "https://" + l.Addr().String()
		f.l = tls.NewListener(f.l, conf)
	}
	return f, nil
}

// Try reports why Listen would fail. made: the certificate is made later.
func (o ListenOptions) Try(ctx context.Context, made bool) error {
	if made {
		if o.ClientCA != "" {
			if _, err := authorities(o.ClientCA); err != nil {
				return err
			}
		}
		// What is left to be tried is the address.
		o = ListenOptions{Addr: o.Addr, Insecure: true}
	}
	f, err := Listen(ctx, o)
	if err != nil {
		return err
	}
	return f.l.Close()
}

// Serve answers in the background from now on.
func (f *Front) Serve(m *Middleware, log *slog.Logger) {
	f.middleware = m
	f.serve(m, log)
}

// ServeMetrics answers GET /metrics and nothing else in the background from now on.
func (f *Front) ServeMetrics(n remote.Node, log *slog.Logger) {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", remote.MetricsHandler(n, log))
	f.serve(mux, log)
}

func (f *Front) serve(h http.Handler, log *slog.Logger) {
	f.log = log
	f.service = Serve(f.l, &http.Server{
		Handler: f.guarded(h), ReadHeaderTimeout: f.headerTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeader,
	}, log)
}

// Close is as that of Service.
func (f *Front) Close(ctx context.Context) error {
	if f.service == nil {
		return f.l.Close()
	}
	if f.middleware != nil {
		f.middleware.leaving.Store(true)
	}
	return f.service.Close(ctx)
}

// authorities are those that a file has the certificates of.
func authorities(path string) (*x509.CertPool, error) {
	pem, _, err := keyfile.Read(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%w: %s has no certificate", store.ErrConfig, path)
	}
	return pool, nil
}

// serverTLS is TLS 1.3 and HTTP/1.1: a stream of blocks has a connection, and its
// window, of its own.
func serverTLS(o ListenOptions, c *certificate) (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"}, GetCertificate: c.get}
	if o.ClientCA != "" {
		var err error
		if conf.ClientCAs, err = authorities(o.ClientCA); err != nil {
			return nil, err
		}
		// Pins alone need no authority; with one, both must hold.
		conf.ClientAuth = tls.RequireAndVerifyClientCert
	}
	if len(o.ClientPin) == 0 {
		return conf, nil
	}
	conf.ClientAuth = max(conf.ClientAuth, tls.RequireAnyClientCert)
	var pins []string
	for _, p := range o.ClientPin {
		pins = append(pins, remote.PlainFingerprint(p))
	}
	conf.VerifyConnection = func(cs tls.ConnectionState) error {
		if got := remote.Fingerprint(cs.PeerCertificates[0].Raw); !slices.Contains(pins, got) {
			return fmt.Errorf("the client's certificate has the fingerprint %s, which is not one of those that may come in", got)
		}
		return nil
	}
	return conf, nil
}
