package agent_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quarxtor/quarxfs/remote/cluster"
	"github.com/quarxtor/quarxfs/remote/cluster/agent"
	"github.com/quarxtor/quarxfs/remote/cluster/client"
	"github.com/quarxtor/quarxfs/remote/cluster/clustertest"
	"github.com/quarxtor/quarxfs/remote/cluster/etcd/embedded"
	"github.com/quarxtor/quarxfs/remote/cluster/pki"
)

// freePort returns one with two free ones behind it.
func freePort(t *testing.T) int {
	t.Helper()
	port, err := clustertest.FreePorts(3)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// A machine is where one node's agent runs.
type machine struct {
	dir  agent.Dir
	set  client.SetUp
	page string     // where it shows the page, besides
	stop func()     // of the agent; nil: it does not run
	done chan error // what its Run has returned
}

func newMachine(t *testing.T, name string) *machine {
	t.Helper()
	m := &machine{dir: agent.Dir(filepath.Join(t.TempDir(), name))}
	m.set = client.SetUp{Cluster: "lab", Name: name, Zone: "z-" + name, Host: "127.0.0.1", Port: freePort(t)}
	t.Cleanup(m.halt)
	return m
}

func (m *machine) start(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	m.stop, m.done = cancel, make(chan error, 1)
	ready := make(chan struct{})
	log := slog.New(slog.NewTextHandler(t.Output(), nil)).With("node", m.set.Name)
	go func() {
		err := m.dir.Run(ctx, agent.Options{Version: "test", Log: log, Etcd: embedded.Start, Page: m.page, Ready: func() { close(ready) }})
		log.Info("the agent has ended", "err", err)
		m.done <- err
	}()
	select {
	case <-ready:
	case err := <-m.done:
		m.done <- err
		t.Fatalf("%s: %v", m.set.Name, err)
	}
}

// halt stops the agent in order.
func (m *machine) halt() {
	if m.stop != nil {
		m.stop()
		<-m.done
		m.stop = nil
	}
}

func (m *machine) agent() *client.Agent { return client.Local(string(m.dir)) }

// until tries again what needs a while.
func until(t *testing.T, what string, try func() error) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// found starts a cluster of one node.
func found(t *testing.T) *machine {
	t.Helper()
	m := newMachine(t, "n1")
	if err := m.dir.Found(m.set, time.Now()); err != nil {
		t.Fatal(err)
	}
	m.start(t)
	m.waitUp(t, "n1")
	return m
}

// askEtcd speaks to another machine's etcd with the certificate of m: an error if it is not let in.
func (m *machine) askEtcd(t *testing.T, other *machine) error {
	t.Helper()
	var parts [][]byte
	for _, name := range []string{"node.pem", "node.key.pem", "ca.pem"} {
		b, err := os.ReadFile(filepath.Join(string(m.dir), name))
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, b)
	}
	id, err := pki.LoadIdentity(parts[0], parts[1], parts[2])
	if err != nil {
		t.Fatal(err)
	}
	conf := id.Client()
	conf.NextProtos = []string{"h2"}
	c, err := tls.Dial("tcp", other.set.Addr(2), conf)
	if err != nil {
		return err
	}
	defer c.Close()
	// HTTP/2's greeting, which the server returns; only then it is known to have let us in, as
	// with TLS 1.3 the client is through before the server has looked at its certificate.
	if _, err := c.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")); err != nil {
		return err
	}
	_, err = c.Read(make([]byte, 1))
	return err
}

// waitUp waits until m sees the nodes up.
func (m *machine) waitUp(t *testing.T, names ...string) client.View {
	t.Helper()
	var v client.View
	until(t, fmt.Sprintf("%v up at %s", names, m.set.Name), func() (err error) {
		if v, err = m.agent().Nodes(t.Context()); err != nil {
			return err
		}
		up := 0
		for _, n := range v.Nodes {
			if n.Up {
				up++
			}
		}
		if up != len(names) || len(v.Nodes) < up {
			return fmt.Errorf("%d of %d are up", up, len(v.Nodes))
		}
		return nil
	})
	return v
}

