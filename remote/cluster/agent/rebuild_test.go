package agent

import (
	"errors"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/quarxtor/quarxfs/remote/cluster"
	"github.com/quarxtor/quarxfs/remote/cluster/client"
	"github.com/quarxtor/quarxfs/remote/cluster/control"
	"github.com/quarxtor/quarxfs/remote/cluster/register/registertest"
)

// goBack has all agents see another register, which says what the copy does.
func (l *lab) goBack(to cluster.Copy) {
	l.t.Helper()
	l.fake = registertest.NewFake()
	l.cluster.Register = l.fake.Client()
	l.must(l.cluster.Restore(l.t.Context(), to))
	for name, a := range l.agents {
		a.cluster.Register = l.fake.Client()
		lease, err := l.fake.Client().Lease(l.t.Context(), time.Hour)
		l.must(err)
		l.must(cluster.Announce(l.t.Context(), lease, name, cluster.Alive{Version: "test"}))
	}
}

// A register that was restored from an old copy is seen as such, nothing is done by it, and what
// the nodes know is brought back to it when an administrator has confirmed what that is.
func TestRegisterWentBack(t *testing.T) {
	l := newLab(t, "n1", "n2", "n3")
	v, _ := l.volume("home", 2, "n2")
	old, err := l.cluster.Copy(t.Context())
	l.must(err)
	next := v
	next.Epoch, next.Home, next.Store, next.Vaults = 2, "n3", "/srv/home", []string{"n2"}
	l.must(l.cluster.TakeOver(t.Context(), 1, next))
	l.learn()
	l.agents["n3"].memory.mu.copy = cluster.Copy{} // it knows of the volume as its home alone
	l.join(l.agents["n1"].settings.Cluster, "n4", "z4", false)
	l.learn()
	want, err := l.cluster.Copy(t.Context())
	l.must(err)

	l.goBack(old)
	n4 := l.agents["n4"]
	if err := n4.reconcile(t.Context()); !errors.Is(err, errGoneBack) {
		t.Errorf("a node that an older register does not know: %v", err)
	}
	if n4.othersSayRemoved(t.Context()) {
		t.Error("it is said to be removed")
	}
	delete(l.agents, "n4")
	l.learn()
	if codes := l.codes("n1"); !slices.Contains(codes, "CONTROL_ROLLED_BACK") {
		t.Errorf("%q", codes)
	}
	l.must(l.agents["n1"].round(t.Context(), control.Silence{}))
	if c := l.agents["n1"].memory.mu.copy; c.Revision != want.Revision {
		t.Errorf("the older register's revision %d was kept in place of %d", c.Revision, want.Revision)
	}

	a := l.agents["n1"]
	b, err := ask(l, a.rebuild, "", client.RebuildRequest{})
	if err != nil || b.Done || b.Anew || !slices.Equal(b.Changes, []string{"node n4", "volume home"}) || b.Copy.Revision != want.Revision {
		t.Fatalf("%+v, %v", b, err)
	}
	if is := l.is("home"); is.Epoch != 1 {
		t.Errorf("something was changed: %+v", is)
	}
	if b, err = ask(l, a.rebuild, "", client.RebuildRequest{Revision: b.Copy.Revision}); err != nil || !b.Done {
		t.Fatalf("%+v, %v", b, err)
	}
	if is := l.is("home"); is.Epoch != 2 || is.Home != "n3" {
		t.Errorf("%+v", is)
	}
	// Each node follows the new generation, by beginning anew with it.
	for name, a := range l.agents {
		if err := a.reconcile(t.Context()); !errors.Is(err, errAgain) {
			t.Errorf("%s: %v", name, err)
		}
		a.settings = a.stored
		if a.settings.Cluster.Generation != b.Copy.Config.Generation || a.settings.Lost {
			t.Errorf("%s: %+v", name, a.settings)
		}
	}
	l.learn()
	if codes := l.codes("n1"); slices.Contains(codes, "CONTROL_ROLLED_BACK") {
		t.Errorf("%q", codes)
	}
	if b, err = ask(l, a.rebuild, "", client.RebuildRequest{}); err != nil || !b.Done || len(b.Changes) != 0 {
		t.Errorf("there is nothing left to do: %+v, %v", b, err)
	}
}

