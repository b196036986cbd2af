package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/quarxtor/quarxfs/remote/cluster"
	"github.com/quarxtor/quarxfs/remote/cluster/client"
	"github.com/quarxtor/quarxfs/remote/cluster/etcd"
	"github.com/quarxtor/quarxfs/remote/cluster/pki"
	"github.com/quarxtor/quarxfs/remote/cluster/place"
	"github.com/quarxtor/quarxfs/remote/cluster/register"
)

// adminAPI is what whoever can open the socket may do.
func (a *Agent) adminAPI() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET "+client.PathSelf, answer(a.self))
	mux.Handle("GET "+client.PathNodes, answer(a.nodes))
	mux.Handle("GET "+client.PathStatus, answer(a.status))
	mux.Handle("POST "+client.PathTokens, answer(a.newToken))
	mux.Handle("POST "+client.PathStop, answer(func(*http.Request) (struct{}, error) {
		a.stop()
		return struct{}{}, nil
	}))
	mux.Handle("DELETE "+client.PathNodes+"/{name}", answer(a.removeNode))
	a.viewAPI(mux, unguarded)
	a.volumeAPI(mux)
	a.controlAPI(mux)
	a.mirrorAPI(mux)
	mux.Handle("POST "+client.PathRebuild, answer(a.rebuild))
	return mux
}

// nodeAPI is what nodes may do, and those who would be one.
func (a *Agent) nodeAPI() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST "+client.PathJoin, answer(a.join))
	mux.Handle("GET "+client.PathSelf, a.forNodes(answer(a.self)))
	mux.Handle("GET "+client.PathNodes, a.forNodes(answer(a.nodes)))
	// From memory: who asks has two seconds for all nodes, and the register may take one of them.
	mux.Handle("GET "+client.PathAnswer, a.onlyFor(a.recentNode, answer(a.answerOwn)))
	mux.Handle("POST "+client.PathFence, a.forNodes(answer(a.fence)))
	mux.Handle("GET "+client.PathCopy, a.forNodes(answer(a.know)))
	mux.Handle("POST "+client.PathFetch, a.forNodes(answer(a.beginFetch)))
	mux.Handle("POST "+client.PathDiscard, a.forNodes(answer(a.discard)))
	mux.Handle(client.PathVaults+"/{generation}/{id}/{epoch}/", a.onlyFor(a.recentNode, http.HandlerFunc(a.inVault)))
	mux.Handle("POST "+client.PathMirrors+"/{generation}/{id}", a.onlyFor(a.recentNode, http.HandlerFunc(a.inMirror)))
	a.viewAPI(mux, a.forNodes)
	return mux
}

// forNodes lets in who shows the certificate that the register has of it: that of a
// node that was removed is still signed, and counts no more.
func (a *Agent) forNodes(h http.Handler) http.Handler { return a.onlyFor(a.knownNode, h) }

func (a *Agent) onlyFor(known func(context.Context, string) (cluster.Node, error), h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
			fail(w, fmt.Errorf("%w: only nodes of the cluster are answered here", cluster.ErrToken))
			return
		}
		cert := r.TLS.PeerCertificates[0]
		n, err := known(r.Context(), cert.Subject.CommonName)
		if err == nil && n.Certificate != pki.Fingerprint(cert) {
			// What is remembered may be of before the node got another one.
			n, err = a.knownNode(r.Context(), cert.Subject.CommonName)
		}
		if err == nil && n.Certificate != pki.Fingerprint(cert) {
			err = fmt.Errorf("%q has another certificate: %w", n.Name, cluster.ErrNoNode)
		}
		if err != nil {
			fail(w, err)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// knownNode asks the register, and its own memory when there is no quorum: then above all the nodes
// must see each other.
func (a *Agent) knownNode(ctx context.Context, name string) (cluster.Node, error) {
	if a.memory.reach() != nil {
		// It would be waited for in vain, by each who asks, and they have two seconds for all.
		if known, ok := a.memory.lastNode(name); ok {
			return known, nil
		}
	}
	ask, cancel := context.WithTimeout(ctx, registerTime)
	defer cancel()
	n, err := a.cluster.Node(ask, name)
	if errors.Is(err, cluster.ErrNoNode) {
		// It ends for good at that, so it must not be told by a register that never had it.
		if _, revision, lerr := a.cluster.Register.List(ask, "config"); lerr == nil && a.memory.goneBack(a.settings.Cluster, revision) {
			err = errGoneBack
		}
		return n, err
	}
	if err == nil || ctx.Err() != nil {
		return n, err
	}
	if known, ok := a.memory.lastNode(name); ok {
		return known, nil
	}
	return n, err
}

// recentNode asks the memory first, which is some seconds old at most while there is a quorum: of a
// sync it is asked for each request.
func (a *Agent) recentNode(ctx context.Context, name string) (cluster.Node, error) {
	if known, ok := a.memory.lastNode(name); ok {
		return known, nil
	}
	return a.knownNode(ctx, name)
}

func answer[T any](do func(*http.Request) (T, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v, err := do(r)
		if err != nil {
			fail(w, err)
			return
		}
		write(w, http.StatusOK, v)
	})
}