func (m *machine) token(t *testing.T) string {
	t.Helper()
	var token client.Token
	until(t, "a token", func() (err error) {
		token, err = m.agent().NewToken(t.Context(), time.Hour)
		return err
	})
	return token.Token
}

func (m *machine) join(t *testing.T, text string) error {
	t.Helper()
	m.set.Token = text
	return m.dir.Join(t.Context(), m.set, time.Now)
}

// joinSoon joins a cluster whose members may still be getting to know each other.
func (m *machine) joinSoon(t *testing.T, text string) {
	t.Helper()
	until(t, m.set.Name+" joins", func() error {
		err := m.join(t, text)
		if err != nil && !errors.Is(err, client.ErrNoQuorum) {
			t.Fatal(err)
		}
		return err
	})
	m.start(t)
}

// Three nodes vote, the second not before the third is there; a fourth has data alone. Any one may
// die, come back and be removed, and none may be removed that the others need.
func TestCluster(t *testing.T) {
	n1 := found(t)
	n2, n3, n4 := newMachine(t, "n2"), newMachine(t, "n3"), newMachine(t, "n4")

	n2.joinSoon(t, n1.token(t))
	for _, n := range n2.waitUp(t, "n1", "n2").Nodes {
		if n.Votes != (n.Name == "n1") {
			t.Errorf("of two nodes, %s votes: %t", n.Name, n.Votes)
		}
	}
	if err := n1.agent().Remove(t.Context(), "n1"); !errors.Is(err, client.ErrLastVoter) {
		t.Errorf("the only voter could leave: %v", err)
	}

	n3.joinSoon(t, n1.token(t))
	until(t, "three voters", func() error {
		votes := 0
		for _, n := range n3.waitUp(t, "n1", "n2", "n3").Nodes {
			if n.Votes {
				votes++
			}
		}
		if votes != 3 {
			return fmt.Errorf("%d vote", votes)
		}
		return nil
	})
	n4.joinSoon(t, n2.token(t)) // any voter admits
	v := n4.waitUp(t, "n1", "n2", "n3", "n4")
	if last := v.Nodes[3]; last.Has(cluster.RoleVoter) || !last.Has(cluster.RoleData) || last.Votes {
		t.Errorf("the fourth node: %+v", last)
	}
	if _, err := n4.agent().NewToken(t.Context(), time.Hour); !errors.Is(err, client.ErrRequest) {
		t.Errorf("a node without the authority's key makes a token: %v", err)
	}

	n1.halt()
	n4.waitUp(t, "n2", "n3", "n4")
	if err := n2.agent().Remove(t.Context(), "n3"); !errors.Is(err, client.ErrLastVoter) {
		t.Errorf("one of two living voters of three could leave: %v", err)
	}
	n1.start(t)
	n1.waitUp(t, "n1", "n2", "n3", "n4")

	if err := n1.agent().Remove(t.Context(), "nobody"); !errors.Is(err, cluster.ErrNoNode) {
		t.Errorf("a node that there is not: %v", err)
	}
	// A node that was removed ends, its certificate opens nothing, and its machine can be set up
	// anew.
	if err := n3.askEtcd(t, n1); err != nil {
		t.Errorf("a node is not let in: %v", err)
	}
	until(t, "n3 leaves", func() error { return n1.agent().Remove(t.Context(), "n3") })
	if err := <-n3.done; !errors.Is(err, agent.ErrRemoved) {
		t.Errorf("the removed node: %v", err)
	}
	n3.stop = nil
	for _, voter := range []*machine{n1, n2} {
		until(t, voter.set.Name+" refuses a removed node", func() error {
			if n3.askEtcd(t, voter) == nil {
				return errors.New("it lets it in")
			}
			return nil
		})
	}
	n2.waitUp(t, "n1", "n2", "n4")
	n3.joinSoon(t, n1.token(t))
	n3.waitUp(t, "n1", "n2", "n3", "n4")
}

