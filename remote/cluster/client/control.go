package client

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/quarxtor/quarxfs/store"
)

// Bounds of what may be asked for.
const (
	LeastRepairAfter = time.Second
	MostRepairAfter  = 7 * 24 * time.Hour
	MostWorst        = 16 // nodes whose death is searched for
)

// ClusterSettings are what administrators decide for all.
type ClusterSettings struct {
	RepairAfter int64 `json:"repair_after_s"` // for how long a node is down before its copies are made anew
}

// A DrainRequest has a node give up its copies, or keep them.
type DrainRequest struct {
	Draining bool `json:"draining"`
}

// A Drain is what a node still has.
type Drain struct {
	Node     string `json:"node"`
	Draining bool   `json:"draining"`
	Copies   []Left `json:"copies"` // none: it may leave
	Held     string `json:"held"`   // why nothing is moved at all; empty: it is
}

// A Left is a copy, and what becomes of it.
type Left struct {
	Volume string `json:"volume"`
	Kind   string `json:"kind"` // "writer" or "vault"
	To     string `json:"to"`   // the node that gets another one first; empty: none is needed, or found
	Why    string `json:"why"`  // why it stays, or cannot be made; empty: it goes
}

// A FetchRequest has a vault take what another one has of a volume.
type FetchRequest struct {
	Volume string `json:"volume"`
	From   string `json:"from"` // a node
}

// A DiscardRequest has a node that is no vault of the volume any more remove snapshots of it, which
// others have.
type DiscardRequest struct {
	Volume    string              `json:"volume"`
	ID        string              `json:"id"`
	Snapshots map[string]store.ID `json:"snapshots"` // by name
}

// A BalanceRequest asks for moves, and begins the first unless DryRun.
type BalanceRequest struct {
	DryRun bool `json:"dry_run"`
}

// A Balance is the moves that even the disks out.
type Balance struct {
	Moves []Move `json:"moves"`
	Begun bool   `json:"begun"` // the first of them
	Busy  bool   `json:"busy"`  // copies are being made or removed: ask again
	Held  string `json:"held"`  // why nothing was begun
}

// A Move takes a copy to another node: it is made there, and then removed.
type Move struct {
	Volume string `json:"volume"`
	From   string `json:"from"`
	To     string `json:"to"`
	Bytes  int64  `json:"bytes"`
	Why    string `json:"why"`
}

// A BlastRequest asks what is lost with all these nodes, with those of zones, and with the Worst
// nodes, whose death together loses the most.
type BlastRequest struct {
	Nodes []string `json:"nodes"`
	Zones []string `json:"zones"`
	Worst int      `json:"worst"`
}

// A Blast is what is lost when Nodes die with their disks, by what is known now.
type Blast struct {
	Nodes  []string `json:"nodes"`
	Losses []Loss   `json:"losses"`  // the worst first
	Bytes  int64    `json:"bytes"`   // that nothing has any more
	Repair int64    `json:"repair"`  // bytes that travel until all is as wanted again
	NoRoom []Left   `json:"no_room"` // what cannot be made again
}

// A Loss is what becomes of one volume.
type Loss struct {
	Volume string  `json:"volume"`
	Home   string  `json:"home"`
	Fate   string  `json:"fate"`
	Bytes  int64   `json:"bytes"`  // that nothing has any more
	Age    float64 `json:"age_s"`  // of the snapshot that it comes back with; what is newer is lost
	Copies int     `json:"copies"` // that are left
	// Nodes that may have a copy, which does not count since they are not heard of.
	Unseen []string `json:"unseen,omitempty"`
}

// Drain has a node give up its copies, or keep them: cluster.ErrNoNode.
func (a *Agent) Drain(ctx context.Context, node string, draining bool) (Drain, error) {
	var d Drain
	return d, a.call(ctx, http.MethodPost, drainPath(node), DrainRequest{Draining: draining}, &d)
}

// Drained returns what a node still has: cluster.ErrNoNode.
func (a *Agent) Drained(ctx context.Context, node string) (Drain, error) {
	var d Drain
	return d, a.call(ctx, http.MethodGet, drainPath(node), nil, &d)
}

func drainPath(node string) string { return PathNodes + "/" + url.PathEscape(node) + "/drain" }

// Balance begins the first move that evens the disks out, or only lists all.
func (a *Agent) Balance(ctx context.Context, dryRun bool) (Balance, error) {
	var b Balance
	return b, a.call(ctx, http.MethodPost, PathBalance, BalanceRequest{DryRun: dryRun}, &b)
}

// Blast returns what is lost with nodes: cluster.ErrNoNode.
func (a *Agent) Blast(ctx context.Context, q BlastRequest) (Blast, error) {
	var b Blast
	return b, a.call(ctx, http.MethodPost, PathBlast, q, &b)
}

// Fetch has the agent's node begin to take what another vault has: ErrHolds, if it is busy.
func (a *Agent) Fetch(ctx context.Context, q FetchRequest) error {
	return a.call(ctx, http.MethodPost, PathFetch, q, nil)
}

// Discard has the agent's node remove what it keeps of a volume that it is no vault of: ErrHolds,
// if it is one.
func (a *Agent) Discard(ctx context.Context, q DiscardRequest) error {
	return a.call(ctx, http.MethodPost, PathDiscard, q, nil)
}

// Settings returns those of the cluster.
func (a *Agent) Settings(ctx context.Context) (ClusterSettings, error) {
	var s ClusterSettings
	return s, a.call(ctx, http.MethodGet, PathSettings, nil, &s)
}

// ChangeSettings decides on them.
func (a *Agent) ChangeSettings(ctx context.Context, s ClusterSettings) (ClusterSettings, error) {
	var is ClusterSettings
	return is, a.call(ctx, http.MethodPost, PathSettings, s, &is)
}
