package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/quarxtor/quarxfs/remote/cluster"
	"github.com/quarxtor/quarxfs/remote/cluster/client"
	"github.com/quarxtor/quarxfs/remote/cluster/etcd"
	"github.com/quarxtor/quarxfs/remote/cluster/home"
	"github.com/quarxtor/quarxfs/remote/cluster/pki"
	"github.com/quarxtor/quarxfs/remote/cluster/register"
	"github.com/quarxtor/quarxfs/remote/cluster/vault"
	"github.com/quarxtor/quarxfs/remote/serve"
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

// An Agent is a running node. What it remembers and what it is asked to fetch have locks of their
// own, of which none is held while another one is taken; the rest is set before it runs, or is one
// goroutine's.
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
	cluster  *cluster.Cluster
	member   *member
	memory   *memory
	vault    *vault.Vault
	homes    *home.Homes
	mirrors  *mirrors
	fetches  *fetchQueue
	again    chan struct{} // gets one when the register is to be made again
	stored   Settings      // as they are on the disk; takePart's alone
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
	a.member = &member{
		dir: d, settings: a.settings, signer: a.signer, log: a.log, start: o.Etcd, etcd: a.etcd, cluster: a.cluster,
	}
	if err := a.member.beginRevocations(); err != nil {
		return err
	}
	if a.vault, err = vault.Open(d.path(vaultsName), a.log); err != nil {
		return err
	}
	// Behind all that asks of it: serve returns when no request is at work.
	defer func() { err = errors.Join(err, a.mirrors.close(), a.vault.Close()) }()
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
		group.Go(func() error { return a.member.run(ctx) })
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
		group.Go(func() error { return a.fetches.run(ctx, a.log, a.fetchNow) })
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
	a := &Agent{dir: d, settings: settings, version: o.Version, log: o.Log, started: time.Now()}
	a.prepare()
	if a.identity, err = d.identity(); err != nil {
		return nil, err
	}
	a.stored = settings
	a.memory.recall()
	a.signer, err = d.signer()
	return a, err
}

// prepare makes what an agent remembers.
func (a *Agent) prepare() {
	a.memory, a.fetches, a.again = newMemory(a.dir, a.log), newFetchQueue(), make(chan struct{}, 1)
	a.mirrors = newMirrors()
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
		a.memory.setReach(err)
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
	for _, n := range a.memory.lastNodes() {
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
		a.memory.setReach(err)
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
	if a.memory.goneBack(conf, m.Revision) {
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
	a.memory.keepNodes(factsOf(nodes, members))
	// A vault whose disk is full is no reason to look after the cluster no more.
	if err := a.learnVolumes(ctx); err != nil && !errors.Is(err, register.ErrUnavailable) {
		a.log.Warn("the volumes", "err", err)
	} else if err == nil {
		a.memory.keepCopy(conf, nodes)
	}
	if err := a.useMembers(members); err != nil || a.signer == nil {
		return err
	}
	if err := a.member.maintain(ctx, nodes, members); err != nil {
		return err
	}
	now := time.Now()
	return errors.Join(a.cluster.NoteDown(ctx, nodes, now), a.cluster.DropExpired(ctx, now))
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
