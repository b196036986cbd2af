package remote

import (
	"net/http"
	"slices"
	"sync"

	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/store/config"
)

// A route is one request of the API that other machines may make.
type route struct {
	pattern string       // as http.ServeMux has it: method, space, path
	scope   config.Scope // what a token must allow
	summary string
	query   []param // the parameters it knows; others are refused
	in, out content
	serve   http.HandlerFunc
}

// A param is a parameter of a request's query.
type param struct {
	name  string
	of    any // a value of its type
	about string
}

// A content is what a body holds.
type content struct {
	mime string
	of   any // a value of the type that JSON is made of; nil: bytes
}

func jsonOf(v any) content  { return content{contentJSON, v} }
func linesOf(v any) content { return content{contentStream, v} }

const (
	contentJSON  = "application/json"
	contentBytes = "application/octet-stream"
)

var (
	nothing  = content{}
	rawBytes = content{contentBytes, nil}
	records  = content{contentRecords, nil}
	text     = content{"text/plain", ""}
	none     []param
	paged    = []param{
		{"after", "", "begin behind the one with this name or ID: the last of the page before"},
		{"limit", 0, "list so many at most"},
	}
	putParams = []param{{"replace", false, "take the name from the object that has it"}}
	reference = []param{{"ref", "", "a snapshot, as NAME or NAME:PATH, the name or ID of an object, the ID of a block, or /PATH"}}
)

// routes is the table of what Handler serves.
func (s *server) routes() []route {
	list := []route{
		{"GET " + OpenAPIPath, config.ScopeRead, "This description", none, nothing, content{contentJSON, struct{}{}}, s.openAPI},
		{"GET /v1/stats", config.ScopeRead, "What the store holds and how its tiers do", none, nothing, jsonOf(Stats{}), s.stats},
		{"POST /v1/commit", config.ScopeWrite, "Make durable all that was acknowledged", none, nothing, jsonOf(struct{}{}), s.commit},
		{"GET /v1/blocks", config.ScopeRead, "List blocks", slices.Concat(paged, blockParams), nothing, linesOf(BlockInfo{}), s.blocks},
		{"GET /v1/blocks/{id}", config.ScopeRead, "Read a block's plain bytes", none, nothing, rawBytes, s.block},
		{"GET /v1/graph/why", config.ScopeRead, "What keeps a block",
			[]param{{"block", "", "its ID, or at least four digits that only its ID starts with"}}, nothing, jsonOf(Why{}), s.why},
		{"GET /v1/graph/why/blocks", config.ScopeRead, "What keeps each block of a file or object",
			slices.Concat(reference, []param{{"limit", 0, "of so many blocks at most"}}), nothing, linesOf(WhyItem{}), s.whyAll},
		{"GET /v1/graph/show", config.ScopeRead, "Show a vertex", reference, nothing, linesOf(ShowItem{}), s.show},
		{"GET /v1/graph/matrix", config.ScopeRead, "Which blocks objects refer to", none, nothing, linesOf(MatrixItem{}), s.matrix},
		{"GET /v1/graph/export", config.ScopeRead, "A part of the graph: nodes, then edges", exportParams, nothing, linesOf(ExportItem{}), s.export},
		{"GET /v1/graph/similar", config.ScopeRead, "What shares blocks with something",
			slices.Concat(reference, []param{{"top", 0, "so many at most"}}), nothing, jsonOf(Similar{}), s.similar},
		{"GET /v1/graph/path", config.ScopeRead, "How two vertices are connected",
			[]param{{"from", "", "one of them"}, {"to", "", "the other"}}, nothing, jsonOf([]Step{}), s.connect},
		{"GET /v1/usage", config.ScopeRead, "The space that paths take", []param{
			{"path", "", "of what, from the root"}, {"by", "", "dir, snapshot or type"}}, nothing, jsonOf(Usage{}), s.usage},
		{"GET /v1/diff", config.ScopeRead, "What differs between two trees", []param{
			{"a", "", "a snapshot"}, {"b", "", "another one; without it, the live filesystem"},
			{"exact", false, "compare the bytes of blocks that differ"}}, nothing, linesOf(DiffItem{}), s.diff},
		{"GET /v1/history", config.ScopeRead, "How deduplication went, by snapshot", none, nothing, linesOf(graph.HistoryPoint{}), s.history},
		{"GET /v1/files", config.ScopeRead, "List files", fileParams, nothing, linesOf(File{}), s.files},
		{"GET /v1/objects", config.ScopeRead, "List objects, by name", paged, nothing, linesOf(Object{}), s.objects},
		{"POST /v1/objects", config.ScopeWrite, "Store an object", putParams, rawBytes, jsonOf(Object{}), s.put},
		{"PUT /v1/objects/{ref...}", config.ScopeWrite, "Store an object under a name", putParams, rawBytes, jsonOf(Object{}), s.put},
		{"GET /v1/objects/{ref...}", config.ScopeRead, "Read an object, or a range of it", none, nothing, rawBytes, s.get},
		{"DELETE /v1/objects/{ref...}", config.ScopeWrite, "Remove the name of an object", none, nothing, jsonOf(struct{}{}), s.remove},
	}
	list = append(list, route{"GET /metrics", config.ScopeRead, "Figures for Prometheus", none, nothing, text, MetricsHandler(s.node, s.log).ServeHTTP})
	list = append(list, s.snapshotRoutes()...)
	return append(list, s.syncRoutes()...)
}

// handler refuses parameters that would be ignored.
func (r *route) handler(s *server) http.HandlerFunc {
	names := make([]string, len(r.query))
	for i, p := range r.query {
		names[i] = p.name
	}
	return func(w http.ResponseWriter, req *http.Request) {
		if err := onlyKnown(req.URL.Query(), names...); err != nil {
			s.fail(w, req, err)
			return
		}
		r.serve(w, req)
	}
}

// scopes are those of all patterns of Handler.
var scopes = sync.OnceValue(func() map[string]config.Scope {
	m := make(map[string]config.Scope)
	for _, r := range (&server{}).routes() {
		m[r.pattern] = r.scope
	}
	return m
})

// ScopeOf returns the scope that a pattern of Handler asks for, as
// http.ServeMux.Handler returns it. What is in no row asks for ScopeAdmin.
func ScopeOf(pattern string) config.Scope {
	if s, ok := scopes()[pattern]; ok {
		return s
	}
	return config.ScopeAdmin
}
