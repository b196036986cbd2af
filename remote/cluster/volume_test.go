package cluster_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/quarxtor/quarxfs/remote/cluster"
	"github.com/quarxtor/quarxfs/remote/cluster/register"
	"github.com/quarxtor/quarxfs/store/chunk"
)

// withNodes is a cluster of three nodes with data and a witness.
func withNodes(t *testing.T) *cluster.Cluster {
	t.Helper()
	c, _ := newCluster(t)
	for _, name := range []string{"n1", "n2", "n3", "w"} {
		n := cluster.Node{Name: name, ID: cluster.NewID(), Joined: noon, Roles: []cluster.Role{cluster.RoleData}}
		if name == "w" {
			n.Roles = []cluster.Role{cluster.RoleVoter}
		}
		if err := c.Invite(t.Context(), name, noon); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Admit(t.Context(), name, n, noon); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func home() cluster.Volume {
	return cluster.Volume{
		Name: "home", ID: "01", Domain: "default", Home: "n1", Store: "/srv/home", Vaults: []string{"n2"}, Copies: 2, RPO: 60, Created: noon,
	}
}

func TestCreateVolume(t *testing.T) {
	c := withNodes(t)
	if _, err := c.CreateVolume(t.Context(), home()); !errors.Is(err, cluster.ErrNoDomain) {
		t.Errorf("without its domain: %v", err)
	}
	ours, others := chunk.Default(), chunk.Default()
	if d, err := c.AgreeOnDomain(t.Context(), "default", &ours, noon); err != nil || !slices.Equal(d.Chunker.Key, ours.Key) {
		t.Fatalf("%v, %v", d, err)
	}
	if _, err := c.AgreeOnDomain(t.Context(), "default", &others, noon); !errors.Is(err, cluster.ErrDomain) {
		t.Errorf("another key: %v", err)
	}
	if d, err := c.AgreeOnDomain(t.Context(), "default", nil, noon); err != nil || !slices.Equal(d.Chunker.Key, ours.Key) {
		t.Errorf("the domain that is there: %v, %v", d, err)
	}
	for _, test := range []struct {
		what   string
		change func(*cluster.Volume)
		want   error
	}{
		{"a name that is none", func(v *cluster.Volume) { v.Name = "a/b" }, cluster.ErrName},
		{"a vault at home", func(v *cluster.Volume) { v.Vaults = []string{"n1"} }, cluster.ErrPlace},
		{"a vault that is a witness", func(v *cluster.Volume) { v.Vaults = []string{"w"} }, cluster.ErrPlace},
		{"a home that is a witness", func(v *cluster.Volume) { v.Home = "w" }, cluster.ErrPlace},
		{"a vault that there is not", func(v *cluster.Volume) { v.Vaults = []string{"n9"} }, cluster.ErrNoNode},
		{"a domain that there is not", func(v *cluster.Volume) { v.Domain = "other" }, cluster.ErrNoDomain},
		{"a store without a place", func(v *cluster.Volume) { v.Store = "home" }, cluster.ErrPlace},
		{"snapshots all the time", func(v *cluster.Volume) { v.RPO = 0 }, cluster.ErrPlace},
		{"no copy", func(v *cluster.Volume) { v.Copies = 0 }, cluster.ErrPlace},
		{"a good one", func(*cluster.Volume) {}, nil},
		{"the same again", func(*cluster.Volume) {}, nil},
		{"another one of the name", func(v *cluster.Volume) { v.ID, v.Home, v.Vaults = "02", "n3", nil }, cluster.ErrVolumeExists},
	} {
		v := home()
		test.change(&v)
		if _, err := c.CreateVolume(t.Context(), v); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", test.what, err, test.want)
		}
	}
	if all, err := c.Volumes(t.Context()); err != nil || len(all) != 1 || all[0].Epoch != 1 {
		t.Errorf("%v, %v", all, err)
	}
}

// Of many that take a volume over at the same time one does, and none that rests on an old epoch.
func TestTakeOver(t *testing.T) {
	c := withNodes(t)
	ours := chunk.Default()
	if _, err := c.AgreeOnDomain(t.Context(), "default", &ours, noon); err != nil {
		t.Fatal(err)
	}
	first, err := c.CreateVolume(t.Context(), home())
	if err != nil {
		t.Fatal(err)
	}
	to := func(node string, epoch int64) cluster.Volume {
		v := first
		v.Home, v.Epoch, v.Vaults, v.Store = node, epoch, []string{"n1"}, "/srv/"+node
		v.From = &cluster.Origin{Vault: "n2", Snapshot: "cluster-1-7"}
		return v
	}
	if err := c.TakeOver(t.Context(), 1, to("w", 2)); !errors.Is(err, cluster.ErrPlace) {
		t.Errorf("a witness takes over: %v", err)
	}
	if err := c.TakeOver(t.Context(), 1, to("n3", 1)); !errors.Is(err, cluster.ErrFenced) {
		t.Errorf("without a new epoch: %v", err)
	}
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wg.Go(func() { errs[i] = c.TakeOver(t.Context(), 1, to([]string{"n2", "n3"}[i%2], 2)) })
	}
	wg.Wait()
	v, err := c.Volume(t.Context(), "home")
	if err != nil || v.Epoch != 2 || v.From == nil {
		t.Fatalf("%+v, %v", v, err)
	}
	for i, err := range errs {
		won := v.Home == []string{"n2", "n3"}[i%2]
		if won && err != nil || !won && !errors.Is(err, cluster.ErrFenced) {
			t.Errorf("%s writes it, and the takeover by %d returned %v", v.Home, i, err)
		}
	}
	if err := c.SetOrigin(t.Context(), "home", 1, nil); !errors.Is(err, cluster.ErrFenced) {
		t.Errorf("the former home says that it has all: %v", err)
	}
	if err := c.SetOrigin(t.Context(), "home", 2, nil); err != nil {
		t.Error(err)
	}
	if v, err := c.Volume(t.Context(), "home"); err != nil || v.From != nil {
		t.Errorf("%+v, %v", v, err)
	}
	if err := c.TakeOver(t.Context(), 1, to("n3", 3)); !errors.Is(err, cluster.ErrFenced) {
		t.Errorf("a decision of before: %v", err)
	}
	gone := to("n3", 3)
	gone.Name = "none"
	if err := c.TakeOver(t.Context(), 2, gone); !errors.Is(err, cluster.ErrNoVolume) {
		t.Errorf("no such volume: %v", err)
	}
}

// While nothing can be decided, nothing is, and the error says so.
func TestVolumesWithoutRegister(t *testing.T) {
	c, fake := newCluster(t)
	fake.SetDown(true)
	ours := chunk.Default()
	_, err1 := c.AgreeOnDomain(t.Context(), "default", &ours, noon)
	_, err2 := c.Volumes(t.Context())
	for i, err := range []error{err1, err2, c.TakeOver(t.Context(), 1, home()), c.SetOrigin(t.Context(), "home", 1, nil)} {
		if !errors.Is(err, register.ErrUnavailable) {
			t.Errorf("call %d: %v", i, fmt.Sprint(err))
		}
	}
}
