package pki_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quarxtor/quarxfs/remote/cluster/pki"
)

// node is a certificate and its key.
type node struct{ cert, key []byte }

func newNode(t *testing.T, a *pki.Authority, name string, now time.Time) node {
	t.Helper()
	key, request, err := pki.NewRequest(name, []string{"10.0.0.1", name + ".example"})
	if err != nil {
		t.Fatal(err)
	}
	cert, err := a.Sign(request, name, now)
	if err != nil {
		t.Fatal(err)
	}
	return node{cert: append(cert, a.Certificate()...), key: key}
}

func newAuthority(t *testing.T, now time.Time) *pki.Authority {
	t.Helper()
	a, err := pki.NewAuthority("0123", now)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func identity(t *testing.T, n node, a *pki.Authority) *pki.Identity {
	t.Helper()
	i, err := pki.LoadIdentity(n.cert, n.key, a.Certificate())
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// server answers with the name of the client whose certificate was verified.
func server(t *testing.T, conf *tls.Config) string {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TLS.VerifiedChains) == 0 {
			io.WriteString(w, "nobody")
			return
		}
		io.WriteString(w, r.TLS.PeerCertificates[0].Subject.CommonName)
	}))
	s.TLS = conf
	s.Config.ErrorLog = nil
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.URL
}

func ask(url string, conf *tls.Config) (string, error) {
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true}}
	r, err := c.Get(url)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	return string(b), err
}

func TestIdentities(t *testing.T) {
	now := time.Now()
	a, b := newAuthority(t, now), newAuthority(t, now)
	n1, n2, stranger := newNode(t, a, "n1", now), newNode(t, a, "n2", now), newNode(t, b, "n2", now)
	url := server(t, identity(t, n1, a).Server())

	if got, err := ask(url, identity(t, n2, a).Client()); err != nil || got != "n2" {
		t.Errorf("a node of the cluster: %q, %v", got, err)
	}
	if got, err := ask(url, identity(t, stranger, b).Client()); err == nil {
		t.Errorf("a node of another cluster was answered %q", got)
	}
	if _, err := pki.LoadIdentity(stranger.cert, stranger.key, a.Certificate()); !errors.Is(err, pki.ErrFormat) {
		t.Errorf("a certificate of another cluster: %v", err)
	}
	if _, err := pki.LoadIdentity(n1.cert, n2.key, a.Certificate()); !errors.Is(err, pki.ErrFormat) {
		t.Errorf("the key of another node: %v", err)
	}
}

// Who has a token alone trusts the authority's nodes, whatever the time is, and is nobody to them.
func TestJoin(t *testing.T) {
	for _, now := range []time.Time{time.Now(), time.Now().AddDate(-30, 0, 0), time.Now().AddDate(30, 0, 0)} {
		a, b := newAuthority(t, now), newAuthority(t, now)
		url := server(t, identity(t, newNode(t, a, "n1", now), a).Server())
		right := pki.Token{Address: "127.0.0.1:1", Authority: a.Fingerprint(), Secret: pki.NewSecret()}
		if got, err := ask(url, right.Join()); err != nil || got != "nobody" {
			t.Errorf("%v: %q, %v", now, got, err)
		}
		wrong := right
		wrong.Authority = b.Fingerprint()
		if _, err := ask(url, wrong.Join()); !errors.Is(err, pki.ErrAuthority) {
			t.Errorf("%v: another cluster: %v", now, err)
		}
		// The right authority beside a certificate that it has not signed.
		forged := newNode(t, b, "n1", now)
		forged.cert = append(slices.Clone(forged.cert), a.Certificate()...)
		pair, err := tls.X509KeyPair(forged.cert, forged.key)
		if err != nil {
			t.Fatal(err)
		}
		url = server(t, &tls.Config{Certificates: []tls.Certificate{pair}})
		if _, err := ask(url, right.Join()); !errors.Is(err, pki.ErrAuthority) {
			t.Errorf("%v: a forged certificate: %v", now, err)
		}
	}
}

func TestSign(t *testing.T) {
	now := time.Now()
	a := newAuthority(t, now)
	_, request, err := pki.NewRequest("n1", nil)
	if err != nil {
		t.Fatal(err)
	}
	request2 := slices.Clone(request)
	request2[len(request2)-1] ^= 1
	for what, sign := range map[string]func() ([]byte, error){
		"another name":   func() ([]byte, error) { return a.Sign(request, "n2", now) },
		"a broken one":   func() ([]byte, error) { return a.Sign(request[:50], "n1", now) },
		"a changed one":  func() ([]byte, error) { return a.Sign(request2, "n1", now) },
		"nothing at all": func() ([]byte, error) { return a.Sign(nil, "n1", now) },
	} {
		if _, err := sign(); !errors.Is(err, pki.ErrFormat) {
			t.Errorf("%s: %v", what, err)
		}
	}
	key, err := a.Key()
	if err != nil {
		t.Fatal(err)
	}
	again, err := pki.LoadAuthority(a.Certificate(), key)
	if err != nil || again.Fingerprint() != a.Fingerprint() {
		t.Errorf("read again: %v", err)
	}
	list, err := a.Revoke([]string{"ab2", "1"}, now)
	if err != nil {
		t.Fatal(err)
	}
	revoked, err := x509.ParseRevocationList(list)
	if err != nil || len(revoked.RevokedCertificateEntries) != 2 || revoked.RevokedCertificateEntries[0].SerialNumber.Int64() != 0xab2 {
		t.Errorf("the list of what counts no more: %v, %v", revoked, err)
	}
	if _, err := a.Revoke([]string{"no number"}, now); !errors.Is(err, pki.ErrFormat) {
		t.Errorf("a serial number that is none: %v", err)
	}
	n := newNode(t, a, "n1", now)
	if _, err := pki.LoadAuthority(n.cert, n.key); !errors.Is(err, pki.ErrFormat) {
		t.Errorf("a node as the authority: %v", err)
	}
}

func TestTokens(t *testing.T) {
	want := pki.Token{Address: "[fe80::1]:7441", Authority: strings.Repeat("ab", 32), Secret: pki.NewSecret()}
	text := want.String()
	if got, err := pki.ParseToken(" " + text + "\n"); err != nil || got != want {
		t.Errorf("%v, %v", got, err)
	}
	for i := range text {
		if got, err := pki.ParseToken(text[:i]); !errors.Is(err, pki.ErrFormat) {
			t.Fatalf("cut to %d: %v, %v", i, got, err)
		}
	}
	for _, bad := range []pki.Token{
		{}, {Address: "host", Authority: want.Authority, Secret: "x"},
		{Address: want.Address, Authority: "ab", Secret: "x"}, {Address: want.Address, Authority: want.Authority},
	} {
		if _, err := pki.ParseToken(bad.String()); !errors.Is(err, pki.ErrFormat) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}
