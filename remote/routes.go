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
	pattern string // as http.ServeMux has it: method, space, path
	need    Need
	summary string
	query   []param // the parameters it knows; others are refused
	in, out content
	serve   http.HandlerFunc
}

// A Need is what a request asks for before it is served.
type Need struct {
	Scope  config.Scope // what a token must allow
	Append bool         // or ScopeAppend
	Weight int64        // of the places for requests at work
	// Walks says that the work grows with what is in the store, whoever brought it there: the
	// request has a budget.
	Walks bool
}

// The needs that there are. Weights are by the memory that a request has: an upload has up to
// 8 MiB, records are up to 16 MiB each and have a bound of their own, a question has kilobytes.
var (
	reads   = Need{Scope: config.ScopeRead, Weight: 1}
	walks   = Need{Scope: config.ScopeRead, Weight: 16, Walks: true}
	fetches = Need{Scope: config.ScopeRead, Weight: 4}
	writes  = Need{Scope: config.ScopeWrite, Weight: 1}
	uploads = Need{Scope: config.ScopeWrite, Append: true, Weight: UploadWeight}
	syncs   = Need{Scope: config.ScopeSync, Weight: 1}
	brings  = Need{Scope: config.ScopeSync, Append: true, Weight: 1}
	imports = Need{Scope: config.ScopeSync, Append: true, Weight: 4}
	lists   = Need{Scope: config.ScopeRead, Append: true, Weight: 16, Walks: true}
)

// UploadWeight is the largest weight that there is.
const UploadWeight = 16

// AllowedTo reports whether a token may do what needs this.
func (n Need) AllowedTo(t config.Token) bool {
	return t.Allows(n.Scope) || n.Append && t.Allows(config.ScopeAppend)
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
		{"GET " + OpenAPIPath, reads, "This description", none, nothing, content{contentJSON, struct{}{}}, s.openAPI},
		{"GET /v1/stats", reads, "What the store holds and how its tiers do", none, nothing, jsonOf(Stats{}), s.stats},
		{"POST /v1/commit", writes, "Make durable all that was acknowledged", none, nothing, jsonOf(struct{}{}), s.commit},
		{"GET /v1/blocks", walks, "List blocks", slices.Concat(paged, blockParams), nothing, linesOf(BlockInfo{}), s.blocks},
		{"GET /v1/blocks/{id}", reads, "Read a block's plain bytes", none, nothing, rawBytes, s.block},
		{"GET /v1/graph/why", walks, "What keeps a block",
			[]param{{"block", "", "its ID, or at least four digits that only its ID starts with"}}, nothing, jsonOf(Why{}), s.why},
		{"GET /v1/graph/why/blocks", walks, "What keeps each block of a file or object",
			slices.Concat(reference, []param{{"limit", 0, "of so many blocks at most"}}), nothing, linesOf(WhyItem{}), s.whyAll},
		{"GET /v1/graph/show", walks, "Show a vertex", reference, nothing, linesOf(ShowItem{}), s.show},
		{"GET /v1/graph/matrix", walks, "Which blocks objects refer to", none, nothing, linesOf(MatrixItem{}), s.matrix},
		{"GET /v1/graph/export", walks, "A part of the graph: nodes, then edges", exportParams, nothing, linesOf(ExportItem{}), s.export},
		{"GET /v1/graph/similar", walks, "What shares blocks with something",
			slices.Concat(reference, []param{{"top", 0, "so many at most"}}), nothing, jsonOf(Similar{}), s.similar},
		{"GET /v1/graph/path", walks, "How two vertices are connected",
			[]param{{"from", "", "one of them"}, {"to", "", "the other"}}, nothing, jsonOf([]Step{}), s.connect},
		{"GET /v1/usage", walks, "The space that paths take", []param{
			{"path", "", "of what, from the root"}, {"by", "", "dir, snapshot or type"}}, nothing, jsonOf(Usage{}), s.usage},
		{"GET /v1/diff", walks, "What differs between two trees", []param{
			{"a", "", "a snapshot"}, {"b", "", "another one; without it, the live filesystem"},
			{"exact", false, "compare the bytes of blocks that differ"}}, nothing, linesOf(DiffItem{}), s.diff},
		{"GET /v1/history", walks, "How deduplication went, by snapshot", none, nothing, linesOf(graph.HistoryPoint{}), s.history},
		{"GET /v1/files", walks, "List files", fileParams, nothing, linesOf(File{}), s.files},
		{"GET /v1/objects", walks, "List objects, by name", paged, nothing, linesOf(Object{}), s.objects},
		{"POST /v1/objects", uploads, "Store an object", putParams, rawBytes, jsonOf(Object{}), s.put},
		{"PUT /v1/objects/{ref...}", uploads, "Store an object under a name", putParams, rawBytes, jsonOf(Object{}), s.put},
		{"GET /v1/objects/{ref...}", reads, "Read an object, or a range of it", none, nothing, rawBytes, s.get},
		{"DELETE /v1/objects/{ref...}", writes, "Remove the name of an object", none, nothing, jsonOf(struct{}{}), s.remove},
	}
	list = append(list, route{"GET /metrics", reads, "Figures for Prometheus", none, nothing, text, MetricsHandler(s.node, s.log).ServeHTTP})
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

// needs are those of all patterns of Handler.
var needs = sync.OnceValue(func() map[string]Need {
	m := make(map[string]Need)
	for _, r := range (&server{}).routes() {
		m[r.pattern] = r.need
	}
	return m
})

// NeedOf returns what a pattern of Handler needs, as http.ServeMux.Handler returns it. What is in
// no row asks for ScopeAdmin.
func NeedOf(pattern string) Need {
	if n, ok := needs()[pattern]; ok {
		return n
	}
	return Need{Scope: config.ScopeAdmin, Weight: 1}
}
