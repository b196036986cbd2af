package serve_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/remote/serve"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/config"
)

// A pair is a certificate and its key in one file.
type pair struct {
	path, fingerprint string
	cert              *x509.Certificate
	key               *ecdsa.PrivateKey
}

// certify makes a certificate that signer vouches for; nil: itself.
func certify(t *testing.T, name string, signer *pair, until time.Time) *pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: until.Add(-time.Hour), NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: signer == nil,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	parent, by := c, key
	if signer != nil {
		parent, by = signer.cert, signer.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, by)
	if err != nil {
		t.Fatal(err)
	}
	p := &pair{path: filepath.Join(t.TempDir(), name+".pem"), key: key}
	if p.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(der)
	p.fingerprint = hex.EncodeToString(sum[:])
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	b := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})...)
	if err := os.WriteFile(p.path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

// Whom a client trusts, and whom a server lets in.
func TestTLS(t *testing.T) {
	soon, ago := time.Now().Add(time.Hour/2), time.Now().Add(-time.Hour)
	ca, other := certify(t, "ca", nil, soon), certify(t, "other", nil, soon)
	server := certify(t, "server", ca, soon)
	mine, expired, strange := certify(t, "mine", ca, soon), certify(t, "expired", ca, ago), certify(t, "strange", other, soon)
	s := newSite(t, store.Options{})
	token := s.Token(t, "all", config.ScopeAdmin)
	listen := serve.ListenOptions{Cert: server.path, Key: server.path}
	byCA, byPin, both := listen, listen, listen
	byCA.ClientCA, both.ClientCA = ca.path, ca.path
	byPin.ClientPin, both.ClientPin = []string{strange.fingerprint}, []string{mine.fingerprint}
	zero := hex.EncodeToString(make([]byte, 32))
	for _, c := range []struct {
		what   string
		listen serve.ListenOptions
		remote config.Remote
		ok     bool
	}{
		{"an authority that vouches", listen, config.Remote{CA: ca.path}, true},
		{"another authority", listen, config.Remote{CA: other.path}, false},
		{"the system's authorities", listen, config.Remote{}, false},
		{"the fingerprint", listen, config.Remote{Fingerprint: server.fingerprint}, true},
		{"another fingerprint", listen, config.Remote{Fingerprint: zero}, false},
		{"the authority, and another fingerprint", listen, config.Remote{CA: ca.path, Fingerprint: zero}, false},
		{"a client's authority: its certificate", byCA, config.Remote{CA: ca.path, Cert: mine.path, Key: mine.path}, true},
		{"a client's authority: none", byCA, config.Remote{CA: ca.path}, false},
		{"a client's authority: of another one", byCA, config.Remote{CA: ca.path, Cert: strange.path, Key: strange.path}, false},
		{"a client's authority: expired", byCA, config.Remote{CA: ca.path, Cert: expired.path, Key: expired.path}, false},
		{"a client's fingerprint: that one", byPin, config.Remote{CA: ca.path, Cert: strange.path, Key: strange.path}, true},
		{"a client's fingerprint: another one", byPin, config.Remote{CA: ca.path, Cert: mine.path, Key: mine.path}, false},
		{"both: that one", both, config.Remote{CA: ca.path, Cert: mine.path, Key: mine.path}, true},
		{"both: another one of the authority", both, config.Remote{CA: ca.path, Cert: server.path, Key: server.path}, false},
	} {
		t.Run(c.what, func(t *testing.T) {
			f := s.Front(t, c.listen, serve.MiddlewareOptions{})
			c.remote.Name, c.remote.URL = "n", f.URL
			client, err := remote.DialRemote(c.remote, token)
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			if _, err := client.Stats(t.Context()); (err == nil) != c.ok {
				t.Errorf("%v", err)
			}
		})
	}
	t.Run("a certificate does for a token where that is allowed", func(t *testing.T) {
		f := s.Front(t, byCA, serve.MiddlewareOptions{Anonymous: []config.Scope{config.ScopeRead}})
		client, err := remote.DialRemote(config.Remote{Name: "n", URL: f.URL, CA: ca.path, Cert: mine.path, Key: mine.path}, "")
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		if _, err := client.Stats(t.Context()); err != nil {
			t.Error(err)
		}
		if err := client.Remove(t.Context(), "x"); !errors.Is(err, config.ErrToken) {
			t.Errorf("what needs another scope: %v", err)
		}
	})
	t.Run("older versions and plain HTTP", func(t *testing.T) {
		f := s.Front(t, listen, serve.MiddlewareOptions{})
		old := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}}}
		if resp, err := old.Get(f.URL + "/healthz"); err == nil {
			resp.Body.Close()
			t.Error("TLS 1.2 was accepted")
		}
		resp, err := http.Get("http" + f.URL[len("https"):] + "/v1/stats")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode < 400 {
				t.Errorf("plain HTTP: %s", resp.Status)
			}
		}
	})
	t.Run("a key of another certificate", func(t *testing.T) {
		if _, err := serve.Listen(t.Context(), serve.ListenOptions{Addr: "127.0.0.1:0", Cert: server.path, Key: mine.path}); !errors.Is(err, store.ErrConfig) {
			t.Errorf("%v", err)
		}
	})
}
