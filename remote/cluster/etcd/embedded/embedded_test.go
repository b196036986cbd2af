package embedded_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/quarxtor/quarxfs/remote/cluster/clustertest"
	"github.com/quarxtor/quarxfs/remote/cluster/etcd"
	"github.com/quarxtor/quarxfs/remote/cluster/etcd/embedded"
	"github.com/quarxtor/quarxfs/remote/cluster/register"
	"github.com/quarxtor/quarxfs/remote/cluster/register/registertest"
)

// freeAddr returns an address of this machine's own at which nobody listens.
func freeAddr(t *testing.T) string {
	t.Helper()
	port, err := clustertest.FreePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", port)
}

func start(t *testing.T, c etcd.ServerConfig) etcd.Server {
	t.Helper()
	s, err := embedded.Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func member(t *testing.T, name string) etcd.ServerConfig {
	c := etcd.ServerConfig{
		Name: name, Dir: filepath.Join(t.TempDir(), name), Listen: "127.0.0.1",
		Peer: freeAddr(t), Client: freeAddr(t), Token: "test",
	}
	c.Members = map[string]string{name: c.Peer}
	return c
}

func dial(t *testing.T, addrs ...string) *etcd.Client {
	t.Helper()
	c, err := etcd.Dial(etcd.ClientConfig{Endpoints: addrs, Prefix: "/quarxfs/test/"})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestRegister(t *testing.T) {
	conf := member(t, "a")
	start(t, conf)
	registertest.Test(t, func(t *testing.T) register.Register { return dial(t, conf.Client) })
}

// What is put stays over a restart. Without a member reads fail soon, and commits do not say
// that nothing was done.
func TestRestart(t *testing.T) {
	conf := member(t, "a")
	s := start(t, conf)
	c := dial(t, conf.Client)
	t.Cleanup(func() { c.Close() })
	txn := register.Txn{
		If:  []register.Condition{{Key: "k", Revision: 0}},
		Put: []register.Entry{{Key: "k", Value: []byte("v")}},
	}
	revision, err := c.Commit(t.Context(), txn)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if _, err := c.Get(t.Context(), "k"); !errors.Is(err, register.ErrUnavailable) {
		t.Errorf("get without a member: %v", err)
	}
	if _, err := c.Commit(t.Context(), txn); !errors.Is(err, register.ErrUncertain) {
		t.Errorf("commit without a member: %v", err)
	}
	start(t, conf)
	var e register.Entry
	until(t, func() (err error) {
		e, err = c.Get(t.Context(), "k")
		return err
	})
	if e.Revision != revision || string(e.Value) != "v" {
		t.Errorf("after the restart: %v", e)
	}
}

// What clients are told is linearizable, also when the member restarts amid it.
func TestHistory(t *testing.T) {
	conf := member(t, "a")
	s := start(t, conf)
	var clients []register.Register
	for range 4 {
		c := dial(t, conf.Client)
		t.Cleanup(func() { c.Close() })
		clients = append(clients, c)
	}
	h := registertest.Record(t, clients, 120, func(request int) {
		if request == 60 {
			s.Close()
			s = start(t, conf)
		}
	})
	if !h.Linearizable() {
		t.Error("the history is not linearizable")
	}
	t.Logf("%d done, %d conflicts, %d uncertain", h.Count(nil), h.Count(register.ErrConflict), h.Count(register.ErrUncertain))
}

// Members are added one by one; with three, the death of any one is not felt.
func TestMembers(t *testing.T) {
	confs := []etcd.ServerConfig{member(t, "a")}
	servers := []etcd.Server{start(t, confs[0])}
	c := dial(t, confs[0].Client)
	t.Cleanup(func() { c.Close() })
	for _, name := range []string{"b", "c"} {
		conf := member(t, name)
		for range 2 { // again is nothing
			until(t, func() error { return c.AddMember(t.Context(), conf.Peer) })
		}
		for _, other := range confs {
			conf.Members[other.Name] = other.Peer
		}
		conf.Join = true
		confs = append(confs, conf)
		servers = append(servers, start(t, conf))
		until(t, func() error { return c.PromoteMember(t.Context(), conf.Peer) })
	}
	members, err := c.Members(t.Context())
	if err != nil || len(members) != 3 {
		t.Fatalf("members: %v, %v", members, err)
	}
	for i, m := range members {
		if m.Learner {
			t.Errorf("member %d is a learner still: %v", i, m)
		}
	}
	all := dial(t, confs[0].Client, confs[1].Client, confs[2].Client)
	t.Cleanup(func() { all.Close() })
	write := func(value string) {
		t.Helper()
		until(t, func() error {
			_, err := all.Commit(t.Context(), register.Txn{Put: []register.Entry{{Key: "k", Value: []byte(value)}}})
			return err
		})
	}
	write("with three")
	servers[0].Close()
	write("with two")
	until(t, func() error { return all.RemoveMember(t.Context(), confs[0].Peer) })
	if members, err := all.Members(t.Context()); err != nil || len(members) != 2 {
		t.Errorf("after the removal: %v, %v", members, err)
	}
}

// until tries again what a cluster refuses while its members get to know each other.
func until(t *testing.T, try func() error) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// A member that waits for a quorum can be told not to: an agent must be stopped whoever is away.
func TestStartGivesUp(t *testing.T) {
	conf := member(t, "a")
	conf.Members["b"] = freeAddr(t) // which never comes
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := embedded.Start(ctx, conf)
		done <- err
	}()
	time.Sleep(100 * time.Millisecond) // it may be anywhere on its way
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
