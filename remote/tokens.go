package remote

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/quarxtor/quarxfs/store/config"
)

// A NewToken is a token to make.
type NewToken struct {
	Name    string         `json:"name"`
	Scopes  []config.Scope `json:"scopes"`
	Expires time.Time      `json:"expires,omitzero"` // zero: never
}

// A MadeToken has the token itself, which cannot be had again.
type MadeToken struct {
	Name  string `json:"name"`
	Token string `json:"token"`
}

// Tokens are what other machines show to be let in.
type Tokens interface {
	// CreateToken makes one. store.ErrConfig, store.ErrNameTaken, store.ErrNewer,
	// store.ErrDamaged.
	CreateToken(ctx context.Context, n NewToken) (MadeToken, error)
	// ListTokens calls fn for each, by name, until fn fails. store.ErrNewer,
	// store.ErrDamaged.
	ListTokens(ctx context.Context, fn func(config.Token) error) error
	// RevokeToken makes one useless at once. store.ErrNotFound, store.ErrNewer,
	// store.ErrDamaged.
	RevokeToken(ctx context.Context, name string) error
}

// CreateToken implements Tokens.
func (l *Local) CreateToken(_ context.Context, n NewToken) (MadeToken, error) {
	secret, err := l.store.CreateToken(n.Name, n.Scopes, n.Expires)
	return MadeToken{n.Name, secret}, err
}

// ListTokens implements Tokens.
func (l *Local) ListTokens(_ context.Context, fn func(config.Token) error) error {
	list, err := l.store.Tokens()
	for _, t := range list {
		if err == nil {
			err = fn(t)
		}
	}
	return err
}

// RevokeToken implements Tokens.
func (l *Local) RevokeToken(_ context.Context, name string) error { return l.store.RevokeToken(name) }

// CreateToken implements Tokens.
func (c *Client) CreateToken(ctx context.Context, n NewToken) (made MadeToken, err error) {
	err = c.post(ctx, http.MethodPost, "/v1/tokens", n, &made)
	return made, err
}

// ListTokens implements Tokens.
func (c *Client) ListTokens(ctx context.Context, fn func(config.Token) error) error {
	return receiveStream(ctx, c, "/v1/tokens", fn)
}

// RevokeToken implements Tokens.
func (c *Client) RevokeToken(ctx context.Context, name string) error {
	return c.call(ctx, http.MethodDelete, "/v1/tokens/"+url.PathEscape(name), nil, &struct{}{})
}

// tokenRoutes are for the store's owner only.
func tokenRoutes(mux *http.ServeMux, s *server) {
	mux.HandleFunc("POST /v1/tokens", func(w http.ResponseWriter, r *http.Request) {
		answerBody(s, w, r, s.node.CreateToken)
	})
	mux.HandleFunc("GET /v1/tokens", func(w http.ResponseWriter, r *http.Request) {
		sendStream(s, w, r, func(fn func(config.Token) error) error { return s.node.ListTokens(r.Context(), fn) })
	})
	mux.HandleFunc("DELETE /v1/tokens/{name}", func(w http.ResponseWriter, r *http.Request) {
		s.answer(w, r, struct{}{}, s.node.RevokeToken(r.Context(), r.PathValue("name")))
	})
}