func fail(w http.ResponseWriter, err error) {
	if errors.Is(err, register.ErrUnavailable) || errors.Is(err, register.ErrUncertain) {
		err = fmt.Errorf("%w: %w", client.ErrNoQuorum, err)
	}
	p, status := client.Describe(err)
	write(w, status, p)
}

func write(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the reader is gone
}

func read(r *http.Request, to any) error {
	b, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, client.MostBytes))
	if err == nil {
		err = json.Unmarshal(b, to)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", client.ErrRequest, err)
	}
	return nil
}

func (a *Agent) self(*http.Request) (client.Self, error) {
	s := client.Self{Cluster: a.settings.Cluster.Name, ID: a.settings.Cluster.ID, Node: a.settings.Node.Name,
		PID: os.Getpid(), Address: a.settings.Node.Address, Generation: a.settings.Cluster.Generation}
	if why := a.memory.reach(); why != nil {
		s.Why = why.Error()
	}
	s.Ready = s.Why == ""
	return s, nil
}

func (a *Agent) nodes(r *http.Request) (client.View, error) {
	ctx := r.Context()
	v := client.View{AsOf: time.Now().UTC(), Nodes: []client.NodeView{}}
	var err error
	if v.Cluster, err = a.cluster.Config(ctx); err != nil {
		return v, err
	}
	nodes, err := a.facts(ctx)
	if err != nil {
		return v, err
	}
	for _, n := range nodes {
		v.Nodes = append(v.Nodes, client.NodeView{Node: n.Node, Up: n.Up, Alive: n.Alive, Votes: n.Votes})
	}
	return v, nil
}

func (a *Agent) newToken(r *http.Request) (client.Token, error) {
	var n client.NewToken
	if err := read(r, &n); err != nil {
		return client.Token{}, err
	}
	if n.Lasts < time.Second || n.Lasts > 30*24*time.Hour {
		return client.Token{}, fmt.Errorf("%w: a token lasts from a second to 30 days", client.ErrRequest)
	}
	if a.signer == nil {
		return client.Token{}, fmt.Errorf("%w: this node does not vote, and cannot admit others: ask one that does", client.ErrRequest)
	}
	t := pki.Token{Address: a.settings.Node.Address, Authority: a.signer.Fingerprint(), Secret: pki.NewSecret()}
	made := client.Token{Token: t.String(), Expires: time.Now().Add(n.Lasts).UTC()}
	return made, a.cluster.Invite(r.Context(), t.Secret, made.Expires)
}

// join admits a node: first in the register, where its token decides, then as a
// member of etcd. Both may be asked for again by the same node.
func (a *Agent) join(r *http.Request) (client.JoinAnswer, error) {
	var q client.JoinRequest
	if err := read(r, &q); err != nil {
		return client.JoinAnswer{}, err
	}
	now := time.Now()
	switch skew := q.Time.Sub(now); {
	case q.Protocol != client.Protocol:
		return client.JoinAnswer{}, fmt.Errorf("%w: %d, and this one has %d: install the same QuarXFS on all nodes", client.ErrVersion, q.Protocol, client.Protocol)
	case a.signer == nil:
		return client.JoinAnswer{}, fmt.Errorf("%w: this node does not vote, and cannot admit others", client.ErrRequest)
	case skew.Abs() > client.MostSkew:
		return client.JoinAnswer{}, fmt.Errorf("%w: the new node's says %s, that of %s %s: set it, as with timedatectl set-ntp true, and join again",
			client.ErrClock, q.Time.UTC().Format(time.DateTime), a.settings.Node.Name, now.UTC().Format(time.DateTime))
	}
	ctx := r.Context()
	members, err := a.etcd.Members(ctx)
	if err != nil {
		return client.JoinAnswer{}, err
	}
	n, cert, err := a.admit(ctx, q, members, now)
	if err != nil {
		return client.JoinAnswer{}, err
	}
	conf, err := a.cluster.Config(ctx)
	if err != nil {
		return client.JoinAnswer{}, err
	}
	// The register first, which has decided by now; a member of etcd for a node that was refused
	// would be one that never starts.
	result := client.JoinAnswer{Cluster: conf, Node: n, Certificate: cert, Authority: a.signer.Certificate()}
	if n.Has(cluster.RoleVoter) {
		if err := a.etcd.AddMember(ctx, n.Peer); err != nil {
			return client.JoinAnswer{}, err
		}
		if result.Signer, err = a.signer.Key(); err != nil {
			return client.JoinAnswer{}, err
		}
	}
	for _, m := range members {
		if m.Client != "" && !m.Learner {
			result.Clients = append(result.Clients, m.Client)
		}
	}
	return result, nil
}