// An agent whose address somebody else has says so at once, and leaves nothing behind.
func TestAddressInUse(t *testing.T) {
	m := newMachine(t, "n1")
	l, err := net.Listen("tcp", m.set.Addr(0))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := m.dir.Found(m.set, time.Now()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		err := m.dir.Run(t.Context(), agent.Options{
			Log: slog.New(slog.DiscardHandler), Etcd: embedded.Start, Ready: func() { t.Error("it is ready") },
		})
		if !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("%v", err)
		}
	}
	l.Close()
	m.start(t)
	m.waitUp(t, "n1")
}

// What can be wrong at a join, each with its error; none of it leaves a node behind.
func TestJoinRefused(t *testing.T) {
	n1 := found(t)
	other := newMachine(t, "other")
	other.set.Cluster = "another"
	if err := other.dir.Found(other.set, time.Now()); err != nil {
		t.Fatal(err)
	}
	other.start(t)
	other.waitUp(t, "other")
	n1.waitUp(t, "n1")
	good, err := pki.ParseToken(n1.token(t))
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := pki.ParseToken(other.token(t))
	if err != nil {
		t.Fatal(err)
	}
	with := func(change func(*pki.Token)) pki.Token {
		token := good
		change(&token)
		return token
	}
	year := func() time.Time { return time.Now().AddDate(1, 0, 0) }
	for _, test := range []struct {
		what  string
		token pki.Token
		name  string
		now   func() time.Time
		want  error
	}{
		{"a wrong secret", with(func(k *pki.Token) { k.Secret = pki.NewSecret() }), "n2", time.Now, cluster.ErrToken},
		{"another cluster's node", with(func(k *pki.Token) { k.Address = foreign.Address }), "n2", time.Now, pki.ErrAuthority},
		{"another cluster's token", with(func(k *pki.Token) { k.Secret = foreign.Secret }), "n2", time.Now, cluster.ErrToken},
		{"nobody there", with(func(k *pki.Token) { k.Address = fmt.Sprintf("127.0.0.1:%d", freePort(t)) }), "n2", time.Now, client.ErrNoAgent},
		{"a taken name", good, "n1", time.Now, cluster.ErrNodeExists},
		{"a bad name", good, "n/2", time.Now, cluster.ErrName},
		{"a clock that is a year ahead", good, "n2", year, client.ErrClock},
	} {
		m := newMachine(t, "tried")
		m.set.Name, m.set.Token = test.name, test.token.String()
		if err := m.dir.Join(t.Context(), m.set, test.now); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", test.what, err, test.want)
		}
		if _, err := m.dir.Settings(); !errors.Is(err, client.ErrNotSetUp) {
			t.Errorf("%s: the machine is a node: %v", test.what, err)
		}
	}
	old := client.Remote(good.Address, good.Join())
	defer old.Close()
	_, err = old.Join(t.Context(), client.JoinRequest{Protocol: client.Protocol + 1, Secret: good.Secret, Time: time.Now()})
	if !errors.Is(err, client.ErrVersion) || !strings.Contains(err.Error(), "install the same QuarXFS") {
		t.Errorf("another version: %v", err)
	}
	if v := n1.waitUp(t, "n1"); len(v.Nodes) != 1 {
		t.Errorf("nodes: %v", v.Nodes)
	}
	// The token has served none of them, and a node that joins is one for good.
	n2 := newMachine(t, "n2")
	n2.joinSoon(t, good.String())
	n2.waitUp(t, "n1", "n2")
	if err := n2.dir.Found(n2.set, time.Now()); !errors.Is(err, client.ErrSetUp) {
		t.Errorf("set up twice: %v", err)
	}
	second := agent.Options{Log: slog.New(slog.DiscardHandler), Etcd: embedded.Start, Ready: func() {}}
	if err := n2.dir.Run(t.Context(), second); !errors.Is(err, client.ErrRuns) {
		t.Errorf("run twice: %v", err)
	}
	// What is secret is the owner's alone.
	for _, path := range []string{".", "node.key.pem", "ca.key.pem", "node.json", client.SocketName} {
		info, err := os.Stat(filepath.Join(string(n2.dir), path))
		if err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
}
