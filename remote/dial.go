package remote

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/config"
	"github.com/quarxtor/quarxfs/tiering/keyfile"
)

// DialRemote returns a client of a remote, with a token unless it is empty. It
// connects when it is first used. Errors: store.ErrConfig, those of reading the CA.
func DialRemote(r config.Remote, token string) (*Client, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	conf, err := tlsOf(r)
	if err != nil {
		return nil, err
	}
	// Keep-alives find a dead peer while a stream waits for a slow disk.
	d := net.Dialer{Timeout: 20 * time.Second, KeepAlive: 15 * time.Second, Control: useBBR}
	t := &http.Transport{
		DisableCompression: true, DialContext: d.DialContext, TLSClientConfig: conf, TLSHandshakeTimeout: 20 * time.Second,
		// Go keeps two by default, and each stream of a sync would shake hands anew.
		MaxIdleConnsPerHost: MaxStreams + 4, IdleConnTimeout: 90 * time.Second,
		ReadBufferSize: 64 << 10, WriteBufferSize: 64 << 10,
	}
	if token == "" {
		return &Client{strings.TrimRight(r.URL, "/"), newHTTP(t)}, nil
	}
	return &Client{strings.TrimRight(r.URL, "/"), newHTTP(bearer{t, token})}, nil
}

// MaxStreams is how many requests to a node a sync has under way.
const MaxStreams = 24

// bearer sends a token with each request, so no request may go to another host: newHTTP sees to
// that.
type bearer struct {
	*http.Transport
	token string
}

// RoundTrip implements http.RoundTripper.
func (b bearer) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header.Set("Authorization", "Bearer "+b.token)
	return b.Transport.RoundTrip(req)
}

// tlsOf says whom to trust: the system's authorities, or those given, or one
// certificate alone.
func tlsOf(r config.Remote) (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS13}
	if r.CA != "" {
		pem, _, err := keyfile.Read(r.CA)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r.Subject(), err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s: %s has no certificate: %w", r.Subject(), r.CA, store.ErrConfig)
		}
	}
	if r.Cert != "" {
		pair, err := keyfile.Pair(r.Cert, r.Key)
		if err != nil {
			return nil, fmt.Errorf("%s: certificate to show: %v: %w", r.Subject(), err, store.ErrConfig)
		}
		// Shown when the server asks for one.
		conf.Certificates = []tls.Certificate{pair}
	}
	if r.Fingerprint == "" {
		return conf, nil
	}
	want := PlainFingerprint(r.Fingerprint)
	conf.InsecureSkipVerify = true // VerifyConnection is stricter
	// The very certificate is known, whoever has signed it; names and dates do not count.
	conf.VerifyConnection = func(cs tls.ConnectionState) error {
		if got := Fingerprint(cs.PeerCertificates[0].Raw); got != want {
			return fmt.Errorf("%w: it has the fingerprint %s and not %s; ask the server's owner which is right", ErrUntrusted, got, want)
		}
		return nil
	}
	return conf, nil
}

// Fingerprint is the SHA-256 of a certificate's DER, in hex.
func Fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// PlainFingerprint is a fingerprint as Fingerprint writes it; people write them in
// several ways.
func PlainFingerprint(s string) string { return strings.ToLower(strings.ReplaceAll(s, ":", "")) }

// ListenTCP listens for peers, with sockets that suit long ways.
func ListenTCP(ctx context.Context, addr string) (net.Listener, error) {
	l := net.ListenConfig{Control: useBBR, KeepAlive: 15 * time.Second}
	return l.Listen(ctx, "tcp", addr)
}

// useBBR has a socket pace what it sends by the way's bandwidth, where the system
// can do that: a lost packet is no sign of a full link on a long way.
func useBBR(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		_ = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, "bbr") // the default does too
	})
}
