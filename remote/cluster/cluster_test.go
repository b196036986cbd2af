package cluster_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quarxtor/quarxfs/remote/cluster"
	"github.com/quarxtor/quarxfs/remote/cluster/register/registertest"
)

var noon = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)

// newCluster returns one of the node "first", with the register that it is in.
func newCluster(t *testing.T) (*cluster.Cluster, *registertest.Fake) {
	t.Helper()
	fake := registertest.NewFake()
	c := &cluster.Cluster{Register: fake.Client()}
	conf := cluster.Config{Name: "lab", ID: cluster.NewID()}
	if err := c.Create(t.Context(), conf, cluster.Node{Name: "first"}); err != nil {
		t.Fatal(err)
	}
	return c, fake
}

func TestCreate(t *testing.T) {
	fake := registertest.NewFake()
	c := &cluster.Cluster{Register: fake.Client()}
	if _, err := c.Config(t.Context()); !errors.Is(err, cluster.ErrNoCluster) {
		t.Errorf("before: %v", err)
	}
	conf := cluster.Config{Name: "lab", ID: cluster.NewID(), Created: noon}
	first := cluster.Node{Name: "n1", Roles: []cluster.Role{cluster.RoleVoter, cluster.RoleData}}
	for range 2 { // the second time is after a lost answer
		if err := c.Create(t.Context(), conf, first); err != nil {
			t.Fatal(err)
		}
	}
	other := conf
	other.ID = cluster.NewID()
	if err := c.Create(t.Context(), other, first); !errors.Is(err, cluster.ErrExists) {
		t.Errorf("another cluster: %v", err)
	}
	if got, err := c.Config(t.Context()); err != nil || got != conf {
		t.Errorf("config %v, %v", got, err)
	}
	nodes, err := c.Nodes(t.Context())
	if diff := cmp.Diff([]cluster.Node{first}, nodes); diff != "" || err != nil {
		t.Error(diff, err)
	}
}

