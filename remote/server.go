package remote

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"

	"github.com/quarxtor/quarxfs/graph/budget"
	"github.com/quarxtor/quarxfs/remote/rawjson"
	"github.com/quarxtor/quarxfs/store/config"
)

type server struct {
	node     Node
	log      *slog.Logger
	arriving *budget.Pool // bytes of records
}

// Handler serves a node's API under /v1. It asks nobody who they are: NeedOf says
// what each request needs.
func Handler(n Node, log *slog.Logger) http.Handler {
	// Half is for others: one sender that trickles must not keep the rest out.
	s := &server{n, log, budget.NewPool(importMemory, importMemory/2)}
	mux := http.NewServeMux()
	for _, r := range s.routes() {
		mux.HandleFunc(r.pattern, r.handler(s))
	}
	return &api{mux, s}
}

// An api is the API of a node.
type api struct {
	*http.ServeMux
	s *server
}

// ServeHTTP implements http.Handler.
func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := checkPath(r); err != nil {
		a.s.fail(w, r, err)
		return
	}
	a.ServeMux.ServeHTTP(w, r)
}

// checkPath refuses a path that http.ServeMux would clean and send the client on to: an object
// would be put or removed under another name than was said. ErrRequest.
func checkPath(r *http.Request) error {
	parts := strings.Split(r.URL.EscapedPath(), "/")
	for i, part := range parts {
		if part == "." || part == ".." || part == "" && i > 0 && i < len(parts)-1 {
			return fmt.Errorf("%w: path %q: write dots as %%2E and slashes in a name as %%2F", ErrRequest, r.URL.EscapedPath())
		}
	}
	return nil
}

// Needs returns what a request to a handler that Handler has made needs.
func Needs(h http.Handler, r *http.Request) Need {
	// What is not there needs no more than it takes to hear of it.
	nothing := Need{Scope: config.ScopeRead, Weight: 1}
	if checkPath(r) != nil {
		return nothing
	}
	_, pattern := h.(*api).Handler(r)
	if pattern == "" {
		return nothing
	}
	return NeedOf(pattern)
}

// ControlSocket is where the daemon of a store serves ControlHandler, in the store's directory.
const ControlSocket = "control.sock"

// ControlHandler serves, besides the API, what only the owner of the store's
// directory may ask for.
func ControlHandler(n Node, log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", Handler(n, log))
	maintenanceRoutes(mux, n, log)
	tierRoutes(mux, &server{node: n, log: log})
	settingsRoutes(mux, &server{node: n, log: log})
	snapshotControl(mux, n, log)
	remoteRoutes(mux, &server{node: n, log: log})
	tokenRoutes(mux, &server{node: n, log: log})
	mux.Handle("GET /metrics", MetricsHandler(n, log))
	return mux
}

func (s *server) stats(w http.ResponseWriter, r *http.Request) {
	st, err := s.node.Stats(r.Context())
	s.answer(w, r, st, err)
}

func (s *server) commit(w http.ResponseWriter, r *http.Request) {
	s.answer(w, r, struct{}{}, s.node.Sync(r.Context()))
}

func (s *server) answer(w http.ResponseWriter, r *http.Request, v any, err error) {
	if err != nil {
		s.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", contentJSON)
	_ = rawjson.Write(w, v) // the client has left
}

// headerError has the Failure of a HEAD.
const headerError = "Quarxfs-Error"

// envelope is the body of a failed request, and the last line of a stream that
// failed.
type envelope struct {
	Error *Failure `json:"error"`
}

func (s *server) fail(w http.ResponseWriter, r *http.Request, err error) { Fail(w, r, s.log, err) }

// Fail answers a request with an error, as one of kinds. What has no kind is logged.
func Fail(w http.ResponseWriter, r *http.Request, log *slog.Logger, err error) {
	f, status := failureOf(budget.Cause(r.Context(), err))
	if status == http.StatusInternalServerError {
		log.Error("API request failed", "method", r.Method, "path", r.URL.Path, "err", err)
	}
	if r.Method == http.MethodHead { // it gets no body
		text, _ := rawjson.Marshal(f) // two strings
		w.Header().Set(headerError, string(text))
	}
	w.Header().Set("Content-Type", contentJSON)
	// After all headers: from here on none can be set.
	w.WriteHeader(status)
	_ = rawjson.Write(w, envelope{&f})
}

// maxBody bounds a request's body.
const maxBody = 1 << 20

func readBody(w http.ResponseWriter, r *http.Request, to any) error {
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err == nil {
		// A member that nobody knows is a mistake of the caller, who would think that it counts.
		err = rawjson.UnmarshalStrict(b, to)
	}
	if err != nil {
		return fmt.Errorf("%w: the request's body: %v", ErrRequest, err)
	}
	return nil
}

// answerBody decodes a request's body, and answers with what do makes of it.
func answerBody[I, O any](s *server, w http.ResponseWriter, r *http.Request, do func(context.Context, I) (O, error)) {
	var in I
	var out O
	err := readBody(w, r, &in)
	if err == nil {
		out, err = do(r.Context(), in)
	}
	s.answer(w, r, out, err)
}