// A register that is lost is made again by a voter, when no other may still have one, and each step
// may be done twice.
func TestRegisterLost(t *testing.T) {
	l := newLab(t, "n1", "n2", "n3", "n4")
	l.volume("home", 2, "n2")
	want := l.agents["n1"].memory.mu.copy
	a := l.agents["n1"]
	rebuild := func(node string, q client.RebuildRequest) (client.Rebuild, error) {
		return ask(l, l.agents[node].rebuild, "", q)
	}
	l.fake.SetDown(true)
	if _, err := rebuild("n1", client.RebuildRequest{}); !errors.Is(err, client.ErrHolds) {
		t.Errorf("while others reach the register: %v", err)
	}
	for _, a := range l.agents {
		a.memory.setReach(errStarting)
	}
	signer := l.agents["n4"].signer
	l.agents["n4"].signer = nil
	if _, err := rebuild("n4", client.RebuildRequest{}); !errors.Is(err, client.ErrRequest) {
		t.Errorf("on a node that does not vote: %v", err)
	}
	l.agents["n4"].signer = signer
	l.servers["n3"].CloseClientConnections()
	l.servers["n3"].Close()
	if _, err := rebuild("n1", client.RebuildRequest{}); !errors.Is(err, client.ErrHolds) {
		t.Errorf("while a voter is silent: %v", err)
	}
	b, err := rebuild("n1", client.RebuildRequest{Force: true})
	if err != nil || b.Done || !b.Anew || !slices.Equal(b.Silent, []string{"n3"}) || b.Copy.Revision != want.Revision {
		t.Fatalf("%+v, %v", b, err)
	}
	if _, err := os.Stat(a.dir.path(rebuildName)); err == nil {
		t.Error("something was begun")
	}
	if b, err = rebuild("n1", client.RebuildRequest{Force: true, Revision: b.Copy.Revision}); err != nil || !b.Done || len(a.again) != 1 {
		t.Fatalf("%+v, %v", b, err)
	}

	l.must(mkdir(a.dir.path(etcdName)))
	for range 2 { // as after a crash behind the first
		l.must(a.leaveLost())
	}
	if s := a.settings; !s.Founder || s.Cluster.Generation != b.Copy.Config.Generation || len(s.Clients) != 0 {
		t.Errorf("%+v", s)
	}
	if _, err := os.Stat(a.dir.path(etcdName) + ".lost-1"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(a.dir.path(etcdName) + ".lost-2"); err == nil {
		t.Error("the new register's data were moved aside, too")
	}
	l.fake = registertest.NewFake()
	l.cluster.Register, a.cluster.Register = l.fake.Client(), l.fake.Client()
	l.must(a.foundRegister(t.Context()))
	is, err := l.cluster.Copy(t.Context())
	l.must(err)
	is.Config, is.Revision = want.Config, want.Revision
	if !sameDecisions(is, want) {
		t.Errorf("the register says\n%+v, and did\n%+v", is, want)
	}
	if a.stored.Founder {
		t.Error("it would make another one when it is started again")
	}
	if _, err := os.Stat(a.dir.path(rebuildName)); err == nil {
		t.Error("it would be made again")
	}
	// A copy outlives the agent: without a quorum the nodes are known all the same.
	l.must(a.dir.writeCopy(copyName, want))
	again := &Agent{dir: a.dir, log: a.log}
	again.prepare()
	again.memory.recall()
	if len(again.memory.lastNodes()) != 4 || len(again.memory.mu.volumes) != 1 {
		t.Errorf("%+v", again.memory.mu.nodes)
	}
}

// A node that was removed while it was away learns it from the others' agents: etcd does not talk
// to it any more.
func TestRemovedWhileAway(t *testing.T) {
	l := newLab(t, "n1", "n2", "n3")
	l.learn()
	n3 := l.agents["n3"]
	away := registertest.NewFake()
	away.SetDown(true)
	n3.cluster.Register = away.Client()
	if n3.othersSayRemoved(t.Context()) {
		t.Error("it is a node")
	}
	l.must(l.cluster.Remove(t.Context(), "n3", time.Now()))
	if !n3.othersSayRemoved(t.Context()) {
		t.Error("it was removed, and nobody says so")
	}
	if err := n3.takePart(t.Context()); !errors.Is(err, ErrRemoved) {
		t.Error(err)
	}
}
