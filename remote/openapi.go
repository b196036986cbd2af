package remote

import (
	_ "embed" // for the document
	"net/http"
)

// OpenAPIPath is where the API describes itself, to everybody.
const OpenAPIPath = "/v1/openapi.json"

// openAPIDocument describes the table of routes; TestOpenAPI makes it. The program does not make it
// itself: what that takes would slow down the start of each command.
//
//go:embed openapi.json
var openAPIDocument []byte

func (s *server) openAPI(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", contentJSON)
	_, _ = w.Write(openAPIDocument) // the client has left
}
