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
	mux := Handler(nil, slog.New(slog.DiscardHandler)).(*http.ServeMux)
	list := (&server{}).routes()
	if len(list) == 0 {
		t.Fatal("there are no routes")
	}
	for _, r := range list {
		method, path, _ := strings.Cut(r.pattern, " ")
		if r.summary == "" || !slices.Contains(config.Scopes(), r.scope) {
			t.Errorf("%s: scope %q, summary %q", r.pattern, r.scope, r.summary)
		}
		reads := method == http.MethodGet || r.pattern == "POST /v1/sync/records" // asks with a body
		if sync := strings.HasPrefix(path, "/v1/sync/") && !reads; sync != (r.scope == config.ScopeSync) {
			t.Errorf("%s asks for the scope %s", r.pattern, r.scope)
		}
		if !reads && r.scope == config.ScopeRead {
			t.Errorf("%s changes something and asks for the scope read", r.pattern)
		}
		path = strings.NewReplacer("{ref...}", "a/b", "{name}", "a", "{lease}", "1", "{id}", "ab").Replace(path)
		if _, got := mux.Handler(httptest.NewRequest(method, path, nil)); got != r.pattern {
			t.Errorf("%s %s goes to %q, not to %q", method, path, got, r.pattern)
		}
		if got := ScopeOf(r.pattern); got != r.scope {
			t.Errorf("ScopeOf(%q) = %s, want %s", r.pattern, got, r.scope)
		}
	}
	for _, pattern := range []string{"", "POST /v1/tokens", "GET /v1/remotes"} {
		if got := ScopeOf(pattern); got != config.ScopeAdmin {
			t.Errorf("ScopeOf(%q) = %s: what is in no row is for admins", pattern, got)
		}
	}
}
