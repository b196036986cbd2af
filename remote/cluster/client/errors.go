package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"

	"github.com/quarxtor/quarxfs/remote/cluster"
	"github.com/quarxtor/quarxfs/remote/cluster/pki"
)

var (
	// ErrNoAgent: no agent answers.
	ErrNoAgent = errors.New("the node's agent does not answer")
	// ErrNoQuorum: the agent is there, but not enough voters are for a decision.
	ErrNoQuorum = errors.New("the cluster cannot decide: too few of its voters answer")
	// ErrLastVoter: without this node the cluster could decide nothing any more.
	ErrLastVoter = errors.New("the cluster could decide nothing without this voter")
	// ErrHomeUp: the volume's home is up, and may be writing.
	ErrHomeUp = errors.New("the volume's home is up")
	// ErrNoVault: not all vaults of a volume can say what they have.
	ErrNoVault = errors.New("a vault of the volume does not answer, or has nothing")
	// ErrNoMirror: the node's copy of a mirrored volume may not become the one that is written.
	ErrNoMirror = errors.New("the mirror may not take over")
	// ErrHolds: the node has volumes, or snapshots of them.
	ErrHolds = errors.New("the node is needed for a volume")
	// ErrClock: the clocks of two nodes differ by more than certificates and times bear.
	ErrClock = errors.New("the clocks differ")
	// ErrVersion: the two programs do not understand each other.
	ErrVersion = errors.New("the other node has another version of the protocol")
	// ErrRequest: a request that cannot be understood.
	ErrRequest = errors.New("bad request")
	// ErrNotSetUp: the directory holds no node.
	ErrNotSetUp = errors.New("this machine is no node of a cluster")
	// ErrSetUp: the directory holds a node already.
	ErrSetUp = errors.New("this machine is a node of a cluster already")
	// ErrRuns: another agent works with the directory.
	ErrRuns = errors.New("the node's agent runs already")
)

// problems is the one table of what can go wrong: the word that travels, the status that it
// travels with, and the exit code of the command that it ends. The first that fits counts.
var problems = []struct {
	kind   string
	err    error
	status int
	exit   int
}{
	{"token", cluster.ErrToken, http.StatusForbidden, 18},
	{"node-exists", cluster.ErrNodeExists, http.StatusConflict, 16},
	{"no-node", cluster.ErrNoNode, http.StatusNotFound, 7},
	{"name", cluster.ErrName, http.StatusBadRequest, 2},
	{"volume-exists", cluster.ErrVolumeExists, http.StatusConflict, 16},
	{"no-volume", cluster.ErrNoVolume, http.StatusNotFound, 7},
	{"no-domain", cluster.ErrNoDomain, http.StatusNotFound, 7},
	{"domain", cluster.ErrDomain, http.StatusConflict, 2},
	{"place", cluster.ErrPlace, http.StatusBadRequest, 2},
	{"home-up", ErrHomeUp, http.StatusConflict, 4},
	{"holds", ErrHolds, http.StatusConflict, 4},
	{"no-vault", ErrNoVault, http.StatusConflict, 13},
	{"no-mirror", ErrNoMirror, http.StatusConflict, 4},
	{"fenced", cluster.ErrFenced, http.StatusConflict, 24},
	{"clock", ErrClock, http.StatusConflict, 1},
	{"version", ErrVersion, http.StatusConflict, 1},
	{"authority", pki.ErrAuthority, http.StatusForbidden, 18},
	{"format", pki.ErrFormat, http.StatusBadRequest, 2},
	{"set-up", ErrSetUp, http.StatusConflict, 12},
	{"not-set-up", ErrNotSetUp, http.StatusNotFound, 3},
	{"runs", ErrRuns, http.StatusConflict, 4},
	{"no-agent", ErrNoAgent, http.StatusBadGateway, 13},
	{"last-voter", ErrLastVoter, http.StatusConflict, 21},
	{"no-quorum", ErrNoQuorum, http.StatusServiceUnavailable, 21},
	{"request", ErrRequest, http.StatusBadRequest, 2},
}

// ErrorsOf returns the errors that end a command with the exit code.
func ErrorsOf(exit int) []error {
	var errs []error
	for _, p := range problems {
		if p.exit == exit {
			errs = append(errs, p.err)
		}
	}
	return errs
}

// ExitCode is that of a command that err ends; 1 where the table has none.
func ExitCode(err error) int {
	for _, p := range problems {
		if errors.Is(err, p.err) {
			return p.exit
		}
	}
	return 1
}

// A Problem is the body of an answer that is an error.
type Problem struct {
	Kind string `json:"kind"` // of the table above, or "other"
	Text string `json:"text"`
}

// A said is an error as the agent has worded it.
type said struct {
	kind error
	text string
}

func (s said) Error() string { return s.text }
func (s said) Unwrap() error { return s.kind }

// Answered returns what the agent says with an answer that is no success.
func Answered(r *http.Response) error {
	b, err := io.ReadAll(io.LimitReader(r.Body, MostBytes))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoAgent, err)
	}
	return problem(r, b)
}

func problem(r *http.Response, b []byte) error {
	var p Problem
	if t, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); t != "application/json" || json.Unmarshal(b, &p) != nil {
		return fmt.Errorf("%w: it answered %s", ErrVersion, r.Status)
	}
	for _, k := range problems {
		if k.kind == p.Kind {
			return said{k.err, p.Text}
		}
	}
	return errors.New(p.Text)
}

// Describe returns what of an error travels, and the status that it goes with.
func Describe(err error) (Problem, int) {
	for _, k := range problems {
		if errors.Is(err, k.err) {
			return Problem{Kind: k.kind, Text: err.Error()}, k.status
		}
	}
	return Problem{Kind: "other", Text: err.Error()}, http.StatusInternalServerError
}
