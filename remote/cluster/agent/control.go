package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/quarxtor/quarxfs/remote/cluster"
	"github.com/quarxtor/quarxfs/remote/cluster/client"
	"github.com/quarxtor/quarxfs/remote/cluster/control"
	"github.com/quarxtor/quarxfs/remote/cluster/health"
	"github.com/quarxtor/quarxfs/remote/cluster/place"
	"github.com/quarxtor/quarxfs/remote/cluster/register"
	"github.com/quarxtor/quarxfs/store/routine"
)

// controlEvery is how often the controller looks at the cluster.
const controlEvery = 3 * time.Second

// controlAPI is what administrators may do with where copies are.
func (a *Agent) controlAPI(mux *http.ServeMux) {
	mux.Handle("GET "+client.PathNodes+"/{name}/drain", answer(a.drained))
	mux.Handle("POST "+client.PathNodes+"/{name}/drain", answer(a.drain))
	mux.Handle("POST "+client.PathBalance, answer(a.balance))
	mux.Handle("POST "+client.PathBlast, answer(a.blast))
	mux.Handle("GET "+client.PathSettings, answer(func(r *http.Request) (client.ClusterSettings, error) {
		conf, err := a.cluster.Config(r.Context())
		return client.ClusterSettings{RepairAfter: int64(conf.RepairAfter() / time.Second)}, err
	}))
	mux.Handle("POST "+client.PathSettings, answer(func(r *http.Request) (client.ClusterSettings, error) {
		var s client.ClusterSettings
		if err := read(r, &s); err != nil {
			return s, err
		}
		patience := time.Duration(s.RepairAfter) * time.Second
		if patience < client.LeastRepairAfter || patience > client.MostRepairAfter {
			return s, fmt.Errorf("%w: a node may be down for %v to %v before its copies are made anew",
				client.ErrRequest, client.LeastRepairAfter, client.MostRepairAfter)
		}
		conf, err := a.cluster.SetPatience(r.Context(), patience)
		return client.ClusterSettings{RepairAfter: int64(conf.RepairAfter() / time.Second)}, err
	}))
}

// runController acts for the cluster while this node is the one that does. All that it does is a
// compare-and-swap of a volume as it has seen it, so that two at once, as while one is believed to
// be down, do no harm.
func (a *Agent) runController(ctx context.Context) error {
	silence := control.Silence{}
	for routine.Sleep(ctx, controlEvery) == nil {
		if !a.controls() {
			silence = control.Silence{} // what was silent before somebody else looked says nothing
			continue
		}
		if err := a.round(ctx, silence); err != nil && ctx.Err() == nil {
			a.log.Info("the controller", "err", err)
		}
	}
	return nil
}

// controls tells whether this node acts for the cluster: the first voter that is up. That needs no
// election, as nothing rests on there being one.
func (a *Agent) controls() bool {
	if a.memory.reach() != nil {
		return false
	}
	for _, n := range a.memory.lastNodes() { // by name
		if n.Up && n.Votes {
			return n.Name == a.settings.Node.Name
		}
	}
	return false
}

// round decides once, by facts that are read anew, and begins what was decided.
func (a *Agent) round(ctx context.Context, silence control.Silence) error {
	f := a.look(ctx)
	if f.NoVote != nil {
		return f.NoVote
	}
	p := control.FactsOf(f, a.memory.sizes(), silence)
	plan := place.Next(p)
	if plan.Held != "" {
		return nil // what was noted stays, with its age: it is not over
	}
	if err := a.cluster.NoteRepairs(ctx, control.Repairs(p, plan, f.AsOf)); err != nil {
		return err
	}
	var failed error
	for _, s := range plan.Steps {
		v := *f.VolumeOf(s.Volume) // plans are made of these volumes
		err := a.step(ctx, f, v, s)
		// The next round sees what has changed, and goes on with what has to wait.
		if err != nil && !errors.Is(err, register.ErrConflict) && !errors.Is(err, errWaits) {
			failed = errors.Join(failed, fmt.Errorf("%s %s at %s: %w", s.Do, s.Volume, s.Node, err))
		}
	}
	return errors.Join(failed, a.fillAndFree(ctx, f, p))
}

// step begins a copy, which its home then fills, or takes one out of the register.
func (a *Agent) step(ctx context.Context, f health.Facts, v cluster.Volume, s place.Step) error {
	switch s.Do {
	case place.Make:
		changed, err := a.cluster.MoveVaults(ctx, v, []string{s.Node}, nil)
		if err != nil {
			return err
		}
		a.log.Info("a copy is made", "volume", v.Name, "node", s.Node, "why", s.Why)
		return a.tellVaults(ctx, changed, []string{s.Node})
	case place.Drop:
		if err := a.keepAll(ctx, f, v, s.Node); err != nil {
			return err
		}
		if _, err := a.cluster.MoveVaults(ctx, v, nil, []string{s.Node}); err != nil {
			return err
		}
		a.log.Info("a copy is given up", "volume", v.Name, "node", s.Node, "why", s.Why)
	}
	return nil // without mirrors nothing is handed over
}

