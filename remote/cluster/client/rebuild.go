package client

import (
	"context"
	"net/http"

	"github.com/quarxtor/quarxfs/remote/cluster"
)

// Knowledge is what a node knows of the register's decisions without asking it.
type Knowledge struct {
	Copy  cluster.Copy     `json:"copy"`
	Homes []cluster.Volume `json:"homes"` // that it writes
	Ready bool             `json:"ready"` // it reaches the register
}

// A RebuildRequest has the register made again, or brought to what the nodes know.
type RebuildRequest struct {
	Revision int64 `json:"revision"` // that the newest copy was shown to have; 0: only show it
	Force    bool  `json:"force"`    // although other voters do not answer
}

// A Rebuild is what the register will say.
type Rebuild struct {
	Anew     bool         `json:"anew"`    // it does not answer, and is made again
	Copy     cluster.Copy `json:"copy"`    // what it will say
	Changes  []string     `json:"changes"` // of a register that answers: what is not as it will be
	Answered []string     `json:"answered"`
	Silent   []string     `json:"silent"` // nodes that have said nothing: what they alone know is not in it
	Done     bool         `json:"done"`
}

// Know asks the agent for what its node knows of the register's decisions.
func (a *Agent) Know(ctx context.Context) (Knowledge, error) {
	var k Knowledge
	return k, a.call(ctx, http.MethodGet, PathCopy, nil, &k)
}

// Rebuild has the register made again of what the nodes know, if the request confirms its revision:
// ErrHolds, cluster.ErrNoCluster.
func (a *Agent) Rebuild(ctx context.Context, q RebuildRequest) (Rebuild, error) {
	var r Rebuild
	return r, a.call(ctx, http.MethodPost, PathRebuild, q, &r)
}
