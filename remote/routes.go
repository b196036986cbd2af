package remote

import (
	"net/http"
	"sync"

	"github.com/quarxtor/quarxfs/store"
)

// A route is one request of the API that other machines may make.
type route struct {
	pattern string      // as http.ServeMux has it: method, space, path
	scope   store.Scope // what a token must allow
	summary string
	serve   http.HandlerFunc
}

// routes is the table of what Handler serves.
func (s *server) routes() []route {
	list := []route{
		{"GET /v1/stats", store.ScopeRead, "What the store holds and how its tiers do", s.stats},
		{"POST /v1/commit", store.ScopeWrite, "Make durable all that was acknowledged", s.commit},
		{"GET /v1/blocks", store.ScopeRead, "List blocks", s.blocks},
		{"GET /v1/graph/why", store.ScopeRead, "What keeps a block", s.why},
		{"GET /v1/graph/show", store.ScopeRead, "Show a vertex", s.show},
		{"GET /v1/graph/matrix", store.ScopeRead, "What snapshots share", s.matrix},
		{"GET /v1/graph/export", store.ScopeRead, "The graph in a format of other tools", s.export},
		{"GET /v1/graph/similar", store.ScopeRead, "Files that share blocks", s.similar},
		{"GET /v1/graph/path", store.ScopeRead, "How two vertices are connected", s.connect},
		{"GET /v1/usage", store.ScopeRead, "The space that paths take", s.usage},
		{"GET /v1/diff", store.ScopeRead, "What differs between two trees", s.diff},
		{"GET /v1/history", store.ScopeRead, "The versions of a path", s.history},
		{"GET /v1/files", store.ScopeRead, "List files", s.files},
		{"GET /v1/objects", store.ScopeRead, "List objects", s.objects},
		{"POST /v1/objects", store.ScopeWrite, "Store an object", s.put},
		{"PUT /v1/objects/{ref...}", store.ScopeWrite, "Store an object under a name", s.put},
		{"GET /v1/objects/{ref...}", store.ScopeRead, "Read an object", s.get},
		{"DELETE /v1/objects/{ref...}", store.ScopeWrite, "Remove the name of an object", s.remove},
	}
	list = append(list, s.snapshotRoutes()...)
	return append(list, s.syncRoutes()...)
}

// scopes are those of all patterns of Handler.
var scopes = sync.OnceValue(func() map[string]store.Scope {
	m := make(map[string]store.Scope)
	for _, r := range (&server{}).routes() {
		m[r.pattern] = r.scope
	}
	return m
})

// ScopeOf returns the scope that a pattern of Handler asks for, as
// http.ServeMux.Handler returns it. What is in no row asks for ScopeAdmin.
func ScopeOf(pattern string) store.Scope {
	if s, ok := scopes()[pattern]; ok {
		return s
	}
	return store.ScopeAdmin
}
