package remote

import (
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

	"github.com/quarxtor/quarxfs/store"
)

// GateOptions say who gets through a gate, and how much at a time; zero values
// mean the defaults given.
type GateOptions struct {
	Tokens    func(secret string) (store.Token, error) // store.ErrToken
	Anonymous []store.Scope                            // of who shows no token; none
	Ready     func() error                             // whether the node can answer; nil: always
	Requests  int                                      // at work at a time, an upload counting as 16; 256
	Rate      float64                                  // requests a second from one address; 2,000
	Wait      time.Duration                            // most that a request waits for its turn; 30 s
	Stall     time.Duration                            // after which a body that does not move is given up; 60 s
	Log       *slog.Logger
}

const (
	uploadWeight = 16 // an upload has up to 8 MiB in memory
	rateWait     = 2 * time.Second
	mostClients  = 4096 // whose rates are remembered
	retryAfter   = 1    // s
)

// A Gate stands between a node's API and other machines. It asks each request for
// a token, and bounds what one client and all of them take: requests a second,
// requests at work, and the time without a byte. /healthz, /readyz and the API's
// description are answered to everybody.
type Gate struct {
	o       GateOptions
	api     http.Handler
	fail    func(http.ResponseWriter, *http.Request, error)
	clients *otter.Cache[netip.Prefix, *rate.Limiter]
	places  *semaphore.Weighted
	quiet   rate.Sometimes // refusals in the log
	leaving atomic.Bool
}

// NewGate returns the gate of a node.
func NewGate(n Node, o GateOptions) *Gate {
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
		o.Stall = stallTime
	}
	o.Requests = max(o.Requests, uploadWeight)
	g := &Gate{o: o, fail: (&server{n, o.Log}).fail, places: semaphore.NewWeighted(int64(o.Requests))}
	g.quiet.Interval = time.Second
	g.api = Handler(n, o.Log)
	g.clients = otter.Must(&otter.Options[netip.Prefix, *rate.Limiter]{
		MaximumSize: mostClients, ExpiryCalculator: otter.ExpiryAccessing[netip.Prefix, *rate.Limiter](10 * time.Minute),
	})
	return g
}

// ServeHTTP implements http.Handler.
func (g *Gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/healthz":
		fmt.Fprintln(w, "ok")
		return
	case "/readyz":
		g.ready(w)
		return
	}
	if err := g.pace(r); err != nil {
		g.refuse(w, r, err)
		return
	}
	if err := g.admit(r); err != nil && r.URL.Path != openAPIPath {
		g.refuse(w, r, err)
		return
	}
	weight := int64(1)
	if isUpload(r) {
		weight = uploadWeight
	}
	if err := g.enter(r.Context(), weight); err != nil {
		g.refuse(w, r, err)
		return
	}
	defer g.places.Release(weight)
	w, r = withStall(w, r, g.o.Stall)
	g.api.ServeHTTP(w, r)
}

func (g *Gate) ready(w http.ResponseWriter) {
	var err error
	if g.leaving.Load() {
		err = errors.New("the server is leaving")
	} else if g.o.Ready != nil {
		err = g.o.Ready()
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ready")
}

// refuse answers and closes the connection: what is left of the body is not read.
func (g *Gate) refuse(w http.ResponseWriter, r *http.Request, err error) {
	g.quiet.Do(func() {
		g.o.Log.Warn("a request was refused", "client", r.RemoteAddr, "method", r.Method, "path", r.URL.Path, "err", err)
	})
	switch {
	case errors.Is(err, store.ErrToken):
		w.Header().Set("WWW-Authenticate", `Bearer realm="quarxfs"`)
	case errors.Is(err, ErrBusy), errors.Is(err, ErrRate):
		w.Header().Set("Retry-After", strconv.Itoa(retryAfter))
	}
	if r.ContentLength != 0 {
		w.Header().Set("Connection", "close")
	}
	g.fail(w, r, err)
}

// pace delays a client that asks too often. ErrRate: by too much.
func (g *Gate) pace(r *http.Request) error {
	addr, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return fmt.Errorf("client %q: %w", r.RemoteAddr, err)
	}
	client := clientOf(addr.Addr())
	limit, _ := g.clients.ComputeIfAbsent(client, func() (*rate.Limiter, bool) {
		return rate.NewLimiter(rate.Limit(g.o.Rate), int(g.o.Rate)+1), false
	})
	turn := limit.Reserve()
	wait := turn.Delay()
	if wait > rateWait {
		turn.Cancel()
		return fmt.Errorf("%w from %s: more than %g a second", ErrRate, client, g.o.Rate)
	}
	return sleep(r.Context(), wait)
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

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// admit asks for a token that allows the request. store.ErrToken, ErrForbidden.
func (g *Gate) admit(r *http.Request) error {
	t := store.Token{Scopes: g.o.Anonymous}
	if h := r.Header.Get("Authorization"); h != "" {
		kind, secret, _ := strings.Cut(h, " ")
		if !strings.EqualFold(kind, "Bearer") {
			return fmt.Errorf("%w: Authorization must be Bearer and the token", store.ErrToken)
		}
		var err error
		if t, err = g.o.Tokens(strings.TrimSpace(secret)); err != nil {
			return err
		}
	} else if len(t.Scopes) == 0 {
		return fmt.Errorf("%w: there is none in the request", store.ErrToken)
	}
	asked := g.scopeOf(r)
	if t.Allows(asked) {
		return nil
	}
	if t.Name == "" {
		return fmt.Errorf("%w: without one nobody may do what needs the scope %s", store.ErrToken, asked)
	}
	return fmt.Errorf("%w: token %q has not the scope %s", ErrForbidden, t.Name, asked)
}

// enter waits for a place among the requests at work. ErrBusy.
func (g *Gate) enter(ctx context.Context, weight int64) error {
	if g.leaving.Load() {
		return fmt.Errorf("%w: it is leaving", ErrBusy)
	}
	if g.places.TryAcquire(weight) {
		return nil
	}
	wait, cancel := context.WithTimeout(ctx, g.o.Wait)
	defer cancel()
	err := g.places.Acquire(wait, weight)
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("%w: nothing was done for %v", ErrBusy, g.o.Wait)
	}
	return err
}

func isUpload(r *http.Request) bool {
	return slices.Contains([]string{http.MethodPost, http.MethodPut}, r.Method) &&
		(r.URL.Path == "/v1/objects" || strings.HasPrefix(r.URL.Path, "/v1/objects/"))
}

// scopeOf returns what a request's route asks for.
func (g *Gate) scopeOf(r *http.Request) store.Scope {
	_, pattern := g.api.(*http.ServeMux).Handler(r)
	if pattern == "" {
		return store.ScopeRead // to hear that there is nothing
	}
	return ScopeOf(pattern)
}
