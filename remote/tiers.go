package remote

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"github.com/quarxtor/quarxfs/store"
)

// Tiers says where a store's bytes are, and moves them.
type Tiers interface {
	// Tiers returns the tiers on disk, the hot one first.
	Tiers(ctx context.Context) ([]store.TierState, error)
	// AddCold makes a directory of the node's machine the cold tier, or, with a
	// place, the bucket that dir names. store.ErrHasTier, store.ErrNotEmpty,
	// store.ErrConfig.
	AddCold(ctx context.Context, dir string, bucket *store.S3Server) error
	// RelocateCold tells the node that its cold tier is elsewhere now, as AddCold would have it.
	// store.ErrNotCold, store.ErrNoTier, store.ErrConfig, store.ErrUnavailable.
	RelocateCold(ctx context.Context, dir string, bucket *store.S3Server) error
	// RemoveCold takes the empty cold tier out of use. store.ErrNoTier,
	// store.ErrHasTier.
	RemoveCold(ctx context.Context) error
	// Shift moves files' blocks into a tier. It calls fn now and then with how
	// far it is, and last with the result. store.ErrNoTier,
	// store.ErrUnavailable, store.ErrNotFound, store.ErrFull.
	Shift(ctx context.Context, r ShiftRequest, fn func(Shift) error) error
}

// A ShiftRequest says what to move.
type ShiftRequest struct {
	To     string   // hot or cold
	Paths  []string // in the live filesystem, files or directories with all below; "" is the root
	Drain  bool     // all that is in the cold tier, and no paths; To is hot
	Rate   int64    // most bytes read a second; 0: no limit
	DryRun bool     // only tell what would be done
}

// A Shift is what a move did, or has done so far, or would do.
type Shift struct {
	Plan  store.MovePlan `json:"plan"` // of a drain only with DryRun
	Moved store.Moved    `json:"moved"`
	Done  bool           `json:"done"`
}

// Check reports a request that makes no sense. ErrRequest; store.ErrConfig.
func (r ShiftRequest) Check() error {
	if r.Drain != (len(r.Paths) == 0) || r.Drain && r.To != "hot" || r.Rate < 0 {
		return fmt.Errorf("%w: give paths to move, or drain to the hot tier", ErrRequest)
	}
	_, err := store.ParseTier(r.To)
	return err
}

// Tiers implements Tiers.
func (l *Local) Tiers(ctx context.Context) ([]store.TierState, error) {
	list, err := l.store.TierStates()
	if err == nil {
		err = l.pinned(ctx, list)
	}
	return list, err
}

// AddCold implements Tiers.
func (l *Local) AddCold(_ context.Context, dir string, bucket *store.S3Server) error {
	if bucket != nil {
		return l.store.AddBucket(dir, *bucket)
	}
	return l.store.AddCold(dir)
}

// RelocateCold implements Tiers.
func (l *Local) RelocateCold(_ context.Context, dir string, bucket *store.S3Server) error {
	if bucket != nil {
		return l.store.RelocateBucket(dir, *bucket)
	}
	return l.store.RelocateCold(dir)
}

// RemoveCold implements Tiers.
func (l *Local) RemoveCold(context.Context) error { return l.store.RemoveCold() }

