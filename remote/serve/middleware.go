package serve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"
	"golang.org/x/time/rate"

	"github.com/quarxtor/quarxfs/graph/budget"
	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/store/config"
)

// MiddlewareOptions say who gets through, and how much at a time; zero values
// mean the defaults given.
type MiddlewareOptions struct {
	Tokens    func(secret string) (config.Token, error) // config.ErrToken
	Anonymous []config.Scope                            // of who shows no token; none
	Ready     func() error                              // whether the node can answer; nil: always
	Requests  int                                       // at work at a time, an upload or walk counting as 16; 256
	Rate      float64                                   // requests a second from one address; 2,000
	Wait      time.Duration                             // most that a request waits for its turn; 30 s
	Stall     time.Duration                             // after which a body that does not move is given up; 60 s
	WalkTime  time.Duration                             // most that a request takes that walks through the store; 10 min
	WalkBytes int64                                     // most memory of such a request, and half of that of all; 192 MiB
	Audit     *Audit                                    // of what changes something; nil: none
	Log       *slog.Logger
}

const (
	rateWait    = 2 * time.Second
	mostClients = 4096 // whose rates are remembered
	retryAfter  = 1    // s
)

// A Middleware stands between a node's API and other machines. It asks each request for
// a token, and bounds what one client and all of them take: requests a second,
// requests at work, the time without a byte, and what a walk through the store costs. Of what is
// bounded one token has half at most, and so has one address: others still get in.
// /healthz, /readyz and the API's
// description are answered to everybody.
type Middleware struct {
	o       MiddlewareOptions
	api     http.Handler
	audited http.Handler // that one
	clients *otter.Cache[netip.Prefix, *rate.Limiter]
	places  *budget.Pool
	memory  *budget.Pool   // bytes
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
	if o.WalkTime == 0 {
		o.WalkTime = 10 * time.Minute
	}
	if o.WalkBytes == 0 {
		o.WalkBytes = 192 << 20
	}
	// Else an upload would never get through.
	o.Requests = max(o.Requests, remote.UploadWeight)
	m := &Middleware{o: o,
		places: budget.NewPool(int64(o.Requests), max(int64(o.Requests)/2, remote.UploadWeight)),
		memory: budget.NewPool(2*o.WalkBytes, o.WalkBytes),
	}
	m.quiet.Interval = time.Second
	m.api = remote.Handler(n, o.Log)
	m.audited = o.Audit.Handler(m.api)
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
	address, err := clientAddress(r)
	// Before the token is looked at, so that guessing tokens is paced as well.
	if err == nil {
		err = m.pace(r.Context(), address)
	}
	if err != nil {
		m.refuse(w, r, err)
		return
	}
	need := remote.Needs(m.api, r)
	token, err := m.admit(r, need)
	caller := remote.Caller{Token: token, Address: address.String()}
	if err != nil && r.URL.Path != remote.OpenAPIPath {
		// Only of who has a token: others could have the audit log forget what is in it.
		if errors.Is(err, remote.ErrForbidden) {
			m.o.Audit.refused(r.WithContext(remote.WithCaller(r.Context(), caller)), http.StatusForbidden)
		}
		m.refuse(w, r, err)
		return
	}
	if err := m.enter(r.Context(), caller.Client(), need.Weight); err != nil {
		m.refuse(w, r, err)
		return
	}
	defer m.places.Give(caller.Client(), need.Weight)
	ctx := remote.WithCaller(r.Context(), caller)
	if need.Walks {
		var done func()
		ctx, done = budget.With(ctx, caller.Client(), budget.Limits{Time: m.o.WalkTime, Memory: m.o.WalkBytes, Pool: m.memory})
		defer done()
	}
	// Only now: waiting for a turn is not the client's standing still.
	w, r = withStall(w, r.WithContext(ctx), m.o.Stall)
	m.audited.ServeHTTP(w, r)
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

// clientAddress is what a request's rate counts for.
func clientAddress(r *http.Request) (netip.Prefix, error) {
	addr, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("client %q: %w", r.RemoteAddr, err)
	}
	return clientOf(addr.Addr()), nil
}

// pace delays a client that asks too often. remote.ErrRate: by too much.
func (m *Middleware) pace(ctx context.Context, client netip.Prefix) error {
	limit, _ := m.clients.ComputeIfAbsent(client, func() (*rate.Limiter, bool) {
		return rate.NewLimiter(rate.Limit(m.o.Rate), int(m.o.Rate)+1), false
	})
	// Wait fails at once if the turn would come too late, and then takes none.
	soon, cancel := context.WithTimeout(ctx, rateWait)
	defer cancel()
	if err := limit.Wait(soon); err != nil {
		return cmp.Or(ctx.Err(), fmt.Errorf("%w from %s: more than %g a second", remote.ErrRate, client, m.o.Rate))
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

// admit asks for a token that allows the request, and returns it; of who shows none, one without a
// name. config.ErrToken, remote.ErrForbidden.
func (m *Middleware) admit(r *http.Request, need remote.Need) (t config.Token, err error) {
	t.Scopes = m.o.Anonymous
	if h := r.Header.Get("Authorization"); h != "" {
		kind, secret, _ := strings.Cut(h, " ")
		if !strings.EqualFold(kind, "Bearer") {
			return t, fmt.Errorf("%w: Authorization must be Bearer and the token", config.ErrToken)
		}
		if t, err = m.o.Tokens(strings.TrimSpace(secret)); err != nil {
			return t, err
		}
		// A token that is shown and wrong is refused even where none is needed: its owner should
		// hear of it.
	} else if len(t.Scopes) == 0 {
		return t, fmt.Errorf("%w: there is none in the request", config.ErrToken)
	}
	if need.AllowedTo(t) {
		return t, nil
	}
	if t.Name == "" {
		return t, fmt.Errorf("%w: without one nobody may do what needs the scope %s", config.ErrToken, need.Scope)
	}
	return t, fmt.Errorf("%w: token %q has not the scope %s", remote.ErrForbidden, t.Name, need.Scope)
}

// enter waits for places among the requests at work. remote.ErrBusy.
func (m *Middleware) enter(ctx context.Context, c budget.Client, weight int64) error {
	if m.leaving.Load() {
		return fmt.Errorf("%w: it is leaving", remote.ErrBusy)
	}
	wait, cancel := context.WithTimeout(ctx, m.o.Wait)
	defer cancel()
	err := m.places.Take(wait, c, weight)
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("%w: nothing was done for %v", remote.ErrBusy, m.o.Wait)
	}
	return err
}
