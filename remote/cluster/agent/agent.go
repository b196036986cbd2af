package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/quarxtor/quarxfs/remote/cluster"
	"github.com/quarxtor/quarxfs/remote/cluster/client"
	"github.com/quarxtor/quarxfs/remote/cluster/etcd"
	"github.com/quarxtor/quarxfs/remote/cluster/health"
	"github.com/quarxtor/quarxfs/remote/cluster/home"
	"github.com/quarxtor/quarxfs/remote/cluster/pki"
	"github.com/quarxtor/quarxfs/remote/cluster/register"
	"github.com/quarxtor/quarxfs/remote/cluster/vault"
	"github.com/quarxtor/quarxfs/remote/serve"
	"github.com/quarxtor/quarxfs/store/durable"
	"github.com/quarxtor/quarxfs/store/routine"
)

// ErrRemoved: the cluster has removed this node.
var ErrRemoved = errors.New("this node was removed from its cluster")

const (
	aliveTime      = 10 * time.Second // a node that is silent for longer is down
	retryAfter     = time.Second
	reconcileEvery = 2 * time.Second
	mostVoters     = 3
	firstStarts    = 10 // of a new member of etcd, while others join
	headerTime     = 10 * time.Second
	answerTime     = time.Minute
	shutdownTime   = 5 * time.Second
	removedName    = client.SettingsName + ".removed"
)

// An Agent is a running node.
//
// Lock: mu alone, which is held over no call.
type Agent struct {
	dir      Dir
	settings Settings
	identity *pki.Identity
	signer   *pki.Authority // nil: it is no voter
	version  string
	log      *slog.Logger
	started  time.Time
	stop     context.CancelFunc
	etcd     quorum
	start    etcd.Start
	cluster  *cluster.Cluster
	vault    *vault.Vault
	homes    *home.Homes
	fetches  chan fetch
	again    chan struct{} // gets one when the register is to be made again
	stored   Settings      // as they are on the disk; takePart's alone
	revoked  []string      // serial numbers in the file that etcd reads; nil: since the start not looked at

	mu struct {
		sync.Mutex
		why      error              // why the register is out of reach; nil: it is not
		nodes    []health.NodeFacts // as the register said last; without what nodes say themselves
		heard    map[string]time.Time
		copy     cluster.Copy     // of the register, as it is on the disk
		volumes  []cluster.Volume // as the register said last
		domains  map[string]cluster.Domain
		revision int64            // of the register, when it said so
		fetching map[string]bool  // volumes, by ID, that a fetch is under way of, or waits
		sizes    map[string]int64 // of volumes, by ID, as their homes said last
	}
}

// A quorum is what an agent asks of the members of etcd, beside what they keep.
type quorum interface {
	Members(ctx context.Context) ([]etcd.Member, error)
	AddMember(ctx context.Context, peer string) error
	PromoteMember(ctx context.Context, peer string) error
	RemoveMember(ctx context.Context, peer string) error
	Use(addrs []string)
}

var errStarting = errors.New("it has just started, and waits for a quorum of the voters")

// Options are what an agent is told each time it starts.
type Options struct {
	Version string
	Log     *slog.Logger
	Etcd    etcd.Start // of a voter's member
	Page    string     // host:port of this machine alone that shows the page without TLS; empty: none
	Ready   func()     // called once it answers on its socket; the register may be out of reach still
}

// Run is a node's agent until ctx ends: ErrNotSetUp, ErrRuns, ErrRemoved, ErrRequest. It begins
// anew by itself where the register was made again.
func (d Dir) Run(ctx context.Context, o Options) error {
	o.Ready = sync.OnceFunc(o.Ready)
	for {
		err := d.run(ctx, o)
		if !errors.Is(err, errAgain) || ctx.Err() != nil {
			return err
		}
		o.Log.Info("the agent begins anew, as the register was made again")
	}
}

// errAgain ends a run that is begun anew.
var errAgain = errors.New("the register was made again")

