package serve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"
	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"

	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/store/config"
)

// MiddlewareOptions say who gets through, and how much at a time; zero values
// mean the defaults given.
type MiddlewareOptions struct {
	Tokens    func(secret string) (config.Token, error) // config.ErrToken
	Anonymous []config.Scope                            // of who shows no token; none
	Ready     func() error                              // whether the node can answer; nil: always
	Requests  int                                       // at work at a time, an upload counting as 16; 256
	Rate      float64                                   // requests a second from one address; 2,000
	Wait      time.Duration                             // most that a request waits for its turn; 30 s
	Stall     time.Duration                             // after which a body that does not move is given up; 60 s
	Log       *slog.Logger
}

const (
	uploadWeight = 16 // an upload has up to 8 MiB in memory
	rateWait     = 2 * time.Second
	mostClients  = 4096 // whose rates are remembered
	retryAfter   = 1    // s
)

// A Middleware stands between a node's API and other machines. It asks each request for
// a token, and bounds what one client and all of them take: requests a second,
// requests at work, and the time without a byte. /healthz, /readyz and the API's
// description are answered to everybody.
type Middleware struct {
	o       MiddlewareOptions
	api     http.Handler
	clients *otter.Cache[netip.Prefix, *rate.Limiter]
	places  *semaphore.Weighted
	quiet   rate.Sometimes // refusals in the log
	leaving atomic.Bool
}

// NewMiddleware puts one before the API of a node.
func NewMiddleware(n remote.Node, o MiddlewareOptions) *Middleware {
	if o.Requests == 0 {
		o.Requests = 256
	}
	if o.Rate == 0 {
		o.Rate = 2000
	}
	if o.Wait == 0 {
		o.Wait = 30 * time.Second
	}
	if o.Stall == 0 {
		o.Stall = 60 * time.Second
	}
	// Else an upload would never get through.
	o.Requests = max(o.Requests, uploadWeight)
	m := &Middleware{o: o, places: semaphore.NewWeighted(int64(o.Requests))}
	m.quiet.Interval = time.Second
	m.api = remote.Handler(n, o.Log)
	m.clients = otter.Must(&otter.Options[netip.Prefix, *rate.Limiter]{
		MaximumSize: mostClients, ExpiryCalculator: otter.ExpiryAccessing[netip.Prefix, *rate.Limiter](10 * time.Minute),
	})
	return m
}

// ServeHTTP implements http.Handler.
func (m *Middleware) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/healthz":
		fmt.Fprintln(w, "ok")
		return
	case "/readyz":
		m.ready(w)
		return
	}
	// Before the token is looked at, so that guessing tokens is paced as well.
	if err := m.pace(r); err != nil {
		m.refuse(w, r, err)
		return
	}
	if err := m.admit(r); err != nil && r.URL.Path != remote.OpenAPIPath {
		m.refuse(w, r, err)
		return
	}
	weight := int64(1)
	// An upload has megabytes in memory, a question a few kilobytes.
	if isUpload(r) {
		weight = uploadWeight
	}
	if err := m.enter(r.Context(), weight); err != nil {
		m.refuse(w, r, err)
		return
	}
	defer m.places.Release(weight)
	// Only now: waiting for a turn is not the client's standing still.
	w, r = withStall(w, r, m.o.Stall)
	m.api.ServeHTTP(w, r)
}

func (m *Middleware) ready(w http.ResponseWriter) {
	var err error
	if m.leaving.Load() {
		err = errors.New("the server is leaving")
	} else if m.o.Ready != nil {
		err = m.o.Ready()
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ready")
}

// refuse answers and closes the connection: what is left of the body is not read.
func (m *Middleware) refuse(w http.ResponseWriter, r *http.Request, err error) {
	m.quiet.Do(func() {
		m.o.Log.Warn("a request was refused", "client", r.RemoteAddr, "method", r.Method, "path", r.URL.Path, "err", err)
	})
	switch {
	case errors.Is(err, config.ErrToken):
		w.Header().Set("WWW-Authenticate", `Bearer realm="quarxfs"`)
	case errors.Is(err, remote.ErrBusy), errors.Is(err, remote.ErrRate):
		w.Header().Set("Retry-After", strconv.Itoa(retryAfter))
	}
	if r.ContentLength != 0 {
		w.Header().Set("Connection", "close")
	}
	remote.Fail(w, r, m.o.Log, err)
}

// pace delays a client that asks too often. remote.ErrRate: by too much.
func (m *Middleware) pace(r *http.Request) error {
	addr, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return fmt.Errorf("client %q: %w", r.RemoteAddr, err)
	}
	client := clientOf(addr.Addr())
	limit, _ := m.clients.ComputeIfAbsent(client, func() (*rate.Limiter, bool) {
		return rate.NewLimiter(rate.Limit(m.o.Rate), int(m.o.Rate)+1), false
	})
	// Wait fails at once if the turn would come too late, and then takes none.
	soon, cancel := context.WithTimeout(r.Context(), rateWait)
	defer cancel()
	if err := limit.Wait(soon); err != nil {
		return cmp.Or(r.Context().Err(), fmt.Errorf("%w from %s: more than %g a second", remote.ErrRate, client, m.o.Rate))
	}
	return nil
}

// clientOf is whom a rate counts for: an address, or what one customer has of IPv6.
func clientOf(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits) // has so many bits
	return p
}

// admit asks for a token that allows the request. config.ErrToken, remote.ErrForbidden.
func (m *Middleware) admit(r *http.Request) error {
	t := config.Token{Scopes: m.o.Anonymous}
	if h := r.Header.Get("Authorization"); h != "" {
		kind, secret, _ := strings.Cut(h, " ")
		if !strings.EqualFold(kind, "Bearer") {
			return fmt.Errorf("%w: Authorization must be Bearer and the token", config.ErrToken)
		}
		var err error
		if t, err = m.o.Tokens(strings.TrimSpace(secret)); err != nil {
			return err
		}
		// A token that is shown and wrong is refused even where none is needed: its owner should
		// hear of it.
	} else if len(t.Scopes) == 0 {
		return fmt.Errorf("%w: there is none in the request", config.ErrToken)
	}
	asked := m.scopeOf(r)
	if t.Allows(asked) {
		return nil
	}
	if t.Name == "" {
		return fmt.Errorf("%w: without one nobody may do what needs the scope %s", config.ErrToken, asked)
	}
	return fmt.Errorf("%w: token %q has not the scope %s", remote.ErrForbidden, t.Name, asked)
}

// enter waits for a place among the requests at work. remote.ErrBusy.
func (m *Middleware) enter(ctx context.Context, weight int64) error {
	if m.leaving.Load() {
		return fmt.Errorf("%w: it is leaving", remote.ErrBusy)
	}
	if m.places.TryAcquire(weight) {
		return nil
	}
	wait, cancel := context.WithTimeout(ctx, m.o.Wait)
	defer cancel()
	err := m.places.Acquire(wait, weight)
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("%w: nothing was done for %v", remote.ErrBusy, m.o.Wait)
	}
	return err
}

func isUpload(r *http.Request) bool {
	return slices.Contains([]string{http.MethodPost, http.MethodPut}, r.Method) &&
		(r.URL.Path == "/v1/objects" || strings.HasPrefix(r.URL.Path, "/v1/objects/"))
}

// scopeOf returns what a request's route asks for.
func (m *Middleware) scopeOf(r *http.Request) config.Scope {
	_, pattern := m.api.(*http.ServeMux).Handler(r)
	if pattern == "" {
		return config.ScopeRead // to hear that there is nothing
	}
	return remote.ScopeOf(pattern)
}
