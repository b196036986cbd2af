package remote_test

import (
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/store/config"
)

// TestWrongWayToAServer meets servers in the wrong way, and is told the right one.
func TestWrongWayToAServer(t *testing.T) {
	refuse := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	start := func(change func(*httptest.Server)) *httptest.Server {
		s := httptest.NewUnstartedServer(refuse)
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		change(s)
		t.Cleanup(s.Close)
		return s
	}
	plain := start((*httptest.Server).Start)
	secure := start((*httptest.Server).StartTLS)
	asks := start(func(s *httptest.Server) {
		s.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
		s.StartTLS()
	})
	fingerprint := remote.Fingerprint(secure.Certificate().Raw)
	for _, c := range []struct {
		name, url, fingerprint string
		want                   error
		says                   string
	}{
		{"TLS to a plain port", "https" + strings.TrimPrefix(plain.URL, "http"), "", remote.ErrScheme, "use " + plain.URL},
		{"plain to a TLS port", "http" + strings.TrimPrefix(secure.URL, "https"), "", remote.ErrScheme, "use " + secure.URL},
		{"nobody to trust", secure.URL, "", remote.ErrUntrusted, fingerprint},
		{"another fingerprint", secure.URL, strings.Repeat("0", 64), remote.ErrUntrusted, fingerprint},
		{"no certificate to show", asks.URL, remote.Fingerprint(asks.Certificate().Raw), remote.ErrForbidden, "--cert"},
		{"another program", plain.URL, "", nil, "418"},
	} {
		client, err := remote.DialRemote(config.Remote{Name: "it", URL: c.url, Fingerprint: c.fingerprint}, "")
		if err != nil {
			t.Fatal(err)
		}
		_, err = client.StatObject(t.Context(), "x")
		client.Close()
		if err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %v with %q", c.name, err, c.want, c.says)
		}
	}
}
