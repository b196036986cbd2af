package remote

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/quarxtor/quarxfs/store/config"
)

// TestRoutes checks each row, and that Handler finds it under its own pattern.
func TestRoutes(t *testing.T) {
	mux := Handler(nil, slog.New(slog.DiscardHandler)).(*api)
	list := (&server{}).routes()
	if len(list) == 0 {
		t.Fatal("there are no routes")
	}
	for _, r := range list {
		method, path, _ := strings.Cut(r.pattern, " ")
		if r.summary == "" || !slices.Contains(config.Scopes(), r.need.Scope) {
			t.Errorf("%s: scope %q, summary %q", r.pattern, r.need.Scope, r.summary)
		}
		reads := method == http.MethodGet || r.pattern == "POST /v1/sync/records" // asks with a body
		if sync := strings.HasPrefix(path, "/v1/sync/") && !reads; sync != (r.need.Scope == config.ScopeSync) {
			t.Errorf("%s asks for the scope %s", r.pattern, r.need.Scope)
		}
		if !reads && r.need.Scope == config.ScopeRead {
			t.Errorf("%s changes something and asks for the scope read", r.pattern)
		}
		path = strings.NewReplacer("{ref...}", "a/b", "{name}", "a", "{lease}", "1", "{id}", "ab").Replace(path)
		if _, got := mux.Handler(httptest.NewRequest(method, path, nil)); got != r.pattern {
			t.Errorf("%s %s goes to %q, not to %q", method, path, got, r.pattern)
		}
		if got := NeedOf(r.pattern); got != r.need {
			t.Errorf("NeedOf(%q) = %v, want %v", r.pattern, got, r.need)
		}
	}
	for _, pattern := range []string{"", "POST /v1/tokens", "GET /v1/remotes"} {
		if got := NeedOf(pattern).Scope; got != config.ScopeAdmin {
			t.Errorf("NeedOf(%q) = %s: what is in no row is for admins", pattern, got)
		}
	}
}
