package agent

import (
	"context"
	"net/http"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/remote/cluster"
	"github.com/quarxtor/quarxfs/remote/cluster/client"
	"github.com/quarxtor/quarxfs/remote/cluster/control"
	"github.com/quarxtor/quarxfs/remote/cluster/etcd"
	"github.com/quarxtor/quarxfs/remote/cluster/health"
	"github.com/quarxtor/quarxfs/remote/cluster/place"
)

const (
	registerTime = time.Second             // for the register's part of a status
	askTime      = 2 * time.Second         // for that and the nodes', who are asked all at once
	statusTime   = 2400 * time.Millisecond // for the whole
	downTime     = time.Second / 2         // for nodes that are said to be down
	mostAsked    = 64                      // at the same time
)

// facts reads what the register knows of the nodes.
func (a *Agent) facts(ctx context.Context) ([]health.NodeFacts, error) {
	nodes, err := a.cluster.Membership(ctx)
	if err != nil {
		return nil, err
	}
	members, err := a.etcd.Members(ctx)
	if err != nil {
		return nil, err
	}
	all := factsOf(nodes, members)
	a.memory.keepNodes(slices.Clone(all)) // else who was seen to leave is there again when the register is out of reach
	return all, nil
}

func factsOf(of cluster.Membership, members []etcd.Member) []health.NodeFacts {
	all := make([]health.NodeFacts, len(of.Nodes))
	for i, n := range of.Nodes {
		all[i].Node = n
		if up, ok := of.Alive[n.Name]; ok {
			all[i].Up, all[i].Alive = true, &up
		}
		if d, ok := of.Down[n.Name]; ok && !all[i].Up {
			all[i].DownSince = &d.Since
		}
		all[i].Votes = slices.ContainsFunc(members, func(m etcd.Member) bool { return m.Peer == n.Peer && !m.Learner })
	}
	return all
}

// status judges the cluster. It takes no longer than statusTime, whoever hangs.
func (a *Agent) status(r *http.Request) (health.Status, error) {
	f := a.look(r.Context())
	if f.NoVote == nil {
		p := control.FactsOf(f, a.memory.sizes(), nil)
		f.Plan.Held = string(place.Next(p).Held)
		f.Plan.NoRoom, f.Plan.NoRoomOf = control.NoRoom(p)
	}
	return health.Judge(f), r.Context().Err()
}

// look gathers what the register and the nodes say now.
func (a *Agent) look(ctx context.Context) health.Facts {
	f := health.Facts{AsOf: time.Now().UTC(), Cluster: a.settings.Cluster}
	ctx, cancel := context.WithTimeout(ctx, statusTime)
	defer cancel()
	within, done := context.WithTimeout(ctx, askTime)
	defer done()
	ask, cancelAsk := context.WithTimeout(within, registerTime)
	f.Nodes, f.NoVote = a.facts(ask)
	cancelAsk()
	if f.NoVote != nil {
		f.Nodes = a.memory.lastNodes()
		for i := range f.Nodes {
			f.Nodes[i].Up, f.Nodes[i].DownSince = false, nil // who was alive then may not be now
		}
		f.NoVote = client.ErrNoQuorum
	}
	a.askAll(within, f.Nodes, func(n health.NodeFacts) time.Duration {
		if !n.Up && f.NoVote == nil {
			return downTime // they are asked, as they may be well, and keep nobody waiting
		}
		return askTime
	})
	if f.NoVote != nil {
		for i := range f.Nodes {
			f.Nodes[i].Up = f.Nodes[i].Said != nil
		}
	}
	// After the nodes were asked: an epoch that one of them has seen is in the register by then. Of
	// volumes that were known before that cannot be said, so nothing may be judged by them.
	if err := a.volumeFacts(ctx, &f); err != nil {
		f.NoVote = client.ErrNoQuorum
	}
	f = f.Indexed() // all is there now
	a.memory.keepFacts(f)
	return f
}

// askAll fills in what the nodes say themselves, each within its own time.
func (a *Agent) askAll(ctx context.Context, nodes []health.NodeFacts, limit func(health.NodeFacts) time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	places := make(chan struct{}, mostAsked)
	type answer struct {
		node int
		said *health.Answer
	}
	answers := make(chan answer, len(nodes)) // room for all: nobody reads those that come too late
	for i, n := range nodes {
		// Not in the goroutine, which may begin when the caller has gone on.
		own := limit(n)
		go func() {
			select {
			case places <- struct{}{}:
				defer func() { <-places }()
				ask, cancel := context.WithTimeout(ctx, own)
				defer cancel()
				answers <- answer{i, a.ask(ask, n.Node)}
			case <-ctx.Done():
				answers <- answer{i, nil}
			}
		}()
	}
	for range nodes {
		select {
		case got := <-answers:
			nodes[got.node].Said = got.said
		case <-ctx.Done():
			return // this node's own disk may hang, too
		}
	}
}

// ask returns what a node says of itself; nil: nothing in time.
func (a *Agent) ask(ctx context.Context, n cluster.Node) *health.Answer {
	if n.Name == a.settings.Node.Name {
		said, err := a.ownAnswer(ctx)
		if err != nil {
			return nil
		}
		return &said
	}
	asked := time.Now()
	agent := client.Remote(n.Address, a.identity.Client())
	defer agent.Close()
	said, err := agent.Answer(ctx)
	if err != nil {
		return nil
	}
	said.Asked, said.Took = asked, time.Since(asked)
	return &said
}

func (a *Agent) answerOwn(r *http.Request) (health.Answer, error) { return a.ownAnswer(r.Context()) }

func (a *Agent) ownAnswer(ctx context.Context) (health.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, daemonTime)
	defer cancel()
	// The vault first: a daemon that hangs takes all of the time that is left.
	copies := a.vault.Copies(ctx)
	homes := a.homes.Answers(ctx)
	now := time.Now()
	said := health.Answer{
		Time: now.UTC(), Asked: now, Version: a.version, Expires: a.identity.Expires(), Ready: a.memory.reach() == nil,
		Homes: homes, Copies: copies,
	}
	if why := a.memory.reach(); why != nil {
		said.Why = why.Error()
	}
	var disk unix.Statfs_t
	if err := unix.Statfs(string(a.dir), &disk); err != nil {
		return said, err // rather no answer than one with zeros
	}
	said.Free = int64(disk.Bavail) * disk.Bsize
	said.Used = int64(disk.Blocks-disk.Bfree) * disk.Bsize
	return said, nil
}