func TestNames(t *testing.T) {
	for name, good := range map[string]bool{
		"n1": true, "N-1": true, "a": true, "rack-7-node-3": true,
		"": false, "-a": false, "a-": false, "a/b": false, "a b": false, "a.b": false, "\xff": false,
		"0123456789012345678901234567890123456789012345678901234567890123": false,
	} {
		if err := cluster.CheckName(name); (err == nil) != good {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// A token lets one node join, once, in time; that node may ask again.
func TestAdmit(t *testing.T) {
	c, _ := newCluster(t)
	invite := func(secret string) {
		t.Helper()
		if err := c.Invite(t.Context(), secret, noon.Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	invite("one")
	invite("two")
	n2 := cluster.Node{Name: "n2", ID: cluster.NewID(), Joined: noon, Certificate: "old", Peer: "10.0.0.2:7442"}
	n2again := n2
	n2again.Certificate, n2again.Serial = "new", "ab2"
	n3 := cluster.Node{Name: "n3", ID: cluster.NewID()}
	for _, test := range []struct {
		what, secret string
		node         cluster.Node
		now          time.Time
		want         error
	}{
		{"a wrong token", "none", n2, noon, cluster.ErrToken},
		{"an empty token", "", n2, noon, cluster.ErrToken},
		{"an expired token", "one", n2, noon.Add(61 * time.Minute), cluster.ErrToken},
		{"a bad name", "one", cluster.Node{Name: "n/2"}, noon, cluster.ErrName},
		{"a taken name", "one", cluster.Node{Name: "first"}, noon, cluster.ErrNodeExists},
		{"a taken name without a token", "none", cluster.Node{Name: "first"}, noon, cluster.ErrToken},
		{"a good token", "one", n2, noon, nil},
		{"the same again", "one", n2again, noon.Add(9 * time.Minute), nil},
		{"the same again, late", "one", n2, noon.Add(2 * time.Hour), cluster.ErrToken},
		{"a used token", "one", n3, noon, cluster.ErrToken},
		{"the name of the node that used it", "one", cluster.Node{Name: "n2", ID: n3.ID}, noon, cluster.ErrToken},
		{"a taken address", "two", cluster.Node{Name: "n4", Peer: n2.Peer}, noon, cluster.ErrNodeExists},
		{"a taken address without a token", "none", cluster.Node{Name: "n4", Peer: n2.Peer}, noon, cluster.ErrToken},
		{"the next token", "two", n3, noon, nil},
	} {
		n, err := c.Admit(t.Context(), test.secret, test.node, test.now)
		if !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", test.what, err, test.want)
		}
		if test.want == nil && n.ID != test.node.ID {
			t.Errorf("%s: admitted %v", test.what, n)
		}
	}
	nodes, err := c.Nodes(t.Context())
	if err != nil || len(nodes) != 3 {
		t.Errorf("nodes: %v, %v", nodes, err)
	}
	if n, err := c.Node(t.Context(), "n2"); err != nil || n.Certificate != "new" {
		t.Errorf("n2 is %v, %v", n, err)
	}
	if err := c.Remove(t.Context(), "n2", time.Now()); err != nil {
		t.Error(err)
	}
	if err := c.Remove(t.Context(), "n2", time.Now()); !errors.Is(err, cluster.ErrNoNode) {
		t.Errorf("removed twice: %v", err)
	}
	if m, err := c.Membership(t.Context()); err != nil || len(m.Revoked) != 1 || m.Revoked["ab2"].Node != "n2" {
		t.Errorf("certificates that count no more: %v, %v", m.Revoked, err)
	}
}

// Of many that come with one token, one gets in.
func TestAdmitRace(t *testing.T) {
	c, fake := newCluster(t)
	if err := c.Invite(t.Context(), "one", noon.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	admitted := make(chan string, 10)
	for i := range 10 {
		wg.Go(func() {
			mine := &cluster.Cluster{Register: fake.Client()}
			n, err := mine.Admit(t.Context(), "one", cluster.Node{Name: fmt.Sprintf("n%d", i)}, noon)
			if err == nil {
				admitted <- n.Name
			} else if !errors.Is(err, cluster.ErrToken) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(admitted) != 1 {
		t.Errorf("%d nodes were admitted with one token", len(admitted))
	}
}

// A node is down from when the first voter saw it, until it is alive again.
func TestNoteDown(t *testing.T) {
	c, fake := newCluster(t)
	note := func(after time.Duration) map[string]cluster.Down {
		t.Helper()
		m, err := c.Membership(t.Context())
		if err == nil {
			err = c.NoteDown(t.Context(), m, noon.Add(after))
		}
		if err == nil {
			m, err = c.Membership(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		return m.Down
	}
	for _, after := range []time.Duration{0, time.Minute} {
		if d := note(after); len(d) != 1 || !d["first"].Since.Equal(noon) {
			t.Errorf("after %v: %v", after, d)
		}
	}
	lease, err := fake.Client().Lease(t.Context(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if err := cluster.Announce(t.Context(), lease, "first", cluster.Alive{}); err != nil {
		t.Fatal(err)
	}
	if d := note(time.Hour); len(d) != 0 {
		t.Errorf("alive: %v", d)
	}
	if err := lease.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d := note(2 * time.Hour); !d["first"].Since.Equal(noon.Add(2 * time.Hour)) {
		t.Errorf("down again: %v", d)
	}
	if err := c.Remove(t.Context(), "first", time.Now()); err != nil {
		t.Fatal(err)
	}
	if d := note(3 * time.Hour); len(d) != 0 {
		t.Errorf("removed: %v", d)
	}
}

func TestDropExpired(t *testing.T) {
	c, _ := newCluster(t)
	for i := range 3 {
		if err := c.Invite(t.Context(), fmt.Sprint(i), noon.Add(time.Duration(i)*time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.DropExpired(t.Context(), noon.Add(90*time.Minute)); err != nil {
		t.Fatal(err)
	}
	entries, _, err := c.Register.List(t.Context(), "joins/")
	if err != nil || len(entries) != 1 {
		t.Errorf("left: %v, %v", entries, err)
	}
}