// Shift implements Tiers.
func (l *Local) Shift(ctx context.Context, r ShiftRequest, fn func(Shift) error) error {
	if err := r.Check(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var sh Shift
	// Progress returns nothing, so an error of fn comes out as the cause of the context.
	o := store.MoveOptions{Rate: r.Rate, Progress: func(m store.Moved) {
		sh.Moved = m
		if err := fn(sh); err != nil {
			cancel(err)
		}
	}}
	var err error
	switch {
	case !r.Drain:
		err = l.shiftPaths(ctx, r, o, &sh)
	// A drain moves all of a tier, so nothing has to be listed first.
	case r.DryRun:
		sh.Plan, err = l.store.PlanDrain(ctx)
	default:
		sh.Moved, err = l.store.Drain(ctx, o)
	}
	if err != nil {
		return ended(ctx, err)
	}
	sh.Done = true
	return fn(sh)
}

func (l *Local) shiftPaths(ctx context.Context, r ShiftRequest, o store.MoveOptions, sh *Shift) error {
	to, err := store.ParseTier(r.To)
	if err != nil {
		return err
	}
	if err := l.store.Commit(); err != nil { // what was just written has no blocks before
		return err
	}
	all, err := l.BlocksBelow(ctx, r.Paths)
	if err != nil {
		return err
	}
	// Pins are asked for last: they may be of the very paths that are to be moved.
	ids, err := l.store.Unpinned(ctx, to, all, l.pins())
	if err != nil {
		return err
	}
	if sh.Plan, err = l.store.PlanMove(to, ids); err != nil {
		return err
	}
	sh.Plan.Pinned = int64(len(all) - len(ids))
	if r.DryRun {
		return nil
	}
	sh.Moved, err = l.store.Move(ctx, to, ids, o)
	return err
}

// Tiers implements Tiers.
func (c *Client) Tiers(ctx context.Context) (list []store.TierState, err error) {
	err = c.call(ctx, http.MethodGet, "/v1/tiers", nil, &list)
	return list, err
}

// AddCold implements Tiers.
func (c *Client) AddCold(ctx context.Context, dir string, bucket *store.S3Server) error {
	return c.putCold(ctx, url.Values{"dir": {dir}}, bucket)
}

// RelocateCold implements Tiers.
func (c *Client) RelocateCold(ctx context.Context, dir string, bucket *store.S3Server) error {
	return c.putCold(ctx, url.Values{"dir": {dir}, "relocate": {"true"}}, bucket)
}

// putCold has the cold tier be where q and bucket say.
func (c *Client) putCold(ctx context.Context, q url.Values, bucket *store.S3Server) error {
	var none struct{}
	if bucket != nil {
		q.Set("endpoint", bucket.Endpoint)
		for name, value := range map[string]string{"region": bucket.Region, "ca": bucket.CA, "credentials": bucket.Credentials} {
			if value != "" {
				q.Set(name, value)
			}
		}
		if bucket.Insecure {
			q.Set("insecure", "true")
		}
	}
	return c.call(ctx, http.MethodPut, withQuery("/v1/tiers/cold", q), nil, &none)
}

// RemoveCold implements Tiers.
func (c *Client) RemoveCold(ctx context.Context) error {
	var none struct{}
	return c.call(ctx, http.MethodDelete, "/v1/tiers/cold", nil, &none)
}

// Shift implements Tiers.
func (c *Client) Shift(ctx context.Context, r ShiftRequest, fn func(Shift) error) error {
	q := url.Values{"to": {r.To}}
	if len(r.Paths) > 0 {
		q["path"] = r.Paths
	}
	setNumber(q, "rate", r.Rate)
	if r.Drain {
		q.Set("drain", "true")
	}
	if r.DryRun {
		q.Set("dry_run", "true")
	}
	return receiveMaintenance(ctx, c, withQuery("/v1/tiers/shift", q), fn)
}

// tierRoutes are for the store's owner only: they name directories of the
// machine.
func tierRoutes(mux *http.ServeMux, s *server) {
	mux.HandleFunc("GET /v1/tiers", func(w http.ResponseWriter, r *http.Request) {
		list, err := s.node.Tiers(r.Context())
		s.answer(w, r, list, err)
	})
	mux.HandleFunc("PUT /v1/tiers/cold", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		err := onlyKnown(q, "dir", "relocate", "endpoint", "region", "ca", "credentials", "insecure")
		var bucket *store.S3Server
		if q.Has("endpoint") {
			bucket = &store.S3Server{
				Endpoint: q.Get("endpoint"), Region: q.Get("region"), CA: q.Get("ca"),
				Credentials: q.Get("credentials"), Insecure: q.Get("insecure") == "true",
			}
		}
		put := s.node.AddCold
		if q.Get("relocate") == "true" {
			put = s.node.RelocateCold
		}
		if err == nil {
			err = put(r.Context(), q.Get("dir"), bucket)
		}
		s.answer(w, r, struct{}{}, err)
	})
	mux.HandleFunc("DELETE /v1/tiers/cold", func(w http.ResponseWriter, r *http.Request) {
		s.answer(w, r, struct{}{}, s.node.RemoveCold(r.Context()))
	})
	mux.HandleFunc("POST /v1/tiers/shift", s.shift)
	policyRoutes(mux, s)
}

func (s *server) shift(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	err := onlyKnown(q, "to", "path", "rate", "drain", "dry_run")
	o := ShiftRequest{To: q.Get("to"), Paths: q["path"], Drain: q.Get("drain") == "true", DryRun: q.Get("dry_run") == "true"}
	if err == nil {
		o.Rate, err = number(q, "rate")
	}
	if err == nil {
		err = o.Check()
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	sendStream(s, w, r, func(fn func(Shift) error) error { return s.node.Shift(r.Context(), o, fn) })
}
