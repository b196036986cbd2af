package remote

import (
	"context"
	"net/http"

	"github.com/quarxtor/quarxfs/store/config"
)

// Settings are what can be changed in a store's life. A daemon follows a change
// at once.
type Settings interface {
	// Settings returns what is set. store.ErrNewer, store.ErrDamaged.
	Settings(ctx context.Context) (config.Settings, error)
	// SetSchedule sets which snapshots are made by themselves; the zero schedule
	// ends that. store.ErrConfig, store.ErrNewer, store.ErrDamaged.
	SetSchedule(ctx context.Context, schedule config.SnapshotSchedule) error
}

// Settings implements Settings.
func (l *Local) Settings(context.Context) (config.Settings, error) {
	now, _, err := l.store.Settings()
	return now, err
}

// SetSchedule implements Settings.
func (l *Local) SetSchedule(_ context.Context, schedule config.SnapshotSchedule) error {
	return l.store.ChangeSettings(func(s *config.Settings) error { s.Snapshots = schedule; return nil })
}

// Settings implements Settings.
func (c *Client) Settings(ctx context.Context) (now config.Settings, err error) {
	err = c.call(ctx, http.MethodGet, "/v1/settings", nil, &now)
	return now, err
}

// SetSchedule implements Settings.
func (c *Client) SetSchedule(ctx context.Context, schedule config.SnapshotSchedule) error {
	return c.post(ctx, http.MethodPut, "/v1/settings/snapshots", schedule, &struct{}{})
}

// settingsRoutes are for the store's owner only.
func settingsRoutes(mux *http.ServeMux, s *server) {
	mux.HandleFunc("GET /v1/settings", func(w http.ResponseWriter, r *http.Request) {
		now, err := s.node.Settings(r.Context())
		s.answer(w, r, now, err)
	})
	mux.HandleFunc("PUT /v1/settings/snapshots", func(w http.ResponseWriter, r *http.Request) {
		answerBody(s, w, r, func(ctx context.Context, schedule config.SnapshotSchedule) (struct{}, error) {
			return struct{}{}, s.node.SetSchedule(ctx, schedule)
		})
	})
}