func (d Dir) run(ctx context.Context, o Options) (err error) {
	a, err := d.load(o)
	if err != nil {
		return err
	}
	lock, err := d.lock()
	if err != nil {
		return err
	}
	defer lock.Unlock()
	if err := a.leaveLost(); err != nil {
		return err
	}
	register, err := a.dial()
	if err != nil {
		return err
	}
	defer register.Close()
	a.etcd, a.cluster = register, &cluster.Cluster{Register: register}
	if err := a.beginRevocations(); err != nil {
		return err
	}
	if a.vault, err = vault.Open(d.path(vaultsName), a.log); err != nil {
		return err
	}
	// Behind all that asks of it: serve returns when no request is at work.
	defer func() { err = errors.Join(err, a.vault.Close()) }()
	a.homes = &home.Homes{Path: d.path(homesName), Node: a.settings.Node.Name, Log: a.log, Vault: a.vaultClient}
	if err := a.homes.Load(); err != nil {
		return err
	}

	// A request to stop is answered before it is obeyed: serve shuts down in order.
	ctx, a.stop = context.WithCancel(ctx)
	defer a.stop()
	socket, err := a.listenSocket(ctx)
	if err != nil {
		return err
	}
	network, err := a.listenTLS(ctx)
	if err != nil {
		return errors.Join(err, socket.Close())
	}
	var page net.Listener
	if o.Page != "" {
		if page, err = listenPage(ctx, o.Page); err != nil {
			return errors.Join(err, socket.Close(), network.Close())
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return answerOn(ctx, socket, a.adminAPI()) })
	group.Go(func() error { return answerOn(ctx, network, a.nodeAPI()) })
	if page != nil {
		mux := http.NewServeMux()
		a.viewAPI(mux, unguarded)
		group.Go(func() error { return answerOn(ctx, page, mux) })
	}
	if a.settings.Node.Has(cluster.RoleVoter) {
		group.Go(func() error { return a.runEtcd(ctx) })
	}
	group.Go(func() error { return a.homes.Run(ctx) })
	group.Go(func() error { return a.takePart(ctx) })
	group.Go(func() error { return a.runController(ctx) })
	group.Go(func() error {
		select {
		case <-a.again:
			return errAgain
		case <-ctx.Done():
			return nil
		}
	})
	for range fetchersMost {
		group.Go(func() error { return a.runFetches(ctx) })
	}
	o.Ready()
	err = group.Wait()
	if errors.Is(err, ErrRemoved) {
		// The directory can be set up anew, and the node does not come up again by itself.
		err = errors.Join(err, os.Rename(d.path(client.SettingsName), d.path(removedName)))
	}
	if errors.Is(err, context.Canceled) && errors.Is(context.Cause(ctx), context.Canceled) {
		return nil
	}
	return err
}

func (d Dir) load(o Options) (*Agent, error) {
	settings, err := d.Settings()
	if err != nil {
		return nil, err
	}
	a := &Agent{dir: d, settings: settings, version: o.Version, log: o.Log, start: o.Etcd, started: time.Now()}
	a.mu.why = errStarting
	a.prepare()
	if a.identity, err = d.identity(); err != nil {
		return nil, err
	}
	a.stored = settings
	a.recall()
	a.signer, err = d.signer()
	return a, err
}

// prepare makes what an agent remembers.
func (a *Agent) prepare() {
	a.fetches, a.again = make(chan fetch, fetchesMost), make(chan struct{}, 1)
	a.mu.heard, a.mu.sizes, a.mu.fetching = map[string]time.Time{}, map[string]int64{}, map[string]bool{}
}

// dial has a client of the register; other members come first, as its own may not vote yet.
func (a *Agent) dial() (*etcd.Client, error) {
	endpoints := slices.Clone(a.settings.Clients)
	if own := a.settings.Node.Client; a.settings.Node.Has(cluster.RoleVoter) && !slices.Contains(endpoints, own) {
		endpoints = append(endpoints, own)
	}
	return etcd.Dial(etcd.ClientConfig{
		Endpoints: endpoints, TLS: a.identity.Client(), Prefix: "/quarxfs/" + a.settings.Cluster.ID + "/",
	})
}

