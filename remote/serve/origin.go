package serve

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/quarxtor/quarxfs/remote"
)

// A page in a browser may send requests to any address that the browser reaches, this machine's own
// among them. Two things tell them:
//
//   - The header Origin names the site of the page. No page of ours asks anything, so any other is
//     foreign.
//   - A site may have its own name lead to this machine's address (DNS rebinding), and then is of
//     the same origin. But it has to ask by its name. So over plain HTTP a request has to be for an
//     address or for a name of this machine. With TLS the certificate has not that name.

// ownNames are the names by which this machine may be asked over plain HTTP, besides addresses.
func ownNames(o ListenOptions) []string {
	list := append([]string{"localhost"}, o.Hosts...)
	if host, _, err := net.SplitHostPort(o.Addr); err == nil && host != "" {
		list = append(list, host)
	}
	if name, err := os.Hostname(); err == nil && name != "" {
		short, _, _ := strings.Cut(name, ".")
		list = append(list, name, short, short+".local")
	}
	return list
}

// checkOrigin refuses what a page of another site has a browser ask. remote.ErrForeign.
func checkOrigin(r *http.Request, names []string) error {
	host := hostOf(r.Host)
	_, err := netip.ParseAddr(host)
	own := func(name string) bool { return strings.EqualFold(host, name) }
	// No browser leaves the host out.
	if r.TLS == nil && host != "" && err != nil && !slices.ContainsFunc(names, own) {
		return fmt.Errorf("%w: the request is for %q, which is no name of this machine: ask for its address, or have it listen with --host %s",
			remote.ErrForeign, r.Host, host)
	}
	for _, origin := range r.Header.Values("Origin") {
		if u, err := url.Parse(origin); err != nil || u.Host == "" || !strings.EqualFold(u.Host, r.Host) {
			return fmt.Errorf("%w: it comes from a page of %q", remote.ErrForeign, origin)
		}
	}
	return nil
}

// hostOf is a Host header without a port, and without the brackets of IPv6.
func hostOf(s string) string {
	if host, _, err := net.SplitHostPort(s); err == nil {
		s = host
	}
	return strings.TrimSuffix(strings.Trim(s, "[]"), ".")
}

// guarded answers only what checkOrigin lets through.
func (f *Front) guarded(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := checkOrigin(r, f.names); err != nil {
			if r.ContentLength != 0 {
				w.Header().Set("Connection", "close") // what is left of the body is not read
			}
			remote.Fail(w, r, f.log, err)
			return
		}
		h.ServeHTTP(w, r)
	})
}