// placement is what place decides by, for a question of an administrator.
func (a *Agent) placement(ctx context.Context) (health.Facts, place.Facts, error) {
	f := a.look(ctx)
	if f.NoVote != nil {
		return f, place.Facts{}, f.NoVote
	}
	return f, control.FactsOf(f, a.memory.sizes(), nil), nil
}

func (a *Agent) drain(r *http.Request) (client.Drain, error) {
	var q client.DrainRequest
	if err := read(r, &q); err != nil {
		return client.Drain{}, err
	}
	state := cluster.StateIn
	if q.Draining {
		state = cluster.StateDraining
	}
	n, err := a.cluster.SetState(r.Context(), r.PathValue("name"), state)
	if err != nil {
		return client.Drain{}, err
	}
	a.log.Info("a node was told", "node", n.Name, "state", n.State)
	return a.drained(r)
}

// drained says what a node still has, and where it goes.
func (a *Agent) drained(r *http.Request) (client.Drain, error) {
	n, err := a.cluster.Node(r.Context(), r.PathValue("name"))
	d := client.Drain{Node: n.Name, Draining: n.State == cluster.StateDraining, Copies: []client.Left{}}
	if err != nil {
		return d, err
	}
	_, p, err := a.placement(r.Context())
	if err != nil {
		return d, err
	}
	left, held := control.LeftOn(p, n.Name)
	d.Held = string(held)
	for _, l := range left {
		d.Copies = append(d.Copies, client.Left{Volume: l.Volume, Kind: string(l.Kind), To: l.To, Why: string(l.Why)})
	}
	return d, nil
}

// balance says which moves even the disks out, and begins the first of them unless it is only
// asked. A move is one more copy; what is too many then the next rounds drop, when it is whole.
func (a *Agent) balance(r *http.Request) (client.Balance, error) {
	b := client.Balance{Moves: []client.Move{}}
	var q client.BalanceRequest
	if err := read(r, &q); err != nil {
		return b, err
	}
	f, p, err := a.placement(r.Context())
	if err != nil {
		return b, err
	}
	moves, held := place.Balance(p)
	for _, m := range moves {
		b.Moves = append(b.Moves, client.Move{Volume: m.Volume, From: m.From, To: m.To, Bytes: m.Bytes, Why: string(m.Why)})
	}
	if held == "" && !q.DryRun && control.Busy(p) {
		held = place.Busy // one by one
	}
	b.Held, b.Busy = string(held), held == place.Busy
	if held != "" || q.DryRun || len(moves) == 0 {
		return b, nil
	}
	m := moves[0]
	changed, err := a.cluster.MoveVaults(r.Context(), *f.VolumeOf(m.Volume), []string{m.To}, nil)
	if errors.Is(err, register.ErrConflict) {
		b.Busy, b.Held = true, string(place.Busy)
		return b, nil
	}
	if err != nil {
		return b, err
	}
	b.Begun = true
	a.log.Info("a copy is moved", "volume", m.Volume, "from", m.From, "to", m.To, "why", m.Why)
	return b, a.tellVaults(r.Context(), changed, []string{m.To})
}

// blast says what is lost when nodes die with their disks, by what is known now.
func (a *Agent) blast(r *http.Request) (client.Blast, error) {
	b := client.Blast{Losses: []client.Loss{}, NoRoom: []client.Left{}}
	var q client.BlastRequest
	if err := read(r, &q); err != nil {
		return b, err
	}
	f, p, err := a.placement(r.Context())
	if err != nil {
		return b, err
	}
	if q.Worst < 0 || q.Worst > client.MostWorst {
		return b, fmt.Errorf("%w: the worst 1 to %d nodes", client.ErrRequest, client.MostWorst)
	}
	// Zones and the worst become nodes here, so that the answer names all that were meant.
	if q.Worst > 0 {
		q.Nodes = append(q.Nodes, place.Worst(p, q.Worst)...)
	}
	for _, zone := range q.Zones {
		in := 0
		for _, n := range p.Nodes {
			if n.Zone == zone && zone != "" {
				q.Nodes = append(q.Nodes, n.Name)
				in++
			}
		}
		if in == 0 {
			return b, fmt.Errorf("zone %q: %w", zone, cluster.ErrNoNode)
		}
	}
	slices.Sort(q.Nodes)
	b.Nodes = slices.Compact(q.Nodes)
	d := place.Blast(p, b.Nodes, nil)
	if len(d.NoNodes) > 0 {
		return b, fmt.Errorf("%q: %w", d.NoNodes[0], cluster.ErrNoNode)
	}
	b.Bytes, b.Repair = d.Bytes, d.Repair
	for _, l := range d.Losses {
		b.Losses = append(b.Losses, client.Loss{
			Volume: l.Volume, Fate: string(l.Fate), Bytes: l.Bytes, Copies: l.Copies, Age: l.Age.Seconds(), Home: f.VolumeOf(l.Volume).Home,
			Unseen: l.Unseen,
		})
	}
	for _, n := range d.NoRoom {
		b.NoRoom = append(b.NoRoom, client.Left{Volume: n.Volume, Kind: string(n.Kind), Why: string(n.Why)})
	}
	return b, nil
}
