package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/remote/cluster"
	"github.com/quarxtor/quarxfs/remote/cluster/etcd"
	"github.com/quarxtor/quarxfs/remote/cluster/home"
	"github.com/quarxtor/quarxfs/remote/cluster/pki"
	"github.com/quarxtor/quarxfs/remote/cluster/register"
	"github.com/quarxtor/quarxfs/remote/cluster/register/registertest"
	"github.com/quarxtor/quarxfs/remote/cluster/vault"
	"github.com/quarxtor/quarxfs/remote/remotetest"
	"github.com/quarxtor/quarxfs/store"
)

// A lab is a cluster in this process: a register in memory, and for each node an agent with vaults,
// a server for the others, and stores that a daemon would have open. What agents do by themselves
// a test has them do.
type lab struct {
	t       *testing.T
	fake    *registertest.Fake
	cluster *cluster.Cluster
	signer  *pki.Authority
	agents  map[string]*Agent
	servers map[string]*httptest.Server
	leases  map[string]register.Lease
	mu      sync.Mutex
	sites   map[string]remotetest.Site // by directory; missing: no daemon has it open
}

// newLab has nodes of the names, each in a zone of its own unless it says NAME/ZONE.
func newLab(t *testing.T, names ...string) *lab {
	t.Helper()
	l := &lab{
		t: t, fake: registertest.NewFake(), agents: map[string]*Agent{}, servers: map[string]*httptest.Server{},
		leases: map[string]register.Lease{}, sites: map[string]remotetest.Site{},
	}
	l.cluster = &cluster.Cluster{Register: l.fake.Client()}
	var err error
	if l.signer, err = pki.NewAuthority("0123", time.Now()); err != nil {
		t.Fatal(err)
	}
	conf := cluster.Config{Name: "lab", ID: "0123", Generation: "first", Created: time.Now().UTC()}
	for i, text := range names {
		name, zone, ok := strings.Cut(text, "/")
		if !ok {
			zone = "z-" + name
		}
		l.join(conf, name, zone, i < mostVoters)
	}
	return l
}

func (l *lab) join(conf cluster.Config, name, zone string, votes bool) {
	l.t.Helper()
	log := slog.New(slog.NewTextHandler(l.t.Output(), nil)).With("node", name)
	a := &Agent{dir: Dir(l.t.TempDir()), log: log, version: "test", signer: l.signer, started: time.Now()}
	a.prepare()
	a.memory.setReach(nil) // it has been up for a while
	a.cluster, a.etcd = &cluster.Cluster{Register: l.fake.Client()}, l
	key, request, err := pki.NewRequest(name, []string{"127.0.0.1"})
	l.must(err)
	cert, err := l.signer.Sign(request, name, time.Now())
	l.must(err)
	l.must(a.keepFiles(cert, key, l.signer.Certificate()))
	a.identity, err = pki.LoadIdentity(append(cert, l.signer.Certificate()...), key, l.signer.Certificate())
	l.must(err)
	a.vault, err = vault.Open(a.dir.path(vaultsName), log)
	l.must(err)
	a.homes = &home.Homes{Path: a.dir.path(homesName), Node: name, Log: log, Vault: a.vaultClient, Open: l.open}
	l.must(a.homes.Load())
	server := httptest.NewUnstartedServer(a.nodeAPI())
	server.TLS = a.identity.Server()
	server.StartTLS()
	l.t.Cleanup(func() { server.CloseClientConnections(); server.Close(); _ = a.vault.Close() })
	parsed, err := pki.ParseCertificate(cert)
	l.must(err)
	n := cluster.Node{
		Name: name, ID: cluster.NewID(), Zone: zone, State: cluster.StateIn, Roles: roles(votes, false), Peer: name + ":1",
		Address: server.Listener.Addr().String(), Certificate: pki.Fingerprint(parsed), Serial: pki.Serial(parsed), Joined: time.Now(),
	}
	a.settings = Settings{Cluster: conf, Node: n}
	a.stored = a.settings
	a.member = &member{dir: a.dir, settings: a.settings, signer: a.signer, log: log, etcd: a.etcd, cluster: a.cluster}
	if len(l.agents) == 0 {
		l.must(l.cluster.Create(l.t.Context(), conf, n))
	} else {
		l.must(l.cluster.Invite(l.t.Context(), name, time.Now().Add(time.Hour)))
		_, err = l.cluster.Admit(l.t.Context(), name, n, time.Now())
		l.must(err)
	}
	l.agents[name], l.servers[name] = a, server
	l.leases[name], err = l.fake.Client().Lease(l.t.Context(), time.Hour)
	l.must(err)
	l.must(cluster.Announce(l.t.Context(), l.leases[name], name, cluster.Alive{Version: "test"}))
}

