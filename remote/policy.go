package remote

import (
	"context"
	"fmt"
	"net/http"

	"github.com/dustin/go-humanize"

	"github.com/quarxtor/quarxfs/graph/query"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/config"
)

// Pins are what a node needs to know of the files whose blocks stay in the hot
// tier. The volume's owner provides it.
type Pins interface {
	// SetPinned pins a file or directory, or no more. store.ErrNotFound.
	SetPinned(ctx context.Context, path string, pinned bool) error
	// Pinned returns the paths that are pinned themselves.
	Pinned(ctx context.Context) ([]string, error)
	// PinnedBlocks calls fn for the blocks of all that is pinned, vertices standing
	// for what is below them.
	PinnedBlocks(ctx context.Context, fn func(store.ID) error) error
}

// TierPolicies move blocks between tiers by themselves.
type TierPolicies interface {
	// TierPolicy returns what is set, and what the mounted store's tier manager does.
	TierPolicy(ctx context.Context) (TierPolicy, error)
	// SetTierPolicy sets the policy; the zero policy ends it. store.ErrConfig.
	SetTierPolicy(ctx context.Context, p store.TierPolicy) error
	// PlanTiers says what a policy would have moved now, and why.
	// store.ErrConfig.
	PlanTiers(ctx context.Context, p store.TierPolicy) (store.TierPlan, error)
	// Pin pins files and directories, or with Off no more. It brings nothing back.
	// store.ErrNotFound.
	Pin(ctx context.Context, r PinRequest) error
}

// A TierPolicy is a store's policy, with its defaults filled in, and what comes of it.
type TierPolicy struct {
	Policy  store.TierPolicy       `json:"policy"`
	Manager store.TierManagerState `json:"keeper"`
}

// A PinRequest names files and directories of the live filesystem.
type PinRequest struct {
	Paths []string `json:"paths"`
	Off   bool     `json:"off,omitempty"`
}

// pins is for the store; nil: nothing can be pinned.
func (l *Local) pins() store.Pins {
	if l.env.Pins == nil {
		return nil
	}
	return l.env.Pins.PinnedBlocks
}

// TierPolicy implements TierPolicies.
func (l *Local) TierPolicy(context.Context) (TierPolicy, error) {
	now, _, err := l.store.Settings()
	return TierPolicy{now.Tiers.WithDefaults(), l.store.TierManager()}, err
}

// leastSegments is how many segments the hot tier's limit must have room for: one is
// always open, and others wait to be compacted.
const leastSegments = 4

// SetTierPolicy implements TierPolicies.
func (l *Local) SetTierPolicy(_ context.Context, p store.TierPolicy) error {
	if least := leastSegments * l.store.Config().SegmentSize; p.On() && p.Limit < least {
		return fmt.Errorf("%w: a limit of %s: this store's hot tier needs %s", store.ErrConfig, humanize.IBytes(uint64(p.Limit)), humanize.IBytes(uint64(least)))
	}
	return l.store.ChangeSettings(func(s *config.Settings) error { s.Tiers = p; return nil })
}

// PlanTiers implements TierPolicies.
func (l *Local) PlanTiers(ctx context.Context, p store.TierPolicy) (store.TierPlan, error) {
	return l.store.PlanTiers(ctx, p, l.pins())
}

// Pin implements TierPolicies.
func (l *Local) Pin(ctx context.Context, r PinRequest) error {
	if l.env.Pins == nil {
		return query.ErrNoFiles
	}
	if len(r.Paths) == 0 {
		return fmt.Errorf("%w: name what to pin", ErrRequest)
	}
	for _, path := range r.Paths {
		if err := l.env.Pins.SetPinned(ctx, path, !r.Off); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return l.store.Commit()
}

// TierPolicy implements TierPolicies.
func (c *Client) TierPolicy(ctx context.Context) (p TierPolicy, err error) {
	err = c.call(ctx, http.MethodGet, "/v1/tiers/policy", nil, &p)
	return p, err
}

// SetTierPolicy implements TierPolicies.
func (c *Client) SetTierPolicy(ctx context.Context, p store.TierPolicy) error {
	return c.post(ctx, http.MethodPut, "/v1/tiers/policy", p, &struct{}{})
}

// PlanTiers implements TierPolicies.
func (c *Client) PlanTiers(ctx context.Context, p store.TierPolicy) (plan store.TierPlan, err error) {
	err = c.post(ctx, http.MethodPost, "/v1/tiers/plan", p, &plan)
	return plan, err
}

// Pin implements TierPolicies.
func (c *Client) Pin(ctx context.Context, r PinRequest) error {
	return c.post(ctx, http.MethodPost, "/v1/tiers/pin", r, &struct{}{})
}

// policyRoutes are for the store's owner only.
func policyRoutes(mux *http.ServeMux, s *server) {
	nothing := func(err error) (struct{}, error) { return struct{}{}, err }
	mux.HandleFunc("GET /v1/tiers/policy", func(w http.ResponseWriter, r *http.Request) {
		now, err := s.node.TierPolicy(r.Context())
		s.answer(w, r, now, err)
	})
	mux.HandleFunc("PUT /v1/tiers/policy", func(w http.ResponseWriter, r *http.Request) {
		answerBody(s, w, r, func(ctx context.Context, p store.TierPolicy) (struct{}, error) {
			return nothing(s.node.SetTierPolicy(ctx, p))
		})
	})
	mux.HandleFunc("POST /v1/tiers/plan", func(w http.ResponseWriter, r *http.Request) { answerBody(s, w, r, s.node.PlanTiers) })
	mux.HandleFunc("POST /v1/tiers/pin", func(w http.ResponseWriter, r *http.Request) {
		answerBody(s, w, r, func(ctx context.Context, p PinRequest) (struct{}, error) { return nothing(s.node.Pin(ctx, p)) })
	})
}

// pinned fills in the pins of the hot tier.
func (l *Local) pinned(ctx context.Context, list []store.TierState) error {
	if l.env.Pins == nil || len(list) == 0 {
		return nil
	}
	var err error
	list[0].Pinned, err = l.env.Pins.Pinned(ctx)
	return err
}