// admit decides what the node may be, signs its certificate and writes it into the register.
func (a *Agent) admit(ctx context.Context, q client.JoinRequest, members []etcd.Member, now time.Time) (cluster.Node, []byte, error) {
	n := q.Node
	known := slices.ContainsFunc(members, func(m etcd.Member) bool { return m.Peer == n.Peer })
	// A node that asks again is a member by now, and must not be one too many for that.
	votes := known || len(members) < mostVoters
	if n.Roles = roles(votes, q.Witness); len(n.Roles) == 0 {
		return n, nil, fmt.Errorf("%w: the cluster has its %d voters, so a witness is of no use", client.ErrRequest, mostVoters)
	}
	if !votes {
		n.Peer, n.Client = "", ""
	}
	cert, err := a.signer.Sign(q.Request, n.Name, now)
	if err != nil {
		return n, nil, fmt.Errorf("%w: %w", client.ErrRequest, err)
	}
	parsed, err := pki.ParseCertificate(cert)
	if err != nil {
		return n, nil, err
	}
	n.State, n.Joined = cluster.StateIn, now.UTC()
	n.Certificate, n.Serial = pki.Fingerprint(parsed), pki.Serial(parsed)
	n, err = a.cluster.Admit(ctx, q.Secret, n, now)
	return n, cert, err
}

// removeNode writes the removal, which decides. The member of etcd follows, and if it cannot
// at once, dropStrangers of some voter takes it out.
func (a *Agent) removeNode(r *http.Request) (struct{}, error) {
	ctx := r.Context()
	n, err := a.cluster.Node(ctx, r.PathValue("name"))
	if err != nil {
		return struct{}{}, err
	}
	if err := a.mayRemove(ctx, n); err != nil {
		return struct{}{}, err
	}
	if err := a.holdsNothing(ctx, n.Name); err != nil {
		return struct{}{}, err
	}
	if err := a.cluster.Remove(ctx, n.Name, time.Now()); err != nil {
		return struct{}{}, err
	}
	// Its own member is left to others: it could not be asked for its leave after that.
	a.log.Info("a node was removed", "node", n.Name)
	if n.Peer != "" && n.Name != a.settings.Node.Name {
		if err := a.etcd.RemoveMember(ctx, n.Peer); err != nil {
			a.log.Info("its member of etcd is removed later", "node", n.Name, "err", err)
		}
	}
	return struct{}{}, nil
}

// holdsNothing reports client.ErrHolds with a volume that is written on the node, or that would
// have too few copies without what is there. What nobody can see there is not counted anyway, and
// once the node is gone it is made anew at once.
func (a *Agent) holdsNothing(ctx context.Context, name string) error {
	f, p, err := a.placement(ctx)
	if err != nil {
		return err
	}
	for _, v := range f.Volumes {
		if v.Home == name {
			return fmt.Errorf("%w: %s is the home of %s: take it over on another node: quarxfs cluster volume takeover %s", client.ErrHolds, name, v.Name, v.Name)
		}
	}
	for _, b := range place.MayLeave(p, name) {
		return fmt.Errorf("%w: %s is a vault of %s: %s: quarxfs cluster drain %s --wait", client.ErrHolds, name, b.Volume, b.Why, name)
	}
	return nil
}

// mayRemove reports ErrLastVoter if those that are up and stay would be no quorum.
func (a *Agent) mayRemove(ctx context.Context, n cluster.Node) error {
	nodes, err := a.facts(ctx)
	if err != nil {
		return err
	}
	stay, up, votes := 0, 0, false
	for _, other := range nodes {
		switch {
		case !other.Votes:
		case other.Name == n.Name:
			votes = true
		default:
			stay++
			if other.Up {
				up++
			}
		}
	}
	// Of those that stay more than half must be up, and not of those that there are now.
	if votes && up < stay/2+1 {
		return fmt.Errorf("%w: without %s, %d of %d voters would be up", client.ErrLastVoter, n.Name, up, stay)
	}
	return nil
}
