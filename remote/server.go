package remote

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"

	"github.com/quarxtor/quarxfs/remote/rawjson"
)

type server struct {
	node Node
	log  *slog.Logger
}

// Handler serves a node's API under /v1. It asks nobody who they are: ScopeOf says
// what each request needs.
func Handler(n Node, log *slog.Logger) http.Handler {
	s := &server{n, log}
	mux := http.NewServeMux()
	for _, r := range s.routes() {
		mux.HandleFunc(r.pattern, r.handler(s))
	}
	return mux
}

// ControlSocket is where the daemon of a store serves ControlHandler, in the store's directory.
const ControlSocket = "control.sock"

// ControlHandler serves, besides the API, what only the owner of the store's
// directory may ask for.
func ControlHandler(n Node, log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", Handler(n, log))
	maintenanceRoutes(mux, n, log)
	tierRoutes(mux, &server{n, log})
	settingsRoutes(mux, &server{n, log})
	snapshotControl(mux, n, log)
	remoteRoutes(mux, &server{n, log})
	tokenRoutes(mux, &server{n, log})
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
	f, status := failureOf(err)
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