func (a *Agent) runEtcd(ctx context.Context) error {
	log, err := os.OpenFile(a.dir.path("etcd.log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	server, err := a.startEtcd(ctx, log)
	if err != nil {
		return err
	}
	defer server.Close()
	select {
	case <-ctx.Done():
		return nil
	case err := <-server.Failed():
		if _, known := a.cluster.Node(ctx, a.settings.Node.Name); errors.Is(known, cluster.ErrNoNode) {
			return ErrRemoved
		}
		return fmt.Errorf("the node's etcd has stopped: %w", err)
	}
}

// beginRevocations makes an empty list of certificates where there is none: without the file etcd
// lets nobody in. reconcile brings it up to date, and does not run yet: it would be undone here.
func (a *Agent) beginRevocations() error {
	if !a.settings.Node.Has(cluster.RoleVoter) {
		return nil
	}
	if _, err := os.Stat(a.dir.path(revokedName)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return a.revoke(nil)
}

// startEtcd starts the node's member. A new one must know exactly the members that there are, and
// others may be joining at the same time: then it asks again.
func (a *Agent) startEtcd(ctx context.Context, log io.Writer) (etcd.Server, error) {
	n := a.settings.Node
	conf := etcd.ServerConfig{
		Name: n.Name, Dir: a.dir.path(etcdName), Listen: a.settings.Listen, Peer: n.Peer, Client: n.Client,
		Members: map[string]string{n.Name: n.Peer}, Join: !a.settings.Founder, Token: a.settings.Cluster.ID,
		Cert: a.dir.path(certName), Key: a.dir.path(keyName), CA: a.dir.path(authorityName),
		Revoked: a.dir.path(revokedName), Log: log,
	}
	for tries := firstStarts; ; tries-- {
		// Looked at each time: a start that failed may have made the data, and is a restart then.
		_, err := os.Stat(filepath.Join(conf.Dir, "member"))
		first := errors.Is(err, fs.ErrNotExist)
		if first && conf.Join {
			if conf.Members, err = a.beMember(ctx, n); err != nil {
				if err := routine.Sleep(ctx, retryAfter); err != nil {
					return nil, err
				}
				continue
			}
		}
		server, err := a.start(ctx, conf)
		if err == nil || !first || tries == 0 || ctx.Err() != nil {
			return server, err
		}
		a.log.Warn("the member of etcd does not start", "err", err)
		if err := routine.Sleep(ctx, retryAfter); err != nil {
			return nil, err
		}
	}
}

// beMember announces the node's member, which has no data: if it had any, they are lost, and it
// must not be taken for the one that had them. It returns where the members reach each other.
func (a *Agent) beMember(ctx context.Context, n cluster.Node) (map[string]string, error) {
	if _, err := a.cluster.Node(ctx, n.Name); err != nil {
		return nil, err // it was removed, or nobody decides now
	}
	if err := a.etcd.AddMember(ctx, n.Peer); err != nil {
		return nil, err
	}
	return a.membersByName(ctx)
}

// membersByName returns where the members of etcd reach each other, with those that
// have not started yet, whose names etcd does not know.
func (a *Agent) membersByName(ctx context.Context) (map[string]string, error) {
	members, err := a.etcd.Members(ctx)
	if err != nil {
		return nil, err
	}
	nodes, err := a.cluster.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	found := make(map[string]string)
	for _, m := range members {
		for _, n := range nodes {
			if n.Peer == m.Peer {
				found[n.Name] = n.Peer
			}
		}
	}
	return found, nil
}

// takePart says that the node is alive, again whenever that was forgotten, and
// does what is left to do in the cluster.
func (a *Agent) takePart(ctx context.Context) error {
	for {
		err := a.attend(ctx)
		if errors.Is(err, ErrRemoved) || errors.Is(err, errAgain) {
			return err
		}
		if ctx.Err() != nil {
			return nil
		}
		// Its certificate may count no more, so that no voter's etcd talks to it.
		if errors.Is(err, register.ErrUnavailable) && a.othersSayRemoved(ctx) {
			return ErrRemoved
		}
		a.setReach(err)
		if err := routine.Sleep(ctx, retryAfter); err != nil {
			return nil
		}
	}
}

// othersSayRemoved asks the agents that this one knows of whether it is still a node, which they
// read in the register. One that cannot, or whose register has gone back, says neither.
func (a *Agent) othersSayRemoved(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	var removed atomic.Bool
	var asked sync.WaitGroup
	for _, n := range a.lastNodes() {
		if n.Name == a.settings.Node.Name {
			continue
		}
		asked.Go(func() {
			at := client.Remote(n.Address, a.identity.Client())
			defer at.Close()
			if _, err := at.Self(ctx); errors.Is(err, cluster.ErrNoNode) {
				removed.Store(true)
			}
		})
	}
	asked.Wait()
	return removed.Load()
}

// attend takes part for as long as one lease lasts.
func (a *Agent) attend(ctx context.Context) error {
	if a.stored.Founder {
		if err := a.foundRegister(ctx); err != nil {
			return err
		}
	}
	nodes, err := a.cluster.Membership(ctx)
	if err == nil {
		err = a.checkMembership(ctx, nodes)
	}
	if err != nil {
		return err
	}
	lease, err := a.cluster.Register.Lease(ctx, aliveTime)
	if err != nil {
		return err
	}
	defer func() {
		// A node that leaves in order is down at once; ctx has ended, so it may not bound this.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), retryAfter)
		defer cancel()
		_ = lease.Close(ctx) // it ends by itself if not
	}()
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return err
	}
	alive := cluster.Alive{Boot: strings.TrimSpace(string(boot)), Version: a.version, Since: a.started.UTC()}
	if err := cluster.Announce(ctx, lease, a.settings.Node.Name, alive); err != nil {
		return err
	}
	for {
		err := a.reconcile(ctx)
		if errors.Is(err, ErrRemoved) || errors.Is(err, errAgain) {
			return err
		}
		a.setReach(err)
		select {
		case <-lease.Lost():
			return register.ErrLeaseLost
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(reconcileEvery):
		}
	}
}

// checkMembership returns ErrRemoved if the cluster does not know the node by its ID. A register
// that is not made yet, or older than one that the node has seen, says nothing about that.
func (a *Agent) checkMembership(ctx context.Context, m cluster.Membership) error {
	for _, n := range m.Nodes {
		if n.Name == a.settings.Node.Name && n.ID == a.settings.Node.ID {
			return nil
		}
	}
	conf, err := a.cluster.Config(ctx)
	if err != nil {
		return err
	}
	if a.goneBack(conf, m.Revision) {
		return errGoneBack
	}
	return ErrRemoved
}

// reconcile keeps what the node knows of the others up to date. What there is to do for
// the cluster every voter does as if it were alone: all of it may be done twice.
func (a *Agent) reconcile(ctx context.Context) error {
	// The members first: a node is written before its member is, so those that are not among the
	// nodes then are strangers.
	members, err := a.etcd.Members(ctx)
	if err != nil {
		return err
	}
	nodes, err := a.cluster.Membership(ctx)
	if err == nil {
		err = a.checkMembership(ctx, nodes)
	}
	if err != nil {
		return err
	}
	conf, err := a.cluster.Config(ctx)
	if err != nil {
		return err
	}
	if conf.Generation != a.settings.Cluster.Generation {
		return a.followAgain(conf, members)
	}
	a.keepNodes(factsOf(nodes, members))
	// A vault whose disk is full is no reason to look after the cluster no more.
	if err := a.learnVolumes(ctx); err != nil && !errors.Is(err, register.ErrUnavailable) {
		a.log.Warn("the volumes", "err", err)
	} else if err == nil {
		a.keepCopy(conf, nodes)
	}
	if err := a.useMembers(members); err != nil || a.signer == nil {
		return err
	}
	if revoked := slices.Sorted(maps.Keys(nodes.Revoked)); !slices.Equal(revoked, a.revoked) {
		if err := a.revoke(revoked); err != nil {
			return err
		}
		a.revoked = revoked // only this goroutine looks at them
	}
	if err := a.dropStrangers(ctx, nodes.Nodes, members); err != nil {
		return err
	}
	if len(members) == mostVoters {
		// Two voters bear no failure, as one does not, and two can fail: so the second votes
		// only when there is a third.
		for _, m := range members {
			if m.Learner && m.Name != "" {
				if err := a.etcd.PromoteMember(ctx, m.Peer); err != nil {
					a.log.Debug("a member does not vote yet", "member", m.Name, "err", err)
				}
			}
		}
	}
	now := time.Now()
	return errors.Join(a.cluster.NoteDown(ctx, nodes, now), a.cluster.DropExpired(ctx, now))
}

// revoke has etcd refuse new connections with these certificates.
func (a *Agent) revoke(serials []string) error {
	list, err := a.signer.Revoke(serials, time.Now())
	if err != nil {
		return err
	}
	return durable.Write(a.dir.path(revokedName), list)
}

// dropStrangers takes members out of the quorum that are nodes no more, as after
// a removal that was broken off.
func (a *Agent) dropStrangers(ctx context.Context, nodes []cluster.Node, members []etcd.Member) error {
	for _, m := range members {
		known := slices.ContainsFunc(nodes, func(n cluster.Node) bool { return n.Peer == m.Peer })
		if !known {
			if err := a.etcd.RemoveMember(ctx, m.Peer); err != nil {
				return err
			}
		}
	}
	return nil
}

// useMembers talks to those that vote, and keeps where they are for the next start:
// those that the node joined with may be gone by then.
func (a *Agent) useMembers(members []etcd.Member) error {
	var clients []string
	for _, m := range members {
		if m.Client != "" && !m.Learner { // a learner answers nobody
			clients = append(clients, m.Client)
		}
	}
	slices.Sort(clients)
	if len(clients) == 0 || slices.Equal(clients, a.stored.Clients) {
		return nil
	}
	a.etcd.Use(clients)
	return a.store(func(s *Settings) { s.Clients = clients })
}

// store changes the settings on the disk; what runs goes by those that it was started with.
func (a *Agent) store(change func(*Settings)) error {
	s := a.stored
	change(&s)
	if err := a.dir.write(s); err != nil {
		return err
	}
	a.stored = s
	return nil
}

func (a *Agent) setReach(err error) {
	a.mu.Lock()
	before := a.mu.why
	a.mu.why = err
	a.mu.Unlock()
	switch {
	case err == nil && before != nil:
		a.log.Info("the register is reached")
	case err != nil && (before == nil || errors.Is(before, errStarting)):
		a.log.Warn("the register is out of reach", "err", err)
	}
}

func (a *Agent) reach() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mu.why
}

// listenSocket is for administrators: root, and the owner of the directory.
func (a *Agent) listenSocket(ctx context.Context) (net.Listener, error) {
	path := a.dir.Socket()
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) { // an agent that was killed; the lock is ours
		return nil, err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil { // the directory is 0700: nobody was quicker
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// listenTLS is for nodes.
func (a *Agent) listenTLS(ctx context.Context) (net.Listener, error) {
	_, port, err := net.SplitHostPort(a.settings.Node.Address)
	if err != nil {
		return nil, err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(a.settings.Listen, port))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", client.ErrRequest, err)
	}
	return tls.NewListener(l, a.identity.Server()), nil
}

// answerOn returns when no request is at work any more, so that what they use can be closed.
func answerOn(ctx context.Context, l net.Listener, h http.Handler) error {
	s := serve.Serve(l, &http.Server{
		Handler: h, ReadHeaderTimeout: headerTime, ReadTimeout: answerTime, WriteTimeout: answerTime, MaxHeaderBytes: 16 << 10,
	}, slog.New(slog.DiscardHandler))
	<-ctx.Done()
	// What is being decided is answered; ctx is over, so it cannot bound that.
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
	defer cancel()
	return s.Close(stop)
}
