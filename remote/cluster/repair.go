package cluster

import (
	"context"
	"fmt"
	"time"

	"github.com/quarxtor/quarxfs/remote/cluster/register"
)

const repairKeys = "repairs/"

// A Repair is what the controller has seen of a volume that lacks a copy. It is in the register so
// that its age outlives the controller.
type Repair struct {
	Volume string    `json:"volume"`
	Node   string    `json:"node"`  // that gets the copy; empty: there is none to be had
	Why    string    `json:"why"`   // why it is wanted, or why it cannot be
	Since  time.Time `json:"since"` // when Node and Why became what they are, by the controller's clock
}

// Repairs returns all, by volume.
func (c *Cluster) Repairs(ctx context.Context) ([]Repair, error) {
	return listAs[Repair](ctx, c.Register, repairKeys)
}

// NoteRepairs has the register say the same as now, which is by volume: what is as before keeps its
// time, what is over goes. Two controllers at once do no harm, as each writes what it sees.
func (c *Cluster) NoteRepairs(ctx context.Context, now map[string]Repair) error {
	were, err := c.Repairs(ctx)
	if err != nil {
		return err
	}
	var t register.Txn
	as := make(map[string]bool)
	for _, was := range were {
		is, ok := now[was.Volume]
		switch {
		case !ok:
			t.Delete = append(t.Delete, repairKeys+was.Volume)
		case is.Node == was.Node && is.Why == was.Why:
			as[was.Volume] = true
		}
	}
	for name, r := range now {
		if !as[name] {
			r.Volume, r.Since = name, r.Since.UTC()
			t.Put = append(t.Put, entry(repairKeys+name, r))
		}
	}
	for len(t.Put)+len(t.Delete) > 0 {
		// etcd takes 128 changes in one transaction, and none of these rests on another.
		some := register.Txn{Put: t.Put[:min(len(t.Put), mostPuts)], Delete: t.Delete[:min(len(t.Delete), mostPuts)]}
		if _, err := c.Register.Commit(ctx, some); err != nil {
			return err
		}
		t.Put, t.Delete = t.Put[len(some.Put):], t.Delete[len(some.Delete):]
	}
	return nil
}

const mostPuts = 60

// SetState has a node give up its copies, or keep them: ErrNoNode.
func (c *Cluster) SetState(ctx context.Context, name string, s State) (Node, error) {
	return change(ctx, c.Register, nodeKeys+name, fmt.Errorf("%q: %w", name, ErrNoNode), func(n *Node) error {
		n.State = s
		return nil
	})
}

// SetPatience says how long a node may be down before its copies are made anew.
func (c *Cluster) SetPatience(ctx context.Context, patience time.Duration) (Config, error) {
	return change(ctx, c.Register, configKey, ErrNoCluster, func(conf *Config) error {
		conf.Patience = int64(patience / time.Second)
		return nil
	})
}