func (l *lab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// open is what a daemon would answer.
func (l *lab) open(_ context.Context, dir string) (remote.Node, func(), error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	site, ok := l.sites[dir]
	if !ok {
		return nil, nil, home.ErrOffline
	}
	return site.Node, func() {}, nil
}

// kill takes a node away, as far as others see.
func (l *lab) kill(name string) {
	l.t.Helper()
	l.servers[name].CloseClientConnections()
	l.servers[name].Close()
	l.must(l.leases[name].Close(l.t.Context()))
}

// learn has all agents look at the register, as they do each two seconds.
func (l *lab) learn() {
	l.t.Helper()
	for name, a := range l.agents {
		if err := a.reconcile(l.t.Context()); err != nil {
			l.t.Fatalf("%s: %v", name, err)
		}
	}
}

// volume makes one that n1 writes, with a store that a daemon has open.
func (l *lab) volume(name string, copies int, vaults ...string) (cluster.Volume, remotetest.Site) {
	l.t.Helper()
	site := remotetest.NewSite(l.t, store.Options{}, remote.Environment{})
	conf, err := store.ReadConfig(site.Store.Dir())
	l.must(err)
	_, err = l.cluster.AgreeOnDomain(l.t.Context(), "d-"+name, &conf.Chunker, time.Now())
	l.must(err)
	v, err := l.cluster.CreateVolume(l.t.Context(), cluster.Volume{
		Name: name, ID: cluster.NewID(), Domain: "d-" + name, Home: "n1", Store: site.Store.Dir(), Vaults: vaults, Copies: copies, RPO: 60,
	})
	l.must(err)
	l.mu.Lock()
	l.sites[v.Store] = site
	l.mu.Unlock()
	l.learn()
	return v, site
}

// is returns what the register says of a volume.
func (l *lab) is(name string) cluster.Volume {
	l.t.Helper()
	v, err := l.cluster.Volume(l.t.Context(), name)
	l.must(err)
	return v
}

// The members of etcd are the voters.
func (l *lab) Members(ctx context.Context) (members []etcd.Member, err error) {
	nodes, err := l.cluster.Nodes(ctx)
	for _, n := range nodes {
		if n.Has(cluster.RoleVoter) {
			members = append(members, etcd.Member{Name: n.Name, Peer: n.Peer})
		}
	}
	return members, err
}

func (l *lab) AddMember(context.Context, string) error     { return nil }
func (l *lab) PromoteMember(context.Context, string) error { return nil }
func (l *lab) RemoveMember(context.Context, string) error  { return nil }
func (l *lab) Use([]string)                                {}

// A deaf register does not answer for keys below a prefix.
type deaf struct {
	register.Register
	prefix string
}

func (d deaf) List(ctx context.Context, prefix string) ([]register.Entry, int64, error) {
	if prefix == d.prefix {
		return nil, 0, register.ErrUnavailable
	}
	return d.Register.List(ctx, prefix)
}

// codes are those of a status.
func (l *lab) codes(node string) (codes []string) {
	l.t.Helper()
	s, err := l.agents[node].status(httptest.NewRequestWithContext(l.t.Context(), "GET", "/", nil))
	l.must(err)
	for _, c := range s.Checks {
		codes = append(codes, c.Code)
	}
	return codes
}

// A register that answers for the nodes and not for the volumes is one that does not answer; what
// was known of volumes before says nothing about a register that has gone back.
func TestStatusWithoutVolumes(t *testing.T) {
	l := newLab(t, "n1", "n2", "n3")
	v, _ := l.volume("home", 2, "n2")
	next := v
	next.Epoch, next.Home, next.Store, next.Vaults = 2, "n3", "/srv/home", []string{"n2"}
	l.must(l.cluster.TakeOver(t.Context(), 1, next))
	l.must(l.agents["n2"].learnVolumes(t.Context())) // n1 has not heard of it yet
	l.agents["n1"].cluster.Register = deaf{l.fake.Client(), "volumes/"}
	if codes := l.codes("n1"); slices.Contains(codes, "CONTROL_ROLLED_BACK") || !slices.Contains(codes, "CONTROL_NO_QUORUM") {
		t.Errorf("%q", codes)
	}
}

// The last volume may go from the register, as when that was restored: an agent then knows of none.
func TestLearnNoVolumes(t *testing.T) {
	l := newLab(t, "n1", "n2", "n3")
	l.volume("home", 2, "n2")
	a := l.agents["n2"]
	if len(a.memory.mu.volumes) != 1 {
		t.Fatalf("%d volumes are known", len(a.memory.mu.volumes))
	}
	_, err := l.cluster.Register.Commit(t.Context(), register.Txn{Delete: []string{"volumes/home"}})
	l.must(err)
	l.must(a.learnVolumes(t.Context()))
	if len(a.memory.mu.volumes) != 0 {
		t.Error("a volume that the register does not have is still known")
	}
}

// Vaults are told at the same time: none waits for one that hangs.
func TestTellVaultsAtOnce(t *testing.T) {
	l := newLab(t, "n1", "n2", "n3", "n4")
	v, _ := l.volume("home", 4, "n2", "n3", "n4")
	v.Epoch++
	var inside sync.WaitGroup
	inside.Add(len(v.Vaults))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, name := range v.Vaults {
		next := l.servers[name].Config.Handler
		l.servers[name].Config.Handler = barrier(next, &inside, ctx)
	}
	l.must(l.agents["n1"].tellVaults(t.Context(), v, v.Vaults))
	for _, name := range v.Vaults {
		if copies := l.agents[name].vault.Copies(t.Context()); len(copies) != 1 || copies[0].Epoch != v.Epoch {
			t.Errorf("%s was not told while others were: %+v", name, copies)
		}
	}
}

// startEtcd leaves the list of certificates alone: reconcile may have written it by then.
func TestRevocationsStay(t *testing.T) {
	l := newLab(t, "n1")
	a := l.agents["n1"]
	l.must(a.member.beginRevocations())
	l.must(a.member.revoke([]string{"ab"}))
	before := l.read(a.dir.path(revokedName))
	l.must(a.member.beginRevocations())
	stop := errors.New("stop")
	a.member.start = func(context.Context, etcd.ServerConfig) (etcd.Server, error) { return nil, stop }
	a.member.settings.Founder, a.member.settings.Node.Peer = true, "127.0.0.1:1"
	l.must(mkdir(filepath.Join(a.dir.path(etcdName), "member")))
	if _, err := a.member.startEtcd(t.Context(), nil); !errors.Is(err, stop) {
		t.Fatal(err)
	}
	if after := l.read(a.dir.path(revokedName)); after != before {
		t.Error("the list of certificates was written anew")
	}
	l.must(remove(a.dir.path(revokedName)))
	if _, err := a.member.startEtcd(t.Context(), nil); !errors.Is(err, stop) {
		t.Fatal(err)
	}
	if l.read(a.dir.path(revokedName)) != "" {
		t.Error("startEtcd writes a list that reconcile may have written meanwhile")
	}
}

// A takeover that was broken off looks again at what it begins with, as the one before may not have
// come to it; and it takes the confirmed snapshot from another vault if the first is gone.
func TestTakeOverGoesOn(t *testing.T) {
	for _, test := range []struct {
		what string
		do   func(l *lab)
		want string
	}{
		{"a newer snapshot came before the fence", func(l *lab) { l.push("home", "cluster-1-8", "n3") }, "n3 cluster-1-8"},
		{"the vault is gone, and another has it", func(l *lab) { l.push("home", "cluster-1-7", "n3"); l.kill("n2") }, "n3 cluster-1-7"},
		{"the vault is gone, and another has less", func(l *lab) { l.push("home", "cluster-1-6", "n3"); l.kill("n2") }, "n2 cluster-1-7"},
		{"nothing has changed", func(l *lab) { l.push("home", "cluster-1-7", "n3") }, "n2 cluster-1-7"},
	} {
		t.Run(test.what, func(t *testing.T) {
			l := newLab(t, "n1", "n2", "n3", "n4")
			v, _ := l.volume("home", 3, "n2", "n3")
			l.push("home", "cluster-1-7", "n2")
			test.do(l)
			next := v
			next.Epoch, next.Home, next.Store = 2, "n4", "/srv/home"
			next.From = &cluster.Origin{Vault: "n2", Snapshot: "cluster-1-7"}
			l.must(l.cluster.TakeOver(t.Context(), 1, next)) // and nothing else: it was broken off here
			got, err := l.agents["n4"].takeOver(request(t, "home", "{}"))
			if err != nil || !got.Done {
				t.Fatalf("%+v, %v", got, err)
			}
			from := l.is("home").From
			if is := fmt.Sprint(from.Vault, " ", from.Snapshot); is != test.want || got.From != *from {
				t.Errorf("it begins with %s, and says %+v; want %s", is, got.From, test.want)
			}
			if c := l.agents["n3"].vault.Copies(t.Context()); c[0].Epoch != 2 {
				t.Errorf("the vault lets the former home in: %+v", c)
			}
		})
	}
}
