package remote

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/quarxtor/quarxfs/graph/budget"
	"github.com/quarxtor/quarxfs/graph/query"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/config"
	"github.com/quarxtor/quarxfs/store/handle"
)

// ErrRequest says that a request makes no sense: a filter, range or name that
// nothing can have.
var ErrRequest = query.ErrRequest

// What a server says to other machines; to config.ErrToken besides.
var (
	ErrForbidden = errors.New("the token does not allow this")
	ErrForeign   = errors.New("the request is foreign")
	ErrBusy      = errors.New("the server is busy")
	ErrRate      = errors.New("too many requests")

	// ErrNoAnswer is a client's own: nobody answers at the node's address.
	ErrNoAnswer = errors.New("the node does not answer")

	// ErrFenced says that another node of a cluster writes the volume by now.
	ErrFenced = errors.New("fenced: a later epoch of the volume has begun")

	// ErrBodyStalled says that a client's upload does not move.
	ErrBodyStalled = errors.New("the request's body does not come")

	// ErrRecord says that a record which was sent is not what it claims. It is an ErrCorrupt, but
	// of the sender.
	ErrRecord = fmt.Errorf("the record that was sent is not sound: %w", store.ErrCorrupt)

	ErrCondition = errors.New("a condition of the request does not hold")
)

// kinds is how errors travel: by name, under an HTTP status. errors.Is gives
// the same answers on both sides.
var kinds = []struct {
	name   string
	err    error
	status int
}{
	{"bad_request", ErrRequest, http.StatusBadRequest},
	{"config", store.ErrConfig, http.StatusBadRequest},
	{"range", store.ErrRange, http.StatusRequestedRangeNotSatisfiable},
	{"name_taken", store.ErrNameTaken, http.StatusConflict},
	{"held", store.ErrHeld, http.StatusConflict},
	{"mounted", store.ErrMounted, http.StatusConflict},
	{"not_found", store.ErrNotFound, http.StatusNotFound},
	{"ambiguous", store.ErrAmbiguous, http.StatusConflict},
	{"bad_record", ErrRecord, http.StatusBadRequest},
	{"corrupt", store.ErrCorrupt, http.StatusInternalServerError},
	{"damaged", store.ErrDamaged, http.StatusInternalServerError},
	{"newer", store.ErrNewer, http.StatusInternalServerError},
	{"locked", store.ErrLocked, http.StatusConflict},
	{"read_only", store.ErrReadOnly, http.StatusForbidden},
	{"full", store.ErrFull, http.StatusInsufficientStorage},
	{"no_tier", store.ErrNoTier, http.StatusNotFound},
	{"has_tier", store.ErrHasTier, http.StatusConflict},
	{"not_cold", store.ErrNotCold, http.StatusConflict},
	{"foreign_tier", store.ErrForeign, http.StatusConflict},
	{"not_empty", store.ErrNotEmpty, http.StatusConflict},
	{"fenced", ErrFenced, http.StatusConflict},
	{"unauthorized", config.ErrToken, http.StatusUnauthorized},
	{"stalled", ErrBodyStalled, http.StatusRequestTimeout},
	{"forbidden", ErrForbidden, http.StatusForbidden},
	{"foreign", ErrForeign, http.StatusForbidden},
	{"condition", ErrCondition, http.StatusPreconditionFailed},
	{"busy", ErrBusy, http.StatusServiceUnavailable},
	{"too_costly", budget.ErrCost, http.StatusUnprocessableEntity},
	{"rate", ErrRate, http.StatusTooManyRequests},
	{"unavailable", store.ErrUnavailable, http.StatusServiceUnavailable},
	{"canceled", context.Canceled, 499},
}

const kindOther = "internal"

// A Failure is an error as it travels.
type Failure struct {
	Kind    string `json:"kind"`
	Message string `json:"message"`
}

func failureOf(err error) (Failure, int) {
	text := handle.Shown(err.Error())
	for _, k := range kinds {
		if errors.Is(err, k.err) {
			return Failure{k.name, text}, k.status
		}
	}
	return Failure{kindOther, text}, http.StatusInternalServerError
}

// remoteError is an error of the other side. Its text is the other side's; its
// kind answers errors.Is.
type remoteError struct {
	kind error // nil: none that is known here
	text string
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.kind }

func (f Failure) err() error {
	for _, k := range kinds {
		if k.name == f.Kind {
			return &remoteError{k.err, f.Message}
		}
	}
	if f.Message == "" {
		return fmt.Errorf("the daemon failed without saying why")
	}
	return &remoteError{nil, f.Message}
}
