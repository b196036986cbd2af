package remote_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/config"
)

func TestTokens(t *testing.T) {
	eachNodeBehind(t, remote.ControlHandler, func(t *testing.T, n remote.Node) {
		ctx := context.Background()
		until := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
		made, err := n.CreateToken(ctx, remote.NewToken{Name: "a b", Scopes: []config.Scope{config.ScopeRead}, Expires: until})
		if err != nil || made.Token == "" {
			t.Fatalf("%+v, %v", made, err)
		}
		if _, err := n.CreateToken(ctx, remote.NewToken{Name: "a b", Scopes: []config.Scope{config.ScopeRead}}); !errors.Is(err, store.ErrNameTaken) {
			t.Error(err)
		}
		if _, err := n.CreateToken(ctx, remote.NewToken{Name: "b", Scopes: []config.Scope{"all"}}); !errors.Is(err, store.ErrConfig) {
			t.Error(err)
		}
		var list []config.Token
		if err := n.ListTokens(ctx, func(t config.Token) error { list = append(list, t); return nil }); err != nil {
			t.Fatal(err)
		}
		if len(list) != 1 || list[0].Name != "a b" || !list[0].Expires.Equal(until) || list[0].Hash != "" {
			t.Errorf("%+v", list)
		}
		if err := n.RevokeToken(ctx, "a b"); err != nil {
			t.Error(err)
		}
		if err := n.RevokeToken(ctx, "a b"); !errors.Is(err, store.ErrNotFound) {
			t.Error(err)
		}
	})
}
